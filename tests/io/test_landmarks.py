"""A voxel stays at its place in the patient, whoever reads the file."""

from __future__ import annotations

import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from finemask.geometry import Geometry
from finemask.io import read_header, read_image, read_labels, write_image, write_labels, write_probs
from finemask.io.nifti import NIFTI_1, _qform, _set_qform
from finemask.io.raster import file_affine

FORMATS = (".nii", ".nii.gz", ".mha", ".nrrd")
LANDMARK = (1, 6, 3)


def voxels_off(geometry: Geometry, world: np.ndarray) -> float:
    return float(np.abs(geometry.to_index(world) - LANDMARK).max())


def place_by_nibabel(path: Path) -> np.ndarray:
    image = nibabel.load(path)
    index = np.argwhere(np.asarray(image.dataobj) == 1000)
    assert len(index) == 1
    return image.affine[:3, :3] @ index[0] + image.affine[:3, 3]


def place_by_simpleitk(path: Path) -> np.ndarray:
    image = sitk.ReadImage(str(path))
    index = np.argwhere(sitk.GetArrayFromImage(image) == 1000)
    assert len(index) == 1
    world = image.TransformIndexToPhysicalPoint([int(i) for i in index[0][::-1]])
    return np.array(world) * [-1, -1, 1]


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.fault("F05", "F07", "F08")
def test_written_landmark_is_where_other_readers_find_it(
    tmp_path: Path, volume_grid: Geometry, landmark: np.ndarray, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, landmark, volume_grid)
    assert voxels_off(volume_grid, place_by_simpleitk(path)) < 0.01
    if suffix.startswith(".nii"):
        assert voxels_off(volume_grid, place_by_nibabel(path)) < 0.01
    array, geometry = read_image(path)
    assert geometry.matches(volume_grid, 1e-4)
    assert geometry.unit == "mm"
    np.testing.assert_array_equal(array[0], landmark)
    assert read_header(path).geometry == geometry


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".mhd", ".nrrd", ".nhdr"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.fault("F05", "F07")
def test_files_of_simpleitk(
    tmp_path: Path, volume_grid: Geometry, landmark: np.ndarray, suffix: str, compressed: bool
) -> None:
    path = tmp_path / f"a{suffix}"
    image = sitk.GetImageFromArray(landmark)
    affine = np.diag([-1, -1, 1, 1]) @ file_affine(volume_grid)
    spacing = np.array(volume_grid.spacing[::-1])
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    sitk.WriteImage(image, str(path), compressed)
    array, geometry = read_image(path)
    np.testing.assert_array_equal(array[0], landmark)
    assert geometry.distance_voxels(volume_grid) < 0.01


