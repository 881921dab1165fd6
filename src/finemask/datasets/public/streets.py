"""Cityscapes, the one set of DS2F that is not medical.

Layout: ``leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png`` and
``gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png``; the same in ``val/``. The
labels of ``test/`` are blank, so its images are taken without masks.

``labelIds`` counts 34 kinds; the 19 of the benchmark become classes 1 to 19. What the benchmark
ignores (void, and kinds too rare) becomes background, as there is no class to ignore here:
classes predicted there count as false, which they do not in the benchmark. The city is the
group: the official parts share none.
"""

from __future__ import annotations

from functools import partial

from finemask.datasets.dataset import Part
from finemask.datasets.public.layout import Raw, listed, matching, partner
from finemask.datasets.public.masks import read_classes
from finemask.datasets.public.records import Computed, Draft, Item
from finemask.datasets.public.splits import declared

LABEL_IDS = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17,
    "traffic light": 19, "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23,
    "person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32,
    "bicycle": 33,
}  # fmt: skip
"""The benchmark's classes in its order, and their numbers in the files."""
SCORED: dict[str, Part] = {"train": "train", "val": "test"}
"""Part of each official one; the official test has no labels to score by."""
CLASSES = {name: number for number, name in enumerate(LABEL_IDS, start=1)}
VALUES = dict.fromkeys(range(34), 0) | {LABEL_IDS[name]: k for name, k in CLASSES.items()}


def read_cityscapes(raw: Raw) -> Draft:
    """Fine annotations of the official parts."""
    home = raw.home("leftImg8bit/train", "gtFine/train")
    items = []
    for part in ("train", "val", "test"):
        if not (home.root / "leftImg8bit" / part).is_dir():
            continue
        for city in listed(home.root / "leftImg8bit" / part):
            images = matching(city, r"(.+)_leftImg8bit\.png")
            masks, folder = {}, home.root / "gtFine" / part / city.name
            if part != "test":
                pattern = r"(.+)_gtFine_labelIds\.png"
                masks = matching(home.folder(f"gtFine/{part}/{city.name}"), pattern)
            for key, image in images.items():
                mask = None
                if part != "test":
                    path = partner(masks, key, image, folder)
                    mask = Computed(partial(read_classes, path, VALUES), (path,))
                split = SCORED.get(part)
                items.append(Item(key, (image,), mask, group=city.name, split=split))
    note = "the official training cities; the validation cities test, as the test has no labels"
    marked = [item for item in items if item.mask is not None]
    named = declared(marked, note)
    return Draft(tuple(items), CLASSES, {"official": named})
