"""Training, validation and test cases, divided by patient and by content."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

from finemask.datasets.content import content_hash, joined, picture_hash
from finemask.datasets.dataset import Dataset, Entry
from finemask.datasets.listing import few, read_json
from finemask.errors import DataError, UsageError
from finemask.io.notices import warn

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """Which cases train, choose and test a model.

    Args:
        train: Cases to learn from.
        val: Cases that choose the checkpoint and the threshold.
        test: Cases that are only ever scored.
        method: ``declared`` by the data set, or ``drawn`` by hash.
        seed: Seed of what was drawn.
        fold: ``(k, n)``, counted from 1, where folds were asked for.
        fingerprint: ``Dataset.fingerprint`` of the data that were split.
        notes: What was decided on the way, a sentence each.
        leak: Of a published split in which a patient or an image is in several parts: how it
            leaks. It is used as it is, with a warning.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    method: Literal["declared", "drawn"] = "drawn"
    seed: int = 0
    fold: tuple[int, int] | None = None
    fingerprint: str = ""
    notes: tuple[str, ...] = ()
    leak: str = ""

    def part(self, name: str) -> tuple[str, ...]:
        """The cases of one part.

        Raises:
            UsageError: When the name is none of ``train``, ``val`` and ``test``.
        """
        if name not in PARTS:
            raise UsageError("--part", f"is {name!r}", "choose train, val or test")
        cases: tuple[str, ...] = getattr(self, name)
        return cases

    def save(self, path: str | Path, overwrite: bool = False) -> None:
        """Write ``splits.json``, whole or not at all."""
        from finemask.io.files import write_json

        write_json(path, asdict(self), overwrite)

    @classmethod
    def load(cls, path: str | Path) -> Split:
        """Read ``splits.json``, or any JSON object with ``train``, ``val`` and ``test``.

        Raises:
            DataError: When it is no split, or names a case twice.
        """
        path = Path(path)
        values = read_json(path)
        parts = {part: values.get(part, []) for part in PARTS}
        for part, names in parts.items():
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise DataError(path, f"{part} is no list of case names", "correct the file")
        if not any(parts.values()):
            raise DataError(path, "names no cases", "write train, val and test lists")
        names = [name for part in parts.values() for name in part]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise DataError(path, f"names cases twice: {few(twice)}", "keep each case in one part")
        try:
            fold = values.get("fold")
            return cls(
                train=tuple(parts["train"]),
                val=tuple(parts["val"]),
                test=tuple(parts["test"]),
                method="drawn" if values.get("method") == "drawn" else "declared",
                seed=int(values.get("seed", 0)),
                fold=None if fold is None else (int(fold[0]), int(fold[1])),
                fingerprint=str(values.get("fingerprint", "")),
                notes=tuple(map(str, values.get("notes", ()))),
                leak=str(values.get("leak", "")),
            )
        except (TypeError, ValueError, LookupError) as error:
            raise DataError(
                path, "needs a whole number as seed, and two or null as fold", "correct the file"
            ) from error

    def renamed(self, aliases: Mapping[str, str]) -> Split:
        """The same split of cases that got other names; names that are not listed stay."""
        named = {p: tuple(aliases.get(n, n) for n in getattr(self, p)) for p in PARTS}
        return replace(self, train=named["train"], val=named["val"], test=named["test"])

    def verify(self, dataset: Dataset) -> None:
        """Check that the data set has every case, and that no patient or image straddles parts.

        A leak that is declared is warned of, and not looked for.

        Raises:
            DataError: When it does not.
        """
        part_of = {name: part for part in PARTS for name in getattr(self, part)}
        entries = {entry.name: entry for entry in dataset.entries}
        if missing := [name for name in part_of if name not in entries]:
            raise DataError(
                dataset.root,
                f"lacks cases of the split: {few(missing)}",
                "use the data it was made of",
            )
        if self.leak:
            warn(dataset.root, f"the split leaks: {self.leak}")
        else:
            _refuse_straddling(dataset, [entries[name] for name in part_of], part_of)

    def with_validation(self, dataset: Dataset, share: float = 0.15 / 0.85) -> Split:
        """This split; where nothing validates, cases of some training patients do.

        Args:
            dataset: What was split.
            share: Of the training patients.
        """
        if self.val or not self.train:
            return self
        entries = [dataset.entry(name) for name in self.train]
        units, _ = patient_units(entries, dataset.dims)
        part_of = _draw(units, {"train": 1 - share, "val": share}, f"{self.seed} val")
        train, val = (tuple(n for n in self.train if part_of[n] == p) for p in ("train", "val"))
        note = "the split has no validation part: it is drawn from train"
        return replace(self, train=train, val=val, notes=(*self.notes, note))


