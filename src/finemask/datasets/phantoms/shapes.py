"""Anatomy as level functions (positive inside) and how it falls on a voxel grid.

Points are in physical units, ``(..., n)``, along the array axes; the centre of
the first voxel is the origin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

Spacing = Sequence[float] | Float[ndarray, " n"]
Level = Callable[[Float[ndarray, " *k n"]], Float[ndarray, " *k"]]


def points_of(
    shape: Sequence[int],
    spacing: Spacing,
    start: Sequence[int] | None = None,
) -> Float[ndarray, " *s n"]:
    """Voxel centres of a window that begins at voxel ``start``.

    Example:
        >>> points_of((1, 2), (2.0, 0.5), start=(1, 0)).tolist()
        [[[2.0, 0.0], [2.0, 0.5]]]
    """
    begin = start or (0,) * len(shape)
    axes = [(np.arange(n) + b) * d for n, b, d in zip(shape, begin, spacing, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def waves(rng: Generator, ndim: int, wavelength: float, octaves: int = 1) -> Level:
    """A smooth random field of unit deviation that can be asked anywhere.

    A sum of random plane waves: needs no grid, so the same anatomy can be
    rasterised at any resolution. Each octave halves wavelength and amplitude.
    """
    count = 6
    scale = 2.0 ** np.repeat(np.arange(octaves), count)
    vectors = rng.standard_normal((ndim, count * octaves)) / np.sqrt(ndim)
    vectors *= 2 * np.pi / wavelength * scale
    phases = rng.uniform(0, 2 * np.pi, count * octaves)
    weights = np.sqrt(2 / count) / scale / np.sqrt((4.0 ** -np.arange(octaves)).sum())

    def field(points: Float[ndarray, " *k n"]) -> Float[ndarray, " *k"]:
        return np.cos(points @ vectors + phases) @ weights

    return field


def rotation(rng: Generator, ndim: int) -> Float[ndarray, " n n"]:
    """A random orthogonal matrix."""
    return np.linalg.qr(rng.standard_normal((ndim, ndim)))[0]


def blob(
    rng: Generator,
    centre: Float[ndarray, " n"],
    radius: float,
    axes: Float[ndarray, " n n"],
    roughness: float = 0.1,
    spikes: int = 0,
) -> Level:
    """A lesion: an ellipsoid with a lobulated rim and, if asked, spiculations.

    Args:
        rng: Source of randomness.
        centre: Physical coordinates.
        radius: Radius of the ball of the same volume, before the rim is roughened.
        axes: Matrix that maps the unit ball to the ellipsoid; normalised to
            determinant 1.
        roughness: Relative deviation of the rim from the ellipsoid.
        spikes: Number of spiculations, each about half a radius long.

    Returns:
        Level function, close to the signed distance to the rim near it.
    """
    n = len(centre)
    axes = axes / np.abs(np.linalg.det(axes)) ** (1 / n)
    lobes = waves(rng, n, wavelength=2.5, octaves=3)
    tips = rng.standard_normal((n, spikes))
    tips /= np.linalg.norm(tips, axis=0)
    heights = rng.uniform(0.15, 0.6, spikes)
    sharpness = rng.uniform(60, 200, spikes)
    inverse = np.linalg.inv(axes).T

    def level(points: Float[ndarray, " *k n"]) -> Float[ndarray, " *k"]:
        offset = (points - centre) @ inverse
        distance = np.linalg.norm(offset, axis=-1)
        direction = offset / np.maximum(distance, 1e-9)[..., None]
        rim = np.exp(roughness * lobes(direction))
        if spikes:
            rim = rim + np.exp((direction @ tips - 1) * sharpness) @ heights
        return radius * rim - distance

    return level


def rasterise(
    level: Level, points: Float[ndarray, " *s n"], spacing: Spacing, samples: int = 4
) -> tuple[Float[ndarray, " *s"], Float[ndarray, " *s"]]:
    """Put a level function on a grid with the right partial volume at its border.

    Only voxels that the border can cross are super-sampled.

    Args:
        level: Positive inside; its gradient is at most about 3.
        points: Voxel centres.
        spacing: Voxel size along each axis.
        samples: Sub-voxel samples along each axis.

    Returns:
        The level at the voxel centres, and the covered share of each voxel in [0, 1].
    """
    value = level(points)
    steps = (np.arange(samples) + 0.5) / samples - 0.5
    offsets = np.stack(np.meshgrid(*[steps * d for d in spacing], indexing="ij"), axis=-1)
    offsets = offsets.reshape(-1, len(spacing))
    crossed = np.abs(value) < 1.5 * np.linalg.norm(spacing)
    share = (value > 0).astype(np.float32)
    share[crossed] = (level(points[crossed][:, None] + offsets) > 0).mean(axis=-1)
    return value, share


def block_mean(array: Float[ndarray, " *f"], factor: int) -> Float[ndarray, " *s"]:
    """Mean over blocks of ``factor`` voxels along every axis.

    Example:
        >>> block_mean(np.array([[1.0, 3.0], [5.0, 7.0]]), 2)
        array([[4.]])
    """
    split = [part for s in array.shape for part in (s // factor, factor)]
    return array.reshape(split).mean(axis=tuple(range(1, len(split), 2)))
