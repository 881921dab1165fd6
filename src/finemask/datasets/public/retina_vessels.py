"""Retinal vessels: DRIVE, CHASE_DB1, STARE, HRF, PRIME-FP20 and FIVES.

Layouts, as they are unpacked:

* DRIVE: ``training/`` and ``test/`` with ``images/21_training.tif``,
  ``1st_manual/21_manual1.gif``, and in ``test/`` a second observer in ``2nd_manual/``. The
  GIFs are palette or grey pictures. The field of view in ``mask/`` is left out.
* CHASE_DB1: one folder of ``Image_01L.jpg``, ``Image_01L_1stHO.png``, ``..._2ndHO.png``;
  01 to 14 are children, L and R their eyes.
* STARE: ``im0001.ppm`` with ``im0001.ah.ppm`` and ``im0001.vk.ppm``, unpacked or ``.gz``, in
  folders such as ``stare-images/``, ``labels-ah/`` and ``labels-vk/``. PPM is not compressed;
  it is written as PNG, pixel by pixel the same.
* HRF: ``images/01_dr.JPG`` (also ``_g``, ``_h``) and ``manual1/01_dr.tif``; 15 healthy eyes, 15
  with diabetic retinopathy, 15 with glaucoma, of 45 people.
* PRIME-FP20: ``Images_FP_PRIME-FP20/ImgFP01_PRIME-FP20.tif``,
  ``Labels_FP_PRIME-FP20/LabelFP01_PRIME-FP20.png``, as the authors' repository
  DeepVesselSeg4FP describes it, and ``Masks_FP_PRIME-FP20/MaskFP01_...`` with the valid area, of
  which no description was found: any letters before FP01 will do.
* FIVES: ``train/Original/1_A.png`` and ``train/Ground truth/1_A.png``, the same in ``test/``; A
  is macular degeneration, D diabetic retinopathy, G glaucoma, N normal. Patients are not told.

DS2F (sheet 002 section 7) resizes HRF to 1752 x 1168 and PRIME-FP20, cut to its valid area, to
1408 x 1296 (width x height), and cross-validates in five folds: scikit-learn's shuffle with
seed 66 over the sorted file names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from finemask.datasets.dataset import Part
from finemask.datasets.public.grids import changed, cut_window, resized
from finemask.datasets.public.layout import Raw, case_name, listed, matching, partner
from finemask.datasets.public.masks import read_foreground, read_old_picture, read_values
from finemask.datasets.public.records import Computed, Draft, Item, Picture
from finemask.datasets.public.splits import declared, fold_splits
from finemask.datasets.split import Split
from finemask.geometry import Geometry
from finemask.masks import bounding_box

LABELS = {"vessel": 1}
HRF_DS2F = (1168, 1752)
PRIME_DS2F = (1296, 1408)
DS2F_FOLDS, DS2F_SEED = 5, 66
FOLDS_NOTE = "DS2F's fold: KFold(5, shuffle, seed 66) over the sorted file names; no validation"


def mask_of(path: Path) -> Computed:
    """A two-coloured mask."""
    return Computed(partial(read_foreground, path), (path,))


def read_drive(raw: Raw) -> Draft:
    """DRIVE; the second observer of the test half is reader 2 where both are there."""
    home = raw.home("training/images", "test/images")
    parts: dict[Part, str] = {"train": "training", "test": "test"}
    items = []
    for part, name in parts.items():
        below = home.below(name)
        images = matching(below.folder("images"), r"(\d+)_\w+\.tif")
        manual = below.root / "1st_manual"
        first = matching(manual, r"(\d+)_manual1\.gif") if manual.is_dir() else {}
        if part == "train" or first:
            below.folder("1st_manual")
        again = below.root / "2nd_manual"
        second = matching(again, r"(\d+)_manual2\.gif") if again.is_dir() else {}
        for key, image in images.items():
            mask = mask_of(partner(first, key, image, manual)) if first else None
            both = (mask, mask_of(second[key])) if mask and key in second else ()
            items.append(Item(key, (image,), mask, both, split=part))
    unmarked = [item.name for item in items if item.mask is None]
    notes = (f"{len(unmarked)} test images come without masks",) if unmarked else ()
    marked = [item for item in items if item.mask is not None]
    return Draft(tuple(items), LABELS, {"official": declared(marked)}, notes=notes)


def read_chase(raw: Raw) -> Draft:
    """CHASE_DB1: both observers are readers, the first is the mask; the child is the group."""
    home = raw.home("Image_*_1stHO.png|*/Image_*_1stHO.png").root
    images = matching(home, r"Image_(\d+[LR])\.jpg")
    first = matching(home, r"Image_(\d+[LR])_1stHO\.png")
    second = matching(home, r"Image_(\d+[LR])_2ndHO\.png")
    items = []
    for key, image in images.items():
        mask = mask_of(partner(first, key, image, home, "first observer's mask"))
        other = mask_of(partner(second, key, image, home, "second observer's mask"))
        number = int(key[:-1])
        items.append(
            Item(
                f"Image_{key}", (image,), mask, (mask, other), group=f"child_{key[:-1]}",
                split="train" if number <= 10 else "test",
            )
        )  # fmt: skip
    note = "the usual division: the first 20 images (10 children) train, the last 8 test"
    return Draft(tuple(items), LABELS, {"first20": declared(items, note)})


def read_stare(raw: Raw) -> Draft:
    """STARE: A. Hoover is reader 1 and the mask, V. Kouznetsova reader 2."""
    found: dict[str, dict[str, Path]] = {"image": {}, "ah": {}, "vk": {}}
    folders = [raw.root, *(p for p in listed(raw.root) if p.is_dir())]
    folders += [p for f in folders[1:] for p in listed(f) if p.is_dir()]
    for path in (p for folder in folders for p in listed(folder) if p.is_file()):
        match = re.fullmatch(r"(im\d+)(?:\.(ah|vk))?\.ppm(?:\.gz)?", path.name, re.IGNORECASE)
        if match:
            found[(match[2] or "image").lower()].setdefault(match[1], path)
    if not found["image"] or not found["ah"]:
        missing = "im0001.ah.ppm" if found["image"] else "im0001.ppm"
        fix = "unpack stare-images.tar, labels-ah.tar and labels-vk.tar into it"
        raise raw.lacks(f"files such as {missing}", fix)
    items = []
    for key, image in found["image"].items():
        if key not in found["ah"]:
            continue  # 377 of the 397 images were never marked
        picture = Computed(partial(read_old_picture, image), (image,))
        readers = tuple(mask_of(found[who][key]) for who in ("ah", "vk") if key in found[who])
        items.append(Item(key, (picture,), readers[0], readers if len(readers) > 1 else ()))
    left = len(found["image"]) - len(items)
    notes = (f"{left} images without marks are left out",) if left else ()
    return Draft(tuple(items), LABELS, notes=notes)


def read_hrf(raw: Raw) -> Draft:
    """HRF, as it is or at DS2F's size, with DS2F's folds."""
    home = raw.home("images/*_*.jpg|images/*_*.JPG", "manual1/*.tif")
    images = matching(home.folder("images"), r"(\d+_(?:dr|g|h))\.jpe?g")
    masks = matching(home.folder("manual1"), r"(\d+_(?:dr|g|h))\.tif")
    items = [
        Item(key, (image,), mask_of(partner(masks, key, image, home.root / "manual1")))
        for key, image in images.items()
    ]
    if raw.variant == "ds2f":
        items = [resized(item, HRF_DS2F) for item in items]
    return Draft(tuple(items), LABELS, ds2f_folds(images))


def ds2f_folds(files: Mapping[str, Path]) -> dict[str, Split]:
    """DS2F's folds of images by their official file names."""
    names = sorted(files, key=lambda name: files[name].name)
    if len(names) < DS2F_FOLDS:
        return {}
    return fold_splits(names, DS2F_FOLDS, DS2F_SEED, "ds2f", FOLDS_NOTE)


