"""Fundus photography: the tree of retinal vessels from the optic disc to its thinnest twigs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from finemask.datasets.phantoms.fields import fractal_noise, grain, log_uniform
from finemask.datasets.phantoms.scene import Scene, as_bytes, smooth_step
from finemask.datasets.phantoms.shapes import block_mean, points_of
from finemask.datasets.phantoms.trees import Habit, Tubes, fine_depth, grow, share_of, unit
from finemask.geometry import Geometry

# Absorbance of red, green and blue light a unit length of blood.
VENOUS, ARTERIAL = np.array([0.20, 0.50, 0.40]), np.array([0.08, 0.37, 0.32])
FUNDUS = np.array([[0.86, 0.46, 0.26], [0.80, 0.38, 0.17], [0.92, 0.50, 0.30], [0.70, 0.34, 0.16]])


def main_radius(field: float) -> float:
    """Radius of a main vein, in pixels, in a field of view of that radius.

    In small pictures vessels are drawn too wide for the eye, or few would show.
    """
    return max(0.02 * field, 1.6)


def retinal_tree(
    rng: Generator,
    disc: Float[ndarray, " 2"],
    fovea: Float[ndarray, " 2"],
    field: tuple[Float[ndarray, " 2"], float],
    widening: float,
) -> tuple[Tubes, ndarray]:
    """Arteries and veins that leave the disc, arch around the fovea and branch.

    Args:
        rng: Source of randomness.
        disc: Centre of the optic disc in pixels.
        fovea: Centre of the macula.
        field: Centre and radius of the field of view.
        widening: Factor of the usual calibre.

    Returns:
        The segments, and for each whether it carries venous blood.
    """
    centre, radius = field
    temporal = unit(fovea - disc)
    up = np.array([-temporal[1], temporal[0]])
    away = float(np.linalg.norm(fovea - disc))
    # Up and down along the arcades, and to the nasal side; an artery and a vein each.
    angles = np.radians([64, 82, -64, -82, 125, 150, -130, -155, 20, -20])
    angles = angles + rng.normal(0, 0.12, len(angles))
    heading = np.cos(angles)[:, None] * temporal + np.sin(angles)[:, None] * up
    calibre = np.array([1, 1.25] * 4 + [0.4, 0.45]) * np.array([1.0] * 4 + [0.6] * 4 + [1.0] * 2)
    calibre = calibre * 0.82 * main_radius(radius) * widening * rng.uniform(0.85, 1.15, len(angles))
    habit = Habit(
        step=0.016 * radius,
        wander=0.13,
        branching=0.085,
        angle=0.85,
        taper=0.996,
        thinnest=max(0.0042 * radius, 0.5),
    )
    trunk = 0.6 * calibre.max()

    def pull(place: Float[ndarray, " t n"], width: Float[ndarray, " t"]) -> Float[ndarray, " t n"]:
        """Trunks turn to the temporal side once past the disc and keep off the fovea."""
        from_disc = place - disc
        side = from_disc @ up
        gone = np.linalg.norm(from_disc, axis=1)
        weight = np.clip(width / trunk, 0, 1) * smooth_step(gone / away - 0.3, 0.3)
        bend = np.where(from_disc @ temporal > -0.35 * away, 0.075, 0.0) * weight
        from_fovea = place - fovea
        near = np.linalg.norm(from_fovea, axis=1)
        off = 0.25 * smooth_step(0.75 - near / away, 0.5) * np.clip(width / trunk, 0.1, 1)
        back = -0.03 * np.sign(side) * (np.abs(side) > 1.15 * away) * weight
        return bend[:, None] * temporal + off[:, None] * unit(from_fovea) + back[:, None] * up

    def inside(place: Float[ndarray, " t n"]) -> ndarray:
        in_field = np.linalg.norm(place - centre, axis=1) < radius + 2
        return in_field & (np.linalg.norm(place - fovea, axis=1) > 0.13 * away)

    roots = disc + rng.normal(0, 0.012 * radius, (len(angles), 2))
    tubes, tree = grow(rng, roots, heading, calibre, habit, pull, inside, steps=150)
    return tubes, tree % 2 == 1


def retina(
    points: Float[ndarray, " y x 2"],
    rng: Generator,
    disc: Float[ndarray, " 2"],
    fovea: Float[ndarray, " 2"],
    radius: float,
) -> Float[ndarray, " y x 3"]:
    """Reflectance of the fundus without its vessels: choroid, macula and optic disc."""
    shape = points.shape[:2]
    tint = rng.dirichlet(np.ones(len(FUNDUS))) @ FUNDUS
    choroid = 0.05 * fractal_noise(shape, rng, 2.6) + 0.018 * grain(shape, rng, 0.09 * radius)
    base = tint * np.exp(choroid[..., None] * np.array([0.5, 1.0, 1.2]))
    macula = np.exp(-0.5 * (np.linalg.norm(points - fovea, axis=-1) / (0.16 * radius)) ** 2)
    base = base * np.exp(-macula[..., None] * np.array([0.30, 0.52, 0.40]) * rng.uniform(0.7, 1.2))

    offset = (points - disc) / (np.array([1.08, 0.95]) * rng.uniform(0.135, 0.16) * radius)
    distance = np.linalg.norm(offset, axis=-1)
    halo = np.exp(-0.5 * (distance / 1.5) ** 2)[..., None]
    base = base * (1 + 0.12 * halo)
    rim = smooth_step(1 - distance, 0.3)[..., None]
    cup = smooth_step(rng.uniform(0.4, 0.6) - distance, 0.35)[..., None]
    base = base + (np.array([0.98, 0.74, 0.42]) - base) * 0.85 * rim
    return base + (np.array([1.0, 0.88, 0.62]) - base) * 0.75 * cup


def vessels(rng: Generator, shape: tuple[int, int], quantile: float) -> Scene:
    """One colour fundus photograph, 8-bit RGB, black outside the field of view.

    Vessels absorb light along their depth (Beer-Lambert), so thin twigs are
    faint as well as narrow; the thinnest are about one pixel wide and vanish
    between the pixels of a low-resolution image.

    Args:
        rng: Source of randomness.
        shape: Rows and columns.
        quantile: Place of the vessels' calibre in the range of eyes, in [0, 1).
    """
    side = min(shape)
    centre, radius = (np.array(shape) - 1) / 2, 0.475 * side
    eye = 1 if rng.random() < 0.5 else -1
    disc = centre + np.array([rng.normal(0, 0.05), eye * rng.uniform(0.42, 0.68)]) * radius
    fovea = disc + np.array([rng.uniform(0.0, 0.08), -eye * rng.uniform(0.62, 0.7)]) * radius
    points = points_of(shape, (1.0, 1.0))
    tubes, venous = retinal_tree(
        rng, disc, fovea, (centre, radius), log_uniform(0.85, 1.2, quantile)
    )

    distance = np.linalg.norm(points - centre, axis=-1)
    seen = np.clip(radius - distance + 0.5, 0, 1)
    veins = fine_depth(tubes.where(venous), shape, (1.0, 1.0))
    arteries = fine_depth(tubes.where(~venous), shape, (1.0, 1.0))
    covered = share_of(np.maximum(veins, arteries))
    main = main_radius(radius)
    veins, arteries = block_mean(veins, 3) / main, block_mean(arteries, 3) / main
    blood = veins[..., None] * VENOUS + arteries[..., None] * ARTERIAL
    # Glint of the light on the convex wall of large arteries.
    glint = 0.1 * smooth_step(arteries - 0.62, 0.2)

    picture = retina(points, rng, disc, fovea, radius) * np.exp(-1.5 * blood)
    picture = picture * (1 + glint[..., None])
    lamp = rng.normal(0, 0.3, 2)
    offset = (points - centre) / radius - lamp
    light = 1.05 - rng.uniform(0.15, 0.35) * (offset**2).sum(axis=-1)
    light = light * (1 + 0.05 * fractal_noise(shape, rng, 3.5))
    picture = picture * np.clip(light, 0.1, None)[..., None]
    picture = gaussian_filter(picture, (0.65 * side / 256, 0.65 * side / 256, 0))
    noise = np.stack([fractal_noise(shape, rng, 0.6) for _ in range(3)], axis=-1)
    picture = (picture + 0.012 * noise) * seen[..., None]
    covered = np.where(seen > 0.5, covered, 0).astype(np.float32)
    return Scene(
        image=np.ascontiguousarray(as_bytes(picture).transpose(2, 0, 1)),
        coverage=covered,
        lesions=np.zeros(shape, dtype=np.uint8),
        geometry=Geometry.regular(shape),
    )
