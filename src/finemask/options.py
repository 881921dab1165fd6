"""Values as they are written on the command line: sizes, folds, memory."""

from __future__ import annotations

from finemask.errors import UsageError


def read_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    """``2`` or ``1x2x2`` as whole numbers."""
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split("x"))
    except ValueError as error:
        raise UsageError(option, f"is {text!r}", "write 2, or 1x2x2 for each axis") from error


def read_edges(text: str | None) -> tuple[float, ...]:
    """``4,10`` as numbers."""
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise UsageError("--size-edges", f"is {text!r}", "write numbers, e.g. 4,10") from error


def read_share(option: str, text: str | None, least: int = 2) -> tuple[int, int] | None:
    """``2/5`` as the second of five folds or shards.

    Example:
        >>> read_share("--fold", "2/5")
        (2, 5)
    """
    if text is None:
        return None
    try:
        k, n = (int(part) for part in text.split("/"))
    except ValueError as error:
        raise UsageError(option, f"is {text!r}", "write K/N, e.g. 1/5") from error
    if not 1 <= k <= n or n < least:
        raise UsageError(option, f"is {text!r}", f"K runs from 1 to N, and N is at least {least}")
    return k, n


def read_bytes(text: str | None) -> int | None:
    """``4GB`` or ``1.5 GiB`` as bytes."""
    if text is None:
        return None
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "MIB": 2**20, "GIB": 2**30}
    number = text.rstrip("BKMGIbkmgi ")
    unit = text[len(number) :].strip().upper()
    try:
        return int(float(number) * units[unit])
    except (ValueError, KeyError) as error:
        raise UsageError("--max-memory", f"is {text!r}", "write for example 4GB") from error
