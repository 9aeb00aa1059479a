"""A source of images and sound: one clock over loops and reconnections, live to callbacks or offline as an iterator."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from emo_perception.config import SourceConfig
from emo_perception.sources.base import Item, Kind, Location, Reader, SourceError, SourceState, SourceStatus
from emo_perception.sources.outbox import Outbox
from emo_perception.types import NS_PER_S, AudioChunk, Frame

log = logging.getLogger(__name__)

ReaderFactory = Callable[[threading.Event], Reader]

CLOSE_S = 2.0
# Behind by more than this, a paced file is reported as too heavy for the machine.
LATE_NS = NS_PER_S
# A file that is this much shorter than it says has lost its end.
CUT_OFF_NS = NS_PER_S // 2
CLOCK_JUMP_NS = 5 * NS_PER_S
TICK_NS = NS_PER_S // 30


class StreamTimeline:
    """Places the items of successive openings on one stream time: zero at the first item, never going back."""

    def __init__(self) -> None:
        self._shift_ns: int | None = None
        self._base_ns = 0
        self._last_frame_ns: int | None = None
        self._last_audio_ns: int | None = None
        self._frame_step_ns = TICK_NS
        self.out_of_order = 0

    @property
    def end_ns(self) -> int:
        """Where the next opening may begin: after the last image has been seen and the last sample heard."""
        frames_end = 0 if self._last_frame_ns is None else self._last_frame_ns + self._frame_step_ns
        return max(frames_end, self._last_audio_ns or 0)

    def begin(self, base_ns: int) -> None:
        """The next item is the first of a new opening and is placed at ``base_ns``."""
        self._base_ns, self._shift_ns = base_ns, None

    def place(self, item: Item) -> Item | None:
        """The item at its stream time; None, counted in ``out_of_order``, for one that would go back in time."""
        if self._shift_ns is None:
            self._shift_ns = self._base_ns - item.stamp_ns
        stamp_ns = item.stamp_ns + self._shift_ns
        if stamp_ns < self._earliest_ns(item):
            self.out_of_order += 1
            return None
        placed = replace(item, stamp_ns=stamp_ns)
        if isinstance(placed, AudioChunk):
            self._last_audio_ns = placed.end_ns
        else:
            if self._last_frame_ns is not None:
                self._frame_step_ns = min(stamp_ns - self._last_frame_ns, NS_PER_S)
            self._last_frame_ns = stamp_ns
        return placed

    def _earliest_ns(self, item: Item) -> float:
        """Images follow each other strictly; sound may overlap by the jitter of a live stream."""
        if isinstance(item, Frame):
            return -math.inf if self._last_frame_ns is None else self._last_frame_ns + 1
        return -math.inf if self._last_audio_ns is None else self._last_audio_ns - TICK_NS


class Source:
    """A camera, file, stream, picture or test pattern, opened by :func:`emo_perception.sources.open_source`.

    Use it once, in one of two ways. Offline: ``for item in source`` yields :class:`Frame` and :class:`AudioChunk` in
    stamp order, everything, as fast as it is taken, twice the same; raises :class:`SourceError`. Live: :meth:`start`
    pushes items and states to callbacks from a thread of the source; images that are not taken in time are replaced
    by newer ones and counted, sound is never dropped; cameras and streams are opened again when they fail.

    Stamps are integer nanoseconds of stream time: zero at the first item, increasing across loops and reconnections.
    ``zero_monotonic_ns`` is the reading of ``time.monotonic_ns`` at stream time zero, known from the first item on:
    whoever needs another clock adds its offset to that.
    """

    def __init__(self, location: Location, config: SourceConfig, backend: str, make_reader: ReaderFactory) -> None:
        self.location = location
        self.backend = backend
        self.zero_monotonic_ns: int | None = None
        self._config = config
        self._make_reader = make_reader
        self._timeline = StreamTimeline()
        self._stop = threading.Event()
        self._outbox = Outbox(lossless=not location.live and not config.realtime)
        self._threads: list[threading.Thread] = []
        self._used = False
        self._late_reported = False
        self._reader: Reader | None = None
        self._lost_before = 0  # images lost in readers that are done
        self._stamp_ns = self._frames = self._chunks = self._loops = 0
        self._on_frame: Callable[[Frame], None]
        self._on_audio: Callable[[AudioChunk], None]
        self._on_state: Callable[[SourceStatus], None]

    def __iter__(self) -> Iterator[Item]:
        self._claim()
        while not self._stop.is_set():
            for item in self._play():
                self._count(item)
                yield item
            if not self._config.loop or self.location.live:
                return

    def start(
        self,
        on_frame: Callable[[Frame], None],
        on_audio: Callable[[AudioChunk], None],
        on_state: Callable[[SourceStatus], None],
    ) -> None:
        """Begin to read; the callbacks are called one at a time, in order, from one thread of the source."""
        self._claim()
        self._on_frame, self._on_audio, self._on_state = on_frame, on_audio, on_state
        for name, target in (("read", self._read), ("deliver", self._deliver)):
            thread = threading.Thread(target=target, name=f"source-{name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Stop and end the threads, within two seconds; nothing is delivered afterwards. Safe to call twice."""
        self._stop.set()
        self._outbox.close(discard=True)
        deadline = time.monotonic() + CLOSE_S
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))
                if thread.is_alive():
                    log.warning("%s: %s is still held up by the driver", self.location.shown, thread.name)

    def status(self, state: SourceState, detail: str = "") -> SourceStatus:
        """A status with the counters of this moment."""
        return SourceStatus(
            state,
            self.location.shown,
            self.backend,
            detail,
            self._stamp_ns,
            self._frames,
            self._chunks,
            self._loops,
            self._outbox.dropped + self._timeline.out_of_order + self._lost(),
        )

    def _claim(self) -> None:
        if self._used:
            raise RuntimeError("this source has been used: open_source() gives a new one")
        self._used = True

    def _lost(self) -> int:
        return self._lost_before + (self._reader.dropped if self._reader is not None else 0)

    def _count(self, item: Item) -> None:
        self._stamp_ns = item.stamp_ns
        if isinstance(item, Frame):
            self._frames += 1
        else:
            self._chunks += 1

    def _play(self) -> Iterator[Item]:
        """One opening, from first to last item, on stream time."""
        self._lost_before = self._lost()
        self._reader = reader = self._make_reader(self._stop)
        base_ns = self._base_ns()
        self._timeline.begin(base_ns)
        items = reader.items()
        empty = True
        try:
            for item in items:
                if self._stop.is_set():
                    return
                placed = self._timeline.place(item)
                if placed is None:
                    continue
                if self.zero_monotonic_ns is None:
                    age_ns = reader.age_ns(item) if self.location.live else 0
                    self.zero_monotonic_ns = time.monotonic_ns() - age_ns - placed.stamp_ns
                elif self.location.live:
                    self._check_clock(placed)
                empty = empty and not isinstance(placed, Frame)
                yield placed
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        if empty and not self._stop.is_set():
            raise SourceError(f"{self.location.shown}: not one image could be decoded", permanent=True)
        if not self.location.live and not self._stop.is_set():
            self._loops += 1
            self._check_length(self._timeline.end_ns - base_ns, reader.duration_ns)

    def _check_length(self, played_ns: int, announced_ns: int) -> None:
        if played_ns < announced_ns - CUT_OFF_NS:
            log.warning(
                "%s: ends after %.1f s of the %.1f s that it announces: is it cut off?",
                self.location.shown,
                played_ns / NS_PER_S,
                announced_ns / NS_PER_S,
            )

    def _check_clock(self, item: Item) -> None:
        """A camera that sets its clock, or runs away over days, is opened again: that starts from the present."""
        ahead_ns = item.stamp_ns - (time.monotonic_ns() - (self.zero_monotonic_ns or 0))
        if abs(ahead_ns) > CLOCK_JUMP_NS:
            raise SourceError(f"{self.location.shown}: its clock is off by {ahead_ns / NS_PER_S:.1f} s")

    def _base_ns(self) -> int:
        """Stream time at which an opening begins: a file follows on, a live source has missed what passed meanwhile."""
        if self.zero_monotonic_ns is None or not self.location.live:
            return self._timeline.end_ns
        return max(self._timeline.end_ns, time.monotonic_ns() - self.zero_monotonic_ns)

    def _read(self) -> None:
        """Body of the reading thread."""
        try:
            if self.location.live:
                self._read_live()
            else:
                self._read_file()
        except SourceError as error:
            self._say(SourceState.FAILED, str(error))
        except Exception as error:  # the user must learn of it; a dead thread alone would look like a silent camera
            log.exception("%s: reading failed", self.location.shown)
            self._say(SourceState.FAILED, f"{self.location.shown}: {type(error).__name__}: {error}")
        self._outbox.close()

    def _read_file(self) -> None:
        self._say(SourceState.OPENING)
        playing = False
        while not self._stop.is_set():
            for item in self._play():
                if not playing:
                    playing = True
                    self._say(SourceState.PLAYING)
                if self._config.realtime and not self._paced(item):
                    return
                self._outbox.put(item)
            if not self._config.loop:
                break
        if not self._stop.is_set():
            self._say(
                SourceState.ENDED, "end of the picture" if self.location.kind is Kind.PICTURE else "end of the file"
            )

    def _read_live(self) -> None:
        self._say(SourceState.OPENING)
        wait_s = self._config.reconnect_first_s
        while not self._stop.is_set():
            reason = f"{self.location.shown}: the stream ended"
            playing = False
            try:
                for item in self._play():
                    if not playing:
                        playing = True
                        wait_s = self._config.reconnect_first_s
                        self._say(SourceState.PLAYING)
                    self._outbox.put(item)
            except SourceError as error:
                if error.permanent:
                    raise
                reason = str(error)
            if self._stop.is_set():
                return
            wait_s = min(wait_s, self._config.reconnect_max_s)
            self._say(SourceState.RECONNECTING, f"{reason}; trying again in {wait_s:.1f} s")
            self._stop.wait(wait_s)
            wait_s *= 2

    def _paced(self, item: Item) -> bool:
        """Wait until the item is due; False when the source was closed meanwhile."""
        due_ns = (self.zero_monotonic_ns or 0) + item.stamp_ns
        early_ns = due_ns - time.monotonic_ns()
        if early_ns < -LATE_NS and not self._late_reported:
            self._late_reported = True
            log.warning(
                "%s: played slower than its own speed (%.1f s behind): lower source.width or source.fps",
                self.location.shown,
                -early_ns / NS_PER_S,
            )
        return not self._stop.wait(max(0, early_ns) / NS_PER_S)

    def _say(self, state: SourceState, detail: str = "") -> None:
        self._outbox.put(self.status(state, detail))

    def _deliver(self) -> None:
        """Body of the delivering thread: the only one that calls the user."""
        while (entry := self._outbox.take()) is not None:
            try:
                if isinstance(entry, SourceStatus):
                    self._on_state(self.status(entry.state, entry.detail))
                    continue
                self._count(entry)
                if isinstance(entry, Frame):
                    self._on_frame(entry)
                else:
                    self._on_audio(entry)
            except Exception:  # the user's mistake must not end the source
                log.exception("%s: a callback failed", self.location.shown)
