from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from finemask.metrics import detect_lesions
from finemask.metrics.detection import painted
from finemask.metrics.lesions import equivalent_diameter_mm

MASKS = arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7)))


def boxes(*corners: tuple[int, int, int, int], shape: tuple[int, int] = (20, 20)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    for top, bottom, left, right in corners:
        mask[top:bottom, left:right] = True
    return mask


@given(st.data())
def test_kinds_are_those_of_looking_at_each_object_alone(data: st.DataObject) -> None:
    truth = data.draw(MASKS)
    pred = data.draw(arrays(bool, truth.shape))
    found = detect_lesions(pred, truth, 1)
    eight = np.ones((3, 3))
    lesions, n = ndimage.label(truth, eight)
    parts, m = ndimage.label(pred, eight)
    expected = []
    for k in range(1, n + 1):
        touching = set(parts[lesions == k]) - {0}
        answer = np.isin(parts, list(touching)) & pred
        overlap = 2 * (answer & (lesions == k)).sum() / (answer.sum() + (lesions == k).sum())
        expected.append(("found" if touching else "missed", (lesions == k).sum(), overlap))
    expected += [("false", (parts == k).sum(), 0) for k in range(1, m + 1)
                 if not truth[parts == k].any()]  # fmt: skip
    assert sorted((x.kind, x.voxels, round(x.dice, 9)) for x in found.lesions) == sorted(
        (kind, voxels, round(float(d), 9)) for kind, voxels, d in expected
    )


def test_one_in_two_pieces_is_found_once_and_two_in_one_are_found() -> None:
    whole = boxes((2, 6, 2, 12))
    pieces = boxes((2, 6, 2, 5), (2, 6, 8, 12))
    apart = detect_lesions(pieces, whole, 1)
    assert [x.kind for x in apart.lesions] == ["found"]
    assert apart.lesions[0].dice == pytest.approx(2 * 28 / (40 + 28))
    merged = detect_lesions(whole, pieces, 1)
    assert [x.kind for x in merged.lesions] == ["found", "found"]
    assert merged.f1 == 1.0


def test_a_stricter_overlap_makes_a_miss_but_no_false_alarm() -> None:
    truth, pred = boxes((2, 6, 2, 6)), boxes((2, 6, 5, 9))  # IoU 4 / 28
    assert detect_lesions(pred, truth, 1).sensitivity == 1.0
    strict = detect_lesions(pred, truth, 1, least_iou=0.15)
    assert [x.kind for x in strict.lesions] == ["missed"]
    assert strict.count("false") == 0


def test_sizes_are_in_mm_and_places_in_voxels() -> None:
    truth = boxes((2, 6, 3, 5))
    spacing = (0.5, 2.0)
    (lesion,) = detect_lesions(truth, truth, spacing).lesions
    assert lesion.diameter_mm == pytest.approx(equivalent_diameter_mm(truth, spacing))
    assert lesion.centre == (3.5, 3.5)
    volume = np.zeros((5, 6, 7), bool)
    volume[1, 2, 3] = True
    (lesion,) = detect_lesions(~volume & False, volume, (2.0, 1.0, 1.0)).lesions
    assert lesion.kind == "missed"
    assert lesion.centre == (1.0, 2.0, 3.0)
    assert lesion.diameter_mm == pytest.approx((6 * 2 / math.pi) ** (1 / 3))


def test_nothing_at_all() -> None:
    nothing = np.zeros((4, 4), bool)
    found = detect_lesions(nothing, nothing, 1)
    assert found.lesions == ()
    assert math.isnan(found.sensitivity)
    assert math.isnan(found.f1)
    assert not painted(found, (4, 4))[0].any()
    false = detect_lesions(~nothing, nothing, 1)
    assert math.isnan(false.sensitivity)
    assert false.f1 == 0.0


def test_whole_lesions_are_painted() -> None:
    truth = boxes((1, 4, 1, 4), (10, 14, 10, 14))
    pred = boxes((3, 6, 3, 6), (17, 19, 1, 3))
    whole, answer = painted(detect_lesions(pred, truth, 1), truth.shape)
    assert np.array_equal(whole > 0, truth)
    assert np.array_equal(answer > 0, boxes((1, 4, 1, 4), (17, 19, 1, 3)))
