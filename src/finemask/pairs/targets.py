"""What a network should say about a case, from whichever labels the task names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from numpy.typing import NDArray

from finemask.case import Case
from finemask.errors import DataError
from finemask.preparation import class_maps, subject
from finemask.recipe import PairSettings

FIELDS = {"hard": "truth", "soft": "soft", "readers": "readers"}
"""Where a case holds the labels of a target; ``none`` asks for none."""


def target_of(case: Case, settings: PairSettings, foreground: int) -> Float[ndarray, " f *s"]:
    """One map in [0, 1] for each foreground class of a case.

    ``hard``: 1 where the truth has the label. ``soft``: the case's Soft Masks.
    ``readers``: the share of the readers who gave the label; a reader who
    marked nothing counts. ``none``: no maps.

    Raises:
        DataError: When the case has no such labels, or other classes than the task.

    Example:
        >>> from finemask.geometry import Geometry
        >>> readers = np.array([[[1, 0]], [[1, 1]]])
        >>> grid = Geometry.regular((1, 2))
        >>> case = Case("a", np.zeros((1, 1, 2), np.float32), grid, readers=readers)
        >>> target_of(case, PairSettings(target="readers"), 1).tolist()
        [[[1.0, 0.5]]]
    """
    check_labels(case, settings, foreground)
    return maps_of(labels_of(case, settings), settings, foreground)


def truth_of(case: Case, settings: PairSettings, foreground: int) -> Bool[ndarray, " f *s"]:
    """The masks that a network's answer is scored against while it learns.

    They are its target cut at 0.5; where that is a soft mask of a case that has a binary mask
    too, the latter, since some ways to soften widen a lesion.
    """
    if settings.target == "soft" and case.truth is not None:
        return class_maps(case.truth, foreground) >= 0.5
    return target_of(case, settings, foreground) >= 0.5


def labels_of(case: Case, settings: PairSettings) -> NDArray[Any]:
    """The array of a case that its target is made of; an empty one where there is no target.

    Raises:
        DataError: When the case does not have it.
    """
    if settings.target == "none":
        return np.empty((0, *case.geometry.shape), np.float32)
    field = FIELDS[settings.target]
    labels: NDArray[Any] | None = getattr(case, field)
    if labels is None:
        known = [name for name in FIELDS.values() if getattr(case, name) is not None]
        raise DataError(
            subject(case),
            f"case {case.name} has no {field}, which pairs.target={settings.target} needs; "
            f"it has {', '.join(known) or 'no labels at all'}",
            "add them to the data set or change pairs.target",
        )
    return labels


def check_labels(case: Case, settings: PairSettings, foreground: int) -> None:
    """Make sure that the labels of a case are those of the task.

    Raises:
        DataError: When they are missing or of other classes.
    """
    labels = labels_of(case, settings)
    if settings.target == "none":
        return
    soft = settings.target == "soft"
    classes = len(labels) if soft else int(labels.max(initial=0))
    if classes > foreground or (soft and classes < foreground):
        raise DataError(
            subject(case),
            f"case {case.name} has {classes} foreground classes in {FIELDS[settings.target]}, "
            f"the task has {foreground}",
            "set task.classes to the number of labels with the background, or merge labels",
        )


def maps_of(
    labels: NDArray[Any], settings: PairSettings, foreground: int
) -> Float[ndarray, " f *s"]:
    """The target made of labels or a window of them, as `target_of`."""
    if settings.target in ("soft", "none"):
        return np.asarray(labels, np.float32)
    if settings.target == "hard":
        return class_maps(labels, foreground)
    maps = [(labels == k).mean(0, dtype=np.float32) for k in range(1, foreground + 1)]
    return np.stack(maps)


def lesion_masks(
    labels: NDArray[Any], settings: PairSettings, foreground: int
) -> Iterator[Bool[ndarray, " *s"]]:
    """Where each class lies, one class at a time: half a share or, where none is that sure, the
    largest share there is."""
    for k in range(1, foreground + 1 if settings.target != "none" else 1):
        if settings.target == "hard":
            yield np.asarray(labels == k)
            continue
        share = labels[k - 1] if settings.target == "soft" else (labels == k).mean(0)
        highest = float(share.max(initial=0))
        yield np.asarray(share >= min(0.5, highest)) & (highest > 0)