@pytest.mark.parametrize("forms", ["sform", "qform", "both"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_files_of_nibabel(
    tmp_path: Path, volume_grid: Geometry, landmark: np.ndarray, forms: str, kind: type
) -> None:
    path = tmp_path / "a.nii.gz"
    image = kind(landmark.T, file_affine(volume_grid))
    image.set_sform(file_affine(volume_grid), code=0 if forms == "qform" else 2)
    image.set_qform(file_affine(volume_grid), code=0 if forms == "sform" else 1)
    image.to_filename(path)
    array, geometry = read_image(path)
    np.testing.assert_array_equal(array[0], landmark)
    world = nibabel.load(path).affine
    np.testing.assert_allclose(file_affine(geometry), world, atol=1e-5)
    assert geometry.distance_voxels(volume_grid) < 0.01


@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.fault("F04")
def test_sheared_grids_are_kept_exactly(
    tmp_path: Path, sheared: Geometry, landmark: np.ndarray, suffix: str
) -> None:
    write_image(tmp_path / f"a{suffix}", landmark, sheared)
    _, geometry = read_image(tmp_path / f"a{suffix}")
    assert geometry.distance_voxels(sheared) < 1e-4
    if suffix.startswith(".nii"):
        assert int(nibabel.load(tmp_path / f"a{suffix}").header["qform_code"]) == 0


@pytest.mark.fault("F02", "F49")
def test_written_nifti_says_one_thing_and_nothing_personal(
    tmp_path: Path, oblique: Geometry, landmark: np.ndarray
) -> None:
    write_labels(tmp_path / "a.nii.gz", landmark > 0, oblique)
    image = nibabel.load(tmp_path / "a.nii.gz")
    header = image.header
    assert int(header["sform_code"]) == int(header["qform_code"]) == 1
    np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-4)
    assert header.get_xyzt_units()[0] == "mm"
    assert header.get_slope_inter() in ((1.0, 0.0), (None, None))
    assert header.get_data_dtype() == np.uint8
    assert not header["descrip"].item()
    assert not header.extensions


@pytest.mark.parametrize("suffix", [*FORMATS, ".png", ".tif", ".bmp"])
@pytest.mark.fault("F49")
def test_equal_images_make_equal_files(tmp_path: Path, oblique: Geometry, suffix: str) -> None:
    """Neither name nor place nor time of writing is in a file."""
    grid = oblique if suffix in FORMATS else Geometry.regular((5, 6))
    mask = np.zeros(grid.shape, np.uint8)
    mask[2] = 1
    paths = [tmp_path / "token1" / f"token2{suffix}", tmp_path / f"other{suffix}"]
    for path in paths:
        write_labels(path, mask, grid)
        time.sleep(0.01)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert b"token" not in paths[0].read_bytes()
    assert str(time.localtime().tm_year).encode() not in paths[0].read_bytes()


@pytest.mark.parametrize("suffix", FORMATS)
def test_channels_survive(tmp_path: Path, oblique: Geometry, suffix: str) -> None:
    probs = np.random.default_rng(0).random((3, 7, 9, 11)).astype(np.float32)
    write_probs(tmp_path / f"a{suffix}", probs, oblique)
    array, geometry = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(array, probs)
    assert geometry.distance_voxels(oblique) < 1e-4
    assert read_header(tmp_path / f"a{suffix}").channels == 3


def test_vectors_of_simpleitk(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((2, 3, 4, 3)).astype(np.float32)
    for suffix in (".nii", ".mha", ".nrrd"):
        path = tmp_path / f"v{suffix}"
        sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(path))
        np.testing.assert_array_equal(read_image(path)[0], np.moveaxis(values, -1, 0))


@pytest.mark.parametrize("suffix", [".mha", ".nrrd"])
def test_pictures_in_volume_formats(tmp_path: Path, suffix: str) -> None:
    picture = Geometry.regular((3, 4), (0.5, 0.25), (10.0, 20.0))
    labels = np.arange(12).reshape(3, 4) > 4
    write_labels(tmp_path / f"a{suffix}", labels, picture)
    found, geometry = read_labels(tmp_path / f"a{suffix}")
    assert geometry == picture
    np.testing.assert_array_equal(found, labels)
    image = sitk.ReadImage(str(tmp_path / f"a{suffix}"))
    assert image.GetSpacing() == (0.25, 0.5)
    assert image.GetOrigin() == (20.0, 10.0)


@given(
    st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1),
    st.booleans(),
)
def test_a_qform_is_right_or_unset(quaternion: list[float], mirrored: bool) -> None:
    """Near half turns single precision cannot hold the quaternion; then no qform is written."""
    a, b, c, d = np.array(quaternion) / np.linalg.norm(quaternion)
    turn = np.array(
        [
            [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
        ]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn * ([1.0, 1.0, -1.0] if mirrored else [1.0, 1.0, 1.0])
    geometry = Geometry.from_affine((300, 300, 300), affine[:, [2, 1, 0, 3]])
    header = np.zeros((), NIFTI_1)
    header["pixdim"][:] = 1.0
    _set_qform(header, affine, geometry)
    if header["qform_code"]:
        last = np.array([299.0, 299.0, 299.0, 1.0])
        assert np.abs((_qform(header) - affine) @ last).max() < 0.01
