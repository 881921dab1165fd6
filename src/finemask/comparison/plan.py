"""What is compared, fixed once in ``plan.json`` before the first run starts.

A comparison is rows (methods and ablations) by seeds by folds. Whatever could
make it unfair is one value for all of them, or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from finemask import __version__
from finemask.datasets import Dataset, Split, find_split, make_split
from finemask.datasets.listing import few, read_json
from finemask.errors import DataError, UsageError
from finemask.io import write_json
from finemask.io.outputs import class_in_file_name
from finemask.methods import create, find_method
from finemask.metrics.protocols import PROTOCOLS
from finemask.metrics.scores import group_by_size
from finemask.recipe import Recipe
from finemask.training.setup import resolve_recipe
from finemask.training.teacher import check_teacher

PLAN, DONE, FAILED, TOLD = "plan.json", "cell.json", "failure.json", ".progress"
BUDGET = ("steps", "epochs", "minutes")
SAME_TASK = ("dims", "channels", "classes", "scale")
SAME_PAIRING = ("degrade", "blur_sigma", "noise")
"""Settings that decide what the LR image is: one question for all methods."""

STOPPED = 3
"""Exit code of a cell that was told to stop and saved what it had."""

Mode = Literal["native", "matched"]


@dataclass(frozen=True)
class Row:
    """One line of the tables: a method, or a method with an option changed.

    Args:
        label: Unique name, ``dsrl`` or ``dsrl: no affinity``.
        recipe: Complete; the seed is that of the cell.
        ablation: What was changed, for rows of an ablation.
    """

    label: str
    recipe: Recipe
    ablation: str = ""

    @property
    def folder(self) -> str:
        """The label as the name of a folder."""
        return class_in_file_name(self.label)


@dataclass(frozen=True)
class Cell:
    """One training with its masks and scores.

    Args:
        row: Of the table.
        seed: Of weights, sample order and augmentation.
        fold: Number of the split, counted from 1.
    """

    row: Row
    seed: int
    fold: int

    @property
    def name(self) -> str:
        """Where it lies below ``cells/``, and what it is called in messages."""
        return f"{self.row.folder}/seed-{self.seed}-fold-{self.fold}"

    @property
    def recipe(self) -> Recipe:
        """The row's recipe with this cell's seed."""
        return replace(self.row.recipe, train=replace(self.row.recipe.train, seed=self.seed))


@dataclass(frozen=True)
class Plan:
    """A comparison, complete.

    Args:
        rows: The first is the one that all others are compared with.
        seeds: Of every row.
        splits: One a fold, the same for every row and seed.
        data: Name of the data set.
        fingerprint: Of its contents.
        mode: ``matched``: images are reduced first, truth and mask are on the image's grid.
            ``native``: the images are the LR input, masks are brought back to their grid.
        protocol: Name in ``PROTOCOLS``.
        protocol_version: Of that protocol, so that scores of two versions never mix.
        size_edges: Diameters between the size groups; empty for tertiles.
        threads: CPU threads of each cell; equal for all, or times could not be compared.
    """

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    splits: tuple[Split, ...]
    data: str
    fingerprint: str
    mode: Mode = "matched"
    protocol: str = "segmentation"
    protocol_version: int = 0
    size_edges: tuple[float, ...] = ()
    threads: int = 1

    @property
    def cells(self) -> list[Cell]:
        """Seed by seed, so that a comparison that is stopped early is even."""
        folds = range(1, len(self.splits) + 1)
        return [Cell(r, s, k) for s in self.seeds for k in folds for r in self.rows]

    def cell(self, name: str) -> Cell:
        """The cell of a name."""
        return next(cell for cell in self.cells if cell.name == name)

    def save(self, out: Path) -> None:
        """Write the plan, its splits first."""
        for fold, split in enumerate(self.splits, start=1):
            split.save(split_file(out, fold), overwrite=True)
        values = {
            "finemask": __version__,
            "folds": len(self.splits),
            **{key: value for key, value in asdict(self).items() if key not in ("rows", "splits")},
            "rows": [
                {"label": r.label, "ablation": r.ablation, "recipe": r.recipe.to_dict()}
                for r in self.rows
            ],
        }
        write_json(out / PLAN, values, overwrite=True)

    @classmethod
    def load(cls, out: Path) -> Plan:
        """Read the plan of a comparison.

        Raises:
            DataError: When there is none, or a damaged one.
        """
        values = read_json(out / PLAN)
        try:
            return cls(
                rows=tuple(
                    Row(r["label"], read_recipe(r["recipe"], r["label"]), r["ablation"])
                    for r in values["rows"]
                ),
                seeds=tuple(values["seeds"]),
                splits=tuple(Split.load(split_file(out, k + 1)) for k in range(values["folds"])),
                data=values["data"],
                fingerprint=values["fingerprint"],
                mode=values["mode"],
                protocol=values["protocol"],
                protocol_version=values["protocol_version"],
                size_edges=tuple(values["size_edges"]),
                threads=values["threads"],
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                out / PLAN, f"is no plan of a comparison ({error})", "compare into another --out"
            ) from error


@dataclass(frozen=True)
class Choices:
    """What the caller chose of all that makes a row, see ``compare``."""

    methods: Sequence[str] = ()
    ablate: Sequence[str] = ()
    recipe: str | Path | None = None
    settings: Sequence[str] = ()
    settings_for: Sequence[str] = ()
    scale: Sequence[int] | None = None
    bounds: Mapping[str, float | int] = field(default_factory=dict)


def read_recipe(values: Mapping[str, Any], subject: str) -> Recipe:
    """A recipe that was written down; what the program has learned since is at its default."""
    recipe = Recipe.from_dict(values, subject)
    defaults = asdict(find_method(recipe.method).config_type())
    return replace(recipe, config={**defaults, **recipe.config})


def split_file(out: Path, fold: int) -> Path:
    return out / "splits" / f"fold-{fold}.json"


def make_rows(dataset: Dataset, choices: Choices) -> tuple[Row, ...]:
    """The rows of a comparison, with one task, pairing and budget for all.

    Raises:
        UsageError: On unknown methods or options, or whatever would favour a row.
    """
    ablate = {name: labels for name, _, labels in (a.partition(":") for a in choices.ablate)}
    methods = tuple(dict.fromkeys([*choices.methods, *ablate]))
    if not methods:
        raise UsageError("--methods", "names none", "write for example --methods unet,dsrl")
    special = _settings_by_method(choices.settings_for, methods)
    rows: list[Row] = []
    for name in methods:
        if not find_method(name, dataset.dims).needs_masks:
            raise UsageError(name, "makes images, masks are compared", "leave it out")
        whole = _resolve(dataset, name, choices, special[name])
        rows.append(Row(name, whole))
        for label, changes in _ablations(name, ablate[name]) if name in ablate else ():
            recipe = replace(whole, config={**whole.config, **changes})
            if recipe != whole:
                rows.append(Row(f"{name}: {label}", recipe, label))
    _check_fair(rows)
    with torch.device("meta"):  # wrong options are found here, without the weights' memory
        for row in rows:
            check_teacher(create(row.recipe), row.recipe)
    return tuple(rows)


def _ablations(name: str, labels: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Rows of a method's ablation table: all, or those named, commas between."""
    known = find_method(name).ABLATIONS
    wanted = [label.strip() for label in labels.split(",")] if labels else [*known]
    if not known:
        raise UsageError(f"--ablate {name}", "has no ablations", "leave it out")
    if unknown := [label for label in wanted if label not in known]:
        raise UsageError(
            f"--ablate {name}", f"has no row {few(unknown)}", f"pick of {', '.join(known)}"
        )
    return [(label, known[label]) for label in wanted]


