"""Simulated readers disagree about as much as real ones; RECIST marks fit the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finemask.datasets.phantoms.readers import (
    READERS,
    Reader,
    border_points,
    diameters,
    measure_recist,
    read_outlines,
    signed_distance,
)
from finemask.datasets.phantoms.scene import Scene
from finemask.datasets.phantoms.shapes import blob, points_of, rasterise, rotation
from finemask.geometry import Geometry

PX = np.array([1.0, 1.0])


def scene_of(coverage: np.ndarray, spacing: tuple[float, ...] | None = None) -> Scene:
    return Scene(
        image=coverage[None].astype(np.float32),
        coverage=coverage.astype(np.float32),
        lesions=(coverage >= 0.5).astype(np.uint8),
        geometry=Geometry.regular(coverage.shape, spacing),
    )


def ellipse(shape, centre, semi_axes, angle, spacing=(1.0, 1.0)) -> np.ndarray:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def level(points):
        return 1 - np.linalg.norm((points - np.array(centre)) @ turn / semi_axes, axis=-1)

    scaled = min(semi_axes)
    return rasterise(lambda p: scaled * level(p), points_of(shape, spacing), spacing, 8)[1]


@settings(max_examples=25, deadline=None)
@given(st.floats(8, 25), st.floats(0.4, 0.9), st.floats(0, np.pi))
def test_diameters_of_an_ellipse(long: float, flatness: float, angle: float) -> None:
    cover = ellipse((64, 64), (31.3, 31.8), (long, long * flatness), angle)
    first, second = diameters(cover, PX)
    assert np.linalg.norm(first[1] - first[0]) == pytest.approx(2 * long, abs=0.5)
    assert np.linalg.norm(second[1] - second[0]) == pytest.approx(2 * long * flatness, abs=0.7)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(2.5, 14), st.integers(0, 8))
def test_marks_lie_on_the_border_and_cross_at_a_right_angle(seed, radius, spikes) -> None:
    rng = np.random.default_rng(seed)
    spacing = np.array([1.0, 0.8])
    lesion = blob(rng, np.array([25.0, 20.0]), radius, rotation(rng, 2), 0.12, spikes)
    cover = rasterise(lesion, points_of((52, 52), spacing), spacing)[1]
    long, short = (axis * spacing for axis in diameters(cover, spacing))
    border = border_points(cover) * spacing
    for end in (*long, *short):
        assert np.linalg.norm(border - end, axis=1).min() < 0.8
    along, aside = long[1] - long[0], short[1] - short[0]
    assert np.linalg.norm(aside) <= np.linalg.norm(along)
    assert abs(along @ aside) < 1e-6 * np.linalg.norm(along) * np.linalg.norm(aside)


def test_one_pixel_has_diameters_of_one_pixel() -> None:
    cover = np.zeros((5, 5))
    cover[2, 3] = 1
    for axis in diameters(cover, PX):
        assert np.linalg.norm(axis[1] - axis[0]) == pytest.approx(1.0)
        np.testing.assert_allclose(axis.mean(axis=0), [2, 3])


def test_recist_is_in_pixels_with_diameters_in_mm() -> None:
    cover = np.zeros((7, 20, 30))
    cover[3, 5:8, 10:20] = 1
    cover[4, 5:8, 10:14] = 1
    (mark,) = measure_recist(scene_of(cover, (2.0, 0.5, 0.5)), "a")
    assert (mark.slice, mark.unit, mark.lesion) == (3, "mm", 1)
    assert {mark.long_x1, mark.long_x2} == {9.5, 19.5}
    assert mark.long_diameter == pytest.approx(0.5 * np.hypot(10, 2), abs=0.01)
    assert mark.short_diameter <= 0.5 * 3.3
    assert mark.spacing_x == 0.5


def test_each_lesion_is_measured_apart() -> None:
    cover = np.zeros((30, 30))
    cover[3:9, 3:7] = 1
    cover[15:18, 10:25] = 1
    scene = scene_of(cover)
    lesions = scene.lesions.copy()
    lesions[15:18] *= 2
    marks = measure_recist(Scene(scene.image, scene.coverage, lesions, scene.geometry), "a")
    assert [m.lesion for m in marks] == [1, 2]
    assert marks[0].long_diameter < 8 < marks[1].long_diameter


def test_an_unbiased_steady_reader_draws_the_truth() -> None:
    scene = scene_of(ellipse((64, 64), (30, 31), (15, 9), 0.4))
    (mask,) = read_outlines(scene, np.random.default_rng(0), (Reader(0.0, 0.0, 0.0),))
    np.testing.assert_array_equal(mask, scene.truth)


def test_bias_grows_and_shrinks_the_outline() -> None:
    scene = scene_of(ellipse((64, 64), (30, 31), (15, 9), 0.4))
    habits = tuple(Reader(b, 0.0, 0.0) for b in (-1.5, 0.0, 1.5))
    tight, exact, wide = (m.sum() for m in read_outlines(scene, np.random.default_rng(0), habits))
    assert tight < exact < wide


def test_small_lesions_are_missed_more_often_and_leave_an_empty_vote() -> None:
    habit = (Reader(0.0, 0.5, 0.5),) * 60
    rng = np.random.default_rng(3)
    missed = [
        sum(not mask.any() for mask in read_outlines(scene_of(cover), rng, habit))
        for cover in (
            ellipse((64, 64), (32, 32), (2.5, 2.5), 0.0),
            ellipse((64, 64), (32, 32), (22.0, 20.0), 0.0),
        )
    ]
    assert missed[0] > 2 * missed[1] > 0


def test_the_default_readers_differ() -> None:
    scene = scene_of(ellipse((64, 64), (30, 31), (15, 9), 0.4))
    masks = read_outlines(scene, np.random.default_rng(1))
    assert len({mask.tobytes() for mask in masks}) == len(READERS)


def test_signed_distance_of_a_full_mask_measures_to_the_edge() -> None:
    assert signed_distance(np.ones((5, 5), bool), PX).max() == 2.5
