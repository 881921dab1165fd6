"""Shapes cover each voxel by the right share."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finemask.datasets.phantoms.shapes import (
    blob,
    block_mean,
    points_of,
    rasterise,
    rotation,
    waves,
)


def ball(radius: float, centre: np.ndarray):
    return lambda points: radius - np.linalg.norm(points - centre, axis=-1)


@settings(max_examples=20, deadline=None)
@given(st.floats(2.0, 9.0), st.floats(-0.5, 0.5), st.floats(-0.5, 0.5))
def test_area_of_a_disc_is_right_at_any_sub_pixel_place(r: float, dy: float, dx: float) -> None:
    spacing = (1.0, 0.5)
    points = points_of((24, 48), spacing)
    _, share = rasterise(ball(r, np.array([11.5 + dy, 11.75 + dx])), points, spacing, samples=6)
    assert share.sum() * 0.5 == pytest.approx(np.pi * r**2, rel=0.01)


def test_volume_of_a_ball_on_anisotropic_voxels() -> None:
    spacing = (1.25, 0.7, 0.7)
    points = points_of((16, 24, 24), spacing)
    _, share = rasterise(ball(5.3, np.array([9.1, 8.0, 8.2])), points, spacing)
    volume = share.sum() * np.prod(spacing)
    assert volume == pytest.approx(4 / 3 * np.pi * 5.3**3, rel=0.01)


@pytest.mark.parametrize("spikes", [0, 9])
def test_super_sampling_the_border_equals_super_sampling_everything(spikes: int) -> None:
    rng = np.random.default_rng(5)
    lesion = blob(rng, np.array([20.2, 19.7]), 9.0, rotation(rng, 2), 0.15, spikes)
    _, share = rasterise(lesion, points_of((40, 40), (1.0, 1.0)), (1.0, 1.0), samples=4)
    fine = lesion(points_of((160, 160), (0.25, 0.25)) - 0.375) > 0
    np.testing.assert_allclose(share, block_mean(fine.astype(float), 4), atol=1e-6)
    assert ((share > 0) & (share < 1)).any()


def test_the_same_anatomy_on_a_finer_grid_has_the_same_block_means() -> None:
    lesion = blob(np.random.default_rng(6), np.array([15.0, 16.0]), 8.0, np.eye(2))
    _, coarse = rasterise(lesion, points_of((32, 32), (1.0, 1.0)), (1.0, 1.0), samples=8)
    points = points_of((64, 64), (0.5, 0.5)) - 0.25
    _, fine = rasterise(lesion, points, (0.5, 0.5), samples=4)
    np.testing.assert_allclose(block_mean(fine, 2), coarse, atol=1e-6)


def test_blob_volume_follows_its_radius_not_its_axes() -> None:
    points = points_of((80, 80), (1.0, 1.0))
    areas = [
        rasterise(
            blob(np.random.default_rng(7), np.array([40.0, 40.0]), r, np.diag(axes), 0.0),
            points,
            (1.0, 1.0),
        )[1].sum()
        for r, axes in ((10.0, (1.0, 1.0)), (10.0, (3.0, 1.5)), (20.0, (0.8, 1.0)))
    ]
    np.testing.assert_allclose(areas, [314.2, 314.2, 1256.6], rtol=0.01)


def test_waves_have_unit_deviation_and_are_smooth() -> None:
    rng = np.random.default_rng(8)
    points = rng.uniform(0, 1000, (2000, 3))
    fields = [waves(rng, 3, wavelength=10.0, octaves=2) for _ in range(20)]
    assert np.mean([f(points).std() for f in fields]) == pytest.approx(1.0, abs=0.05)
    assert max(np.abs(f(points + 0.05) - f(points)).max() for f in fields) < 0.6
