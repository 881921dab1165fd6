"""How many cases a command did, and with which exit code it ends."""

from __future__ import annotations

from dataclasses import dataclass

from finemask.errors import FinemaskError


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
