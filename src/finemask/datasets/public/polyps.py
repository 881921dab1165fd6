"""Polyps: the benchmark as PraNet packages it, and the video sets CVC-300 and CVC-612.

Layouts, as they are unpacked:

* Images: ``TrainDataset/images/1.png`` and ``masks/1.png`` (older packages say ``image`` and
  ``mask``; 900 from Kvasir and 550 from CVC-ClinicDB), ``TestDataset/<set>/images`` and
  ``masks`` of CVC-300 (60, the test images of EndoScene), CVC-ClinicDB (62), CVC-ColonDB (380),
  ETIS-LaribPolypDB (196) and Kvasir (100). Masks may carry JPEG's fringes.
* Videos, as PNS-Net packages them: ``VPS-TrainSet/CVC-ColonDB-300/Train/<clip>/Frame`` and
  ``GT``, the same of CVC-ClinicDB-612; ``VPS-TestSet/CVC-ColonDB-300/Frame/<clip>`` and
  ``GT/<clip>`` (CVC-300-TV, both its validation and its test clips),
  ``CVC-ClinicDB-612-Valid`` (CVC-612-V) and ``CVC-ClinicDB-612-Test`` (CVC-612-T).

CVC-ClinicDB is 612 frames of 29 sequences, numbered one after another: in its
packaged test images, neighbours of training frames are looked at again. The names of Kvasir
tell no patient. The clip is the group of the videos.

SASR-Net resizes to 704 x 704, M2SNet to 352 x 352.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from finemask.datasets.dataset import Part
from finemask.datasets.public.grids import resized
from finemask.datasets.public.layout import Raw, case_name, listed, matching, partner
from finemask.datasets.public.masks import read_foreground
from finemask.datasets.public.records import Computed, Draft, Item
from finemask.datasets.public.splits import split_of
from finemask.datasets.split import Split

TEST_SETS = {
    "CVC-300": "cvc300",
    "CVC-ClinicDB": "clinicdb",
    "CVC-ColonDB": "colondb",
    "ETIS-LaribPolypDB": "etis",
    "Kvasir": "kvasir",
}
"""Folder of each test set, and its name in splits."""
SEEN = ("clinicdb", "kvasir")
"""Test sets whose videos or patients are in the training images too."""
SIZES = {"sasrnet": (704, 704), "m2snet": (352, 352)}
CLINICDB_LEAK = (
    "frames of CVC-ClinicDB's videos, and perhaps patients of Kvasir, are in train and in test"
)
VIDEO_SETS = {
    "CVC-ColonDB-300": "cvc300_tv",
    "CVC-ClinicDB-612-Valid": "cvc612_v",
    "CVC-ClinicDB-612-Test": "cvc612_t",
}
PICTURE = r"(.+)\.(?:png|jpe?g|bmp|tiff?)"


def _pairs(images: Path, masks: Path) -> Iterator[tuple[str, Path, Computed]]:
    """Images with their masks of the same name."""
    truths = matching(masks, PICTURE)
    for key, image in matching(images, PICTURE).items():
        mask = partner(truths, key, image, masks)
        yield key, image, Computed(partial(read_foreground, mask), (mask,))


def read_polyps(raw: Raw) -> Draft:
    """PraNet's package: one training set, five test sets with a named split each."""
    home = raw.home("TrainDataset", "TestDataset")
    train = home.below("TrainDataset")
    folders = train.folder("images|image"), train.folder("masks|mask")
    items = [
        Item(case_name(f"train_{key}"), (image,), mask, split="train")
        for key, image, mask in _pairs(*folders)
    ]
    learning = [item.name for item in items]
    tests = dict[str, list[str]]()
    missing = [f for f in TEST_SETS if not (home.root / "TestDataset" / f).is_dir()]
    for folder, name in TEST_SETS.items():
        if folder in missing and len(missing) < len(TEST_SETS):
            continue
        below = home.below("TestDataset").below(folder)
        cases = [
            Item(case_name(f"{name}_{key}"), (image,), mask, split="test")
            for key, image, mask in _pairs(below.folder("images"), below.folder("masks"))
        ]
        tests[name] = [item.name for item in cases]
        items += cases
    if raw.variant in SIZES:
        items = [resized(item, SIZES[raw.variant]) for item in items]
    notes = [f"the split leaks: {CLINICDB_LEAK}"]
    if missing:
        notes.append(f"test sets that are not there: {', '.join(missing)}")
    return Draft(tuple(items), {"polyp": 1}, _polyp_splits(learning, tests), notes=tuple(notes))


def _polyp_splits(learning: list[str], tests: dict[str, list[str]]) -> dict[str, Split]:
    note = "PraNet's packaging; no validation part, published results are of the last epoch"
    every = [case for cases in tests.values() for case in cases]
    splits = {"pranet": split_of({"train": learning, "test": every}, note, CLINICDB_LEAK)}
    for name, cases in tests.items():
        leak = CLINICDB_LEAK if name in SEEN else ""
        splits[f"pranet_{name}"] = split_of({"train": learning, "test": cases}, note, leak)
    return splits


def read_polyp_videos(raw: Raw) -> Draft:
    """CVC-300 and CVC-612 in clips of PNS-Net's package."""
    home = raw.home("*TrainSet*", "*TestSet*")
    items = list[Item]()
    training = home.below("*TrainSet*")
    for name in ("CVC-ColonDB-300", "CVC-ClinicDB-612"):
        clips = training.below(name)
        clips = clips.below("Train") if (clips.root / "Train").is_dir() else clips
        for clip in (folder for folder in listed(clips.root) if folder.is_dir()):
            below = replace(clips, root=clip)
            folders = below.folder("Frame"), below.folder("GT")
            items += _clip(f"{short(name)}_{clip.name}", *folders, "train")
    tests = dict[str, list[str]]()
    testing = home.below("*TestSet*")
    for name, key in VIDEO_SETS.items():
        below = testing.below(name)
        part: Part = "val" if key == "cvc612_v" else "test"
        before = len(items)
        for clip in (folder for folder in listed(below.folder("Frame")) if folder.is_dir()):
            truth = below.below("GT").folder(clip.name)
            items += _clip(f"{short(name)}_{clip.name}", clip, truth, part)
        tests[key] = [item.name for item in items[before:]]
    if raw.variant in SIZES:
        items = [resized(item, SIZES[raw.variant]) for item in items]
    learning = [item.name for item in items if item.split == "train"]
    note = "60/20/20 % of the clips as PNS-Net packages them"
    splits = {
        name: split_of({"train": learning, "test": cases}, note) for name, cases in tests.items()
    }
    return Draft(tuple(items), {"polyp": 1}, splits)


def short(name: str) -> str:
    """Which of the two video sets a folder belongs to.

    Example:
        >>> short("CVC-ClinicDB-612-Valid")
        'cvc612'
    """
    return "cvc300" if "300" in name else "cvc612"


def _clip(clip: str, frames: Path, truths: Path, part: Part) -> list[Item]:
    """Frames of one clip, which is their group."""
    group = case_name(clip)
    return [
        Item(case_name(f"{group}_{key}"), (image,), mask, group=group, split=part)
        for key, image, mask in _pairs(frames, truths)
    ]
