"""How many cases a command did, and with which exit code it ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from finemask.errors import FinemaskError, OutputError

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """How many cases a command did, with the errors of those it could not do.

    Example:
        >>> outcome = Outcome(done=2, failed=1, skipped=0)
        >>> outcome.text(), outcome.exit_code
        ('2 done, 1 failed, 0 skipped of 3', 1)
    """

    done: int
    failed: int
    skipped: int
    failures: tuple[FinemaskError, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 all done, 1 some failed, 3 nothing could be done."""
        if not self.failed:
            return 0
        return 1 if self.done + self.skipped else 3

    def text(self) -> str:
        """The last line of a command; the numbers add up."""
        total = self.done + self.failed + self.skipped
        return f"{self.done} done, {self.failed} failed, {self.skipped} skipped of {total}"


def shared_out(items: Sequence[T], shard: tuple[int, int] | None) -> tuple[T, ...]:
    """The share of one shard: every ``n``-th item from the ``i``-th on, all of them without one.

    Example:
        >>> [shared_out("abcdefg", (i, 3)) for i in (1, 2, 3)]
        [('a', 'd', 'g'), ('b', 'e'), ('c', 'f')]
    """
    return tuple(items) if shard is None else tuple(items[shard[0] - 1 :: shard[1]])


def stopped(error: OutputError, finished: int) -> OutputError:
    """An error that ends a command early, with the exit code of what was done before it."""
    told = OutputError(error.subject, f"{error.what}, {finished} cases are done",
                       f"{error.fix}, then go on with --resume")  # fmt: skip
    told.exit_code = 1 if finished else 3
    return told
