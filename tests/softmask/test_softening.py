"""Soft Masks from masks, readers and marks: grids, votes, baselines."""

from __future__ import annotations

import numpy as np
import pytest

from finemask.datasets.phantoms import make_phantom
from finemask.geometry import Geometry
from finemask.metrics import dice
from finemask.preparation import block_mean, to_grid
from finemask.softmask.baselines import dilation_ring, resampled
from finemask.softmask.grids import finer, finer_mask, neighbourhood, to_unit
from finemask.softmask.recist import Mark, ellipse
from finemask.softmask.softening import (
    Softened,
    Softening,
    cut_zoom,
    soften_mark,
    soften_mask,
    soften_readers,
)


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, mask and four readers of an ultrasound phantom."""
    case = make_phantom("ultrasound", 3, seed=2, size=64).case
    return case.image, case.truth == 1, case.readers == 1


@pytest.mark.parametrize("scale", [(1,), (3,), (1, 2)])
def test_a_mask_becomes_soft_on_a_grid_of_the_same_extent(scene, scale) -> None:
    image, mask, _ = scene
    made = soften_mask(image, mask, Softening(scale=scale))
    factors = scale * 2 if len(scale) == 1 else scale
    assert made.soft.shape == tuple(64 * f for f in factors)
    assert made.soft.dtype == np.float32
    assert 0 <= made.soft.min() <= made.soft.max() <= 1
    assert (made.soft[made.trimap != 0.5] == made.trimap[made.trimap != 0.5]).all()
    assert dice(block_mean(made.hard, factors) >= 0.5, mask) > 0.7
    assert made.flags == ()


def test_nothing_is_soft_about_an_empty_mask(scene) -> None:
    made = soften_mask(scene[0], np.zeros((64, 64), bool))
    assert not made.soft.any()
    assert not made.hard.any()
    assert made.flags == ("empty",)


def test_a_full_mask_and_a_constant_image_are_defined() -> None:
    image, mask = np.full((1, 24, 24), 3.0), np.zeros((24, 24), bool)
    mask[8:16, 8:16] = True
    for drawn in (mask, ~(mask & False)):
        made = soften_mask(image, drawn)
        assert np.isfinite(made.soft).all()
        assert made.hard[12, 12]


@pytest.mark.fault("F93")
def test_readers_are_counted_and_the_empty_one_votes(scene) -> None:
    image, _, readers = scene
    three = np.concatenate([readers[:3], np.zeros((1, 64, 64), bool)])
    made = soften_readers(image, three)
    assert (made.reference == (three.sum(0) >= 2)).all()
    assert made.flags == ("empty_readers", "no_common_core")
    share = soften_readers(image, three, Softening("mean"))
    np.testing.assert_allclose(share.soft, three.mean(0), atol=1e-6)
    assert share.trimap is None
    assert (share.hard == (three.mean(0) >= 0.5)).all()


@pytest.mark.fault("F93")
def test_two_of_four_are_a_consensus_and_one_is_none(scene) -> None:
    image, mask, _ = scene
    votes = np.stack([mask, mask, mask & False, mask & False])
    assert (soften_readers(image, votes).reference == mask).all()
    one = soften_readers(image, np.stack([mask, *votes[2:], votes[3]]))
    assert not one.reference.any()
    assert not one.hard.any()
    assert "no_consensus" in one.flags


def test_readers_who_drew_the_same_are_told(scene) -> None:
    image, _, readers = scene
    made = soften_readers(image, np.stack([readers[0], readers[0], readers[1]]))
    assert "identical_readers" in made.flags
    # Two empty masks are two votes, not a copy.
    nobody = np.zeros_like(readers[:2])
    assert soften_readers(image, np.concatenate([readers[:1], nobody])).flags[0] == "empty_readers"


def test_3d_readers_on_thick_slices() -> None:
    case = make_phantom("nodules", 1, seed=2, size=(16, 32, 32)).case
    made = soften_readers(case.image, case.readers == 1, Softening(scale=(1, 2, 2)),
                          case.geometry.spacing)  # fmt: skip
    assert made.soft.shape == (16, 64, 64)
    assert dice(made.hard, made.reference) > 0.6
    assert ((made.soft > 0) & (made.soft < 1)).any()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_a_mark_is_worked_on_round_its_axes(scale: int) -> None:
    phantom = make_phantom("skin", 2, seed=4, size=128)
    row = phantom.recist[0]
    mark = Mark.from_xy(
        row.long_x1, row.long_y1, row.long_x2, row.long_y2,
        row.short_x1, row.short_y1, row.short_x2, row.short_y2,
    )  # fmt: skip
    part, made = soften_mark(phantom.case.image, mark, Softening(scale=(scale,)))
    truth = finer_mask(phantom.case.truth[part] == 1, (scale, scale))
    assert made.soft.shape == made.trimap.shape == truth.shape
    assert set(np.unique(made.trimap)) <= {0.0, 0.5, 1.0}
    assert dice(made.hard, truth) > 0.85
    moved = mark.on_grid([s.start for s in part], scale)
    assert (made.reference == ellipse(moved, truth.shape)).all()


def test_a_lesion_of_one_pixel_is_worked_on_finer_and_stays() -> None:
    image = np.zeros((1, 32, 32), np.float32)
    image[0, 16, 16] = 100
    mark = Mark.from_xy(15.6, 16, 16.4, 16, 16, 15.65, 16, 16.35)
    part, made = soften_mark(image, mark)
    assert made.hard.sum() >= 1
    assert made.hard[16 - part[0].start, 16 - part[1].start]
    assert cut_zoom(0.8) == 4


@pytest.mark.parametrize("method", ["dilation", "resampling"])
def test_baselines_of_a_mark_do_without_a_trimap(method) -> None:
    image = np.zeros((1, 40, 40), np.float32)
    image[0, 14:26, 12:28] = 1
    mark = Mark.from_xy(12, 20, 27, 20, 20, 14, 20, 25)
    _, made = soften_mark(image, mark, Softening(method, scale=(2,)))
    assert made.trimap is None
    assert dice(made.hard, made.reference) > 0.8  # the ring is not part of the mask
    assert ((made.soft > 0) & (made.soft < 1)).any()


def test_the_surest_voxel_of_a_faint_lesion_is_kept() -> None:
    soft = np.zeros((4, 4), np.float32)
    soft[1, 2] = 0.3
    assert Softened(soft, None, soft > 0).hard.sum() == 1
    assert not Softened(soft, None, soft > 1).hard.any()  # nobody says that there is one


def test_scales_that_do_not_fit_are_refused(scene) -> None:
    image, mask, _ = scene
    with pytest.raises(ValueError, match="does not fit 2 axes"):
        soften_mask(image, mask, Softening(scale=(1, 2, 2)))
    with pytest.raises(ValueError, match="at one scale"):
        soften_mark(image, Mark.from_xy(10, 20, 40, 20, 24, 12, 24, 30), Softening(scale=(1, 2)))
    with pytest.raises(ValueError, match="several readers"):
        soften_mask(image, mask, Softening("mean"))


def test_a_finer_grid_shares_the_extent_of_the_image() -> None:
    """The half-pixel shift of super-resolution: linear interpolation as `to_grid` does it."""
    image = np.random.default_rng(0).random((2, 6, 5)).astype(np.float32)
    grid = Geometry.regular((6, 5))
    expected = to_grid(image, grid, grid.refined((2, 4)))
    np.testing.assert_allclose(finer(image, (2, 4), order=1), expected, atol=1e-6)
    assert finer(image, (1, 1)) is image
    cubic = finer(image, (3, 3))
    assert image.min() <= cubic.min() <= cubic.max() <= image.max()


def test_cubic_interpolation_is_exact_for_parabolas() -> None:
    """Keys's kernel: third order, and the old values where a voxel is split into three."""
    x = np.arange(12.0)
    curve = (x - 4) ** 2
    places = (np.arange(36) + 0.5) / 3 - 0.5
    fine = finer(curve, (3,))
    np.testing.assert_allclose(fine[6:-6], ((places - 4) ** 2)[6:-6], atol=1e-4)
    np.testing.assert_allclose(fine[1::3], curve, atol=1e-5)
    assert finer(np.full((3, 4, 5), 7.0), (2, 3, 2)).tolist() == np.full((6, 12, 10), 7.0).tolist()


