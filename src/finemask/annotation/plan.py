"""What a user names becomes a list of tasks: one image with what readers left on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from finemask.datasets.dataset import Dataset, Entry
from finemask.datasets.listing import few, inside
from finemask.datasets.load import list_cases, survey
from finemask.errors import DataError, UsageError
from finemask.io import check_name, stem
from finemask.pseudonyms import Pseudonyms
from finemask.softmask.marks import MarkedLesion, find_marks, read_marks

Origin = Literal["mask", "raters", "recist"]
IMAGES_PNG = "Images_png"
"""Folder of DeepLesion's images, which may be named instead of the folder above it."""


@dataclass(frozen=True)
class Task:
    """One image to soften.

    Args:
        entry: Its files.
        origin: What is on it.
        label: Value of the class that is softened, in the order of the data set.
        labels: Labels of the data set.
        marks: RECIST marks, for that origin.
    """

    entry: Entry
    origin: Origin
    label: int = 1
    labels: Mapping[str, int] | None = None
    marks: tuple[MarkedLesion, ...] = ()

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def items(self) -> int:
        """How many results it stands for: the image, or its marks."""
        return len(self.marks) or 1

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that is read."""
        masks = (self.entry.mask,) if self.origin == "mask" and self.entry.mask else ()
        readers = self.entry.readers if self.origin == "raters" else ()
        return (*self.entry.images, *masks, *readers)


@dataclass(frozen=True)
class Plan:
    """Everything that is to be done, and what cannot be.

    Args:
        root: The user's folder; shared files tell paths below it.
        tasks: In the order of the results.
        problems: Errors of cases or marks that are no task.
        dims: 2 or 3; of marks, 2.
        label: Name of the softened class.
        notes: What was assumed or left out.
        hide: Makes a text one that shared files may hold.
        others: Cases that are left out, of which notes may tell.
    """

    root: Path
    tasks: tuple[Task, ...]
    problems: tuple[DataError, ...]
    dims: int = 2
    label: str = "lesion"
    notes: tuple[str, ...] = ()
    hide: Callable[[str], str] = str
    others: tuple[Entry, ...] = ()

    def pseudonymised(self, names: Pseudonyms) -> Plan:
        """The same tasks under pseudonyms, in whatever is written."""
        tasks = tuple(
            replace(
                task,
                entry=task.entry.pseudonymised(names, self.root),
                marks=tuple(replace(m, case=names(m.case), group=names(m.group) if m.group else "")
                            for m in task.marks),
            )
            for task in self.tasks
        )  # fmt: skip
        for entry in self.others:
            entry.pseudonymised(names, self.root)
        for problem in self.problems:  # of what became no task
            file = Path(problem.subject)
            names.remember_files([file], self.root, names(stem(file) or file.name))
        return replace(self, tasks=tasks, notes=tuple(map(names.hide, self.notes)), hide=names.hide)


def plan_tasks(
    source: Path, origin: Origin, marks: Path | None = None, label: str | None = None
) -> Plan:
    """List what is to be softened.

    Raises:
        UsageError: When the input has no such readings, or several classes and none is named.
        DataError: When nothing can be listed.
    """
    if origin == "recist":
        return _plan_marks(source, marks)
    if marks is not None:
        raise UsageError("--marks", f"is for --from recist, not {origin}", "leave it out")
    dataset, problems = survey(source)
    if dataset is None:
        raise problems[0]
    name, value = _class_of(dataset, label)
    chosen = [e for e in dataset.entries if (e.mask if origin == "mask" else e.readers)]
    if not chosen:
        raise UsageError(source, *_nothing_of(dataset, origin))
    tasks = tuple(Task(entry, origin, value, dict(dataset.labels)) for entry in chosen)
    others = tuple(e for e in dataset.entries if e not in chosen)
    without = [e.name for e in others]
    kind = "a mask" if origin == "mask" else "readers"
    notes = list(dataset.notes)
    if without:
        notes.append(f"{len(without)} images without {kind} are left out: {few(without)}")
    return Plan(
        _root(source), tasks, tuple(problems), dataset.dims, name, tuple(notes), others=others
    )


def _root(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _class_of(dataset: Dataset, label: str | None) -> tuple[str, int]:
    """Name and number of the class to soften."""
    names = list(dataset.labels)
    if label is None and len(names) > 1:
        raise UsageError(
            dataset.root, f"has {len(names)} classes ({few(names)}), one is softened at a time",
            "name it by --label",
        )  # fmt: skip
    if label is not None and label not in names:
        raise UsageError("--label", f"is {label!r}, the classes are {few(names)}", "name one")
    name = label or (names[0] if names else "lesion")
    return name, names.index(name) + 1 if names else 1


def _nothing_of(dataset: Dataset, origin: Origin) -> tuple[str, str]:
    """What is missing, and what could be taken instead."""
    wanted = {"mask": "masks/", "raters": "masks_<reader>/ folders"}[origin]
    has = {
        "raters": any(e.readers for e in dataset.entries),
        "mask": any(e.mask for e in dataset.entries),
        "recist": dataset.root.is_dir() and find_marks(dataset.root) is not None,
    }
    others = [f"--from {name}" for name, there in has.items() if there]
    fix = f"take {' or '.join(others)}" if others else f"give a data set with {wanted}"
    return f"has no {wanted}, which --from {origin} needs", fix


def _plan_marks(source: Path, table: Path | None) -> Plan:
    if not source.exists():
        raise DataError(source, "does not exist", "check the path")
    root = source.parent if source.name == IMAGES_PNG else _root(source)
    path = table or find_marks(root) or find_marks(_root(source))
    if path is None:
        raise UsageError(
            source, "has no table of marks (recist.csv or DL_info.csv) in it", "name one by --marks"
        )
    found = read_marks(path)
    problems = list(found.problems)
    entries = {} if all(row.files for row in found.rows) else _by_name(source)
    tasks = defaultdict[str, list[MarkedLesion]](list)
    homes: dict[str, Entry] = {}
    for row in found.rows:
        try:
            homes.setdefault(row.case, _home(row, entries, source, root))
        except DataError as error:
            problems.append(error)
        else:
            tasks[row.case].append(row)
    if not found.rows and not problems:
        raise DataError(path, "has no rows", "write one row a mark")
    return Plan(
        _root(source),
        tuple(Task(homes[name], "recist", marks=tuple(rows)) for name, rows in tasks.items()),
        tuple(problems),
    )


def _by_name(source: Path) -> dict[str, Entry]:
    return {entry.name: entry for entry in list_cases(source).entries}


def _home(row: MarkedLesion, entries: Mapping[str, Entry], source: Path, root: Path) -> Entry:
    """Where the image of a mark lies.

    Raises:
        DataError: When it is not there, or outside the folder of the images.
    """
    try:
        check_name(row.case)
    except DataError as error:
        raise DataError(row.where, f"{error.subject} {error.what}", error.fix) from error
    if row.files:
        places = [folder / file for folder in (root, source) for file in row.files]
        image = next((p for p in places if p.is_file() and inside(root, p)), None)
        entry = None if image is None else Entry(row.case, (image,))
    else:
        entry = entries.get(row.case)
    if entry is None:
        raise DataError(
            row.where, f"is on the image {row.case}, which {source} does not have",
            "add the image, or remove the row",
        )  # fmt: skip
    return replace(
        entry,
        group=row.group or entry.group,
        split=row.split or entry.split,
        mask=None,
        readers=(),
    )
