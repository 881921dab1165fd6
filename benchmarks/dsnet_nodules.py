"""DSNet on lung nodules that four readers marked: rows of the paper's Tables III to VI, narrow.

Nodules of ``LIDC_IDRI_multirater`` that all four readers marked, one slice each, split by patient.
A teacher learns from all slices of the patients who do not test; Soft Masks of the readers are
made by matting, on a grid four times finer, and by two simpler ways. Every row has the same
steps, learns from LR images four times coarser than its masks, and is scored on the images' own
grid against what at least half of the readers marked. What is done is not done again.

    python benchmarks/dsnet_nodules.py --data ../shared/data --out runs/dsnet --minutes 11
    python benchmarks/dsnet_nodules.py --data ../shared/data --out runs/dsnet --tables
    python benchmarks/dsnet_nodules.py --data ../shared/data --out runs/membranes --membranes
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import finemask as fm
from finemask.datasets import Split, load_dataset, make_split
from finemask.io import read_image, read_labels, write_image, write_labels
from finemask.methods.dsnet import DSNet
from finemask.metrics.statistics import bootstrap_interval

SIDE, SCALE, READERS = 32, 4, 4
SHARES = (0.5, 0.1, 0.4)
WINDOW = ("prepare.window_hu=0,255", "prepare.window_to_unit=true", "prepare.normalise=none")
TEACHER_STEPS, STEPS = 120, 50
TEACHER = (
    *WINDOW, "config.width=16", "blocks=4", "skip=true", "critic_width=8", "content_width=8",
    "content_level=3", "w_pixel=1.0", "learning_rate=0.001", "batch_size=8", "crop=64x64",
    "validate_cases=20", f"train.validate_every={TEACHER_STEPS // 4}", f"steps={TEACHER_STEPS}",
)  # fmt: skip
PUPIL = (
    *WINDOW, "config.width=8", "depth=4", "critic_width=16", "learning_rate=0.003", "crop=128x128",
    f"train.validate_every={STEPS // 2}", f"steps={STEPS}",
)  # fmt: skip
LABELS = {"matting": "Soft Mask", "dilation": "[30] ring", "resampling": "[31] resampled"}
ROWS: Mapping[str, tuple[str, str]] = {
    "U-Net": ("U-Net", "matting"),
    "backbone": ("backbone", "matting"),
    "+ SR input": ("+ SR input", "matting"),
    "+ DRTM": ("+ DRTM", "matting"),
    "+ Soft Mask loss": ("+ Soft Mask loss", "matting"),
    "+ GAN loss (DSNet)": ("+ GAN loss", "matting"),
    "DSNet, ring [30]": ("+ GAN loss", "dilation"),
    "DSNet, resampled [31]": ("+ GAN loss", "resampling"),
    "neither DTM nor CSF": ("neither DTM nor CSF", "matting"),
    "DTM, no CSF": ("DTM", "matting"),
}
"""Name of each row: its ablation, and the kind of soft labels."""
LAST = ("neither DTM nor CSF", "DTM, no CSF")
"""Of Table V, done after all others."""


def rows_of(source: Path) -> list[dict[str, str]]:
    with (source / "manifest.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["n_raters"]) == READERS]


def make_nodules(source: Path, out: Path) -> None:
    """Squares round what half of the readers marked, at the pixels they were drawn on."""
    groups = []
    for row in rows_of(source):
        name = row["case_id"]
        image, grid = read_image(source / row["image"])
        masks = [read_labels(source / row[f"mask_rater{r}"])[0] > 0 for r in range(READERS)]
        shares = np.mean(masks, 0)
        middle = [round(c) for c in np.argwhere(shares >= min(0.5, shares.max())).mean(0)]
        start = [min(max(c - SIDE // 2, 0), n - SIDE)
                 for c, n in zip(middle, shares.shape, strict=True)]  # fmt: skip
        window = tuple(slice(s, s + SIDE) for s in start)
        cropped = grid.cropped(start, (SIDE, SIDE))
        write_image(out / "images" / f"{name}.png", image[(slice(None), *window)], cropped)
        for r, mask in enumerate(masks, 1):
            part = mask[window].astype(np.uint8)
            write_labels(out / f"masks_reader{r}" / f"{name}.png", part, cropped)
        groups.append((name, row["patient"]))
    with (out / "groups.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("case", "group"), *groups])


def make_slices(source: Path, out: Path, split: Split) -> None:
    """Every slice round the nodules, no masks, each in the part of its patient."""
    parts = {name: part for part in ("train", "val", "test") for name in split.part(part)}
    table = [("case", "image", "group", "split")]
    for row in rows_of(source):
        part = parts[row["case_id"]]
        if part == "test":
            continue
        stack, grid = read_image(source / row["volume_image"])
        plane = fm.Geometry.regular(grid.shape[1:])
        for k, picture in enumerate(stack[0]):
            name = f"{row['case_id']}_{k:02d}"
            write_image(out / "images" / f"{name}.png", picture[None], plane)
            table.append((name, f"images/{name}.png", row["patient"], part))
    with (out / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)


def make_sets(source: Path, out: Path) -> Split:
    """Nodules, slices, soft labels and the split; made once."""
    nodules = out / "nodules"
    if not (out / "split.json").exists():
        make_nodules(source, nodules)
        split = make_split(load_dataset(nodules), fractions=SHARES)
        make_slices(source, out / "slices", split)
        for method in LABELS:
            fm.soften(nodules, out / method, "raters", method=method, scale=(SCALE,),
                      window=(0, 255), overwrite=True)  # fmt: skip
        replace(split, fingerprint="").save(out / "split.json")
    return Split.load(out / "split.json")


def work(source: Path, out: Path, seeds: int, until: float) -> None:
    """Whatever is not done yet, until the time is over."""
    split = make_sets(source, out)
    teacher = out / "teacher"
    if not (teacher / "examples.png").exists():
        fm.train(out / "slices", teacher, method="srgan", scale=(SCALE,), settings=TEACHER,
                 overwrite=True)  # fmt: skip
    for seed, row in sorted(itertools.product(range(seeds), ROWS), key=lambda w: w[1] in LAST):
        ablation, labels = ROWS[row]
        folder = out / "rows" / f"{row} {seed}".replace(" ", "_").replace(",", "")
        if (folder / "scores.json").exists() or time.monotonic() > until:
            continue
        start = time.process_time()
        changes = [f"config.{k}={json.dumps(v)}" for k, v in DSNet.ABLATIONS[ablation].items()]
        run = fm.train(
            out / labels, folder / "run", method="dsnet", teacher=teacher, overwrite=True,
            settings=[*PUPIL, *changes, f"train.seed={seed}"], split=out / "split.json",
        )  # fmt: skip
        fm.predict(run, out / "nodules", folder / "masks", part="test", grid="source",
                   overwrite=True)  # fmt: skip
        scored = fm.evaluate(folder / "masks", out / "nodules", cases=split.test)
        told = {
            "row": row, "seed": seed, "threshold": run.threshold, "step": run.meta["step"],
            "seconds": time.process_time() - start, "pooled": scored.summary["pooled"],
            "cases": [{"case": s.case, "group": s.group, "size": s.size,
                       **{k: s.values[k] for k in ("dice", "sensitivity", "precision")}}
                      for s in scored.scores],
        }  # fmt: skip
        (folder / "scores.json").write_text(json.dumps(told))
        print(f"{row}, seed {seed}: Dice {scored.mean('dice'):.4f}, "
              f"{told['seconds']:.0f} s of CPU", flush=True)  # fmt: skip


def membranes(source: Path, out: Path) -> None:
    """A short training on membranes of cells (ISBI 2012), Soft Masks made of one binary mask."""
    data, table = out / "data", [("case", "image", "mask", "split")]
    with (source / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for k, row in enumerate(rows):  # neighbours are serial sections, so parts are runs of them
        name, part = f"section_{k:02d}", "train" if k < 12 else "val" if k < 15 else "test"
        image, grid = read_image(source / row["image"])
        corner = (0, 0), (256, 256)
        window = (slice(0, 256), slice(0, 256))
        mask = (read_labels(source / row["mask"])[0][window] == 0).astype(np.uint8)
        write_image(data / "images" / f"{name}.png", image[(slice(None), *window)],
                    grid.cropped(*corner), overwrite=True)  # fmt: skip
        write_labels(data / "masks" / f"{name}.png", mask, grid.cropped(*corner), overwrite=True)
        table.append((name, f"images/{name}.png", f"masks/{name}.png", part))
    with (data / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(table)
    fm.soften(data, out / "soft", "mask", radius=2, window=(0, 255), overwrite=True)
    fm.train(data, out / "teacher", method="srgan", scale=(2,), overwrite=True,
             settings=[*TEACHER, "steps=60", "train.validate_every=30"])  # fmt: skip
    run = fm.train(out / "soft", out / "run", method="dsnet", teacher=out / "teacher",
                   settings=[*PUPIL, "lesion_fraction=0.0"], overwrite=True)  # fmt: skip
    fm.predict(run, out / "soft", out / "masks", part="test", mode="matched", overwrite=True)
    test = Split.load(run.path / "splits.json").test
    print(fm.evaluate(out / "masks", data, out / "scores", cases=test, overwrite=True).text())


def tables(out: Path) -> Iterator[str]:
    """A line a row: means over nodules (each the mean of its seeds), pooled counts, spreads."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted((out / "rows").glob("*/scores.json")):
        told = json.loads(file.read_text())
        found.setdefault(told["row"], []).append(told)
    yield ("| row | seeds | Dice | 95 % interval | SD of nodules | seeds apart | sensitivity | "
           "precision | Dice pooled |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    for row in ROWS:
        if row not in found:
            continue
        runs = found[row]
        values = {m: np.array([[c[m] for c in run["cases"]] for run in runs])
                  for m in ("dice", "sensitivity", "precision")}  # fmt: skip
        groups = [c["group"] for c in runs[0]["cases"]]
        cases = values["dice"].mean(0)
        low, high = bootstrap_interval(cases, groups)
        apart = np.ptp(values["dice"].mean(1))
        pooled = np.mean([run["pooled"]["lesion"]["dice_pooled"] for run in runs])
        yield (f"| {row} | {len(runs)} | {cases.mean():.3f} | {low:.3f} to {high:.3f} | "
               f"{cases.std():.3f} | {apart:.3f} | {np.nanmean(values['sensitivity']):.3f} | "
               f"{np.nanmean(values['precision']):.3f} | {pooled:.3f} |")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=600, help="start nothing after so long")
    parser.add_argument("--membranes", action="store_true", help="the short training on these")
    parser.add_argument("--tables", action="store_true", help="print what is done so far")
    arguments = parser.parse_args()
    if arguments.membranes:
        membranes(arguments.data / "ISBI2012_EM_membrane", arguments.out)
        return
    if not arguments.tables:
        until = time.monotonic() + 60 * arguments.minutes
        work(arguments.data / "LIDC_IDRI_multirater", arguments.out, arguments.seeds, until)
    print("\n".join(tables(arguments.out)))


if __name__ == "__main__":
    main()
