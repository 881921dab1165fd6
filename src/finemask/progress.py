"""Showing how far a command is, on stderr and never on stdout.

Whatever takes a while accepts ``progress: Track`` and wraps its loop in it:

    for case in progress(cases, "predicting"):

The command line passes ``bar``, or ``silent`` under ``--quiet``; functions
called from Python are silent unless asked.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")
Label = str | Callable[[], str]

SECONDS_BETWEEN_LINES = 30.0


@runtime_checkable
class Track(Protocol):
    """Passes items on and tells the user about it."""

    def __call__(self, items: Iterable[T], label: Label, total: int | None = None) -> Iterator[T]:
        """Yield every item.

        Args:
            items: What the loop runs over.
            label: What is done, in a few words; a function is asked anew at each step
                (a running loss, say).
            total: Number of items where ``len(items)`` does not tell.
        """
        ...


def silent(
    items: Iterable[T],
    label: Label,  # noqa: ARG001  # the interface of Track
    total: int | None = None,  # noqa: ARG001
) -> Iterator[T]:
    """Track nothing.

    Example:
        >>> list(silent("abc", "spelling"))
        ['a', 'b', 'c']
    """
    yield from items


def titled(track: Track, title: str) -> Track:
    """The same tracking, with a title before each label."""

    def tracked(items: Iterable[T], label: Label, total: int | None = None) -> Iterator[T]:
        return track(items, lambda: f"{title}: {_text(label)}", total)

    return tracked


def bar(items: Iterable[T], label: Label, total: int | None = None) -> Iterator[T]:
    """A progress bar on a terminal; in a log file a line at most every half minute."""
    total = _length(items) if total is None else total
    show = _bar if sys.stderr.isatty() else _lines
    yield from show(items, label, total)


def _bar(items: Iterable[T], label: Label, total: int | None) -> Iterator[T]:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(escape(_text(label)), total=total)
        for item in items:
            yield item
            shown.update(task, advance=1, description=escape(_text(label)))


def _lines(items: Iterable[T], label: Label, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    of = "" if total is None else f"/{total}"
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES:
            last = now
            print(f"{_text(label)} {count}{of} ({now - start:.0f} s)", file=sys.stderr, flush=True)


def _text(label: Label) -> str:
    return label if isinstance(label, str) else label()


def _length(items: Iterable[T]) -> int | None:
    try:
        return len(items)  # type: ignore[arg-type]  # asked for, not assumed
    except TypeError:
        return None
