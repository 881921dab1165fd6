"""Published divisions, and drawn ones where a paper tells no more than sizes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from finemask.datasets.dataset import Part
from finemask.datasets.public.records import Item
from finemask.datasets.split import PARTS, Split


def split_of(
    parts: Mapping[Any, Iterable[str]], note: str = "", leak: str = "", seed: int = 0
) -> Split:
    """A named split from its parts; what is missing is empty."""
    train, val, test = (tuple(sorted(parts.get(part, ()))) for part in PARTS)
    notes = (note,) if note else ()
    return Split(train, val, test, method="declared", seed=seed, notes=notes, leak=leak)


def declared(items: Sequence[Item], note: str = "", leak: str = "") -> Split:
    """The split that the items themselves tell."""
    parts = {part: [item.name for item in items if item.split == part] for part in PARTS}
    return split_of(parts, note, leak)


def by_count(
    items: Sequence[Item], counts: Mapping[Part, int], *, seed: int = 0, by_group: bool = False
) -> dict[Part, tuple[str, ...]]:
    """Cases in random order, cut at the sizes that a paper tells.

    Another number of cases is divided in the same proportion.

    Args:
        items: Cases.
        counts: Cases of each part.
        seed: Of the order.
        by_group: Keep the cases of a patient together; sizes are then met as nearly as that
            allows.
    """
    unit = {item.name: (by_group and item.group) or item.name for item in items}
    members: dict[str, list[str]] = {}
    for name, key in unit.items():
        members.setdefault(key, []).append(name)
    order = np.random.default_rng(seed).permutation(sorted(members))
    ends = np.cumsum(list(counts.values())) / sum(counts.values()) * len(items)
    parts: dict[Part, list[str]] = {part: [] for part in counts}
    done = 0
    for key in order:
        cases = members[str(key)]
        middle = done + len(cases) / 2
        part = list(counts)[int(np.searchsorted(ends, middle, side="left"))]
        parts[part] += cases
        done += len(cases)
    return {part: tuple(sorted(names)) for part, names in parts.items()}


def shuffled_folds(names: Sequence[str], folds: int, seed: int) -> list[list[str]]:
    """Folds of a shuffled list, as scikit-learn's ``KFold(shuffle=True, random_state=seed)``.

    Args:
        names: In the order that the shuffle starts from.
        folds: How many.
        seed: Of NumPy's legacy generator.

    Example:
        >>> shuffled_folds(list("abcde"), 2, 66)
        [['b', 'c', 'd'], ['a', 'e']]
    """
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)  # the published folds' generator
    return [[names[i] for i in sorted(part)] for part in np.array_split(order, folds)]


def fold_splits(
    names: Sequence[str], folds: int, seed: int, prefix: str, note: str
) -> dict[str, Split]:
    """A named split for each fold: it tests, all others train."""
    parts = shuffled_folds(names, folds, seed)
    return {
        f"{prefix}_fold{k}": split_of(
            {"test": part, "train": [name for name in names if name not in part]}, note, seed=seed
        )
        for k, part in enumerate(parts, start=1)
    }
