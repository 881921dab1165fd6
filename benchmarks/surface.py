"""What do Dice, HD95 and ASSD of a volume cost, beside MedPy and MONAI, and do all agree?

One pair of 192 x 192 x 128 voxels a row: a lesion, and the same one shifted and changed. Each
package is asked for its own HD95 (MedPy pools both directions, MONAI takes the larger one);
here both are told from the distances that are computed once. MONAI's masks are tensors before
the clock starts. DeepMind's package, where it is installed, answers HD95 by area. Rounds take
the packages in turn; times are the processor's, on one thread.

    pip install -e . medpy monai surface-distance-based-measures
    OMP_NUM_THREADS=1 python benchmarks/surface.py --rounds 5
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from statistics import median
from time import process_time

import numpy as np
import torch
from scipy import ndimage

from finemask.metrics import Comparison
from startup import installed, machine, ratio, table

SHAPE, SPACING = (192, 192, 128), (0.8, 0.8, 1.5)
RADII = {"small, 6 mm": 3.0, "medium, 30 mm": 15.0, "large, 120 mm": 60.0}
SEVERAL = "twenty of 8 mm"
Pair = tuple[np.ndarray, np.ndarray]


def ball(centre: np.ndarray, radius: float, bumps: np.ndarray) -> np.ndarray:
    """A ball in mm whose radius varies by a tenth with a smooth field."""
    axes = np.ogrid[tuple(slice(n) for n in SHAPE)]
    squares = (((x - c) * s) ** 2 for x, c, s in zip(axes, centre, SPACING, strict=True))
    return np.sqrt(sum(squares)) < radius * (1 + 0.1 * bumps)


def draw(name: str) -> Pair:
    """Prediction and truth; the prediction is shifted by 2 mm and has other bumps."""
    rng = np.random.default_rng(0)
    fields = [ndimage.gaussian_filter(rng.normal(size=SHAPE), 4) for _ in range(2)]
    bumps = [field / field.std() for field in fields]
    shift = np.array([2.0, 0.0, 0.0]) / SPACING
    middle = np.array(SHAPE) / 2
    if name != SEVERAL:
        pair = [ball(middle + k * shift, RADII[name], bumps[k]) for k in range(2)]
    else:
        centres = rng.uniform(0.15, 0.85, (20, 3)) * SHAPE
        pair = [
            np.any([ball(c + k * shift, 4.0, bumps[k]) for c in centres], axis=0) for k in range(2)
        ]
    return pair[1], pair[0]


def ours(pair: Pair) -> dict[str, float]:
    found = Comparison(*pair, SPACING)
    distances = found.distances
    return {
        "dice": found.counts.dice,
        "max": distances.hd95_max,
        "pooled": distances.hd95_medpy,
        "assd": distances.assd,
    }


def medpy(pair: Pair) -> dict[str, float]:
    from medpy.metric import binary

    return {
        "dice": binary.dc(*pair),
        "pooled": binary.hd95(*pair, voxelspacing=SPACING),
        "assd": binary.assd(*pair, voxelspacing=SPACING),
    }


def monai(pair: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    from monai.metrics import (
        compute_average_surface_distance,
        compute_dice,
        compute_hausdorff_distance,
    )

    known = {"include_background": True, "spacing": SPACING}
    return {
        "dice": float(compute_dice(*pair)),
        "max": float(compute_hausdorff_distance(*pair, percentile=95, **known)),
        "assd": float(compute_average_surface_distance(*pair, symmetric=True, **known)),
    }


def by_area(pair: Pair) -> dict[str, float]:
    return {"area": Comparison(*pair, SPACING).elements.hd95}


def deepmind(pair: Pair) -> dict[str, float]:
    import surface_distance

    pred, truth = pair
    found = surface_distance.compute_surface_distances(truth, pred, SPACING)
    return {"area": surface_distance.compute_robust_hausdorff(found, 95)}


def packages(pair: Pair) -> dict[str, Callable[[], dict[str, float]]]:
    """What is installed, by name."""
    tensors = tuple(torch.from_numpy(mask)[None, None].float() for mask in pair)
    all_of_them: dict[str, tuple[str, Callable[[], dict[str, float]]]] = {
        "finemask": ("finemask", lambda: ours(pair)),
        "MedPy": ("medpy", lambda: medpy(pair)),
        "MONAI": ("monai", lambda: monai(tensors)),
        "finemask, HD95 by area": ("finemask", lambda: by_area(pair)),
        "DeepMind, HD95 by area": ("surface-distance-based-measures", lambda: deepmind(pair)),
    }
    return {name: work for name, (package, work) in all_of_them.items() if installed(package)}


def measure(
    works: Mapping[str, Callable[[], dict[str, float]]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Processor seconds by package and round (the first is not counted), and the answers."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    answers = {}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = process_time()
            answers[name] = work()
            if number:
                seconds[name].append(process_time() - started)
    return seconds, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round, to see that it runs")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = []
    names = (*RADII, SEVERAL)[: 1 if arguments.quick else None]
    for name in names:
        seconds, answers = measure(packages(draw(name)), 1 if arguments.quick else arguments.rounds)
        reference = answers["finemask"] | answers["finemask, HD95 by area"]
        for package, times in seconds.items():
            mine = seconds["finemask, HD95 by area" if "area" in package else "finemask"]
            differences = [abs(value - reference[key]) for key, value in answers[package].items()]
            rows.append(
                [
                    f"{name}: {package}",
                    f"{1000 * median(times):.1f}",
                    f"{ratio(times, mine):.1f}",
                    f"{max(differences):.0e}",
                ]
            )
    versions = ", ".join(f"{p} {installed(p)}" for p in ("medpy", "monai") if installed(p))
    print(f"{machine(1)}; {versions}\n")
    print(table(["lesion: package", "ms", "x finemask", "largest difference"], rows))


if __name__ == "__main__":
    main()
