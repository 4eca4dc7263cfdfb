"""A live sink's two halves: a child process that may block or crash, and the side that never waits for it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from streamseg.child import Child, ChildDied, Memory
from streamseg.errors import SinkAbsentError, SinkOpenError, SinkWriteError, shown
from streamseg.frame import Plane

__all__ = ["Finish", "Finished", "Handed", "Lost", "Opened", "Outside", "Refused", "Taken", "slot_view"]

# A run that is told to end has two seconds.
_FINISH_S = 1.2
_ASK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class Opened:
    """To the parent: it is open. `name` is what was opened."""

    name: str
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refused:
    """To the parent: it cannot be opened; waiting may help where `absent`."""

    text: str
    absent: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """To the child: a picture lies in a slot; what belongs to it."""

    slot: int
    extra: Any = None


@dataclass(frozen=True, slots=True)
class Taken:
    """To the parent, once for each picture: it was taken; `free` is a slot that is not looked at any more, if any."""

    free: int | None


@dataclass(frozen=True, slots=True)
class Lost:
    """To the parent: it was open and a write failed; the child ends."""

    text: str


@dataclass(frozen=True, slots=True)
class Finish:
    """To the child: no more pictures; `extra` is what trails."""

    extra: Any = None


@dataclass(frozen=True, slots=True)
class Finished:
    """To the parent: everything is written."""


def slot_view(memory: Memory, slot: int, shape: tuple[int, int]) -> Plane:
    """The (rows, width) picture in a slot of the shared memory."""
    size = shape[0] * shape[1]
    return memory.view(slot * (size + -size % 4096), shape)


class Outside:
    """The parent's half: hands pictures over without waiting, and notices when they are not taken.

    Args:
        entry: of the child, which answers the request with `Opened` or `Refused`.
        name: what it writes to; messages and the process list hold what `shown` leaves of it.
        request: the first message to the child.
        shape: (rows, width) of the pictures.
        slots: how many pictures the two halves share.
        first: lies in slot 0 from the start and stays there; the others are for pictures then.
        open_s: how long opening may take.
        stall_s: how long a picture may wait to be taken.
        given_up: asked while it opens; true ends that.

    Attributes:
        notices: one-line remarks of the child.
        dropped: pictures that found no slot.

    Raises:
        SinkAbsentError: waiting may help.
        SinkOpenError: it cannot be opened as asked.
    """

    def __init__(
        self,
        entry: str,
        name: str,
        request: object,
        *,
        shape: tuple[int, int],
        slots: int,
        first: Plane | None = None,
        open_s: float,
        stall_s: float,
        given_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self._name = name = shown(name)
        self._shape = shape
        self._stall_s = stall_s
        self._free = deque(range(0 if first is None else 1, slots))
        self._waiting: deque[float] = deque()  # since when, of the pictures that are not taken
        self._taken_at = 0.0
        self._failure: str | None = None
        self.dropped = 0
        try:
            self._child = Child(entry, name=f"streamseg {name}")
        except ChildDied as error:
            raise SinkAbsentError(f"cannot open {name}: {error}") from error
        try:
            size = shape[0] * shape[1]
            self._child.memory.resize(slots * (size + -size % 4096))
            if first is not None:
                slot_view(self._child.memory, 0, shape)[:] = first
            self._child.send(request)
            answer = self._answer(open_s, given_up)
        except TimeoutError:
            self._child.close()
            raise SinkAbsentError(f"cannot open {name}: no answer for {open_s:g} s") from None
        except ChildDied as error:
            self._child.close()
            raise SinkOpenError(f"cannot open {name}: {error}") from error
        except BaseException:
            self._child.close()
            raise
        if isinstance(answer, Refused):
            self._child.close()
            raise (SinkAbsentError if answer.absent else SinkOpenError)(answer.text)
        self.opened: str = answer.name
        self.notices: Sequence[str] = answer.notices

    def _answer(self, open_s: float, given_up: Callable[[], bool]) -> Any:
        deadline = time.monotonic() + open_s
        while True:
            if given_up():
                raise SinkAbsentError(f"opening {self._name} was given up")
            left_s = deadline - time.monotonic()
            try:
                return self._child.receive(max(0.0, min(left_s, _ASK_EVERY_S)))
            except TimeoutError:
                if left_s <= _ASK_EVERY_S:
                    raise

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    def offer(self, planes: Plane, extra: Any = None) -> bool:
        """Hand a picture over; false where there is no room for it, and it is counted as dropped.

        Raises:
            SinkWriteError: the child failed, or has taken nothing for too long and was ended.
        """
        self._listen()
        now = time.monotonic()
        if self._waiting and now - max(self._waiting[0], self._taken_at) > self._stall_s:
            raise self._fail(f"it takes nothing any more, for {self._stall_s:g} s")
        if not self._free:
            self.dropped += 1
            return False
        slot = self._free.popleft()
        slot_view(self._child.memory, slot, self._shape)[:] = planes
        try:
            self._child.send(Handed(slot, extra))
        except ChildDied as error:
            self._listen()  # it may have said why
            raise self._fail(str(error)) from error
        self._waiting.append(now)
        return True

    def finish(self, extra: Any = None) -> bool:
        """Let the child complete what it writes; false where it did not in time.

        Raises:
            SinkWriteError: it failed.
        """
        self._listen()
        deadline = time.monotonic() + _FINISH_S
        try:
            self._child.send(Finish(extra))
            while True:
                message = self._child.receive(max(0.0, deadline - time.monotonic()))
                if isinstance(message, Finished):
                    return True
                self._hear(message)
        except TimeoutError:
            return False
        except ChildDied as error:
            raise self._fail(str(error)) from error

    def close(self) -> None:
        """End the child and let go of the memory."""
        self._child.close()

    def _listen(self) -> None:
        if self._failure is not None:
            raise self._fail(self._failure)
        try:
            while True:
                self._hear(self._child.receive(0))
        except TimeoutError:
            return
        except ChildDied as error:
            raise self._fail(str(error)) from error

    def _hear(self, message: object) -> None:
        if isinstance(message, Lost):
            raise self._fail(message.text)
        if isinstance(message, Taken):
            self._waiting.popleft()
            self._taken_at = time.monotonic()
            if message.free is not None:
                self._free.append(message.free)

    def _fail(self, text: str) -> SinkWriteError:
        self._failure = text
        self._child.kill()
        return SinkWriteError(f"cannot write to {self._name}: {text}")
