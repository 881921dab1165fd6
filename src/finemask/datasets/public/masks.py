"""What the masks of public sets mean, whatever they were saved as.

Palettes count by index; a red mask that was made grey has the values 0 and 76;
JPEG and resampling leave fringes; overlapping lesion files are merged in a
stated order.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.formats import read_raster, reading

NOISE = 32
"""Grey values that JPEG leaves on a black mask stay below this."""
OLD_PICTURES = (".gif", ".ppm", ".pgm", ".ppm.gz", ".pgm.gz")
"""Formats of old sets that the package reads nowhere else."""


def read_values(path: Path) -> tuple[NDArray[Any], Geometry]:
    """Stored values of a mask ``(*S)``: palette indices, or the largest of the channels.

    Raises:
        DataError: When the file cannot be read.
    """
    if path.name.lower().endswith(OLD_PICTURES):
        values = _read_old(path)
        values = values.max(axis=-1) if values.ndim == 3 else values
        return values, Geometry.regular(values.shape)
    raster = read_raster(path)
    return raster.array.max(axis=0), raster.header.geometry


def read_old_picture(path: Path) -> tuple[NDArray[Any], Geometry]:
    """An image ``(C, H, W)`` in one of the formats of old sets."""
    values = _read_old(path)
    values = np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None]
    return values, Geometry.regular(values.shape[1:])


def _read_old(path: Path) -> NDArray[Any]:
    """Pixels of a GIF or PPM; palette indices of the former."""
    from PIL import Image

    with reading(path):
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix.lower() == ".gz" else data
        with Image.open(io.BytesIO(data), formats=("GIF", "PPM")) as picture:
            picture.load()
            array = np.asarray(picture)
    return array.astype(np.uint8) if array.dtype == bool else array


def foreground(values: NDArray[Any]) -> Bool[ndarray, " *s"]:
    """Which pixels of a two-coloured mask are marked, whatever the two values are.

    Two values: the one that is not 0. More of them come from compression or
    resampling: cut at half of the brightest, unless all are noise on black.

    Example:
        >>> foreground(np.array([0, 76, 76])).tolist()
        [False, True, True]
        >>> foreground(np.array([0, 3, 128, 252, 255])).tolist()
        [False, False, True, True, True]
        >>> foreground(np.array([0, 2, 5])).tolist()
        [False, False, False]
    """
    distinct = np.unique(values)
    if len(distinct) <= 2 and (len(distinct) < 2 or distinct[0] == 0):
        return values != 0
    if distinct[-1] < NOISE:
        return np.zeros(values.shape, bool)
    return values > distinct[-1] / 2


def read_foreground(path: Path) -> tuple[UInt8[ndarray, " *s"], Geometry]:
    """A two-coloured mask as 0 and 1."""
    values, geometry = read_values(path)
    return foreground(values).astype(np.uint8), geometry


def read_organ(path: Path) -> tuple[UInt8[ndarray, " *s"], Geometry]:
    """A volume in which one label besides 0 is the organ.

    Raises:
        DataError: When there are several, of which none says what it is.
    """
    stored, geometry = read_values(path)
    values = np.unique(np.rint(stored)).astype(int)
    if len(values[values != 0]) > 1:
        raise DataError(
            path,
            f"has the labels {', '.join(map(str, values[:8]))}, needs one besides 0",
            "keep the organ's label alone",
        )
    return (np.rint(stored) != 0).astype(np.uint8), geometry


def read_union(paths: Sequence[Path]) -> tuple[UInt8[ndarray, " *s"], Geometry]:
    """What any of several masks of one image marks.

    Raises:
        DataError: When their sizes differ.
    """
    return read_layers(dict.fromkeys(paths, 1))


def read_layers(
    layers: Mapping[Path, int], shape: Sequence[int] | None = None
) -> tuple[UInt8[ndarray, " *s"], Geometry]:
    """Masks of one image, a class each, as one label map.

    Args:
        layers: Files and their classes; where several mark a pixel, the first of them wins.
        shape: Size of the image, of which no mask may differ; needed where there are none.

    Raises:
        DataError: When a mask has another size.
    """
    classes, home = None, None
    if shape is not None:
        classes, home = np.zeros(tuple(shape), np.uint8), Geometry.regular(shape)
    for path, label in reversed(list(layers.items())):
        marked, geometry = read_foreground(path)
        if classes is None:
            classes, home = np.zeros(marked.shape, np.uint8), geometry
        if marked.shape != classes.shape:
            raise DataError(
                path,
                f"is {_size(marked.shape)}, the image or its other masks {_size(classes.shape)}",
                "download it again",
            )
        classes[marked != 0] = label
    assert classes is not None
    assert home is not None
    return classes, home


def read_classes(path: Path, values: Mapping[int, int]) -> tuple[UInt8[ndarray, " *s"], Geometry]:
    """A label map with other numbers as one with ours.

    Args:
        path: File.
        values: Class of each stored value; values that are not in it are errors.

    Raises:
        DataError: On a value that the set does not define.
    """
    stored, geometry = read_values(path)
    if stored.dtype.kind == "f":
        stored = np.rint(stored).astype(np.int32)
    found = np.unique(stored)
    if strange := [int(v) for v in found if int(v) not in values]:
        raise DataError(
            path,
            f"has the values {', '.join(map(str, strange[:8]))}, known are "
            f"{', '.join(map(str, values))}",
            "download it again, or check that it was not re-saved",
        )
    classes = np.zeros(stored.shape, np.uint8)
    for value, label in values.items():
        classes[stored == value] = label
    return classes, geometry


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
