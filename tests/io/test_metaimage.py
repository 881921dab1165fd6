"""MetaImage: written by SimpleITK, then damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io import DataWarning, read_header, read_image, write_image

VALUES = np.random.default_rng(0).integers(-999, 999, (6, 20, 24)).astype(np.int16)


def written(path: Path, compressed: bool = False) -> Path:
    image = sitk.GetImageFromArray(VALUES)
    image.SetSpacing((0.5, 0.6, 2.0))
    sitk.WriteImage(image, str(path), compressed)
    return path


def edited(path: Path, old: str, new: str) -> Path:
    data = path.read_bytes()
    assert old.encode() in data
    path.write_bytes(data.replace(old.encode(), new.encode(), 1))
    return path


@pytest.mark.parametrize("keep", [400, 600, -1, -400])
@pytest.mark.fault("F18")
def test_truncated_compressed_data(tmp_path: Path, keep: int) -> None:
    path = written(tmp_path / "a.mha", compressed=True)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"a\.mha: is truncated"):
        read_image(path)


def test_truncated_plain_data(tmp_path: Path) -> None:
    for name in ("a.mha", "b.mhd"):
        path = written(tmp_path / name)
        data = tmp_path / ("b.raw" if name == "b.mhd" else name)
        data.write_bytes(data.read_bytes()[:-5])
        for read in (read_header, read_image):
            with pytest.raises(DataError, match="is truncated") as error:
                read(path)
            assert error.value.subject == str(path)


def test_corrupt_compressed_data(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mha", compressed=True)
    data = bytearray(path.read_bytes())
    data[-300] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match="is corrupt"):
        read_image(path)


@pytest.mark.parametrize("name", ["../secret.raw", "/etc/passwd", "sub/../../secret.raw"])
@pytest.mark.fault("F22")
def test_data_files_outside_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes())
    (tmp_path / "in").mkdir()
    path = edited(written(tmp_path / "in" / "a.mhd"), "= a.raw", f"= {name}")
    with pytest.raises(DataError, match="outside its folder"):
        read_image(path)


@pytest.mark.fault("F22")
def test_data_file_linked_to_outside(tmp_path: Path) -> None:
    (tmp_path / "secret.raw").write_bytes(VALUES.tobytes())
    (tmp_path / "in").mkdir()
    path = written(tmp_path / "in" / "a.mhd")
    (tmp_path / "in" / "a.raw").unlink()
    (tmp_path / "in" / "a.raw").symlink_to(tmp_path / "secret.raw")
    with pytest.raises(DataError, match="outside its folder"):
        read_image(path)


def test_missing_data_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mhd")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(DataError, match=r"its data file 'a\.raw' is missing"):
        read_header(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("Spacing = 0.5", "Spacing = nan", "not finite"),
        ("Spacing = 0.5", "Spacing = 0", "needs positive"),
        ("Spacing = 0.5 ", "Spacing = ", "has 2 numbers, needs 3"),
        ("Spacing = 0.5", "Spacing = x", "no usable elementspacing"),
        ("Matrix = 1 0 0", "Matrix = 0 1 0", "do not span"),
        ("DimSize = 24 20 6", "DimSize = 24 20 0", "no voxels"),
        ("DimSize = 24 20 6", "DimSize = 24 20", "does not fit NDims"),
        ("DimSize = 24 20 6", "DimSize = 99999 99999 99999", "more than the limit"),
        ("MET_SHORT", "MET_STRING", "unknown ElementType"),
        ("BinaryData = True", "BinaryData = False", "as text"),
        ("= LOCAL", "= LIST", "several files"),
        ("ElementDataFile", "Element", "no ElementDataFile"),
    ],
)
@pytest.mark.fault("F17", "F19")
def test_impossible_headers(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = edited(written(tmp_path / "a.mha"), old, new)
    with pytest.raises(DataError, match=message):
        read_header(path)


def test_big_endian_with_a_foreign_header(tmp_path: Path) -> None:
    path = edited(written(tmp_path / "a.mhd"), "OrderMSB = False", "OrderMSB = True")
    edited(path, "ElementDataFile", "HeaderSize = -1\nElementDataFile")
    (tmp_path / "a.raw").write_bytes(b"vendor" * 9 + VALUES.astype(">i2").tobytes())
    np.testing.assert_array_equal(read_image(path)[0][0], VALUES)


def test_unknown_spacing_is_pixels(tmp_path: Path) -> None:
    path = edited(written(tmp_path / "a.mha"), "ElementSpacing", "Comment")
    assert read_header(path).geometry.unit == "px"


def test_trailing_bytes(tmp_path: Path) -> None:
    path = written(tmp_path / "a.mha")
    path.write_bytes(path.read_bytes() + b"++")
    with pytest.warns(DataWarning, match="2 bytes after the image"):
        np.testing.assert_array_equal(read_image(path)[0][0], VALUES)


@pytest.mark.fault("F10")
def test_four_axes(tmp_path: Path) -> None:
    image = sitk.JoinSeries([sitk.GetImageFromArray(VALUES)] * 3)
    sitk.WriteImage(image, str(tmp_path / "a.mha"))
    assert read_image(tmp_path / "a.mha")[0].shape == (3, *VALUES.shape)
    image = sitk.JoinSeries([sitk.GetImageFromArray(VALUES[:1])] * 17)
    sitk.WriteImage(image, str(tmp_path / "b.mha"))
    with pytest.raises(DataError, match="at most 16 channels"):
        read_image(tmp_path / "b.mha")


def test_mhd_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.mhd: would need a second file; write \.mha") as error:
        write_image(tmp_path / "a.mhd", VALUES, Geometry.regular(VALUES.shape))
    assert error.value.subject == str(tmp_path / "a.mhd")
    assert list(tmp_path.iterdir()) == []
