"""A child process for what may block in native code for ever: killing it is how such a call is interrupted.

A camera whose feeder dies, a server that stops reading: the libraries have no time-out that holds there, and a Python
thread cannot be ended from outside. So such work runs in a process of its own, pictures travel through shared memory
and everything else as small messages. A child that crashes takes nothing with it, and one that leaks is replaced.

The parent's side is `Child`, the child's is `Host`. The child imports this module too: it is kept light, because the
time that a child takes to start is the time it takes to recover.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections import deque
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamseg.errors import StreamsegError, redact

__all__ = ["Child", "ChildDied", "Host", "Memory", "end_with_parent", "own_environment", "serve"]

# A child that does not even read its messages for so long will not recover.
_SEND_TIMEOUT_S = 5
_REAP_TIMEOUT_S = 2.0
_KEPT_LINES = 50


class ChildDied(StreamsegError):  # noqa: N818 - a state, as ChannelClosed is
    """The child process ended or was killed; the message says what it last had to say."""


class Memory:
    """Memory that two processes see, without a name in any file system, so that nothing stays behind after a kill.

    Either side may enlarge it; the other may call `view` once it has been told of the new size.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map: mmap.mmap | None = None

    @classmethod
    def create(cls) -> Memory:
        """New, empty memory."""
        if hasattr(os, "memfd_create"):
            return cls(os.memfd_create("streamseg"))
        fd, path = tempfile.mkstemp(prefix="streamseg-")
        if sys.platform != "win32":
            os.unlink(path)
        return cls(fd)

    @property
    def fd(self) -> int:
        """Its file descriptor in this process."""
        return self._fd

    def resize(self, size: int) -> None:
        """Enlarge to at least `size` bytes; it never shrinks."""
        if size > os.fstat(self._fd).st_size:
            os.ftruncate(self._fd, size)

    def view(self, offset: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """A writable uint8 array over the bytes from `offset` on.

        Raises:
            ValueError: the memory is smaller than that.
        """
        end = offset + int(np.prod(shape))
        if self._map is None or len(self._map) < end:
            # Arrays over the old map keep it alive; the new one shows the same bytes.
            self._map = mmap.mmap(self._fd, os.fstat(self._fd).st_size)
        if len(self._map) < end:
            raise ValueError(f"the shared memory holds {len(self._map)} bytes, not {end}")
        return np.frombuffer(self._map, np.uint8, end - offset, offset).reshape(shape)

    def close(self) -> None:
        """Let go; arrays made before stay valid."""
        self._map = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Child:
    """The parent's side of a child process.

    One thread sends and receives; `kill` may be called from any.

    Args:
        entry: ``"package.module:function"``; the child calls it with its `Host`, and ends when it returns.
        name: what the process is for; shown by process viewers and in messages.

    Raises:
        ChildDied: there is no room for another process now.
    """

    def __init__(self, entry: str, *, name: str) -> None:
        self._name = name
        with contextlib.ExitStack() as begun:
            try:
                self.memory = Memory.create()
                begun.callback(self.memory.close)
                self._link, end = get_context("spawn").Pipe()
                begun.callback(self._link.close)
                with end:
                    self._process = _start(entry, name, end, self.memory.fd)
            except OSError as error:
                raise ChildDied(f"the process {name} could not be started: {error.strerror}") from error
            begun.pop_all()
        if sys.platform != "win32":
            _limit_sending(self._link.fileno())

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def send(self, message: object) -> None:
        """Send anything that can be pickled.

        Raises:
            ChildDied: it is gone, or has read nothing for seconds and was killed for it.
        """
        try:
            self._link.send(message)
        except (OSError, ValueError) as error:
            self.kill()
            raise self._died() from error

    def receive(self, timeout_s: float | None) -> Any:
        """The next message; None waits as long as it takes.

        Raises:
            TimeoutError: nothing came in time.
            ChildDied: it is gone.
        """
        try:
            if not self._link.poll(timeout_s):
                raise TimeoutError(f"{self._name} said nothing for {timeout_s} s")
            message = self._link.recv()
        except TimeoutError:
            raise
        except (EOFError, OSError) as error:
            self.kill()
            raise self._died() from error
        if isinstance(message, _Crash):
            self.kill()
            raise ChildDied(f"{self._name} failed: {message.text}")
        return message

    def kill(self) -> None:
        """End the process at once and reap it; any thread, any number of times."""
        self._process.kill()
        try:
            self._process.wait(_REAP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            # The kernel holds it in a call that not even SIGKILL ends (a dead disk); it goes when that returns.
            return

    def close(self) -> None:
        """Kill, and let go of the link and the memory; from the thread that uses them."""
        self.kill()
        self._link.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self.memory.close()

    def _died(self) -> ChildDied:
        code = self._process.poll()
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        return ChildDied(f"the process {self._name} ended {how}")


class Host:
    """The child's side."""

    def __init__(self, link: connection.Connection[Any, Any], memory: Memory) -> None:
        self.memory = memory
        self._link = link
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._sending = threading.Lock()

    def send(self, message: object) -> None:
        """Send anything that can be pickled; any thread."""
        with self._sending:
            self._link.send(message)

    def receive(self, timeout_s: float | None) -> Any:
        """The next message.

        Raises:
            TimeoutError: nothing came in time.
            EOFError: the parent is gone.
        """
        if not self._link.poll(timeout_s):
            raise TimeoutError(f"no message for {timeout_s} s")
        return self._link.recv()

    def native_text(self) -> list[str]:
        """What native libraries printed to standard error since the last call, by line, without passwords."""
        lines = []
        while self._lines:
            lines.append(self._lines.popleft())
        return lines

    def listen_to_stderr(self) -> None:
        """From now on, standard error of this process, native libraries' included, goes to `native_text`."""
        read_end, write_end = os.pipe()
        os.dup2(write_end, 2)
        os.close(write_end)

        def gather() -> None:
            with os.fdopen(read_end, errors="replace") as text:
                for line in text:
                    if line.strip():
                        self._lines.append(redact(line.strip()))

        threading.Thread(target=gather, name="stderr", daemon=True).start()


def own_environment() -> dict[str, str]:
    """Our environment, for a process in which Python is to find this very package."""
    paths = [str(Path(__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class _Crash:
    def __init__(self, text: str) -> None:
        self.text = text


def _start(entry: str, name: str, end: connection.Connection[Any, Any], memory_fd: int) -> subprocess.Popen[bytes]:
    environment = own_environment()
    # The entry and the name are all that others can read in the process list: secrets travel as messages.
    program = "import sys; from streamseg.child import serve; serve(*sys.argv[1:])"
    # Nothing is imported from the current folder.
    command = [sys.executable, "-P", "-c", program, entry, name]
    if sys.platform == "win32":
        import msvcrt

        handles = [end.fileno(), msvcrt.get_osfhandle(memory_fd)]
        for handle in handles:
            os.set_handle_inheritable(handle, True)
        info = subprocess.STARTUPINFO(lpAttributeList={"handle_list": handles})
        return subprocess.Popen(
            [*command, *map(str, handles)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment,
            startupinfo=info,
        )
    fds = (end.fileno(), memory_fd)
    return subprocess.Popen(
        [*command, *map(str, fds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        pass_fds=fds,
        # Control-C in the terminal is for the parent, who ends its children in good order.
        start_new_session=True,
    )


def _limit_sending(fd: int) -> None:
    """A send that finds no room gives up after a while, instead of blocking with the child."""
    with socket.socket(fileno=os.dup(fd)) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_TIMEOUT_S, 0))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)


def serve(entry: str, name: str, link_text: str, memory_text: str) -> None:
    """What the child process does: call the entry, report how it failed, end."""
    # A service manager may signal the whole group; only the parent decides when the child ends.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    if sys.platform == "win32":
        import msvcrt

        link: Any = connection.PipeConnection(int(link_text))
        fd = msvcrt.open_osfhandle(int(memory_text), 0)
    else:
        link = connection.Connection(int(link_text))
        fd = int(memory_text)
    host = Host(link, Memory(fd))
    host.listen_to_stderr()
    module, _, function = entry.partition(":")
    try:
        getattr(importlib.import_module(module), function)(host)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the parent is gone or has had enough
    except BaseException as error:
        text = redact("".join(traceback.format_exception_only(error)).strip().splitlines()[-1])
        with contextlib.suppress(OSError):
            host.send(_Crash(text))
    link.close()
    # No clean-up that could block: whatever the libraries still hold, the system takes back.
    os._exit(0)


def end_with_parent() -> None:
    """From now on: the parent holds the other end of our standard input; when it goes, however it goes, so do we."""
    threading.Thread(target=_wait_for_parent, name="lifeline", daemon=True).start()


def _wait_for_parent() -> None:
    os.read(0, 1)
    os._exit(0)
