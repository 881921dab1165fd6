from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from finemask.softmask.trimap import lesion_radius, trimap_from_mask, trimap_from_readers

masks = st.one_of(
    hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 12))),
    hnp.arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))),
)


def disc(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) <= radius**2


def naive_trimap(mask: np.ndarray, radius: float, spacing) -> np.ndarray:
    """By distance transforms on the whole image, lesion by lesion."""
    trimap, core = np.zeros(mask.shape), np.zeros(mask.shape, bool)
    labels, count = ndimage.label(mask, np.ones((3,) * mask.ndim))
    reach = radius * min(spacing) + 1e-6
    for number in range(1, count + 1):
        lesion = labels == number
        trimap[ndimage.distance_transform_edt(~lesion, sampling=spacing) <= reach] = 0.5
        depth = np.full(mask.shape, np.inf)
        if not lesion.all():
            depth = ndimage.distance_transform_edt(lesion, sampling=spacing)
        inner = lesion & (depth > reach)
        core |= inner if inner.any() else lesion & np.isclose(depth, depth[lesion].max())
    return np.where(core, 1, trimap)


@given(masks, st.sampled_from([1, 1.5, 2, 5]), st.tuples(*[st.floats(0.5, 4)] * 3))
@settings(max_examples=40)
def test_band_is_what_lies_within_the_radius_of_the_outline(mask, radius, spacing) -> None:
    spacing = spacing[: mask.ndim]
    trimap = trimap_from_mask(mask, radius, spacing)
    np.testing.assert_array_equal(trimap, naive_trimap(mask, radius, spacing))
    assert trimap.dtype == np.float32


@given(masks, st.sampled_from([None, 1, 3]))
@settings(max_examples=20)
def test_flips_and_transposes_go_through(mask, radius) -> None:
    trimap = trimap_from_mask(mask, radius)
    np.testing.assert_array_equal(trimap_from_mask(mask[::-1].T, radius), trimap[::-1].T)


@pytest.mark.parametrize(
    ("diameter", "radius"), [(2, 1), (9, 1), (11, 2), (20, 3), (32, 5), (90, 5)]
)
def test_radius_by_size_of_the_lesion(diameter: int, radius: int) -> None:
    flat = disc((100, 100), (50, 50), diameter / 2)
    assert lesion_radius(flat, (1.0, 1.0)) == radius


def test_radius_is_of_the_lesion_not_of_its_voxels() -> None:
    ball = disc((24, 24, 24), (12, 12, 12), 10)
    assert lesion_radius(ball, (1.0, 1.0, 1.0)) == 3
    assert lesion_radius(ball[::2], (2.0, 1.0, 1.0)) == 3


def test_each_lesion_has_a_band_of_its_own_size() -> None:
    large, small = disc((60, 90), (30, 30), 20), disc((60, 90), (30, 75), 4)
    both = trimap_from_mask(large | small)
    np.testing.assert_array_equal(
        both, np.maximum(trimap_from_mask(large), trimap_from_mask(small))
    )
    assert (both[30] == 0.5).sum() == 4 * 5 + 4 * 1


def test_core_of_one_lesion_stays_in_the_band_of_its_neighbour() -> None:
    mask = np.zeros((9, 20), bool)
    mask[2:7, 2:7] = mask[2:7, 9:14] = True
    trimap = trimap_from_mask(mask, radius=2)
    assert trimap[4, 4] == trimap[4, 11] == 1
    assert (trimap[4, 7:9] == 0.5).all()


def test_slices_far_apart_are_not_reached() -> None:
    mask = np.zeros((5, 11, 11), bool)
    mask[2, 3:8, 3:8] = True
    thick = trimap_from_mask(mask, radius=1, spacing_mm=(5, 1, 1))
    assert not thick[[0, 1, 3, 4]].any()
    np.testing.assert_array_equal(thick[2], trimap_from_mask(mask[2], radius=1))
    assert (trimap_from_mask(mask, radius=1)[[1, 3]] == 0.5).any()


def test_a_lesion_that_erosion_would_empty_keeps_its_middle() -> None:
    mask = np.zeros((7, 12), np.uint8)
    mask[2:5, 2:5] = 255
    mask[3, 9] = 255
    trimap = trimap_from_mask(mask, radius=3)
    np.testing.assert_array_equal(np.argwhere(trimap == 1), [[3, 3], [3, 9]])


