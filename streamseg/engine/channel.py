"""The only queue: bounded, closable from either end."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, Literal, TypeVar

__all__ = ["Channel", "ChannelClosed"]

T = TypeVar("T")


class ChannelClosed(Exception):  # noqa: N818 - it is a state, as StopIteration is
    """`get` has nothing left to give and nothing will come."""


class Channel(Generic[T]):
    """A bounded first-in first-out queue between two threads.

    Closed is a state of the channel, not an item in it: after `close` the reader drains what is left and then meets
    `ChannelClosed`; after `abort` what is left is thrown away and both sides are told at once.

    Args:
        capacity: items held at most, at least 1.
        when_full: ``"block"`` makes `put` wait; ``"drop_oldest"`` discards the oldest item and counts it.
        merge: ``merge(discarded, next)`` gives the item that takes the place of `next`, for what must not be lost with
            the discarded one.
    """

    def __init__(
        self,
        capacity: int,
        when_full: Literal["block", "drop_oldest"] = "block",
        *,
        merge: Callable[[T, T], T] | None = None,
    ) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1, not {capacity}")
        self._capacity = capacity
        self._drops_oldest = when_full == "drop_oldest"
        self._merge = merge
        self._items: deque[T] = deque()
        self._open = True
        self._dropped = 0
        self._changed = threading.Condition()

    @property
    def dropped(self) -> int:
        """Items discarded because the reader was slower than the writer."""
        with self._changed:
            return self._dropped

    def __len__(self) -> int:
        with self._changed:
            return len(self._items)

    def put(self, item: T) -> bool:
        """Hand over one item; False when the channel is closed, so that the writer can stop."""
        with self._changed:
            while self._open and len(self._items) >= self._capacity:
                if self._drops_oldest:
                    oldest = self._items.popleft()
                    self._dropped += 1
                    if self._merge is not None and self._items:
                        self._items[0] = self._merge(oldest, self._items[0])
                    elif self._merge is not None:
                        item = self._merge(oldest, item)
                else:
                    self._changed.wait()
            if not self._open:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def get(self, timeout_s: float | None = None) -> T:
        """The oldest item; waits for one.

        Raises:
            ChannelClosed: it is closed and drained, or aborted.
            TimeoutError: nothing came within `timeout_s`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._items or not self._open, timeout_s):
                raise TimeoutError(f"nothing came within {timeout_s} s")
            if not self._items:
                raise ChannelClosed
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def __iter__(self) -> Iterator[T]:
        """The items as they come, until the channel is closed and drained, or aborted."""
        while True:
            try:
                yield self.get()
            except ChannelClosed:
                return

    def close(self) -> None:
        """No more items; the reader still gets those that wait. Any thread, any number of times."""
        with self._changed:
            self._open = False
            self._changed.notify_all()

    def abort(self) -> None:
        """Close, and discard what waits. Any thread, any number of times."""
        with self._changed:
            self._open = False
            self._items.clear()
            self._changed.notify_all()
