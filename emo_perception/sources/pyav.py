"""Reading through PyAV, whose wheels carry ffmpeg: the source of machines without GStreamer's bindings."""

from __future__ import annotations

import heapq
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import Colorspace

from emo_perception.config import SourceConfig
from emo_perception.sources.base import Item, Kind, Location, SourceError, check_device
from emo_perception.sources.rtsp_probe import await_rtsp_answer
from emo_perception.sources.shaping import SAMPLE_RATE_HZ, AudioChunker, RateLimiter, scaled_size
from emo_perception.types import NS_PER_S, AudioChunk, Frame

log = logging.getLogger(__name__)

OPEN_S = 5.0
# ffmpeg can be interrupted only by its own time limit, and closing has to be done in two seconds.
STALL_S = 1.5
NO_PICTURE_S = 5.0
POLL_S = 0.1
# Images that come closer together than their stamps, by more than this, have been waiting.
BURST_STEP_NS = 5_000_000
BURST_OVER_S = 0.2
UNSPECIFIED_COLORSPACE = 2
HD_HEIGHT = 576  # taller video without a colour tag is BT.709, smaller BT.601 (ITU-R), as GStreamer has it


class PyAVReader:
    """One opening by ffmpeg. Files are opened once for the images and once for the sound: no queue between them."""

    def __init__(self, location: Location, config: SourceConfig, stop: threading.Event) -> None:
        self._location = location
        self._config = config
        self._stop = stop
        self.dropped = self.duration_ns = 0
        self._skipped = 0
        self._offset_ns: int | None = None  # monotonic clock minus stamps, of an item that has just arrived

    def items(self) -> Iterator[Item]:
        kind = self._location.kind
        if kind is Kind.RTSP:
            return self._rtsp_items()
        if kind is Kind.DEVICE:
            return self._device_items()
        return self._file_items()

    def age_ns(self, item: Item) -> int:
        if self._offset_ns is not None:
            return max(0, time.monotonic_ns() - self._offset_ns - item.stamp_ns)
        return item.end_ns - item.stamp_ns if isinstance(item, AudioChunk) else 0

    def _file_items(self) -> Iterator[Item]:
        if self._location.kind is Kind.TEST:
            image_address, sound_address = (
                "testsrc=size=640x480:rate=30",
                f"sine=frequency=440:sample_rate={SAMPLE_RATE_HZ}",
            )
            form = "lavfi"
        else:
            image_address = sound_address = self._location.address
            form = None
        streams: list[Iterator[Item]] = []
        containers = []
        try:
            containers.append(images := self._open(image_address, form))
            self.duration_ns = (images.duration or 0) * 1000  # ffmpeg counts in microseconds
            streams.append(self._decode(images, _video_stream(images, self._failure)))
            if self._config.audio:
                containers.append(sound := self._open(sound_address, form))
                if sound.streams.audio:
                    streams.append(self._decode(sound, sound.streams.audio[0]))
            yield from heapq.merge(*streams, key=attrgetter("stamp_ns"))
        finally:
            for container in containers:
                container.close()
        if self._skipped:
            log.warning("%s: %d damaged packets were skipped", self._location.shown, self._skipped)

    def _rtsp_items(self) -> Iterator[Item]:
        await_rtsp_answer(self._location, OPEN_S, self._stop)
        if self._stop.is_set():
            return
        with self._open(self._location.address, None, {"rtsp_transport": "tcp"}) as container:
            images = _video_stream(container, self._failure)
            sound = container.streams.audio[:1] if self._config.audio else []
            items = self._decode(container, images, *sound)
            yield from self._caught_up(items)
            yield from items

    def _caught_up(self, items: Iterator[Item]) -> list[Item]:
        """What ffmpeg received while it examined the stream, and now hands out at once: all sound, the last image.

        The burst is over when images no longer arrive closer than their stamps: that tells how old stamps are.
        """
        held: list[Item] = []
        began = improved = time.monotonic()
        best_ns = math.inf
        for item in items:
            held.append(item)
            if isinstance(item, Frame):
                offset_ns = time.monotonic_ns() - item.stamp_ns
                if offset_ns < best_ns - BURST_STEP_NS:
                    best_ns, improved = offset_ns, time.monotonic()
                self.dropped += sum(isinstance(i, Frame) for i in held[:-1])
                held = [i for i in held if i is item or isinstance(i, AudioChunk)]
                if time.monotonic() - improved > BURST_OVER_S:
                    self._offset_ns = int(best_ns)
                    return held
            elif time.monotonic() - began > NO_PICTURE_S:
                raise self._failure(f"sound, but no picture for {NO_PICTURE_S:.0f} s")
        return held

    def _device_items(self) -> Iterator[Item]:
        """Camera and microphone, each read by a thread of its own, for both block."""
        check_device(self._location.address)
        config = self._config
        # Both devices are stamped with the wall clock of the machine, which makes one time line of them.
        options = {
            "timestamps": "abs",
            "video_size": f"{config.width or 640}x{config.height or 480}",
            "framerate": f"{config.fps or 30:g}",
        }
        try:
            camera = self._open(self._location.address, "v4l2", options)
        except SourceError:
            camera = self._open(self._location.address, "v4l2", {"timestamps": "abs"})  # then in a mode of its own
        done = threading.Event()
        waiting: queue.SimpleQueue[Item | SourceError | None] = queue.SimpleQueue()
        self._pump(camera, _video_stream(camera, self._failure), waiting, done)
        microphone = self._open_microphone()
        if microphone is not None:
            self._pump(microphone, microphone.streams.audio[0], waiting, done)
        try:
            while not self._stop.is_set():
                try:
                    entry = waiting.get(timeout=POLL_S)
                except queue.Empty:
                    continue
                if entry is None:
                    return
                if isinstance(entry, SourceError):
                    raise entry
                yield entry
        finally:
            done.set()

    def _pump(self, container: Any, stream: Any, waiting: queue.SimpleQueue[Any], done: threading.Event) -> None:
        def run() -> None:
            try:
                for item in self._decode(container, stream):
                    if done.is_set():
                        break
                    waiting.put(item)
                waiting.put(None)
            except SourceError as error:
                waiting.put(error)
            finally:
                container.close()

        threading.Thread(target=run, name=f"source-{stream.type}", daemon=True).start()

    def _open_microphone(self) -> Any | None:
        name = self._config.audio_device
        if not self._config.audio or name == "none":
            return None
        try:
            return self._open("default" if name == "auto" else name, "alsa")
        except SourceError as error:
            log.warning("no microphone %r (%s): images go on without sound", name, error)
            return None

    def _open(self, address: str, form: str | None, options: dict[str, str] | None = None) -> Any:
        limits = (OPEN_S, STALL_S) if self._location.kind is Kind.RTSP else None
        try:
            return av.open(address, format=form, options=options or {}, timeout=limits)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise self._failure(f"cannot be opened: {_reason(error)}") from None

    def _decode(self, container: Any, *streams: Any) -> Iterator[Item]:
        """Frames and chunks of these streams of a container, in its own order, until its end."""
        cutter = AudioChunker(self._config.audio_chunk_ms, self._config.frame_id)
        limiter = RateLimiter(self._config.fps)
        resampler = _Resampler()
        packets = container.demux(*streams)
        if not self._location.live:
            streams[0].thread_type = "AUTO"
        while not self._stop.is_set():
            try:
                packet = next(packets)
                decoded = packet.decode()
            except StopIteration:
                break
            except av.error.InvalidDataError:
                self._skipped += 1
                continue
            except (av.error.FFmpegError, OSError) as error:
                raise self._failure(f"reading failed: {_reason(error)}") from None
            for part in decoded:
                if isinstance(part, av.VideoFrame):
                    yield from self._frames(part, limiter)
                else:
                    for stamp_ns, samples in resampler(part):
                        yield from cutter.push(stamp_ns, samples)
        for stamp_ns, samples in resampler(None):
            yield from cutter.push(stamp_ns, samples)
        yield from cutter.flush()

    def _frames(self, frame: Any, limiter: RateLimiter) -> Iterator[Frame]:
        """The decoded picture as RGB, scaled and upright; nothing when the rate limit drops it or it has no time."""
        stamp_ns = _stamp_ns(frame)
        if stamp_ns is None:
            self.dropped += 1
            return
        if not limiter.keep(stamp_ns):
            return
        config = self._config
        turned = frame.rotation % 180 != 0
        wanted = (config.height, config.width) if turned else (config.width, config.height)
        width, height = scaled_size((frame.width, frame.height), *wanted)
        space = frame.colorspace
        if space == UNSPECIFIED_COLORSPACE:
            space = Colorspace.ITU709 if frame.height > HD_HEIGHT else Colorspace.ITU601
        image = frame.to_ndarray(format="rgb24", width=width, height=height, src_colorspace=space)
        if frame.rotation:
            image = np.rot90(image, round(frame.rotation / 90))
        yield Frame(stamp_ns, np.ascontiguousarray(image), config.frame_id)

    def _failure(self, what: str) -> SourceError:
        if self._location.kind is Kind.FILE:
            return SourceError(f"{self._location.shown}: cannot be played as a video: {what}", permanent=True)
        return SourceError(f"{self._location.shown}: {what}")


