"""``finemask check``: every case read whole, a summary of one screen, every problem by case."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from finemask.datasets.dataset import Dataset, Entry
from finemask.datasets.facts import TINY_VOXELS, CaseFacts, Lesion, measure
from finemask.datasets.listing import few
from finemask.datasets.load import survey
from finemask.datasets.split import PARTS, Split, make_split
from finemask.errors import DataError, FinemaskError
from finemask.geometry import Unit
from finemask.io import DataWarning, stem
from finemask.progress import Track, silent

MOST_WARNINGS = 10
"""More warnings of the readers than these are counted, not listed."""


@dataclass(frozen=True)
class CheckReport:
    """What ``check_dataset`` found.

    Args:
        path: The data set as the user gave it.
        dataset: The data set without its faulty cases; ``None`` when nothing could be listed.
        cases: What each readable case holds.
        problems: What must be mended, with the case or file at fault.
        notes: What was assumed, ignored or looks odd.
        split: The split that training would use; ``None`` when there can be none.
    """

    path: Path
    dataset: Dataset | None
    cases: tuple[CaseFacts, ...]
    problems: tuple[FinemaskError, ...]
    notes: tuple[str, ...]
    split: Split | None

    @property
    def ok(self) -> bool:
        """Whether the data set can be used as it is."""
        return not self.problems

    def text(self) -> str:
        """The summary and the notes, for one screen; ``problems`` are the error lines below it."""
        lines = [f"{name:<12}{value}" for name, value in self._summary()]
        lines += [f"note        {note}" for note in self.notes]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has."""
        return {
            "path": str(self.path),
            "layout": self.dataset.layout if self.dataset else None,
            "dims": self.dataset.dims if self.dataset else None,
            "channels": self.dataset.channels if self.dataset else None,
            "labels": dict(self.dataset.labels) if self.dataset else {},
            "summary": dict(self._summary()),
            "cases": [asdict(case) for case in self.cases],
            "problems": [str(problem) for problem in self.problems],
            "notes": list(self.notes),
            "split": asdict(self.split) if self.split else None,
        }

    def _summary(self) -> list[tuple[str, str]]:
        if self.dataset is None:
            return [("data", f"{self.path}: could not be listed")]
        total = len(self.dataset)
        lines = [
            ("data", f"{self.path} ({self.dataset.layout} layout, {self.dataset.dims}-D)"),
            ("cases", f"{total}, {len(self.cases)} read, {total - len(self.cases)} failed"),
        ]
        if self.cases:
            lines += _image_lines(self.dataset, self.cases)
            lines += _label_lines(self.dataset, self.cases)
        if self.problems:
            lines.append(("problems", str(len(self.problems))))
        if self.split is not None:
            counts = ", ".join(f"{len(getattr(self.split, part))} {part}" for part in PARTS)
            lines.append(("split", f"{self.split.method}: {counts}"))
        return lines


def check_dataset(path: str | Path, progress: Track = silent) -> CheckReport:
    """Read every case of a data set whole and say what is in it and what is wrong.

    Args:
        path: Folder or manifest, in any layout that ``load_dataset`` reads.
        progress: Shows how far the reading is.

    Returns:
        A report; no fault of the data raises.
    """
    dataset, found = survey(Path(path))
    if dataset is None:
        return CheckReport(Path(path), None, (), tuple(found), (), None)
    problems: list[FinemaskError] = list(found)
    cases = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for entry in progress(dataset.entries, "reading"):
            try:
                cases.append(_read_facts(dataset, entry))
            except FinemaskError as error:
                problems.append(_of_case(entry, error))
    split, more = _try_split(replace(dataset, entries=_entries_of(dataset, cases)))
    problems += more
    copies, straddling = _copies(cases, split)
    problems += straddling if not more else []
    notes = [*dataset.notes, *(split.notes if split else ()), *copies, *_flaw_notes(cases)]
    notes += _warning_notes([str(w.message) for w in caught if w.category is DataWarning])
    return CheckReport(Path(path), dataset, tuple(cases), tuple(problems), tuple(notes), split)


def _read_facts(dataset: Dataset, entry: Entry) -> CaseFacts:
    facts = measure(dataset.read(entry), len(dataset.labels))
    dataset.read_lr(entry)
    return facts


def _entries_of(dataset: Dataset, cases: Sequence[CaseFacts]) -> tuple[Entry, ...]:
    readable = {case.name for case in cases}
    return tuple(entry for entry in dataset.entries if entry.name in readable)


def _warning_notes(messages: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(messages))
    rest = len(distinct) - MOST_WARNINGS
    return distinct[:MOST_WARNINGS] + ([f"{rest} more such warnings"] if rest > 0 else [])


def _of_case(entry: Entry, error: FinemaskError) -> FinemaskError:
    """The same error, naming the case where the file's name does not."""
    if stem(error.subject) == entry.name:
        return error
    return DataError(error.subject, f"case {entry.name} {error.what}", error.fix)


