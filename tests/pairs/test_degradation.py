"""LR and HR of a case: one extent, one anatomy, whatever the scale."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d

from finemask.case import Case
from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.pairs.degradation import (
    LEAST_SIDE,
    context,
    downsample,
    lr_normalisation,
    make_pair,
    native_pair,
)
from finemask.recipe import PairSettings

AREA, BLUR, REAL = (PairSettings(degrade=d) for d in ("area", "blur", "real"))
RNG = np.random.default_rng(0)


@st.composite
def cases_and_scales(draw: st.DrawFn) -> tuple[Case, tuple[int, ...]]:
    n = draw(st.sampled_from([2, 3]))
    scale = draw(st.tuples(*[st.integers(1, 4)] * n))
    least = [1 if f == 1 else (LEAST_SIDE - 1) * f + 1 for f in scale]
    shape = draw(st.tuples(*[st.integers(low, max(low, 13) + 2) for low in least]))
    spacing = draw(st.tuples(*[st.floats(0.3, 4.0)] * n))
    geometry = Geometry.regular(shape, spacing, (-7.0,) * n).flipped(draw(st.integers(0, n - 1)))
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    truth = np.random.default_rng(1).integers(0, 2, shape)
    return Case("a", image, geometry, truth=truth, group="p1", source=Path("a.png")), scale


def blob(shape: tuple[int, ...], centre: tuple[float, ...], sigma: float) -> np.ndarray:
    place = np.indices(shape) - np.array(centre).reshape(-1, *(1,) * len(shape))
    return np.exp(-(place**2).sum(0) / (2 * sigma**2))[None].astype(np.float32)


def centroid(case: Case) -> np.ndarray:
    """World coordinates of the centre of mass of the first channel."""
    index = np.stack(np.meshgrid(*map(np.arange, case.geometry.shape), indexing="ij"), -1)
    weights = case.image[0].astype(np.float64)[..., None]
    axes = tuple(range(case.geometry.ndim))
    return (case.geometry.to_world(index) * weights).sum(axes) / weights.sum()


@budget(deadline=None)
@given(cases_and_scales(), st.sampled_from([AREA, BLUR]))
def test_pair_shares_its_extent(
    drawn: tuple[Case, tuple[int, ...]], settings: PairSettings
) -> None:
    case, scale = drawn
    pair = make_pair(case, scale, settings)
    np.testing.assert_allclose(pair.lr.geometry.corners(), pair.hr.geometry.corners(), atol=1e-9)
    assert pair.scale == scale
    assert pair.hr.geometry.matches(pair.lr.geometry.refined(scale))
    kept = (..., *(slice(n) for n in case.geometry.shape))
    np.testing.assert_array_equal(pair.hr.image[kept], case.image)
    np.testing.assert_array_equal(pair.hr.truth[kept], case.truth)
    assert pair.hr.truth.sum() == case.truth.sum()
    assert pair.lr.truth is None
    assert (pair.lr.name, pair.lr.group, pair.lr.source) == ("a", "p1", Path("a.png"))


@budget(deadline=None)
@given(cases_and_scales())
def test_area_keeps_the_mean_and_every_block(drawn: tuple[Case, tuple[int, ...]]) -> None:
    case, scale = drawn
    pair = make_pair(case, scale, AREA)
    for channel_lr, channel_hr in zip(pair.lr.image, pair.hr.image, strict=True):
        assert channel_lr.mean() == pytest.approx(channel_hr.mean(), abs=1e-5)
    first = pair.hr.image[(0, *(slice(f) for f in scale))]
    assert pair.lr.image[(0, *(0,) * len(scale))] == pytest.approx(first.mean(), abs=1e-5)


@pytest.mark.parametrize("settings", [AREA, BLUR])
@pytest.mark.parametrize("scale", [(2, 2), (3, 3), (4, 4), (1, 2), (5, 3)])
def test_a_blob_stays_where_it_is(scale: tuple[int, int], settings: PairSettings) -> None:
    geometry = Geometry.regular((60, 60), (0.5, 2.0), (10.0, -40.0)).flipped(0)
    case = Case("a", blob((60, 60), (27.3, 31.8), 6.0), geometry)
    pair = make_pair(case, scale, settings)
    apart = pair.lr.geometry.to_index(centroid(pair.lr)) - pair.lr.geometry.to_index(
        centroid(pair.hr)
    )
    assert np.abs(apart).max() < 0.01


def test_a_blob_stays_where_it_is_in_3d() -> None:
    geometry = Geometry.regular((16, 40, 40), (3.0, 0.7, 0.7)).permuted((2, 0, 1))
    case = Case("a", blob((40, 16, 40), (18.2, 8.4, 20.9), 4.0), geometry)
    pair = make_pair(case, (2, 1, 2), BLUR)
    np.testing.assert_allclose(centroid(pair.lr), centroid(pair.hr), atol=0.01)


@budget(deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([AREA, BLUR, PairSettings(degrade="blur", blur_sigma=1.3)]),
    st.integers(1, 2),
)
def test_flips_commute(
    scale: tuple[int, int], blocks: tuple[int, int], settings: PairSettings, axis: int
) -> None:
    shape = tuple(f * n for f, n in zip(scale, blocks, strict=True))
    image = np.random.default_rng(0).random((2, *shape), np.float32)
    one = downsample(np.flip(image, axis), scale, settings)
    two = np.flip(downsample(image, scale, settings), axis)
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_blur_is_a_gaussian_read_at_lr_centres() -> None:
    image = RNG.random((1, 30), np.float32)
    found = downsample(image, (3,), PairSettings(degrade="blur", blur_sigma=0.5))
    smooth = gaussian_filter1d(image, 1.5, axis=1, mode="nearest", radius=4)
    np.testing.assert_allclose(found, smooth[:, 1::3], atol=1e-5)


def test_blur_of_even_scale_reads_between_voxels() -> None:
    ramp = np.arange(40, dtype=np.float32)[None]
    found = downsample(ramp, (4,), PairSettings(degrade="blur", blur_sigma=0.4))
    np.testing.assert_allclose(found[0, 2:-2], np.arange(10)[2:-2] * 4 + 1.5, atol=1e-4)


def test_the_narrowest_blur_picks_the_centre() -> None:
    image = RNG.random((1, 6), np.float32)
    odd = downsample(image, (3,), PairSettings(degrade="blur", blur_sigma=0.0))
    even = downsample(image, (2,), PairSettings(degrade="blur", blur_sigma=0.0))
    np.testing.assert_allclose(odd, image[:, 1::3])
    np.testing.assert_allclose(even, (image[:, ::2] + image[:, 1::2]) / 2, atol=1e-6)


@pytest.mark.parametrize("settings", [AREA, BLUR])
def test_axes_of_scale_one_are_left_alone(settings: PairSettings) -> None:
    image = RNG.random((1, 3, 4, 4), np.float32)
    whole = downsample(image, (1, 2, 2), settings)
    for k in range(3):
        np.testing.assert_allclose(whole[:, k], downsample(image[:, k], (2, 2), settings))
    assert downsample(image, (1, 1, 1), settings).tolist() == image.tolist()


def test_context_is_all_that_a_blur_sees() -> None:
    settings = PairSettings(degrade="blur", blur_sigma=0.8)
    image = RNG.random((1, 64), np.float32)
    (reach,) = context((4,), settings)
    changed = image.copy()
    changed[0, : (8 - reach) * 4] += 9
    one, two = downsample(image, (4,), settings), downsample(changed, (4,), settings)
    np.testing.assert_array_equal(one[0, 8:], two[0, 8:])
    assert context((4, 2), AREA) == (0, 0)


def test_sides_must_fit_the_scale() -> None:
    with pytest.raises(ValueError, match="multiples"):
        downsample(np.zeros((1, 5, 4), np.float32), (2, 2))


def test_noise_is_as_strong_as_asked_and_repeats() -> None:
    case = Case("a", np.zeros((1, 64, 64), np.float32), Geometry.regular((64, 64)))
    settings = PairSettings(noise=0.3)
    one, two = (make_pair(case, (2, 2), settings).lr.image for _ in range(2))
    assert one.std() == pytest.approx(0.3, rel=0.1)
    np.testing.assert_array_equal(one, two)
    other = make_pair(replace(case, name="b"), (2, 2), settings).lr.image
    assert not np.array_equal(one, other)
    assert not make_pair(case, (2, 2), settings).hr.image.any()


def test_normalised_as_a_users_lr_image_will_be() -> None:
    image = RNG.normal(5, 3, (2, 32, 32)).astype(np.float32)
    case = Case("a", image, Geometry.regular((32, 32)))
    pair = make_pair(case, (2, 2), AREA, normalise="zscore")
    np.testing.assert_allclose(pair.lr.image.mean((1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(pair.lr.image.std((1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(downsample(pair.hr.image, (2, 2)), pair.lr.image, atol=1e-5)
    offset, gain = lr_normalisation(case, (2, 2), AREA, "zscore")
    expected = (image - offset.reshape(2, 1, 1)) * gain.reshape(2, 1, 1)
    np.testing.assert_allclose(pair.hr.image, expected, atol=1e-5)


def test_real_pairs_are_normalised_as_the_lr_image_alone() -> None:
    """An LR image that is the block mean stays it: no constant contrast between the two."""
    image = RNG.normal(5, 3, (2, 32, 32)).astype(np.float32)
    case = Case("a", image, Geometry.regular((32, 32)))
    lr = make_pair(case, (4, 4)).lr
    pair = make_pair(case, (4, 4), REAL, lr, normalise="zscore")
    np.testing.assert_allclose(pair.lr.image.std((1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(downsample(pair.hr.image, (4, 4)), pair.lr.image, atol=1e-5)
    assert pair.hr.image.std() > 2  # block means of 16 voxels vary a quarter as much
    offset, gain = lr_normalisation(case, (4, 4), REAL, "zscore", lr)
    expected = (image - offset.reshape(2, 1, 1)) * gain.reshape(2, 1, 1)
    np.testing.assert_allclose(pair.hr.image, expected, atol=1e-5)


@pytest.mark.parametrize("settings", [AREA, BLUR, REAL])
def test_a_scale_that_leaves_no_image_is_refused(settings: PairSettings) -> None:
    geometry = Geometry.regular((64, 64))
    case = Case("a", np.ones((1, 64, 64), np.float32), geometry, source=Path("a.png"))

    def pair_at(scale: tuple[int, int]) -> object:
        coarse = replace(geometry.resized([-(-64 // f) for f in scale]), unit="px")
        lr = Case("a", np.ones((1, *coarse.shape), np.float32), coarse)
        return make_pair(case, scale, settings, lr)

    with pytest.raises(
        UsageError, match=r"a\.png: case a of 64 x 64 voxels .* 4 x 3 at scale 16 x 25"
    ):
        pair_at((16, 25))
    pair_at((16, 16))
    flat = Case("a", np.ones((1, 1, 64), np.float32), Geometry.regular((1, 64)))
    assert make_pair(flat, (1, 2)).lr.geometry.shape == (1, 32)


def test_native_pair_refines_the_grid_only() -> None:
    geometry = Geometry.regular((3, 8, 6), (4.0, 1.0, 1.0)).flipped(2)
    case = Case("a", RNG.random((1, 3, 8, 6), np.float32), geometry, truth=np.ones((3, 8, 6)))
    pair = native_pair(case, (1, 2, 2))
    assert pair.lr.image is case.image
    assert pair.hr.geometry == geometry.refined((1, 2, 2))
    assert pair.scale == (1, 2, 2)
    assert pair.hr.truth is None
    np.testing.assert_allclose(
        downsample(pair.hr.image, (1, 2, 2))[..., 1:-1, 1:-1],
        case.image[..., 1:-1, 1:-1],
        atol=0.5,
    )


def real_lr(hr: Geometry, scale: tuple[int, ...], shift: float = 0.0, unit: str = "mm") -> Case:
    geometry = replace(hr.coarsened(scale), unit=unit)
    moved = geometry.to_world(np.array([shift, *(0.0,) * (hr.ndim - 1)]))
    image = np.full((1, *geometry.shape), 5, np.float32)
    return Case("a", image, replace(geometry, origin=tuple(moved.tolist())), source=Path("lr.nii"))


def test_real_pairs_take_the_given_image() -> None:
    hr = Geometry.regular((8, 12), (1.0, 1.0))
    case = Case("a", np.ones((1, 8, 12), np.float32), hr)
    pair = make_pair(case, (2, 2), REAL, real_lr(hr, (2, 2), shift=0.4))
    assert (pair.lr.image == 5).all()
    assert pair.lr.geometry == hr.coarsened((2, 2))


@pytest.mark.parametrize("extra", [-1, 1])
def test_real_pairs_forgive_less_than_half_an_lr_voxel(extra: int) -> None:
    hr = Geometry.regular((12 + extra, 12), (1.0, 1.0))
    lr = Geometry.regular((4, 4), (3.0, 3.0), (1.0, 1.0))
    case = Case("a", np.ones((1, *hr.shape), np.float32), hr)
    pair = make_pair(case, (3, 3), REAL, Case("a", np.ones((1, 4, 4), np.float32), lr))
    assert pair.hr.geometry.shape == (12, 12)


def test_real_pairs_that_show_another_region_are_refused() -> None:
    hr = Geometry.regular((8, 12), (1.0, 1.0))
    case = Case("a", np.ones((1, 8, 12), np.float32), hr)
    with pytest.raises(DataError, match=r"lr.nii: its edges are up to 0.60 LR voxels"):
        make_pair(case, (2, 2), REAL, real_lr(hr, (2, 2), shift=0.6))
    with pytest.raises(DataError, match="at most 0.5 is allowed"):
        make_pair(case, (2, 4), REAL, real_lr(hr, (2, 2)))
    with pytest.raises(DataError, match="has no LR image of its own"):
        make_pair(case, (2, 2), REAL)
    rgb = replace(real_lr(hr, (2, 2)), image=np.ones((3, 4, 6), np.float32))
    with pytest.raises(DataError, match="has 3 channels in 2-D"):
        make_pair(case, (2, 2), REAL, rgb)


def test_real_pictures_are_compared_by_their_sides() -> None:
    hr = Geometry.regular((8, 12))
    case = Case("a", np.ones((1, 8, 12), np.float32), hr)
    picture = Case("a", np.ones((1, 4, 6), np.float32), Geometry.regular((4, 6)))
    assert make_pair(case, (2, 2), REAL, picture).lr.geometry == hr.coarsened((2, 2))
    wrong = Case("a", np.ones((1, 4, 7), np.float32), Geometry.regular((4, 7)))
    with pytest.raises(DataError, match="1.00 LR voxels"):
        make_pair(case, (2, 2), REAL, wrong)
