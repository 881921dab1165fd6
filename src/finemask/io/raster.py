"""What every format hands over: a header, an array, and the checks all of them share."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry, Unit
from finemask.io.notices import warn

MAX_VOXELS = 2**29
"""Voxels times channels that a file may claim before anything is allocated (2 GiB of float32)."""

MAX_CHANNELS = 16
"""A fourth axis longer than this is a time series, not channels."""

BLOCK = 2**16
DEFLATE_RATIO = 1032
"""No deflated byte yields more."""

FilePath = str | os.PathLike[str]


@dataclass(frozen=True)
class Header:
    """What a file says about its image, read without allocating the image.

    Args:
        path: The file or DICOM folder.
        format: Name of the file format.
        geometry: Grid of the image, volumes in RAS+ millimetres.
        channels: Values a voxel.
        dtype: Type of the values as stored.
        lossy: Whether the format's compression changes values.
    """

    path: Path
    format: str
    geometry: Geometry
    channels: int
    dtype: np.dtype[Any]
    lossy: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each array axis, without the channels."""
        return self.geometry.shape


@dataclass(frozen=True, eq=False)
class Raster:
    """An image as stored: ``(C, *S)`` values of the file's own type.

    Args:
        header: What the file says.
        array: Values, the file's rescaling applied; palette indices where there is a palette.
        palette: ``(K, 3)`` colours of the indices.
    """

    header: Header
    array: NDArray[Any]
    palette: NDArray[np.uint8] | None = None


def max_voxels() -> int:
    """The budget of one image: ``FINEMASK_MAX_VOXELS``, or :data:`MAX_VOXELS`."""
    text = os.environ.get("FINEMASK_MAX_VOXELS", "")
    if text and not text.isdecimal():
        raise UsageError("FINEMASK_MAX_VOXELS", f"is {text!r}, needs a whole number", "correct it")
    return int(text) if text else MAX_VOXELS


def check_size(path: FilePath, sizes: Sequence[int], channels: int = 1) -> int:
    """Values of an image, or an error before anything is allocated.

    Raises:
        DataError: On an axis without voxels, or more values than :func:`max_voxels`.
    """
    claimed = " x ".join(str(s) for s in (*sizes, channels)[: len(sizes) + (channels != 1)])
    if not sizes or min(*sizes, channels) < 1:
        raise DataError(
            path, f"has no voxels along an axis (its header says {claimed})", "export it again"
        )
    count = math.prod(sizes) * channels
    if count > max_voxels():
        raise DataError(
            path,
            f"its header claims {claimed} = {count:,} values, more than the limit of "
            f"{max_voxels():,}",
            "crop it, or raise the limit in the environment variable FINEMASK_MAX_VOXELS",
        )
    return count


def check_length(path: FilePath, found: int, needed: int) -> None:
    """Refuse a file whose pixel data are shorter than its header says; note the reverse.

    Raises:
        DataError: When bytes are missing.
    """
    if found < needed:
        raise DataError(
            path,
            f"is truncated (found {found:,} bytes, its header needs {needed:,})",
            "copy or export it again",
        )
    if found > needed:
        warn(path, f"{found - needed:,} bytes after the image were ignored")


def inflate(path: FilePath, packed: bytes | memoryview, length: int) -> memoryview:
    """Decompress gzip or zlib data to ``length`` bytes, checksum verified to the very end.

    Fed in blocks that stay in the cache, straight into a buffer of the known
    length: faster than ``gzip``'s file object, and a bomb fills no memory.

    Raises:
        DataError: When the data end early, are corrupt, or hold far more than ``length``.
    """
    if length > DEFLATE_RATIO * (len(packed) + 1):
        raise DataError(
            path,
            f"is truncated (its {len(packed):,} compressed bytes cannot hold {length:,})",
            "copy or export it again",
        )
    out, found, limit = np.empty(length, np.uint8).data, 0, length + 2**20
    stream = zlib.decompressobj(wbits=47)  # zlib or gzip, by its first bytes
    view = memoryview(packed)
    try:
        for start in range(0, len(view), BLOCK):
            block: bytes | memoryview = view[start : start + BLOCK]
            while len(block):
                if stream.eof:  # padding, or a further gzip member
                    block = bytes(block).lstrip(b"\0")
                    if not block:
                        break
                    stream = zlib.decompressobj(wbits=47)
                made = stream.decompress(block, limit - found + 1)
                end = min(found + len(made), length)
                out[min(found, length) : end] = made[: end - min(found, length)]
                found += len(made)
                if found > limit:
                    raise DataError(
                        path,
                        f"holds far more data than the {length:,} bytes that its header describes",
                        "export it again",
                    )
                block = stream.unused_data if stream.eof else stream.unconsumed_tail
    except zlib.error as error:
        raise DataError(
            path, f"is corrupt (its compressed data fail with {error})", "copy or export it again"
        ) from error
    if not stream.eof:
        raise DataError(
            path,
            f"is truncated (its compressed data end after {found:,} of {length:,} bytes)",
            "copy or export it again",
        )
    check_length(path, found, length)
    return out


