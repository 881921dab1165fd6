"""Volumes in folders of their own: BraTS 2020, PROMISE12, a liver MR folder, and the layouts of
the Medical Segmentation Decathlon and of nnU-Net.

Layouts, as they are unpacked:

* BraTS 2020: ``MICCAI_BraTS2020_TrainingData/BraTS20_Training_001/BraTS20_Training_001_t2.nii.gz``
  and ``_flair``, ``_t1``, ``_t1ce``, ``_seg`` (also as ``.nii``). Case 355's labels are called
  ``W39_1998.09.19_Segm.nii`` in one distribution; any one file with ``seg`` in its name is
  taken. Labels 1 (necrotic core), 2 (edema) and 4 (enhancing tumour); 4 becomes 3.
* PROMISE12: ``Case00.mhd``, ``Case00.raw``, ``Case00_segmentation.mhd`` and ``.raw``, in one folder
  or in parts of the training data.
* Liver MR (PFSeg's is private): a folder with ``images/`` and ``masks/`` (or ``labels/``) of equal
  names in NIfTI, MHA or NRRD; 0 and anything else.
* Decathlon: ``Task04_Hippocampus/imagesTr``, ``labelsTr``, ``imagesTs`` and ``dataset.json``.
* nnU-Net raw: the same with ``CASE_0000.nii.gz``; other ``file_ending`` as it declares.

PFSeg (sheet 003 section 5) takes BraTS's whole tumour on T2, cuts 24 voxels off each side of
both in-plane axes and resizes the rest to 192 x 192 x 128; the first 296 cases by number train,
one validates and 72 test. In that order the last third are mostly low-grade gliomas. The liver
goes to 1.5 mm, slices without liver are dropped, and the middle 192 x 192 x 128 is kept. Where
the released code aligns corner voxels, edges coincide here.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.datasets.dataset import Entry, Part
from finemask.datasets.listing import parse_labels, read_json
from finemask.datasets.load import list_cases
from finemask.datasets.public.grids import changed, onto
from finemask.datasets.public.layout import Raw, case_name, listed, matching, partner
from finemask.datasets.public.masks import read_classes, read_organ
from finemask.datasets.public.records import Computed, Draft, Item, Picture
from finemask.datasets.public.slices import marked_slices, slices_of
from finemask.datasets.public.splits import by_count, declared, split_of
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.formats import is_image, stem

BRATS_LABELS = {"necrotic core": 1, "edema": 2, "enhancing tumour": 3}
BRATS_VALUES = {0: 0, 1: 1, 2: 2, 3: 3, 4: 3}
REGIONS = {"whole_tumour": (1, 2, 3, 4), "tumour_core": (1, 3, 4), "enhancing_tumour": (3, 4)}
"""Stored values of the regions that BraTS scores; they overlap, so each is a form of its own."""
MODALITIES = ("flair", "t1", "t1ce", "t2")
PFSEG_CUT = 24
PFSEG_SHAPE = (192, 192, 128)
"""Voxels along left-right, front-back and foot-head."""
PFSEG_TRAIN, PFSEG_VAL = 296 / 369, 1 / 369
PFSEG_SPACING_MM = 1.5
DSNET_PROMISE: dict[Part, int] = {"train": 460, "val": 65, "test": 130}


def read_brats2020(raw: Raw) -> Draft:
    """BraTS 2020: three classes on four modalities, or PFSeg's whole tumour on T2."""
    home = raw.home("BraTS20_Training_*/*")
    region = "whole_tumour" if raw.variant == "pfseg" else raw.variant
    values = BRATS_VALUES
    if region in REGIONS:
        values = {value: int(value in REGIONS[region]) for value in BRATS_VALUES}
    wanted = ("t2",) if raw.variant == "pfseg" else MODALITIES
    items = []
    for folder in (p for p in listed(home.root) if p.name.startswith("BraTS20_Training_")):
        if not folder.is_dir():
            continue
        case = replace(home, root=folder)
        images = tuple(case.file(f"{folder.name}_{kind}.nii*") for kind in wanted)
        truth = case.file(f"{folder.name}_seg.nii*|*[sS]eg*.nii*")
        read = partial(read_classes, truth, values)
        items.append(Item(folder.name, images, Computed(read, (truth,), ".nii.gz")))
    if raw.variant == "pfseg":
        items = [changed(item, _pfseg_brats, "pfseg", ".nii.gz") for item in items]
    names = sorted(item.name for item in items)
    first, second = round(len(names) * PFSEG_TRAIN), round(len(names) * (PFSEG_TRAIN + PFSEG_VAL))
    note = "PFSeg's: by case number, 296, 1 and 72 of 369; the tail holds most low grades"
    parts = {"train": names[:first], "val": names[first:second], "test": names[second:]}
    labels = {region.replace("_", " "): 1} if region in REGIONS else BRATS_LABELS
    return Draft(tuple(items), labels, {"pfseg": split_of(parts, note)})


def _upright(geometry: Geometry) -> tuple[int, ...]:
    """Array axes that run left-right, front-back and foot-head."""
    return tuple(int(np.argmax(np.abs(np.array(geometry.direction)[world]))) for world in range(3))


def _pfseg_brats(array: NDArray[Any], geometry: Geometry, is_mask: bool) -> Picture:
    """Cut the in-plane borders, then bring the rest to PFSeg's number of voxels."""
    axes = _upright(geometry)
    start, shape, final = [0, 0, 0], list(geometry.shape), [0, 0, 0]
    for axis, size in zip(axes, PFSEG_SHAPE, strict=True):
        final[axis] = size
    for axis in axes[:2]:
        start[axis] = PFSEG_CUT
        shape[axis] -= 2 * PFSEG_CUT
    return _onto(array, geometry, geometry.cropped(start, shape).resized(final), is_mask)


