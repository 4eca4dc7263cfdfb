"""The child process: what it says, what it sees, how it ends."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import psutil
import pytest

from streamseg.child import Child, ChildDied, Host


def echo(host: Host) -> None:
    while True:
        host.send(host.receive(None))


def fill(host: Host) -> None:
    host.memory.resize(1 << 16)
    host.memory.view(0, (4, 4))[:] = 7
    host.send("small")
    host.memory.resize(1 << 20)
    host.memory.view(1 << 19, (2,))[:] = 9
    host.send("large")
    host.receive(None)


def crash(host: Host) -> None:
    raise RuntimeError("cannot open rtsp://me:secret@camera/")


def die(host: Host) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang(host: Host) -> None:
    host.send("hanging")
    while True:
        time.sleep(100)


def complain(host: Host) -> None:
    os.write(2, b"v4l2: write error to rtsp://me:secret@camera/\n")
    lines: list[str] = []
    while not lines:
        lines = host.native_text()
    host.send(lines)
    host.receive(None)


Start = Callable[[Callable[[Host], None]], Child]


@pytest.fixture
def start() -> Iterator[Start]:
    children: list[Child] = []

    def start(entry: Callable[[Host], None]) -> Child:
        children.append(Child(f"tests.test_child:{entry.__name__}", name=entry.__name__))
        return children[-1]

    yield start
    for child in children:
        child.close()


def test_messages_go_both_ways(start: Start) -> None:
    child = start(echo)
    for message in ("words", {"size": (640, 480)}, b"bytes" * 1000):
        child.send(message)
        assert child.receive(60) == message


def test_memory_is_shared_and_grows(start: Start) -> None:
    child = start(fill)
    assert child.receive(60) == "small"
    early = child.memory.view(0, (4, 4))
    assert early.tolist() == [[7] * 4] * 4
    assert child.receive(60) == "large"
    assert child.memory.view(1 << 19, (2,)).tolist() == [9, 9]
    child.memory.view(0, (16,))[:] = np.arange(16)
    assert early.reshape(-1).tolist() == list(range(16)), "views made before the growth show the same bytes"
    with pytest.raises(ValueError, match="holds 1048576 bytes"):
        child.memory.view(1 << 20, (1,))


def test_no_room_for_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr("streamseg.child.subprocess.Popen", refuse)
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(ChildDied, match="the process camera could not be started: Resource temporarily unavailable"):
        Child("tests.test_child:echo", name="camera")
    assert len(os.listdir("/dev/fd")) == before


def test_nothing_in_time(start: Start) -> None:
    child = start(hang)
    assert child.receive(60) == "hanging"
    with pytest.raises(TimeoutError):
        child.receive(0.01)
    assert child.alive


def test_a_failure_is_told_without_the_password(start: Start) -> None:
    child = start(crash)
    with pytest.raises(ChildDied, match=r"crash failed: RuntimeError: cannot open rtsp://\*\*\*@camera/"):
        child.receive(60)
    assert not child.alive


def test_a_killed_child_is_told(start: Start) -> None:
    child = start(die)
    with pytest.raises(ChildDied, match="the process die ended by signal 9"):
        child.receive(60)
    with pytest.raises(ChildDied):
        child.send("more")


def test_kill_unblocks_receive_from_another_thread(start: Start) -> None:
    child = start(hang)
    assert child.receive(60) == "hanging"
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            child.receive(None)
        except ChildDied as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    child.kill()
    thread.join(60)
    assert len(caught) == 1
    assert not psutil.pid_exists(child.pid), "reaped"


def test_native_text_is_heard_and_redacted(start: Start) -> None:
    assert start(complain).receive(60) == ["v4l2: write error to rtsp://***@camera/"]


def test_signals_for_the_group_do_not_end_it(start: Start) -> None:
    child = start(echo)
    child.send("up")
    assert child.receive(60) == "up"
    os.kill(child.pid, signal.SIGINT)
    os.kill(child.pid, signal.SIGTERM)
    child.send("still here")
    assert child.receive(60) == "still here"


def test_the_command_line_holds_no_message(start: Start) -> None:
    child = start(echo)
    child.send("rtsp://me:secret@camera/")
    child.receive(60)
    assert "secret" not in " ".join(psutil.Process(child.pid).cmdline())


def test_it_dies_with_its_parent() -> None:
    parent = textwrap.dedent(
        """
        import os
        from streamseg.child import Child
        child = Child("tests.test_child:hang", name="hang")
        child.receive(60)
        print(child.pid, flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    try:
        psutil.Process(pid).wait(60)
    except psutil.NoSuchProcess:
        return
    assert not psutil.pid_exists(pid)


def test_nothing_is_left_open() -> None:
    me = psutil.Process()
    Child("tests.test_child:echo", name="first").close()
    before = me.num_fds()
    for _ in range(3):
        child = Child("tests.test_child:echo", name="echo")
        child.memory.resize(4096)
        child.memory.view(0, (4096,))
        child.close()
        assert not psutil.pid_exists(child.pid)
    assert me.num_fds() == before
