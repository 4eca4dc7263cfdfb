"""What a live run has besides: a source that comes back, the slate, readers that are waited for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from streamseg.app.background import VirtualBackground
from streamseg.config import Settings, parse_background, parse_size
from streamseg.effects.slate import card
from streamseg.engine import LIVE_TIME_BASE, Backoff, Reconnecting
from streamseg.errors import ConfigError, SourceAbsentError, StreamsegError, shown
from streamseg.frame import Colour, Frame, Origin, Plane, Source, VideoInfo
from streamseg.libav import Recolour, moved
from streamseg.pixels.fit import fit_planes
from streamseg.pixels.planes import empty, split, yuv_colour
from streamseg.segment.result import Matte
from streamseg.sounds import form_of
from streamseg.sources import LiveOptions, live_opener, open_source
from streamseg.sources.oriented import Oriented

__all__ = ["Demand", "LiveOpening", "Slate", "connect"]

_log = logging.getLogger(__name__)
_ABSENT_WH = (1280, 720)
_ABSENT_RATE = Fraction(30)


class LiveOpening:
    """Opens a live source again and again as the settings say; an `Opener`.

    Raises:
        SourceOpenError: the URL can never work.
    """

    def __init__(self, settings: Settings, url: str) -> None:
        source = settings.source
        self._opener = live_opener(
            url,
            LiveOptions(
                # Of a stream, it is only the size of the output while the stream was never seen.
                size_wh=None if "://" in url else parse_size(source.size),
                rate=Fraction(source.fps).limit_denominator(1001) if source.fps else None,
                pixel_format=None if source.format == "auto" else source.format,
                transport=source.transport,
                connect_timeout_s=source.connect_timeout_s,
                read_timeout_s=source.read_timeout_s,
                max_pixels=source.max_pixels,
                threads=source.threads,
                audio=source.audio,
                hwaccel=source.hwaccel,
            ),
        )
        self._rotate, self._mirror = source.rotate, source.mirror

    def __call__(self) -> Source:
        """Open it, turned as the settings say."""
        source: Source = self._opener()
        if self._rotate or self._mirror:
            return Oriented(source, self._rotate, mirror=self._mirror)
        return source

    def ready(self) -> bool | None:
        """See `Opener`."""
        return self._opener.ready()

    def interrupt(self) -> None:
        """See `Opener`."""
        self._opener.interrupt()

    def close(self) -> None:
        """See `Opener`."""
        self._opener.close()


def is_camera(url: str) -> bool:
    """Whether a live URL names a camera of this machine."""
    return url.startswith("camera:") or ":" not in url


def connect(
    settings: Settings,
    url: str,
    say: Callable[[str], None],
    *,
    wanted: Callable[[], bool] | None = None,
    begun: Callable[[LiveOpening], None] = lambda opening: None,
) -> Source:
    """A live source: reconnecting if it is live, as it is if it has an end.

    Args:
        settings: of the run.
        url: of the source.
        say: receives one-line remarks for the user.
        wanted: whether anybody wants pictures: it is opened on demand only.
        begun: receives what opens it, which another thread may interrupt.

    Raises:
        SourceOpenError: it can never work as asked, or is not there and shall not be waited for.
    """
    opening = LiveOpening(settings, url)
    try:
        begun(opening)
        return _connect(settings, url, opening, say, wanted)
    except BaseException:
        opening.close()
        raise


def _connect(
    settings: Settings,
    url: str,
    opening: LiveOpening,
    say: Callable[[str], None],
    wanted: Callable[[], bool] | None,
) -> Source:
    wait = settings.source.wait
    first: Source | None = None
    try:
        first = opening() if wanted is None else None
    except SourceAbsentError as error:
        if wait == "no" or (wait == "auto" and is_camera(url)):
            raise
        say(f"{error}; waiting for it")
    if first is not None and not first.info.live:
        return _Closing(first, opening)
    settled = _webcam_colour if is_camera(url) else Colour.settled
    info = _live_info(first.info if first is not None else _absent_info(settings, url), settled)
    if first is None:
        say(f"the output is {info.width}x{info.height} until the source was seen once; --size WxH makes it another")
    delay_s = settings.output.audio_delay_ms / 1000
    return Reconnecting(
        opening,
        info,
        first=first,
        fit=_Fit(info, settled),
        form=form_of,
        shift=lambda packet, track, by_s: moved(packet, track, by_s + delay_s),
        wanted=wanted or (lambda: True),
        backoff=Backoff(longest_s=settings.source.longest_backoff_s),
    )


class _Closing:
    """A source that is opened once, with its opener closed after it."""

    def __init__(self, source: Source, opening: LiveOpening) -> None:
        self._source = source
        self._opening = opening
        self.info = source.info
        self.read = source.read
        self.take_packets = source.take_packets
        self.interrupt = source.interrupt

    @property
    def notices(self) -> list[str]:
        return list(self._source.notices)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self._source.counts)

    def close(self) -> None:
        self._source.close()
        self._opening.close()


def _absent_info(settings: Settings, url: str) -> VideoInfo:
    width, height = parse_size(settings.source.size) or _ABSENT_WH
    if settings.source.rotate in (90, 270):
        width, height = height, width
    width, height = width + width % 2, height + height % 2
    rate = Fraction(settings.source.fps).limit_denominator(1001) if settings.source.fps else _ABSENT_RATE
    return VideoInfo(width, height, rate, True, LIVE_TIME_BASE, Colour(), shown(url), (width, height))


def _live_info(info: VideoInfo, settled: Callable[[Colour, int], Colour]) -> VideoInfo:
    return replace(info, time_base=LIVE_TIME_BASE, colour=settled(info.colour, info.height), duration_s=None)


def _webcam_colour(colour: Colour, height: int) -> Colour:
    """Cameras on USB mean BT.601 at every size where they say nothing (USB video class 1.5, colour matching)."""
    return colour if colour.says_matrix else replace(colour, matrix=6)


class _Fit:
    """Makes frames of another size, range or matrix like the first ones."""

    def __init__(self, info: VideoInfo, settled: Callable[[Colour, int], Colour]) -> None:
        self._info = info
        self._settled = settled
        self._recolour: tuple[Colour, Recolour] | None = None
        self._said: tuple[int, int] | None = None

    def __call__(self, frame: Frame) -> Frame:
        info, planes = self._info, frame.planes
        colour = self._settled(frame.colour, frame.height)
        if (frame.width, frame.height) != (info.width, info.height):
            if self._said != (frame.width, frame.height):
                self._said = (frame.width, frame.height)
                size = f"{info.width}x{info.height}"
                _log.info("%s: now %dx%d, fitted into %s", info.name, frame.width, frame.height, size)
            black = yuv_colour((0, 0, 0), colour, frame.height)
            planes = fit_planes(planes, (info.width, info.height), "contain", black)
        if (colour.full_range, colour.matrix) != (info.colour.full_range, info.colour.matrix):
            if self._recolour is None or self._recolour[0] != colour:
                self._recolour = colour, Recolour(colour, info.colour)
            planes = self._recolour[1](planes)
        if planes is frame.planes and frame.colour == info.colour:
            return frame
        return replace(frame, planes=planes, colour=info.colour)


class Slate:
    """The safe picture of a run, as frames; called from the process thread.

    Args:
        settings: ``live.slate`` chooses a card, a picture or the background alone.
        info: what the frames must be like.
        background: the task, for its background alone; None: there is none.

    Raises:
        SourceOpenError: the picture cannot be opened.
    """

    def __init__(self, settings: Settings, info: VideoInfo, background: VirtualBackground | None) -> None:
        self._info = info
        self._task = background
        self._cards: dict[str, Plane] = {}
        self._picture: Plane | None = None
        kind, _, value = settings.live.slate.partition(":")
        self._began = time.monotonic()
        # A blurred room is no background of its own.
        alone = parse_background(settings.background.spec)[0] in ("image", "video", "color")
        self._background = kind == "background" and alone
        if kind == "image":
            still = open_source(value, max_pixels=settings.source.max_pixels, colour=info.colour)
            try:
                picture = still.read()
            finally:
                still.close()
            if picture is None:
                raise ConfigError(f"slate {value} holds no picture; choose another image")
            black = yuv_colour((0, 0, 0), info.colour, info.height)
            self._picture = fit_planes(picture.planes, (info.width, info.height), "cover", black)

    def __call__(self, state: str) -> Frame:
        """The picture to show; `state` is one line about why."""
        if self._picture is not None:
            return self._frame(self._picture)
        if self._background and self._task is not None:
            try:
                return self._task.look.effect(self._frame(self._black()), self._nobody(), 0.0).frame
            except StreamsegError as error:  # the background is gone too
                _log.warning("%s; a card is shown", error)
                self._background = False
        return self._frame(self.card(state))

    def card(self, state: str) -> Plane:
        """(H * 3 / 2, W) uint8: what stands for the picture where the background needs none of it."""
        if self._picture is not None:
            return self._picture
        if state not in self._cards:
            if len(self._cards) > 16:
                self._cards.clear()
            self._cards[state] = card((self._info.width, self._info.height), self._info.colour, state)
        return self._cards[state]

    def _black(self) -> Plane:
        info = self._info
        planes = empty(info.width, info.height)
        for plane, value in zip(split(planes), yuv_colour((0, 0, 0), info.colour, info.height), strict=True):
            plane[:] = value
        return planes

    def _nobody(self) -> Matte:
        return Matte(np.zeros((9, 16), np.float32), (self._info.width, self._info.height))

    def _frame(self, planes: Plane) -> Frame:
        info, now = self._info, time.monotonic()
        # A moving background goes on behind it.
        pts = round((now - self._began) / LIVE_TIME_BASE)
        return Frame(planes, pts, LIVE_TIME_BASE, 0, now, info.colour, Origin(info.name, info.original_wh))


class Demand:
    """Whether somebody wants pictures: for a while after the last reader left, they still do.

    Args:
        linger_s: that while.
    """

    def __init__(self, linger_s: float) -> None:
        self._watched: Callable[[], bool] = lambda: False
        self._linger_s = linger_s
        self._last: float | None = None

    def ask(self, watched: Callable[[], bool]) -> None:
        """From now on, `watched` tells whether somebody reads; before, nobody does."""
        self._watched = watched

    def __call__(self) -> bool:
        """Whether somebody wants pictures now."""
        now = time.monotonic()
        if self._watched():
            self._last = now
        return self._last is not None and now - self._last <= self._linger_s