def find_split(dataset: Dataset, name: str | Path) -> Split:
    """A split of a data set: a ``splits.json``, or one of the set's ``splits/`` by its name.

    Raises:
        UsageError: When there is neither; the message names those that the data set has.
        DataError: When it does not fit the data set.
    """
    folder = (dataset.root if dataset.root.is_dir() else dataset.root.parent) / "splits"
    path = next((p for p in (Path(name), folder / f"{name}.json") if p.is_file()), None)
    if path is None:
        named = sorted(p.stem for p in folder.glob("*.json"))
        there = f"nor a split of the data set ({few(named, 12)})" if named else (
            "and the data set has no splits/ with named ones"
        )  # fmt: skip
        raise UsageError("--split", f"{name} is no file, {there}", "correct the name")
    split = replace(Split.load(path).renamed(dataset.aliases), fingerprint=dataset.fingerprint())
    split.verify(dataset)
    return split


def make_split(
    dataset: Dataset,
    *,
    seed: int = 0,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    fold: tuple[int, int] | None = None,
    labelled: bool = True,
) -> Split:
    """Divide the labelled cases into train, val and test.

    What the data set declares wins; a missing validation part is then drawn from
    train. Otherwise each patient goes where the hash of its name and the seed
    falls. A new patient moves none of the others unless a part would miss its
    share by more than a quarter; then one patient an edge moves, and never
    between train and test. All cases of a patient, and all patients of whom the
    same image exists, are one unit.

    Args:
        dataset: The cases.
        seed: Another seed draws another split.
        fractions: Shares of train, val and test; they add up to 1.
        fold: ``(k, n)``, counted from 1: fold ``k`` is the test part and val is drawn
            from the rest; where a test part is declared, it stays, and fold ``k`` is val.
        labelled: Leave out cases without labels; else they are divided like the others.

    Raises:
        DataError: When there is nothing to divide, or a declared split lets a patient
            or an image straddle.
        UsageError: On impossible fractions or folds.
    """
    _check_request(fractions, fold)
    entries = [entry for entry in dataset.entries if entry.labelled or not labelled]
    if not entries:
        raise DataError(
            dataset.root,
            "has no labelled case to split",
            "put masks into masks/ or masks_<reader>/, named as the images",
        )
    units, notes = patient_units(entries, dataset.dims)
    declared = {entry.name: entry.split for entry in entries if entry.split}
    if declared:
        entries = [entry for entry in entries if entry.split]
        _refuse_straddling(dataset, entries, declared)
        part_of, more = _complete(declared, units, seed, fractions, fold)
        notes += more
    elif fold:
        part_of = _fold(units, seed, fractions, fold)
    else:
        part_of = _draw(units, dict(zip(PARTS, fractions, strict=True)), f"{seed}")
    train, val, test = (tuple(sorted(n for n, p in part_of.items() if p == part)) for part in PARTS)
    return Split(
        train=train,
        val=val,
        test=test,
        method="declared" if declared else "drawn",
        seed=seed,
        fold=fold,
        fingerprint=dataset.fingerprint(),
        notes=tuple(notes),
    )


def patient_units(entries: Sequence[Entry], dims: int) -> tuple[dict[str, str], list[str]]:
    """The indivisible unit of each case: its patient, joined with those who share an image."""
    contents = {entry.name: image_content(entry, dims) for entry in entries}
    unit_of = joined((entry.group, contents[entry.name]) for entry in entries)
    notes = [
        f"the patients {few(groups)} share an image and are kept together"
        for groups in _shared(entries, contents)
    ]
    return {entry.name: unit_of[entry.group] for entry in entries}, notes


def image_content(entry: Entry, dims: int) -> str:
    """Hash of the image of a case: pixels of a picture, unpacked bytes of a volume.

    Volumes are not decoded, which takes minutes where this takes seconds;
    ``check_dataset`` compares their voxels.
    """
    if dims == 2:
        return "-".join(picture_hash(path) for path in entry.images)
    return "-".join(content_hash(path) for path in entry.images)


def _shared(entries: Sequence[Entry], contents: Mapping[str, str]) -> list[list[str]]:
    groups = defaultdict(set)
    for entry in entries:
        groups[contents[entry.name]].add(entry.group)
    return [sorted(names) for names in groups.values() if len(names) > 1]


def _refuse_straddling(
    dataset: Dataset, entries: Sequence[Entry], part_of: Mapping[str, str]
) -> None:
    """Refuse a patient, or an image, that is in two parts."""
    for kind, key in (
        ("patient", lambda entry: entry.group),
        ("image", lambda entry: image_content(entry, dataset.dims)),
    ):
        cases = defaultdict(list)
        for entry in entries:
            cases[key(entry)].append(entry.name)
        for names in cases.values():
            if len({part_of[name] for name in names}) > 1:
                found = few(f"{name} ({part_of[name]})" for name in names)
                raise DataError(
                    dataset.root,
                    f"the split puts one {kind} into several parts: {found}",
                    "move these cases into one part",
                )


