"""Preparing: intensities become comparable, and no voxel moves in the patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from finemask import preparation as module
from finemask.case import Case
from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.intensities import normalisation, normalised
from finemask.preparation import block_mean, for_lr, prepare, to_grid
from finemask.recipe import PrepareSettings

RAW = PrepareSettings(orient=False, normalise="none")


@st.composite
def grids(draw: st.DrawFn, ndim: int | None = None, least: int = 1) -> Geometry:
    """Oblique, flipped, anisotropic grids near the origin of the world."""
    n = ndim or draw(st.sampled_from([2, 3]))
    affine = np.eye(n + 1)
    turn = Rotation.from_euler("zyx", draw(st.tuples(*[st.floats(-3.1, 3.1)] * 3))).as_matrix()
    if n == 2:
        turn = Rotation.from_euler("z", draw(st.floats(-3.1, 3.1))).as_matrix()[:2, :2]
    signs = draw(st.tuples(*[st.sampled_from([-1.0, 1.0])] * n))
    spacing = draw(st.tuples(*[st.floats(0.4, 4.0)] * n))
    affine[:n, :n] = turn * np.array(signs) * np.array(spacing)
    affine[:n, n] = draw(st.tuples(*[st.floats(-5.0, 5.0)] * n))
    return Geometry.from_affine(draw(st.tuples(*[st.integers(least, 9)] * n)), affine)


def centres(geometry: Geometry) -> np.ndarray:
    """World coordinates of every voxel, coordinates first."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), -1)
    return np.moveaxis(geometry.to_world(index), -1, 0)


def inside(geometry: Geometry, world: np.ndarray, margin: float) -> np.ndarray:
    """Which points lie at least ``margin`` voxels within the outermost voxel centres."""
    index = np.moveaxis(geometry.to_index(np.moveaxis(world, 0, -1)), -1, 0)
    last = np.array(geometry.shape).reshape(-1, *(1,) * geometry.ndim) - 1
    return ((index >= margin) & (index <= last - margin)).all(0)


def case_on(geometry: Geometry, seed: int = 0, **others: object) -> Case:
    image = np.random.default_rng(seed).normal(40, 7, (2, *geometry.shape)).astype(np.float32)
    return Case("liver_7", image, geometry, source=Path("in/liver_7.nii.gz"), **others)


# An image whose value is its world coordinate shows every displacement directly, in mm.


@settings(deadline=None)
@given(grids(least=3), st.data())
def test_any_grid_reads_the_same_world(source: Geometry, data: st.DataObject) -> None:
    target = data.draw(grids(ndim=source.ndim))
    world = centres(target)
    steps = np.abs(np.linalg.inv(source.matrix) @ target.matrix).sum(1).max()
    known = inside(source, world, margin=steps / 2)
    found = to_grid(centres(source), source, target)
    assert np.abs(found - world)[:, known].max(initial=0) < 0.01 * min(source.spacing)


@settings(deadline=None)
@given(grids(), st.data())
def test_hr_and_back_loses_no_place(source: Geometry, data: st.DataObject) -> None:
    scale = data.draw(st.tuples(*[st.integers(1, 3)] * source.ndim))
    hr = source.refined(scale)
    back = to_grid(centres(hr), hr, source)
    assert np.abs(back - centres(source)).max() < 0.01 * min(source.spacing)


@settings(deadline=None)
@given(grids(least=2), st.data())
def test_refinement_interpolates_in_the_world(source: Geometry, data: st.DataObject) -> None:
    hr = source.refined(data.draw(st.tuples(*[st.integers(1, 3)] * source.ndim)))
    known = inside(source, centres(hr), margin=-1e-6)
    error = np.abs(to_grid(centres(source), source, hr) - centres(hr))[:, known]
    assert error.max() < 0.01 * min(source.spacing)