def test_the_edge_of_the_image_is_no_outline() -> None:
    mask = np.zeros((6, 8), bool)
    mask[:, :4] = True
    np.testing.assert_array_equal(
        trimap_from_mask(mask, radius=2), np.tile([1, 1, 0.5, 0.5, 0.5, 0.5, 0, 0], (6, 1))
    )


def test_empty_and_full_masks_are_certain() -> None:
    assert not trimap_from_mask(np.zeros((4, 5), bool)).any()
    assert (trimap_from_mask(np.ones((4, 5), bool)) == 1).all()


@pytest.mark.parametrize(
    ("mask", "radius", "spacing", "complaint"),
    [
        (np.zeros((4, 4)), None, None, "boolean or integer"),
        (np.zeros(4, bool), None, None, "2-D or 3-D"),
        (np.zeros((4, 4), bool), 0, None, "radius must be positive"),
        (np.zeros((4, 4), bool), np.inf, None, "radius must be positive"),
        (np.zeros((4, 4), bool), None, (1, 1, 1), "spacing_mm needs 2"),
    ],
)
def test_refuses_what_is_no_mask(mask, radius, spacing, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        trimap_from_mask(mask, radius, spacing)


@given(hnp.arrays(bool, (4, 8, 9), elements=st.sampled_from([True, True, True, False])))
@settings(max_examples=20)
def test_readers_give_the_regions_of_eqs_2_to_4(readers) -> None:
    readers[:, 3:5, 3:5] = True
    readers[0, 3, 6] = ~readers[1, 3, 6]
    lesion = np.logical_and.reduce(readers)
    background = ~np.logical_or.reduce(readers)
    labels, count = ndimage.label(~background, np.ones((3, 3)))
    trimap = trimap_from_readers(readers)
    assert (trimap[background & (trimap != 0.5)] == 0).all()
    for number in range(1, count + 1):
        mine = labels == number
        if (lesion & mine).any() and not lesion[mine].all():
            np.testing.assert_array_equal(trimap[mine], np.where(lesion, 1, 0.5)[mine])


def row(*readers: str) -> np.ndarray:
    """Readers' masks of one row of voxels."""
    return np.array([[[int(c) for c in reader]] for reader in readers])


@pytest.mark.parametrize(
    ("readers", "expected"),
    [
        (row("0111100", "0011110"), "0u111u0"),
        # Nobody's voxel is everybody's: three agree, then two, then none.
        (row("0111000", "0011100", "0011110", "0000000"), "0u11uu0"),
        (row("0110000", "0011000", "0000110", "0000000"), "0u1uuu0"),
        (row("0100000", "0000010", "0000000"), "0u000u0"),
        # Equal outlines: a band is opened.
        (row("00111110", "00111110"), "0uu111uu"),
        (row("0011100", "0011100", "0000000"), "0uu1uu0"),
        (row("0011100"), "0uu1uu0"),
        # Each lesion by itself.
        (row("011100010", "001110010", "001110010"), "0u11u0u1u"),
        (row("01110001100", "00111000000", "00111000000"), "0u11u00uu00"),
        (row("0000", "0000"), "0000"),
    ],
)
def test_readers_who_disagree(readers, expected: str) -> None:
    meaning = {"0": 0, "u": 0.5, "1": 1}
    np.testing.assert_array_equal(trimap_from_readers(readers)[0], [meaning[c] for c in expected])


def test_equal_outlines_open_a_band_of_one_voxel_of_the_finest_axis() -> None:
    mask = np.zeros((3, 9, 9), bool)
    mask[1, 2:7, 2:7] = True
    trimap = trimap_from_readers(np.stack([mask] * 3), spacing_mm=(3, 1, 1))
    np.testing.assert_array_equal(trimap, trimap_from_mask(mask, 1, (3, 1, 1)))
    assert not trimap[[0, 2]].any()


@pytest.mark.parametrize(
    ("readers", "complaint"),
    [
        (np.zeros((0, 4, 4), bool), "at least one reader"),
        (np.zeros((4, 4), bool), "2-D or 3-D"),
        (np.zeros((2, 4, 4)), "masks must be boolean or integer"),
    ],
)
def test_refuses_what_are_no_readers(readers, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        trimap_from_readers(readers)
