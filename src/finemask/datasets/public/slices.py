"""Slices of volumes as pictures: from the feet up, the front at the top, the patient's left right.

A volume is read once for all of its slices that are asked for one after another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.datasets.public.masks import read_values
from finemask.datasets.public.records import Computed, Item, Picture
from finemask.geometry import Geometry
from finemask.io.images import read_image


def upright(array: NDArray[Any], geometry: Geometry) -> Picture:
    """``(*S)`` with its axes turned to (superior, anterior, right), voxel by voxel the same."""
    order, flips = geometry.axes_to_canonical()
    turned = geometry.permuted(order)
    array = np.transpose(array, order)
    for axis in flips:
        turned, array = turned.flipped(axis), np.flip(array, axis)
    return np.ascontiguousarray(array), turned


@lru_cache(maxsize=4)
def upright_values(path: Path) -> Picture:
    """Stored values of a mask, upright."""
    return upright(*read_values(path))


@lru_cache(maxsize=2)
def upright_image(path: Path) -> Picture:
    """Intensities of an image of one channel, upright."""
    array, geometry = read_image(path)
    return upright(array[0], geometry)


def plane(volume: NDArray[Any], index: int) -> Picture:
    """An axial slice ``(H, W)`` of an upright volume, as a radiologist looks at it."""
    picture = np.ascontiguousarray(volume[index, ::-1, ::-1])
    return picture, Geometry.regular(picture.shape)


def whole_numbers(array: NDArray[Any]) -> NDArray[Any]:
    """Integers as 16 bits where that changes no value, else float32."""
    low, high = float(array.min()), float(array.max())
    if low >= -32768 and high <= 32767 and np.array_equal(array, np.rint(array)):
        return array.astype(np.int16)
    return array.astype(np.float32)


def sliced_image(path: Path, index: int, window: tuple[float, float] | None = None) -> Picture:
    """One slice of a volume, as it is or with a window of intensities as 8-bit greys."""
    picture, geometry = plane(upright_image(path)[0], index)
    if window is None:
        return whole_numbers(picture)[None], geometry
    low, high = window
    grey = (picture - low) / (high - low)
    return np.rint(255 * grey.clip(0, 1)).astype(np.uint8)[None], geometry


def sliced_mask(path: Path, index: int, merged: bool) -> Picture:
    """One slice of a label map; with ``merged`` every label becomes 1."""
    picture, geometry = plane(upright_values(path)[0], index)
    classes = np.rint(picture)
    return (classes != 0 if merged else classes).astype(np.uint8), geometry


def slices_of(
    item: Item,
    image: Path,
    mask: Path,
    indices: Sequence[int],
    *,
    merged: bool = True,
    window: tuple[float, float] | None = None,
) -> list[Item]:
    """Slices of one volume as items, whose group is the volume.

    Args:
        item: Of the volume; gives name, group and part.
        image: Its file.
        mask: Its label map.
        indices: Slices from the feet.
        merged: Write one class.
        window: Intensities that become black and white; the values themselves if not given.
    """
    _, grid = upright_values(mask)
    ending = ".tif" if window is None else ".png"
    return [
        Item(
            f"{item.name}_{k:03d}",
            (Computed(partial(sliced_image, image, k, window), (image,), ending),),
            Computed(partial(sliced_mask, mask, k, merged), (mask,)),
            group=item.group or item.name,
            split=item.split,
            spacing_mm=grid.spacing[1:] if grid.unit == "mm" else (),
            about=(window,),
        )
        for k in indices
    ]


def marked_slices(mask: Path) -> list[int]:
    """Slices of a label map, from the feet, that hold anything."""
    volume, _ = upright_values(mask)
    return [int(k) for k in np.flatnonzero((np.rint(volume) != 0).any(axis=(1, 2)))]
