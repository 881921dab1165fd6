"""Closed-form matting: the share of lesion in every voxel that a trimap leaves open.

A. Levin, D. Lischinski and Y. Weiss, "A closed-form solution to natural image
matting", IEEE TPAMI 30(2), 2008, as paper 001 (DSNet) applies it to lesions.

Errata of paper 001, section III-A:

* Eq. (5): the offset is b = -B / (L - B); the paper calls it B and writes F for L.
* Eqs. (5), (6) and (8): M_i stands for the image's intensity I_i there, and for the Soft Mask
  in Eq. (1). With L = 1 and B = 0, Eq. (1) says that the Soft Mask is alpha.
* Below Eq. (8): no eigenvector is sought. With the known voxels fixed, the minimum of Eq. (7)
  solves the linear system ``L_UU alpha_U = -L_UK alpha_K``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped
from numpy import ndarray
from scipy import ndimage

from finemask.masks import Spacing, as_spacing, bounding_box
from finemask.softmask.system import solve
from finemask.softmask.trimap import BACKGROUND, LESION, UNKNOWN
from finemask.softmask.windows import gather_windows

EPSILON = 1e-4
"""Suits the noise of a CT window scaled to [0, 1]."""
LEAST_EPSILON = 1e-8
"""Below this share of the squared contrast alpha follows every bit of noise."""


def soft_mask(
    image: Shaped[ndarray, "..."],
    trimap: Shaped[ndarray, " *s"],
    epsilon: float = EPSILON,
    spacing_mm: Spacing | None = None,
    radius: int = 1,
) -> Float32[ndarray, " *s"]:
    """Share of lesion in every voxel, from the image where the trimap leaves it open.

    Within each small window lesion and background are taken to be of one
    intensity each, so that the share is an affine function of the image; the
    shares that fit best everywhere, with the trimap's certain voxels kept as they
    are, solve one linear system.

    Paper: dsnet Eq. (1)

    Args:
        image: ``(*S)`` grey or ``(C, *S)``, floats scaled to about [0, 1], 2-D or 3-D.
        trimap: 1 lesion, 0 background, 0.5 unknown.
        epsilon: In squared intensities: how much noise within a window is forgiven. Larger is
            smoother. PyMatting's value for a grey image repeated in three channels is three times
            this one.
        spacing_mm: Voxel spacing along each array axis; by default all axes are alike. Windows
            weigh their voxels so that they reach as far in millimetres along every axis.
        radius: Of the windows, in voxels.

    Returns:
        In [0, 1]: the trimap where it is certain. Where nothing at all is certain, 0.5.

    Raises:
        ValueError: On shapes that disagree, other values in the trimap, an image that is
            integer or not finite, or a setting out of range.

    Example:
        >>> image = np.tile(np.float32([0.2, 0.2, 0.35, 0.5, 0.5]), (5, 1))
        >>> trimap = np.tile(np.float32([0.0, 0.5, 0.5, 0.5, 1.0]), (5, 1))
        >>> soft_mask(image, trimap, epsilon=1e-9)[2].round(3)
        array([0. , 0. , 0.5, 1. , 1. ], dtype=float32)
    """
    trimap = _checked_trimap(trimap)
    image = _checked_image(image, trimap.shape, epsilon)
    spacing = as_spacing(1.0 if spacing_mm is None else spacing_mm, trimap.ndim)
    if radius < 1:
        raise ValueError(f"radius must be at least 1, got {radius}")
    unknown = trimap == UNKNOWN
    if unknown.all() or not unknown.any():
        return trimap
    # A volume of one slice is a picture.
    axes = [axis for axis, n in enumerate(trimap.shape) if n > 1]
    shape = [trimap.shape[axis] for axis in axes]
    steps = [spacing[axis] / min(spacing[a] for a in axes) for axis in axes]
    whole = [len(shape) < 3 and n > 2 * radius for n in shape]
    alpha, image = trimap.reshape(shape), image.reshape(-1, *shape)
    for box, centres in _bands(unknown.reshape(shape), radius):
        colours = image[(slice(None), *box)]
        alpha[box] = _matted(alpha[box], colours, centres, whole, epsilon, radius, steps)
    return alpha.reshape(trimap.shape)


def _bands(
    unknown: Bool[ndarray, " *s"], radius: int
) -> Iterator[tuple[tuple[slice, ...], Bool[ndarray, " *b"]]]:
    """Unknown voxels that no window couples to others: they are solved for by themselves.

    Yields:
        A box that holds all that their windows reach, and where in it these are centred.
    """
    around = _grown(bounding_box(unknown) or (), 2 * radius, unknown.shape)
    labels, _ = ndimage.label(_touching(unknown[around], radius))
    for number, part in enumerate(ndimage.find_objects(labels), start=1):
        part = _grown(part, radius, labels.shape)
        box = (
            slice(a.start + p.start, a.start + p.stop) for a, p in zip(around, part, strict=True)
        )
        yield tuple(box), labels[part] == number


def _grown(box: Sequence[slice], margin: int, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """A box with a margin, as far as the image goes."""
    return tuple(
        slice(max(s.start - margin, 0), min(s.stop + margin, n))
        for s, n in zip(box, shape, strict=True)
    )


def _matted(
    trimap: Float32[ndarray, " *s"],
    image: Float[ndarray, " c *s"],
    centres: Bool[ndarray, " *s"],
    whole: Sequence[bool],
    epsilon: float,
    radius: int,
    steps: Sequence[float],
) -> Float32[ndarray, " *s"]:
    """Solve for the unknown voxels around some centres of windows.

    The windows of a picture lie wholly within it. Those of a volume are cut off
    where it ends: else its first and last slice would have none of their own.
    So are windows along an axis that is shorter than they are.
    """
    cell = 2 * radius  # the farthest voxel that shares a window with another
    unknown = (trimap == UNKNOWN) & centres
    room = tuple(slice(radius, -radius) if w else slice(None) for w in whole)
    placed = np.zeros_like(centres)
    placed[room] = centres[room]
    windows = gather_windows(
        _on_grid(image, trimap.ndim, cell, np.float64),
        _on_grid(placed, trimap.ndim, cell, bool),
        epsilon,
        radius,
        steps,
        None if all(whole) else _on_grid(np.ones_like(centres), trimap.ndim, cell, bool),
    )
    open_ = _on_grid(unknown, trimap.ndim, cell, bool)
    known = _on_grid(np.where(unknown, 0, trimap), trimap.ndim, cell, np.float64)
    try:
        alpha = solve(windows, open_, known, radius)
    except ArithmeticError as error:
        raise ValueError(f"epsilon = {epsilon:g} is too small for this image; raise it") from error
    found = alpha[tuple(slice(cell, cell + n) for n in trimap.shape)]
    return np.where(unknown, found.clip(BACKGROUND, LESION), trimap).astype(np.float32)


def _on_grid(
    values: Shaped[ndarray, "..."], ndim: int, cell: int, dtype: type
) -> Shaped[ndarray, "..."]:
    """Put maps on a grid of whole cells with a margin of at least one cell of nothing."""
    shape = values.shape[-ndim:]
    grid = np.zeros((*values.shape[:-ndim], *((n // cell + 3) * cell for n in shape)), dtype)
    place: tuple[Any, ...] = (..., *(slice(cell, cell + n) for n in shape))
    grid[place] = values
    return grid


def _touching(unknown: Bool[ndarray, " *s"], radius: int) -> Bool[ndarray, " *s"]:
    """Where a window holds an unknown voxel."""
    for axis in range(unknown.ndim):
        source = np.moveaxis(unknown, axis, 0)
        unknown = unknown.copy()
        spread = np.moveaxis(unknown, axis, 0)
        for shift in range(1, radius + 1):
            spread[shift:] |= source[:-shift]
            spread[:-shift] |= source[shift:]
    return unknown


def _checked_trimap(trimap: Shaped[ndarray, "..."]) -> Float32[ndarray, " *s"]:
    trimap = np.asarray(trimap)
    if trimap.ndim not in (2, 3):
        raise ValueError(f"a trimap is 2-D or 3-D, got shape {trimap.shape}")
    if sum(np.count_nonzero(trimap == v) for v in (BACKGROUND, UNKNOWN, LESION)) < trimap.size:
        raise ValueError("a trimap holds only 0, 0.5 and 1; make it with trimap_from_mask")
    return trimap.astype(np.float32)


def _checked_image(
    image: Shaped[ndarray, "..."], shape: tuple[int, ...], epsilon: float
) -> Float[ndarray, " c *s"]:
    """The image with its channels first, if epsilon suits it."""
    image = np.asarray(image)
    if image.shape == shape:
        image = image[None]
    if image.shape[1:] != shape or not len(image):
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"image has shape {image.shape}, needs ({wanted}) or (channels, {wanted})")
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"image holds {image.dtype}, needs floats; scale it to [0, 1]")
    contrast = float(image.max()) - float(image.min())
    if not np.isfinite(contrast):
        raise ValueError("image holds values that are not finite; replace them")
    if not LEAST_EPSILON * contrast**2 <= epsilon < np.inf or epsilon <= 0:
        raise ValueError(
            f"epsilon = {epsilon:g} does not suit intensities that differ by {contrast:g}; "
            "scale the image to [0, 1] or choose a larger epsilon"
        )
    return image
