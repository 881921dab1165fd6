"""The files of one case of Soft Masks: a finemask data set, a case at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.annotation.products import Product
from finemask.annotation.sheet import Shown, draw_strip
from finemask.geometry import Geometry
from finemask.io import atomic_write, write_image, write_labels, write_probs
from finemask.io.formats import suffix
from finemask.report.panels import lesion_slice
from finemask.softmask.grids import finer, finer_mask
from finemask.softmask.softening import Softening

PICTURES = (".png", ".bmp", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Wanted:
    """What is written.

    Args:
        out: Folder of the data set.
        label: Name of the class.
        settings: How soft masks are made.
        trimaps: Write trimaps too.
        crop: Side of a crop round each mark, in pixels; 0 for the whole slice.
    """

    out: Path
    label: str
    settings: Softening
    trimaps: bool = False
    crop: int = 0


@dataclass(frozen=True)
class Written:
    """The files of a case; what there is not is ``None``."""

    image: Path
    mask: Path
    soft: Path
    strip: Path
    trimap: Path | None = None

    @property
    def paths(self) -> list[Path]:
        found = (self.image, self.mask, self.soft, self.strip, self.trimap)
        return [path for path in found if path is not None]


def write_product(product: Product, wanted: Wanted, caption: str, alert: str) -> Written:
    """Write image, mask, Soft Mask, trimap and strip of one case; the mask comes last."""
    out, name, made = wanted.out, product.name, product.made
    factors = wanted.settings.factors(product.geometry.ndim)
    geometry = product.geometry.refined(factors)
    ending = ".png" if geometry.ndim == 2 else ".nii.gz"
    image = product.image if max(factors) == 1 else finer(product.image, factors)
    written = Written(
        image=_write_image(product, image, geometry, out),
        mask=out / "masks" / f"{name}{ending}",
        soft=out / "soft" / f"{name}{ending}",
        strip=out / "contact_sheet" / f"{name}.png",
        trimap=out / "trimaps" / f"{name}{ending}"
        if wanted.trimaps and made.trimap is not None
        else None,
    )
    if written.trimap:
        assert made.trimap is not None
        write_probs(written.trimap, made.trimap[None], geometry, overwrite=True)
    write_probs(written.soft, made.soft[None], geometry, overwrite=True)
    with atomic_write(written.strip, overwrite=True) as temporary:
        shown = _shown(product, image, geometry, factors)
        temporary.write_bytes(draw_strip(shown, caption, alert))
    hard, labels = made.hard.astype(np.uint8), {wanted.label: 1}
    write_labels(written.mask, hard, geometry, labels=labels, overwrite=True)
    return written


def _write_image(product: Product, image: NDArray[Any], geometry: Geometry, out: Path) -> Path:
    """Write the image anew: a copy would carry along what its header says of the patient."""
    ending = "" if product.file is None else suffix(product.file)
    path = out / "images" / f"{product.name}{_ending_for(product.image, ending, geometry.ndim)}"
    if path.suffix == ".png":
        top = 255 if product.image.max() <= 255 else 65535
        image = np.rint(image).clip(0, top)
    write_image(path, _as_small_as_it_goes(image), geometry, overwrite=True)
    return path


def _as_small_as_it_goes(image: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest type that holds them, as they were in most files."""
    if np.array_equal(image, np.rint(image)):
        for kind in (np.uint8, np.int16, np.uint16, np.int32):
            if np.iinfo(kind).min <= image.min() and image.max() <= np.iinfo(kind).max:
                return image.astype(kind)
    return image


def _ending_for(image: NDArray[Any], ending: str, ndim: int) -> str:
    """A format that holds the intensities: PNG for pictures that were one, TIFF for others."""
    if ndim == 3:
        return ".nii.gz"
    whole = image.min() >= 0 and image.max() <= (255 if len(image) == 3 else 65535)
    return ".png" if ending in PICTURES and whole and len(image) in (1, 3) else ".tif"


def _shown(
    product: Product, image: NDArray[Any], geometry: Geometry, factors: Sequence[int]
) -> Shown:
    """The slice to look at; of a volume, that with most of the lesion."""
    made = product.made
    outlines = [finer_mask(mask, factors) for mask in product.readers]
    if not product.marks and not outlines:
        outlines = [made.reference]
    if geometry.ndim == 2:
        scale = factors[0]
        return Shown(
            image, made.soft, made.hard, made.trimap, outlines,
            [mark.on_grid(factor=scale) for mark in product.marks],
            (geometry.spacing[0], geometry.spacing[1]),
        )  # fmt: skip
    axis = int(np.argmax(geometry.spacing))
    index = lesion_slice(made.hard, (made.soft > 0).astype(np.uint8), axis)
    row, column = (s for a, s in enumerate(geometry.spacing) if a != axis)
    return Shown(
        np.take(image, index, axis + 1),
        np.take(made.soft, index, axis),
        np.take(made.hard, index, axis),
        None if made.trimap is None else np.take(made.trimap, index, axis),
        [np.take(mask, index, axis) for mask in outlines],
        spacing=(row, column),
    )
