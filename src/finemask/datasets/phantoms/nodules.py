"""Chest CT: nodules among the vessels and bronchi of a lung, beside the chest wall."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from finemask.datasets.phantoms.fields import fractal_noise, log_uniform, ridges, spectral_noise
from finemask.datasets.phantoms.scene import Scene, blend, smooth_step
from finemask.datasets.phantoms.shapes import Level, blob, points_of, rasterise, rotation, waves
from finemask.datasets.phantoms.trees import Habit, Tubes, fine_depth, grow, share_of, unit
from finemask.geometry import Geometry

SPACING_MM = (1.25, 0.7, 0.7)
SMALLEST_MM, LARGEST_MM = 1.6, 7.6
Volume = Float[ndarray, " z y x"]
Matter = Callable[[Volume, Float[ndarray, " z y x 3"]], Volume]


def pleura(rng: Generator, extent: Float[ndarray, " 3"]) -> Level:
    """Distance beyond the inner surface of the chest wall in mm; negative in the lung."""
    curvature = 95.0
    angle = rng.uniform(-0.9, 0.9)
    # The wall takes the first columns; how much of the box depends on the patient.
    outward = np.array([0.0, np.sin(angle), -np.cos(angle)])
    depth = rng.uniform(0.26, 0.36) * extent[2]
    centre = extent / 2 - outward * (curvature - depth)
    ripple = waves(rng, 3, wavelength=45.0)
    slope = rng.normal(0, 0.08)

    def beyond(points: Float[ndarray, " *k 3"]) -> Float[ndarray, " *k"]:
        offset = points - centre
        lean = slope * (points[..., 0] - extent[0] / 2)
        return np.hypot(offset[..., 1], offset[..., 2]) - curvature + lean + ripple(points)

    return beyond


def chest_wall(
    beyond: Volume, points: Float[ndarray, " z y x 3"], rng: Generator
) -> tuple[Volume, Volume]:
    """HU of muscle, fat and ribs, and the share of each voxel that they take."""
    fat = fractal_noise(beyond.shape, rng, 3.0)
    hu = 45 + 8 * fractal_noise(beyond.shape, rng, 2.0)
    hu = blend(hu, -105.0, smooth_step(beyond - 10 - 2 * fat, 3.0))
    hu = blend(hu, -90.0, 0.5 * smooth_step(fat - 0.9, 0.6) * smooth_step(beyond - 2, 2.0))
    # Ribs run obliquely: they cross a slice at a slant.
    phase = points[..., 0] + 0.45 * points[..., 1] + rng.uniform(0, 26)
    along = (phase + 13) % 26 - 13
    bone = 5.0 - np.hypot((beyond - 6.5) * 1.35, along * 0.85)
    hu = blend(hu, 620.0, smooth_step(bone, 0.8))
    hu = blend(hu, 190.0 + 60 * fat, smooth_step(bone - 1.7, 1.2))
    return hu, np.clip(0.5 + beyond / SPACING_MM[1], 0, 1)


def lung_trees(
    rng: Generator, extent: Float[ndarray, " 3"], beyond: Level, radii: Float[ndarray, " k"]
) -> Tubes:
    """Vessels or bronchi that fan out from the hilum to the pleura, in mm."""
    n = len(radii)
    hilum = extent * np.array([0.5, 0.5, 1.02])
    roots = hilum + rng.normal(0, 1, (n, 3)) * extent * np.array([0.24, 0.24, 0.02])
    aim = extent * rng.uniform(0.05, 0.95, (n, 3))
    aim[:, 2] = 0.3 * extent[2]
    habit = Habit(step=1.4, wander=0.16, branching=0.13, angle=0.9, taper=0.992, thinnest=0.28)

    def pull(place: Float[ndarray, " t 3"], width: Float[ndarray, " t"]) -> Float[ndarray, " t 3"]:
        return 0.03 * unit(place - hilum) * np.clip(width / 1.5, 0.3, 1)[:, None]

    def inside(place: Float[ndarray, " t 3"]) -> ndarray:
        in_box = ((place > -4) & (place < extent + 4)).all(axis=1)
        return in_box & (beyond(place) < -1.5)

    return grow(rng, roots, unit(aim - roots), radii, habit, pull, inside, steps=90)[0]


def lung(points: Float[ndarray, " z y x 3"], rng: Generator, beyond: Level, wall: Volume) -> Volume:
    """HU of the lung without nodules: parenchyma, vessels and bronchi, and the wall."""
    shape = points.shape[:3]
    extent = np.array(shape) * SPACING_MM
    isotropic = (1 / SPACING_MM[0], 1 / SPACING_MM[1], 1 / SPACING_MM[2])
    texture = fractal_noise(shape, rng, 2.4, isotropic)
    lobules = fractal_noise(shape, rng, 3.4, isotropic)
    dependent = 40 * (points[..., 1] / extent[1] - 0.5)
    hu = rng.uniform(-885, -835) + 22 * texture + 18 * lobules + dependent
    hu = hu + 45 * ridges(lobules, 0.05)

    bronchi = lung_trees(rng, extent, beyond, rng.uniform(1.6, 2.6, 2))
    hu = blend(hu, -60.0, tube_share(bronchi, shape, 1.0))
    hu = blend(hu, -985.0, tube_share(bronchi, shape, 0.72))
    vessels = lung_trees(rng, extent, beyond, rng.uniform(1.2, 3.0, int(rng.integers(8, 13))))
    hu = blend(hu, 45.0, tube_share(vessels, shape, 1.0))
    soft, share = chest_wall(wall, points, rng)
    return blend(hu, soft, share)


def tube_share(tubes: Tubes, shape: tuple[int, ...], widening: float) -> Volume:
    """Share of each voxel in the tubes, their radii multiplied by ``widening``."""
    scaled = Tubes(
        tubes.begin, tubes.end, tubes.radius_begin * widening, tubes.radius_end * widening
    )
    return share_of(fine_depth(scaled, shape, SPACING_MM, samples=2), 2)


def nodule_places(
    rng: Generator, extent: Float[ndarray, " 3"], beyond: Level, radii: Float[ndarray, " k"]
) -> list[tuple[Float[ndarray, " 3"], float]]:
    """Centres, largest nodule first: in the lung, whole, apart; some touch the pleura."""
    placed: list[tuple[Float[ndarray, " 3"], float]] = []
    for radius in sorted(radii, reverse=True):
        margin = np.minimum(1.5 * radius + 1.5, extent / 2)
        candidates = margin + rng.random((300, 3)) * (extent - 2 * margin)
        free = beyond(candidates) < -radius * rng.uniform(0.85, 2.5)
        for centre, other in placed:
            apart = np.linalg.norm(candidates - centre, axis=1)
            free &= apart > 1.9 * (radius + other) + 2
        if free.any():
            placed.append((candidates[np.argmax(free)], float(radius)))
    return placed


def strands(rng: Generator, centre: Float[ndarray, " 3"], radius: float) -> Tubes:
    """Thin septa that a spiculated nodule draws in: seen, but not part of the nodule."""
    count = int(rng.integers(5, 11))
    direction = unit(rng.standard_normal((count, 3)))
    reach = radius * rng.uniform(1.5, 2.4, (count, 1))
    thick = np.full(count, 0.42)
    return Tubes(centre + direction * 0.7 * radius, centre + direction * reach, thick, thick * 0.5)


def substance(rng: Generator, kind: str, radius: float) -> Matter:
    """HU inside a nodule: dense throughout, dense at its core, or a haze that fades out."""
    core = {"solid": -np.inf, "part-solid": 0.45 * radius, "ground-glass": np.inf}[kind]
    dense, hazy = rng.uniform(10, 60), rng.uniform(-600, -430)
    mottle = waves(rng, 3, wavelength=radius, octaves=2)

    def matter(level: Volume, points: Float[ndarray, " z y x 3"]) -> Volume:
        haze = blend(np.full(level.shape, -760.0), hazy, smooth_step(level - 0.4, 2.0))
        grey = blend(haze, dense, smooth_step(level - core, 1.2))
        return grey + np.where(level > core, 12, 55) * mottle(points)

    return matter


def nodule_at(
    rng: Generator, centre: Float[ndarray, " 3"], radius: float, spiculated: bool
) -> Level:
    """Shape of one nodule: nearly round, or irregular with spiculations."""
    return blob(
        rng,
        centre,
        radius,
        rotation(rng, 3) @ np.diag(np.exp(rng.normal(0, 0.17, 3))),
        roughness=rng.uniform(0.1, 0.18) if spiculated else rng.uniform(0.05, 0.12),
        spikes=int(rng.integers(8, 16)) if spiculated else 0,
    )


def window_around(
    centre: Float[ndarray, " 3"], reach: float, shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """The voxels within ``reach`` mm of a point along each axis."""
    low = np.maximum(np.floor((centre - reach) / SPACING_MM).astype(int), 0)
    high = np.minimum(np.ceil((centre + reach) / SPACING_MM).astype(int) + 1, shape)
    return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))


def nodules(rng: Generator, shape: tuple[int, int, int], quantile: float) -> Scene:
    """A box of lung in Hounsfield units, whole numbers, slices of 1.25 mm.

    Solid, part-solid and ground-glass nodules, some spiculated, some at the
    pleura. The scanner blurs, and its noise is correlated within a slice and
    not across slices.

    Args:
        rng: Source of randomness.
        shape: Slices, rows and columns.
        quantile: Place of the first nodule's volume in the range of sizes; the
            others of the case follow evenly spread over that range.
    """
    spacing = np.array(SPACING_MM)
    extent = (np.array(shape) - 1) * spacing
    largest = min(LARGEST_MM, 0.3 * float(extent.min()))
    points = points_of(shape, SPACING_MM)
    beyond = pleura(rng, extent)
    wall = beyond(points)
    hu = lung(points, rng, beyond, wall)
    coverage = np.zeros(shape, dtype=np.float32)
    lesions = np.zeros(shape, dtype=np.uint8)

    ranks = (quantile + 0.618034 * np.arange(int(rng.integers(2, 6)))) % 1
    radii = np.array([log_uniform(largest * SMALLEST_MM / LARGEST_MM, largest, q) for q in ranks])
    for number, (centre, radius) in enumerate(nodule_places(rng, extent, beyond, radii), start=1):
        kind = str(rng.choice(["solid", "part-solid", "ground-glass"], p=[0.68, 0.16, 0.16]))
        spiculated = kind == "solid" and radius > 0.3 * largest and rng.random() < 0.7
        if spiculated:
            drawn_in = tube_share(strands(rng, centre, radius), shape, 1.0)
            hu = blend(hu, -150.0, drawn_in * (wall < 0))
        window = window_around(centre, 2.0 * radius + 1.5, shape)
        nodule = nodule_at(rng, centre, radius, spiculated)
        level, share = rasterise(nodule, points[window], SPACING_MM)
        # A nodule at the pleura ends there.
        share = np.minimum(share, np.clip(0.5 - wall[window] / SPACING_MM[1], 0, 1))
        matter = substance(rng, kind, radius)
        hu[window] = blend(hu[window], matter(level, points[window]), share)
        coverage[window] = np.maximum(coverage[window], share)
        lesions[window][share >= 0.5] = number

    blur_mm = np.array([0.55, 0.42, 0.42])
    hu = gaussian_filter(hu, blur_mm / spacing, mode="nearest")
    hu = np.clip(np.rint(hu + rng.uniform(16, 34) * quantum_noise(shape, rng)), -1024, 3071)
    return Scene(hu[None].astype(np.float32), coverage, lesions, patient_grid(rng, shape))


def quantum_noise(shape: tuple[int, int, int], rng: Generator) -> Volume:
    """Noise of filtered back-projection: grainy within a slice, new in every slice."""
    return spectral_noise(
        shape, rng, lambda f: np.sqrt(f) * np.exp(-((f / 0.24) ** 2)), (0.0, 1.0, 1.0)
    )


def patient_grid(rng: Generator, shape: tuple[int, int, int]) -> Geometry:
    """A supine patient: slices go up, rows to the back, columns to the left."""
    affine = np.zeros((4, 4))
    affine[[2, 1, 0], [0, 1, 2]] = np.array([1, -1, -1]) * SPACING_MM
    affine[:3, 3] = np.round(rng.uniform([90, -10, -260], [130, 60, -140]), 1)
    affine[3, 3] = 1
    return Geometry.from_affine(shape, affine)