def _try_split(dataset: Dataset) -> tuple[Split | None, list[FinemaskError]]:
    if not any(entry.labelled for entry in dataset.entries):
        return None, []
    try:
        return make_split(dataset), []
    except FinemaskError as error:
        return None, [error]


def _copies(
    cases: Sequence[CaseFacts], split: Split | None
) -> tuple[list[str], list[FinemaskError]]:
    """Cases with the same voxels: a note, or a problem where the split tears them apart."""
    part_of = {name: part for part in PARTS for name in getattr(split, part, ())}
    by_pixels = defaultdict(list)
    for case in cases:
        by_pixels[case.pixels].append(case)
    notes, problems = [], list[FinemaskError]()
    for same in by_pixels.values():
        names = [case.name for case in same]
        parts = {part_of[name] for name in names if name in part_of}
        if len(parts) > 1:
            problems.append(
                DataError(
                    names[0],
                    f"has the same voxels as {few(names[1:])}, in {' and '.join(sorted(parts))}",
                    "give them one group, for example in groups.csv",
                )
            )
        elif len(names) > 1:
            notes.append(f"{few(names)} have the same voxels")
    return notes, problems


def _flaw_notes(cases: Sequence[CaseFacts]) -> list[str]:
    """Each kind of oddity once, with the first cases that show it."""
    by_kind: Mapping[str, list[str]] = defaultdict(list)
    for case in cases:
        for flaw in case.flaws:
            kind = flaw.lstrip("0123456789 ")
            by_kind[kind].append(case.name)
    notes = [f"{kind}: {len(names)} cases ({few(names)})" for kind, names in by_kind.items()]
    if empty := [case.name for case in cases if case.empty]:
        notes.append(f"no lesion in {len(empty)} cases ({few(empty)})")
    return notes


def _image_lines(dataset: Dataset, cases: Sequence[CaseFacts]) -> list[tuple[str, str]]:
    units = sorted({case.unit for case in cases})
    spacing = "unknown, sizes are in pixels"
    if "mm" in units:
        spacing = _range([case.spacing for case in cases if case.unit == "mm"]) + " mm"
        unknown = sum(case.unit == "px" for case in cases)
        spacing += f", unknown for {unknown} cases" if unknown else ""
    low, high = zip(*(case.intensities for case in cases), strict=True)
    return [
        ("patients", str(len({case.group for case in cases}))),
        ("size", _range([case.shape for case in cases]) + " voxels (slowest axis first)"),
        ("spacing", spacing),
        ("channels", f"{dataset.channels}, intensities {min(low):g} to {max(high):g}"),
    ]


def _label_lines(dataset: Dataset, cases: Sequence[CaseFacts]) -> list[tuple[str, str]]:
    labelled = [case for case in cases if case.class_voxels is not None]
    lines = [("labelled", f"{len(labelled)} of {len(cases)} cases")]
    voxels = sum(math.prod(case.shape) for case in labelled)
    for k, (label, value) in enumerate(dataset.labels.items()):
        counts = [case.class_voxels[k] for case in labelled if case.class_voxels]
        share = sum(counts) / max(voxels, 1)
        present = sum(count > 0 for count in counts)
        lines.append(
            (f"class {k + 1}", f"{label} = {value}: {share:.2%} of the voxels, in {present} cases")
        )
        for unit in sorted({case.unit for case in labelled}):
            lesions = [les for case in labelled if case.unit == unit for les in case.lesions[k]]
            if lesions:
                lines.append(("  lesions", _lesion_sizes(lesions, unit)))
    if readers := sorted({case.readers for case in cases if case.readers}):
        lines.append(("readers", f"{' or '.join(map(str, readers))} a case"))
    return lines


def _lesion_sizes(lesions: Sequence[Lesion], unit: Unit) -> str:
    five = np.percentile([lesion.diameter for lesion in lesions], [0, 25, 50, 75, 100])
    tiny = sum(lesion.voxels <= TINY_VOXELS for lesion in lesions)
    return (
        f"{len(lesions)}; equivalent diameter (least, quartiles, most) "
        f"{' '.join(f'{d:.3g}' for d in five)} {unit}; {tiny} of at most {TINY_VOXELS} voxels"
    )


def _range(rows: Sequence[Sequence[float | int]]) -> str:
    """Per axis the one value, or the smallest and largest.

    Example:
        >>> _range([(4, 5), (4, 7)])
        '4 x 5-7'
    """
    table = np.array(rows)
    low, high = table.min(axis=0), table.max(axis=0)
    return " x ".join(
        f"{a:.4g}" if np.isclose(a, b, rtol=1e-4) else f"{a:.4g}-{b:.4g}"
        for a, b in zip(low, high, strict=True)
    )
