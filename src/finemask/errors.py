"""Errors that a user reads: one line, what was found, what is needed, what to do."""

from __future__ import annotations

from os import PathLike, fspath


class FinemaskError(Exception):
    """A fault that a user can mend, printed as ``error: <subject>: <what>; <what to do>``.

    Args:
        subject: The file, folder or setting that is at fault.
        what: What was found and what was needed, without a final stop.
        fix: What the user can do about it, in the imperative.
    """

    exit_code = 3

    def __init__(self, subject: str | PathLike[str], what: str, fix: str) -> None:
        self.subject, self.what, self.fix = fspath(subject), what, fix
        super().__init__(" ".join(f"{self.subject}: {what}; {fix}".split()))

    def __reduce__(self) -> tuple[type[FinemaskError], tuple[str, str, str]]:
        """Survive the way from a worker process to its parent."""
        return type(self), (self.subject, self.what, self.fix)


class DataError(FinemaskError):
    """An input file or data set that cannot be used as it is."""


class OutputError(DataError):
    """An output that cannot be written for a reason that the next one meets, too: a full disk."""


class UsageError(FinemaskError):
    """A command, option or setting that makes no sense."""

    exit_code = 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, told without importing the libraries that have ways of their own."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator" in str(error)
    )
