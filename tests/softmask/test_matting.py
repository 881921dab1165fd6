from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

import finemask as fm
from finemask import soft_mask
from finemask.softmask import system
from finemask.softmask.trimap import trimap_from_mask
from finemask.softmask.windows import window_weights

RNG = np.random.default_rng(0)


def scene(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image of a blurred lesion, and a trimap that leaves its outline open."""
    rng = np.random.default_rng(seed)
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    depth = min(shape[-2:]) / 3.2 - np.sqrt(
        sum((a - n / 2 + 0.3) ** 2 for a, n in zip(axes, shape, strict=True))
    )
    image = 0.3 + 0.4 / (1 + np.exp(-depth / 0.8)) + 0.03 * rng.standard_normal(shape)
    return image, np.where(np.abs(depth) < 2.2, 0.5, np.where(depth > 0, 1.0, 0.0))


def solve_densely(
    image: np.ndarray, trimap: np.ndarray, epsilon: float, spacing=None, radius: int = 1
) -> np.ndarray:
    """The textbook: a regression in every window, the sum of their matrices, a dense solution.

    In a picture windows are whole, in a volume cut off where it ends.
    """
    image = image.reshape(-1, *trimap.shape)
    steps = np.array(spacing or (1,) * trimap.ndim) / min(spacing or (1,))
    window = window_weights(radius, steps.tolist()).reshape((2 * radius + 1,) * trimap.ndim)
    index = np.arange(trimap.size).reshape(trimap.shape)
    matrix = np.zeros((trimap.size,) * 2)
    for centre in np.ndindex(trimap.shape):
        low = [max(c - radius, 0) for c in centre]
        high = [min(c + radius + 1, n) for c, n in zip(centre, trimap.shape, strict=True)]
        place = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        part = tuple(
            slice(a - c + radius, b - c + radius) for a, b, c in zip(low, high, centre, strict=True)
        )
        g = np.diag(window[part].ravel())
        if trimap.ndim == 2 and len(g) < window.size:
            continue
        members = index[place].ravel()
        design = np.column_stack([image.reshape(len(image), -1)[:, members].T, np.ones(len(g))])
        penalty = epsilon * np.diag([1.0] * len(image) + [0.0])
        fit = design @ np.linalg.solve(design.T @ g @ design + penalty, design.T @ g)
        matrix[np.ix_(members, members)] += g - g @ fit
    u, alpha = trimap.ravel() == 0.5, trimap.ravel().copy()
    alpha[u] = np.linalg.solve(matrix[np.ix_(u, u)], -matrix[np.ix_(u, ~u)] @ alpha[~u])
    return alpha.reshape(trimap.shape)


def exactly(image, trimap, **settings) -> np.ndarray:
    """`soft_mask` before it is rounded to float32 and clipped."""
    found = []

    def listen(*arguments):
        found.append(system.solve(*arguments))
        return found[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("finemask.softmask.matting.solve", listen)
        patch.setattr(system, "DIRECT_BANDWIDTH", 10_000)
        rounded = soft_mask(image, trimap, **settings)
    unknown = trimap == 0.5
    values = found[0][np.isin(found[0], (0, 1), invert=True)]
    assert len(values) == unknown.sum()
    np.testing.assert_allclose(rounded[unknown], values.clip(0, 1), atol=1e-7)
    alpha = trimap.copy()
    alpha[unknown] = values
    return alpha


@pytest.mark.parametrize(
    ("shape", "channels", "settings"),
    [
        ((16, 17), 1, {}),
        ((16, 17), 3, {}),
        ((16, 17), 1, {"radius": 2}),
        ((16, 17), 2, {"spacing_mm": (0.7, 0.5)}),
        ((7, 12, 11), 1, {}),
        ((7, 12, 11), 3, {}),
        ((6, 12, 11), 1, {"spacing_mm": (2.5, 0.8, 0.8)}),
        ((2, 12, 11), 1, {"spacing_mm": (2.5, 0.8, 0.8)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("epsilon", [1e-5, 1e-2])
def test_equals_the_dense_textbook_system(shape, channels: int, settings, epsilon: float) -> None:
    image, trimap = scene(shape)
    if channels > 1:
        image = np.stack([image, image**2, RNG.random(shape)][:channels])
    expected = solve_densely(
        image, trimap, epsilon, settings.get("spacing_mm"), settings.get("radius", 1)
    )
    found = exactly(image, trimap, epsilon=epsilon, **settings)
    np.testing.assert_allclose(found, expected, atol=1e-8, rtol=0)


def test_offered_by_the_package() -> None:
    assert fm.soft_mask is soft_mask


trimaps = hnp.arrays(
    np.float32,
    st.one_of(
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5)),
    ),
    elements=st.sampled_from([0.0, 0.5, 1.0]),
)


@given(trimaps, st.integers(0, 99), st.sampled_from([1e-6, 1e-3]), st.booleans())
@settings(max_examples=40)
def test_shares_are_shares_and_certain_voxels_stay(trimap, seed, epsilon, even) -> None:
    image = np.random.default_rng(seed).random(trimap.shape) * (not even)
    before = trimap.copy()
    alpha = soft_mask(image, trimap, epsilon=epsilon)
    assert alpha.dtype == np.float32
    assert alpha.shape == trimap.shape
    assert ((alpha >= 0) & (alpha <= 1)).all()
    certain = trimap != 0.5
    np.testing.assert_array_equal(alpha[certain], trimap[certain])
    np.testing.assert_array_equal(trimap, before)
    assert not np.shares_memory(alpha, trimap)


@given(trimaps, st.integers(0, 99), st.floats(0.1, 50), st.floats(-50, 50))
@settings(max_examples=20)
def test_gain_and_offset_of_the_intensities_change_nothing(trimap, seed, gain, offset) -> None:
    image = np.random.default_rng(seed).random(trimap.shape)
    plain = soft_mask(image, trimap, epsilon=1e-3)
    changed = soft_mask(gain * image + offset, trimap, epsilon=1e-3 * gain**2)
    np.testing.assert_allclose(changed, plain, atol=1e-5)


@given(trimaps, st.integers(0, 99))
@settings(max_examples=20)
def test_lesion_and_background_are_alike(trimap, seed) -> None:
    image = np.random.default_rng(seed).random(trimap.shape)
    alpha, other = soft_mask(image, trimap), soft_mask(image, 1 - trimap)
    np.testing.assert_allclose(other, 1 - alpha, atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 23), (7, 13, 12)])
def test_flips_and_permutations_go_through(shape) -> None:
    image, trimap = scene(shape)
    spacing = (2.0, 1.0, 0.8)[: len(shape)]
    alpha = soft_mask(image, trimap, spacing_mm=spacing)
    for axis in range(len(shape)):
        flipped = soft_mask(np.flip(image, axis), np.flip(trimap, axis), spacing_mm=spacing)
        np.testing.assert_allclose(flipped, np.flip(alpha, axis), atol=1e-5)
    turned = soft_mask(image.T, trimap.T, spacing_mm=spacing[::-1])
    np.testing.assert_allclose(turned, alpha.T, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thickness", [0.2, 5.0])
def test_a_volume_of_one_slice_is_a_picture(axis: int, thickness: float) -> None:
    image, trimap = scene((15, 16))
    trimap[:3, :3] = 0.5  # at the border, too
    flat = soft_mask(image, trimap)
    spacing = [1.0, 1.0]
    spacing.insert(axis, thickness)
    thick = soft_mask(np.expand_dims(image, axis), np.expand_dims(trimap, axis), spacing_mm=spacing)
    np.testing.assert_array_equal(thick, np.expand_dims(flat, axis))


def test_slices_very_far_apart_are_matted_each_by_itself() -> None:
    slices = [scene((26, 27), seed) for seed in range(4)]
    image, trimap = (np.stack(maps) for maps in zip(*slices, strict=True))
    apart = soft_mask(image, trimap, spacing_mm=(1e5, 1, 1))
    for k, (one, known) in enumerate(slices):
        np.testing.assert_allclose(apart[k], soft_mask(one, known), atol=1e-4)
    near = soft_mask(image, trimap, spacing_mm=(2, 1, 1))
    assert np.abs(near - apart).max() > 0.02


def test_shares_spread_equally_in_millimetres() -> None:
    """An even volume between two planes of lesion and two of background."""
    for spacing in ((1, 1, 1), (3, 1, 1), (1, 1, 4)):
        trimap = np.full((13, 13, 13), 0.5)
        trimap[0], trimap[-1], trimap[:, :, 0], trimap[:, :, -1] = 1, 1, 0, 0
        reach = np.array(spacing) * 12
        alpha = soft_mask(np.zeros_like(trimap), trimap, spacing_mm=spacing)
        middle = float(alpha[6, 6, 6])
        # Laplace's equation in a box of these sides, solved by its series.
        n = np.arange(1, 60, 2)
        ratio = np.pi * n * reach[0] / reach[2] / 2
        expected = (4 / np.pi / n * np.sin(np.pi * n / 2) / np.cosh(ratio)).sum()
        assert middle == pytest.approx(expected, abs=0.02)


def test_one_unit_of_length_is_as_good_as_another() -> None:
    image, trimap = scene((6, 13, 12))
    mm, cm = (soft_mask(image, trimap, spacing_mm=s) for s in ((2.5, 1.0, 1.0), (0.25, 0.1, 0.1)))
    np.testing.assert_allclose(mm, cm, atol=1e-6)


def test_channels_may_repeat_and_change_places() -> None:
    image, trimap = scene((18, 18))
    grey = soft_mask(image, trimap, epsilon=1e-4)
    np.testing.assert_array_equal(soft_mask(image[None], trimap, epsilon=1e-4), grey)
    thrice = soft_mask(np.stack([image] * 3), trimap, epsilon=3e-4)
    np.testing.assert_allclose(thrice, grey, atol=1e-5)
    colours = np.stack([image, image**2, RNG.random(image.shape)])
    np.testing.assert_allclose(
        soft_mask(colours[[2, 0, 1]], trimap), soft_mask(colours, trimap), atol=1e-5
    )


def test_finds_the_shares_of_a_mixture() -> None:
    """Eq. (1) backwards: an image mixed of one lesion and one background intensity."""
    shares = np.clip((np.arange(30) - 8) / 14, 0, 1) * np.ones((12, 1))
    image = shares * 0.8 + (1 - shares) * 0.3
    trimap = np.where((shares > 0) & (shares < 1), 0.5, shares)
    np.testing.assert_allclose(soft_mask(image, trimap, epsilon=1e-8), shares, atol=1e-3)


def test_lesions_apart_do_not_heed_each_other() -> None:
    image, trimap = scene((26, 26))
    other, known = scene((26, 26), seed=1)
    both = soft_mask(np.hstack([image, other]), np.hstack([trimap, known]))
    # Their bands are narrower than the background between them.
    np.testing.assert_allclose(both[:, :26], soft_mask(image, trimap), atol=1e-6)
    np.testing.assert_allclose(both[:, 26:], soft_mask(other, known), atol=1e-6)


@pytest.mark.parametrize("shape", [(9, 10), (2, 9), (1, 7), (1, 1), (4, 5, 6), (2, 2, 2)])
def test_where_nothing_is_certain_nothing_is_said(shape) -> None:
    image = RNG.random(shape)
    assert (soft_mask(image, np.full(shape, 0.5)) == 0.5).all()


@pytest.mark.parametrize("shape", [(9, 10), (2, 9), (1, 7), (4, 5, 6), (2, 2, 2)])
@pytest.mark.parametrize("side", [0.0, 1.0])
@pytest.mark.parametrize("bandwidth", [10_000, 0])
def test_an_island_in_one_region_belongs_to_it(shape, side, bandwidth: int, monkeypatch) -> None:
    monkeypatch.setattr(system, "DIRECT_BANDWIDTH", bandwidth)
    trimap = np.full(shape, 0.5)
    trimap.flat[-1] = side
    np.testing.assert_allclose(soft_mask(RNG.random(shape), trimap), side, atol=1e-4)
    trimap[...] = side
    trimap.flat[0] = 0.5
    np.testing.assert_allclose(soft_mask(RNG.random(shape), trimap), side, atol=1e-6)


def test_a_certain_trimap_is_the_soft_mask() -> None:
    trimap = RNG.integers(0, 2, (5, 6)).astype(float)
    np.testing.assert_array_equal(soft_mask(RNG.random((5, 6)), trimap), trimap)


def test_both_solvers_say_the_same(monkeypatch) -> None:
    for shape in ((40, 41), (12, 20, 19)):
        image, trimap = scene(shape)
        alphas = []
        for bandwidth in (10_000, 0):
            monkeypatch.setattr(system, "DIRECT_BANDWIDTH", bandwidth)
            alphas.append(soft_mask(image, trimap))
        np.testing.assert_allclose(*alphas, atol=1e-5)


def test_bands_within_the_box_of_another_are_solved_for() -> None:
    rows, columns = np.ogrid[:26, :26]
    far = np.maximum(abs(rows - 12), abs(columns - 12))
    trimap = np.select([far > 10, far > 8, far > 4, far > 1], [0, 0.5, 1, 0.5], 0.0)
    trimap[21:, 21:] = 0.5  # in the ring's box, cut off by it
    image = scene((26, 26))[0]
    found = soft_mask(image, trimap, epsilon=1e-3)
    np.testing.assert_allclose(found, solve_densely(image, trimap, 1e-3).clip(0, 1), atol=1e-6)


def test_a_small_lesion_far_from_others_costs_little(monkeypatch) -> None:
    """Every band is solved for in its own box."""
    shapes = []

    def listen(windows, unknown, known, radius):
        shapes.append(unknown.shape)
        return system.solve(windows, unknown, known, radius)

    monkeypatch.setattr("finemask.softmask.matting.solve", listen)
    image, trimap = np.zeros((300, 400)), np.zeros((300, 400))
    trimap[5:9, 5:9] = trimap[290:296, 380:390] = 0.5
    assert not soft_mask(image, trimap).any()
    assert len(shapes) == 2
    assert max(max(shape) for shape in shapes) < 24


def test_the_band_of_a_lesion_is_factorised(monkeypatch) -> None:
    monkeypatch.setattr(system, "_solve_iteratively", None)
    image, trimap = scene((150, 150))
    assert soft_mask(image, trimap)[trimap == 0.5].std() > 0.2


def test_from_mask_to_soft_mask() -> None:
    image, known = scene((40, 40))
    trimap = trimap_from_mask(known >= 0.5)
    alpha = soft_mask(image.astype(np.float32), trimap)
    assert 0.05 < ((alpha > 0.1) & (alpha < 0.9)).sum() / (trimap == 0.5).sum() < 0.9


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"trimap": np.zeros(5)}, "a trimap is 2-D or 3-D"),
        ({"trimap": np.full((6, 7), 0.4)}, "only 0, 0.5 and 1"),
        ({"trimap": np.full((6, 7), np.nan)}, "only 0, 0.5 and 1"),
        ({"trimap": np.full((6, 7), 255, np.uint8)}, "only 0, 0.5 and 1"),
        ({"image": np.zeros((7, 6))}, r"image has shape \(7, 6\), needs \(6, 7\)"),
        ({"image": np.zeros((6, 7, 3))}, r"needs \(6, 7\) or \(channels, 6, 7\)"),
        ({"image": np.zeros((0, 6, 7))}, r"needs \(6, 7\) or \(channels, 6, 7\)"),
        ({"image": np.zeros((6, 7), np.uint8)}, "image holds uint8, needs floats"),
        ({"image": np.full((6, 7), np.nan)}, "not finite"),
        ({"image": np.full((6, 7), np.inf)}, "not finite"),
        (
            {"image": np.arange(42.0).reshape(6, 7), "epsilon": 1e-6},
            "intensities that differ by 41",
        ),
        ({"epsilon": 0.0, "image": np.zeros((6, 7))}, "epsilon = 0 does not suit"),
        ({"epsilon": -1.0}, "epsilon = -1 does not suit"),
        ({"epsilon": np.nan}, "epsilon = nan does not suit"),
        ({"epsilon": np.inf}, "epsilon = inf does not suit"),
        ({"radius": 0}, "radius must be at least 1"),
        ({"spacing_mm": (1, 0)}, "spacing_mm needs 2 positive numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refuses_what_cannot_be_matted(change, complaint: str) -> None:
    trimap = np.full((6, 7), 0.5)
    trimap[0], trimap[-1] = 0, 1
    arguments = {"image": RNG.random((6, 7)) / 10, "trimap": trimap, "epsilon": 1e-9} | change
    with pytest.raises(ValueError, match=complaint):
        soft_mask(**arguments)
