"""Trimaps: which voxels are certainly lesion, which certainly not, and which are open.

A trimap is a float32 array on the grid of the image that holds 1 (lesion), 0
(background) and 0.5 (unknown), as matting tools everywhere read it. A Soft
Mask is a trimap with every 0.5 replaced by the share of lesion.

The edge of the image is no outline: a lesion cut by it is not eroded there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from numpy import ndarray
from scipy import ndimage

from finemask.masks import Spacing, as_mask, as_spacing, bounding_box

BACKGROUND, UNKNOWN, LESION = 0.0, 0.5, 1.0
RADIUS_SHARE = 0.15
"""Half width of the unknown band as a share of the lesion's diameter."""
RADIUS_RANGE = 1, 5
"""Its least and most, in voxels of the finest axis."""


def trimap_from_mask(
    mask: Shaped[ndarray, " *s"],
    radius: float | int | None = None,
    spacing_mm: Spacing | None = None,
) -> Float32[ndarray, " *s"]:
    """Open a band of unknown voxels on both sides of every lesion's outline.

    Erosion leaves what is certainly lesion; what dilation does not reach is
    certainly background. The structuring element is a disc or a ball in
    millimetres, so it is flat in voxels where slices are far apart. A lesion
    that erosion would empty keeps its innermost voxels.

    Args:
        mask: Boolean or integer mask, 2-D or 3-D, of any number of lesions.
        radius: Of the structuring element, in voxels of the finest axis. By default each lesion
            has its own: 15 % of its equivalent diameter, rounded, at least 1 and at most 5.
        spacing_mm: Voxel spacing along each array axis; by default all axes are alike.

    Raises:
        ValueError: When the array is no 2-D or 3-D mask, or a length is not positive.

    Example:
        >>> trimap_from_mask(np.array([[0, 0, 1, 1, 1, 0, 0]]), radius=1)
        array([[0. , 0.5, 0.5, 1. , 0.5, 0.5, 0. ]], dtype=float32)
    """
    mask = as_mask(mask)
    steps = _steps(mask.shape, spacing_mm)
    if radius is not None and not 0 < radius < math.inf:
        raise ValueError(f"radius must be positive, got {radius}")
    trimap = np.full(mask.shape, BACKGROUND, np.float32)
    cores = np.zeros(mask.shape, bool)
    for box, lesion in _lesions(mask):
        reach = float(lesion_radius(lesion, steps) if radius is None else radius)
        box, lesion = _with_margin(box, lesion, [int(reach / s) for s in steps], mask.shape)
        trimap[box][_dilate(lesion, reach, steps)] = UNKNOWN
        cores[box] |= _core(lesion, reach, steps)
    trimap[cores] = LESION
    return trimap


def trimap_from_readers(
    masks: Shaped[ndarray, " r *s"], spacing_mm: Spacing | None = None
) -> Float32[ndarray, " *s"]:
    """What all readers call lesion, what none does, and between them what is open.

    ``L`` is the intersection of the masks, ``B`` the complement of their union
    and ``U`` the rest, for each lesion of the union by itself. A reader who
    marked nothing has voted against. So:

    * Where the intersection is empty, the lesion's core is where most readers agree, if at
      least two do; where no two agree nothing is certain but the background.
    * Where the outlines are equal, a band of one voxel is opened on both sides.

    Paper: dsnet Eq. (2), dsnet Eq. (3), dsnet Eq. (4)

    Args:
        masks: One boolean or integer mask a reader, 2-D or 3-D.
        spacing_mm: Voxel spacing along each array axis; by default all axes are alike.

    Raises:
        ValueError: Without readers, or when the array holds no 2-D or 3-D masks.

    Example:
        >>> trimap_from_readers(np.array([[[0, 1, 1, 1, 0]], [[0, 0, 1, 1, 1]]]))
        array([[0. , 0.5, 1. , 1. , 0.5]], dtype=float32)
    """
    masks = as_mask(masks, "masks")
    _steps(masks.shape[1:], spacing_mm)
    if not len(masks):
        raise ValueError("masks needs at least one reader, got none")
    votes = masks.sum(0)
    trimap = np.where(votes > 0, UNKNOWN, BACKGROUND).astype(np.float32)
    alike = np.zeros(votes.shape, bool)
    for box, lesion in _lesions(votes > 0):
        most = int(votes[box][lesion].max())
        if most < min(2, len(masks)):
            continue
        certain = lesion & (votes[box] == most)
        trimap[box][certain] = LESION
        if np.array_equal(certain, lesion):
            alike[box] |= lesion
    opened = trimap_from_mask(alike, radius=1, spacing_mm=spacing_mm)
    return np.where((votes > 0) & ~alike, trimap, opened)


