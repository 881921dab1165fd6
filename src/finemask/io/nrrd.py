"""NRRD: attached (.nrrd) or with a data file beside the header (.nhdr)."""

from __future__ import annotations

import bz2
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.raster import (
    MAX_CHANNELS,
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
)

FORMAT = "NRRD"
TYPES = {
    "i1": ("int8", "signed char", "int8_t"),
    "u1": ("uint8", "uchar", "unsigned char", "uint8_t"),
    "i2": ("int16", "short", "short int", "signed short", "signed short int", "int16_t"),
    "u2": ("uint16", "ushort", "unsigned short", "unsigned short int", "uint16_t"),
    "i4": ("int32", "int", "signed int", "int32_t"),
    "u4": ("uint32", "uint", "unsigned int", "uint32_t"),
    "i8": ("int64", "longlong", "long long", "long long int", "signed long long", "int64_t"),
    "u8": ("uint64", "ulonglong", "unsigned long long", "unsigned long long int", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
SPACES = {
    "ras": (1, 1, 1), "right-anterior-superior": (1, 1, 1),
    "las": (-1, 1, 1), "left-anterior-superior": (-1, 1, 1),
    "lps": (-1, -1, 1), "left-posterior-superior": (-1, -1, 1),
}  # fmt: skip
"""Signs that bring a named space to RAS."""
MILLIMETRES = {"mm": 1.0, "m": 1000.0, "cm": 10.0, "um": 0.001, "µm": 0.001, "micron": 0.001}
MAX_HEADER = 2**20
Fields = dict[str, str]


def read_header(path: Path) -> Header:
    """What the text header says; the length of a raw image is checked too."""
    fields, start = _fields(path)
    header, _ = _describe(path, fields)
    file, offset = _data_file(path, fields, start)
    if _encoding(path, fields) == "raw":
        length = check_size(path, header.shape, header.channels) * header.dtype.itemsize
        check_length(path, file.stat().st_size - _skip(path, fields, file, offset, length), length)
    return header


def read(path: Path) -> Raster:
    """The whole image, decompressed to the end and its checksum verified."""
    fields, start = _fields(path)
    header, channel_axis = _describe(path, fields)
    file, offset = _data_file(path, fields, start)
    length = check_size(path, header.shape, header.channels) * header.dtype.itemsize
    data = memoryview(file.read_bytes())
    encoding = _encoding(path, fields)
    if encoding == "raw":
        data = data[_skip(path, fields, file, offset, length) :]
    else:
        packed = data[_skip_lines(path, fields, file, offset) :]
        skip = int(fields.get("byte skip", "0"))
        unpacked = _unpack(path, packed, encoding, length + max(skip, 0))
        data = memoryview(unpacked)[skip if skip >= 0 else len(unpacked) - length :]
    shape = list(header.shape)
    if channel_axis is not None:
        shape.insert(len(shape) - channel_axis, header.channels)
    stored = from_bytes(path, data, header.dtype, shape)
    if channel_axis is None:
        return Raster(header, stored[None])
    return Raster(header, np.moveaxis(stored, len(shape) - 1 - channel_axis, 0))


def _fields(path: Path) -> tuple[Fields, int]:
    """The lines ``field: value`` up to the empty line, and where attached data start."""
    with open(path, "rb") as file:
        start = file.read(MAX_HEADER)
    if not re.match(rb"NRRD000\d\r?\n", start):
        raise DataError(path, "is not NRRD", "export it again")
    end = re.search(rb"\r?\n\r?\n", start)
    if end is None and len(start) == MAX_HEADER:
        raise DataError(path, "has no end of its header", "export it again")
    text = start[: end.start() if end else len(start)].decode("utf-8", "replace")
    fields: Fields = {}
    for line in text.splitlines()[1:]:
        key, found, value = line.partition(": ")
        if not line.startswith("#") and found and not key.endswith("="):
            fields[key.strip().lower().replace("datafile", "data file")] = value.strip()
    return fields, end.end() if end else len(start)


def _describe(path: Path, fields: Fields) -> tuple[Header, int | None]:
    """Header, and which file axis (fastest first) holds the channels."""
    sizes = [int(s) for s in _numbers(path, fields, "sizes")]
    check_size(path, sizes)
    if len(sizes) != int(fields.get("dimension", "0")):
        raise DataError(path, f"its sizes {sizes} do not fit its dimension", "correct its header")
    axis = _channel_axis(path, fields, sizes)
    keep = [a for a in range(len(sizes)) if a != axis]
    channels = 1 if axis is None else sizes[axis]
    if len(keep) not in (2, 3) or channels > MAX_CHANNELS:
        raise DataError(
            path,
            f"has {len(sizes)} axes ({' x '.join(map(str, sizes))}); needs a picture or volume, "
            f"with at most {MAX_CHANNELS} channels",
            "split it into one file a time point",
        )
    kind = fields.get("type", "").lower()
    codes = [code for code, names in TYPES.items() if kind in names]
    if not codes:
        raise DataError(path, f"has the unknown type {kind!r}", "export it again")
    endian = fields.get("endian", "").lower()
    if endian not in ("little", "big") and not (codes[0].endswith("1") and not endian):
        raise DataError(path, f"its byte order is {endian or 'not given'}", "export it again")
    dtype = np.dtype(codes[0]).newbyteorder(">" if endian == "big" else "<")
    geometry = _geometry(path, fields, [sizes[a] for a in keep], keep)
    return Header(path, FORMAT, geometry, channels, dtype), axis


def _channel_axis(path: Path, fields: Fields, sizes: list[int]) -> int | None:
    """The axis that is not space: named by its kind, or without a direction."""
    kinds = fields.get("kinds", "").lower().split()
    directions = _vectors(fields.get("space directions", ""))
    for name, entries in (("kinds", kinds), ("space directions", directions)):
        if entries and len(entries) != len(sizes):
            raise DataError(
                path, f"its {name} has {len(entries)} entries, needs {len(sizes)}",
                "correct its header",
            )  # fmt: skip
    other = [
        a
        for a in range(len(sizes))
        if (kinds and kinds[a] not in ("domain", "space", "???", "none"))
        or (directions and directions[a] is None)
    ]
    if len(other) > 1 or (not other and len(sizes) > 3):
        raise DataError(
            path,
            f"has {len(sizes)} axes ({' x '.join(map(str, sizes))}) and does not say which one of "
            "them holds channels",
            "export it with kinds, or as one file a channel",
        )
    return other[0] if other else None


def _geometry(path: Path, fields: Fields, sizes: list[int], keep: list[int]) -> Geometry:
    n = len(sizes)
    affine = np.eye(n + 1)
    directions = _vectors(fields.get("space directions", ""))
    known = bool(directions) or "spacings" in fields
    if directions:
        columns = [directions[a] for a in keep]
        if any(c is None or len(c) != n for c in columns):
            raise DataError(path, "its space directions do not fit its axes", "correct its header")
        affine[:n, :n] = np.array(columns, dtype=np.float64).T
    elif "spacings" in fields:
        spacings = _numbers(path, fields, "spacings")
        if len(spacings) <= max(keep):
            raise DataError(path, "its spacings do not fit its axes", "correct its header")
        affine[:n, :n] = np.diag([spacings[a] for a in keep])
    origin = _vectors(fields.get("space origin", ""))
    if origin and origin[0] is not None:
        if len(origin[0]) != n:
            raise DataError(path, "its space origin does not fit its axes", "correct its header")
        affine[:n, n] = origin[0]
    units = re.findall(r'"([^"]*)"', fields.get("space units", fields.get("units", "")))
    affine[:n] *= _millimetres(path, {u for u in units if u})
    space = fields.get("space", "").lower().removesuffix("-time")
    if n == 3 and not space:
        affine = flip_lps(affine)  # ITK writes and reads a nameless space as LPS
    elif n == 3 and space in SPACES:
        affine = np.diag([*SPACES[space], 1.0]) @ affine
    elif n == 3:
        raise DataError(
            path, f"its space {space!r} has no anatomical meaning",
            "export it in left-posterior-superior",
        )  # fmt: skip
    return file_geometry(path, sizes, affine, "mm" if known else "px")


def _millimetres(path: Path, units: set[str]) -> float:
    factors = {MILLIMETRES.get(u) for u in units} or {1.0}
    factor = factors.pop()
    if factors or factor is None:
        raise DataError(
            path, f"has the units of length {', '.join(sorted(units))}", "export it in millimetres"
        )
    return factor


def _vectors(text: str) -> list[list[float] | None]:
    """``none (1,0,0)`` to ``[None, [1, 0, 0]]``; a word that is no number gives NaN."""
    found = re.findall(r"none|\([^)]*\)", text)
    return [None if v == "none" else [_number(x) for x in v[1:-1].split(",")] for v in found]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _numbers(path: Path, fields: Fields, key: str) -> list[float]:
    numbers = [_number(word) for word in fields.get(key, "").split()]
    if not numbers or (key == "sizes" and not np.isfinite(numbers).all()):
        raise DataError(path, f"its header has no usable {key}", "export it again")
    return numbers


def _encoding(path: Path, fields: Fields) -> str:
    encoding = fields.get("encoding", "").lower()
    names = {"gz": "gzip", "bz2": "bzip2"}
    encoding = names.get(encoding, encoding)
    if encoding not in ("raw", "gzip", "bzip2"):
        raise DataError(path, f"has the encoding {encoding!r}", "export it as raw or gzip")
    return encoding


def _data_file(path: Path, fields: Fields, start: int) -> tuple[Path, int]:
    name = fields.get("data file")
    if name is None:
        return path, start
    if name.upper().startswith("LIST") or "%" in name:
        raise DataError(path, "spreads its slices over several files", "export it as one .nrrd")
    return sibling(path, name), 0


def _skip_lines(path: Path, fields: Fields, file: Path, offset: int) -> int:
    lines = int(fields.get("line skip", "0"))
    if lines <= 0:
        return offset
    with open(file, "rb") as stream:
        stream.seek(offset)
        for _ in range(lines):
            if not stream.readline(MAX_HEADER):
                raise DataError(path, f"has fewer than its line skip of {lines}", "correct it")
        return stream.tell()


def _skip(path: Path, fields: Fields, file: Path, offset: int, length: int) -> int:
    skip = int(fields.get("byte skip", "0"))
    if skip < 0:
        return max(offset, file.stat().st_size - length)
    return _skip_lines(path, fields, file, offset) + skip


def _unpack(path: Path, packed: memoryview, encoding: str, length: int) -> bytes | memoryview:
    if encoding == "gzip":
        return inflate(path, packed, length)
    stream = bz2.BZ2Decompressor()
    try:
        data = stream.decompress(packed, length + 1)
        if not stream.eof:
            data += stream.decompress(b"", 1)
    except OSError as error:
        raise DataError(path, f"is corrupt ({error})", "copy or export it again") from error
    if not stream.eof and len(data) <= length:
        raise DataError(
            path,
            f"is truncated (its compressed data end after {len(data):,} of {length:,} bytes)",
            "copy or export it again",
        )
    return data


def write(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write ``(C, *S)`` compressed into one .nrrd file, volumes in LPS."""
    import gzip

    if path.suffix.lower() != ".nrrd":
        raise DataError(path, "would need a second file", "write .nrrd, which holds both")
    kind = array.dtype.str[1:]
    if kind not in TYPES:
        raise DataError(path, f"NRRD holds no {array.dtype}", "convert it to float32")
    affine = flip_lps(file_affine(geometry))
    n, vector = geometry.ndim, len(array) > 1
    directions = [_vector_text(affine[:n, a]) for a in range(n)]
    sizes = [str(s) for s in geometry.shape[::-1]]
    space = "space: left-posterior-superior" if n == 3 else "space dimension: 2"
    lines = [
        "NRRD0004",
        f"type: {TYPES[kind][0]}",
        f"dimension: {n + vector}",
        space,
        f"sizes: {' '.join([str(len(array))] * vector + sizes)}",
        f"space directions: {' '.join(['none'] * vector + directions)}",
        f"kinds: {' '.join(['vector'] * vector + ['domain'] * n)}",
        "endian: little",
        "encoding: gzip",
        f"space origin: {_vector_text(affine[:n, n])}",
    ]
    if geometry.unit == "mm":
        lines.append("space units: " + " ".join(['"mm"'] * n))
    body = np.ascontiguousarray(np.moveaxis(array, 0, -1), array.dtype.newbyteorder("<"))
    packed = gzip.compress(body.data.cast("B"), 4, mtime=0)
    path.write_bytes("\n".join(lines).encode("ascii") + b"\n\n" + packed)


def _vector_text(values: NDArray[Any]) -> str:
    return f"({','.join(f'{v:.17g}' for v in values)})"
