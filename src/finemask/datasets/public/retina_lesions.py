"""Retinal lesions of diabetes, four classes: IDRiD and DDR.

Layouts, as they are unpacked:

* IDRiD, part A: ``1. Original Images/a. Training Set/IDRiD_01.jpg`` (54) and ``b. Testing Set``
  (27); ``2. All Segmentation Groundtruths/a. Training Set/1. Microaneurysms/IDRiD_01_MA.tif``,
  ``2. Haemorrhages`` (HE), ``3. Hard Exudates`` (EX), ``4. Soft Exudates`` (SE), ``5. Optic Disc``
  (OD, left out). An image without a lesion of a kind has no file of it. The masks are red, or
  what red becomes in grey: 76.
* DDR: ``lesion_segmentation/train/image/*.jpg`` with ``train/label/EX/*.tif``, ``HE``, ``MA``,
  ``SE``; the same in ``test/``, and in ``valid/`` under ``segmentation label/``. 383, 149 and 225
  images, masks of 0 and 255.

One pixel may be in several of the files; a label map holds one class. What is rarer and
smaller wins: microaneurysms, then soft exudates, hard exudates, haemorrhages. Scores of
the covered classes are of what is left of them.

DS2F (sheet 002 section 7) resizes DDR to 1024 x 1024; for IDRiD it tells no size, and 1024 x
1024 is taken here too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from finemask.datasets.dataset import Part
from finemask.datasets.public.grids import resized
from finemask.datasets.public.layout import Raw, matching
from finemask.datasets.public.masks import read_layers
from finemask.datasets.public.records import Computed, Draft, Item, Picture
from finemask.datasets.public.splits import declared
from finemask.errors import DataError
from finemask.io.formats import read_header

PRIORITY = {"MA": 1, "SE": 2, "EX": 3, "HE": 4}
"""Class of each kind of lesion; of several on one pixel the first is kept."""
IDRID_FOLDERS = {
    "MA": "Microaneurysms",
    "HE": "Haemorrhages",
    "EX": "Hard Exudates",
    "SE": "Soft Exudates",
}
SIZE_DS2F = (1024, 1024)


def read_idrid(raw: Raw) -> Draft:
    """IDRiD's official halves."""
    home = raw.home("*Original Images", "*Segmentation Groundtruths")
    parts: dict[Part, str] = {"train": "*Training Set", "test": "*Testing Set"}
    items = []
    for part, name in parts.items():
        images = matching(home.below("*Original Images").folder(name), r"(IDRiD_\d+)\.jpg")
        truth = home.below("*Segmentation Groundtruths").below(name)
        masks = {
            kind: matching(truth.folder(f"*{folder}"), rf"(IDRiD_\d+)_{kind}\.tif")
            for kind, folder in IDRID_FOLDERS.items()
        }
        _refuse_strays(truth.root, masks, images)
        items += [_item(key, image, masks, part) for key, image in images.items()]
    return _draft(raw, items, "the official 54 and 27 images, as DS2F takes them; no validation")


def read_ddr(raw: Raw) -> Draft:
    """DDR's official parts, 5:2:3."""
    home = raw.home("train/image", "valid/image", "test/image")
    parts: dict[Part, str] = {"train": "train", "val": "valid", "test": "test"}
    items = []
    for part, name in parts.items():
        below = home.below(name)
        images = matching(below.folder("image"), r"(.+)\.jpe?g")
        truth = below.below("label|segmentation label")
        masks = {kind: matching(truth.folder(kind), r"(.+)\.tiff?") for kind in PRIORITY}
        _refuse_strays(truth.root, masks, images)
        items += [_item(key, image, masks, part) for key, image in images.items()]
    return _draft(raw, items, "the official parts, as DS2F takes them")


def _item(key: str, image: Path, masks: Mapping[str, Mapping[str, Path]], part: Part) -> Item:
    layers = {masks[kind][key]: label for kind, label in PRIORITY.items() if key in masks[kind]}
    mask = Computed(partial(_merged, image, layers), (image, *layers))
    return Item(key, (image,), mask, split=part)


def _merged(image: Path, layers: Mapping[Path, int]) -> Picture:
    """Lesion files as one map of the size of the image, which may have none of them."""
    return read_layers(layers, read_header(image).shape)


def _refuse_strays(
    folder: Path, masks: Mapping[str, Mapping[str, Path]], images: Mapping[str, Path]
) -> None:
    """A mask without its image is a renamed one, and would silently be lost."""
    for files in masks.values():
        for key, path in files.items():
            if key not in images:
                raise DataError(
                    path,
                    f"belongs to no image (of {len(images)}: {next(iter(images))} ...)",
                    f"restore the official names in {folder}",
                )


def _draft(raw: Raw, items: Sequence[Item], note: str) -> Draft:
    if raw.variant == "ds2f":
        items = [resized(item, SIZE_DS2F) for item in items]
    notes = ("several lesions on one pixel: MA before SE before EX before HE",)
    return Draft(tuple(items), PRIORITY, {"official": declared(items, note)}, notes=notes)
