"""Which paths are images, how they are named, and what bad ones say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io import (
    DataWarning,
    find_images,
    is_image,
    read_header,
    read_image,
    stem,
    write_image,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.nii.gz", "a"), ("a.b.NII", "a.b"), ("x/a.seg.nrrd", "a.seg"), ("a.png", "a"),
        ("series.1", "series.1"), (".nii.gz", ".nii.gz"), ("a.txt", "a.txt"),
    ],
)  # fmt: skip
def test_stems(name: str, expected: str) -> None:
    assert stem(name) == expected


def test_images_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("c10.png", "c9.png", "c9.nii.gz", ".c1.png", "notes.txt", "c9.raw"):
        (tmp_path / "in" / name).write_bytes(b"x")
    (tmp_path / "in" / "folder.png").mkdir()
    (tmp_path / "out.png").write_bytes(b"x")
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "out.png")
    with pytest.warns(DataWarning, match=r"1 links .* left out, first link\.png"):
        found = [p.name for p in find_images(tmp_path / "in")]
    assert found == ["c9.nii.gz", "c9.png", "c10.png"]
    assert not is_image(tmp_path / "in" / "notes.txt")
    with pytest.raises(DataError, match="cannot be listed"):
        find_images(tmp_path / "none")


@pytest.mark.parametrize("read", [read_header, read_image])
def test_paths_that_are_no_image(tmp_path: Path, read) -> None:
    (tmp_path / "a.txt").write_text("x")
    (tmp_path / "b.nii.gz").write_bytes(b"")
    for name, message in (
        ("none.nii.gz", "does not exist"),
        ("a.txt", "no known image format; give one of .nii.gz"),
        ("b.nii.gz", "is empty"),
        (".", "holds no DICOM image"),
    ):
        with pytest.raises(DataError, match=message):
            read(tmp_path / name)


@pytest.mark.parametrize(
    "suffix", [".nii", ".nii.gz", ".mha", ".nrrd", ".png", ".jpg", ".bmp", ".tif", ".dcm"]
)
def test_noise_is_refused_in_one_line(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for seed in range(3):
        path.write_bytes(np.random.default_rng(seed).bytes(4000))
        with pytest.raises(DataError) as error:
            read_image(path)
        assert error.value.subject == str(path)
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::finemask.io.DataWarning")
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".mha", ".nrrd", ".png", ".bmp", ".tif"])
def test_one_changed_byte_never_gives_a_traceback(tmp_path: Path, suffix: str) -> None:
    """And where a checksum covers it, never a changed value."""
    path = tmp_path / f"a{suffix}"
    shape = (6, 7) if suffix in (".png", ".bmp", ".tif") else (5, 6, 7)
    values = np.random.default_rng(0).integers(0, 255, shape)
    geometry = Geometry.regular(shape, None if len(shape) == 2 else (1.0, 2.0, 3.0))
    write_image(path, values.astype(np.uint8), geometry)
    data = path.read_bytes()
    for position in range(0, len(data), max(1, len(data) // 60)):
        changed = bytearray(data)
        changed[position] ^= 0x10
        path.write_bytes(changed)
        try:
            array, _ = read_image(path)
        except DataError as error:
            assert error.subject == str(path)  # noqa: PT017  # both outcomes are allowed
        else:
            if suffix in (".png", ".nii.gz") and array.shape[1:] == shape:
                np.testing.assert_array_equal(array[0], values)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    values = np.array([[[np.nan, -5.0], [np.inf, 7.0]]])
    grid = Geometry.regular((1, 2, 2), (1.0, 1.0, 1.0))
    write_image(tmp_path / "a.nii.gz", values, grid)
    with pytest.warns(DataWarning, match="2 of 4 values are not finite; NaN was read as -5"):
        assert read_image(tmp_path / "a.nii.gz")[0].ravel().tolist() == [-5, -5, 7, 7]
    write_image(tmp_path / "b.nii.gz", values * np.nan, grid)
    with pytest.raises(DataError, match="no finite value"):
        read_image(tmp_path / "b.nii.gz")


def test_importing_io_loads_no_reader() -> None:
    code = (
        "import sys, finemask.io; "
        "print([m for m in ('torch', 'scipy', 'nibabel', 'SimpleITK', 'pydicom', 'PIL', 'tifffile')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