def read_prime(raw: Raw) -> Draft:
    """PRIME-FP20, whole or cut to its valid area and at DS2F's size."""
    home = raw.home("Images*/ImgFP*", "Labels*/LabelFP*")
    folders = {kind: home.folder(f"{kind}*") for kind in ("Images", "Labels")}
    images = matching(folders["Images"], r"ImgFP(\d+)\w*(?:-FP20)?\.tiff?")
    labels = matching(folders["Labels"], r"LabelFP(\d+)\w*(?:-FP20)?\.(?:png|tiff?)")
    valid: dict[str, Path] = {}
    if raw.variant == "ds2f":
        folder = home.folder("Masks*|FOV*")
        valid = matching(folder, r"[A-Za-z]*FP(\d+)\w*(?:-FP20)?\.(?:png|tiff?)")
    items = []
    for key, image in images.items():
        item = Item(f"FP{key}", (image,), mask_of(partner(labels, key, image, folders["Labels"])))
        if raw.variant == "ds2f":
            area = partner(valid, key, image, folder, "valid area")
            item = resized(within(item, area), PRIME_DS2F)
        items.append(item)
    files = {f"FP{key}": path for key, path in images.items()}
    return Draft(tuple(items), LABELS, ds2f_folds(files))


def within(item: Item, area: Path) -> Item:
    """An item cut to the smallest rectangle that holds a marked area."""
    return changed(item, partial(_cut_to, area), area.name, ".png")


def _cut_to(area: Path, array: NDArray[Any], geometry: Geometry, is_mask: bool) -> Picture:
    values, _ = read_values(area)
    box = bounding_box(values > values.max() / 2) or tuple(slice(0, n) for n in values.shape)
    start, shape = [s.start for s in box], [s.stop - s.start for s in box]
    leading = array[None] if is_mask else array
    cut = cut_window(leading, start, shape, 0)
    return (cut[0] if is_mask else cut), geometry.cropped(start, shape)


def read_fives(raw: Raw) -> Draft:
    """FIVES in its own halves, 600 to train and 200 to test."""
    home = raw.home("train/Original", "test/Original")
    items = []
    parts: tuple[Part, ...] = ("train", "test")
    for part in parts:
        below = home.below(part)
        images = matching(below.folder("Original"), r"(\d+_[ADGN])\.png")
        truth = below.folder("Ground truth|Ground Truth|GroundTruth")
        masks = matching(truth, r"(\d+_[ADGN])\.png")
        for key, image in images.items():
            mask = mask_of(partner(masks, key, image, truth))
            items.append(Item(case_name(f"{part}_{key}"), (image,), mask, split=part))
    note = "the official 600 and 200 images, as DS2F takes them; no validation"
    return Draft(tuple(items), LABELS, {"ds2f": declared(items, note)})