def test_a_finer_outline_is_smooth_and_in_place() -> None:
    mask = np.zeros((5, 5), bool)
    mask[1:4, 1:4] = True
    fine = finer_mask(mask, (4, 4))
    assert fine[4:16, 10].sum() == 12
    assert not fine[4, 4]  # a corner is rounded
    assert fine[::-1, ::-1].T.tolist() == fine.tolist()


def test_intensities_are_scaled_by_what_is_round_the_lesions() -> None:
    image = np.zeros((1, 40, 40))
    image[0, 10:16, 10:16] = 10
    image[0, 30:, 30:] = 5000  # far away
    near = neighbourhood(image[0] == 10)
    assert near.sum() == 16 * 16
    unit = to_unit(image, near=near)
    assert unit[0, 12, 12] == 1
    assert to_unit(image)[0, 12, 12] < 0.01
    assert neighbourhood(np.zeros((3, 3), bool)).all()
    assert (to_unit(np.full((1, 4, 4), 9.0)) == 0).all()


def test_the_ring_is_as_wide_in_space_along_every_axis() -> None:
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    ring = dilation_ring(mask, 3.0, (3.0, 1.0, 1.0))
    assert np.flatnonzero(ring[:, 4, 4] == 0.5).tolist() == [3, 5]
    assert np.flatnonzero(ring[4, 4] == 0.5).tolist() == [1, 2, 3, 5, 6, 7]
    assert not dilation_ring(mask & False, 3.0).any()


def test_resampling_keeps_the_mass_and_needs_no_even_size() -> None:
    mask = np.zeros((16, 16), bool)
    mask[4:10, 6:12] = True
    assert resampled(mask, (1, 1)).sum() == pytest.approx(mask.sum(), rel=1e-5)
    assert resampled(mask, (2, 2)).sum() == pytest.approx(4 * mask.sum(), rel=1e-5)
    assert resampled(np.ones((5, 7), bool), (2, 1)).tolist() == np.ones((10, 7)).tolist()
