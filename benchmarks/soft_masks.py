"""Do Soft Masks tell how readers would mark a lesion, and better than simpler soft labels?

Multi-reader lung nodules (LIDC-IDRI), one slice each. Some readers are hidden; from what the
others left a soft label is made, and its value in every pixel should be the chance that a
hidden reader marks it. What is given are three masks, two, one, or the RECIST axes of one.

Settings are chosen on one half of the patients (least Brier score), scores are of the other
half. They are taken within five pixels of the outlines that were given: a region that the
answer does not decide. Differences are paired, and patients are drawn again.

    python benchmarks/soft_masks.py --data ../shared/data/LIDC_IDRI_multirater --out runs/softmasks
"""

from __future__ import annotations

import argparse
import itertools
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from finemask.datasets.phantoms.readers import diameters
from finemask.io import write_text
from finemask.report.figures import PALETTE, blank_figure, tidy
from finemask.softmask.baselines import dilation_ring, resampled
from finemask.softmask.grids import neighbourhood, to_unit
from finemask.softmask.matting import soft_mask
from finemask.softmask.recist import Mark, ellipse
from finemask.softmask.softening import Softening, soften_mark, soften_mask, soften_readers
from finemask.softmask.trimap import LESION, UNKNOWN, trimap_from_readers
from reader_study import (
    Method,
    decide,
    differences_table,
    load,
    majority,
    rounds,
    scores_table,
    sweep_table,
)


def blurred(share: np.ndarray, sigma: float) -> np.ndarray:
    """The control: as soft as one likes, and blind to the image."""
    return ndimage.gaussian_filter(share.astype(np.float64), sigma)


def matting_of_mask(image: np.ndarray, masks: np.ndarray, eps: float, radius: float) -> np.ndarray:
    return soften_mask(image, masks[0], Softening(epsilon=eps, radius=radius or None)).soft


def matting_of_readers(image: np.ndarray, masks: np.ndarray, eps: float) -> np.ndarray:
    return soften_readers(image, masks, Softening(epsilon=eps)).soft


def matting_of_wider_band(
    image: np.ndarray, masks: np.ndarray, eps: float, wider: float
) -> np.ndarray:
    """As of readers, but what lies so many pixels from their disagreement is open, too."""
    trimap = trimap_from_readers(masks)
    core = trimap == LESION
    open_ = ndimage.distance_transform_edt(trimap != UNKNOWN) <= wider
    depth = ndimage.distance_transform_edt(core)
    open_ &= ~core | (depth < depth.max())  # the innermost stay certain
    unit = to_unit(image, (), neighbourhood(masks.any(0)))
    return soft_mask(unit, np.where(open_, np.float32(UNKNOWN), trimap), eps)


def mark_of(mask: np.ndarray) -> Mark:
    """RECIST axes as whoever drew the mask would measure them."""
    long, short = (axis.tolist() for axis in diameters(mask.astype(np.float64), np.ones(2)))
    return Mark((tuple(long[0]), tuple(long[1])), (tuple(short[0]), tuple(short[1])))


def of_mark(image: np.ndarray, mask: np.ndarray, settings: Softening) -> np.ndarray:
    whole = np.zeros(mask.shape, np.float32)
    window, made = soften_mark(image, mark_of(mask), settings)
    whole[window] = made.soft
    return whole


def matting_of_mark(image: np.ndarray, masks: np.ndarray, eps: float, radius: float) -> np.ndarray:
    return of_mark(image, masks[0], Softening(epsilon=eps, radius=radius or None))


