"""Dermoscopy: a pigmented lesion with a soft border, under hairs and a dermoscope's light."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from finemask.datasets.phantoms.fields import fractal_noise, grain, log_uniform, ridges
from finemask.datasets.phantoms.scene import Scene, as_bytes, blend, place_inside, smooth_step
from finemask.datasets.phantoms.shapes import blob, block_mean, points_of, rasterise, rotation
from finemask.datasets.phantoms.trees import Tubes, fine_depth, share_of
from finemask.geometry import Geometry

# Absorbance of red, green and blue light, relative to each pigment's density.
MELANIN = np.array([0.75, 1.25, 1.5])
HAEMOGLOBIN = np.array([0.12, 0.75, 0.6])
# Melanin deep in the dermis scatters blue back (Tyndall): a blue-grey veil.
DERMAL_MELANIN = np.array([1.25, 0.95, 0.6])
SKINS = np.array([[238, 205, 196], [228, 186, 168], [214, 190, 200], [222, 178, 146]]) / 255


def pigment(
    level: Float[ndarray, " y x"], radius: float, rng: Generator
) -> tuple[Float[ndarray, " y x"], Float[ndarray, " y x"]]:
    """Density of melanin in the epidermis and in the dermis of a lesion.

    Brown of several tones, a pigment network, dots and globules, lighter areas
    of regression; the density falls to one half at the border.
    """
    shape = level.shape
    unit = min(shape) / 256
    soft = log_uniform(0.08, 0.35, rng.random()) * radius + 1.5 * unit
    body = smooth_step(level + 0.6 * unit * fractal_noise(shape, rng, 1.5), soft)
    tone = np.clip(0.85 + 0.28 * fractal_noise(shape, rng, 3.0), 0.25, 1.6)
    mesh = ridges(grain(shape, rng, rng.uniform(7, 11) * unit), 0.45)
    dots = smooth_step(grain(shape, rng, rng.uniform(7, 12) * unit) - 1.5, 0.8)
    clustered = smooth_step(fractal_noise(shape, rng, 3.0), 1.5)
    fine = 0.08 * fractal_noise(shape, rng, 1.2)
    density = tone + rng.uniform(0, 0.45) * mesh + rng.uniform(0.2, 0.9) * dots * clustered + fine
    regression = rng.uniform(0, 0.5) * smooth_step(fractal_noise(shape, rng, 3.2) - 0.8, 0.8)
    veil = rng.uniform(0, 0.7) * smooth_step(fractal_noise(shape, rng, 3.4) - 0.5, 1.0)
    central = smooth_step(level / radius - 0.25, 0.4)
    strength = rng.uniform(0.45, 1.2)
    return strength * body * density * (1 - regression * central), veil * body * central


def hairs(
    shape: tuple[int, int], rng: Generator
) -> tuple[Float[ndarray, " y x"], Float[ndarray, " y x"]]:
    """Share of each pixel behind a hair and the hair's half thickness in pixels."""
    side = min(shape)
    count = int(rng.integers(0, 4)) if rng.random() < 0.6 else int(rng.integers(6, 16))
    sweep = rng.uniform(0, 2 * np.pi)
    strands = []
    for _ in range(count):
        root = rng.random(2) * shape
        angle = sweep + rng.normal(0, 0.5)
        ahead = np.array([np.sin(angle), np.cos(angle)]) * rng.uniform(0.25, 0.9) * side
        bend = rng.normal(0, 0.08, 2) * side
        t = np.linspace(0, 1, 40)[:, None]
        line = root + ahead * t + bend * 4 * t * (1 - t)
        width = rng.uniform(0.45, 0.9) * side / 256 * (1 - 0.6 * t[:, 0])
        strands.append(Tubes.along(line, width))
    if not strands:
        return np.zeros(shape), np.zeros(shape)
    depth = fine_depth(Tubes.joined(strands), shape, (1.0, 1.0))
    return share_of(depth), block_mean(depth, 3)


def bare_skin(shape: tuple[int, int], rng: Generator) -> Float[ndarray, " y x 3"]:
    """Reflectance of skin in [0, 1]: creases, pores, flush and uneven tan."""
    unit = min(shape) / 256
    tint = np.clip(rng.dirichlet(np.ones(len(SKINS))) @ SKINS + rng.normal(0, 0.015, 3), 0, 1)
    flush = 0.1 * np.maximum(fractal_noise(shape, rng, 3.0) + 0.5, 0)
    tan = 0.05 * fractal_noise(shape, rng, 2.4) + 0.02 * fractal_noise(shape, rng, 1.0)
    stretch = (1.0, rng.uniform(1.0, 2.0))
    creases = ridges(grain(shape, rng, 13 * unit, stretch), 0.3) - 0.25
    absorbance = flush[..., None] * HAEMOGLOBIN + tan[..., None] * MELANIN
    return tint * np.exp(-absorbance) * (1 + 0.025 * creases[..., None])


def light(shape: tuple[int, int], rng: Generator) -> Float[ndarray, " y x"]:
    """Illumination of the dermoscope: bright off centre, falling to the corners.

    Some instruments show the edge of their lens as dark corners.
    """
    y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    shift = rng.normal(0, 0.15, 2)
    distance = np.hypot(y - shift[0], x - shift[1])
    lamp = 1.04 - rng.uniform(0.06, 0.2) * distance**2
    if rng.random() < 0.25:
        lamp = lamp * smooth_step(rng.uniform(1.12, 1.25) - distance, 0.08)
    return lamp


def skin(rng: Generator, shape: tuple[int, int], quantile: float) -> Scene:
    """One dermoscopic photograph, 8-bit RGB.

    Colours follow from light absorbed by melanin and haemoglobin
    (Beer-Lambert), so a thicker lesion is darker and browner.

    Args:
        rng: Source of randomness.
        shape: Rows and columns.
        quantile: Place of the lesion's area in the range of sizes, in [0, 1).
    """
    side = min(shape)
    radius = log_uniform(0.03, 0.3, quantile) * side
    elongation = np.diag(np.exp(rng.normal(0, 0.16, 2)))
    lesion = blob(
        rng,
        place_inside(rng, shape, 1.3 * radius + 0.03 * side, (1.0, 1.0)),
        radius,
        rotation(rng, 2) @ elongation,
        roughness=rng.uniform(0.04, 0.16),
    )
    level, covered = rasterise(lesion, points_of(shape, (1.0, 1.0)), (1.0, 1.0))
    epidermal, dermal = pigment(level, radius, rng)
    flush = 0.25 * rng.random() * smooth_step(level + 0.15 * radius, 0.5 * radius)
    absorbance = (
        epidermal[..., None] * MELANIN
        + dermal[..., None] * DERMAL_MELANIN
        + flush[..., None] * HAEMOGLOBIN
    )
    picture = bare_skin(shape, rng) * np.exp(-absorbance)

    share, thickness = hairs(shape, rng)
    hair = rng.uniform(0.05, 0.25) * np.array([1.2, 0.95, 0.8])
    picture = blend(picture, hair, (share * (1 - np.exp(-4 * thickness)))[..., None])
    unit = side / 256
    picture = gaussian_filter(picture * light(shape, rng)[..., None], (0.6 * unit, 0.6 * unit, 0))
    noise = 0.008 * rng.standard_normal(picture.shape) * np.sqrt(picture + 0.05)
    return Scene(
        image=np.ascontiguousarray(as_bytes(picture + noise).transpose(2, 0, 1)),
        coverage=covered,
        lesions=(covered >= 0.5).astype(np.uint8),
        geometry=Geometry.regular(shape),
    )
