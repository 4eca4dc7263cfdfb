"""Everybody who can see what a run shows: a browser, two servers that it publishes to, and a recording.

Each keeps every picture as it came, encoded; afterwards all of them are searched.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from tests.live_parts import RtspServer, free_port, nginx
from tests.rooms import pictures, shows_room, shows_subject

__all__ = ["Seen", "Watchers"]


@dataclass
class Seen:
    """Of the pictures of one output: how many, with the raw room, with the subject; how many in each of its files."""

    pictures: int = 0
    room: int = 0
    subject: int = 0
    files: list[int] = field(default_factory=list)

    def search(self, file: Iterable[NDArray[np.uint8]]) -> None:
        """Search the pictures of one file."""
        before = self.pictures
        for rgb in file:
            self.pictures += 1
            self.room += shows_room(rgb)
            self.subject += shows_subject(rgb)
        self.files.append(self.pictures - before)


class Viewer:
    """A browser at a preview, from when it is up until it is gone: every JPEG of its stream."""

    def __init__(self, port: int) -> None:
        self.jpegs: list[bytes] = []
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=180)
            try:
                connection.request("GET", "/stream.mjpg")
                self._keep(connection.getresponse())
            except (OSError, http.client.HTTPException):
                continue  # it is not up yet, or gone
            finally:
                connection.close()

    def _keep(self, reply: http.client.HTTPResponse) -> None:
        length = 0
        while line := reply.readline():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
            elif not line.strip() and length:
                jpeg = reply.read(length)
                if len(jpeg) == length:  # of the last one, a part may be missing
                    self.jpegs.append(jpeg)
                length = 0

    def stop(self) -> None:
        """When the preview is gone."""
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


class Watchers:
    """One of each; `urls` are the outputs that a run is to be given.

    Args:
        folder: for what they keep; empty.
        recordings: where the run records to; in `folder` by default.
    """

    def __init__(self, folder: Path, recordings: Path | None = None) -> None:
        self._recordings = recordings or folder
        self._published = {"rtsp": folder / "rtsp", "rtmp": folder / "rtmp"}
        for kept in self._published.values():
            kept.mkdir()
        port = free_port()
        with ExitStack() as stack:
            self.rtsp = RtspServer(["--record", f"out=video:{self._published['rtsp']}"])
            stack.callback(self.rtsp.kill)
            self.rtsp.start()
            rtmp, _ = stack.enter_context(nginx(folder, keep=self._published["rtmp"]))
            self._viewer = Viewer(port)
            stack.callback(self._viewer.stop)
            self._stack = stack.pop_all()
        self.urls = [
            str(self._recordings / "rec.mkv"),
            f"http://127.0.0.1:{port}/",
            self.rtsp.url("out"),
            f"rtmp://127.0.0.1:{rtmp}/live/out",
        ]

    @property
    def count(self) -> int:
        """Of the pictures that the preview has shown."""
        return len(self._viewer.jpegs)

    def shown(self, count: int, timeout_s: float = 180) -> None:
        """Returns when the preview has shown so many pictures."""
        until_s = time.monotonic() + timeout_s
        while self.count < count:
            assert time.monotonic() < until_s, f"the preview never showed {count} pictures"
            time.sleep(0.05)

    def reached(self, timeout_s: float = 180) -> None:
        """Returns when pictures have come to everybody: a busy machine takes long to publish."""
        self.shown(1, timeout_s)
        until_s = time.monotonic() + timeout_s
        for name, kept in self._published.items():
            while not any(path.stat().st_size > 10_000 for path in kept.iterdir()):
                assert time.monotonic() < until_s, f"nothing was ever published by {name}"
                time.sleep(0.05)

    def close(self) -> None:
        """When the run is over."""
        self._stack.close()

    def search(self) -> dict[str, Seen]:
        """What each output showed, by its name; after `close`."""
        found = {name: Seen() for name in ("recording", "preview", *self._published)}
        found["preview"].search(map(_decoded, self._viewer.jpegs))
        for path in self._recordings.glob("rec-*.mkv"):
            found["recording"].search(pictures(path))
        for name, kept in self._published.items():
            for path in kept.iterdir():
                found[name].search(_torn_pictures(path))
        return found


def _decoded(jpeg: bytes) -> NDArray[np.uint8]:
    picture: NDArray[np.uint8] = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return picture


def _torn_pictures(path: Path) -> Iterator[NDArray[np.uint8]]:
    """The pictures of a stream that may have been cut anywhere."""
    if not path.stat().st_size:
        return
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                continue
            for frame in frames:
                yield frame.to_ndarray(format="rgb24")