class _Resampler:
    """To 16 kHz mono int16; starts anew when the format of the sound changes in the middle."""

    def __init__(self) -> None:
        self._form: tuple[str, str, int] | None = None
        self._inner: Any = None

    def __call__(self, frame: Any) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.int16]]]]:
        """Stamp and samples of what comes out; ``None`` flushes."""
        if frame is not None:
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            if form != self._form:
                if self._inner is not None:
                    yield from self._resample(None)
                self._form = form
                self._inner = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
        if self._inner is not None:
            yield from self._resample(frame)

    def _resample(self, frame: Any) -> Iterator[tuple[int, np.ndarray[Any, np.dtype[np.int16]]]]:
        for part in self._inner.resample(frame):
            stamp_ns = _stamp_ns(part)
            if stamp_ns is not None:
                yield stamp_ns, part.to_ndarray().reshape(-1)


def _video_stream(container: Any, failure: Callable[[str], SourceError]) -> Any:
    """The first stream of moving images; the cover picture of a song is none."""
    for stream in container.streams.video:
        if "attached_pic" not in str(stream.disposition):
            return stream
    found = "only sound" if container.streams.audio else "neither images nor sound"
    container.close()
    raise failure(f"expected a video, found {found}")


def _stamp_ns(frame: Any) -> int | None:
    if frame.pts is None or frame.time_base is None:
        return None
    return int(frame.pts * frame.time_base.numerator * NS_PER_S // frame.time_base.denominator)


def _reason(error: Exception) -> str:
    if isinstance(error, av.error.ExitError):
        return f"no data for {STALL_S:.1f} s"
    return getattr(error, "strerror", None) or str(error)
