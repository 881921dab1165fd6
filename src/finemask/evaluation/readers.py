"""How far readers agree with each other, with what half of them marked, and with the predictions.

A reader is one of those who make the consensus, a network is not. So both are also
compared with the consensus of the *other* readers, which neither had a say in.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.datasets.listing import few
from finemask.errors import DataError, FinemaskError
from finemask.evaluation.comparisons import predicted_classes
from finemask.evaluation.matching import Predicted, TruthFile, Truths, consensus_of
from finemask.io import write_text
from finemask.metrics.overlap import Confusion, confusion
from finemask.metrics.protocols import Protocol
from finemask.metrics.statistics import Spread, spread
from finemask.progress import Track, silent

CONSENSUS, PREDICTION = "consensus", "prediction"
HEADER = (
    *("class", "first", "second", "n", "dice", "ci_low", "ci_high", "sd", "median", "undefined"),
    "dice_pooled",
)
"""Columns of ``readers.csv``."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Agreement:
    """Dice between two who marked the same cases.

    Args:
        label: Class.
        first: A reader, the consensus or the prediction.
        second: Another, or ``others of <reader>``, the consensus without that reader.
        dice: Over the cases in which either marked something.
        undefined: Cases in which neither did.
        pooled: Dice of all voxels of all cases together.
    """

    label: str
    first: str
    second: str
    dice: Spread
    undefined: int
    pooled: float

    @property
    def cells(self) -> list[Any]:
        """A row of ``readers.csv``."""
        d = self.dice
        return [
            *(self.label, self.first, self.second, d.n, d.mean, d.ci_low, d.ci_high, d.sd),
            *(d.median, self.undefined, self.pooled),
        ]


@dataclass(frozen=True)
class ReaderStudy:
    """Agreements of every two, by class.

    Args:
        readers: Names of the readers.
        labels: Names of the classes.
        agreements: Every pair of `names`, then each reader and the prediction with the others
            of that reader.
        cases: Compared.
        notes: What was left out, a sentence each.
    """

    readers: tuple[str, ...]
    labels: tuple[str, ...]
    agreements: tuple[Agreement, ...]
    cases: int
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Rows and columns of the table: the readers, their consensus, the predictions."""
        return (*self.readers, CONSENSUS, PREDICTION)

    def between(self, label: str, first: str, second: str) -> Agreement:
        """The agreement of two, in either order."""
        return next(
            a
            for a in self.agreements
            if a.label == label and {a.first, a.second} == {first, second}
        )

    def to_dict(self) -> dict[str, Any]:
        """What ``summary.json`` holds of it."""
        rows = [dict(zip(HEADER, a.cells, strict=True)) for a in self.agreements]
        return {"readers": list(self.readers), "cases": self.cases, "dice": rows}


def others_of(reader: str) -> str:
    """Name of the consensus without a reader."""
    return f"others of {reader}"


def study_readers(
    truths: Truths,
    predictions: Mapping[str, Predicted],
    protocol: Protocol,
    progress: Track = silent,
) -> ReaderStudy:
    """Compare the readers, their consensus and the predictions, two by two.

    Only cases that every reader was asked about are compared, so that all numbers are of
    the same cases. An empty mask is a vote; a prediction that is missing or unfit is empty.

    Args:
        truths: The cases.
        predictions: By case.
        protocol: How predictions are read.
        progress: Shows how far the work is.

    Raises:
        DataError: When no case has the masks of two readers or more.
    """
    names, cases, notes = _shared_readers(truths)
    found: dict[tuple[str, Pair], list[Confusion]] = {}
    groups = []
    for case in progress(cases, "comparing readers"):
        groups.append(case.group)
        masks = _masks(case, names, truths, predictions.get(case.name), protocol)
        for number, label in enumerate(truths.labels, start=1):
            for pair, (a, b) in masks.items():
                found.setdefault((label, pair), []).append(confusion(a == number, b == number))
    agreements = [
        _agreement(label, pair, counts, groups) for (label, pair), counts in found.items()
    ]
    return ReaderStudy(names, tuple(truths.labels), tuple(agreements), len(cases), notes)


def _shared_readers(
    truths: Truths,
) -> tuple[tuple[str, ...], list[TruthFile], tuple[str, ...]]:
    """Readers that most cases have, and the cases that have all of them."""
    cases = list(truths.cases.values())
    sets = [case.readers for case in cases if len(case.readers) > 1]
    if not sets:
        raise DataError(
            "--readers",
            "needs cases with the masks of two readers or more; none has them",
            "put them into masks_<reader>/ folders, or rater_1, rater_2, ... columns",
        )
    names = max(sorted(set(sets)), key=lambda readers: (sets.count(readers), len(readers)))
    whole = [case for case in cases if set(names) <= set(case.readers)]
    lacking = [case.name for case in cases if case not in whole]
    notes = [f"{len(lacking)} cases lack a reader and are not compared: {few(lacking)}"]
    return names, whole, tuple(notes if lacking else ())


def _masks(
    case: TruthFile,
    names: Sequence[str],
    truths: Truths,
    predicted: Predicted | None,
    protocol: Protocol,
) -> dict[Pair, tuple[NDArray[Any], NDArray[Any]]]:
    """The two maps of classes of each pair."""
    truth = case.read()
    assert truth.readers is not None  # its files were listed
    readers = truth.readers[[case.readers.index(name) for name in names]]
    answer = np.zeros(truth.geometry.shape, np.uint8)
    if predicted is not None:
        with suppress(FinemaskError):  # told, with its case, where the masks are scored
            answer = predicted_classes(predicted, truth, truths.labels, protocol)
    maps = dict(zip(names, readers, strict=True))
    maps |= {CONSENSUS: consensus_of(readers), PREDICTION: answer}
    pairs = {(a, b): (maps[a], maps[b]) for a, b in itertools.combinations(maps, 2)}
    for k, name in enumerate(names):
        others = consensus_of(np.delete(readers, k, axis=0))
        for who in (name, PREDICTION):
            pairs[who, others_of(name)] = (maps[who], others)
    return pairs


def _agreement(
    label: str, pair: Pair, counts: Sequence[Confusion], groups: Sequence[str]
) -> Agreement:
    values = [one.dice for one in counts]
    pooled = sum(counts, Confusion(0, 0, 0, 0)).dice
    undefined = sum(map(math.isnan, values))
    return Agreement(label, *pair, spread(values, groups), undefined, pooled)


def table_of(study: ReaderStudy, label: str) -> Iterator[list[str]]:
    """The mean Dice of every two as lines of cells, names first: the paper's Table VI."""
    yield ["Dice", *study.names]
    for first in study.names:
        row = [first]
        for second in study.names:
            same = first == second
            row.append("-" if same else f"{study.between(label, first, second).dice.mean:.3f}")
        yield row


def write_readers(study: ReaderStudy | None, out: Path) -> None:
    """Write ``readers.csv`` and ``readers.png``; without a study remove those of an earlier one."""
    if study is None:
        for name in ("readers.csv", "readers.png"):
            (out / name).unlink(missing_ok=True)
        return
    from finemask.report.readers import save_agreement
    from finemask.report.tables import csv_table

    table = csv_table(HEADER, [agreement.cells for agreement in study.agreements])
    write_text(out / "readers.csv", table, overwrite=True)
    save_agreement(study, out / "readers.png")
