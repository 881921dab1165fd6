from __future__ import annotations

import math

import numpy as np
import pytest

from finemask.metrics import Comparison, Confusion, pr_auc
from finemask.metrics.scores import (
    Score,
    group_by_size,
    mean_curves,
    pooled,
    score,
    score_failure,
    summarise,
)


def of_size(size: float, dice: float = 0.5, group: str = "p", **more) -> Score:
    return Score(f"c{size}", group, "lesion", float(size), "mm", {"dice": dice}, **more)


def square(side: int) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    mask[2 : 2 + side, 2 : 2 + side] = True
    return mask


NAMES = {"case": "a", "group": "p", "label": "lesion", "unit": "mm"}


def test_scores_what_is_asked_for() -> None:
    result = score(Comparison(square(4), square(8), (0.5, 0.5)), ("dice", "hd95"), **NAMES)
    assert result.values == {"dice": pytest.approx(0.4), "hd95": pytest.approx(2.0, rel=0.5)}
    assert result.size == pytest.approx(2 * math.sqrt(16 / math.pi))
    assert (result.counts, result.flag) == (Confusion(16, 0, 48, 336), "")


def test_a_failed_case_is_the_worst_even_without_a_lesion() -> None:
    for truth in (square(8), square(0)):
        metrics = ("dice", "specificity", "mae", "hd95")
        result = score_failure(Comparison(square(0), truth, (1.0, 1.0)), metrics, **NAMES)
        assert result.values == {"dice": 0, "specificity": 0, "mae": 1, "hd95": math.inf}
        assert result.failed


def test_tertiles_share_the_lesions_out_and_leave_empty_truths_aside() -> None:
    grouped, sizes = group_by_size([of_size(s) for s in (0, 1, 2, 3, 4, 5, 6)])
    names = [s.size_group for s in grouped]
    assert names == ["empty", "small", "small", "medium", "medium", "large", "large"]
    assert sizes.names == ("small", "medium", "large")
    assert len(sizes.edges["lesion"]) == 2


def test_a_lesion_as_large_as_an_edge_is_in_the_group_above() -> None:
    grouped, sizes = group_by_size([of_size(s) for s in (3.9, 4, 9.9, 10)], (4, 10))
    assert [s.size_group for s in grouped] == ["<4", "4-10", "4-10", ">=10"]
    assert sizes.rule == "edges given"


def test_lesions_of_one_size_are_one_group() -> None:
    assert {s.size_group for s in group_by_size([of_size(5)] * 4)[0]} == {"all"}


@pytest.mark.parametrize("edges", [(4, 4), (10, 4), (0, 3), (math.inf,), (math.nan,)])
def test_refuses_edges_that_make_no_sense(edges) -> None:
    with pytest.raises(ValueError, match="must be positive and ascend"):
        group_by_size([], edges)


@pytest.mark.fault("F96")
def test_undefined_values_are_counted_with_their_reason() -> None:
    scores = [
        of_size(1, 0.4),
        of_size(2, 0.8),
        of_size(0, math.nan, flag="both empty"),
        of_size(3, math.inf, flag="prediction empty"),
        of_size(4, math.nan),
    ]
    grouped, sizes = group_by_size(scores, (2.5,))
    table = summarise(grouped, ["dice"], sizes.names)["dice"]["lesion"]
    assert table["all"]["n"] == 2
    assert table["all"]["mean"] == pytest.approx(0.6)
    assert table["all"]["undefined"] == {
        "both empty": 1, "prediction empty": 1, "not defined": 1,
    }  # fmt: skip
    assert table["empty"]["n"] == 0
    assert set(table) == {"all", "<2.5", ">=2.5", "empty"}


def test_the_maximum_is_that_of_the_mean_curve_and_not_the_mean_of_the_maxima() -> None:
    early, late = np.zeros(256), np.zeros(256)
    early[51], late[204] = 1, 0.5
    scores = [of_size(1, curves={"e_256": early}), of_size(2, curves={"e_256": late}), of_size(3)]
    assert mean_curves(scores) == {
        "lesion": {
            "e_256": {
                "n": 2,
                "mean": pytest.approx(0.75 / 256),
                "max": 0.5,
                "threshold_at_max": pytest.approx(0.2),
            }
        }
    }


def test_a_failed_case_pulls_the_curve_down() -> None:
    compared = Comparison(square(0), square(8), (1.0, 1.0))
    failed = score_failure(compared, ("dice_256",), ("dice_256",), **NAMES)
    assert failed.values["dice_256"] == 0
    perfect = of_size(8, curves={"dice_256": np.ones(256)})
    assert mean_curves([failed, perfect])["lesion"]["dice_256"]["max"] == 0.5


def test_pooled_values_add_voxels_first() -> None:
    scores = [
        of_size(9, counts=Confusion(950, 50, 50, 0)),
        of_size(1, counts=Confusion(0, 0, 10, 0)),
        of_size(2),
    ]
    assert pooled(scores)["lesion"]["dice_pooled"] == pytest.approx(1900 / 2010)


def test_pooled_pr_auc_is_that_of_all_voxels_together() -> None:
    rng = np.random.default_rng(0)
    cases, scores = [], []
    for k, share in enumerate((0.05, 0.6)):
        truth = rng.random((30, 40)) < share
        # Grey levels, so that 256 thresholds miss none.
        probs = np.round(255 * np.clip(0.3 * truth + 0.7 * rng.random(truth.shape), 0, 1)) / 255
        cases.append((probs, truth))
        comparison = Comparison(probs > 0.5, truth, (1.0, 1.0), probs)
        names = {"case": str(k), "group": "p", "label": "lesion", "unit": "px"}
        scores.append(score(comparison, ["pr_auc", "mcc"], **names))
    probs, truth = (np.concatenate([case[n].ravel() for case in cases]) for n in (0, 1))
    found = pooled(scores)["lesion"]
    assert found["pr_auc_pooled"] == pytest.approx(pr_auc(probs, truth), abs=1e-3)
    assert found["pr_auc_pooled"] != pytest.approx(np.mean([s.values["pr_auc"] for s in scores]))
    counts = scores[0].counts + scores[1].counts
    assert found["mcc_pooled"] == counts.mcc
    assert found["informedness_pooled"] == counts.informedness


def test_a_failed_case_lowers_the_pooled_pr_auc() -> None:
    names = {"group": "p", "label": "lesion", "unit": "px"}
    truth = square(10).astype(bool)
    perfect = score(
        Comparison(truth, truth, (1.0, 1.0), truth * 1.0), ["pr_auc"], case="a", **names
    )
    failed = score_failure(
        Comparison(np.zeros_like(truth), truth, (1.0, 1.0)), ["pr_auc"], case="b", **names
    )
    assert pooled([perfect])["lesion"]["pr_auc_pooled"] == pytest.approx(1)
    assert pooled([perfect, failed])["lesion"]["pr_auc_pooled"] < 0.9
    masks_only = score(Comparison(truth, truth, (1.0, 1.0)), ["pr_auc"], case="c", **names)
    assert "pr_auc_pooled" not in pooled([perfect, masks_only])["lesion"]
