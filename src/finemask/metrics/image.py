"""How close a super-resolved image comes to the real one."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from scipy import ndimage

SIGMA = 1.5
RADIUS = 5  # an 11-voxel window


def _as_pair(
    image: Shaped[ndarray, "..."], reference: Shaped[ndarray, "..."], data_range: float | int
) -> tuple[Float[ndarray, " *s"], Float[ndarray, " *s"]]:
    image = np.asarray(image, dtype=np.float64)
    reference = np.asarray(reference, dtype=np.float64)
    if image.shape != reference.shape:
        raise ValueError(f"image has shape {image.shape}, reference {reference.shape}")
    if not 0 < data_range < np.inf:
        raise ValueError(f"data_range must be positive and finite, got {data_range}")
    return image, reference


def psnr(
    image: Shaped[ndarray, "..."], reference: Shaped[ndarray, "..."], *, data_range: float | int
) -> float:
    """Peak signal-to-noise ratio in dB: ``10 log10(data_range² / MSE)``.

    Args:
        image: Super-resolved intensities, any shape.
        reference: The real image on the same grid.
        data_range: Largest less smallest possible intensity (255 for 8-bit), named by the
            caller because a guess would change the result.

    Returns:
        Decibels; ``inf`` for identical images.

    Raises:
        ValueError: When the shapes differ or ``data_range`` is not positive.

    Example:
        >>> psnr(np.full((4, 4), 10.0), np.zeros((4, 4)), data_range=100.0)
        20.0
    """
    image, reference = _as_pair(image, reference, data_range)
    error = float(np.mean((image - reference) ** 2))
    return float(10 * np.log10(data_range**2 / error)) if error else float("inf")


def ssim(
    image: Shaped[ndarray, "..."], reference: Shaped[ndarray, "..."], *, data_range: float | int
) -> float:
    """Mean structural similarity of two images or volumes of one channel.

    Gaussian window of 11 voxels a side and sigma 1.5, ``K1`` 0.01, ``K2`` 0.03
    and population covariances (Wang et al. 2004). Windows that would leave the
    image are left out, but for axes shorter than a window, where the image is
    mirrored; a volume of depth one therefore scores as its only slice.

    Args:
        image: Super-resolved intensities, 2-D or 3-D.
        reference: The real image on the same grid.
        data_range: Largest less smallest possible intensity.

    Returns:
        At most 1, reached by identical images (constant ones too).

    Raises:
        ValueError: When the shapes differ or ``data_range`` is not positive.

    Example:
        >>> ramp = np.arange(256.0).reshape(16, 16)
        >>> ssim(ramp, ramp, data_range=255.0)
        1.0
    """
    x, y = _as_pair(image, reference, data_range)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2

    def smooth(array: Float[ndarray, " *s"]) -> Float[ndarray, " *s"]:
        return ndimage.gaussian_filter(array, SIGMA, radius=RADIUS)

    mean_x, mean_y = smooth(x), smooth(y)
    var_x = smooth(x * x) - mean_x**2
    var_y = smooth(y * y) - mean_y**2
    cov = smooth(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2)
    )
    inside = tuple(slice(RADIUS, -RADIUS) if s > 2 * RADIUS else slice(None) for s in x.shape)
    return float(similarity[inside].mean())
