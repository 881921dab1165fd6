"""Vessels, bronchi and hairs: tapering tubes, and the trees they grow into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray
from numpy.random import Generator

from finemask.datasets.phantoms.shapes import block_mean


@dataclass(frozen=True, eq=False)
class Tubes:
    """Segments of vessels or hairs: straight pieces that taper from end to end.

    Args:
        begin: ``(N, n)`` physical coordinates of the beginnings.
        end: ``(N, n)`` of the ends.
        radius_begin: ``(N,)`` radii there.
        radius_end: ``(N,)``.
    """

    begin: Float[ndarray, " k n"]
    end: Float[ndarray, " k n"]
    radius_begin: Float[ndarray, " k"]
    radius_end: Float[ndarray, " k"]

    @classmethod
    def along(cls, line: Float[ndarray, " m n"], radius: Float[ndarray, " m"]) -> Tubes:
        """One tube along a line of points."""
        return cls(line[:-1], line[1:], radius[:-1], radius[1:])

    @classmethod
    def joined(cls, parts: Sequence[Tubes]) -> Tubes:
        """Several sets of segments as one."""
        fields = ("begin", "end", "radius_begin", "radius_end")
        return cls(*(np.concatenate([getattr(p, f) for p in parts]) for f in fields))

    def where(self, chosen: Bool[ndarray, " k"]) -> Tubes:
        """Only the chosen segments."""
        return Tubes(
            self.begin[chosen],
            self.end[chosen],
            self.radius_begin[chosen],
            self.radius_end[chosen],
        )

    def balls(self, overlap: float = 0.4) -> tuple[Float[ndarray, " m n"], Float[ndarray, " m"]]:
        """Centres and radii of balls along the segments, ``overlap`` radii apart."""
        length = np.linalg.norm(self.end - self.begin, axis=1)
        thinner = np.minimum(self.radius_begin, self.radius_end)
        count = np.maximum(np.ceil(length / (overlap * thinner)), 1).astype(int)
        owner = np.repeat(np.arange(len(count)), count)
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        t = (place / count[owner])[:, None]
        centres = self.begin[owner] * (1 - t) + self.end[owner] * t
        radii = self.radius_begin[owner] * (1 - t[:, 0]) + self.radius_end[owner] * t[:, 0]
        return centres, radii


def fine_depth(
    tubes: Tubes, shape: Sequence[int], spacing: Sequence[float], samples: int = 3
) -> Float[ndarray, " *f"]:
    """Half the chord through the tubes at sub-voxel points; 0 outside of them.

    ``block_mean`` of it is the mean depth a voxel, and ``block_mean`` of where it
    is positive the share of the voxel that is covered.

    Args:
        tubes: Segments in physical coordinates.
        shape: Voxels along each axis.
        spacing: Voxel size along each axis.
        samples: Sub-voxel samples along each axis.

    Returns:
        Depth in physical units on a grid ``samples`` times as fine.
    """
    fine_shape = tuple(s * samples for s in shape)
    fine_spacing = np.array(spacing) / samples
    depth = np.zeros(fine_shape, dtype=np.float32)
    centres, radii = tubes.balls()
    place = ((centres + np.array(spacing) / 2) / fine_spacing - 0.5).astype(np.float32)
    # Balls of similar size share one stencil.
    sizes = np.ceil(radii / fine_spacing.min()).astype(int)
    for size in np.unique(sizes):
        near = place[sizes == size]
        half = np.ceil(size * fine_spacing.min() / fine_spacing).astype(int)
        squared: Any = (radii[sizes == size] ** 2).astype(np.float32)[(...,) + (None,) * len(half)]
        flat: Any = 0
        inside: Any = True
        for axis, h in enumerate(half):
            along = [1] * len(half)
            along[axis] = -1
            voxels = np.rint(near[:, axis]).astype(np.int64)[:, None] + np.arange(-h, h + 1)
            away = ((voxels - near[:, axis, None]) * fine_spacing[axis].astype(np.float32)) ** 2
            within = (voxels >= 0) & (voxels < fine_shape[axis])
            squared = squared - away.reshape(len(near), *along)
            flat = flat * fine_shape[axis] + voxels.reshape(len(near), *along)
            inside = inside & within.reshape(len(near), *along)
        inside = inside & (squared > 0)
        np.maximum.at(depth.reshape(-1), flat[inside], np.sqrt(squared[inside]))
    return depth


def share_of(depth: Float[ndarray, " *f"], samples: int = 3) -> Float[ndarray, " *s"]:
    """Share of each voxel that lies in a tube, from its fine depth, in [0, 1]."""
    return block_mean((depth > 0).astype(np.float32), samples)


@dataclass(frozen=True)
class Habit:
    """How a vessel tree grows.

    Args:
        step: Length of a segment.
        wander: Random change of heading a step, in radians.
        branching: Probability to bifurcate in one step.
        angle: Mean angle between a daughter and its mother, in radians.
        taper: Factor of the radius a step.
        thinnest: Radius at which a vessel ends.
    """

    step: float
    wander: float
    branching: float
    angle: float
    taper: float
    thinnest: float


def unit(vectors: Float[ndarray, " *k n"]) -> Float[ndarray, " *k n"]:
    """Vectors of length one along the last axis."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def across(heading: Float[ndarray, " k n"], rng: Generator) -> Float[ndarray, " k n"]:
    """Random unit vectors perpendicular to each heading."""
    free = rng.standard_normal(heading.shape)
    return unit(free - (free * heading).sum(-1, keepdims=True) * heading)


