"""MetaImage: .mha with the image inside, .mhd with a data file beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.raster import (
    Header,
    Raster,
    check_length,
    check_size,
    file_affine,
    file_geometry,
    flip_lps,
    from_bytes,
    inflate,
    sibling,
    spatial_axes,
)

FORMAT = "MetaImage"
TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4",
    "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
MAX_HEADER = 2**16
Fields = dict[str, str]


def read_header(path: Path) -> Header:
    """What the text header says; the length of an uncompressed image is checked too."""
    fields, start = _fields(path)
    header = _describe(path, fields)
    file, offset = _data_file(path, fields, start)
    if not _true(fields, "compresseddata"):
        length = check_size(path, header.shape, header.channels) * header.dtype.itemsize
        offset = _skip(fields, file, offset, length)
        check_length(path, file.stat().st_size - offset, length)
    return header


def read(path: Path) -> Raster:
    """The whole image; the length of compressed data is checked here, ITK does not."""
    fields, start = _fields(path)
    header = _describe(path, fields)
    file, offset = _data_file(path, fields, start)
    length = check_size(path, header.shape, header.channels) * header.dtype.itemsize
    data = memoryview(file.read_bytes())
    if _true(fields, "compresseddata"):
        data = inflate(path, data[offset:], length)
    else:
        data = data[_skip(fields, file, offset, length) :]
    per_voxel = int(fields.get("elementnumberofchannels", "1"))
    if per_voxel > 1:
        stored = from_bytes(path, data, header.dtype, (*header.shape, header.channels))
        return Raster(header, np.moveaxis(stored, -1, 0))
    return Raster(header, from_bytes(path, data, header.dtype, (header.channels, *header.shape)))


def _fields(path: Path) -> tuple[Fields, int]:
    """The lines ``key = value`` up to ElementDataFile, and where the data start."""
    with open(path, "rb") as file:
        start = file.read(MAX_HEADER)
    fields: Fields = {}
    position = 0
    while (end := start.find(b"\n", position)) >= 0 or position < len(start):
        end = len(start) if end < 0 else end
        key, found, value = start[position:end].decode("latin-1").partition("=")
        if not found:
            break
        fields[key.strip().lower()] = value.strip()
        position = end + 1
        if key.strip().lower() == "elementdatafile":
            return fields, position
    raise DataError(
        path, "is no MetaImage, or its header is cut off (no ElementDataFile)", "export it again"
    )


def _describe(path: Path, fields: Fields) -> Header:
    sizes = [int(s) for s in _numbers(path, fields, "dimsize")]
    check_size(path, sizes)
    n = min(len(sizes), 3)
    if n < 2 or len(sizes) != int(fields.get("ndims", len(sizes))):
        raise DataError(path, f"its DimSize {sizes} does not fit NDims", "correct its header")
    shape, channels = spatial_axes(path, sizes)
    per_voxel = int(fields.get("elementnumberofchannels", "1"))
    if per_voxel > 1 and channels > 1:
        raise DataError(path, "is a time series of vectors", "split it into one file a time point")
    kind = fields.get("elementtype", "").upper()
    if kind not in TYPES:
        raise DataError(path, f"has the unknown ElementType {kind!r}", "export it again")
    if not _true(fields, "binarydata", "true"):
        raise DataError(path, "holds its values as text", "export it as binary")
    big = _true(fields, "binarydatabyteordermsb") or _true(fields, "elementbyteordermsb")
    dtype = np.dtype(TYPES[kind]).newbyteorder(">" if big else "<")
    check_size(path, shape, channels * per_voxel)
    geometry = _geometry(path, fields, shape, len(sizes))
    return Header(path, FORMAT, geometry, channels * per_voxel, dtype)


def _geometry(path: Path, fields: Fields, shape: tuple[int, ...], axes: int) -> Geometry:
    n = len(shape)
    known = [k for k in ("elementspacing", "elementsize") if k in fields]
    spacing = np.array(_numbers(path, fields, known[0], axes) if known else [1.0] * axes)
    affine = np.eye(n + 1)
    names = [k for k in ("transformmatrix", "rotation", "orientation") if k in fields]
    if names:
        # One axis a row in the file, one axis a column in a matrix.
        cosines = np.reshape(_numbers(path, fields, names[0], axes * axes), (axes, axes)).T
        affine[:n, :n] = cosines[:n, :n]
    affine[:n, :n] *= spacing[:n]
    origins = [k for k in ("offset", "position", "origin") if k in fields]
    if origins:
        affine[:n, n] = _numbers(path, fields, origins[0], axes)[:n]
    return file_geometry(path, shape, flip_lps(affine), "mm" if known else "px")


def _numbers(path: Path, fields: Fields, key: str, count: int | None = None) -> list[float]:
    try:
        numbers = [float(word) for word in fields[key].split()]
    except (KeyError, ValueError) as error:
        raise DataError(path, f"its header has no usable {key}", "export it again") from error
    if count is not None and len(numbers) != count:
        raise DataError(
            path, f"its {key} has {len(numbers)} numbers, needs {count}", "correct its header"
        )
    return numbers


def _true(fields: Fields, key: str, default: str = "false") -> bool:
    return fields.get(key, default).lower() in ("true", "1", "t", "yes")


def _data_file(path: Path, fields: Fields, start: int) -> tuple[Path, int]:
    """The file that holds the image, and the offset of its first byte."""
    name = fields["elementdatafile"]
    if name.upper() in ("LOCAL", "LOCALFILE"):
        return path, start
    if name.upper().startswith("LIST") or "%" in name or len(name.split()) > 1:
        raise DataError(path, "spreads its slices over several files", "export it as one .mha")
    return sibling(path, name), 0


def detached(path: Path) -> Path | None:
    """The file that holds the image of a header, where it is another file."""
    fields, start = _fields(path)
    file, _ = _data_file(path, fields, start)
    return None if file == path else file


def _skip(fields: Fields, file: Path, offset: int, length: int) -> int:
    """Offset behind a foreign header of HeaderSize bytes; -1 counts from the end."""
    skip = int(fields.get("headersize", "0"))
    return offset + skip if skip >= 0 else max(offset, file.stat().st_size - length)


def write(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write ``(C, *S)`` compressed into one .mha file."""
    import zlib

    if path.suffix.lower() != ".mha":
        raise DataError(path, "would need a second file", "write .mha, which holds header and data")
    names = {v: k for k, v in TYPES.items() if "LONG" not in k or "LONG_LONG" in k}
    kind = array.dtype.str[1:]
    if kind not in names:
        raise DataError(path, f"MetaImage holds no {array.dtype}", "convert it to float32")
    affine = flip_lps(file_affine(geometry))
    spacing = geometry.spacing[::-1]
    cosines = (affine[:-1, :-1] / spacing).T
    body = np.ascontiguousarray(np.moveaxis(array, 0, -1), array.dtype.newbyteorder("<"))
    packed = zlib.compress(body.data.cast("B"), 4)
    lines = {
        "ObjectType": "Image",
        "NDims": geometry.ndim,
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "True",
        "CompressedDataSize": len(packed),
        "TransformMatrix": " ".join(f"{c:.17g}" for c in cosines.ravel()),
        "Offset": " ".join(f"{o:.17g}" for o in affine[:-1, -1]),
        "ElementSpacing": " ".join(f"{s:.17g}" for s in spacing),
        "DimSize": " ".join(str(s) for s in geometry.shape[::-1]),
        **({"ElementNumberOfChannels": len(array)} if len(array) > 1 else {}),
        "ElementType": names[kind],
        "ElementDataFile": "LOCAL",
    }
    text = "".join(f"{key} = {value}\n" for key, value in lines.items())
    path.write_bytes(text.encode("ascii") + packed)
