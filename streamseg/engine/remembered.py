"""What parts that come and go have counted and remarked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

__all__ = ["remember", "summed"]

# So many remarks are kept; they may hold numbers, and a source may come back for months.
_MOST_NOTICES = 100


def summed(*counts: Mapping[str, int]) -> dict[str, int]:
    """What all of them count together; another thread may go on counting meanwhile."""
    total: Counter[str] = Counter()
    for each in counts:
        # Copied in one step: a mapping that grows while it is looked through is an error.
        total.update(dict(each))
    return dict(+total)


def remember(notices: list[str], more: Sequence[str]) -> None:
    """Add what is new of `more`, up to a limit."""
    for notice in more:
        if notice not in notices and len(notices) < _MOST_NOTICES:
            notices.append(notice)
