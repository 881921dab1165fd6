"""Items on the grid of a paper: resized pictures, cropped and resampled volumes.

Only what a variant asks for passes here; everything else is linked untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.datasets.public.records import Computed, Item, Picture, Source
from finemask.geometry import Geometry
from finemask.io.images import read_image
from finemask.io.labels import read_labels
from finemask.preparation import to_grid

Change = Callable[[NDArray[Any], Geometry, bool], Picture]
"""From an image ``(C, *S)`` or class numbers ``(*S)``, its grid and whether it is the latter."""


def picture_of(source: Source, is_mask: bool) -> Picture:
    """Image ``(C, *S)`` or class numbers ``(*S)`` of a source."""
    if isinstance(source, Computed):
        array, geometry = source.make()
        if not is_mask and array.ndim == geometry.ndim:
            array = array[None]
        return array, geometry
    return read_labels(source) if is_mask else read_image(source)


def changed(item: Item, change: Change, about: Any, ending: str) -> Item:
    """An item whose every file is passed through ``change``."""
    images = tuple(_through(source, change, False, ending) for source in item.images)
    mask = None if item.mask is None else _through(item.mask, change, True, ending)
    readers = tuple(_through(source, change, True, ending) for source in item.readers)
    return replace(item, images=images, mask=mask, readers=readers, about=(*item.about, about))


def _through(source: Source, change: Change, is_mask: bool, ending: str) -> Computed:
    inputs = source.inputs if isinstance(source, Computed) else _files(source)
    return Computed(partial(_make, source, change, is_mask), inputs, ending)


def _files(source: Path) -> tuple[Path, ...]:
    return tuple(sorted(source.iterdir())) if source.is_dir() else (source,)


def _make(source: Source, change: Change, is_mask: bool) -> Picture:
    return change(*picture_of(source, is_mask), is_mask)


def resized(item: Item, shape: Sequence[int], longest: int | None = None) -> Item:
    """A picture at another size, as papers do it: bicubic for images, nearest for classes.

    Pixel edges coincide, and bicubic filters grow with the reduction, so nothing is aliased
    or displaced.

    Args:
        item: Any item in 2-D.
        shape: Height and width; empty with ``longest``.
        longest: Keep the proportions and bring the longer side to this instead.
    """
    return changed(item, partial(_resize, tuple(shape), longest), (tuple(shape), longest), ".png")


def _resize(
    shape: tuple[int, ...],
    longest: int | None,
    array: NDArray[Any],
    geometry: Geometry,
    is_mask: bool,
) -> Picture:
    from PIL import Image

    if longest is not None:
        factor = longest / max(geometry.shape)
        shape = tuple(max(1, round(n * factor)) for n in geometry.shape)
    size, target = (shape[1], shape[0]), geometry.resized(shape)
    if is_mask:
        picture = Image.fromarray(array.astype(np.uint8))
        return np.asarray(picture.resize(size, Image.Resampling.NEAREST)), target
    channels = [
        np.asarray(
            Image.fromarray(channel.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
        )
        for channel in array
    ]
    top = 255 if array.max() <= 255 else 65535
    return np.rint(channels).clip(0, top).astype(np.uint8 if top == 255 else np.uint16), target


def windowed(item: Item, start: Sequence[int], shape: Sequence[int], ending: str) -> Item:
    """A window of whole voxels of an item; zeros beyond the image."""
    change = partial(_window, tuple(start), tuple(shape), 0.0)
    return changed(item, change, (tuple(start), tuple(shape)), ending)


def _window(
    start: tuple[int, ...],
    shape: tuple[int, ...],
    outside: float | int,
    array: NDArray[Any],
    geometry: Geometry,
    is_mask: bool,
) -> Picture:
    leading = array if not is_mask else array[None]
    target = geometry.cropped(start, shape)
    cut = cut_window(leading, start, shape, 0.0 if is_mask else outside)
    return (cut[0] if is_mask else cut), target


def cut_window(
    array: NDArray[Any], start: Sequence[int], shape: Sequence[int], outside: float | int
) -> NDArray[Any]:
    """A window of ``(C, *S)``, which may reach beyond it.

    Example:
        >>> cut_window(np.array([[1, 2, 3]]), [-1], [3], 0).tolist()
        [[0, 1, 2]]
    """
    window = np.full((len(array), *shape), outside, array.dtype)
    into, of = [slice(None)], [slice(None)]
    for first, length, size in zip(start, shape, array.shape[1:], strict=True):
        low, high = max(first, 0), min(first + length, size)
        of.append(slice(low, max(high, low)))
        into.append(slice(low - first, max(high, low) - first))
    window[tuple(into)] = array[tuple(of)]
    return window


def onto(array: NDArray[Any], geometry: Geometry, target: Geometry, is_mask: bool) -> NDArray[Any]:
    """An image or class numbers on another grid: linear, or the nearest voxel's class."""
    if not is_mask:
        return to_grid(array, geometry, target)
    if geometry.matches(target):
        return array
    places = np.moveaxis(np.indices(target.shape), 0, -1).reshape(-1, len(target.shape))
    index = np.rint(geometry.to_index(target.to_world(places))).astype(int)
    inside = ((index >= 0) & (index < geometry.shape)).all(axis=1)
    classes = np.zeros(len(index), array.dtype)
    classes[inside] = array[tuple(index[inside].T)]
    return classes.reshape(target.shape)
