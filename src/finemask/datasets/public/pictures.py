"""Pictures with one mask each: ISIC 2018 task 1, BUSI and GOALS 2022.

Layouts, as they are unpacked:

* ISIC 2018: ``ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg`` and
  ``ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png``, the same with
  ``Validation`` (100 images) and, where they were fetched, ``Test`` (1000). SASR-Net takes the
  2,694 of training and validation, in random parts of 1617, 539 and 538, at 640 x 640. Patients
  are not told.
* BUSI: ``Dataset_BUSI_with_GT/benign/benign (1).png`` with ``benign (1)_mask.png`` and, for more
  lesions, ``benign (1)_mask_1.png``; also ``malignant/`` and ``normal/``, whose masks are black.
  Patients are not told, and some images are nearly the same.
* GOALS 2022: ``GOALS2022-Train/Train/Image/0001.png`` and ``Layer_Masks/0001.png``, where 0 is
  the nerve fibre layer (RNFL), 80 the ganglion cell and inner plexiform layers (GCIPL), 160 the
  choroid and 255 all the rest. The other 200 images come without masks.

M2SNet (sheet 004 section 6) resizes to 352 x 352 and cross-validates BUSI in four folds that
it does not tell: they are drawn here.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from finemask.datasets.dataset import Part
from finemask.datasets.public.grids import resized
from finemask.datasets.public.layout import Raw, case_name, matching, partner
from finemask.datasets.public.masks import read_classes, read_foreground, read_union
from finemask.datasets.public.records import Computed, Draft, Item
from finemask.datasets.public.splits import by_count, declared, fold_splits, split_of

ISIC_SASRNET: dict[Part, int] = {"train": 1617, "val": 539, "test": 538}
SIZE_SASRNET, SIZE_M2SNET = (640, 640), (352, 352)
GOALS_LAYERS = {"RNFL": 1, "GCIPL": 2, "choroid": 3}
GOALS_VALUES = {0: 1, 80: 2, 160: 3, 255: 0}
FOLDS_SEED = 0


def read_isic(raw: Raw) -> Draft:
    """ISIC 2018 task 1 in its official parts, and SASR-Net's mixture of two of them."""
    home = raw.home("ISIC2018_Task1-2_Training_Input", "ISIC2018_Task1_Training_GroundTruth")
    parts: dict[Part, str] = {"train": "Training", "val": "Validation", "test": "Test"}
    items = []
    for part, name in parts.items():
        if part != "train" and not (home.root / f"ISIC2018_Task1-2_{name}_Input").is_dir():
            continue
        images = matching(home.folder(f"ISIC2018_Task1-2_{name}_Input"), r"(ISIC_\d+)\.jpe?g")
        truth = home.folder(f"ISIC2018_Task1_{name}_GroundTruth")
        masks = matching(truth, r"(ISIC_\d+)_segmentation\.png")
        for key, image in images.items():
            mask = partner(masks, key, image, truth)
            items.append(
                Item(key, (image,), Computed(partial(read_foreground, mask), (mask,)), split=part)
            )
    splits = {"official": declared(items, "training, validation and test of the challenge")}
    pool = [item for item in items if item.split != "test"]
    note = "SASR-Net's 1617/539/538 of training and validation; its list is not published"
    splits["sasrnet"] = split_of(by_count(pool, ISIC_SASRNET), note)
    if raw.variant == "sasrnet":
        items = [resized(item, SIZE_SASRNET) for item in items]
    return Draft(tuple(items), {"lesion": 1}, splits)


def read_busi(raw: Raw) -> Draft:
    """BUSI, several masks of one image merged; the class is in the name of the case."""
    home = raw.home("benign/*_mask.png", "malignant/*_mask.png", "normal")
    items = []
    merged = 0
    for kind in ("benign", "malignant", "normal"):
        folder = home.folder(kind)
        images = matching(folder, rf"({kind} \(\d+\))\.png")
        masks: dict[str, list[Path]] = {}
        for name, path in matching(folder, r"(.+_mask(?:_\d+)?)\.png").items():
            masks.setdefault(name.partition("_mask")[0], []).append(path)
        for key, image in images.items():
            if key not in masks:
                partner({k: v[0] for k, v in masks.items()}, key, image, folder)
            of_image = tuple(masks[key])
            merged += len(of_image) > 1
            mask = Computed(partial(read_union, of_image), of_image)
            items.append(Item(case_name(key), (image,), mask))
    notes = (f"{merged} images have several mask files, which are merged",) if merged else ()
    if raw.variant == "m2snet":
        items = [resized(item, SIZE_M2SNET) for item in items]
    note = "one of four folds, as M2SNet has; drawn here, as its own are not told; no validation"
    names = sorted(item.name for item in items)
    splits = fold_splits(names, 4, FOLDS_SEED, "m2snet", note) if len(names) >= 4 else {}
    return Draft(tuple(items), {"lesion": 1}, splits, notes=notes)


def read_goals(raw: Raw) -> Draft:
    """GOALS 2022's layers; images without masks are kept to be predicted."""
    home = raw.home("**/Layer_Masks")
    truth = home.file("**/Layer_Masks")
    images = matching(truth.with_name("Image"), r"(\d+)\.png")
    masks = matching(truth, r"(\d+)\.png")
    items = []
    for key, image in images.items():
        path = partner(masks, key, image, truth, "layers")
        mask = Computed(partial(read_classes, path, GOALS_VALUES), (path,))
        items.append(Item(key, (image,), mask))
    for folder in sorted(home.root.glob("**/Image")):
        if folder != truth.with_name("Image"):
            known = {item.name for item in items}
            more = {k: p for k, p in matching(folder, r"(\d+)\.png").items() if k not in known}
            items += [Item(key, (path,)) for key, path in more.items()]
    if raw.variant == "m2snet":
        items = [resized(item, SIZE_M2SNET) for item in items]
    return Draft(tuple(items), GOALS_LAYERS)
