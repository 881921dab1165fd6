"""How earlier work softened labels, without a look at the image: for comparison.

E. Kats, J. Goldberger and H. Greenspan, "Soft labeling by distilling anatomical
knowledge for improved MS lesion segmentation", ISBI 2019, give one fixed
probability to a ring round the mask; how wide and how probable, paper 001 does
not say. C. Gros, A. Lemay and J. Cohen-Adad, "SoftSeg: Advantages of soft versus
binary training for image segmentation", Medical Image Analysis 71, 2021, keep
what linear interpolation makes of a mask that is resampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32
from numpy import ndarray
from scipy import ndimage

from finemask.preparation import block_mean
from finemask.softmask.grids import finer

RING_PROBABILITY = 0.5


def dilation_ring(
    mask: Bool[ndarray, " *s"],
    width: float,
    spacing: Sequence[float] | None = None,
    probability: float = RING_PROBABILITY,
) -> Float32[ndarray, " *s"]:
    """The mask with a ring of one fixed probability around it.

    Args:
        mask: Lesions.
        width: Of the ring, in voxels of the finest axis.
        spacing: Voxel spacing along each axis; by default all axes are alike.
        probability: Of the ring.

    Example:
        >>> dilation_ring(np.array([[0, 0, 1, 0, 0]], bool), width=1.0)
        array([[0. , 0.5, 1. , 0.5, 0. ]], dtype=float32)
    """
    soft = mask.astype(np.float32)
    if mask.any():
        steps = np.array(spacing or (1.0,) * mask.ndim)
        away = ndimage.distance_transform_edt(~mask, sampling=steps / steps.min())
        soft[~mask & (away <= width * (1 + 1e-9))] = probability
    return soft


def resampled(
    mask: Bool[ndarray, " *s"], scale: Sequence[int], reduction: int = 2
) -> Float32[ndarray, " *t"]:
    """The mask reduced, and linearly interpolated on the wanted grid: soft at its edges.

    Args:
        mask: Lesions.
        scale: How often the wanted grid splits each voxel along each axis.
        reduction: Voxels of the mask that are merged along each axis before.

    Example:
        >>> resampled(np.array([[0, 0, 1, 1]], bool), (1, 1))
        array([[0.  , 0.25, 0.75, 1.  ]], dtype=float32)
    """
    pads = [(0, -n % reduction) for n in mask.shape]
    coarse = block_mean(np.pad(mask, pads, mode="edge"), (reduction,) * mask.ndim)
    soft = finer(coarse, [reduction * s for s in scale], order=1)
    return soft[tuple(slice(n * s) for n, s in zip(mask.shape, scale, strict=True))]
