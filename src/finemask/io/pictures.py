"""PNG, JPEG and BMP pictures: no silent change of depth, colour or orientation.

An EXIF orientation other than "as stored" is refused, because nothing tells
whether a mask was drawn on the turned or on the stored picture.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.raster import Header, Raster, check_size

CHANNELS = {"1": 1, "L": 1, "P": 1, "I;16": 1, "LA": 2, "RGB": 3, "RGBA": 4}
EXIF_ORIENTATION = 0x0112
ADAM7 = (
    *((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4)),
    *((0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)),
)
"""First column and row, and steps, of the seven passes of an interlaced PNG."""


def read_header(path: Path) -> Header:
    """Size and depth of a picture, its pixels untouched."""
    with _opened(path, path) as picture:
        return _describe(path, picture)


def read(path: Path) -> Raster:
    """All pixels, 16 bits where the file has 16; palette indices with their palette."""
    data = path.read_bytes()
    with _opened(path, io.BytesIO(data)) as picture:
        header = _describe(path, picture)
        if picture.format == "PNG":
            _check_png(path, memoryview(data))
        colours = _palette(picture)
        array = _pixels(path, picture)
        _refuse_turned(path, picture)
    array = np.atleast_3d(array).transpose(2, 0, 1)
    return Raster(header, drop_alpha(path, array), colours)


@contextmanager
def _opened(path: Path, source: Path | io.BytesIO) -> Iterator[Any]:
    """A picture of one frame whose size is within Pillow's limit."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(source, formats=("PNG", "JPEG", "BMP", "TIFF"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(
            path,
            f"its header claims more than the {Image.MAX_IMAGE_PIXELS:,} pixels that a picture "
            "may have",
            "cut it into tiles",
        ) from error
    except Image.UnidentifiedImageError as error:
        raise DataError(path, "is no PNG, JPEG, BMP or TIFF inside", "export it again") from error
    with picture:
        yield picture


def _describe(path: Path, picture: Any) -> Header:
    size = (picture.height, picture.width)
    check_size(path, size, len(picture.getbands()))
    if getattr(picture, "n_frames", 1) > 1:
        raise DataError(path, f"holds {picture.n_frames} pictures", "save each as its own file")
    if picture.mode not in CHANNELS:
        raise DataError(
            path, f"has the colour mode {picture.mode}", "save it as grey or RGB without alpha"
        )
    _refuse_turned(path, picture)
    channels = CHANNELS[picture.mode]
    if picture.mode == "P":
        channels = 1 if is_grey(_palette(picture)) else 3
    elif channels in (2, 4):
        channels -= 1
    depth = "u2" if picture.mode == "I;16" or _raw_mode(picture).endswith("16B") else "u1"
    return Header(
        path,
        picture.format,
        Geometry.regular(size),
        channels,
        np.dtype(depth),
        lossy=picture.format == "JPEG",
    )


def _refuse_turned(path: Path, picture: Any) -> None:
    if picture.format == "PNG" and "exif" not in picture.info:
        return  # asking would decode the pixels; an EXIF block behind them is seen after that
    turned = picture.getexif().get(EXIF_ORIENTATION, 1)
    if turned not in (0, 1):
        raise DataError(
            path,
            f"is stored turned (EXIF orientation {turned}), so its mask may not lie on it",
            "turn its pixels (for example with ImageMagick: mogrify -auto-orient) and check that "
            "the mask fits",
        )


def _raw_mode(picture: Any) -> str:
    return str(picture.tile[0][3]) if picture.tile else ""


def _pixels(path: Path, picture: Any) -> NDArray[Any]:
    raw = _raw_mode(picture)
    if raw not in ("RGB;16B", "RGBA;16B", "LA;16B"):
        array = np.asarray(picture)
        return array.astype(np.uint8) if array.dtype == bool else array
    if raw == "LA;16B":
        raise DataError(path, "is 16-bit grey with alpha", "save it as 16-bit grey without alpha")
    # Pillow keeps only the high byte of 16-bit colours; read as little-endian, the same
    # bytes yield the low one.
    from PIL import Image

    high = np.asarray(picture).astype(np.uint16)
    with Image.open(path) as again:
        again.tile = [again.tile[0]._replace(args=raw.replace("16B", "16L"))]
        return (high << 8) | np.asarray(again)


