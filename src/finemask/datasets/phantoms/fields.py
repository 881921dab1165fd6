"""Random fields that tissue is made of: textures, speckle and grain.

Every field has zero mean and unit deviation unless it says otherwise, so that
a phantom can state its contrast in the units of its own image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from scipy.fft import irfftn, rfftn
from scipy.ndimage import gaussian_filter


def standardised(field: Float[ndarray, " *s"]) -> Float[ndarray, " *s"]:
    """The field with zero mean and unit deviation; a constant field becomes zero.

    Example:
        >>> standardised(np.array([1.0, 3.0]))
        array([-1.,  1.])
    """
    centred = field - field.mean()
    return centred / max(float(centred.std()), 1e-12)


def spectral_noise(
    shape: Sequence[int],
    rng: Generator,
    amplitude: Callable[[Float[ndarray, " *k"]], Float[ndarray, " *k"]],
    stretch: Sequence[float] | None = None,
) -> Float[ndarray, " *s"]:
    """Gaussian noise with a given spectrum.

    Args:
        shape: Voxels along each axis.
        rng: Source of randomness.
        amplitude: Spectral amplitude at a frequency in cycles per voxel.
        stretch: How much longer structures are along each axis; all 1 when absent.
    """
    grids = [np.fft.fftfreq(n) for n in shape[:-1]] + [np.fft.rfftfreq(shape[-1])]
    squared = sum(
        (f * s) ** 2 for f, s in zip(np.ix_(*grids), stretch or (1.0,) * len(shape), strict=True)
    )
    frequency = np.sqrt(squared).astype(np.float32)
    frequency.flat[0] = 1.0
    weight = amplitude(frequency).astype(np.float32)
    weight.flat[0] = 0.0
    white = rfftn(rng.standard_normal(tuple(shape), dtype=np.float32))
    return standardised(irfftn(white * weight, s=tuple(shape)))


def fractal_noise(
    shape: Sequence[int],
    rng: Generator,
    exponent: float = 2.0,
    stretch: Sequence[float] | None = None,
) -> Float[ndarray, " *s"]:
    """Scale-free texture whose power falls with frequency to the power ``exponent``.

    0 is white noise; 2 to 4 look like clouds, parenchyma and uneven pigment.
    """
    return spectral_noise(shape, rng, lambda f: f ** (-exponent / 2), stretch)


def grain(
    shape: Sequence[int],
    rng: Generator,
    wavelength: float,
    stretch: Sequence[float] | None = None,
) -> Float[ndarray, " *s"]:
    """Texture of one size: structures repeat about every ``wavelength`` voxels."""
    return spectral_noise(
        shape, rng, lambda f: np.exp(-0.5 * ((f * wavelength - 1) / 0.3) ** 2), stretch
    )


def ridges(field: Float[ndarray, " *s"], width: float) -> Float[ndarray, " *s"]:
    """Bright sheets in [0, 1] along the zero crossings of a field: septa, creases, fibres.

    Example:
        >>> ridges(np.array([0.0, 5.0]), width=0.5).round(3)
        array([1., 0.])
    """
    return np.exp(-0.5 * (field / width) ** 2)


def speckle(
    amplitude: Float[ndarray, " z x"], rng: Generator, psf: tuple[float, float], looks: int = 1
) -> Float[ndarray, " z x"]:
    """Envelope of the echo of many unresolved scatterers (fully developed speckle).

    Scatterers are circular Gaussian with the tissue's ``amplitude``; the pulse
    smears them by ``psf``; the scanner shows the modulus. Over uniform tissue the
    mean is ``amplitude`` and, for one look, deviation / mean is 0.52 (Rayleigh).

    Args:
        amplitude: Local scattering amplitude, at least 0.
        rng: Source of randomness.
        psf: Deviation of the pulse in pixels, axial then lateral.
        looks: Independent looks averaged (spatial compounding).

    Returns:
        Envelope on the same grid, at least 0.
    """
    # The energy of the pulse scales the smeared sum back to unit variance.
    gain = np.sqrt(4 * np.pi * psf[0] * psf[1] * 2 / np.pi)
    total = np.zeros(amplitude.shape, dtype=np.float32)
    for _ in range(looks):
        scatterers = rng.standard_normal((2, *amplitude.shape), dtype=np.float32) * amplitude
        echo = gaussian_filter(scatterers, (0, *psf), mode="reflect", truncate=3.0)
        total += np.hypot(echo[0], echo[1])
    return total * np.float32(gain / looks)


def log_uniform(low: float, high: float, quantile: float) -> float:
    """The ``quantile`` of the distribution that is uniform in the logarithm.

    Example:
        >>> round(log_uniform(1.0, 100.0, 0.5), 6)
        10.0
    """
    return float(low * (high / low) ** quantile)
