"""What a user should know although the work goes on: one line, through one function."""

from __future__ import annotations

import warnings
from os import PathLike, fspath


class DataWarning(UserWarning):
    """Something in a file was read in a way that the user should know of."""


def warn(subject: str | PathLike[str], what: str) -> None:
    """Issue ``<subject>: <what>`` as a one-line :class:`DataWarning`."""
    warnings.warn(" ".join(f"{fspath(subject)}: {what}".split()), DataWarning, stacklevel=3)
