"""NIfTI-1 and NIfTI-2 single files, plain or gzipped, read whole and verified.

The affine is kept exactly, sheared or not. The sform wins where both forms are
set and a warning tells when they disagree; without either, only the voxel size
is known and the axes are taken as the world's.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.notices import warn
from finemask.io.raster import (
    Header,
    Raster,
    check_length,
    check_size,
    file_affine,
    file_geometry,
    from_bytes,
    inflate,
    spatial_axes,
)

FORMAT = "NIfTI"

# fmt: off
NIFTI_1 = np.dtype([
    ("sizeof_hdr", "i4"), ("unused_1", "S35"), ("dim_info", "u1"), ("dim", "i2", 8),
    ("intent_p", "f4", 3), ("intent_code", "i2"), ("datatype", "i2"), ("bitpix", "i2"),
    ("slice_start", "i2"), ("pixdim", "f4", 8), ("vox_offset", "f4"), ("scl_slope", "f4"),
    ("scl_inter", "f4"), ("slice_end", "i2"), ("slice_code", "u1"), ("xyzt_units", "u1"),
    ("cal_max", "f4"), ("cal_min", "f4"), ("slice_duration", "f4"), ("toffset", "f4"),
    ("unused_2", "S8"), ("descrip", "S80"), ("aux_file", "S24"), ("qform_code", "i2"),
    ("sform_code", "i2"), ("quatern", "f4", 3), ("qoffset", "f4", 3), ("srow", "f4", (3, 4)),
    ("intent_name", "S16"), ("magic", "S4"),
])
NIFTI_2 = np.dtype([
    ("sizeof_hdr", "i4"), ("magic", "S8"), ("datatype", "i2"), ("bitpix", "i2"), ("dim", "i8", 8),
    ("intent_p", "f8", 3), ("pixdim", "f8", 8), ("vox_offset", "i8"), ("scl_slope", "f8"),
    ("scl_inter", "f8"), ("cal_max", "f8"), ("cal_min", "f8"), ("slice_duration", "f8"),
    ("toffset", "f8"), ("slice_start", "i8"), ("slice_end", "i8"), ("descrip", "S80"),
    ("aux_file", "S24"), ("qform_code", "i4"), ("sform_code", "i4"), ("quatern", "f8", 3),
    ("qoffset", "f8", 3), ("srow", "f8", (3, 4)), ("slice_code", "i4"), ("xyzt_units", "i4"),
    ("intent_code", "i4"), ("intent_name", "S16"), ("dim_info", "u1"), ("unused", "S15"),
])
# fmt: on

TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 128: "u1", 256: "i1", 512: "u2",
    768: "u4", 1024: "i8", 1280: "u8", 2304: "u1",
}  # fmt: skip
"""NIfTI data type code to NumPy type; RGB (128) and RGBA (2304) are bytes in threes and fours."""

GZIP_LEVEL = 4  # level 6 takes up to four times as long for files a few percent smaller
COLOURS = {128: 3, 2304: 4}
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""Spatial unit code (unknown, metre, millimetre, micrometre) to millimetres."""


def read_header(path: Path) -> Header:
    """The header of a NIfTI file; of a gzipped one only the first block is unpacked."""
    with open(path, "rb") as file:
        start = file.read(2**16)
    if start[:2] == b"\x1f\x8b":
        start = zlib.decompressobj(wbits=31).decompress(start, 1024)
    elif path.stat().st_size >= NIFTI_1.itemsize:
        fields = _fields(path, start)
        header, offset, count = _describe(path, fields)
        check_length(path, path.stat().st_size - offset, count * header.dtype.itemsize)
        return header
    return _describe(path, _fields(path, start))[0]


def read(path: Path) -> Raster:
    """The whole volume, its checksum verified and the stored rescaling applied."""
    data: bytes | memoryview = path.read_bytes()
    packed = data[:2] == b"\x1f\x8b"
    start = zlib.decompressobj(wbits=31).decompress(data, 1024) if packed else data[:1024]
    fields = _fields(path, start)
    header, offset, count = _describe(path, fields)
    if packed != path.name.lower().endswith(".gz"):
        warn(path, f"is {'gzipped' if packed else 'not gzipped'} in spite of its name")
    if packed:
        data = inflate(path, data, offset + count * header.dtype.itemsize)
    body = memoryview(data)[offset:]
    if int(fields["datatype"]) in COLOURS:
        stored = from_bytes(path, body, header.dtype, (*header.shape, header.channels))
        array = np.moveaxis(stored, -1, 0)
    else:
        array = from_bytes(path, body, header.dtype, (header.channels, *header.shape))
    return Raster(header, _rescaled(path, array, fields))


