"""Augmentation: what is drawn on an image moves with it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.ndimage import affine_transform

from finemask.pairs.augmentation import (
    draw_flips,
    draw_intensity,
    draw_warp,
    hardened,
    rescale,
    turned_by,
    warped,
)
from finemask.preparation import block_mean
from finemask.recipe import PairSettings

ON = PairSettings(warp_probability=1.0, rotation_deg=25.0, zoom=0.2)


def reference(maps: np.ndarray, matrix: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """scipy's interpolation of the same window."""
    middle_in = (np.array(maps.shape[1:]) - 1) / 2
    shift = middle_in - matrix @ ((np.array(size) - 1) / 2)
    return np.stack(
        [affine_transform(m, matrix, shift, size, order=1, mode="nearest") for m in maps]
    )


@pytest.mark.parametrize(
    ("spacing", "size"),
    [
        ((1.0, 1.0), (14, 11)),
        ((0.7, 1.9), (14, 11)),
        ((3.0, 1.0, 1.0), (5, 12, 9)),
        ((1.0, 2.5, 1.0), (8, 6, 9)),
        ((1.0, 1.0, 4.0), (8, 9, 6)),
        ((1.0, 1.0, 1.0), (7, 8, 9)),
    ],
)
def test_warp_is_linear_interpolation(spacing: tuple[float, ...], size: tuple[int, ...]) -> None:
    warp = turned_by(0.35, 1.13, spacing)
    margin = warp.margin(size)
    source = tuple(s + 2 * m for s, m in zip(size, margin, strict=True))
    maps = np.random.default_rng(0).random((3, *source), np.float32)
    found = warped(maps, warp, size)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(maps, warp.matrix, size), atol=1e-4)


def test_margin_is_all_that_a_warp_reaches() -> None:
    for spacing in ((1.0, 1.0), (0.6, 1.4), (2.0, 1.0, 1.0)):
        warp, size = turned_by(-0.4, 0.8, spacing), (12,) * len(spacing)
        margin = warp.margin(size)
        source = np.ones([s + 2 * m for s, m in zip(size, margin, strict=True)], np.float32)
        framed = np.pad(source, 3, constant_values=9.0)[None]
        assert warped(framed, warp, size).max() == 1


def test_rotation_is_true_to_millimetres() -> None:
    warp = turned_by(math.radians(30), 1.0, (3.0, 1.0, 0.5))
    assert warp.through == 0
    steps = np.diag([3.0, 1.0, 0.5])
    turn = steps @ warp.matrix @ np.linalg.inv(steps)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    assert math.degrees(math.acos(turn[1, 1])) == pytest.approx(30)


def test_lr_window_moves_like_its_hr_window() -> None:
    """A ramp has the same values whether it is coarsened before or after it is moved."""
    warp, scale, size = turned_by(0.3, 1.1, (1.0, 2.0, 1.0)), (2, 1, 4), (16, 10, 24)
    index = np.stack(np.meshgrid(*map(np.arange, (32, 30, 48)), indexing="ij")).astype(np.float32)
    one = block_mean(warped(index, warp, size), scale)
    lr_size = tuple(s // f for s, f in zip(size, scale, strict=True))
    two = warped(block_mean(index, scale), warp.coarsened(scale), lr_size)
    np.testing.assert_allclose(one, two, atol=1e-3)


def test_no_turn_and_no_zoom_is_the_middle() -> None:
    maps = np.random.default_rng(0).random((2, 8, 9, 10), np.float32)
    warp = turned_by(0.0, 1.0, (1.0, 1.0, 1.0))
    np.testing.assert_allclose(warped(maps, warp, (4, 5, 6)), maps[:, 2:6, 2:7, 2:8], atol=1e-5)


def test_classes_stay_whole_numbers_and_exclusive() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (40, 40))
    maps = np.stack([labels == k for k in (1, 2, 3)]).astype(np.float32)
    found = hardened(warped(maps, turned_by(0.5, 1.2, (1.0, 1.0)), (20, 20)))
    assert set(np.unique(found)) == {0, 1}
    assert found.sum(0).max() == 1


def test_hardened_picks_the_likeliest_of_all_classes() -> None:
    maps = np.array([[0.4, 0.3, 0.2], [0.45, 0.3, 0.2]], np.float32)
    assert hardened(maps).tolist() == [[0, 0, 0], [1, 0, 0]]
    crisp = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], np.float32)
    np.testing.assert_array_equal(hardened(crisp), crisp)


def test_draws_stay_in_their_ranges_and_repeat() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        warp = draw_warp(rng, ON, (1.0, 1.0))
        zoom = 1 / math.sqrt(np.linalg.det(warp.matrix))
        assert 0.8 <= zoom <= 1.2
        assert abs(math.atan2(warp.matrix[1, 0], warp.matrix[0, 0])) <= math.radians(25)
        contrast, brightness = draw_intensity(rng, PairSettings(intensity=0.1))
        assert 0.9 <= contrast <= 1.1
        assert -0.1 <= brightness <= 0.1
    one, two = (draw_warp(np.random.default_rng(5), ON, (1.0, 1.0)).matrix for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_what_is_switched_off_is_off() -> None:
    rng = np.random.default_rng(0)
    off = PairSettings(flip=False, rotation_deg=0.0, zoom=0.0, intensity=0.0)
    for _ in range(20):
        assert draw_warp(rng, off, (1.0, 1.0)) is None
        assert draw_warp(rng, PairSettings(warp_probability=0.0), (1.0, 1.0)) is None
        assert draw_flips(rng, off, 3) == ()
        assert draw_intensity(rng, off) == (1, 0)
    shares = np.zeros(3)
    for _ in range(400):
        shares[list(draw_flips(rng, PairSettings(), 3))] += 1 / 400
    np.testing.assert_allclose(shares, 0.5, atol=0.1)


def test_rescale_is_per_channel() -> None:
    image = np.ones((2, 2, 2), np.float32)
    rescale(image, np.array([2.0, 3.0]), np.array([0.0, 1.0]))
    assert image[:, 0, 0].tolist() == [2, 4]
