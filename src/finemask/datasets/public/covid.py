"""Infections of the lung in CT: two public sets and the mixture of them that M2SNet uses.

Layouts, as they are unpacked:

* Slices of medicalsegmentation.com ("COVID-19 CT segmentation dataset", 100 slices of more than
  40 patients): ``tr_im.nii.gz`` and ``tr_mask.nii.gz``, both 512 x 512 x 100, where 1 is ground
  glass, 2 consolidation and 3 effusion; ``val_im.nii.gz`` has 10 slices without masks. Which
  slices are of one patient is not told, so any split of them may leak.
* Twenty scans ("COVID-19 CT lung and infection segmentation dataset"):
  ``COVID-19-CT-Seg_20cases/coronacases_001.nii.gz`` ... and ``radiopaedia_4_85506_1.nii.gz`` ...,
  ``Infection_Mask/`` with the same names. The first ten are in Hounsfield units, the others
  grey values from 0 to 255 of the window [-1250, 250] HU.

M2SNet "slices" the scans, merges both sets "by uniform sampling" and tells no numbers; its
follow-ups count 1,277 slices, 894 to train and 383 to test. Here: every slice with infection of
the twenty scans, every second one kept, with all of the hundred; 70 % of the patients train.
Grey values are those of the window [-1250, 250] HU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from finemask.datasets.dataset import Part
from finemask.datasets.public.grids import resized
from finemask.datasets.public.layout import Raw, case_name, matching, partner
from finemask.datasets.public.records import Draft, Item
from finemask.datasets.public.slices import (
    marked_slices,
    slices_of,
    upright_image,
    upright_values,
)
from finemask.datasets.public.splits import by_count, split_of
from finemask.errors import DataError

FINDINGS = {"ground glass": 1, "consolidation": 2, "effusion": 3}
INFECTION = {"infection": 1}
LUNG_WINDOW = (-1250.0, 250.0)
"""Of the scans that come as grey values, in HU."""
M2SNET_PARTS: dict[Part, int] = {"train": 894, "test": 383}
M2SNET_EVERY = 2
SIZE_M2SNET = (352, 352)


def read_slices(raw: Raw) -> Draft:
    """The hundred slices with three findings, or with any of them as infection."""
    home = raw.home("tr_im.nii*", "tr_mask.nii*")
    merged = raw.variant == "infection"
    items = _hundred(home, merged=merged, window=None)
    more = list(home.root.glob("val_im.nii*"))
    notes = ("the 10 slices of val_im have no masks and are left out",) if more else ()
    return Draft(tuple(items), INFECTION if merged else FINDINGS, notes=notes)


def _hundred(home: Raw, *, merged: bool, window: tuple[float, float] | None) -> list[Item]:
    image, mask = home.file("tr_im.nii*"), home.file("tr_mask.nii*")
    shapes = [volume.shape for volume, _ in (upright_image(image), upright_values(mask))]
    if shapes[0] != shapes[1]:
        raise DataError(mask, f"is {shapes[1]}, {image.name} {shapes[0]}", "download it again")
    volume = Item("slice", (image,))
    pieces = slices_of(volume, image, mask, range(shapes[0][0]), merged=merged, window=window)
    return [replace(piece, group="") for piece in pieces]


def read_scans(raw: Raw) -> Draft:
    """The twenty scans, each a patient."""
    items = [item for item, _, _ in _twenty(raw)]
    return Draft(tuple(items), INFECTION)


def _twenty(raw: Raw) -> list[tuple[Item, Path, Path]]:
    home = raw.home("COVID-19-CT-Seg_20cases", "Infection_Mask")
    images = matching(home.folder("COVID-19-CT-Seg_20cases"), r"(.+)\.nii(?:\.gz)?")
    folder = home.folder("Infection_Mask")
    masks = matching(folder, r"(.+)\.nii(?:\.gz)?")
    found = []
    for key, image in images.items():
        mask = partner(masks, key, image, folder)
        found.append((Item(case_name(key), (image,), mask), image, mask))
    return found


def read_merged(raw: Raw) -> Draft:
    """M2SNet's mixture, from a folder that holds both downloads."""
    items = _hundred(raw.home("tr_im.nii*", "tr_mask.nii*"), merged=True, window=LUNG_WINDOW)
    for item, image, mask in _twenty(raw):
        chosen = _uniform(marked_slices(mask), M2SNET_EVERY)
        items += slices_of(item, image, mask, chosen, window=_window_of(image))
    if raw.variant == "m2snet":
        items = [resized(item, SIZE_M2SNET) for item in items]
    note = "70 % of the patients, drawn: M2SNet's own list is not published; no validation"
    parts = by_count(items, M2SNET_PARTS, by_group=True)
    return Draft(tuple(items), INFECTION, {"m2snet": split_of(parts, note)})


def _uniform(indices: Sequence[int], every: int) -> Sequence[int]:
    return indices[::every]


def _window_of(image: Path) -> tuple[float, float]:
    """What is black and white: of Hounsfield units the lung window, of grey values all."""
    volume, _ = upright_image(image)
    return (0.0, 255.0) if float(np.min(volume)) >= 0 else LUNG_WINDOW
