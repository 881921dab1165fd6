"""An image as matting wants it: intensities in [0, 1], on the image's grid or a finer one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped
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

    Cubic convolution (Keys, 1981) or linear interpolation, with voxel edges that
    coincide; no value leaves the range of the image.

    Args:
        array: Of at least as many axes as there are factors.
        factors: Whole numbers.
        order: 3 for cubic, 1 for linear.

    Example:
        >>> finer(np.array([[0.0, 1.0]]), (1, 2), order=1)
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    array = fine = np.asarray(array, np.float32)
    for axis, factor in zip(range(-len(factors), 0), factors, strict=True):
        if factor > 1:
            fine = _finer_along(fine, axis, factor, _cubic if order == 3 else _linear)
    return fine if fine is array else fine.clip(array.min(), array.max())


def _finer_along(
    array: Float32[ndarray, "..."],
    axis: int,
    factor: int,
    kernel: Callable[[Float[ndarray, " k"]], Float[ndarray, " k"]],
) -> Float32[ndarray, "..."]:
    """Each voxel along one axis becomes ``factor``, at as many fixed places within it."""
    source = np.moveaxis(array, axis, -1)
    places = (np.arange(factor) + 0.5) / factor - 0.5
    padded = np.pad(source, [(0, 0)] * (source.ndim - 1) + [(2, 2)], mode="edge")
    fine = np.zeros((*source.shape, factor), np.float32)
    for shift in range(5):
        weights = kernel(places - (shift - 2))
        if weights.any():
            neighbours = padded[..., shift : shift + source.shape[-1], None]
            fine += neighbours * weights.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(fine.reshape(*source.shape[:-1], -1), -1, axis))


def _linear(distance: Float[ndarray, " k"]) -> Float[ndarray, " k"]:
    return np.maximum(1 - np.abs(distance), 0)


def _cubic(distance: Float[ndarray, " k"]) -> Float[ndarray, " k"]:
    d = np.abs(distance)
    near, far = (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def finer_mask(mask: Bool[ndarray, " *s"], factors: Sequence[int]) -> Bool[ndarray, " *t"]:
    """A mask on a finer grid, its outline that of linear interpolation at one half.

    Example:
        >>> finer_mask(np.array([[False, True]]), (1, 4)).astype(int)
        array([[0, 0, 0, 0, 1, 1, 1, 1]])
    """
    if all(f == 1 for f in factors):
        return mask
    return finer(mask, factors, order=1) >= 0.5