def _fields(path: Path, start: bytes | memoryview) -> Any:
    """The header's fields, of either version and byte order."""
    for layout in (NIFTI_1, NIFTI_2):
        for ordered in (layout.newbyteorder("<"), layout.newbyteorder(">")):
            if len(start) < layout.itemsize:
                continue
            fields = np.frombuffer(start, ordered, 1)[0]
            if fields["sizeof_hdr"] == layout.itemsize and fields["magic"][:2] == b"n+":
                return fields
    if len(start) < 348:
        raise DataError(path, f"is truncated ({len(start)} bytes)", "copy or export it again")
    raise DataError(
        path, "is not a NIfTI file with its image inside", "export it as .nii or .nii.gz"
    )


def _describe(path: Path, fields: Any) -> tuple[Header, int, int]:
    """Header, offset of the image in bytes and number of values."""
    axes = int(fields["dim"][0])
    if not 1 <= axes <= 7:
        raise DataError(path, f"its header claims {axes} axes", "export it again")
    sizes = [int(s) for s in fields["dim"][1 : axes + 1]]
    sizes += [1] * (3 - len(sizes))
    check_size(path, sizes)
    shape, channels = spatial_axes(path, sizes)
    code = int(fields["datatype"])
    if code not in TYPES:
        raise DataError(
            path, f"has the NIfTI data type {code} (complex, bits or long double)",
            "export it as integers or 32-bit floats",
        )  # fmt: skip
    if code in COLOURS and channels > 1:
        raise DataError(path, "is a time series of colours", "split it into one file a time point")
    channels = COLOURS.get(code, channels)
    offset = float(fields["vox_offset"])
    if not math.isfinite(offset) or offset < 348 or offset > 2**40:
        raise DataError(path, f"its image starts at byte {offset:g}", "export it again")
    dtype = np.dtype(fields.dtype["sizeof_hdr"].byteorder + TYPES[code])
    header = Header(path, FORMAT, _geometry(path, shape, fields), channels, dtype)
    return header, int(offset), check_size(path, shape, channels)


def _geometry(path: Path, shape: tuple[int, ...], fields: Any) -> Geometry:
    sform = _sform(fields) if fields["sform_code"] > 0 else None
    qform = _qform(fields) if fields["qform_code"] > 0 else None
    if sform is not None and not sform[:3, :3].any() and qform is not None:
        warn(path, "its sform is all zero; the qform was used")
        sform = None
    if sform is None and qform is None:
        warn(path, "says nothing of orientation or position (sform and qform codes are 0)")
        spacing = np.abs(fields["pixdim"][1:4].astype(np.float64))
        sform = np.diag([*spacing, 1.0])
    elif sform is not None and qform is not None:
        _compare_forms(path, shape, sform, qform)
    affine = qform if sform is None else sform
    assert affine is not None
    millimetres = MILLIMETRES.get(int(fields["xyzt_units"]) & 7)
    if millimetres is None:
        raise DataError(path, "has an unknown unit of length", "set xyzt_units to millimetres")
    affine[:3] *= millimetres
    return file_geometry(path, shape, affine)


def _compare_forms(
    path: Path,
    shape: tuple[int, ...],
    sform: Float[ndarray, " 4 4"],
    qform: Float[ndarray, " 4 4"],
) -> None:
    if not np.isfinite(sform).all() or abs(np.linalg.det(sform)) < 1e-12:
        return  # file_geometry says what is wrong
    last = np.array(shape) - 1.0
    corners = np.array([[*(last * ends), 1.0] for ends in np.ndindex(2, 2, 2)])
    moved = corners @ (np.linalg.inv(sform) @ qform).T - corners
    if not np.abs(moved).max() <= 0.1:  # NaN of the qform counts as disagreement
        warn(
            path,
            f"its sform and qform put a voxel up to {np.abs(moved).max():.3g} voxels apart; the "
            "sform was used, other programs may use the qform",
        )


def _sform(fields: Any) -> Float[ndarray, " 4 4"]:
    return np.vstack([fields["srow"].astype(np.float64), [0.0, 0.0, 0.0, 1.0]])


def _qform(fields: Any) -> Float[ndarray, " 4 4"]:
    """The rigid form: a unit quaternion, voxel sizes and a handedness."""
    b, c, d = fields["quatern"].astype(np.float64)
    spare = 1.0 - (b * b + c * c + d * d)
    if spare < 1e-7:  # a half turn, up to rounding
        length = math.sqrt(b * b + c * c + d * d) or 1.0
        a, b, c, d = 0.0, b / length, c / length, d / length
    else:
        a = math.sqrt(spare)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    pixdim = fields["pixdim"].astype(np.float64)
    handed = -1.0 if pixdim[0] < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * np.abs(pixdim[1:4]) * [1.0, 1.0, handed]
    affine[:3, 3] = fields["qoffset"]
    return affine


