"""Targets: what readers drew, class by class, and nothing guessed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finemask.case import Case
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.pairs.targets import lesion_masks, target_of, truth_of
from finemask.recipe import PairSettings

HARD, SOFT, READERS = (PairSettings(target=t) for t in ("hard", "soft", "readers"))
TRUTH = np.array([[0, 1], [2, 2]])


def case_with(**labels: np.ndarray) -> Case:
    image = np.zeros((1, 2, 2), np.float32)
    return Case("c3", image, Geometry.regular((2, 2)), source=Path("c3.png"), **labels)


def test_hard_target_has_a_map_a_class() -> None:
    target = target_of(case_with(truth=TRUTH), HARD, 3)
    assert target.dtype == np.float32
    assert target.tolist() == [[[0, 1], [0, 0]], [[0, 0], [1, 1]], [[0, 0], [0, 0]]]


def test_readers_who_marked_nothing_count() -> None:
    readers = np.stack([TRUTH, TRUTH, 0 * TRUTH, np.ones((2, 2), int)])
    target = target_of(case_with(readers=readers), READERS, 2)
    np.testing.assert_allclose(target, [[[0.25, 0.75], [0.25, 0.25]], [[0, 0], [0.5, 0.5]]])


def test_soft_masks_are_taken_as_they_are() -> None:
    soft = np.array([[[0.1, 0.2], [0.3, 1.0]]], np.float32)
    np.testing.assert_array_equal(target_of(case_with(soft=soft), SOFT, 1), soft)


@pytest.mark.parametrize("settings", [HARD, SOFT, READERS])
def test_missing_labels_are_named(settings: PairSettings) -> None:
    with pytest.raises(DataError, match=r"c3.png: case c3 has no .* no labels at all"):
        target_of(case_with(), settings, 1)


def test_labels_of_another_task_are_refused() -> None:
    with pytest.raises(DataError, match="2 foreground classes in truth, the task has 1"):
        target_of(case_with(truth=TRUTH), HARD, 1)
    with pytest.raises(DataError, match="1 foreground classes in soft, the task has 2"):
        target_of(case_with(soft=np.zeros((1, 2, 2), np.float32)), SOFT, 2)


def test_lesions_nobody_is_half_sure_of_are_found() -> None:
    readers = np.zeros((4, 2, 2), int)
    readers[0, 0, 0] = 1
    (mask,) = lesion_masks(readers, READERS, 1)
    assert mask.tolist() == [[True, False], [False, False]]
    (empty,) = lesion_masks(readers * 0, READERS, 1)
    assert not empty.any()


def test_no_target_asks_for_no_labels() -> None:
    none = PairSettings(target="none")
    assert target_of(case_with(), none, 1).shape == (0, 2, 2)
    assert list(lesion_masks(target_of(case_with(), none, 1), none, 1)) == []


def test_answers_are_scored_against_the_mask_that_a_soft_target_has_beside_it() -> None:
    soft = np.array([[[0.0, 0.5], [0.5, 1.0]]], np.float32)  # a ring of one half round one pixel
    mask = np.array([[0, 0], [0, 1]])
    assert truth_of(case_with(soft=soft, truth=mask), SOFT, 1)[0].tolist() == mask.tolist()
    assert truth_of(case_with(soft=soft), SOFT, 1)[0].tolist() == [[0, 1], [1, 1]]
    readers = np.stack([mask, 1 - mask, 1 - mask])
    case = case_with(readers=readers, truth=mask)
    assert truth_of(case, READERS, 1)[0].tolist() == (1 - mask).tolist(), "as the target says"
