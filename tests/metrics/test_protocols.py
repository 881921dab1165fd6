from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from finemask.metrics import CURVES, METRICS, PROTOCOLS, Comparison


def test_every_protocol_names_known_metrics() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.headline in protocol.metrics
        assert set(protocol.metrics) <= set(METRICS)
        assert set(protocol.shown) <= set(protocol.metrics)
        assert set(protocol.curves) <= set(CURVES)
        assert len(set(protocol.metrics)) == len(protocol.metrics)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_mask_is_no_worse_than_a_bad_one(name) -> None:
    truth = np.zeros((20, 20), bool)
    truth[5:12, 5:12] = truth[15:18, 2:5] = True
    moved = np.roll(truth, (2, 4), axis=(0, 1))
    moved[15:] = moved[:2] = False  # the second lesion is missed
    moved[:2, 17:] = True  # and one found that is none
    perfect = METRICS[name].compute(Comparison(truth, truth, (1.0, 1.0), truth * 1.0))
    shifted = METRICS[name].compute(Comparison(moved, truth, (1.0, 1.0), moved * 1.0))
    sign = 1 if METRICS[name].higher_is_better else -1
    assert sign * perfect > sign * shifted
    assert sign * shifted >= sign * METRICS[name].worst


def test_mae_is_of_the_probabilities_and_never_of_the_mask() -> None:
    truth = np.array([[True, False]])
    probs = np.array([[0.75, 0.25]])
    alone, soft = Comparison(truth, truth, (1.0, 1.0)), Comparison(truth, truth, (1.0, 1.0), probs)
    assert np.isnan(alone.mae)
    assert (alone.mae_mask, soft.mae, soft.mae_mask) == (0, 0.25, 0)


@pytest.mark.parametrize(
    ("pred", "truth", "expected"),
    [
        ([1, 0], [1, 0], ""),
        ([0, 0], [0, 0], "both empty"),
        ([0, 1], [0, 0], "truth empty"),
        ([0, 0], [0, 1], "prediction empty"),
    ],
)
def test_says_which_mask_is_empty(pred, truth, expected) -> None:
    masks = np.array([pred], bool), np.array([truth], bool)
    assert Comparison(*masks, (1.0, 1.0)).emptiness == expected


def test_a_map_is_stretched_where_the_protocol_says_so_and_never_for_mae() -> None:
    truth = np.array([[True, False, False]])
    weak = np.array([[51, 34, 0]], np.float32) / np.float32(255)
    plain = Comparison.of_map(weak, truth, (1.0, 1.0))
    stretched = Comparison.of_map(weak, truth, (1.0, 1.0), stretch=True)
    assert plain.map[0].tolist() == [0.2, 34 / 255, 0]
    assert stretched.map[0].tolist() == [1, 2 / 3, 0]
    assert (plain.counts.tp, stretched.counts.tp, stretched.counts.fp) == (0, 1, 1)
    assert plain.mae == stretched.mae == pytest.approx((0.8 + 34 / 255) / 3)
    assert plain.mae_minmax == stretched.mae_minmax == pytest.approx(2 / 9)


def test_the_mean_of_a_curve_is_the_metric_of_its_name() -> None:
    truth = np.zeros((9, 9), bool)
    truth[2:6, 3:7] = True
    compared = Comparison.of_map(np.random.default_rng(0).random((9, 9)), truth, (1.0, 1.0))
    for name, curve in CURVES.items():
        values = curve.compute(compared)
        assert values.shape == (256,)
        assert METRICS[name].compute(compared) == pytest.approx(values.mean())


def test_metrics_start_without_torch() -> None:
    code = "import finemask.metrics, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
