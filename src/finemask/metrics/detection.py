"""Lesions as objects: which were found, which were missed, and what was called a lesion wrongly.

Voxels that touch by a face, edge or corner are one lesion. A true lesion is *found* when it
overlaps with the prediction by more than a stated IoU, counted with all predicted components
that touch it, so that one found in two pieces is found. A predicted component is *false* when it
touches no true lesion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int, Shaped, UInt8
from numpy import ndarray

from finemask.masks import Spacing, as_masks, as_spacing, bounding_box
from finemask.metrics.lesions import components, diameter_mm

Kind = Literal["found", "missed", "false"]


@dataclass(frozen=True)
class Lesion:
    """One true lesion, or one predicted where there is none.

    Args:
        kind: ``found``, ``missed`` or ``false``.
        voxels: How many it has.
        diameter_mm: Of the disc or ball that is as large.
        centre: Its middle, in voxels from the first one of the image.
        dice: Of the lesion and all predicted components that touch it; 0 for none.
    """

    kind: Kind
    voxels: int
    diameter_mm: float
    centre: tuple[float, ...]
    dice: float = 0.0


@dataclass(frozen=True, eq=False)
class Detection:
    """All lesions of an image.

    Args:
        lesions: True ones first, in the order of their first voxel; then the false ones.
        truth: Number of the true lesion at each voxel of ``box``, from 1.
        pred: Number of the predicted component at each voxel of ``box``.
        box: Where in the image anything is true or predicted.
        false: Which predicted components are false.
    """

    lesions: tuple[Lesion, ...]
    truth: Int[ndarray, " *b"]
    pred: Int[ndarray, " *b"]
    box: tuple[slice, ...]
    false: Bool[ndarray, " n"]

    def count(self, kind: Kind) -> int:
        return sum(lesion.kind == kind for lesion in self.lesions)

    @property
    def sensitivity(self) -> float:
        """Share of the true lesions that were found; NaN when there is none."""
        found, missed = self.count("found"), self.count("missed")
        return found / (found + missed) if found + missed else float("nan")

    @property
    def f1(self) -> float:
        """``2 found / (2 found + missed + false)``; NaN when there is nothing at all."""
        twice = 2 * self.count("found")
        total = twice + self.count("missed") + self.count("false")
        return twice / total if total else float("nan")


def detect_lesions(
    pred: Shaped[ndarray, "..."],
    truth: Shaped[ndarray, "..."],
    spacing_mm: Spacing,
    *,
    least_iou: float = 0.0,
) -> Detection:
    """Match predicted to true lesions.

    Args:
        pred: Boolean or integer mask.
        truth: The same, on the same grid.
        spacing_mm: Voxel spacing along each array axis; with 1 diameters are in voxels.
        least_iou: A lesion is found above this IoU; 0 takes any overlap.

    Raises:
        ValueError: When the shapes differ, an array is no mask or the spacing is not positive.

    Example:
        >>> truth = np.array([[1, 1, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
        >>> pred = np.array([[0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]])
        >>> found = detect_lesions(pred, truth, spacing_mm=1)
        >>> [lesion.kind for lesion in found.lesions], found.sensitivity, found.f1
        (['found', 'missed', 'false'], 0.5, 0.5)
    """
    pred, truth = as_masks(pred, truth)
    spacing = as_spacing(spacing_mm, pred.ndim)
    box = bounding_box(pred | truth)
    if box is None:
        none = np.zeros((0,) * pred.ndim, np.int32)
        return Detection((), none, none, (slice(0, 0),) * pred.ndim, np.zeros(0, bool))
    of_truth, n = components(truth[box])
    of_pred, m = components(pred[box])
    # How many voxels each lesion shares with each component, counted once for all pairs.
    both = of_truth.astype(np.int64) * (m + 1) + of_pred
    pairs, shared = np.unique(both[(of_truth > 0) & (of_pred > 0)], return_counts=True)
    sizes, predicted = (np.bincount(a.ravel(), minlength=k + 1)[1:] for a, k in
                        ((of_truth, n), (of_pred, m)))  # fmt: skip
    common, touching = np.zeros(n), np.zeros(n)
    lesion, component = pairs // (m + 1) - 1, pairs % (m + 1) - 1
    np.add.at(common, lesion, shared)
    np.add.at(touching, lesion, predicted[component])
    false = np.ones(m, bool)
    false[component] = False
    iou = common / (sizes + touching - common)
    start = [part.start for part in box]
    found = [
        Lesion(
            "found" if iou[k] > least_iou else "missed",
            int(sizes[k]),
            diameter_mm(int(sizes[k]), spacing),
            centre,
            float(2 * common[k] / (sizes[k] + touching[k])),
        )
        for k, centre in enumerate(_centres(of_truth, n, start))
    ]
    found += [
        Lesion("false", int(predicted[k]), diameter_mm(int(predicted[k]), spacing), centre)
        for k, centre in enumerate(_centres(of_pred, m, start))
        if false[k]
    ]
    return Detection(tuple(found), of_truth, of_pred, box, false)


def _centres(labels: Int[ndarray, " *b"], count: int, start: list[int]) -> list[tuple[float, ...]]:
    """Mean place of the voxels of each object."""
    where = np.nonzero(labels)
    owner = labels[where] - 1
    sizes = np.bincount(owner, minlength=count)
    means = [
        np.bincount(owner, weights=w, minlength=count) / np.maximum(sizes, 1) + s
        for w, s in zip(where, start, strict=True)
    ]
    return [tuple(float(axis[k]) for axis in means) for k in range(count)]


def painted(
    detection: Detection, shape: tuple[int, ...]
) -> tuple[UInt8[ndarray, " *s"], UInt8[ndarray, " *s"]]:
    """Whole lesions as a truth and an answer, which differ where one was missed or is false.

    Returns:
        All true lesions; those that were found, and the false ones.
    """
    truth, answer = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
    if not detection.lesions:
        return truth, answer
    kinds = [lesion.kind for lesion in detection.lesions if lesion.kind != "false"]
    found = np.array([False, *(kind == "found" for kind in kinds)])
    false = np.array([False, *detection.false])
    truth[detection.box] = detection.truth > 0
    answer[detection.box] = found[detection.truth] | (
        false[detection.pred] & (detection.truth == 0)
    )
    return truth, answer
