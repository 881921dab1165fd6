"""From a case as it was read to the form that a network sees, and back to any grid.

Preparing never changes its input: every step returns a new case on a new
geometry. There is no inverse to replay either; what a network predicts lies on
a known grid, and `to_grid` brings it to any other.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Integer
from numpy import ndarray
from numpy.typing import NDArray

from finemask.case import Case
from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.intensities import check_known_range, normalisation, normalised, windowed
from finemask.recipe import PrepareSettings

SLAB_VOXELS = 1 << 22
"""Most target voxels sampled at once, which bounds the memory of `to_grid`."""


def prepare(case: Case, settings: PrepareSettings = PrepareSettings()) -> Case:  # noqa: B008
    """Turn, resample, window and normalise an image, in this order.

    Labels follow the image: turned without loss, and resampled only through
    the probability of each class, never as numbers.

    Args:
        case: Left untouched.
        settings: The ``[prepare]`` table of a recipe.

    Returns:
        A case on its own new grid; it may share memory with ``case`` where a
        step had nothing to do.

    Raises:
        DataError: On voxels that are not finite, or when a spacing in
            millimetres is wanted for an image without a physical size.
        UsageError: On settings that do not fit the image.

    Example:
        >>> picture = np.array([[[0.0, 2.0], [4.0, 6.0]]], np.float32)
        >>> case = Case("a", picture, Geometry.regular((2, 2)))
        >>> prepare(case, PrepareSettings(normalise="minmax")).image.max().item()
        1.0
    """
    finite = int(np.count_nonzero(np.isfinite(case.image)))
    if finite < case.image.size:
        raise DataError(
            subject(case),
            f"case {case.name} has {case.image.size - finite} of {case.image.size} voxels that "
            "are not finite numbers",
            "repair the image or leave the case out",
        )
    if settings.orient:
        order, flips = case.geometry.axes_to_canonical()
        if flips or order != tuple(range(case.geometry.ndim)):
            case = case.turned(order, flips)
    if settings.spacing_mm:
        case = _resampled(case, settings.spacing_mm)
    image = windowed(case.image, settings)
    if settings.normalise in ("imagenet", "symmetric"):
        check_known_range(image, settings, subject(case))
    offset, gain = normalisation(image, settings)
    return replace(case, image=normalised(image, offset, gain))


def prepared_shape(geometry: Geometry, settings: PrepareSettings) -> tuple[int, ...]:
    """Sides of an image once it is prepared, told from its grid alone.

    Example:
        >>> prepared_shape(Geometry.regular((4, 6)), PrepareSettings())
        (4, 6)
    """
    if settings.orient:
        geometry = geometry.permuted(geometry.axes_to_canonical()[0])
    if settings.spacing_mm and geometry.unit == "mm":
        geometry = _respaced(geometry, settings.spacing_mm)
    return geometry.shape


def for_lr(settings: PrepareSettings, scale: Sequence[int]) -> PrepareSettings:
    """Settings that prepare an LR image as ``settings`` prepare its HR image.

    Only the spacing differs: a network trained on HR images of 1 mm at scale 2
    expects LR images of 2 mm.

    Example:
        >>> for_lr(PrepareSettings(spacing_mm=(3.0, 1.0, 1.0)), (1, 2, 2)).spacing_mm
        (3.0, 2.0, 2.0)
    """
    if not settings.spacing_mm:
        return settings
    spacing = _per_axis(settings.spacing_mm, len(scale))
    return replace(settings, spacing_mm=tuple(d * f for d, f in zip(spacing, scale, strict=True)))


def to_grid(
    array: NDArray[Any], source: Geometry, target: Geometry, *, outside: float = 0.0
) -> Float[ndarray, " c *t"]:
    """Bring an image or probabilities from one grid to another, in world coordinates.

    Paths without interpolation come first: the same grid, axes that are only
    turned or mirrored, windows of whole voxels, blocks of voxels merged.
    Everything else is interpolated linearly; where the target is coarser its
    voxels are the mean of the source within them. Labels are not resized as
    numbers: turn them into one probability map a class first.

    Args:
        array: ``(C, *S)`` values on ``source``.
        source: Grid of ``array``.
        target: Wanted grid, of any orientation and spacing.
        outside: Value beyond the physical extent of ``source``.

    Returns:
        ``(C, *T)`` float32 values on ``target``; ``array`` itself when nothing changes.

    Raises:
        ValueError: When the grids cannot be compared.

    Example:
        >>> lr = Geometry.regular((1, 2), spacing=(2.0, 2.0))
        >>> to_grid(np.array([[[0.0, 1.0]]]), lr, lr.refined((1, 2))).tolist()
        [[[0.0, 0.25, 0.75, 1.0]]]
    """
    if source.ndim != target.ndim or source.unit != target.unit:
        raise ValueError(
            f"a {source.ndim}-D grid in {source.unit} and a {target.ndim}-D grid in {target.unit} "
            "do not share a world"
        )
    if array.ndim != source.ndim + 1 or array.shape[1:] != source.shape:
        raise ValueError(f"array of shape {array.shape} does not lie on grid {source.shape}")
    array = np.asarray(array, dtype=np.float32)
    if source.matches(target):
        return array
    order, flips = _axes_along(source, target)
    turned = source.permuted(order)
    for axis in flips:
        turned = turned.flipped(axis)
    shift = tuple(np.rint(turned.to_index(np.array(target.origin))).astype(int).tolist())
    moved = turned.cropped(shift, target.shape).matches(target)
    if not moved and not turned.resized(target.shape).matches(target):
        return _sampled(array, source, target, outside)
    array = np.transpose(array, (0, *(1 + a for a in order)))
    array = np.flip(array, tuple(1 + a for a in flips))
    if moved:
        return _window(array, shift, target.shape, outside)
    factors = [s // t if s % t == 0 else 1 for s, t in zip(turned.shape, target.shape, strict=True)]
    array = block_mean(array, factors)
    rest = turned.coarsened(factors)
    if rest.shape == target.shape:
        return np.ascontiguousarray(array)
    return _sampled(array, rest, rest.resized(target.shape), outside)


def block_mean(array: NDArray[Any], factors: Sequence[int]) -> Float[ndarray, " *lead *t"]:
    """Mean over blocks of voxels along the last axes, float32.

    Example:
        >>> block_mean(np.array([[1.0, 3.0], [5.0, 7.0]], np.float32), (1, 2)).tolist()
        [[2.0], [6.0]]
    """
    array = np.asarray(array, dtype=np.float32)
    for axis, factor in zip(range(-len(factors), 0), factors, strict=True):
        if factor > 1:
            array = weighted_stride(array, axis, np.ones(factor), factor)
    return array


def weighted_stride(
    array: Float[ndarray, " *s"], axis: int, weights: Float[ndarray, " k"], stride: int
) -> Float[ndarray, " *t"]:
    """Weighted mean of every run of ``len(weights)`` voxels that starts on a stride."""
    axis %= array.ndim
    last = (array.shape[axis] - len(weights)) // stride * stride + 1

    def part(k: int) -> NDArray[np.float32]:
        return array[(slice(None),) * axis + (slice(k, k + last, stride),)]

    total = part(0) * np.float32(weights[0])
    for k, weight in enumerate(weights[1:], 1):
        total += part(k) if weight == 1 else part(k) * np.float32(weight)
    # Dividing last keeps the mean of equal numbers exactly that number.
    total /= np.float32(weights.sum())
    return total


def class_maps(labels: Integer[ndarray, " *s"], classes: int) -> Float[ndarray, " f *s"]:
    """One map of 0 and 1 for each foreground label 1 to ``classes``.

    Example:
        >>> class_maps(np.array([0, 2, 1]), 2).tolist()
        [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    return np.stack([labels == k for k in range(1, classes + 1)]).astype(np.float32)


def subject(case: Case) -> str:
    """What an error about a case is about: its file, or its name where it has none."""
    return str(case.source or case.name)


def _per_axis(values: Sequence[float], ndim: int) -> tuple[float, ...]:
    values = tuple(values) * (ndim if len(values) == 1 else 1)
    if len(values) != ndim or min(values) <= 0:
        raise UsageError(
            "prepare.spacing_mm",
            f"is {values}, a {ndim}-D image needs 1 or {ndim} positive numbers",
            "give one spacing for each axis, slice first",
        )
    return values


def _resampled(case: Case, spacing_mm: Sequence[float]) -> Case:
    """The case at another spacing over the same extent (so to a fraction of a voxel)."""
    source = case.geometry
    if source.unit != "mm":
        raise DataError(
            subject(case),
            f"case {case.name} has no physical voxel size, but prepare.spacing_mm is set",
            "give the spacing with the data, or leave prepare.spacing_mm empty",
        )
    target = _respaced(source, spacing_mm)
    if target.shape == source.shape:
        return case

    truth, soft, readers = case.truth, case.soft, case.readers
    return replace(
        case,
        image=to_grid(case.image, source, target),
        truth=None if truth is None else _resampled_labels(truth, source, target),
        soft=None if soft is None else to_grid(soft, source, target),
        readers=None
        if readers is None
        else np.stack([_resampled_labels(reader, source, target) for reader in readers]),
        geometry=target,
    )


def _respaced(source: Geometry, spacing_mm: Sequence[float]) -> Geometry:
    """The grid nearest to a spacing over the same extent."""
    spacing = _per_axis(spacing_mm, source.ndim)
    return source.resized(
        [max(1, round(e / d)) for e, d in zip(source.extent, spacing, strict=True)]
    )


def _resampled_labels(
    labels: Integer[ndarray, " *s"], source: Geometry, target: Geometry
) -> Integer[ndarray, " *t"]:
    """The label with the largest share of each new voxel; half a voxel is enough to be found."""
    result = np.zeros(target.shape, labels.dtype)
    best = to_grid((labels == 0)[None], source, target)[0].copy()
    for label in np.unique(labels[labels != 0]):
        share = to_grid((labels == label)[None], source, target)[0]
        wins = (share > best) | ((share == best) & (share > 0) & (result == 0))
        result[wins] = label
        np.maximum(best, share, out=best)
    return result


def _axes_along(source: Geometry, target: Geometry) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Transpose order and flips that bring the axes of ``source`` closest to ``target``'s."""
    cosines = np.array(source.direction).T @ np.array(target.direction)
    axes = range(source.ndim)
    order = max(
        itertools.permutations(axes),
        key=lambda order: sum(abs(cosines[a, axis]) for axis, a in enumerate(order)),
    )
    return order, tuple(axis for axis, a in enumerate(order) if cosines[a, axis] < 0)


def _window(
    array: Float[ndarray, " c *s"], start: Sequence[int], shape: Sequence[int], outside: float
) -> Float[ndarray, " c *t"]:
    """A copy of a window that may reach beyond the array."""
    result = np.full((len(array), *shape), outside, np.float32)
    sides = list(zip(start, array.shape[1:], shape, strict=True))
    there = tuple(slice(max(-b, 0), max(min(n - b, s), 0)) for b, n, s in sides)
    here = tuple(slice(max(b, 0), max(min(b + s, n), 0)) for b, n, s in sides)
    if all(part.start < part.stop for part in there):
        result[(slice(None), *there)] = array[(slice(None), *here)]
    return result


def _sampled(
    array: Float[ndarray, " c *s"], source: Geometry, target: Geometry, outside: float
) -> Float[ndarray, " c *t"]:
    """Linear interpolation at the voxels of any grid, slab by slab along its first axis."""
    steps = np.linalg.norm(np.linalg.inv(source.matrix) @ target.matrix, axis=0)
    split = [max(1, int(np.ceil(step - 1e-3))) for step in steps]
    result = np.empty((len(array), *target.shape), np.float32)
    voxels_a_slice = int(np.prod(target.shape[1:]) * np.prod(split))
    thickness = max(1, SLAB_VOXELS // voxels_a_slice)
    for start in range(0, target.shape[0], thickness):
        stop = min(start + thickness, target.shape[0])
        slab = target.cropped(
            (start,) + (0,) * (target.ndim - 1), (stop - start, *target.shape[1:])
        )
        fine = _interpolated(array, source, slab.refined(split), outside)
        result[:, start:stop] = block_mean(fine, split)
    return result


def _interpolated(
    array: Float[ndarray, " c *s"], source: Geometry, target: Geometry, outside: float
) -> Float[ndarray, " c *t"]:
    from scipy import ndimage

    matrix = np.linalg.inv(source.matrix) @ target.matrix
    shift = source.to_index(np.array(target.origin))
    result = np.empty((len(array), *target.shape), np.float32)
    for channel, sampled in zip(array, result, strict=True):
        ndimage.affine_transform(
            channel, matrix, shift, target.shape, output=sampled, order=1, mode="nearest"
        )
    beyond = np.zeros(target.shape, bool)
    index = np.ogrid[tuple(slice(n) for n in target.shape)]
    for axis, size in enumerate(source.shape):
        place = sum(
            (step * i for step, i in zip(matrix[axis], index, strict=True)),
            start=np.asarray(shift[axis]),
        )
        # The outermost half voxel still belongs to the image; only beyond it is nothing known.
        beyond |= (place < -0.5 - 1e-6) | (place > size - 0.5 + 1e-6)
    result[:, beyond] = outside
    return result
