"""Images and probability maps to files and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.dicom_seg import FORMAT as SEGMENTATION
from finemask.io.files import atomic_write
from finemask.io.formats import read_raster, suffix, writer
from finemask.io.notices import warn
from finemask.io.pictures import is_grey
from finemask.io.raster import FilePath, Raster

PICTURES = (".png", ".bmp", ".jpg", ".jpeg")


def read_image(path: FilePath, series: str | None = None) -> tuple[NDArray[np.float32], Geometry]:
    """Read the intensities of an image and where it lies in the patient.

    Intensities are physical where the file rescales (Hounsfield units in CT).
    Values that are not finite are replaced, NaN by the smallest finite value,
    with a warning that counts them.

    Args:
        path: Image file, or folder with one DICOM series.
        series: SeriesInstanceUID to read from a folder with several.

    Returns:
        ``(C, *S)`` float32 and the geometry of ``S``.

    Raises:
        DataError: When the file is no image, is not sound or has no finite value.
    """
    raster = read_raster(path, series)
    if raster.header.format == SEGMENTATION:
        raise DataError(path, "is a DICOM segmentation, not an image", "give it as a mask")
    array = _intensities(raster)
    if raster.array.dtype.kind == "f" and (bad := ~np.isfinite(array)).any():
        array = _finite(path, array, bad)
    return array, raster.header.geometry


def _intensities(raster: Raster) -> NDArray[np.float32]:
    array = raster.array
    if raster.palette is not None:
        array = np.moveaxis(raster.palette[array[0]], -1, 0)
        array = array[:1] if is_grey(raster.palette) else array
    with np.errstate(over="ignore"):  # becomes infinite, which is counted and replaced
        return np.ascontiguousarray(array, dtype=np.float32)


def _finite(path: FilePath, array: NDArray[np.float32], bad: NDArray[np.bool_]) -> Any:
    count = int(bad.sum())
    if count == array.size:
        raise DataError(path, "has no finite value", "export it again")
    low, high = float(array[~bad].min()), float(array[~bad].max())
    warn(path, f"{count:,} of {array.size:,} values are not finite; NaN was read as {low:g}")
    return np.nan_to_num(array, nan=low, posinf=high, neginf=low)


def write_image(
    path: FilePath, array: NDArray[Any], geometry: Geometry, *, overwrite: bool = False
) -> None:
    """Write an image without changing a value, whole or not at all.

    PNG and BMP take whole numbers only; every other format takes floats too.

    Args:
        path: The suffix decides the format.
        array: ``(C, *S)`` or ``(*S)``.
        geometry: Grid of ``S``.
        overwrite: Replace an existing file.

    Raises:
        DataError: When the format cannot hold the values, or the file exists.
    """
    save = writer(path).write
    array = _with_channels(path, np.asarray(array), geometry)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    elif array.dtype == np.float16:
        array = array.astype(np.float32)
    if suffix(path) in PICTURES and array.dtype not in (np.uint8, np.uint16):
        array = _whole_numbers(path, array)
    with atomic_write(path, overwrite) as temporary:
        save(temporary, array, geometry)


def _with_channels(path: FilePath, array: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    if array.ndim == geometry.ndim:
        array = array[None]
    if array.shape[1:] != geometry.shape:
        raise DataError(
            path,
            f"would hold an array of shape {array.shape} on a grid of {geometry.shape}",
            "give the geometry that belongs to the array",
        )
    return array


def _whole_numbers(path: FilePath, array: NDArray[Any]) -> NDArray[Any]:
    rounded = np.round(array)
    low, high = float(rounded.min()), float(rounded.max())
    if not np.array_equal(rounded, array) or low < 0 or high > 65535:
        raise DataError(
            path,
            f"holds whole numbers from 0 to 65535 only, the image has {array.min():g} to "
            f"{array.max():g}",
            "write .tif or .nii.gz, or rescale and round it",
        )
    return rounded.astype(np.uint8 if high <= 255 else np.uint16)


def write_probs(
    path: FilePath,
    probs: Float[ndarray, " f *s"],
    geometry: Geometry,
    *,
    overwrite: bool = False,
) -> None:
    """Write probability maps: 16-bit PNG for one class in 2-D, float32 in every other format.

    Args:
        path: ``.png`` (one class, to 1/65535), ``.tif`` or a volume format.
        probs: ``(F, *S)`` or ``(*S)`` in [0, 1].
        geometry: Grid of ``S``.
        overwrite: Replace an existing file.

    Raises:
        DataError: On values outside [0, 1], or several classes in a PNG.
    """
    array = _with_channels(path, np.asarray(probs, dtype=np.float32), geometry)
    _check_probs(path, array)
    if suffix(path) in PICTURES:
        if len(array) > 1 or suffix(path) != ".png":
            raise DataError(path, f"holds no probabilities of {len(array)} classes", "write .tif")
        array = np.round(array * 65535).astype(np.uint16)
    write_image(path, array, geometry, overwrite=overwrite)


def read_probs(
    path: FilePath | Sequence[FilePath],
) -> tuple[NDArray[np.float32], Geometry]:
    """Read soft masks: floats in [0, 1], or integers as shares of their type's maximum.

    Args:
        path: One file whose channels are the foreground classes, or one file a class.

    Returns:
        ``(F, *S)`` float32 in [0, 1] and the geometry of ``S``.

    Raises:
        DataError: On values outside [0, 1], or classes on different grids.
    """
    if isinstance(path, Sequence) and not isinstance(path, str):
        parts = [read_probs(p) for p in path]
        for one, (_, geometry) in zip(path[1:], parts[1:], strict=True):
            if not parts[0][1].matches(geometry):
                raise DataError(one, f"lies on another grid than {path[0]}", "put them on one grid")
        return np.concatenate([array for array, _ in parts]), parts[0][1]
    raster = read_raster(path)
    stored = raster.header.dtype
    array = _intensities(raster)
    if stored.kind in "iu" and array.size and array.max() > 1:
        array = array / np.float32(np.iinfo(stored).max)
    _check_probs(path, array)
    return array, raster.header.geometry


def _check_probs(path: FilePath | Path, array: NDArray[np.float32]) -> None:
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise DataError(
            path,
            f"needs probabilities in [0, 1], has {array.min():g} to {array.max():g}",
            "divide by the largest possible value",
        )