@settings(deadline=None)
@given(grids(), st.data())
def test_turning_is_lossless(source: Geometry, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(source.ndim)))
    axis = data.draw(st.integers(0, source.ndim - 1))
    array = np.random.default_rng(0).random((2, *source.shape), np.float32)
    target = source.permuted(order).flipped(axis)
    turned = to_grid(array, source, target)
    expected = np.flip(np.transpose(array, (0, *(1 + a for a in order))), 1 + axis)
    np.testing.assert_array_equal(turned, expected)
    np.testing.assert_array_equal(to_grid(turned, target, source), array)


@settings(deadline=None)
@given(grids(), st.data())
def test_windows_of_whole_voxels_are_exact(source: Geometry, data: st.DataObject) -> None:
    start = data.draw(st.tuples(*[st.integers(-4, 8)] * source.ndim))
    shape = data.draw(st.tuples(*[st.integers(1, 9)] * source.ndim))
    array = np.random.default_rng(0).random((1, *source.shape), np.float32) + 1
    padded = np.pad(array[0], 20)
    expected = padded[tuple(slice(b + 20, b + 20 + s) for b, s in zip(start, shape, strict=True))]
    found = to_grid(array, source, source.cropped(start, shape))
    np.testing.assert_array_equal(found[0], expected)


def test_same_grid_costs_nothing() -> None:
    grid = Geometry.regular((3, 4), spacing=(2.0, 2.0))
    array = np.ones((1, 3, 4), np.float32)
    assert to_grid(array, grid, grid) is array


@settings(deadline=None)
@given(grids(ndim=3), st.tuples(*[st.integers(1, 3)] * 3))
def test_coarsening_is_the_block_mean_in_any_orientation(
    coarse: Geometry, scale: tuple[int, int, int]
) -> None:
    fine = coarse.refined(scale)
    array = np.random.default_rng(0).random((1, *fine.shape), np.float32)
    blocks = [n for pair in zip(coarse.shape, scale, strict=True) for n in pair]
    expected = array.reshape(1, *blocks).mean((2, 4, 6))
    np.testing.assert_allclose(to_grid(array, fine, coarse), expected, atol=1e-6)
    turned = to_grid(array, fine, coarse.permuted((2, 0, 1)).flipped(1))
    np.testing.assert_allclose(turned, np.flip(expected.transpose(0, 3, 1, 2), 2), atol=1e-6)


def test_block_mean_of_ones_is_one() -> None:
    assert (block_mean(np.ones((7 * 3, 11)), (7, 11)) == 1).all()


def test_a_coarser_oblique_grid_averages_instead_of_picking() -> None:
    fine = Geometry.regular((64, 64), spacing=(1.0, 1.0))
    checkers = (np.indices((64, 64)).sum(0) % 2)[None].astype(np.float32)
    turn = Rotation.from_euler("z", 0.3).as_matrix()[:2, :2] * 6.0
    affine = np.eye(3)
    affine[:2, :2], affine[:2, 2] = turn, (30.0, 20.0)
    coarse = to_grid(checkers, fine, Geometry.from_affine((4, 4), affine))
    assert np.abs(coarse - 0.5).max() < 0.06


def test_outside_is_zero_and_the_edge_is_whole() -> None:
    source = Geometry.regular((4, 4), spacing=(1.0, 1.0))
    target = Geometry.regular((12, 12), spacing=(0.75, 0.75), origin=(-3.0, -3.0))
    full = to_grid(np.ones((1, 4, 4), np.float32), source, target)[0]
    world = centres(target)
    known = ((world > -0.5) & (world < 3.5)).all(0)
    np.testing.assert_array_equal(full, known)
    assert to_grid(np.ones((1, 4, 4)), source, target, outside=-7.0).min() == -7


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    source = Geometry.regular((9, 8, 7), spacing=(1.0, 1.1, 0.9))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zyx", (0.2, -0.1, 0.4)).as_matrix() * 1.7
    target = Geometry.from_affine((6, 5, 4), affine)
    array = rng.random((1, *source.shape), np.float32)
    whole = to_grid(array, source, target)
    monkeypatch.setattr(module, "SLAB_VOXELS", 1)
    np.testing.assert_allclose(to_grid(array, source, target), whole, atol=1e-6)


