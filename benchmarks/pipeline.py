"""How many training samples a second come out of one process, beside MONAI's transforms?

Both sides read the same generated phantoms from memory and give an LR image, an HR
image and an HR target of one size: a window (every second one on a lesion), flips,
rotation and zoom of every second window, contrast and brightness, area downsampling.
MONAI gets its cached data set with the positions of the foreground found beforehand.
The samples are alike, not equal: finemask warps a window that is cut with a margin,
picks lesions whatever their size, and warps the target as soft maps; MONAI warps
after the cut, picks foreground voxels, and warps labels by the nearest.

    pip install -c constraints.txt -e . monai    # MONAI's rows are left out without it
    python benchmarks/pipeline.py --rounds 7
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from time import perf_counter
from typing import Any

import torch

from finemask.case import Case
from finemask.datasets.phantoms.make import make_phantom
from finemask.pairs.batches import PairDataset
from finemask.pairs.targets import target_of
from finemask.preparation import prepare
from finemask.recipe import PairSettings, PrepareSettings
from startup import machine, monai_version, ratio, table

SCALE = 2
CASES = 6
Draw = Callable[[int], Any]


@dataclass(frozen=True)
class Setting:
    """Which phantoms, cut to which HR window, how many samples a round."""

    name: str
    kind: str
    size: tuple[int, ...]
    crop: tuple[int, ...]
    samples: int


SETTINGS = (
    Setting("2-D RGB, 192x192 of 384x384", "skin", (384, 384), (192, 192), 200),
    Setting("3-D, 64x64x64 of 96x128x128", "nodules", (96, 128, 128), (64, 64, 64), 50),
)
QUICK = (
    Setting("2-D RGB, 64x64 of 96x96", "skin", (96, 96), (64, 64), 10),
    Setting("3-D, 16x16x16 of 24x24x24", "nodules", (24, 24, 24), (16, 16, 16), 10),
)


def finemask_samples(cases: Sequence[Case], setting: Setting) -> Draw:
    """`PairDataset` as training uses it, default augmentation."""
    normalise = PrepareSettings().normalise
    scale = (SCALE,) * len(setting.crop)
    samples = PairDataset(
        cases, scale, PairSettings(), 1, seed=0, crop=setting.crop, normalise=normalise
    )
    return samples.__getitem__


def monai_samples(cases: Sequence[Case], setting: Setting) -> Draw:
    """The same steps with MONAI's dictionary transforms, as its tutorials put them together."""
    from monai import data, transforms

    pair, image = ["image", "label"], ["image"]
    dims, settings = len(setting.crop), PairSettings()
    angle = math.radians(settings.rotation_deg)
    chain = [
        transforms.EnsureTyped(pair),
        transforms.FgBgToIndicesd("label"),
        transforms.RandCropByPosNegLabeld(
            pair,
            label_key="label",
            spatial_size=setting.crop,
            pos=settings.lesion_fraction,
            neg=1 - settings.lesion_fraction,
            fg_indices_key="label_fg_indices",
            bg_indices_key="label_bg_indices",
        ),
        *(transforms.RandFlipd(pair, prob=0.5, spatial_axis=axis) for axis in range(dims)),
        transforms.RandAffined(
            pair,
            prob=settings.warp_probability,
            rotate_range=angle if dims == 2 else (angle, 0, 0),
            scale_range=(settings.zoom,) * dims,
            mode=("bilinear", "nearest"),
            padding_mode=("border", "zeros"),
        ),
        transforms.RandScaleIntensityd(image, factors=settings.intensity, prob=1.0),
        transforms.RandShiftIntensityd(image, offsets=settings.intensity, prob=1.0),
        transforms.CopyItemsd(image, names=["image_lr"]),
        transforms.Resized(
            ["image_lr"], spatial_size=[s // SCALE for s in setting.crop], mode="area"
        ),
    ]
    items = [{"image": case.image, "label": target_of(case, settings, 1)} for case in cases]
    cached = data.CacheDataset(items, transforms.Compose(chain), progress=False)
    return lambda number: cached[number % len(items)]


def measure(draws: dict[str, Draw], setting: Setting, rounds: int) -> dict[str, list[float]]:
    """Milliseconds a sample of each side in each round."""
    times: dict[str, list[float]] = {side: [] for side in draws}
    numbers = {side: count() for side in draws}
    for draw in draws.values():
        for number in range(2 * CASES):
            draw(number)
    for _ in range(rounds):
        for side, draw in draws.items():
            started = perf_counter()
            for _ in range(setting.samples):
                draw(next(numbers[side]))
            times[side].append(1000 * (perf_counter() - started) / setting.samples)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="1 is what a loader's worker has")
    parser.add_argument("--quick", action="store_true", help="tiny, to see that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for setting in QUICK if arguments.quick else SETTINGS:
        phantoms = (make_phantom(setting.kind, n, size=setting.size).case for n in range(CASES))
        cases = [prepare(case, PrepareSettings()) for case in phantoms]
        draws = {"finemask `PairDataset`": finemask_samples(cases, setting)}
        if monai_version():
            draws["MONAI `CacheDataset`"] = monai_samples(cases, setting)
        times = measure(draws, setting, 2 if arguments.quick else arguments.rounds)
        ours = next(iter(times.values()))
        rows += [
            [
                f"{setting.name}: {side}",
                f"{1000 / median(values):.0f}",
                f"{median(values):.2f}",
                f"{min(values):.2f}",
                f"{ratio(values, ours):.2f}",
            ]
            for side, values in times.items()
        ]
    print(f"{machine(arguments.threads)}\n")
    head = ["samples", "per second", "median ms", "best ms", "x finemask's time"]
    print(table(head, rows))


if __name__ == "__main__":
    main()