def _palette(picture: Any) -> NDArray[np.uint8] | None:
    if picture.mode != "P":
        return None
    colours = np.array(picture.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    full = np.zeros((256, 3), np.uint8)
    full[: len(colours)] = colours
    return full


def is_grey(palette: NDArray[np.uint8] | None) -> bool:
    """Whether every colour of a palette is a grey."""
    return palette is not None and bool((palette == palette[:, :1]).all())


def drop_alpha(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """``(C, H, W)`` without its alpha channel, which must be opaque throughout."""
    if len(array) not in (2, 4):
        return array
    if (array[-1] != np.iinfo(array.dtype).max).any():
        raise DataError(
            path, "has transparent pixels", "flatten it onto its background and save without alpha"
        )
    return array[:-1]


def _check_png(path: Path, data: memoryview) -> None:
    """Verify every checksum, and that there are as many pixels as the header claims.

    Pillow skips the checksums of the pixels, and fills up with black where they end early.
    """
    position, pixels = 8, _Pixels(path, data)
    while position + 12 <= len(data):
        length = struct.unpack_from(">I", data, position)[0]
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise DataError(path, "is corrupt (a checksum fails)", "copy or export it again")
        kind = bytes(data[position + 4 : position + 8])
        if kind == b"IDAT":
            pixels.feed(data[position + 8 : end])
        elif kind == b"IEND":
            pixels.check()
            return
        position = end + 4
    raise DataError(path, "is truncated (it has no end mark)", "copy or export it again")


class _Pixels:
    """Counts the unpacked bytes of a PNG, which are never all in memory."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path, self.stream, self.count = path, zlib.decompressobj(), 0
        width, height, depth, colour, _, _, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
        bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}.get(colour, 1)
        passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
        sizes = ((-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes)
        self.needed = sum(h * (1 + (w * bits + 7) // 8) for w, h in sizes if w > 0 and h > 0)

    def feed(self, packed: memoryview) -> None:
        left: bytes | memoryview = packed
        try:
            while left and not self.stream.eof and self.count <= self.needed:
                self.count += len(self.stream.decompress(left, 1 << 20))
                left = self.stream.unconsumed_tail
        except zlib.error as error:
            raise DataError(
                self.path, f"is corrupt ({error})", "copy or export it again"
            ) from error

    def check(self) -> None:
        if self.count < self.needed:
            raise DataError(
                self.path,
                f"is truncated (its pixels are {self.count:,} bytes, its size needs "
                f"{self.needed:,})",
                "copy or export it again",
            )


def write(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write ``(C, H, W)`` bytes or 16-bit greys without loss."""
    from PIL import Image

    if geometry.ndim != 2 or len(array) not in (1, 3):
        raise DataError(
            path, f"a picture holds 1 or 3 channels of 2-D, not {array.shape}", "write .nii.gz"
        )
    if path.suffix.lower() in (".jpg", ".jpeg"):
        raise DataError(path, "JPEG would change the values", "write .png")
    wide = array.dtype == np.uint16
    if (array.dtype != np.uint8 and not wide) or (wide and len(array) > 1):
        raise DataError(
            path, f"PNG and BMP hold no {len(array)}-channel {array.dtype}", "write .tif"
        )
    if wide and path.suffix.lower() == ".bmp":
        raise DataError(path, "BMP holds 8 bits only", "write .png")
    pixels = array[0] if len(array) == 1 else np.moveaxis(array, 0, -1)
    kind = "BMP" if path.suffix.lower() == ".bmp" else "PNG"
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, format=kind)
