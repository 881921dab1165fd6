"""Masks and label maps: what the numbers of a file mean is declared or evident, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.io.files import atomic_write
from finemask.io.formats import read_raster, suffix, writer
from finemask.io.notices import warn
from finemask.io.raster import FilePath, Raster

MAX_VALUES = 64
"""A map with more distinct values than this is an image."""

ROUNDING = 1e-3
VIEWER_WHITE = 255
PICTURES = (".png", ".bmp", ".tif", ".tiff")
DECLARE = 'declare the values as labels in dataset.json, for example {"lesion": 1, "rim": 2}'
Labels = Mapping[str, int]


def read_labels(path: FilePath, labels: Labels | None = None) -> tuple[NDArray[Any], Geometry]:
    """Read a mask or label map as classes 0 (background), 1, 2 ... F.

    With ``labels`` the declared values become 1 to F in the order of their
    declaration; a value that is not declared is an error. With one declared
    class, {0, 255} is accepted too. Without ``labels``, one foreground value
    makes a binary mask whatever it is ({0, 1}, {0, 255}, {0, k}), and values
    0 to F without a gap are classes. A palette picture counts by index.
    Compressed or smoothed black-and-white masks are cut at mid-grey with a
    warning that counts the changed pixels. Everything else is refused.

    Args:
        path: Image file with one channel.
        labels: Name to stored value; the value 0 is the background.

    Returns:
        ``(*S)`` uint8 (uint16 above 255 classes) and its geometry.

    Raises:
        DataError: On an image, fractional or undeclared values, or colours.
    """
    raster = read_raster(path)
    stored: NDArray[Any] = _whole(path, _single_channel(path, raster))
    values = distinct(stored)
    declared = None if labels is None else foreground_values(labels)
    if _is_smoothed(raster, stored, values, declared):
        stored, values = _cut_at_mid_grey(path, stored), np.array([0, 1])
        declared = None
    if len(values) > MAX_VALUES and (declared is None or len(declared) < len(values) - 1):
        raise DataError(
            path,
            f"looks like an image, not a mask ({len(values):,} distinct values from "
            f"{values[0]} to {values[-1]})",
            "check that images and masks are not swapped",
        )
    order = _evident_values(path, values) if declared is None else declared
    if declared is not None:
        order = _check_declared(path, values, declared)
    return _remapped(stored, order), raster.header.geometry


def label_values(path: FilePath) -> tuple[int, ...]:
    """The distinct values stored in a mask, ascending, uninterpreted.

    Raises:
        DataError: On fractional values or colours.
    """
    raster = read_raster(path)
    return tuple(int(v) for v in distinct(_whole(path, _single_channel(path, raster))))


def foreground_values(labels: Labels) -> tuple[int, ...]:
    """Declared values of the foreground classes in order; 0 is the background.

    Raises:
        UsageError: When two classes share a value, or none is declared.

    Example:
        >>> foreground_values({"background": 0, "rim": 4, "core": 1})
        (4, 1)
    """
    values = tuple(int(v) for v in labels.values() if int(v) != 0)
    if not values or len(set(values)) != len(values):
        raise UsageError(
            "labels",
            f"declare {dict(labels)}, need at least one class and a value of its own for each",
            "correct dataset.json",
        )
    return values


def distinct(array: NDArray[Any]) -> NDArray[Any]:
    """Distinct values, ascending; counting beats sorting for small integers."""
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return np.flatnonzero(np.bincount(array.ravel()))
    return np.unique(array)


def _single_channel(path: FilePath, raster: Raster) -> NDArray[Any]:
    """``(*S)`` stored values; black and one colour count as a binary mask."""
    array = raster.array
    first: NDArray[Any] = array[0]
    if len(array) == 1 or (array == first).all():
        return first
    # The layers of a volume are time points or readers, whose numbers are no colour.
    if len(array) == 3 and array.dtype == np.uint8 and raster.header.geometry.ndim == 2:
        red, green, blue = array.astype(np.int32)
        packed = red << 16 | green << 8 | blue
        colours = np.unique(packed)
        if len(colours) == 2 and colours[0] == 0:
            warn(path, f"is coloured; #{colours[1]:06x} was read as foreground on black")
            return (packed != 0).astype(np.uint8)
        raise DataError(
            path, f"is a mask in {len(colours):,} colours, whose classes are unknown",
            "save class numbers as grey values or as a palette picture",
        )  # fmt: skip
    raise DataError(
        path,
        f"has {len(array)} channels or layers, a mask needs one",
        "merge them into one label map, or give each reader or class its own file",
    )


def _whole(path: FilePath, array: NDArray[Any]) -> NDArray[Any]:
    """Labels stored as floats, rounded where the rounding is not a decision."""
    if array.dtype.kind in "iu":
        return array
    if not np.isfinite(array).all():
        raise DataError(path, "has labels that are not finite", "export the mask as integers")
    rounded = np.round(array)
    off = np.abs(array - rounded)
    if off.max() > ROUNDING:
        worst = float(array.flat[int(off.argmax())])
        raise DataError(
            path,
            f"has fractional labels such as {worst:.6g} ({int((off > ROUNDING).sum()):,} voxels)",
            "threshold it, or give it as a soft mask",
        )
    if np.abs(rounded).max() > 2**31:
        raise DataError(path, f"has labels up to {np.abs(rounded).max():g}", "export it as uint8")
    return rounded.astype(np.int32)


def _is_smoothed(
    raster: Raster, stored: NDArray[Any], values: NDArray[Any], declared: tuple[int, ...] | None
) -> bool:
    """Whether an 8-bit map is black and white but for compression or smoothed edges."""
    if stored.dtype != np.uint8 or raster.palette is not None or len(declared or (1,)) > 1:
        return False
    if len(values) <= (2 if raster.header.lossy else 16) or values[0] > 32 or values[-1] < 223:
        return False
    counts = np.bincount(stored.ravel(), minlength=256)
    return bool(counts[33:223].sum() <= 0.1 * stored.size)


def _cut_at_mid_grey(path: FilePath, stored: NDArray[np.uint8]) -> NDArray[np.uint8]:
    changed = int(((stored != 0) & (stored != VIEWER_WHITE)).sum())
    warn(path, f"is no clean mask (compressed or smoothed); cut at mid-grey, {changed:,} of "
               f"{stored.size:,} pixels changed")  # fmt: skip
    return (stored >= 128).astype(np.uint8)


def _listed(values: NDArray[Any]) -> str:
    text = ", ".join(str(v) for v in values[:8])
    return text + (f" ... {values[-1]}" if len(values) > 8 else "")


def _evident_values(path: FilePath, values: NDArray[Any]) -> tuple[int, ...]:
    """Foreground values in class order where no declaration is needed."""
    found = tuple(int(v) for v in values if v != 0)
    if 0 not in values and found not in ((1,), (VIEWER_WHITE,)):
        raise DataError(path, f"has no background 0 (its values are {_listed(values)})", DECLARE)
    if found and found[0] < 0:
        raise DataError(path, f"has negative labels ({_listed(values)})", DECLARE)
    if len(found) == 1:
        if found[0] not in (1, VIEWER_WHITE):
            warn(path, f"has the values 0 and {found[0]}; {found[0]} was read as foreground")
        return found
    if found != tuple(range(1, len(found) + 1)):
        raise DataError(path, f"has labels with gaps ({_listed(values)})", DECLARE)
    return found


def _check_declared(
    path: FilePath, values: NDArray[Any], declared: tuple[int, ...]
) -> tuple[int, ...]:
    """The value of each class in this file: as declared, or 255 for the only class."""
    present = {int(v) for v in values} - {0}
    if len(declared) == 1 and present == {VIEWER_WHITE}:
        return (VIEWER_WHITE,)
    unknown = sorted(present - set(declared))
    if unknown:
        raise DataError(
            path,
            f"has the undeclared values {_listed(np.array(unknown))}; declared are "
            f"{', '.join(str(v) for v in declared)}",
            "declare them as labels in dataset.json, or correct the mask",
        )
    return declared


def _remapped(stored: NDArray[Any], order: tuple[int, ...]) -> NDArray[Any]:
    kind = np.uint8 if len(order) < 256 else np.uint16
    if order == tuple(range(1, len(order) + 1)):
        return stored.astype(kind)
    classes = np.zeros(stored.shape, kind)
    for index, value in enumerate(order, start=1):
        classes[stored == value] = index
    return classes


def write_labels(
    path: FilePath,
    classes: NDArray[Any],
    geometry: Geometry,
    *,
    labels: Labels | None = None,
    overwrite: bool = False,
) -> None:
    """Write a mask or label map that :func:`read_labels` reads back the same.

    Values are those declared in ``labels``, else the class numbers. A binary
    mask goes into a picture as {0, 255}, so that any viewer shows it.

    Args:
        path: The suffix decides the format; JPEG is refused because it changes values.
        classes: ``(*S)`` class numbers, 0 is the background.
        geometry: Grid of ``S``.
        labels: Name to stored value, as for :func:`read_labels`.
        overwrite: Replace an existing file.

    Raises:
        DataError: When a class is not declared or does not fit the format, or the file exists.
    """
    save = writer(path).write
    values = _stored_values(path, np.asarray(classes), labels)
    if suffix(path) in PICTURES and _is_binary(classes, labels) and values.max(initial=0) <= 1:
        values = values * VIEWER_WHITE
    top = int(values.max(initial=0))
    if top > 65535 or (top > 255 and suffix(path) == ".bmp"):
        raise DataError(path, f"would need to hold the label {top}", "renumber the classes")
    stored = values.astype(np.uint8 if top <= 255 else np.uint16, copy=False)
    if stored.shape != geometry.shape:
        raise DataError(
            path,
            f"would hold labels of shape {stored.shape} on a grid of {geometry.shape}",
            "give the geometry that belongs to the labels",
        )
    with atomic_write(path, overwrite) as temporary:
        save(temporary, stored[None], geometry)


def _is_binary(classes: NDArray[Any], labels: Labels | None) -> bool:
    if labels is not None:
        return len(foreground_values(labels)) == 1
    return bool(np.max(classes, initial=0) <= 1)


def _stored_values(path: FilePath, classes: NDArray[Any], labels: Labels | None) -> NDArray[Any]:
    """The values of a file for class numbers, in no wider a type: volumes may be large."""
    if classes.dtype.kind not in "biu" or np.min(classes, initial=0) < 0:
        raise DataError(
            path, f"would hold {classes.dtype} labels from {np.min(classes)}",
            "give class numbers 0, 1, 2 ... as integers",
        )  # fmt: skip
    classes = classes.view(np.uint8) if classes.dtype == bool else classes
    if labels is None:
        return classes
    values = np.array([0, *foreground_values(labels)])
    if np.max(classes, initial=0) >= len(values) or values.min() < 0:
        raise DataError(
            path, f"would hold class {np.max(classes)}, declared are {len(values) - 1} "
            f"with the values {_listed(values[1:])}", "correct the declaration",
        )  # fmt: skip
    if np.array_equal(values, np.arange(len(values))):
        return classes
    stored = np.empty(classes.shape, np.min_scalar_type(values.max()))
    for place, part in zip(stored, classes, strict=True):  # an index costs eight bytes a voxel
        place[...] = values[part]
    return stored