def grow(
    rng: Generator,
    roots: Float[ndarray, " k n"],
    heading: Float[ndarray, " k n"],
    radius: Float[ndarray, " k"],
    habit: Habit,
    pull: Callable[[Float[ndarray, " t n"], Float[ndarray, " t"]], Float[ndarray, " t n"]],
    inside: Callable[[Float[ndarray, " t n"]], ndarray],
    steps: int = 400,
) -> tuple[Tubes, ndarray]:
    """Grow vessel trees from their roots, all tips at once.

    A bifurcation keeps the sum of the cubed radii (Murray's law); the thinner
    daughter turns away more.

    Args:
        rng: Source of randomness.
        roots: Beginnings.
        heading: Unit vectors.
        radius: Radii at the roots.
        habit: How the trees grow.
        pull: Change of heading a step, from the positions and radii of the tips.
        inside: Whether a tip is still in the organ.
        steps: At most so many segments from root to tip.

    Returns:
        The segments, and for each the number of its root.
    """
    place, width = roots.astype(float), radius.astype(float)
    tree = np.arange(len(roots))
    parts, owners = [], []
    for _ in range(steps):
        alive = (width >= habit.thinnest) & inside(place)
        place, heading, width, tree = place[alive], heading[alive], width[alive], tree[alive]
        if not len(place):
            break
        kick = habit.wander * rng.standard_normal((len(place), 1)) * across(heading, rng)
        heading = unit(heading + kick + pull(place, width))
        ahead = place + habit.step * heading
        parts.append(Tubes(place, ahead, width, width * habit.taper))
        owners.append(tree)
        place, width = ahead, width * habit.taper
        fork = rng.random(len(place)) < habit.branching
        share = rng.uniform(0.08, 0.45, (int(fork.sum()), 1))
        aside = across(heading[fork], rng) * habit.angle * rng.uniform(0.7, 1.3, share.shape)
        thin = unit(heading[fork] + aside)
        thick = unit(heading[fork] - aside * share)
        branch = width[fork] * share[:, 0] ** (1 / 3)
        heading[fork], width[fork] = thick, width[fork] * (1 - share[:, 0]) ** (1 / 3)
        place = np.concatenate([place, place[fork]])
        heading = np.concatenate([heading, thin])
        width = np.concatenate([width, branch])
        tree = np.concatenate([tree, tree[fork]])
    return Tubes.joined(parts), np.concatenate(owners)
