"""A picture of some cases with their masks drawn in: a mask that was misread is seen at once."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from numpy import ndarray
from scipy import ndimage

from finemask.case import Case
from finemask.datasets.public.records import Item
from finemask.datasets.public.writing import files_of
from finemask.errors import FinemaskError
from finemask.io.cases import read_case
from finemask.io.files import atomic_write

MOST, COLUMNS, SIDE, GAP = 12, 4, 240, 4
"""Cases, cases a row, pixels of a case's longer side and between cases."""
COLOURS = ((0, 230, 255), (255, 210, 70), (255, 90, 200), (120, 255, 120), (255, 130, 60))
"""Of the outlines of classes 1, 2, ...; further ones begin anew."""


def write_preview(out: Path, items: Sequence[Item], labels: Mapping[str, int]) -> Path | None:
    """Draw up to twelve labelled cases, evenly over the set, with the outline of every class.

    Of a volume the slice with most foreground is shown. A case that cannot be
    read is left out: its error is told where it is used.

    Args:
        out: Folder of the data set.
        items: Its cases.
        labels: Name and number of each class.

    Returns:
        The picture, ``preview.png``; ``None`` where no case is labelled.
    """
    from PIL import Image

    labelled = [item for item in items if item.mask is not None]
    tiles = []
    for item in labelled[:: max(1, math.ceil(len(labelled) / MOST))]:
        files = {role: out / path for role, path in files_of(item).items()}
        with suppress(FinemaskError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tiles.append(_tile(read_case(files["image"], truth=files["mask"], labels=labels)))
    if not tiles:
        return None
    rows = math.ceil(len(tiles) / COLUMNS)
    size = (min(len(tiles), COLUMNS) * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP)
    sheet = Image.new("RGB", size)
    for number, tile in enumerate(tiles):
        place = (number % COLUMNS * (SIDE + GAP), number // COLUMNS * (SIDE + GAP))
        sheet.paste(Image.fromarray(tile), place)
    with atomic_write(out / "preview.png", overwrite=True) as temporary:
        sheet.save(temporary, format="PNG")
    return out / "preview.png"


def _tile(case: Case) -> UInt8[ndarray, " h w 3"]:
    """One case at the size of its place, outlines drawn last so that they stay sharp."""
    from PIL import Image

    assert case.truth is not None
    image, classes = case.image, case.truth
    spacing: Sequence[float] = case.geometry.spacing
    if classes.ndim == 3:
        axis = int(np.argmax(spacing))
        others = tuple(a for a in range(3) if a != axis)
        index = int(np.argmax((classes != 0).sum(axis=others)))
        image, classes = np.take(image, index, axis + 1), np.take(classes, index, axis)
        spacing = [spacing[a] for a in others]
    lengths = np.multiply(classes.shape, spacing)
    height, width = (max(1, round(float(n))) for n in SIDE * lengths / lengths.max())
    grey = Image.fromarray(to_bytes(image)).resize((width, height), Image.Resampling.BILINEAR)
    picture = np.array(grey)
    drawn = np.asarray(
        Image.fromarray(classes.astype(np.uint8)).resize((width, height), Image.Resampling.NEAREST)
    )
    for label in np.unique(drawn[drawn != 0]):
        inside = drawn == label
        picture[inside & ~ndimage.binary_erosion(inside)] = COLOURS[(label - 1) % len(COLOURS)]
    return picture


def to_bytes(image: Shaped[ndarray, " c h w"]) -> UInt8[ndarray, " h w 3"]:
    """Colours as they are, anything else as greys between its 1st and 99th percentile."""
    if len(image) == 3 and image.min() >= 0 and 1 < image.max() <= 255:
        return np.moveaxis(image, 0, -1).astype(np.uint8)
    low, high = np.percentile(image[0], (1, 99))
    grey = ((image[0] - low) / max(float(high - low), 1e-6)).clip(0, 1)
    return np.repeat(np.rint(255 * grey).astype(np.uint8)[..., None], 3, axis=2)
