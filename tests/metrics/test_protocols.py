from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from finemask.metrics import METRICS, PROTOCOLS, Comparison


def test_every_protocol_names_known_metrics() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.name == name
        assert protocol.headline in protocol.metrics
        assert set(protocol.metrics) <= set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_a_perfect_mask_is_no_worse_than_a_bad_one(name) -> None:
    truth = np.zeros((20, 20), bool)
    truth[5:12, 5:12] = True
    moved = np.roll(truth, 4)
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


def test_metrics_start_without_torch() -> None:
    code = "import finemask.metrics, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
