"""Live sources: the parent's side. A child process decodes; killing it is how anything that blocks is interrupted."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from streamseg.child import Child, ChildDied
from streamseg.errors import SourceAbsentError, SourceError, SourceLostError, SourceOpenError
from streamseg.frame import Frame, Origin, Packet, Source, VideoInfo
from streamseg.sounds import Sound, packet_of, unpack
from streamseg.sources.address import Address, LiveOptions, network_address, screen_address
from streamseg.sources.messages import (
    Close,
    Closed,
    Ended,
    Found,
    Free,
    Opened,
    Picture,
    Request,
    Waiting,
)

__all__ = ["LiveOpener", "open_live"]

_ENTRY = "streamseg.sources.stream:serve_streams"
# A busy machine takes long to start Python.
_START_TIMEOUT_S = 60.0
# Some cameras send a key frame every ten seconds.
_FIRST_PICTURE_S = 30.0
_CLOSE_TIMEOUT_S = 0.4
_KNOCK_TIMEOUT_S = 0.1


class LiveOpener:
    """An `Opener` of a network source, a camera or the screen, which keeps a started child process at hand.

    Raises:
        SourceOpenError: the URL can never work.
    """

    def __init__(self, url: str, options: LiveOptions | None = None) -> None:
        self._url = url
        self._options = options or LiveOptions()
        self._camera = "://" not in url and not url.lower().startswith("screen:")
        self._address = None if self._camera else self._fixed_address()
        self._found: tuple[int, Any] | None = None
        self._stopped = False
        self._fresh = False
        self._child: Child | None = None
        self._source: LiveSource | None = None
        self._start_child()

    def _fixed_address(self) -> Address:
        if "://" in self._url:
            return network_address(self._url, self._options)
        return screen_address(self._url, self._options, os.environ.get("DISPLAY"))

    def __call__(self) -> LiveSource:
        """Open it.

        Raises:
            SourceAbsentError: nothing is there now; waiting may help.
            SourceOpenError: as asked, it can never work.
        """
        address = self._resolve()
        if self._stopped:
            raise SourceOpenError(f"opening {address.shown} was interrupted")
        try:
            if self._child is None or not self._child.alive:
                self._drop_child()
                self._start_child()
            if self._child is None:  # told so meanwhile
                raise SourceOpenError(f"opening {address.shown} was interrupted")
            return self._open(self._child, address)
        except TimeoutError as error:
            self._replace_child()
            raise SourceAbsentError(f"cannot open {address.shown}: {error}") from error
        except ChildDied as error:
            self._replace_child()
            if self._stopped:
                raise SourceOpenError(f"opening {address.shown} was interrupted") from error
            raise SourceAbsentError(f"cannot open {address.shown}: {error}") from error

    def _resolve(self) -> Address:
        if self._address is not None:
            return self._address
        from streamseg.sources.cameras import camera_address

        return camera_address(self._url, self._options)

    def _open(self, child: Child, address: Address) -> LiveSource:
        options = self._options
        if self._fresh:
            child.receive(_START_TIMEOUT_S)
            self._fresh = False
        child.send(
            Request(
                url=address.url,
                shown=address.shown,
                format=address.format,
                options=address.options,
                host=address.host,
                camera=self._camera,
                max_pixels=options.max_pixels,
                threads=options.threads,
                colour=options.colour,
                audio=options.audio,
                hwaccel=options.hwaccel,
            )
        )
        began_s = time.monotonic()
        wait_until_s, what = began_s + options.connect_timeout_s, f"no answer within {options.connect_timeout_s:g} s"
        while True:
            try:
                message = child.receive(max(0.0, wait_until_s - time.monotonic()))
            except TimeoutError:
                raise TimeoutError(what) from None
            match message:
                case Found():
                    self._found = message.family, message.address
                case Waiting():
                    wait_until_s = min(time.monotonic() + max(1.0, options.read_timeout_s), began_s + _FIRST_PICTURE_S)
                    what = "connected, but no whole picture came"
                case Opened():
                    self._source = LiveSource(child, message, address.shown, options.read_timeout_s, self._take_back)
                    if self._stopped:  # told so meanwhile
                        self._source.interrupt()
                    return self._source
                case Ended():
                    error = SourceOpenError if message.how == "refused" else SourceAbsentError
                    raise error(message.why)

    def ready(self) -> bool | None:
        """Whether something listens at the address, or the device is there; None where that cannot be told."""
        if self._camera:
            from streamseg.sources.cameras import camera_address

            try:
                camera_address(self._url, self._options)
            except SourceError:
                return False
            return True
        if self._found is None:
            address = self._address
            if address is None or address.host is None or not address.literal:
                return None
            name, port = address.host
            self._found = int(socket.AF_INET6 if ":" in name else socket.AF_INET), (name, port)
        family, place = self._found
        with socket.socket(family, socket.SOCK_STREAM) as knock:
            knock.settimeout(_KNOCK_TIMEOUT_S)
            try:
                knock.connect(place)
            except OSError:
                return False
        return True

    @property
    def pid(self) -> int | None:
        """Of the child process."""
        return self._child.pid if self._child is not None else None

    def interrupt(self) -> None:
        """Unblock an opening and a read under way, for good; any thread."""
        self._stopped = True
        source, child = self._source, self._child
        if source is not None:
            source.interrupt()
        if child is not None:
            child.kill()

    def close(self) -> None:
        """End the child process."""
        self._stopped = True
        self._drop_child()

    def _start_child(self) -> None:
        if self._stopped:
            return
        self._child = Child(_ENTRY, name="streamseg-source")
        self._fresh = True
        if self._stopped:  # told so while it started
            self._child.kill()

    def _drop_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _replace_child(self) -> None:
        """At once: it takes time to start. Where there is no room for it now, the next opening starts it."""
        self._drop_child()
        with contextlib.suppress(ChildDied):
            self._start_child()

    def _take_back(self, usable: bool) -> None:
        """A source was closed; a child that may still be stuck in it is replaced."""
        if not usable:
            self._replace_child()


class LiveSource:
    """A stream that a child process decodes; a `Source`. Made by `LiveOpener`."""

    def __init__(
        self, child: Child, opened: Opened, shown: str, read_timeout_s: float, give_back: Callable[[bool], None]
    ) -> None:
        self._child = child
        self._shown = shown
        self._give_back = give_back
        self._stopped = False
        self._over = False
        self._owned: LiveOpener | None = None
        self._counts: Mapping[str, int] = {}
        self._notices = opened.notices
        self._packets: list[Packet] = []
        self._tracks = {parcel.index: unpack(parcel) for parcel in opened.tracks}
        self._info = replace(opened.info, tracks=tuple(self._tracks.values()))
        self._shape = (self._info.height * 3 // 2, self._info.width)
        # Slow cameras are not lost between two of their pictures.
        self._patience_s = max(read_timeout_s, float(3 / self._info.rate) if self._info.rate else 0.0)

    @property
    def info(self) -> VideoInfo:
        """What is known before the first frame."""
        return self._info

    @property
    def notices(self) -> Sequence[str]:
        """One-line remarks for the user, so far."""
        return self._notices

    @property
    def counts(self) -> Mapping[str, int]:
        """Irregularities so far, by name."""
        return self._counts

    def read(self) -> Frame | None:
        """The next frame; None at a clean end and after `interrupt`.

        Raises:
            SourceLostError: the source went away, or sent no picture for too long.
        """
        if self._over or self._stopped:
            return None
        until_s = time.monotonic() + self._patience_s
        while True:
            try:
                message = self._child.receive(max(0.0, until_s - time.monotonic()))
            except TimeoutError as error:
                self._child.kill()
                raise SourceLostError(f"{self._shown} sent no picture for {self._patience_s:g} s") from error
            except ChildDied as error:
                if self._stopped:
                    return None
                raise SourceLostError(f"{self._shown} was lost: {error}") from error
            if isinstance(message, Picture):
                return self._frame(message)
            if isinstance(message, Ended):
                self._end(message)
                return None

    def _frame(self, message: Picture) -> Frame:
        size = self._shape[0] * self._shape[1]
        planes = self._child.memory.view(message.slot * size, self._shape).copy()
        with contextlib.suppress(ChildDied):  # this picture is whole; the next read tells
            self._child.send(Free(message.slot))
        self._keep(message.sounds)
        if message.counts is not None:
            self._counts = message.counts
        if message.notices is not None:
            self._notices = message.notices
        return Frame(
            planes=planes,
            pts=message.pts,
            time_base=self._info.time_base,
            index=message.index,
            captured_at=message.captured_at,
            colour=self._info.colour,
            origin=Origin(self._shown, self._info.original_wh),
        )

    def _end(self, message: Ended) -> None:
        self._over = True
        self._counts = message.counts
        self._keep(message.sounds)
        if message.how == "lost":
            raise SourceLostError(message.why)

    def _keep(self, sounds: Sequence[Sound]) -> None:
        self._packets.extend(Packet(self._tracks[sound.track], packet_of(sound)) for sound in sounds)

    def take_packets(self) -> list[Packet]:
        """The packets of sound that came since the last call."""
        packets, self._packets = self._packets, []
        return packets

    def interrupt(self) -> None:
        """Make `read` end at once; any thread."""
        self._stopped = True
        self._child.kill()

    def close(self) -> None:
        """Leave the stream; the child process stays with its opener unless it does not answer."""
        self._give_back(self._over or self._left())
        if self._owned is not None:
            self._owned.close()

    def owns(self, opener: LiveOpener) -> None:
        """Close the opener together with this."""
        self._owned = opener

    def _left(self) -> bool:
        """Whether the child has let go of the stream and can open another."""
        try:
            self._child.send(Close())
            until_s = time.monotonic() + _CLOSE_TIMEOUT_S
            while not isinstance(self._child.receive(max(0.0, until_s - time.monotonic())), Closed):
                pass
        except (ChildDied, TimeoutError):
            return False
        return True


def open_live(url: str, options: LiveOptions | None = None) -> Source:
    """Open a live source once. To interrupt an opening, or to open again and again, use a `LiveOpener`.

    Raises:
        SourceAbsentError: nothing is there now; waiting may help.
        SourceOpenError: as asked, it can never work.
    """
    opener = LiveOpener(url, options)
    try:
        source = opener()
    except BaseException:
        opener.close()
        raise
    source.owns(opener)
    return source
