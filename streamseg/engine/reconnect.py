"""A live source that is opened again when it was lost."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from streamseg.engine.backoff import Backoff
from streamseg.engine.remembered import remember, summed
from streamseg.errors import SourceError, redact
from streamseg.frame import Frame, Opener, Packet, Source, Track, VideoInfo

__all__ = ["LIVE_TIME_BASE", "Reconnecting"]

LIVE_TIME_BASE = Fraction(1, 90000)

_log = logging.getLogger(__name__)
# How often a source that is waited for is asked whether it is there again.
_LOOK_EVERY_S = 0.2
# A step of the stream's clock that is longer than ours by more than this, or back by as much, is a jump of it.
_CLOCK_JUMP_S = 1.0
# A stream that stays behind its own clock for so long has paused; one that catches up was only held up on the way.
_BEHIND_FOR_S = 1.0
_SMALLEST_STEP_S = 0.001
# What was open for so long was worth opening: the waits begin anew. What is lost as soon as it is open would else be
# tried, and told, every second for months.
_STEADY_S = 1.5


class Reconnecting:
    """A live source that comes back; a `Source`.

    Whatever is opened again, the frames keep the first geometry and their time goes on: while connected it follows the
    stream's clock, and across a gap the monotonic one; so it does from the first `read` on, where nothing was there
    yet. The clean end of a live source counts as its loss, unless it told its length before.

    Args:
        opener: opens it. When its `ready` turns from False to True, a wait between two tries ends early.
        info: what every frame must be like; its `time_base` must be `LIVE_TIME_BASE`.
        first: the source, where it is open already.
        fit: makes a frame of another size or colour like `info` says.
        shift: ``shift(packet, track, seconds)``: the packet on another track, that much later.
        form: what has to be the same for sound to go on under the same track after a reconnect.
        wanted: whether anybody wants pictures; while not, the source is closed.
        backoff: between tries.
    """

    def __init__(
        self,
        opener: Opener,
        info: VideoInfo,
        *,
        first: Source | None = None,
        fit: Callable[[Frame], Frame] = lambda frame: frame,
        shift: Callable[[Packet, Track, float], Packet] | None = None,
        form: Callable[[Track], Hashable] = lambda track: (track.index, track.kind, track.codec),
        wanted: Callable[[], bool] = lambda: True,
        backoff: Backoff | None = None,
    ) -> None:
        self._opener = opener
        self._info = info
        self._fit = fit
        self._shift = shift
        self._form = form
        self._wanted = wanted
        self._backoff = backoff or Backoff()
        self._stopping = threading.Event()
        # Of `_current` and `_past`, which other threads look at; a signal may `interrupt` the one that holds it.
        self._lock = threading.RLock()
        self._current = first
        self._state = "live" if first is not None else "connecting"
        self._reason = ""
        self._counts: Counter[str] = Counter()
        self._past: Counter[str] = Counter()  # counted by sources that are closed
        self._notices: list[str] = list(first.notices) if first is not None else []
        self._lost_at: float | None = None if first is not None else time.monotonic()
        self._last: Frame | None = None
        self._since = 0.0  # when the first frame of this connection was captured
        self._began: float | None = None  # when pictures were first asked for
        self._from_start = first is not None  # our time begins with its first frame
        self._offset_s: float | None = None  # from the stream's clock to ours; None before its first frame
        self._stream_s = 0.0
        self._lag_s = 0.0  # the least that the stream was behind its own clock, between the two clocks' zeros
        self._behind_since: float | None = None
        self._index = 0
        self._packets: list[Packet] = []
        self._tracks = {form(track): track for track in info.tracks}
        self._source_index = 0

    @property
    def info(self) -> VideoInfo:
        """What every frame is like, with the tracks seen so far."""
        return replace(self._info, tracks=tuple(self._tracks.values()))

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return tuple(self._notices)

    @property
    def counts(self) -> Mapping[str, int]:
        """Irregularities so far, of all connections together."""
        with self._lock:
            current = self._current
            return summed(self._counts, self._past, current.counts if current is not None else {})

    @property
    def state(self) -> str:
        """``connecting`` (never seen yet), ``live``, ``reconnecting``, ``idle`` (nobody watches) or ``ended``."""
        return "ended" if self._stopping.is_set() else self._state

    @property
    def reason(self) -> str:
        """Why it is not live; empty when it is."""
        return self._reason

    def read(self) -> Frame | None:
        """The next frame; waits as long as it takes. None after `interrupt`."""
        if self._began is None:
            self._began = time.monotonic()
        while not self._stopping.is_set():
            if not self._wanted():
                self._rest()
                continue
            if self._state == "idle":
                self._state = "connecting"
            source = self._current or self._connect()
            if source is None:
                continue
            try:
                frame = source.read()
            except SourceError as error:
                self._lose(str(error))
                continue
            if frame is None and source.info.frame_count is not None:
                return None  # it said how long it would be
            if frame is None:
                self._lose("the stream ended")
                continue
            return self._place(frame, source)
        return None

    def take_packets(self) -> list[Packet]:
        """The packets of the copied tracks since the last call, on the output's clock."""
        packets, self._packets = self._packets, []
        return packets

    def interrupt(self) -> None:
        """Make `read` end; from any thread."""
        self._stopping.set()
        self._opener.interrupt()
        with self._lock:
            if self._current is not None:
                self._current.interrupt()

    def close(self) -> None:
        """Let go of the source and its opener."""
        self.interrupt()
        self._drop_source()
        self._opener.close()

    def _connect(self) -> Source | None:
        try:
            source = self._opener()
        except SourceError as error:
            if self._stopping.is_set():
                return None
            reason = redact(str(error))
            if reason != self._reason:
                _log.warning("%s: %s; trying again", self._info.name, reason)
                self._reason = reason
            self._counts["failed tries to connect"] += 1
            self._wait(self._backoff.next_s())
            return None
        self._info = replace(self._info, decoder=source.info.decoder)
        with self._lock:
            self._current = source
            if self._stopping.is_set():
                source.interrupt()
        # A stream that opens but never gives a picture is no reason to try again at full speed.
        self._offset_s = None
        return source

    def _wait(self, wait_s: float) -> None:
        deadline = time.monotonic() + wait_s
        # Who answers now and could not be opened is not asked again and again.
        absent = self._opener.ready() is False
        while (left_s := deadline - time.monotonic()) > 0 and not self._stopping.wait(min(left_s, _LOOK_EVERY_S)):
            if absent and self._opener.ready():
                return

    def _rest(self) -> None:
        if self._state != "idle":
            self._drop_source()
            self._state, self._reason = "idle", ""
            _log.info("%s: closed, nobody watches", self._info.name)
        self._lost_at = None
        self._stopping.wait(_LOOK_EVERY_S)

    def _lose(self, reason: str) -> None:
        if self._stopping.is_set():
            return
        self._drop_source()
        self._reason = redact(reason)
        self._lost_at = time.monotonic()
        seen = self._offset_s is not None
        self._state = "reconnecting" if self._last is not None else "connecting"
        if seen:
            self._counts["connections lost"] += 1
            if self._last is not None and self._last.captured_at - self._since >= _STEADY_S:
                self._backoff.reset()
            _log.warning("%s: lost: %s; connecting again", self._info.name, self._reason)
        if not seen or self._opener.ready():
            # It answers, and yet it was lost: give it time. A server that is gone is waited for by `_connect`.
            self._wait(self._backoff.next_s())

    def _drop_source(self) -> None:
        self._from_start = False
        with self._lock:
            source, self._current = self._current, None
            self._past += Counter(source.counts if source is not None else {})
        if source is not None:
            remember(self._notices, source.notices)
            source.close()

    def _place(self, frame: Frame, source: Source) -> Frame:
        """Put the frame on the output's clock, count it and make it like the first ones."""
        stream_s, last = frame.seconds, self._last
        if self._offset_s is None:
            self._since = frame.captured_at
            self._greet()
        gap_s = 0.0 if last is None else frame.captured_at - last.captured_at
        if self._offset_s is None:
            self._anchor(frame, (self._waited_s(frame) if last is None else last.seconds + gap_s) - stream_s)
        else:
            self._follow(frame, stream_s, gap_s)
        now_s = stream_s + (self._offset_s or 0.0)
        if last is not None:
            now_s = max(now_s, last.seconds + _SMALLEST_STEP_S)
        # What the source itself left out is left out of our count too: a gap in the index is a drop.
        self._index += 1 if last is None or frame.index <= self._source_index else frame.index - self._source_index
        self._stream_s, self._source_index = stream_s, frame.index
        placed = self._fit(
            replace(frame, pts=round(now_s / LIVE_TIME_BASE), time_base=LIVE_TIME_BASE, index=self._index - 1)
        )
        self._last = placed
        self._take_packets(source)
        return placed

    def _waited_s(self, frame: Frame) -> float:
        """How long whoever reads did without this first frame: the stand-ins of that time go before it."""
        if self._from_start or self._began is None:
            return 0.0
        return max(frame.captured_at - self._began, 0.0)

    def _anchor(self, frame: Frame, offset_s: float) -> None:
        self._offset_s = offset_s
        self._lag_s, self._behind_since = frame.captured_at - frame.seconds, None

    def _follow(self, frame: Frame, stream_s: float, gap_s: float) -> None:
        """Shift the stream's clock anew where it no longer fits ours.

        A late burst does not mean that: it has its right times.
        """
        last, offset_s = self._last, self._offset_s
        assert last is not None
        assert offset_s is not None
        lag_s = frame.captured_at - stream_s
        behind_s = lag_s - self._lag_s
        if not -_CLOCK_JUMP_S <= stream_s - self._stream_s <= gap_s + _CLOCK_JUMP_S:
            self._counts["jumps of the stream's clock"] += 1
            self._anchor(frame, last.seconds + gap_s - stream_s)
        elif behind_s <= _CLOCK_JUMP_S:
            self._lag_s, self._behind_since = min(self._lag_s, lag_s), None
        elif self._behind_since is None:
            self._behind_since = frame.captured_at
        elif frame.captured_at - self._behind_since > _BEHIND_FOR_S:
            self._counts["jumps of the stream's clock"] += 1
            self._anchor(frame, offset_s + behind_s)

    def _greet(self) -> None:
        info = self._info
        if self._last is None:
            _log.info("%s: live, %dx%d", info.name, info.width, info.height)
        elif self._lost_at is not None:
            _log.info("%s: back after %.1f s", info.name, time.monotonic() - self._lost_at)
        if self._last is not None and self._state == "reconnecting":
            self._counts["reconnects"] += 1
        self._state, self._reason, self._lost_at = "live", "", None

    def _take_packets(self, source: Source) -> None:
        packets = source.take_packets()
        if self._shift is None or self._offset_s is None:
            return
        for packet in packets:
            # After a reconnect the tracks are other objects: what is of the same kind goes on under the first one.
            track = self._tracks.setdefault(self._form(packet.track), packet.track)
            self._packets.append(self._shift(packet, track, self._offset_s))
