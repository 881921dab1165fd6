"""Lesions as objects: how many there are and how large."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray
from scipy import ndimage

from finemask.masks import Spacing, as_mask, as_spacing


def components(mask: Shaped[ndarray, " *s"]) -> tuple[Int[ndarray, " *s"], int]:
    """Separate lesions: voxels that touch by a face, edge or corner are one.

    Returns:
        Labels 1 to n on the grid of ``mask``, and n (0 for an empty mask).

    Example:
        >>> components(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]]))[1]
        2
    """
    mask = as_mask(mask)
    labels, count = ndimage.label(mask, structure=np.ones((3,) * mask.ndim))
    return labels, int(count)


def equivalent_diameter_mm(mask: Shaped[ndarray, " *s"], spacing_mm: Spacing) -> float:
    """Diameter of the disc (2-D) or ball (3-D) that is as large as the foreground.

    ``2 sqrt(area / pi)`` and ``(6 volume / pi)^(1/3)``. All the foreground
    counts as one object; an empty mask has diameter 0.

    Args:
        mask: Boolean or integer mask.
        spacing_mm: Voxel spacing along each array axis; with 1 the result is in voxels.

    Example:
        >>> round(equivalent_diameter_mm(np.ones((4, 4)) > 0, 0.5), 4)
        2.2568
    """
    mask = as_mask(mask)
    return diameter_mm(int(np.count_nonzero(mask)), as_spacing(spacing_mm, mask.ndim))


def diameter_mm(voxels: int, spacing_mm: tuple[float, ...]) -> float:
    """Diameter of the disc or ball that is as large as so many voxels.

    Example:
        >>> round(diameter_mm(16, (0.5, 0.5)), 4)
        2.2568
    """
    size = voxels * math.prod(spacing_mm)
    if len(spacing_mm) == 2:
        return 2 * math.sqrt(size / math.pi)
    return (6 * size / math.pi) ** (1 / 3)
