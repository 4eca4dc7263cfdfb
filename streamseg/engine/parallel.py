"""Things done side by side that would otherwise wait for each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

__all__ = ["in_parallel"]


def in_parallel(functions: Sequence[Callable[[], None]], *, interrupts: Sequence[Callable[[], None]] = ()) -> None:
    """Call all of them at once, and wait until the last one is done; the first failure is raised then.

    Args:
        functions: to be called.
        interrupts: make those under way end soon; called when the wait for them is interrupted.
    """
    if len(functions) == 1:
        functions[0]()
        return
    with ThreadPoolExecutor(max(1, len(functions)), thread_name_prefix="open") as pool:
        waiting = [pool.submit(function) for function in functions]
        try:
            wait(waiting)
        except BaseException:
            for interrupt in interrupts:
                interrupt()
            raise
    for future in waiting:
        future.result()
