"""Metrics of grey maps against values from outside this package: a table, and PySODMetrics."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from finemask.metrics import (
    cut_everywhere,
    dice_soft,
    e_measure_adaptive,
    iou_half,
    mae,
    minmax,
    s_measure,
    weighted_f,
)
from finemask.metrics.thresholds import cut_adaptively

ROWS, COLUMNS = np.mgrid[:20, :20]
GAUSSIAN = np.exp(-((ROWS - 9.5) ** 2 + (COLUMNS - 10.5) ** 2) / 18)
SOFT = (255 * GAUSSIAN).astype(np.uint8)


def box(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((20, 20), bool)
    mask[rows, columns] = True
    return mask


SQUARE = box(slice(6, 14), slice(6, 14))
NOTHING = np.zeros((20, 20), bool)
PIXEL = box(slice(7, 8), slice(9, 10))
TIED = box(slice(2, 5), slice(2, 4))
GOLDEN = {
    # map, truth: mean Dice and IoU of 256 thresholds, S, S of PySODMetrics,
    # E mean, max and adaptive, weighted F; Dice, IoU, S (not ours) and E of M2SNet's code
    "perfect": (
        (255 * SQUARE, SQUARE),
        (0.997171, 0.996719, 1.000000, 1.000000, 0.999569, 1.002506, 1.002506, 1.000000),
        (1, 1, 1.005051, 1.002506),
    ),
    "shifted by two": (
        (255 * np.roll(SQUARE, 2, axis=0), SQUARE),
        (0.748148, 0.598281, 0.756160, 0.756160, 0.927669, 0.930324, 0.930324, 0.784523),
        (0.75, 0.6, 0.759541, 0.930324),
    ),
    "Gaussian": (
        (SOFT, SQUARE),
        (0.584385, 0.450522, 0.827835, 0.827835, 0.690063, 0.964880, 0.936229, 0.627058),
        (0.622964, 0.636364, 0.831661, 0.936229),
    ),
    "nothing found": (
        (255 * NOTHING, SQUARE),
        (0.001078, 0.000625, 0.420000, 0.420000, 0.250627, 0.250627, 0.250627, 0),
        (0, 0, 0.42, 0.250627),
    ),
    "nothing there, nothing found": (
        (255 * NOTHING, NOTHING),
        (0, 0, 1, 1, 0.998590, 1.002506, 0, 0),
        (1, 1, 1, 0),
    ),
    "one pixel": (
        (255 * PIXEL, PIXEL),
        (0.996113, 0.996104, 1.000000, 1.000000, 0.999569, 1.002506, 1.002506, 1),
        (1, 1, 1.001135, 1.001707),
    ),
    "centroid at one half": (
        (SOFT, TIED),
        (0.000193, 0.000097, 0.428593, 0.426224, 0.483063, 0.909667, 0.312326, 0.012295),
        (0.000382, 0, 0.426253, 0.312326),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_values(name: str) -> None:
    (grey, truth), (dice, iou, s, _, e_mean, e_max, e_adaptive, f), m2snet = GOLDEN[name]
    probs = minmax(grey / 255)
    cuts = cut_everywhere(probs, truth)
    found = {
        "dice": (cuts.dice.mean(), dice),
        "iou": (cuts.iou.mean(), iou),
        "s": (s_measure(probs, truth), s),
        "e mean": (cuts.alignment.mean(), e_mean),
        "e max": (cuts.alignment.max(), e_max),
        "e adaptive": (e_measure_adaptive(probs, truth), e_adaptive),
        "weighted f": (weighted_f(probs, truth), f),
        "dice, m2snet": (dice_soft(probs, truth), m2snet[0]),
        "iou, m2snet": (iou_half(probs, truth), m2snet[1]),
        "e, m2snet": (cut_adaptively(probs, truth).e_measure(eps=1e-8)[0], m2snet[3]),
    }
    for what, (value, wanted) in found.items():
        assert value == pytest.approx(wanted, abs=1e-6), what


def region(probs: np.ndarray, truth: np.ndarray, rounding) -> float:
    """The region part of the S-measure about a centroid rounded in some way, written anew."""
    row, column = (int(rounding(c)) + 1 for c in np.argwhere(truth).mean(axis=0))
    total = 0.0
    for rows in (slice(0, row), slice(row, None)):
        for columns in (slice(0, column), slice(column, None)):
            p, g = probs[rows, columns], truth[rows, columns] * 1.0
            if p.size:
                x, y, n = p.mean(), g.mean(), max(p.size - 1, 1)
                both = ((p - x) * (g - y)).sum() / n
                variances = (((p - x) ** 2).sum() + ((g - y) ** 2).sum()) / n
                up, down = 4 * x * y * both, (x * x + y * y) * variances
                total += p.size / truth.size * (up / down if up else float(not down))
    return total


@pytest.mark.parametrize("name", [n for n, row in GOLDEN.items() if row[0][1].any()])
def test_the_s_measure_of_pysodmetrics_differs_by_its_rounding_alone(name: str) -> None:
    (grey, truth), (_, _, matlab, pysod, *_), _ = GOLDEN[name]
    probs = minmax(grey / 255)
    ours, theirs = region(probs, truth, lambda c: np.floor(c + 0.5)), region(probs, truth, np.round)
    assert s_measure(probs, truth) + 0.5 * (theirs - ours) == pytest.approx(pysod, abs=1e-6)
    assert (ours == theirs) == (matlab == pysod)


def test_a_perfect_mask_has_an_s_measure_of_one_unlike_in_m2snets_code() -> None:
    for name in ("perfect", "one pixel"):
        (grey, truth), _, m2snet = GOLDEN[name]
        assert s_measure(grey / 255, truth) == pytest.approx(1, abs=1e-9)
        assert m2snet[2] > 1.001


PYSOD = json.loads(Path(__file__).with_name("sod_maps.json").read_text())["cases"]


@pytest.mark.parametrize("number", range(len(PYSOD)))
def test_agrees_with_pysodmetrics(number: int) -> None:
    case = PYSOD[number]
    grey = np.array([list(bytes.fromhex(row)) for row in case["grey"]])
    truth = np.array([[c == "1" for c in row] for row in case["truth"]])
    probs = minmax(grey / 255)
    cuts = cut_everywhere(probs, truth)
    curves = {
        "dice": cuts.dice, "iou": cuts.iou, "sensitivity": cuts.sensitivity, "e": cuts.alignment,
    }  # fmt: skip
    found = {
        "s_measure": s_measure(probs, truth),
        "weighted_f": weighted_f(probs, truth),
        "mae": mae(probs, truth),
        "e_adaptive": e_measure_adaptive(probs, truth),
        **{f"{n}_mean": c.mean() for n, c in curves.items()},
        **{f"{n}_max": c.max() for n, c in curves.items()},
        **{f"{n}_at_128": c[128] for n, c in curves.items()},
    }
    assert found.keys() == case["values"].keys()
    for what, value in found.items():
        wanted = case["values"][what]
        if what == "s_measure" and case["s_measure_is_wrong"]:
            assert 0 < value <= 1
            assert wanted is None or value != pytest.approx(wanted, abs=1e-6)
        else:
            assert value == pytest.approx(wanted, abs=1e-9), what


def test_the_frozen_maps_hold_what_pysodmetrics_gets_wrong() -> None:
    wrong = [reason for case in PYSOD for reason in case["s_measure_is_wrong"]]
    assert sorted(wrong) == ["centroid at one half", "empty quadrant"]
