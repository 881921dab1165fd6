"""Windows: lesions are found, picked fairly, and lie inside what is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finemask.errors import UsageError
from finemask.pairs.windows import choose_start, cut, default_crop, find_lesions, fitting_crop


def test_components_touch_by_corners_and_by_class() -> None:
    first, second = np.zeros((2, 6, 6), bool)
    first[0, 0] = first[1, 1] = first[4:, 4:] = True
    second[0, 1] = True
    lesions = find_lesions([first, second])
    assert sorted(len(voxels) for voxels in lesions.voxels) == [1, 2, 4]
    assert len(find_lesions([np.zeros((3, 3, 3), bool)])) == 0


def test_lesions_keep_few_voxels_all_over() -> None:
    mask = np.zeros((100, 100), bool)
    mask[10:90, 10:90] = True
    (voxels,) = find_lesions([mask]).voxels
    assert len(voxels) <= 256
    assert mask[tuple(voxels.T)].all()
    assert np.ptp(voxels, axis=0).min() > 60


def test_a_tiny_lesion_is_picked_as_often_as_a_huge_one() -> None:
    mask = np.zeros((64, 64), bool)
    mask[:40, :40], mask[60, 60] = True, True
    lesions, rng = find_lesions([mask]), np.random.default_rng(0)
    tiny = sum(bool((lesions.pick(rng) == 60).all()) for _ in range(2000))
    assert 900 < tiny < 1100


@settings(deadline=None)
@given(st.data())
def test_windows_lie_in_the_image_and_hold_their_voxel(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(*[st.integers(1, 40)] * 3))
    size = data.draw(st.tuples(*[st.integers(1, 24)] * 3))
    align = data.draw(st.sampled_from([(), (2, 2, 2), (1, 3, 4)]))
    around = np.array(data.draw(st.tuples(*[st.integers(0, n - 1) for n in shape])))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    chosen = around if data.draw(st.booleans()) else None
    start = choose_start(rng, shape, size, chosen, align)
    for axis, (b, n, s) in enumerate(zip(start, shape, size, strict=True)):
        step = align[axis] if align else 1
        assert b % step == 0
        if n > s:
            assert 0 <= b <= n - s
        else:
            assert b <= 0
            assert b + s >= n - step + 1
        if chosen is not None:
            assert b <= around[axis] < b + s + step - 1


def test_windows_reach_every_corner() -> None:
    rng = np.random.default_rng(0)
    starts = {choose_start(rng, (6, 5), (4, 4)) for _ in range(200)}
    assert starts == {(a, b) for a in range(3) for b in range(2)}


def test_a_small_image_lies_in_the_middle() -> None:
    assert choose_start(np.random.default_rng(0), (4, 9), (8, 9)) == (-2, 0)
    assert choose_start(np.random.default_rng(0), (5, 4), (8, 8), align=(3, 3)) == (-3, -3)


@settings(deadline=None)
@given(st.tuples(*[st.integers(-5, 9)] * 2), st.tuples(*[st.integers(1, 12)] * 2))
def test_cut_continues_by_the_edge_or_by_nothing(
    start: tuple[int, int], size: tuple[int, int]
) -> None:
    array = np.arange(2 * 10 * 8, dtype=np.float32).reshape(2, 10, 8) + 1
    if any(b + s <= 0 or b >= n for b, s, n in zip(start, size, (10, 8), strict=True)):
        return
    for edge, mode in ((True, "edge"), (False, "constant")):
        padded = np.pad(array, ((0, 0), (20, 20), (20, 20)), mode=mode)
        expected = padded[
            :, start[0] + 20 : start[0] + 20 + size[0], start[1] + 20 : start[1] + 20 + size[1]
        ]
        found = cut(array, start, size, repeat_edge=edge)
        np.testing.assert_array_equal(found, expected)
        assert not np.shares_memory(found, array)


@pytest.mark.parametrize(
    ("dims", "scale", "stride", "largest", "crop"),
    [
        (2, (2, 2), 16, (), (192, 192)),
        (2, (4, 4), 16, (584, 565), (192, 192)),
        (2, (4, 4), 32, (584, 100), (256, 128)),
        (3, (2, 2, 2), 8, (), (64, 64, 64)),
        (3, (1, 2, 2), 8, (20, 512, 512), (24, 64, 64)),
    ],
)
def test_default_crop(
    dims: int, scale: tuple[int, ...], stride: int, largest: tuple[int, ...], crop: tuple[int, ...]
) -> None:
    assert default_crop(dims, scale, stride, largest) == crop


def test_a_crop_of_other_dimension_is_refused() -> None:
    with pytest.raises(UsageError, match="needs 1 or 3"):
        fitting_crop((64, 64), (2, 2, 2))
    assert fitting_crop((64,), (2, 2, 2)) == (64, 64, 64)