def cut_of_mark(image: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The rough mask alone: its ring is too narrow for a pixel."""
    return of_mark(image, masks[0], Softening(method="dilation", radius=0.1))


def ellipse_of(masks: np.ndarray) -> np.ndarray:
    return ellipse(mark_of(masks[0]), masks[0].shape)


EPSILONS = (1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
FEW_EPSILONS = (1e-5, 1e-4, 1e-3, 1e-2)
RADII = (0.0, 1.0, 2.0, 3.0, 4.0)
"""Half widths of the unknown band; 0 stands for the width by the size of the lesion."""
WIDTHS = ((1.0,), (1.5,), (2.0,), (3.0,))
SIGMAS = ((0.5,), (0.75,), (1.0,), (1.5,), (2.0,))
OF_READERS = (
    Method("mean of the readers", lambda _, m: m.mean(0)),
    Method("matting", matting_of_readers, ("epsilon",), tuple((e,) for e in EPSILONS)),
    Method("matting, wider band", matting_of_wider_band, ("epsilon", "wider by"),
           tuple(itertools.product(FEW_EPSILONS, (1.0, 2.0)))),
    Method("mean, blurred", lambda _, m, s: blurred(m.mean(0), s), ("sigma",), SIGMAS),
    Method("dilation ring", lambda _, m, w: dilation_ring(majority(m), w), ("width",), WIDTHS),
    Method("resampling", lambda _, m: resampled(majority(m), (1, 1))),
    Method("hard consensus", lambda _, m: majority(m)),
)  # fmt: skip
OF_MASK = (
    Method("hard mask", lambda _, m: m[0]),
    Method("matting", matting_of_mask, ("epsilon", "radius"),
           tuple(itertools.product(EPSILONS, RADII))),
    Method("mask, blurred", lambda _, m, s: blurred(m[0], s), ("sigma",), SIGMAS),
    Method("dilation ring", lambda _, m, w: dilation_ring(m[0], w), ("width",), WIDTHS),
    Method("resampling", lambda _, m: resampled(m[0], (1, 1))),
)  # fmt: skip
OF_MARK = (
    Method("ellipse", lambda _, m: ellipse_of(m)),
    Method("GrabCut", cut_of_mark),
    Method("GrabCut and matting", matting_of_mark, ("epsilon", "radius"),
           ((1e-4, 0.0), (1e-3, 0.0), (1e-2, 0.0), (1e-3, 1.0), (1e-3, 2.0))),
    Method("ellipse, blurred", lambda _, m, s: blurred(ellipse_of(m), s), ("sigma",), SIGMAS),
    Method("ellipse, dilation ring", lambda _, m, w: dilation_ring(ellipse_of(m), w), ("width",),
           WIDTHS),
    Method("ellipse, resampling", lambda _, m: resampled(ellipse_of(m), (1, 1))),
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """How many readers are given, what is made of them, and which differences are told."""

    given: int
    methods: tuple[Method, ...]
    differences: tuple[tuple[str, str], ...]


FROM_READERS = (
    ("matting", "mean of the readers"),
    ("matting", "mean, blurred"),
    ("matting, wider band", "mean of the readers"),
    ("matting, wider band", "mean, blurred"),
    ("matting, wider band", "matting"),
)
FROM_MASK = (("matting", "hard mask"), ("matting", "mask, blurred"), ("matting", "resampling"))
FROM_MARK = (("GrabCut and matting", "ellipse"), ("GrabCut and matting", "ellipse, blurred"))
TASKS = {
    "three readers": Task(3, OF_READERS, FROM_READERS),
    "two readers": Task(2, OF_READERS, FROM_READERS),
    "one mask": Task(1, OF_MASK, FROM_MASK),
    "RECIST axes": Task(1, OF_MARK, FROM_MARK),
}


def study(name: str, data: Path, least: int, quick: bool) -> tuple[str, dict[str, np.ndarray]]:
    """One task: its tables, and the pooled bins of each method for the figure."""
    task, nodules = TASKS[name], load(data, least)[: 12 if quick else None]
    tuning, held_out = (
        list(rounds([n for n in nodules if n.tunes is tunes], task.given))
        for tunes in (True, False)
    )
    outcomes = [decide(method, tuning, held_out) for method in task.methods]
    missed = max(outcome.scores("outside").mean() for outcome in outcomes)
    counted = len({one.nodule.name for one in tuning}), len(outcomes[0].tallies)
    told = [
        f"## Given: {name}",
        f"{counted[0]} nodules choose the settings, {counted[1]} are scored. At most "
        f"{100 * missed:.1f} % of the squared error lies outside the region.",
        scores_table(outcomes),
        differences_table(outcomes, task.differences),
        *(sweep_table(outcome) for outcome in outcomes if len(outcome.swept) > 1),
    ]
    return "\n\n".join(told), {o.method.name: o.pooled for o in outcomes}


COLOURS = {"wider": 2, "matting": 0, "mean of": 1, "blurred": 3, "ring": 4, "resampling": 5}
"""Place in the palette by a word of the method's name."""


def draw_reliability(curves: dict[str, dict[str, np.ndarray]], path: Path) -> None:
    """The share of hidden readers who marked pixels of each label; labels of 0 and 1 only apart."""
    figure = blank_figure(7.6, 7.6)
    for axes, (task, pooled) in zip(figure.subplots(2, 2).flat, curves.items(), strict=False):
        axes.plot([0, 1], [0, 1], color="#999999", lw=1)
        for name, bins in pooled.items():
            bins = bins[bins[:, 0] > 0.002 * bins[:, 0].sum()]
            if len(bins) < 3:
                continue
            colour = PALETTE[next(place for word, place in COLOURS.items() if word in name)]
            label, marked = bins[:, 1:].T / bins[:, 0]
            axes.plot(label, marked, "o-", ms=3, lw=1.2, color=colour, label=name)
        axes.set_title(f"given: {task}", fontsize=10, loc="left")
        axes.set_xlabel("value of the label", fontsize=9)
        axes.set_ylabel("share of hidden readers", fontsize=9)
        axes.legend(fontsize=7, frameon=False)
        tidy(axes)
    figure.tight_layout()
    figure.savefig(path, dpi=100, facecolor="white")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/LIDC_IDRI_multirater"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--least", type=int, default=4, help="readers who marked the nodule")
    parser.add_argument("--tasks", default=",".join(TASKS), help="what is given")
    parser.add_argument("--jobs", type=int, default=1, help="tasks at a time")
    parser.add_argument("--quick", action="store_true", help="few nodules, to see that it runs")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = arguments.tasks.split(",")
    with ProcessPoolExecutor(arguments.jobs) as pool:
        given = arguments.data, arguments.least, arguments.quick
        running = {name: pool.submit(study, name, *given) for name in names}
        found = {name: future.result() for name, future in running.items()}
    tables = "\n\n".join(told for told, _ in found.values())
    write_text(arguments.out / "tables.md", f"{tables}\n", overwrite=True)
    draw_reliability({n: curves for n, (_, curves) in found.items()},
                     arguments.out / "reliability.png")  # fmt: skip


if __name__ == "__main__":
    main()