def test_grids_of_other_worlds_are_refused() -> None:
    millimetres = Geometry.regular((2, 2), spacing=(1.0, 1.0))
    with pytest.raises(ValueError, match="share a world"):
        to_grid(np.ones((1, 2, 2)), Geometry.regular((2, 2)), millimetres)
    with pytest.raises(ValueError, match="does not lie"):
        to_grid(np.ones((1, 3, 2)), millimetres, millimetres)


@settings(deadline=None)
@given(grids(ndim=3), st.sampled_from(["zscore", "minmax"]))
def test_prepared_voxels_stay_in_place(geometry: Geometry, normalise: str) -> None:
    case = Case("a", centres(geometry).astype(np.float32), geometry)
    prepared = prepare(case, PrepareSettings(normalise=normalise))
    offset, gain = normalisation(case.image, PrepareSettings(normalise=normalise))
    places = prepared.image / gain.reshape(3, 1, 1, 1) + offset.reshape(3, 1, 1, 1)
    np.testing.assert_allclose(places, centres(prepared.geometry), atol=1e-3)
    assert prepared.geometry.axes_to_canonical() == ((0, 1, 2), ())


@pytest.mark.parametrize("normalise", ["zscore", "minmax"])
def test_channels_are_normalised_alone_and_back(normalise: str) -> None:
    case = case_on(Geometry.regular((16, 16)))
    case.image[1] *= 100
    choice = PrepareSettings(normalise=normalise)
    found = prepare(case, choice).image
    statistics = (
        (found.mean((1, 2)), found.std((1, 2)))
        if normalise == "zscore"
        else (found.min((1, 2)), found.max((1, 2)))
    )
    np.testing.assert_allclose(statistics, [[0, 0], [1, 1]], atol=1e-5)
    offset, gain = normalisation(case.image, choice)
    original = found / gain.reshape(2, 1, 1) + offset.reshape(2, 1, 1)
    np.testing.assert_allclose(original, case.image, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.1, -1000.0, 3e38])
@pytest.mark.parametrize("normalise", ["zscore", "minmax"])
@pytest.mark.fault("F74")
def test_constant_image_becomes_zero(value: float, normalise: str) -> None:
    image = np.full((1, 5, 5), value, np.float32)
    case = Case("flat", image, Geometry.regular((5, 5)))
    assert (prepare(case, PrepareSettings(normalise=normalise)).image == 0).all()


@pytest.mark.fault("F74")
def test_rounding_is_no_contrast() -> None:
    image = np.array([[[1e-43, 0.0, 0.0]], [[1000.0, 1000.0001, 1000.0]]], np.float32)
    found = prepare(Case("flat", image, Geometry.regular((1, 3)))).image
    assert np.abs(found).max() < 1e-3


def test_extreme_intensities_stay_finite() -> None:
    image = np.array([[[-3e38, 3e38, 0.0]]], np.float32)
    for normalise in ("zscore", "minmax"):
        case = Case("wide", image, Geometry.regular((1, 3)))
        assert np.isfinite(prepare(case, PrepareSettings(normalise=normalise)).image).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_refused(bad: float) -> None:
    case = case_on(Geometry.regular((4, 4)))
    case.image[1, 2, 3] = bad
    with pytest.raises(DataError, match=r"in/liver_7.nii.gz: case liver_7 has 1 of 32 voxels"):
        prepare(case)


def test_input_is_left_alone() -> None:
    geometry = Geometry.regular((4, 6, 5), spacing=(3.0, 1.0, 1.0)).flipped(1).permuted((2, 0, 1))
    truth = np.arange(120).reshape(geometry.shape) % 3
    case = case_on(geometry, truth=truth)
    image, labels = case.image.copy(), truth.copy()
    choice = PrepareSettings(spacing_mm=(2.0,), window_hu=(30.0, 50.0))
    prepared = prepare(case, choice)
    prepared.image[:] = 0
    np.testing.assert_array_equal(case.image, image)
    np.testing.assert_array_equal(case.truth, labels)


