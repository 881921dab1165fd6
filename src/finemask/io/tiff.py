"""TIFF pictures: 8 and 16 bits, floats, several channels; one page only."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.pictures import drop_alpha, is_grey
from finemask.io.raster import MAX_CHANNELS, Header, Raster, check_size

FORMAT = "TIFF"
ORIENTATION = 274
JPEG_COMPRESSIONS = (6, 7, 34892)
MAX_PAGES, MAX_TAGS = 256, 1000
"""More than any picture has; reading the first pages of a damaged file may take for ever."""


def read_header(path: Path) -> Header:
    """Size, depth and channels of a TIFF, its pixels untouched."""
    import tifffile

    _check_directories(path)
    with tifffile.TiffFile(path) as file:
        return _describe(path, file)


def read(path: Path) -> Raster:
    """All pixels as stored; white-is-zero greys are turned to black-is-zero."""
    import tifffile

    _check_directories(path)
    with tifffile.TiffFile(path) as file:
        header = _describe(path, file)
        page, axes = file.series[0].keyframe, file.series[0].axes
        colours = _palette(page)
        try:
            array = file.series[0].asarray()
        except (KeyError, ValueError) as error:
            if "imagecodecs" not in str(error):
                raise
            array = _decode_with_pillow(path, page)
        white_is_zero = int(page.photometric) == 0
    array = np.moveaxis(array, axes.index("S"), 0) if "S" in axes else array
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array = array.astype(np.uint8) if array.dtype == bool else array
    array = array[None] if array.ndim == 2 else array
    if white_is_zero:
        top = 2**page.bitspersample - 1 if header.dtype.kind == "u" else array.max()
        array = (top - array).astype(array.dtype)
    return Raster(header, drop_alpha(path, array) if _has_alpha(page) else array, colours)


def _check_directories(path: Path) -> None:
    """Walk the chain of pages, which in a damaged file may be endless or hold any number of tags.

    Raises:
        DataError: When it is no chain of a few pages of a few tags.
    """
    with open(path, "rb") as file:
        start = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        version = struct.unpack(f"{order}H", start[2:4])[0] if order else 0
        if version not in (42, 43):
            raise DataError(path, "is no TIFF inside", "export it again")
        big = version == 43
        count_form, offset_form, entry = ("Q", "Q", 20) if big else ("H", "I", 12)

        def number(form: str) -> int:
            data = file.read(struct.calcsize(f"{order}{form}"))
            return int(struct.unpack(f"{order}{form}", data)[0])

        file.seek(8 if big else 4)
        offset, seen = number(offset_form), set[int]()
        while offset:
            file.seek(offset)
            tags = number(count_form)
            seen.add(offset)
            if tags > MAX_TAGS or len(seen) > MAX_PAGES:
                found = f"a page of {tags:,} tags" if tags > MAX_TAGS else "more"
                raise DataError(
                    path,
                    f"needs at most {MAX_PAGES} pages of at most {MAX_TAGS} tags, has {found}",
                    "save each picture as its own file",
                )
            file.seek(offset + struct.calcsize(f"{order}{count_form}") + tags * entry)
            offset = number(offset_form)
            if offset in seen:
                raise DataError(path, "is corrupt (its pages form a circle)", "export it again")


def _describe(path: Path, file: Any) -> Header:
    if len(file.series) != 1 or file.series[0].axes.strip("CS") != "YX":
        # Some writers keep many pages in one, which only the axes of the series tell.
        named = [list(zip(s.axes, s.shape, strict=True)) for s in file.series]
        stacked = [math.prod(n for axis, n in each if axis not in "CSYX") for each in named]
        count = max(len(file.pages), sum(stacked))
        raise DataError(
            path,
            f"holds {count} pages (axes {', '.join(s.axes for s in file.series)}), needs one "
            "picture",
            "save each page as its own file, or the stack as a NIfTI volume",
        )
    series = file.series[0]
    page = series.keyframe
    sizes = dict(zip(series.axes, series.shape, strict=True))
    channels = sizes.get("C", 1) * sizes.get("S", 1)
    check_size(path, (sizes["Y"], sizes["X"]), channels)
    if ("C" in sizes and "S" in sizes) or channels > MAX_CHANNELS:
        raise DataError(path, f"has {channels} channels", "save each channel as its own file")
    dtype = np.dtype(bool) if page.bitspersample == 1 else series.dtype
    if dtype.kind not in "biuf":
        raise DataError(path, f"holds {dtype} values", "save it as integers or 32-bit floats")
    turned = page.tags.valueof(ORIENTATION, 1)
    if turned not in (0, 1):
        raise DataError(
            path,
            f"is stored turned (orientation {int(turned)}), so its mask may not lie on it",
            "turn its pixels (for example with ImageMagick: mogrify -auto-orient) and check that "
            "the mask fits",
        )
    colours = _palette(page)
    if colours is not None:
        channels = 1 if is_grey(colours) else 3
    return Header(
        path,
        FORMAT,
        Geometry.regular((sizes["Y"], sizes["X"])),
        channels - _has_alpha(page),
        np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("="),
        lossy=int(page.compression) in JPEG_COMPRESSIONS,
    )


def _has_alpha(page: Any) -> bool:
    return page.samplesperpixel in (2, 4) and any(int(e) in (1, 2) for e in page.extrasamples)


def _palette(page: Any) -> NDArray[np.uint8] | None:
    if int(page.photometric) != 3 or page.colormap is None:
        return None
    return (page.colormap.T >> 8).astype(np.uint8)


def _decode_with_pillow(path: Path, page: Any) -> NDArray[Any]:
    """LZW, PackBits and JPEG pages, which tifffile leaves to a package of 50 MB."""
    from PIL import Image

    bits, samples = page.bitspersample, page.samplesperpixel
    if bits > 8 and samples > 1:
        raise DataError(
            path,
            f"is compressed with {page.compression.name} at {bits} bits in {samples} channels",
            "save it uncompressed, or: pip install imagecodecs",
        )
    with Image.open(path) as picture:
        array = np.asarray(picture)
    if array.dtype == np.int32:  # Pillow's only wide integer
        array = array.astype(page.dtype)
    # Pillow turns white-is-zero itself; undo it, the caller turns both alike.
    if int(page.photometric) == 0:
        array = (2**bits - 1 - array.astype(np.int64)).astype(page.dtype)
    return np.moveaxis(array, -1, 0) if page.planarconfig == 2 and array.ndim == 3 else array


def write(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write ``(C, H, W)`` compressed without loss, channels as separate planes."""
    import tifffile

    if geometry.ndim != 2:
        raise DataError(path, "is TIFF, which holds pictures here", "write a volume as .nii.gz")
    single = len(array) == 1
    options: dict[str, Any] = {"photometric": "minisblack"}
    if not single:
        options |= {"planarconfig": "separate"}
        if len(array) == 3 and array.dtype.kind == "u":
            options["photometric"] = "rgb"
    tifffile.imwrite(
        path,
        array[0] if single else array,
        compression="zlib",
        metadata=None,
        software=False,
        **options,
    )
