"""Tubes fill the right voxels and vessel trees obey Murray's law."""

from __future__ import annotations

import numpy as np
import pytest

from finemask.datasets.phantoms.shapes import block_mean
from finemask.datasets.phantoms.trees import Habit, Tubes, across, fine_depth, grow, share_of


def straight(radius: float, row: float = 20.0) -> Tubes:
    line = np.stack([np.full(2, row), np.array([-10.0, 70.0])], axis=1)
    return Tubes.along(line, np.full(2, radius))


@pytest.mark.parametrize("radius", [0.6, 1.3, 4.0])
@pytest.mark.parametrize("row", [20.0, 20.37])
def test_a_straight_vessel_covers_its_width(radius: float, row: float) -> None:
    share = share_of(fine_depth(straight(radius, row), (40, 40), (1.0, 1.0), samples=6), 6)
    column = share[:, 10:30].mean(axis=1)
    assert column.sum() == pytest.approx(2 * radius, abs=0.2)
    assert column @ np.arange(40) / column.sum() == pytest.approx(row, abs=0.1)


def test_depth_is_half_the_chord() -> None:
    depth = block_mean(fine_depth(straight(4.0), (41, 40), (1.0, 1.0)), 3)
    assert depth[20, 20] == pytest.approx(4.0, abs=0.1)
    assert depth[23, 20] == pytest.approx(np.sqrt(16 - 9), abs=0.15)
    assert depth[26, 20] == 0


def test_a_tube_in_space_has_its_volume() -> None:
    spacing = (1.25, 0.7, 0.7)
    tube = Tubes.along(np.array([[5.0, 10.0, 10.0], [30.0, 22.0, 16.0]]), np.array([2.0, 2.0]))
    share = share_of(fine_depth(tube, (30, 46, 40), spacing, samples=3), 3)
    length = np.linalg.norm([25, 12, 6])
    volume = np.pi * 4 * length + 4 / 3 * np.pi * 8
    assert share.sum() * np.prod(spacing) == pytest.approx(volume, rel=0.04)


def test_tubes_outside_of_the_grid_leave_it_empty() -> None:
    assert not fine_depth(straight(2.0, row=-30.0), (20, 20), (1.0, 1.0)).any()


def test_headings_are_perpendicular_units() -> None:
    rng = np.random.default_rng(0)
    heading = np.array([[1.0, 0.0, 0.0], [0.0, 0.6, 0.8]])
    aside = across(heading, rng)
    np.testing.assert_allclose((aside * heading).sum(1), 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(aside, axis=1), 1)


def test_daughters_keep_the_sum_of_cubed_radii() -> None:
    habit = Habit(step=1.0, wander=0.0, branching=1.0, angle=0.6, taper=1.0, thinnest=0.1)
    tubes, tree = grow(
        np.random.default_rng(1),
        roots=np.zeros((2, 2)),
        heading=np.array([[1.0, 0.0], [0.0, 1.0]]),
        radius=np.array([3.0, 2.0]),
        habit=habit,
        pull=lambda place, width: np.zeros_like(place),
        inside=lambda place: np.ones(len(place), dtype=bool),
        steps=4,
    )
    generations = np.split(tubes.radius_begin**3, np.cumsum([2, 4, 8]))
    assert [len(g) for g in generations] == [2, 4, 8, 16]
    np.testing.assert_allclose([g.sum() for g in generations], 27 + 8)
    assert np.bincount(tree).tolist() == [15, 15]


def test_growth_ends_at_the_thinnest_vessel_and_at_the_organ() -> None:
    habit = Habit(step=1.0, wander=0.0, branching=0.0, angle=0.6, taper=0.9, thinnest=1.0)
    tubes, _ = grow(
        np.random.default_rng(2),
        roots=np.zeros((1, 2)),
        heading=np.array([[0.0, 1.0]]),
        radius=np.array([2.0]),
        habit=habit,
        pull=lambda place, width: np.zeros_like(place),
        inside=lambda place: place[:, 1] < 3.5,
    )
    assert tubes.end[-1].tolist() == [0.0, 4.0]
    assert (tubes.radius_begin >= 1.0).all()
