"""ISBI 2012: membranes of neurons in serial-section electron microscopy.

Layout: ``train-volume.tif``, ``train-labels.tif`` and ``test-volume.tif``, 30 pages of 512 x 512
each. In the labels cells are white and membranes black: they are inverted here, so that the
membrane is the foreground. The slices of the challenge's test were never published with labels.

All 30 slices are of one animal and follow one another every 50 nm, so no split of them is
free of neighbours; the group is the slice all the same, as the papers take it. DSNet makes 300
images of the 30 by augmentation first and divides them 210/60/30 then, which puts copies of one
slice into several parts: here the originals are divided, 21/6/3.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finemask.datasets.dataset import Part
from finemask.datasets.public.layout import Raw
from finemask.datasets.public.records import Computed, Draft, Item, Picture
from finemask.datasets.public.splits import by_count, split_of
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.formats import reading

DSNET: dict[Part, int] = {"train": 210, "val": 60, "test": 30}


def read_isbi2012(raw: Raw) -> Draft:
    """The slices of the training volume, and those of the test without masks."""
    home = raw.home("train-volume.tif*", "train-labels.tif*")
    images, labels = home.file("train-volume.tif*"), home.file("train-labels.tif*")
    count = len(pages(images))
    if len(pages(labels)) != count:
        raise DataError(
            labels, f"has {len(pages(labels))} slices, {images.name} {count}", "download it again"
        )
    items = []
    for k in range(count):
        image = Computed(partial(_image, images, k), (images,))
        mask = Computed(partial(_membranes, labels, k), (labels,))
        items.append(Item(f"train_{k:02d}", (image,), mask))
    note = "DSNet's 210/60/30 as shares of the original slices, drawn; neighbours are alike"
    splits = {"dsnet": split_of(by_count(items, DSNET), note)}
    for path in sorted(home.root.glob("test-volume.tif*")):
        items += [
            Item(f"test_{k:02d}", (Computed(partial(_image, path, k), (path,)),))
            for k in range(len(pages(path)))
        ]
    return Draft(tuple(items), {"membrane": 1}, splits)


@lru_cache(maxsize=3)
def pages(path: Path) -> NDArray[np.uint8]:
    """Every page of a TIFF, ``(pages, H, W)``.

    Raises:
        DataError: When it is no stack of 8-bit greys.
    """
    import tifffile

    with reading(path):
        stack = tifffile.imread(path)
    if stack.ndim != 3 or stack.dtype != np.uint8:
        raise DataError(
            path, f"holds {stack.dtype} of shape {stack.shape}, needs 8-bit pages",
            "download it again",
        )  # fmt: skip
    return stack


def _image(path: Path, page: int) -> Picture:
    return pages(path)[page][None], Geometry.regular(pages(path).shape[1:])


def _membranes(path: Path, page: int) -> Picture:
    return (pages(path)[page] < 128).astype(np.uint8), Geometry.regular(pages(path).shape[1:])