def _resolve(dataset: Dataset, name: str, choices: Choices, special: Sequence[str]) -> Recipe:
    bounds = [f"train.{key}={value}" for key, value in choices.bounds.items()]
    if bounds and "steps" not in choices.bounds:
        bounds.append("train.steps=0")
    settings = [*choices.settings, *bounds, *special]
    return resolve_recipe(dataset, name, choices.recipe, settings, choices.scale)


def _settings_by_method(given: Sequence[str], methods: Sequence[str]) -> dict[str, list[str]]:
    """``METHOD:KEY=VALUE`` lines by method."""
    found: dict[str, list[str]] = {name: [] for name in methods}
    for line in given:
        name, colon, setting = line.partition(":")
        if not colon or name not in found:
            raise UsageError(
                f"--set-for {line}", "names no method that is compared",
                f"write METHOD:KEY=VALUE with {few(methods)}",
            )  # fmt: skip
        found[name].append(setting)
    return found


def _check_fair(rows: Sequence[Row]) -> None:
    """Refuse rows that answer different questions, or with different means."""
    first, *others = rows
    for row in others:
        for section, keys in (
            ("task", SAME_TASK), ("prepare", ("spacing_mm",)), ("pairs", SAME_PAIRING),
            ("train", BUDGET),
        ):  # fmt: skip
            for key in keys:
                a, b = (getattr(getattr(r.recipe, section), key) for r in (first, row))
                if a != b:
                    raise UsageError(
                        f"{section}.{key}",
                        f"is {a} for {first.label} and {b} for {row.label}, which is not fair",
                        "give one value for all "
                        + ("(--steps, --epochs or --minutes)" if key in BUDGET else "(--set)"),
                    )
    folders = [row.folder.lower() for row in rows]
    if twice := {f for f in folders if folders.count(f) > 1}:
        raise UsageError("rows", f"would share the folder {few(sorted(twice))}", "rename one")


