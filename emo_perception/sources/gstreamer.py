"""Reading through GStreamer 1.x: whatever container, codec, camera or stream its plugins know.

Importing this module fails where the bindings (``gi``, from apt) are missing; that is how it is found out.
"""

from __future__ import annotations

import ctypes
import heapq
import logging
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

with suppress(OSError):
    # GStreamer brings libunwind, whose symbols would stand before those of libgcc: the first C++ exception in OpenVINO
    # would end the process. Unless libgcc's are there already.
    ctypes.CDLL("libgcc_s.so.1", mode=ctypes.RTLD_GLOBAL)

import gi
import numpy as np

from emo_perception.config import SourceConfig
from emo_perception.sources.base import Item, Kind, Location, SourceError, check_device
from emo_perception.sources.shaping import SAMPLE_RATE_HZ, AudioChunker, RateLimiter
from emo_perception.types import NS_PER_S, Frame

gi.require_version("Gst", "1.0")
gi.require_version("GstPbutils", "1.0")
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ImportWarning)  # PyGObject's importer is of an older fashion than Python
    from gi.repository import Gst, GstPbutils

Gst.init(None)
GstPbutils.pb_utils_init()
log = logging.getLogger(__name__)

# A live source without a picture for this long is given up (and opened again); a file that stands still has failed.
STALL_S = 5.0
OPEN_S = 15.0
POLL_S = 0.1
RTSP_LATENCY_MS = 200
# Asked of a camera, unless the configuration asks for something else: every webcam has it at full rate.
DEVICE_CAPS = "width={w},height={h},framerate={f}/1"

# What each kind needs, and the Debian package that has it.
BASE, GOOD = "gstreamer1.0-plugins-base", "gstreamer1.0-plugins-good"
ELEMENTS = {
    "appsink": BASE, "videoconvert": BASE, "videoscale": BASE, "audioconvert": BASE, "audioresample": BASE,
    "videoflip": GOOD,
}  # fmt: skip
KIND_ELEMENTS = {
    Kind.FILE: {"uridecodebin": BASE, "qtdemux": GOOD},
    Kind.RTSP: {"uridecodebin": BASE, "rtspsrc": GOOD},
    Kind.DEVICE: {"v4l2src": GOOD, "decodebin": BASE},
    Kind.TEST: {"videotestsrc": BASE, "audiotestsrc": BASE},
}
H264_PACKAGE = "gstreamer1.0-libav"


def lacking(location: Location) -> str:
    """What is missing to read this address, with its Debian package; empty when nothing is."""
    for name, package in {**ELEMENTS, **KIND_ELEMENTS[location.kind]}.items():
        if Gst.ElementFactory.find(name) is None:
            return f"GStreamer's element {name} is missing (package {package})"
    if location.kind in (Kind.FILE, Kind.RTSP):
        decoders = Gst.ElementFactory.list_get_elements(Gst.ELEMENT_FACTORY_TYPE_DECODER, Gst.Rank.MARGINAL)
        h264 = Gst.Caps.from_string("video/x-h264")
        if not Gst.ElementFactory.list_filter(decoders, h264, Gst.PadDirection.SINK, False):
            return f"GStreamer has no H.264 decoder (package {H264_PACKAGE})"
    return ""


