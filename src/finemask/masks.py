"""Binary masks at every door: what is accepted, and the box that holds a lesion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Shaped
from numpy import ndarray

Spacing = float | int | Sequence[float | int]


def as_mask(array: Shaped[ndarray, " *s"], name: str = "mask") -> Bool[ndarray, " *s"]:
    """A boolean mask; every integer label but 0 is foreground.

    Raises:
        ValueError: For a map of floats, which must be thresholded first by who knows how.
    """
    array = np.asarray(array)
    if array.dtype == bool:
        return array
    if not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} must be boolean or integer, got {array.dtype}; threshold it first"
        )
    return array != 0


def as_masks(
    pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]
) -> tuple[Bool[ndarray, " *s"], Bool[ndarray, " *s"]]:
    """Prediction and truth as masks on one grid.

    Raises:
        ValueError: When the shapes differ or an array is no mask.
    """
    pred, truth = as_mask(pred, "pred"), as_mask(truth, "truth")
    if pred.shape != truth.shape:
        raise ValueError(
            f"pred has shape {pred.shape}, truth {truth.shape}; they must share a grid"
        )
    return pred, truth


def as_spacing(spacing_mm: Spacing, ndim: int) -> tuple[float, ...]:
    """One positive voxel spacing an array axis; a single number is isotropic.

    Raises:
        ValueError: On a wrong count, or a spacing that is not positive and finite.
    """
    spacing = tuple(float(s) for s in np.atleast_1d(np.asarray(spacing_mm, dtype=np.float64)))
    spacing = spacing * ndim if len(spacing) == 1 else spacing
    if len(spacing) != ndim or not all(0 < s < np.inf for s in spacing):
        raise ValueError(f"spacing_mm needs {ndim} positive numbers (array axes), got {spacing_mm}")
    return spacing


def bounding_box(mask: Bool[ndarray, " *s"]) -> tuple[slice, ...] | None:
    """The smallest box that holds the foreground; ``None`` when there is none.

    Example:
        >>> mask = np.zeros((5, 6), bool)
        >>> mask[1, 2] = mask[3, 3] = True
        >>> bounding_box(mask)
        (slice(1, 4, None), slice(2, 4, None))
    """
    box: list[slice] = []
    window = mask
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        hit = np.flatnonzero(window.any(axis=others))
        if not hit.size:
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
        # Each axis found shrinks what the next one has to search.
        window = mask[(*box, *(slice(None),) * (mask.ndim - len(box)))]
    return tuple(box)