def make_splits(
    dataset: Dataset, *, folds: int | None = None, split: str | Path | None = None
) -> tuple[Split, ...]:
    """The split of every fold; each must train, choose and test.

    Raises:
        UsageError: When a part is empty, or both a file and folds are asked for.
    """
    if split is not None and folds:
        raise UsageError("--folds", "and --split are both given", "leave one out")
    if split is not None:
        splits = [find_split(dataset, split).with_validation(dataset)]
    elif folds:
        splits = [make_split(dataset, fold=(k, folds)) for k in range(1, folds + 1)]
    else:
        splits = [make_split(dataset)]
    for one in splits:
        for part in ("train", "val", "test"):
            if not one.part(part):
                raise UsageError(
                    dataset.root, f"has no {part} case in the split",
                    "a comparison learns, chooses and tests on different cases: change the split",
                )  # fmt: skip
    return tuple(splits)


def check_choices(
    protocol: str = Plan.protocol,
    mode: str = Plan.mode,
    size_edges: Sequence[float | int] = (),
    **counts: int | None,
) -> None:
    """Refuse values that no comparison can have.

    Raises:
        UsageError: The first that makes no sense.
    """
    if protocol not in PROTOCOLS:
        raise UsageError("--protocol", f"{protocol!r} is unknown", f"pick {', '.join(PROTOCOLS)}")
    if mode not in ("native", "matched"):
        raise UsageError("--mode", f"is {mode!r}", "choose native or matched")
    try:
        group_by_size((), size_edges)
    except ValueError as error:
        raise UsageError("--size-edges", str(error), "give for example 4,10") from error
    for name, value in counts.items():
        if value is not None and value < 1:
            raise UsageError(f"--{name}", f"is {value}", "give at least 1")


def extended(old: Plan, new: Plan) -> Plan:
    """The plan of a folder with the rows and seeds that a new call adds.

    The order of rows is that of the new call, so its first row is the reference.

    Raises:
        UsageError: When anything else differs; the message says what.
    """
    fix = "compare into another --out, or pass --overwrite"
    for name, a, b in (
        ("data set", old.fingerprint, new.fingerprint),
        ("splits", [(s.train, s.val, s.test) for s in old.splits],
         [(s.train, s.val, s.test) for s in new.splits]),
    ):  # fmt: skip
        if a != b:
            raise UsageError("--out", f"holds a comparison with another {name}", fix)
    for key in ("mode", "protocol", "protocol_version", "size_edges", "threads"):
        a, b = getattr(old, key), getattr(new, key)
        if a != b:
            raise UsageError("--out", f"holds a comparison with {key} {a}, this call has {b}", fix)
    wanted = {row.label: row for row in new.rows}
    if lacking := [row.label for row in old.rows if row.label not in wanted]:
        raise UsageError("--out", f"holds {few(lacking)} too, which this call leaves out",
                         "name all of its methods, or compare into another --out")  # fmt: skip
    for row in old.rows:
        if found := _changes(row.recipe, wanted[row.label].recipe):
            raise UsageError("--out", f"holds {row.label} with {found}", fix)
    if set(old.seeds) - set(new.seeds):
        raise UsageError(
            "--seeds", f"is {len(new.seeds)}, the folder holds {len(old.seeds)}",
            f"give at least {len(old.seeds)}",
        )  # fmt: skip
    return new


def _changes(old: Recipe, new: Recipe) -> str:
    """The first setting that differs, in words."""
    a, b = _flat(old.to_dict()), _flat(new.to_dict())
    differing = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    if not differing:
        return ""
    key = differing[0]
    more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
    return f"{key} = {a.get(key)}, this call has {b.get(key)}{more}"


def _flat(values: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{start}{key}.")
        else:
            flat[start + key] = list(value) if isinstance(value, tuple) else value
    return flat