class GStreamerReader:
    """One pipeline, from opening to end. Images are converted to RGB and scaled inside it, after thinning out."""

    def __init__(self, location: Location, config: SourceConfig, stop: threading.Event) -> None:
        self._location = location
        self._config = config
        self._stop = stop
        self._pipeline: Any = Gst.Pipeline.new()
        self._sinks: dict[str, Any] = {}
        self._wake = threading.Event()
        self._complete = threading.Event()  # no further streams will show up
        self._missing: list[str] = []
        self.dropped = self.duration_ns = 0
        self._offered = self._taken = 0  # images that reached a live sink, and those that were there when it was read

    def items(self) -> Iterator[Item]:
        try:
            self._build()
            if self._pipeline.set_state(Gst.State.PLAYING) == Gst.StateChangeReturn.FAILURE:
                self._raise_errors()
                raise self._error("the pipeline does not start")
            self._await(self._complete.is_set, OPEN_S)
            if self._stop.is_set():
                return
            self._require_video()
            if self._location.live:
                yield from self._live_items()
            else:
                streams = [self._frames(), self._chunks()] if "audio" in self._sinks else [self._frames()]
                yield from heapq.merge(*streams, key=attrgetter("stamp_ns"))
                self.duration_ns = max(0, self._pipeline.query_duration(Gst.Format.TIME)[1])
        finally:
            self._pipeline.set_state(Gst.State.NULL)

    def age_ns(self, item: Item) -> int:
        running_ns = self._pipeline.get_clock().get_time() - self._pipeline.get_base_time()
        return max(0, int(running_ns) - item.stamp_ns)

    # ---- building

    def _build(self) -> None:
        kind = self._location.kind
        if kind is Kind.DEVICE:
            self._build_camera()
        elif kind is Kind.TEST:
            self._build_pattern()
        else:
            self._build_decoded()

    def _build_pattern(self) -> None:
        self._pipeline.add(
            picture := _bin("videotestsrc ! capsfilter caps=video/x-raw,width=640,height=480,framerate=30/1")
        )
        picture.link(self._video_branch())
        if self._config.audio:
            self._pipeline.add(
                tone := _bin(f"audiotestsrc samplesperbuffer=800 ! capsfilter caps=audio/x-raw,rate={SAMPLE_RATE_HZ}")
            )
            tone.link(self._audio_branch())
        self._complete.set()

    def _build_decoded(self) -> None:
        decoder = _make("uridecodebin")
        rtsp = self._location.kind is Kind.RTSP
        decoder.set_property("uri", self._location.address if rtsp else Path(self._location.address).as_uri())
        if rtsp:
            decoder.connect("source-setup", _set_up_rtsp)
        self._add_decoder(decoder)

    def _add_decoder(self, decoder: Any) -> None:
        decoder.connect("pad-added", self._on_pad)
        decoder.connect("no-more-pads", lambda _: self._complete.set())
        self._pipeline.add(decoder)

    def _build_camera(self) -> None:
        check_device(self._location.address)
        wanted = DEVICE_CAPS.format(
            w=self._config.width or 640, h=self._config.height or 480, f=max(1, round(self._config.fps or 30))
        )
        # The first caps are only the preference; the general ones behind let any camera through.
        caps = f"video/x-raw,{wanted};image/jpeg,{wanted};video/x-raw;image/jpeg"
        camera = _bin(f'v4l2src name=camera ! capsfilter caps="{caps}"')
        camera.get_by_name("camera").set_property("device", self._location.address)
        self._pipeline.add(camera)
        self._add_decoder(decoder := _make("decodebin"))
        camera.link(decoder)
        microphone = _open_microphone(self._config.audio_device) if self._config.audio else None
        if microphone is not None:
            self._pipeline.add(microphone)
            microphone.link(self._audio_branch())

    def _on_pad(self, _: Any, pad: Any) -> None:
        """A decoded stream has shown up (called by a thread of GStreamer): take the first of images and of sound."""
        media = (pad.get_current_caps() or pad.query_caps(None)).get_structure(0).get_name()
        if media.startswith("video/") and "video" not in self._sinks:
            branch = self._video_branch()
        elif media.startswith("audio/") and "audio" not in self._sinks and self._config.audio:
            branch = self._audio_branch()
        else:
            return
        branch.sync_state_with_parent()
        pad.link(branch.get_static_pad("sink"))

    def _video_branch(self) -> Any:
        caps = "video/x-raw,format=RGB"
        if self._config.width:
            caps += f",width={self._config.width}"
        if self._config.height:
            caps += f",height={self._config.height}"
        if bool(self._config.width) != bool(self._config.height):
            caps += ",pixel-aspect-ratio=1/1"  # the other side then follows from the aspect ratio
        # An image that nobody takes is replaced by the newer one when live; a file waits.
        keep = "max-buffers=1 drop=true" if self._location.live else "max-buffers=2"
        # The first conversion does nothing but for the rare formats that videoflip does not know, as ten-bit ones.
        turn = "videoconvert ! videoflip video-direction=auto"
        branch = self._branch("video", f"{turn} ! videoscale ! videoconvert ! {caps}", keep)
        if self._config.fps:
            limiter = RateLimiter(self._config.fps)
            branch.get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, _thin_out, limiter)
        return branch

    def _audio_branch(self) -> Any:
        caps = f"audio/x-raw,format=S16LE,channels=1,rate={SAMPLE_RATE_HZ},layout=interleaved"
        keep = "max-buffers=0" if self._location.live else "max-buffers=64"  # never dropped; a file waits
        return self._branch("audio", f"audioconvert ! audioresample ! {caps}", keep)

    def _branch(self, name: str, elements: str, keep: str) -> Any:
        asynchronous = "false" if self._location.live else "true"  # a live stream must not wait for a mute microphone
        branch = _bin(f"{elements} ! appsink name={name} sync=false async={asynchronous} {keep}")
        sink = branch.get_by_name(name)
        if self._location.live:
            sink.set_property("emit-signals", True)
            sink.connect("new-sample", self._on_sample)
        self._pipeline.add(branch)
        self._sinks[name] = sink
        return branch

    def _on_sample(self, sink: Any) -> Any:
        self._offered += sink.get_name() == "video"
        self._wake.set()
        return Gst.FlowReturn.OK

    # ---- reading

    def _live_items(self) -> Iterator[Item]:
        chunker = self._chunker()
        heard_from = time.monotonic()
        while not self._stop.is_set():
            self._wake.wait(POLL_S)
            self._wake.clear()
            for sample in self._waiting("audio"):
                yield from chunker.push(_stamp_ns(sample), _samples(sample))
            offered = self._offered
            for sample in self._waiting("video"):
                heard_from = time.monotonic()
                self._taken += 1
                yield self._frame(sample)
            self.dropped = max(self.dropped, offered - self._taken)
            self._raise_errors()
            if self._sinks["video"].get_property("eos"):
                return
            if time.monotonic() - heard_from > STALL_S:
                raise self._error(f"no picture for {STALL_S:.0f} s")

    def _waiting(self, name: str) -> Iterator[Any]:
        sink = self._sinks.get(name)
        while sink is not None and (sample := sink.emit("try-pull-sample", 0)) is not None:
            if _stamp_ns(sample) >= 0:  # an undated one is left, and counted by being offered, not taken
                yield sample

    def _frames(self) -> Iterator[Item]:
        for sample in self._pulled("video"):
            yield self._frame(sample)

    def _chunks(self) -> Iterator[Item]:
        chunker = self._chunker()
        for sample in self._pulled("audio"):
            yield from chunker.push(_stamp_ns(sample), _samples(sample))
        yield from chunker.flush()

    def _pulled(self, name: str) -> Iterator[Any]:
        """Every sample of a file, waited for, to its end."""
        sink = self._sinks[name]
        heard_from = time.monotonic()
        while not self._stop.is_set():
            sample = sink.emit("try-pull-sample", int(POLL_S * NS_PER_S))
            if sample is not None:
                if _stamp_ns(sample) >= 0:
                    yield sample
                else:
                    self.dropped += name == "video"
                heard_from = time.monotonic()
            elif sink.get_property("eos"):
                self._raise_errors()
                return
            else:
                self._raise_errors()
                if time.monotonic() - heard_from > STALL_S:
                    raise self._error(f"GStreamer gives no {name} for {STALL_S:.0f} s; try source.backend:=pyav")

    def _frame(self, sample: Any) -> Frame:
        shape = sample.get_caps().get_structure(0)
        width, height = shape.get_value("width"), shape.get_value("height")
        stride = (3 * width + 3) // 4 * 4  # GStreamer pads the rows of RGB to four bytes
        buffer = sample.get_buffer()
        mapped, info = buffer.map(Gst.MapFlags.READ)
        if not mapped:
            raise self._error("an image of the pipeline cannot be mapped")
        try:
            rows = np.frombuffer(info.data, np.uint8, stride * height).reshape(height, stride)
            image = rows[:, : 3 * width].reshape(height, width, 3).copy()
        finally:
            buffer.unmap(info)
        return Frame(_stamp_ns(sample), image, self._config.frame_id)

    def _chunker(self) -> AudioChunker:
        return AudioChunker(self._config.audio_chunk_ms, self._config.frame_id)

    # ---- trouble

    def _await(self, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition() and not self._stop.is_set():
            self._raise_errors(wait_s=POLL_S)
            if time.monotonic() > deadline:
                raise self._error(f"no answer within {timeout_s:.0f} s")

    def _require_video(self) -> None:
        self._raise_errors()
        if "video" not in self._sinks:
            found = "only sound" if "audio" in self._sinks else "neither images nor sound"
            raise self._error(f"expected a video, found {found}")

    def _raise_errors(self, wait_s: float = 0.0) -> None:
        """Read the bus: remember decoders that are missing, raise the first error."""
        kinds = Gst.MessageType.ERROR | Gst.MessageType.ELEMENT
        bus = self._pipeline.get_bus()
        while (message := bus.timed_pop_filtered(int(wait_s * NS_PER_S), kinds)) is not None:
            wait_s = 0.0
            if message.type == Gst.MessageType.ERROR:
                raise self._error(_error_text(message))
            if GstPbutils.is_missing_plugin_message(message):
                self._missing.append(GstPbutils.missing_plugin_message_get_description(message))
                log.warning("%s: %s", self._location.shown, self._missing_help())

    def _missing_help(self) -> str:
        return (
            f"GStreamer lacks {', '.join(self._missing)}: sudo apt install gstreamer1.0-libav gstreamer1.0-plugins-bad "
            "gstreamer1.0-plugins-ugly, or source.backend:=pyav"
        )

    def _error(self, what: str) -> SourceError:
        if self._missing:
            what = f"{what} ({self._missing_help()})"
        if self._location.kind is Kind.FILE:
            return SourceError(f"{self._location.shown}: cannot be played as a video: {what}", permanent=True)
        return SourceError(f"{self._location.shown}: {what}", permanent=bool(self._missing))


def _error_text(message: Any) -> str:
    """GStreamer's sentence, and the detail that its debug text may have below the place in the code."""
    error, debug = message.parse_error()
    details = (debug or "").splitlines()[1:]
    return f"{error.message.rstrip('.')} ({details[-1].strip()})" if details else str(error.message)


def _make(name: str) -> Any:
    element = Gst.ElementFactory.make(name)
    if element is None:
        raise SourceError(f"GStreamer's element {name} is missing", permanent=True)
    return element


def _bin(description: str) -> Any:
    return Gst.parse_bin_from_description(description, True)


def _set_up_rtsp(_: Any, source: Any) -> None:
    source.set_property("latency", RTSP_LATENCY_MS)
    Gst.util_set_object_arg(source, "protocols", "tcp")  # UDP loses packets and does not pass firewalls


def _thin_out(_: Any, info: Any, limiter: RateLimiter) -> Any:
    """Drop surplus images before they cost a conversion."""
    pts = info.get_buffer().pts
    keep = pts == Gst.CLOCK_TIME_NONE or limiter.keep(pts)
    return Gst.PadProbeReturn.OK if keep else Gst.PadProbeReturn.DROP


def _open_microphone(name: str) -> Any | None:
    """The first sound source that opens; None, with a warning, where there is none: images go on without."""
    if name == "none":
        return None
    refusals = []
    for factory in ("pulsesrc", "alsasrc"):
        element = Gst.ElementFactory.make(factory)
        if element is None:
            refusals.append(
                f"{factory} is not installed (package {GOOD if factory == 'pulsesrc' else 'gstreamer1.0-alsa'})"
            )
            continue
        if name != "auto":
            element.set_property("device", name)
        if element.set_state(Gst.State.READY) != Gst.StateChangeReturn.FAILURE:
            return element
        element.set_state(Gst.State.NULL)
        refusals.append(f"{factory} does not open")
    log.warning("no microphone %r (%s): images go on without sound", name, "; ".join(refusals))
    return None


def _stamp_ns(sample: Any) -> int:
    """Running time of a sample; -1 for one without a time or outside of what the stream presents."""
    pts = sample.get_buffer().pts
    if pts == Gst.CLOCK_TIME_NONE:
        return -1
    running_ns = sample.get_segment().to_running_time(Gst.Format.TIME, pts)
    return -1 if running_ns == Gst.CLOCK_TIME_NONE else int(running_ns)


def _samples(sample: Any) -> np.ndarray[Any, np.dtype[np.int16]]:
    buffer = sample.get_buffer()
    return np.frombuffer(buffer.extract_dup(0, buffer.get_size()), "<i2").astype(np.int16, copy=False)