def _check_request(fractions: Sequence[float], fold: tuple[int, int] | None) -> None:
    ok = len(fractions) == 3 and min(fractions) >= 0 and abs(sum(fractions) - 1) < 1e-6
    if not ok or fractions[0] <= 0:
        raise UsageError(
            "fractions",
            f"are {tuple(fractions)}, need a share for train, val and test that add up to 1",
            "write for example 0.7, 0.15, 0.15",
        )
    if fold and not (fold[1] >= 2 and 1 <= fold[0] <= fold[1]):
        raise UsageError("fold", f"is {fold[0]}/{fold[1]}", "write 1/5 to 5/5 for five folds")


def _complete(
    declared: Mapping[str, str],
    units: Mapping[str, str],
    seed: int,
    fractions: Sequence[float],
    fold: tuple[int, int] | None,
) -> tuple[dict[str, str], list[str]]:
    """A declared split, with folds or a drawn validation part where they are needed."""
    part_of = dict(declared)
    open_units = {name: units[name] for name, part in declared.items() if part != "test"}
    if fold and len(open_units) < len(declared):
        chosen = _fold_names(open_units, seed, fold)
        part_of |= {name: "val" if name in chosen else "train" for name in open_units}
        return part_of, ["the declared test part is kept, the folds divide the rest"]
    if fold:
        return _fold(units, seed, fractions, fold), ["folds replace the declared split"]
    if "val" in declared.values() or not open_units or not fractions[1]:
        return part_of, []
    part_of |= _draw(open_units, _without_test(fractions), f"{seed} val")
    return part_of, ["no validation part is declared: it is drawn from train"]


def _fold(
    units: Mapping[str, str], seed: int, fractions: Sequence[float], fold: tuple[int, int]
) -> dict[str, str]:
    """Fold ``k`` tests; val is drawn from the others."""
    test = _fold_names(units, seed, fold)
    rest = {name: unit for name, unit in units.items() if name not in test}
    return dict.fromkeys(test, "test") | _draw(rest, _without_test(fractions), f"{seed} val")


def _fold_names(units: Mapping[str, str], seed: int, fold: tuple[int, int]) -> set[str]:
    k, n = fold
    count = len(set(units.values()))
    if count < n:
        raise UsageError(
            f"fold {k}/{n}", f"needs {n} patients, there are {count}", "use fewer folds"
        )
    part_of = _draw(units, {str(i): 1 / n for i in range(1, n + 1)}, f"{seed} fold")
    return {name for name, part in part_of.items() if part == str(k)}


def _without_test(fractions: Sequence[float]) -> dict[str, float]:
    train, val, _ = fractions
    return {"train": train / (train + val), "val": val / (train + val)}


def _draw(units: Mapping[str, str], shares: Mapping[str, float], salt: str) -> dict[str, str]:
    """Part of each case: units in the order of their hash, cut into ``shares``."""
    places = {unit: hash_place(f"{salt}:{unit}") for unit in set(units.values())}
    order = sorted(places, key=lambda unit: places[unit])
    sizes = part_sizes([places[unit] for unit in order], list(shares.values()))
    parts = [part for part, size in zip(shares, sizes, strict=True) for _ in range(size)]
    part_of_unit = dict(zip(order, parts, strict=True))
    return {name: part_of_unit[unit] for name, unit in units.items()}


def hash_place(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(sha256(text.encode()).digest()[:8]) / 2**64


def part_sizes(places: Sequence[float], shares: Sequence[float]) -> list[int]:
    """How many of the sorted ``places`` each part takes.

    An edge between two parts falls where its share says on the scale of hashes,
    which no other case influences, but at most an eighth of the smaller
    neighbour away from where exact shares put it: no part misses its share by
    more than a quarter. Then every part that has a share gets at least one
    place while there are any to give, the first parts first.

    Example:
        >>> part_sizes([0.1, 0.2, 0.4, 0.6, 0.8], [0.6, 0.2, 0.2])
        [3, 1, 1]
        >>> part_sizes([0.5, 0.6], [0.7, 0.15, 0.15])
        [1, 1, 0]
    """
    n = len(places)
    edges = [0]
    for k in range(1, len(shares)):
        ideal = n * sum(shares[:k])
        slack = n * min(shares[k - 1], shares[k]) / 8
        low, high = math.ceil(ideal - slack), math.floor(ideal + slack)
        natural = sum(place < sum(shares[:k]) for place in places)
        edges.append(min(max(natural, low), high) if low <= high else math.floor(ideal + 0.5))
    edges.append(n)
    sizes = [b - a for a, b in itertools.pairwise(edges)]
    for k, share in enumerate(shares):
        if share > 0 and sizes[k] == 0:
            richest = max(range(len(sizes)), key=lambda i: sizes[i])
            if sizes[richest] > 1:
                sizes[richest] -= 1
                sizes[k] += 1
    return sizes