def from_bytes(
    path: FilePath, data: bytes | memoryview, dtype: np.dtype[Any], shape: Sequence[int]
) -> NDArray[Any]:
    """View bytes as an array of native byte order.

    Raises:
        DataError: When bytes are missing.
    """
    needed = math.prod(shape) * dtype.itemsize
    check_length(path, len(data), needed)
    array = np.frombuffer(data, dtype, count=math.prod(shape)).reshape(tuple(shape))
    return array.astype(dtype.newbyteorder("="), copy=False)


def file_geometry(
    path: FilePath, sizes: Sequence[int], affine: Float[ndarray, " n n"], unit: Unit = "mm"
) -> Geometry:
    """Geometry of a file whose axes and world come fastest first.

    Args:
        path: For messages.
        sizes: Voxels along each axis, fastest first.
        affine: Homogeneous matrix from file index to world (RAS+ in 3-D).
        unit: ``"px"`` where the file does not say how large a voxel is.

    Raises:
        DataError: On a singular matrix or numbers that are not finite.
    """
    n = len(sizes)
    # A picture's world is (row, column), so there the world axes are reversed too.
    world = np.arange(n) if n == 3 else np.arange(n)[::-1]
    matrix = np.asarray(affine, dtype=np.float64)[np.ix_([*world, n], [*range(n - 1, -1, -1), n])]
    spacing = np.linalg.norm(matrix[:-1, :-1], axis=0)
    if not np.isfinite(matrix).all():
        raise DataError(path, "its spacing or position is not finite", "correct its header")
    if (spacing <= 0).any():
        found = ", ".join(f"{s:g}" for s in spacing)
        raise DataError(
            path, f"its voxel spacing is ({found}), needs positive numbers", "correct its header"
        )
    try:
        return Geometry.from_affine(tuple(sizes)[::-1], matrix, unit)
    except ValueError as error:
        raise DataError(
            path, "the directions of its axes do not span space", "correct its header"
        ) from error


def file_affine(geometry: Geometry) -> Float[ndarray, " n n"]:
    """The inverse of :func:`file_geometry`: axes and world fastest first."""
    n = geometry.ndim
    world = np.arange(n) if n == 3 else np.arange(n)[::-1]
    return geometry.affine[np.ix_([*world, n], [*range(n - 1, -1, -1), n])]


def flip_lps(affine: Float[ndarray, " n n"]) -> Float[ndarray, " n n"]:
    """LPS+ world to RAS+ or back; the world of a picture has no patient axes and stays."""
    if len(affine) != 4:
        return affine
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def spatial_axes(path: FilePath, sizes: Sequence[int]) -> tuple[tuple[int, ...], int]:
    """Split a file's axes (fastest first) into three of space and a few channels.

    Trailing axes of one are dropped. One further axis of at most
    :data:`MAX_CHANNELS` is the channels; anything else is refused.

    Example:
        >>> spatial_axes("a.nii", (9, 8, 7, 1, 3))
        ((9, 8, 7), 3)
    """
    extra = [s for s in sizes[3:] if s != 1]
    if len(extra) > 1 or (extra and extra[0] > MAX_CHANNELS):
        raise DataError(
            path,
            f"has {len(sizes)} axes ({' x '.join(map(str, sizes))}); needs a volume, with at most "
            f"{MAX_CHANNELS} channels",
            "split it into one file a time point",
        )
    return tuple(sizes[:3]), extra[0] if extra else 1


def sibling(path: FilePath, name: str) -> Path:
    """A detached data file, which must lie in its header's folder.

    Raises:
        DataError: When it lies elsewhere, is absent or is not a file.
    """
    folder = Path(path).resolve().parent
    found = (folder / name).resolve()
    if not found.is_relative_to(folder):
        raise DataError(
            path,
            f"its header names the data file {name!r}, which is outside its folder",
            "put the data file beside the header and correct the name",
        )
    if not found.is_file():
        raise DataError(path, f"its data file {name!r} is missing", "put it beside the header")
    return found