def test_window_clips_before_normalising() -> None:
    image = np.array([[[-2000.0, -1000.0, 400.0, 3000.0]]], np.float32)
    case = Case("ct", image, Geometry.regular((1, 4)))
    choice = PrepareSettings(window_hu=(-1000.0, 400.0), normalise="minmax")
    assert prepare(case, choice).image.tolist() == [[[0, 0, 1, 1]]]


def test_orientation_turns_labels_with_the_image() -> None:
    geometry = Geometry.regular((3, 4, 5), spacing=(1.0, 2.0, 3.0))
    truth = np.random.default_rng(0).integers(0, 3, (3, 4, 5))
    case = Case("a", truth[None].astype(np.float32), geometry, truth=truth, readers=truth[None])
    found = prepare(case, PrepareSettings(normalise="none"))
    assert found.geometry.shape == (5, 4, 3)
    np.testing.assert_array_equal(found.image[0], found.truth)
    np.testing.assert_array_equal(found.readers[0], found.truth)
    same = prepare(case, RAW)
    assert same.geometry == geometry


@settings(max_examples=30, deadline=None)
@given(grids(ndim=3, least=2), st.tuples(*[st.floats(0.5, 4.0)] * 3))
def test_resampling_keeps_the_extent(geometry: Geometry, spacing: tuple[float, ...]) -> None:
    case = case_on(geometry, truth=np.ones(geometry.shape, np.uint8))
    found = prepare(case, PrepareSettings(orient=False, spacing_mm=spacing, normalise="none"))
    np.testing.assert_allclose(found.geometry.corners(), geometry.corners(), atol=1e-9)
    assert found.truth.min() == 1
    assert found.truth.dtype == np.uint8


def test_resampled_labels_are_labels() -> None:
    truth = np.zeros((20, 20), np.int64)
    truth[4:16, 4:10], truth[4:16, 10:16] = 7, 2
    geometry = Geometry.regular((20, 20), spacing=(1.0, 1.0))
    soft = (truth > 0)[None].astype(np.float32)
    case = Case("a", soft, geometry, truth=truth, soft=soft, readers=np.stack([truth, truth * 0]))
    found = prepare(case, PrepareSettings(spacing_mm=(0.7, 0.7), normalise="none"))
    assert set(np.unique(found.truth)) == {0, 2, 7}
    area = np.array([(found.truth == k).sum() for k in (2, 7)]) * found.geometry.voxel_volume
    np.testing.assert_allclose(area, 72, rtol=0.12)
    np.testing.assert_array_equal(found.readers[0], found.truth)
    assert not found.readers[1].any()
    assert found.soft.min() >= 0
    assert found.soft.max() <= 1


def test_equal_shares_go_to_the_lesion() -> None:
    truth = np.array([[0, 3], [3, 0]])
    geometry = Geometry.regular((2, 2), spacing=(1.0, 1.0))
    case = Case("a", np.zeros((1, 2, 2), np.float32), geometry, truth=truth)
    assert prepare(case, PrepareSettings(spacing_mm=(2.0, 2.0))).truth.tolist() == [[3]]


def test_spacing_needs_millimetres() -> None:
    case = case_on(Geometry.regular((4, 4)))
    with pytest.raises(DataError, match="no physical voxel size"):
        prepare(case, PrepareSettings(spacing_mm=(1.0,)))


@pytest.mark.parametrize(
    "wrong",
    [{"spacing_mm": (1.0, 1.0, 1.0)}, {"spacing_mm": (0.0,)}, {"window_hu": (400.0, -1000.0)}],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    case = case_on(Geometry.regular((4, 4), spacing=(1.0, 1.0)))
    with pytest.raises(UsageError):
        prepare(case, PrepareSettings(**wrong))


def test_nothing_to_normalise_changes_nothing() -> None:
    case = case_on(Geometry.regular((4, 4)))
    assert normalised(case.image, *normalisation(case.image, RAW)) is case.image


def test_lr_is_prepared_at_its_own_spacing() -> None:
    assert for_lr(PrepareSettings(spacing_mm=(1.0,)), (1, 2, 2)).spacing_mm == (1.0, 2.0, 2.0)
    assert for_lr(PrepareSettings(), (2, 2)) == PrepareSettings()
