"""Optical coherence tomography around the optic disc: three layers, sharp and nearly parallel."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from finemask.datasets.phantoms.fields import fractal_noise, log_uniform, speckle
from finemask.datasets.phantoms.scene import Scene, as_bytes, smooth_step
from finemask.geometry import Geometry

LAYERS = ("rnfl", "gcipl", "choroid")
"""Retinal nerve fibre layer, ganglion cell and inner plexiform layer, choroid."""

ECHO_DB = (-34.0, -7.0, -15.0, -21.0, -5.0, -13.0, -19.0)
"""Of vitreous, nerve fibres, ganglion cells, outer retina, pigment epithelium, choroid, sclera."""


def depths(rng: Generator, shape: tuple[int, int], quantile: float) -> Float[ndarray, " 6 x"]:
    """Rows of the borders between the seven tissues, from the vitreous down, column by column.

    The nerve fibre layer is thick where the arcades leave the disc, above and below, which is
    twice around the circle; how thick falls with ``quantile``, as in glaucoma.
    """
    rows, columns = shape
    turn = np.linspace(0, 2 * np.pi, columns, endpoint=False) + rng.uniform(0, 2 * np.pi)
    uneven = [fractal_noise((columns,), rng, 3.0) for _ in range(6)]
    surface = 0.24 + rng.uniform(-0.04, 0.04) + 0.05 * np.sin(turn) + 0.012 * uneven[0]
    fibres = log_uniform(0.16, 0.03, quantile) * (0.6 + 0.4 * np.cos(2 * turn + 0.3 * uneven[1]))
    cells = 0.055 * (1 + 0.12 * uneven[2])
    outer = 0.14 * (1 + 0.05 * uneven[3])
    epithelium = 0.018 * np.ones(columns)
    choroid = rng.uniform(0.1, 0.2) * (1 + 0.2 * uneven[4] + 0.1 * np.sin(turn))
    thickness = [np.maximum(t, 1.5 / rows) for t in (fibres, cells, outer, epithelium, choroid)]
    return rows * np.cumsum([surface, *thickness], axis=0)


def share_between(
    top: Float[ndarray, " x"], bottom: Float[ndarray, " x"], rows: int
) -> Float[ndarray, " z x"]:
    """Share of each pixel between two borders, exact along the column.

    Example:
        >>> share_between(np.array([0.5]), np.array([2.25]), rows=3).ravel()
        array([0.5 , 1.  , 0.25])
    """
    row = np.arange(rows)[:, None]
    return np.clip(np.minimum(row + 1, bottom) - np.maximum(row, top), 0, 1)


def layers(rng: Generator, shape: tuple[int, int], quantile: float) -> Scene:
    """One circular scan, unrolled: depth down, the angle around the disc across, 8-bit grey.

    Args:
        rng: Source of randomness.
        shape: Rows and columns.
        quantile: Place of the nerve fibre layer between thick and thin, in [0, 1).
    """
    rows, columns = shape
    border = depths(rng, shape, quantile)
    ends = [np.zeros(columns), *border, np.full(columns, float(rows))]
    shares = [share_between(a, b, rows) for a, b in pairwise(ends)]
    echo = sum(share * level for share, level in zip(shares, ECHO_DB, strict=True))
    echo = echo + 1.2 * fractal_noise(shape, rng, 2.0)
    # Vessels of the retina absorb what should reach the layers beneath them.
    shadow = smooth_step(fractal_noise((columns,), rng, 1.5) - 1.3, 0.5)
    below = np.cumsum(shares[1], axis=0) / np.maximum(shares[1].sum(0), 1e-6)
    decibels = echo - rng.uniform(3, 9) * shadow * below + rng.uniform(-2, 2)
    unit = rows / 256
    envelope = speckle((10 ** (decibels / 20)).astype(np.float32), rng, (0.7 * unit, 1.1 * unit), 3)
    shown = 20 * np.log10(envelope + 10 ** (-36 / 20))
    classes = np.stack([shares[1], shares[2], shares[5]]).astype(np.float32)
    return Scene(
        image=as_bytes(gaussian_filter((shown + 38) / 42, 0.4 * unit))[None],
        coverage=classes.sum(0),
        lesions=np.zeros(shape, np.uint8),
        geometry=Geometry.regular(shape),
        classes=classes,
    )
