"""NRRD: spaces, encodings, channels, and headers that lie."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest

from finemask.errors import DataError
from finemask.io import read_header, read_image, read_labels

VALUES = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
FIELDS = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "4 3 2",
    "space directions": "(0.5,0,0) (0,0.6,0) (0,0,2)",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(1,2,3)",
}


def nrrd(path: Path, data: bytes = VALUES.tobytes(), **fields: str | None) -> Path:
    changed = {k.replace("_", " "): v for k, v in fields.items()}
    lines = [f"{k}: {v}" for k, v in {**FIELDS, **changed}.items() if v is not None]
    path.write_bytes(
        "\n".join(["NRRD0005", "# made by a test", *lines, "key:=a: b", "", ""]).encode() + data
    )
    return path


@pytest.mark.parametrize(
    ("space", "origin"),
    [
        ("LPS", (3, -2, -1)), ("left-posterior-superior", (3, -2, -1)), ("RAS", (3, 2, 1)),
        ("right-anterior-superior", (3, 2, 1)), ("LAS", (3, 2, -1)), (None, (3, -2, -1)),
    ],
)  # fmt: skip
@pytest.mark.fault("F06")
def test_spaces(tmp_path: Path, space: str | None, origin: tuple[float, ...]) -> None:
    geometry = read_header(nrrd(tmp_path / "a.nrrd", space=space)).geometry
    assert geometry.origin[::-1] == origin
    assert geometry.spacing == (2.0, 0.6, 0.5)


@pytest.mark.parametrize(
    ("encoding", "pack"),
    [("raw", bytes), ("gzip", gzip.compress), ("gz", gzip.compress), ("bzip2", bz2.compress)],
)
@pytest.mark.parametrize("detached", [False, True])
def test_encodings(tmp_path: Path, encoding: str, pack, detached: bool) -> None:
    data = pack(VALUES.tobytes())
    if detached:
        (tmp_path / "a.bin").write_bytes(data)
        path = nrrd(tmp_path / "a.nhdr", b"", encoding=encoding, data_file="a.bin")
    else:
        path = nrrd(tmp_path / "a.nrrd", data, encoding=encoding)
    np.testing.assert_array_equal(read_image(path)[0][0], VALUES)
    if encoding != "raw":
        for cut in (1, 10, len(data) - 12):
            if detached:
                (tmp_path / "a.bin").write_bytes(data[:-cut])
            else:
                nrrd(path, data[:-cut], encoding=encoding)
            with pytest.raises(DataError, match="is truncated|is corrupt"):
                read_image(path)


def test_skips_and_byte_order(tmp_path: Path) -> None:
    data = VALUES.astype(">i2").tobytes()
    path = nrrd(tmp_path / "a.nrrd", b"vendor\nlines\n12" + data, endian="big", line_skip="2",
                byte_skip="2")  # fmt: skip
    np.testing.assert_array_equal(read_image(path)[0][0], VALUES)
    path = nrrd(tmp_path / "b.nrrd", b"vendor" + data, endian="big", byte_skip="-1")
    np.testing.assert_array_equal(read_image(path)[0][0], VALUES)


@pytest.mark.fault("F21")
def test_layers_are_channels_of_an_image_but_no_mask(tmp_path: Path) -> None:
    path = nrrd(
        tmp_path / "a.seg.nrrd",
        np.stack([VALUES, VALUES + 1], -1).tobytes(),
        dimension="4",
        sizes="2 4 3 2",
        space_directions="none (0.5,0,0) (0,0.6,0) (0,0,2)",
        kinds="list domain domain domain",
    )
    np.testing.assert_array_equal(read_image(path)[0], [VALUES, VALUES + 1])
    with pytest.raises(DataError, match="2 channels or layers, a mask needs one"):
        read_labels(path)


def test_last_axis_as_channels(tmp_path: Path) -> None:
    path = nrrd(
        tmp_path / "a.nrrd",
        np.stack([VALUES, VALUES + 1]).tobytes(),
        dimension="4",
        sizes="4 3 2 2",
        space_directions="(0.5,0,0) (0,0.6,0) (0,0,2) none",
    )
    np.testing.assert_array_equal(read_image(path)[0], [VALUES, VALUES + 1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"space_directions": "(nan,0,0) (0,0.6,0) (0,0,2)"}, "not finite"),
        ({"space_directions": "(0,0,0) (0,0.6,0) (0,0,2)"}, "needs positive"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,2)"}, "do not span"),
        ({"space_directions": "(1,0) (0,1) (0,0)"}, "do not fit"),
        ({"space_directions": "(1,0,0) (0,1,0)"}, "has 2 entries, needs 3"),
        ({"space_origin": "(x,0,0)"}, "not finite"),
        ({"space": "scanner-xyz"}, "no anatomical meaning"),
        ({"sizes": "4 3 0"}, "no voxels"),
        ({"sizes": "4 3 99"}, "is truncated"),
        ({"sizes": "4 3"}, "do not fit its dimension"),
        ({"sizes": "99999 99999 99999"}, "more than the limit"),
        ({"sizes": None}, "no usable sizes"),
        ({"type": "block"}, "unknown type"),
        ({"endian": None}, "byte order is not given"),
        ({"encoding": "ascii"}, "encoding 'ascii'"),
        ({"dimension": "4", "sizes": "4 3 2 1", "space_directions": None}, "does not say which"),
        ({"data_file": "../a.raw"}, "outside its folder"),
        ({"data_file": "/etc/passwd"}, "outside its folder"),
        ({"data_file": "LIST"}, "several files"),
        ({"data_file": "none.raw"}, "is missing"),
        ({"space_units": '"mm" "mm" "parsec"'}, "units of length"),
        ({"dimension": "three"}, "cannot be decoded"),
    ],
)
@pytest.mark.fault("F17", "F19", "F22")
def test_impossible_headers(tmp_path: Path, fields: dict, message: str) -> None:
    (tmp_path / "in").mkdir()
    path = nrrd(tmp_path / "in" / "a.nhdr", **fields)
    with pytest.raises(DataError, match=message) as error:
        read_header(path)
    assert error.value.subject == str(path)


@pytest.mark.fault("F20")
def test_units_and_missing_spacing(tmp_path: Path) -> None:
    micron = nrrd(tmp_path / "a.nrrd", space_units='"um" "um" "um"')
    assert read_header(micron).geometry.spacing == pytest.approx((0.002, 0.0006, 0.0005))
    bare = nrrd(tmp_path / "b.nrrd", space=None, space_directions=None, space_origin=None)
    assert read_header(bare).geometry.unit == "px"
    old = nrrd(tmp_path / "c.nrrd", space=None, space_directions=None, spacings="0.5 0.6 2")
    assert read_header(old).geometry.spacing == (2.0, 0.6, 0.5)


def test_not_nrrd(tmp_path: Path) -> None:
    (tmp_path / "a.nrrd").write_bytes(b"hello")
    with pytest.raises(DataError, match="is not NRRD"):
        read_image(tmp_path / "a.nrrd")