def _rescaled(path: Path, array: NDArray[Any], fields: Any) -> NDArray[Any]:
    """Stored values to intensities; a slope of zero or NaN means there is no rescaling."""
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if not math.isfinite(slope) or slope == 0 or (slope, intercept) == (1.0, 0.0):
        return array
    if not math.isfinite(intercept):
        raise DataError(
            path, f"rescales its values with slope {slope:g} and intercept {intercept:g}",
            "set scl_inter to the true offset (mostly 0)",
        )  # fmt: skip
    return array * np.float64(slope) + np.float64(intercept)


def write(path: Path, array: NDArray[Any], geometry: Geometry) -> None:
    """Write ``(C, *S)`` with equal sform and qform, in millimetres, free text left blank.

    The qform is left unset where it cannot say the same as the sform: a sheared
    grid, or a rotation that its single-precision quaternion would round away.
    """
    if geometry.ndim != 3:
        raise DataError(path, "is NIfTI, which holds volumes", "write a picture as .png or .tif")
    channels, sizes = len(array), array.shape[1:]
    if max(array.shape) > 32767:
        raise DataError(path, f"NIfTI-1 has no axis as long as {max(array.shape)}", "write .nrrd")
    codes = {v: k for k, v in TYPES.items() if k not in COLOURS}
    kind = array.dtype.str[1:]
    if kind not in codes:
        raise DataError(path, f"NIfTI holds no {array.dtype}", "convert it to float32")
    header = np.zeros((), NIFTI_1.newbyteorder("<"))
    header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1", 352
    header["dim"] = [4 if channels > 1 else 3, *sizes[::-1], channels, 1, 1, 1]
    header["datatype"], header["bitpix"] = codes[kind], 8 * array.dtype.itemsize
    header["scl_slope"] = 1.0
    header["xyzt_units"] = 2 if geometry.unit == "mm" else 0
    affine = file_affine(geometry)
    header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    header["pixdim"][0] = header["pixdim"][4] = 1.0
    header["sform_code"], header["srow"] = 1, affine[:3]
    _set_qform(header, affine, geometry)
    body = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    with open(path, "wb") as file:
        if path.name.lower().endswith(".gz"):
            # zlib puts no time stamp or name inside: equal images give equal files.
            packed = zlib.compressobj(GZIP_LEVEL, wbits=31)
            file.write(packed.compress(header.tobytes() + bytes(4)))
            file.write(packed.compress(body.data.cast("B")))
            file.write(packed.flush())
        else:
            file.write(header.tobytes() + bytes(4))
            file.write(body.data.cast("B"))


def _set_qform(header: Any, affine: Float[ndarray, " 4 4"], geometry: Geometry) -> None:
    rotation = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.linalg.det(rotation) < 0:
        header["pixdim"][0] = -1.0
        rotation = rotation * [1.0, 1.0, -1.0]
    header["quatern"], header["qoffset"] = _quaternion(rotation), affine[:3, 3]
    written = file_geometry("qform", geometry.shape[::-1], _qform(header))
    if geometry.distance_voxels(written) <= 1e-3:
        header["qform_code"] = 1
    else:
        header["pixdim"][0], header["quatern"], header["qoffset"] = 1.0, 0.0, 0.0


def _quaternion(rotation: Float[ndarray, " 3 3"]) -> Float[ndarray, " 3"]:
    """Vector part of the unit quaternion of a rotation, its scalar part not negative.

    The four squares are known from the diagonal; the largest of them fixes
    the signs, so nothing is lost near a half turn.
    """
    m = rotation
    a, b, c, d = (
        1 + m[0, 0] + m[1, 1] + m[2, 2],
        1 + m[0, 0] - m[1, 1] - m[2, 2],
        1 - m[0, 0] + m[1, 1] - m[2, 2],
        1 - m[0, 0] - m[1, 1] + m[2, 2],
    )
    rows = np.array(
        [
            [a, m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [m[2, 1] - m[1, 2], b, m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], c, m[1, 2] + m[2, 1]],
            [m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], d],
        ]
    )
    best = rows[int(np.argmax([a, b, c, d]))]
    unit = best / np.linalg.norm(best)
    return unit[1:] * (1.0 if unit[0] >= 0 else -1.0)
