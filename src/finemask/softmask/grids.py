"""An image as matting wants it: intensities in [0, 1], on the image's grid or a finer one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from numpy import ndarray
from scipy import ndimage

PERCENTILES = 0.5, 99.5
"""Of the intensities round the lesions, which become 0 and 1 where no window is given."""


def neighbourhood(mask: Bool[ndarray, " *s"]) -> Bool[ndarray, " *s"]:
    """The box of each lesion, larger by half on every side; everything where there is none.

    Example:
        >>> neighbourhood(np.array([[0, 0, 0, 0, 0, 1, 1, 0]], bool)).astype(int)
        array([[0, 0, 1, 1, 1, 1, 1, 1]])
    """
    near = np.zeros(mask.shape, bool)
    labels, _ = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    for box in ndimage.find_objects(labels):
        grown = [(s.start - m, s.stop + m) for s in box for m in [2 + (s.stop - s.start) // 2]]
        near[tuple(slice(max(a, 0), b) for a, b in grown)] = True
    return near if near.any() else ~near


def to_unit(
    image: Shaped[ndarray, " c *s"],
    window: Sequence[float | int] = (),
    near: Bool[ndarray, " *s"] | None = None,
) -> Float32[ndarray, " c *s"]:
    """Intensities scaled to [0, 1], those outside a window cut.

    Args:
        image: In any unit.
        window: What becomes 0 and 1; by default the 0.5th and 99.5th percentile.
        near: Voxels that these percentiles are taken of; all by default.

    Example:
        >>> to_unit(np.array([[-1000.0, 0.0, 400.0, 900.0]]), (-1000, 400)).round(2)
        array([[0.  , 0.71, 1.  , 1.  ]], dtype=float32)
    """
    low, high = window or np.percentile(image if near is None else image[:, near], PERCENTILES)
    if high <= low:
        return np.zeros(image.shape, np.float32)
    return ((image.astype(np.float64) - low) / (high - low)).clip(0, 1).astype(np.float32)


def finer(
    array: Shaped[ndarray, "..."], factors: Sequence[int], order: int = 3
) -> Float32[ndarray, "..."]:
    """An image on the grid that splits each voxel ``factors`` times along the last axes.

    Cubic by default; no value leaves the range of the image.

    Example:
        >>> finer(np.array([[0.0, 1.0]]), (1, 2), order=1)
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    array = np.asarray(array, np.float32)
    if all(f == 1 for f in factors):
        return array
    zoom = (1,) * (array.ndim - len(factors)) + tuple(factors)
    result = ndimage.zoom(array, zoom, order=order, mode="nearest", grid_mode=True)
    return result.clip(array.min(), array.max())


def finer_mask(mask: Bool[ndarray, " *s"], factors: Sequence[int]) -> Bool[ndarray, " *t"]:
    """A mask on a finer grid, its outline that of linear interpolation at one half.

    Example:
        >>> finer_mask(np.array([[False, True]]), (1, 4)).astype(int)
        array([[0, 0, 0, 0, 1, 1, 1, 1]])
    """
    if all(f == 1 for f in factors):
        return mask
    return finer(mask, factors, order=1) >= 0.5
