"""Small data sets for `finemask compare`, made of the real images in ``../shared/data``.

Whole pictures reduced so that a few hundred training steps see them entire (skin, ultrasound,
polyps), and lung nodules as stacks of slices with the masks that at least half of the four
readers drew. Everything is made by area averaging; nothing is drawn at random. The split of
``<set>.split.json`` tests on a third of the patients.

    python benchmarks/real_sets.py --data ../shared/data --out runs/sets --only skin,nodules
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finemask.datasets import load_dataset, make_split
from finemask.datasets.split import PARTS
from finemask.io import read_image, write_image, write_labels


def pictures(source: Path, out: Path, side: int, multiple: int = 16) -> Iterator[tuple[str, str]]:
    """Reduced pictures and masks; yields the name and the group of each."""
    for image in sorted((source / "images").iterdir()):
        name = image.stem
        with Image.open(image) as picture:
            shape = reduced(picture.size, side, multiple)
            area = picture.resize(shape, Image.Resampling.BOX)
        area.save(out / "images" / f"{name}.png")
        with Image.open(source / "masks" / f"{name}.png") as mask:
            share = mask.convert("L").point(lambda v: 255 * (v > 0)).convert("F")
            hard = np.asarray(share.resize(shape, Image.Resampling.BOX)) >= 127.5
        Image.fromarray(np.uint8(255) * hard.astype(np.uint8)).save(out / "masks" / f"{name}.png")
        yield name, group_of(source.name, name)


def reduced(size: tuple[int, int], side: int, multiple: int) -> tuple[int, int]:
    """Width and height with the longer side reduced to ``side``, both whole multiples."""
    factor = side / max(size)
    width, height = (max(multiple, multiple * round(n * factor / multiple)) for n in size)
    return width, height


def group_of(data: str, name: str) -> str:
    """Frames of a colonoscopy video are of one polyp when their numbers are near."""
    if data != "polyp":
        return name
    series, number = name.rsplit("_", 1)
    return f"{series}_{(int(number) - 1) // 8}"


def nodules(source: Path, out: Path, side: int, least_slices: int = 4) -> Iterator[tuple[str, str]]:
    """Windows around the nodules of the stacks; masks by half of the readers or more."""
    with (source / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["n_slices"]) >= least_slices]
    for row in rows:
        image, grid = read_image(source / row["volume_image"])
        bits = read_image(source / row["volume_raterbits"])[0][0].astype(np.uint8)
        readers = np.stack([(bits >> k) & 1 for k in range(4)])
        mask: NDArray[np.bool_] = readers.mean(0) >= 0.5
        if not mask.any():
            continue
        middle = [round(c) for c in np.argwhere(mask).mean(0)[1:]]
        start = [
            min(max(c - side // 2, 0), n - side)
            for c, n in zip(middle, mask.shape[1:], strict=True)
        ]
        window = (slice(None), *(slice(s, s + side) for s in start))
        offset = (0, *start)
        cropped = grid.cropped(offset, mask[window].shape)
        name = row["case_id"]
        write_image(out / "images" / f"{name}.nii.gz", image[(slice(None), *window)], cropped)
        write_labels(out / "masks" / f"{name}.nii.gz", mask[window].astype(np.uint8), cropped)
        yield name, row["patient"]


SETS = {
    "skin": ("ISIC2018_skin_512", pictures, 256),
    "ultrasound": ("BUSI", pictures, 256),
    "polyps": ("polyp", pictures, 256),
    "nodules": ("LIDC_IDRI_multirater", nodules, 96),
}
"""Source, maker, and voxels of the longer side of an HR image."""


FRACTIONS = (0.5, 0.15, 0.35)
"""Of train, val and test: a larger test part than usual, since cases are few."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default=",".join(SETS), help="sets to make, comma separated")
    parser.add_argument("--side", type=int, help="longer side of the HR images")
    arguments = parser.parse_args()
    for name in arguments.only.split(","):
        folder, make, side = SETS[name]
        out = arguments.out / name
        for part in ("images", "masks"):
            (out / part).mkdir(parents=True, exist_ok=True)
        groups = list(make(arguments.data / folder, out, arguments.side or side))
        with (out / "groups.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("case", "group"), *groups])
        split = make_split(load_dataset(out), fractions=FRACTIONS)
        split.save(arguments.out / f"{name}.split.json", overwrite=True)
        print(
            f"{out}: {len(groups)} cases; {', '.join(f'{p} {len(split.part(p))}' for p in PARTS)}"
        )


if __name__ == "__main__":
    main()
