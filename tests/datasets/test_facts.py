from __future__ import annotations

import numpy as np
import pytest

from finemask.case import Case
from finemask.datasets.facts import find_lesions, foreground, measure
from finemask.geometry import Geometry

GRID = Geometry.regular((4, 4))
IMAGE = np.arange(16, dtype=np.float32).reshape(1, 4, 4)


def test_readers_count_by_half_of_those_asked() -> None:
    readers = np.zeros((4, 4, 4), np.uint8)
    for reader, marked in enumerate((1, 2, 3)):
        readers[reader, 0, :marked] = 1
    masks = foreground(Case("a", IMAGE, GRID, readers=readers), 1)
    assert masks is not None
    assert masks[0][0].tolist() == [True, True, False, False], "3, 2 and 1 of 4 marked it"


def test_soft_counts_from_a_half_and_truth_comes_first() -> None:
    soft = np.zeros((1, 4, 4), np.float32)
    soft[0, 0] = (0.4, 0.5, 0.6, 1.0)
    case = Case("a", IMAGE, GRID, soft=soft)
    masks = foreground(case, 1)
    assert masks is not None
    assert masks[0].sum() == 3
    truth = np.ones((4, 4), np.uint8)
    masks = foreground(Case("a", IMAGE, GRID, truth=truth, soft=soft), 1)
    assert masks is not None
    assert masks[0].all()
    assert foreground(Case("a", IMAGE, GRID), 1) is None


def test_lesions_touching_by_a_corner_are_one() -> None:
    mask = np.zeros((4, 4), bool)
    mask[0, 0] = mask[1, 1] = mask[3, 3] = True
    lesions = find_lesions(mask, Geometry.regular((4, 4), spacing=(0.5, 2.0)))
    assert [lesion.voxels for lesion in lesions] == [2, 1]
    assert lesions[1].diameter == pytest.approx(2 / np.sqrt(np.pi))


def test_classes_are_measured_apart() -> None:
    truth = np.zeros((4, 4), np.uint8)
    truth[0, 0], truth[2:, 2:] = 2, 1
    facts = measure(Case("a", IMAGE, GRID, truth=truth), 3)
    assert facts.class_voxels == (4, 1, 0)
    assert [len(group) for group in facts.lesions] == [1, 1, 0]
    assert not facts.empty
    assert measure(Case("a", IMAGE, GRID, truth=truth * 0), 3).empty
    assert not measure(Case("a", IMAGE, GRID), 3).empty, "nobody looked"
