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

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float32, Shaped
from numpy import ndarray

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
        return trimap.copy()
    # A volume of one slice is a picture.
    axes = [axis for axis, n in enumerate(trimap.shape) if n > 1]
    shape = [trimap.shape[axis] for axis in axes]
    steps = [spacing[axis] / min(spacing[a] for a in axes) for axis in axes]
    alpha = trimap.reshape(shape).copy()
    _fill(alpha, image.reshape(-1, *shape), epsilon, radius, steps)
    return alpha.reshape(trimap.shape)


def _fill(
    alpha: Float32[ndarray, " *s"],
    image: Float[ndarray, " c *s"],
    epsilon: float,
    radius: int,
    steps: Sequence[float],
) -> None:
    """Replace every 0.5 of a trimap, in place.

    The windows of a picture lie wholly within it. Those of a volume are cut off
    where it ends: else its first and last slice would have none of their own.
    So are windows along an axis that is shorter than they are.
    """
    unknown = alpha == UNKNOWN
    reach = 2 * radius  # the farthest voxel that shares a window with another
    box = tuple(
        slice(max(s.start - reach, 0), min(s.stop + reach, n))
        for s, n in zip(bounding_box(unknown) or (), alpha.shape, strict=True)
    )
    crop = alpha[box]
    whole = [alpha.ndim < 3 and n > reach for n in alpha.shape]
    frame = tuple(slice(reach, reach + n) for n in crop.shape)
    grid = [(n // reach + 3) * reach for n in crop.shape]
    colours = np.zeros((len(image), *grid))
    colours[(slice(None), *frame)] = image[(slice(None), *box)]
    open_ = np.zeros(grid, bool)
    open_[frame] = unknown[box]
    known = np.zeros(grid)
    known[frame] = np.where(unknown[box], 0, crop)
    inside = np.zeros(grid, bool)
    inside[frame] = True
    room = tuple(
        slice(f.start + radius * w, f.stop - radius * w) for f, w in zip(frame, whole, strict=True)
    )
    centres = np.zeros(grid, bool)
    centres[room] = _touching(open_, radius)[room]
    windows = gather_windows(
        colours, centres, epsilon, radius, steps, None if all(whole) else inside
    )
    try:
        solved = solve(windows, open_, known, radius)
    except ArithmeticError as error:
        raise ValueError(f"epsilon = {epsilon:g} is too small for this image; raise it") from error
    crop[...] = np.clip(solved[frame], BACKGROUND, LESION)


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
