"""What an evaluation found: scores of every case, summed up."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finemask.errors import FinemaskError
from finemask.evaluation.lesions import LesionRow
from finemask.evaluation.readers import ReaderStudy, table_of
from finemask.io.outputs import error_within, path_within
from finemask.metrics.protocols import Protocol
from finemask.metrics.scores import EVERY_SIZE, Score


@dataclass(frozen=True)
class Failure:
    """A case that could not be scored as it should, and why.

    Args:
        case: Its name.
        error: With the path as the user gave it, for the terminal.
        root: What the user named; files that are shared tell paths below it.
        hide: Makes a text one that shared files may hold.
    """

    case: str
    error: FinemaskError
    root: Path
    hide: Callable[[str], str] = str

    @property
    def file(self) -> str:
        """What is at fault, for files that are shared."""
        return self.hide(path_within(self.root, self.error.subject))

    @property
    def line(self) -> str:
        """What is wrong and what to do, for files that are shared."""
        return self.hide(error_within(self.root, self.error))


@dataclass(frozen=True)
class Evaluation:
    """Scores of every case, summed up.

    Args:
        protocol: What was measured.
        scores: One a case and class.
        summary: What ``summary.json`` holds, with NaN where that has null.
        failures: Cases that count as worst (or whose truth is unreadable).
        notes: What else a reader should know, a sentence each.
        out: Folder with the files, if they were written.
        lesions: One a lesion, true or false.
        readers: How far readers agree, where that was asked for.
    """

    protocol: Protocol
    scores: tuple[Score, ...]
    summary: Mapping[str, Any]
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    out: Path | None = None
    lesions: tuple[LesionRow, ...] = ()
    readers: ReaderStudy | None = None

    @property
    def failed(self) -> int:
        """Number of cases that could not be scored."""
        return len({failure.case for failure in self.failures})

    @property
    def scored(self) -> int:
        """Number of cases with a usable prediction and truth."""
        return len({s.case for s in self.scores}) - self.failed

    @property
    def exit_code(self) -> int:
        """0 all scored, 1 some failed, 3 nothing could be scored."""
        if not self.failed:
            return 0
        return 1 if self.scored else 3

    def mean(self, metric: str, label: str | None = None, size_group: str = EVERY_SIZE) -> float:
        """Mean of a metric over the cases, of one class or of the means of all classes."""
        by_label = self.summary["scores"][metric]
        labels = [label] if label is not None else list(by_label)
        return float(np.mean([by_label[one][size_group]["mean"] for one in labels]))

    def text(self) -> str:
        """A table of the means for the terminal; the last line has counts that add up."""
        rows = [("class", "metric", "mean", "95 % interval", "n", "undefined")]
        scores = self.summary["scores"]
        for label in dict.fromkeys(label for by_label in scores.values() for label in by_label):
            for metric in (m for m, by_label in scores.items() if label in by_label):
                all_sizes = scores[metric][label][EVERY_SIZE]
                interval = f"{_short(all_sizes['ci_low'])} to {_short(all_sizes['ci_high'])}"
                undefined = sum(all_sizes["undefined"].values())
                rows.append((label, metric, _short(all_sizes["mean"]), interval,
                             str(all_sizes["n"]), str(undefined or "")))  # fmt: skip
        for label, curves in self.summary["curves"].items():
            for name, told in curves.items():
                rows.append((label, f"{name}_max", _short(told["max"]), "", str(told["n"]), ""))
        lines = _in_columns(rows)
        if self.readers:
            for label in self.readers.labels:
                lines += ["", *_in_columns(list(table_of(self.readers, label)))]
        counts = f"{self.scored} scored, {self.failed} failed of {self.scored + self.failed}"
        return "\n".join([*lines, *self.notes, counts])


def _in_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _short(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"