def lesion_radius(lesion: Bool[ndarray, " *s"], steps: Sequence[float]) -> int:
    """Half width of the unknown band of one lesion, in voxels of the finest axis.

    ``clip(round(0.15 d), 1, 5)`` for the diameter d of the disc or ball that is as large.

    Args:
        lesion: Mask of one lesion.
        steps: Voxel spacing along each axis over that of the finest axis.

    Example:
        >>> lesion_radius(np.ones((12, 12), bool), (1.0, 1.0))
        2
    """
    size = np.count_nonzero(lesion) * math.prod(steps)
    diameter = (
        2 * math.sqrt(size / math.pi) if lesion.ndim == 2 else (6 * size / math.pi) ** (1 / 3)
    )
    least, most = RADIUS_RANGE
    return min(max(round(RADIUS_SHARE * diameter), least), most)


def _steps(shape: Sequence[int], spacing_mm: Spacing | None) -> tuple[float, ...]:
    """Voxel spacing along each axis over that of the finest axis."""
    if len(shape) not in (2, 3):
        raise ValueError(f"a mask is 2-D or 3-D, got shape {tuple(shape)}")
    spacing = as_spacing(1.0 if spacing_mm is None else spacing_mm, len(shape))
    return tuple(s / min(spacing) for s in spacing)


def _lesions(
    mask: Bool[ndarray, " *s"],
) -> Iterator[tuple[tuple[slice, ...], Bool[ndarray, " *l"]]]:
    """Each lesion's box and its mask in there; voxels that touch at a corner are one lesion."""
    whole = bounding_box(mask)
    if whole is None:
        return
    labels, _ = ndimage.label(mask[whole], structure=np.ones((3,) * mask.ndim))
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        place = (
            slice(w.start + s.start, w.start + s.stop) for w, s in zip(whole, box, strict=True)
        )
        yield tuple(place), labels[box] == number


def _with_margin(
    box: Sequence[slice], lesion: Bool[ndarray, " *l"], margin: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], Bool[ndarray, " *m"]]:
    """A larger box around a lesion as far as the image goes, and the mask in there."""
    larger = tuple(
        slice(max(s.start - m, 0), min(s.stop + m, n))
        for s, m, n in zip(box, margin, shape, strict=True)
    )
    mask = np.zeros([s.stop - s.start for s in larger], bool)
    inner = (slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, larger, strict=True))
    mask[tuple(inner)] = lesion
    return larger, mask


def _core(
    lesion: Bool[ndarray, " *s"], reach: float, steps: Sequence[float]
) -> Bool[ndarray, " *s"]:
    """The eroded lesion or, where nothing is left, its voxels farthest from the outline."""
    eroded = lesion & ~_dilate(~lesion, reach, steps)
    if eroded.any():
        return eroded
    depth = ndimage.distance_transform_edt(lesion, sampling=steps)
    return depth > depth.max() * (1 - 1e-9)


def _dilate(
    mask: Bool[ndarray, " *s"], reach: float, steps: Sequence[float]
) -> Bool[ndarray, " *s"]:
    """Voxels whose distance to the mask is at most ``reach``.

    The ball is cut into runs along the last axis. Runs at a like distance from
    its middle are alike, so that each length is drawn once and then shifted.
    """
    limit = reach**2 * (1 + 1e-9)
    far = [min(int(reach / s), n - 1) for s, n in zip(steps[:-1], mask.shape, strict=False)]
    sides = [range(-k, k + 1) for k in far]
    runs = []
    for offset in itertools.product(*sides):
        left = limit - sum((k * s) ** 2 for k, s in zip(offset, steps, strict=False))
        if left >= 0:
            runs.append((int(math.sqrt(left) / steps[-1]), offset))
    drawn, half = mask.copy(), 0
    dilated = np.zeros_like(mask)
    for length, offset in sorted(runs):
        for shift in range(half + 1, length + 1):
            drawn[..., shift:] |= mask[..., :-shift]
            drawn[..., :-shift] |= mask[..., shift:]
        half = max(half, length)
        here, there = _overlap(offset, mask.shape)
        dilated[here] |= drawn[there]
    return dilated


def _overlap(
    offset: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Windows of an array and of its copy shifted by ``offset`` that lie on each other."""
    pairs = list(zip(offset, shape, strict=False))
    here = tuple(slice(max(k, 0), n + min(k, 0)) for k, n in pairs)
    there = tuple(slice(max(-k, 0), n - max(k, 0)) for k, n in pairs)
    return here, there