def _onto(array: NDArray[Any], geometry: Geometry, target: Geometry, is_mask: bool) -> Picture:
    return onto(array, geometry, target, is_mask), target


def read_liver(raw: Raw) -> Draft:
    """A liver MR folder, as it is or in PFSeg's box."""
    home = raw.home("images/*", "masks/*|labels/*")
    folder = home.folder("masks|labels")
    truths = {stem(path): path for path in listed(folder) if is_image(path)}
    items = []
    for image in (path for path in listed(home.folder("images")) if is_image(path)):
        mask = partner(truths, stem(image), image, folder)
        read = Computed(partial(read_organ, mask), (mask,), ".nii.gz")
        item = Item(case_name(stem(image)), (image,), read)
        if raw.variant == "pfseg":
            item = changed(item, partial(_pfseg_liver, mask), "pfseg", ".nii.gz")
        items.append(item)
    note = "PFSeg's 8:2 by sorted name, no validation"
    names = sorted(item.name for item in items)
    edge = round(0.8 * len(names))
    splits = {"pfseg": split_of({"train": names[:edge], "test": names[edge:]}, note)}
    return Draft(tuple(items), {"liver": 1}, splits)


def _pfseg_liver(mask: Path, array: NDArray[Any], geometry: Geometry, is_mask: bool) -> Picture:
    """At 1.5 mm, the slices that hold liver, and of those the middle box."""
    classes, grid = read_organ(mask)
    lengths = np.multiply(grid.shape, grid.spacing) / PFSEG_SPACING_MM
    fine = grid.resized([max(1, round(float(n))) for n in lengths])
    axes = _upright(fine)
    held = onto(classes, grid, fine, True)
    slices = np.flatnonzero(held.any(axis=tuple(a for a in range(3) if a != axes[2])))
    if not len(slices):
        raise DataError(mask, "holds no liver", "remove the case")
    low, high = int(slices[0]), int(slices[-1]) + 1
    middle = [n / 2 for n in fine.shape]
    middle[axes[2]] = (low + high) / 2
    shape = [0, 0, 0]
    for axis, size in zip(axes, PFSEG_SHAPE, strict=True):
        shape[axis] = size
    start = [round(m - n / 2) for m, n in zip(middle, shape, strict=True)]
    return _onto(array, geometry, fine.cropped(start, shape), is_mask)


def read_promise12(raw: Raw) -> Draft:
    """PROMISE12's training volumes, or the slices with prostate that DSNet learns from."""
    raw.home("**/Case*_segmentation.mhd")
    found = sorted(raw.root.glob("**/Case*.mhd"))
    truths = {p.name.split("_")[0]: p for p in found if p.name.endswith("_segmentation.mhd")}
    images = {stem(p): p for p in found if not p.name.endswith("_segmentation.mhd")}
    items = []
    for key, image in images.items():
        if key in truths:
            mask = Computed(partial(read_organ, truths[key]), (truths[key],), ".nii.gz")
            items.append(Item(key, (image,), mask))
        else:
            items.append(Item(key, (image,)))
    for key, mask_path in truths.items():
        partner(images, key, mask_path, mask_path.parent, "image")
    if raw.variant == "dsnet":
        items = [
            piece
            for key, mask in truths.items()
            for piece in slices_of(Item(key, ()), images[key], mask, marked_slices(mask))
        ]
    marked = [item for item in items if item.mask is not None]
    note = "DSNet's 460/65/130 as shares of the patients, drawn; its own augmented first"
    parts = by_count(marked, DSNET_PROMISE, by_group=True)
    return Draft(tuple(items), {"prostate": 1}, {"dsnet": split_of(parts, note)})


def read_decathlon(raw: Raw) -> Draft:
    """A task of the Decathlon: files of ``imagesTs`` come without masks."""
    home = raw.home("imagesTr", "labelsTr", "dataset.json")
    told = read_json(home.root / "dataset.json")
    labels = parse_labels(home.root / "dataset.json", told.get("labels"))
    images = matching(home.folder("imagesTr"), r"(.+)\.nii(?:\.gz)?")
    truths = matching(home.folder("labelsTr"), r"(.+)\.nii(?:\.gz)?")
    items = [
        Item(key, (image,), partner(truths, key, image, home.root / "labelsTr"))
        for key, image in images.items()
    ]
    if (home.root / "imagesTs").is_dir() and listed(home.root / "imagesTs"):
        more = matching(home.root / "imagesTs", r"(.+)\.nii(?:\.gz)?")
        items += [Item(key, (image,)) for key, image in more.items() if key not in images]
    return Draft(tuple(items), labels)


def read_nnunet(raw: Raw) -> Draft:
    """An nnU-Net raw folder; its labelled test cases keep their part."""
    home = raw.home("imagesTr", "labelsTr", "dataset.json")
    listing = list_cases(home.root)
    if listing.problems:
        raise listing.problems[0]
    items = [_item_of(entry) for entry in listing.entries]
    split = [item for item in items if item.split]
    splits = {"official": declared(split)} if split else {}
    return Draft(tuple(items), dict(listing.labels or {}), splits, notes=tuple(listing.notes))


def _item_of(entry: Entry) -> Item:
    group = "" if entry.group == entry.name else entry.group
    return Item(entry.name, entry.images, entry.mask, group=group, split=entry.split)
