"""What do the metrics of grey maps cost, beside PySODMetrics?

Both score the same 8-bit maps of the same size in one process, map by map in turn: S-measure,
E-measure (256 thresholds and adaptive), weighted F, MAE and the curves of Dice, IoU,
sensitivity and specificity. PySODMetrics counts its thresholds in one pass too.

    pip install -e . pysodmetrics
    OMP_NUM_THREADS=1 python benchmarks/metrics.py --rounds 7
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import py_sod_metrics as sod
from scipy import ndimage

from finemask.metrics import cut_everywhere, e_measure_adaptive, mae, minmax, s_measure, weighted_f

SIZES = ((288, 384), (512, 512), (1080, 1350))
"""CVC-ClinicDB, a common training size, endoscopes of today."""
Picture = tuple[np.ndarray, np.ndarray]


def draw(shape: tuple[int, int], number: int) -> Picture:
    """One lesion of about a tenth of the picture, and a map that is unsure of its outline."""
    rng = np.random.default_rng(number)
    centre = [side * rng.uniform(0.3, 0.7) for side in shape]
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - centre[0], columns - centre[1]) / np.sqrt(shape[0] * shape[1])
    wobble = [ndimage.gaussian_filter(rng.normal(size=shape), shape[0] / 20) for _ in range(2)]
    truth, near = (distance + 0.05 * w / w.std() for w in wobble)
    soft = 1 / (1 + np.exp(40 * (near - 0.18)))
    return np.round(255 * soft).astype(np.uint8), truth < 0.18


def ours(grey: np.ndarray, truth: np.ndarray) -> dict[str, Callable[[], Any]]:
    probs = minmax(grey / 255)

    def curves() -> list[np.ndarray]:
        cuts = cut_everywhere(probs, truth)
        return [cuts.dice, cuts.iou, cuts.sensitivity, cuts.specificity]

    return {
        "S-measure": lambda: s_measure(probs, truth),
        "E-measure": lambda: (
            cut_everywhere(probs, truth).alignment,
            e_measure_adaptive(probs, truth),
        ),
        "weighted F": lambda: weighted_f(probs, truth),
        "MAE": lambda: mae(probs, truth),
        "curves": curves,
    }


def theirs(grey: np.ndarray, truth: np.ndarray) -> dict[str, Callable[[], Any]]:
    probs = minmax(grey / 255)
    handlers = (sod.DICEHandler, sod.IOUHandler, sod.RecallHandler, sod.SpecificityHandler)

    def step(metric: Any) -> None:
        metric.step(probs, truth, normalize=False)

    return {
        "S-measure": lambda: step(sod.Smeasure()),
        "E-measure": lambda: step(sod.Emeasure()),
        "weighted F": lambda: step(sod.WeightedFmeasure()),
        "MAE": lambda: step(sod.MAE()),
        "curves": lambda: step(sod.FmeasureV2({h.__name__: h(True, False) for h in handlers})),
    }


def seconds(work: Callable[[], Any]) -> float:
    started = perf_counter()
    work()
    return perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one round, to see that it runs")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rounds = 1 if arguments.quick else arguments.rounds
    print("| size: metric | finemask ms | PySODMetrics ms | ratio |\n| --- | ---: | ---: | ---: |")
    for shape in SIZES[: 1 if arguments.quick else None]:
        pairs = [draw(shape, number) for number in range(rounds)]
        totals = []
        for name in ours(*pairs[0]):
            times = []
            for number, pair in enumerate((pairs[0], *pairs)):
                one = seconds(ours(*pair)[name]), seconds(theirs(*pair)[name])
                times += [one] if number else []  # the first fills caches
            totals.append(times)
            print(row(f"{shape[0]}x{shape[1]}: {name}", times))
        together = [tuple(map(sum, zip(*same, strict=True))) for same in zip(*totals, strict=True)]
        print(row(f"{shape[0]}x{shape[1]}: all", together))


def row(name: str, times: list[Any]) -> str:
    mine, other = (1000 * median(column) for column in zip(*times, strict=True))
    ratio = median(b / a for a, b in times)
    return f"| {name} | {mine:.2f} | {other:.2f} | {ratio:.1f} |"


if __name__ == "__main__":
    main()
