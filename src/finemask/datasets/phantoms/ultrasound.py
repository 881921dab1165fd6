"""Breast ultrasound: a hypoechoic lesion among layered tissue, in speckle."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from finemask.datasets.phantoms.fields import fractal_noise, grain, log_uniform, ridges, speckle
from finemask.datasets.phantoms.scene import Scene, as_bytes, place_inside, smooth_step
from finemask.datasets.phantoms.shapes import blob, points_of, rasterise
from finemask.geometry import Geometry


def layers_db(shape: tuple[int, int], rng: Generator) -> Float[ndarray, " z x"]:
    """Echo level of skin, fat, gland and muscle from the probe downwards, in decibels."""
    height, width = shape
    depth = np.arange(height)[:, None] / height
    waviness = [
        gaussian_filter1d(rng.standard_normal(width), width / 9, mode="reflect") * 0.3
        for _ in range(3)
    ]
    skin = 0.045 + 0.1 * waviness[0]
    gland = rng.uniform(0.16, 0.32) + waviness[1]
    muscle = rng.uniform(0.62, 0.82) + 0.8 * waviness[2]

    def below(border: Float[ndarray, " x"], softness: float = 0.012) -> Float[ndarray, " z x"]:
        return smooth_step(depth - border, 4 * softness)

    def fascia(border: Float[ndarray, " x"]) -> Float[ndarray, " z x"]:
        return ridges(depth - border, 0.008)

    unit = height / 256
    patchy = fractal_noise(shape, rng, 2.8, (1.0, 2.0))
    septa = ridges(grain(shape, rng, 22 * unit, (1.0, 2.4)) + 0.5 * patchy, 0.25)
    strands = ridges(fractal_noise(shape, rng, 3.0, (1.0, 3.5)), 0.12)
    fibres = ridges(fractal_noise(shape, rng, 2.4, (1.0, 6.0)), 0.25)
    striae = grain(shape, rng, 8 * unit, (1.0, 9.0))
    fat = -9 + 11 * septa + 2 * patchy
    gland_db = -4 + 7 * fibres + 9 * strands + 4 * patchy
    muscle_db = -10 + 3 * striae + 7 * fibres
    tissue = 7 + (fat - 7) * below(skin)
    tissue = tissue + (gland_db - tissue) * below(gland, 0.02)
    tissue = tissue + (muscle_db - tissue) * below(muscle, 0.02)
    seen = smooth_step(patchy, 2.0)
    return tissue + 8 * fascia(gland) * seen + 11 * fascia(muscle) * (0.3 + 0.7 * seen)


def ultrasound(rng: Generator, shape: tuple[int, int], quantile: float) -> Scene:
    """One frame of a linear probe, 8-bit grey, depth along the rows.

    Tissue layers scatter, the lesion scatters less and attenuates differently
    from its surroundings, so that what lies beneath it is in shadow or enhanced.

    Args:
        rng: Source of randomness.
        shape: Rows and columns.
        quantile: Place of the lesion's area in the range of sizes, in [0, 1).
    """
    side = min(shape)
    radius = log_uniform(0.025, 0.25, quantile) * side
    malignant = rng.random() < 0.45
    flatness = rng.uniform(0.85, 1.1) if malignant else rng.uniform(0.62, 0.95)
    tilt = rng.normal(0, 0.2)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    lesion = blob(
        rng,
        place_inside(rng, shape, 1.45 * radius + 0.05 * side, (1.0, 1.0)),
        radius,
        turn @ np.diag([flatness, 1.0]),
        roughness=rng.uniform(0.12, 0.2) if malignant else rng.uniform(0.03, 0.08),
        spikes=int(rng.integers(5, 10)) if malignant else 0,
    )
    level, covered = rasterise(lesion, points_of(shape, (1.0, 1.0)), (1.0, 1.0))

    echo = layers_db(shape, rng)
    inner = -rng.uniform(13, 19) + 2.2 * fractal_noise(shape, rng, 2.4)
    border = rng.uniform(2.0, 5.0) if malignant else rng.uniform(1.0, 2.5)
    mixed = echo + (inner - echo) * smooth_step(level, border * side / 256)
    rim = rng.uniform(0, 5) * ridges(level + 0.012 * side, 0.014 * side)

    # Two-way excess attenuation along each beam, in decibels.
    path = np.cumsum(covered, axis=0)
    longest = max(float(path.max()), 1.0)
    strength = rng.uniform(4, 11) if malignant else rng.uniform(-8, -1)
    excess = strength * gaussian_filter1d(path / longest, 0.008 * side, axis=1)
    uneven = gaussian_filter1d(rng.standard_normal(shape[1]), 0.02 * side, mode="reflect")
    depth = np.arange(shape[0])[:, None] / shape[0]
    shade = 5 * uneven * np.sqrt(0.02 * side) * depth
    fall = rng.uniform(14, 26) * depth**1.5
    gain = rng.uniform(-3, 3)
    decibels = mixed + rim - excess - fall - shade + gain

    return Scene(
        image=scanned(decibels, rng, side / 256)[None],
        coverage=covered,
        lesions=(covered >= 0.5).astype(np.uint8),
        geometry=Geometry.regular(shape),
    )


def scanned(
    decibels: Float[ndarray, " z x"], rng: Generator, unit: float
) -> Float[ndarray, " z x"]:
    """What the scanner shows: speckle that widens with depth, log-compressed to 8 bits."""
    amplitude = (10 ** (decibels / 20)).astype(np.float32)
    near = speckle(amplitude, rng, (0.8 * unit, 1.5 * unit), looks=2)
    far = speckle(amplitude, rng, (1.0 * unit, 2.8 * unit), looks=2)
    depth = np.linspace(0, 1, len(amplitude))[:, None]
    envelope = near * (1 - depth) + far * depth
    shown = 20 * np.log10(envelope + 10 ** (-60 / 20))
    grey = gaussian_filter((shown + 35) / 52, 0.5 * unit)
    return as_bytes(np.clip(grey, 0, 1) ** 1.1)
