"""How long does a Soft Mask take, beside PyMatting's closed-form matting?

The image is grey with a blurred, noisy lesion; the trimap opens a band of 5 to 15
pixels along its outline. finemask makes the trimap and the Soft Mask. PyMatting
gets the finished trimap and the image in the three channels that it needs, with
epsilon three times ours, which is the same problem; with its default
preconditioner (incomplete Cholesky) and with the faster one (Jacobi). In 3-D
nothing comparable was found.

Processor time is counted, not the clock's, so that other work on the machine counts little.
All take turns of five calls, round by round, as over a folder of images. The first round, in
which PyMatting compiles, is left out.

    pip install -c constraints.txt -e . pymatting    # without it, PyMatting's columns are empty
    OMP_NUM_THREADS=1 python benchmarks/matting.py --rounds 15
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from statistics import median
from time import process_time

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from finemask import soft_mask
from finemask.softmask.matting import EPSILON
from finemask.softmask.trimap import UNKNOWN, trimap_from_mask
from startup import installed, machine, ratio, table

CALLS = 5
PICTURES = [(side, band) for side in (64, 256, 512) for band in (5, 10, 15)]
VOLUMES = [(64, 4), (64, 6), (64, 10)]
SPACINGS = {"equal spacings": (1.0, 1.0, 1.0), "slices 3 times apart": (3.0, 1.0, 1.0)}


def lesion(side: int, dims: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A grey image in [0, 1] and the mask of the lesion in it, a third of the side across."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.arange(side) - side / 2 + 0.3] * dims, indexing="ij")
    angle = np.arctan2(axes[-1], axes[-2])
    outline = 0.16 * side * (1 + 0.12 * np.sin(3 * angle) + 0.06 * np.sin(5 * angle))
    depth = outline - np.sqrt(sum(a**2 for a in axes))
    grain = rng.standard_normal((2, *depth.shape))
    image = 0.3 + 0.4 / (1 + np.exp(-depth / 1.5)) + 0.02 * grain[0]
    image += 0.15 * gaussian_filter(grain[1], 2)
    return image.clip(0, 1).astype(np.float32), depth > 0


def pymatting_of(
    image: NDArray[np.float32], trimap: NDArray[np.float32]
) -> dict[str, Callable[[], NDArray[np.float64]]]:
    """PyMatting as a user would call it, and with its fastest preconditioner."""
    from pymatting import estimate_alpha_cf
    from pymatting.preconditioner.jacobi import jacobi

    colours = np.repeat(image[..., None].astype(np.float64), 3, 2)
    known, epsilon = trimap.astype(np.float64), {"epsilon": 3 * EPSILON}
    return {
        "default": lambda: estimate_alpha_cf(colours, known, laplacian_kwargs=epsilon),
        "jacobi": lambda: estimate_alpha_cf(
            colours, known, preconditioner=jacobi, laplacian_kwargs=epsilon
        ),
    }


def measure(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of processor time of a call of each work, in each round."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            started = process_time()
            for _ in range(CALLS):
                work()
            if number:
                times[name].append(1000 * (process_time() - started) / CALLS)
    return times


def picture_row(side: int, band: int, rounds: int) -> list[str]:
    """One size and band, beside PyMatting."""
    image, mask = lesion(side, 2)
    trimap = trimap_from_mask(mask, band / 2)
    works: dict[str, Callable[[], object]] = {
        "trimap": lambda: trimap_from_mask(mask, band / 2),
        "both": lambda: soft_mask(image, trimap_from_mask(mask, band / 2)),
    }
    peers = pymatting_of(image, trimap) if installed("pymatting") else {}
    times = measure(works | peers, rounds)
    alpha = soft_mask(image, trimap)
    apart = [float(np.abs(peer() - alpha).max()) for peer in peers.values()]
    return [
        f"{side} x {side}, {band} px",
        f"{np.count_nonzero(trimap == UNKNOWN)}",
        f"{median(times['trimap']):.2f}",
        f"{median(times['both']):.2f}",
        *(f"{median(times[p]):.2f}" if peers else "" for p in ("default", "jacobi")),
        *(f"{ratio(times[p], times['both']):.1f}" if peers else "" for p in ("default", "jacobi")),
        f"{max(apart):.0e}" if peers else "",
    ]


def volume_rows(side: int, band: int, rounds: int) -> list[list[str]]:
    """One size and band in 3-D."""
    image, mask = lesion(side, 3)
    rows = []
    for name, spacing in SPACINGS.items():
        trimap = trimap_from_mask(mask, band / 2, spacing)
        works = {
            "trimap": lambda s=spacing: trimap_from_mask(mask, band / 2, s),
            "both": lambda t=trimap, s=spacing: soft_mask(image, t, spacing_mm=s),
        }
        times = measure(works, rounds)
        unknown = np.count_nonzero(trimap == UNKNOWN)
        cells = [median(times["trimap"]), median(times["trimap"]) + median(times["both"])]
        sides = " x ".join([str(side)] * 3)
        rows.append([f"{sides}, {band} voxels, {name}", f"{unknown}", *(f"{c:.0f}" for c in cells)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    arguments = parser.parse_args()
    rounds = 1 if arguments.quick else arguments.rounds
    pictures, volumes = (PICTURES[:1], VOLUMES[:1]) if arguments.quick else (PICTURES, VOLUMES)
    print(f"{machine(1, 'PyMatting')}\n")
    head = ["picture, band", "unknown", "trimap ms", "trimap + Soft Mask ms", "PyMatting ms"]
    head += ["its fastest ms", "PyMatting / this", "its fastest / this", "largest difference"]
    print(table(head, [picture_row(*size, rounds) for size in pictures]))
    head = ["volume, band", "unknown", "trimap ms", "trimap + Soft Mask ms"]
    rows = [row for size in volumes for row in volume_rows(*size, max(rounds // 5, 1))]
    print("\n" + table(head, rows))


if __name__ == "__main__":
    main()
