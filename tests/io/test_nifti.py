"""NIfTI files as the world makes them: damaged, rescaled, in microns."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from finemask.errors import DataError
from finemask.io import DataWarning, read_header, read_image, read_labels

VALUES = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def nifti(path: Path, values: np.ndarray = VALUES, **fields: object) -> Path:
    """Write ``(z, y, x)`` by nibabel, then set header fields byte by byte."""
    image = nibabel.Nifti1Image(values.T, np.diag([0.5, 0.6, 2.0, 1.0]))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    image.to_filename(path)
    if fields:
        data = path.read_bytes()
        packed = data[:2] == b"\x1f\x8b"
        data = gzip.decompress(data) if packed else data
        header = nibabel.Nifti1Header(data[:348], check=False)
        for key, value in fields.items():
            header[key] = value
        data = header.binaryblock + data[348:]
        path.write_bytes(gzip.compress(data) if packed else data)
    return path


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "i8", "u8"])
@pytest.mark.parametrize("order", "<>")
def test_types_and_byte_orders(tmp_path: Path, kind: str, order: str) -> None:
    values = (np.arange(24) * 4 + 3).reshape(2, 3, 4).astype(kind)
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_dtype(kind)
    image = nibabel.Nifti1Image(values.T, np.eye(4), header)
    image.to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii")[0][0], values)
    assert read_header(tmp_path / "a.nii").dtype == np.dtype(order + kind)


def test_colours_are_channels(tmp_path: Path) -> None:
    colours = np.zeros((4, 3, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["G"][1, 2, 0] = 7
    nibabel.Nifti1Image(colours, np.eye(4)).to_filename(tmp_path / "a.nii.gz")
    array, _ = read_image(tmp_path / "a.nii.gz")
    assert array.shape == (3, 2, 3, 4)
    assert array[1, 0, 2, 1] == 7
    assert array.sum() == 7


@pytest.mark.fault("F12")
def test_rescaling(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", scl_slope=0.5, scl_inter=-1024)
    np.testing.assert_array_equal(read_image(path)[0][0], VALUES * 0.5 - 1024)
    np.testing.assert_allclose(read_image(path)[0][0].T, nibabel.load(path).get_fdata())


@pytest.mark.parametrize(("slope", "intercept"), [(0, 7), (np.nan, np.nan), (np.inf, 0)])
@pytest.mark.fault("F11")
def test_no_slope_is_no_rescaling(tmp_path: Path, slope: float, intercept: float) -> None:
    path = nifti(tmp_path / "a.nii", scl_slope=slope, scl_inter=intercept)
    np.testing.assert_array_equal(read_image(path)[0][0], VALUES)


@pytest.mark.fault("F13")
def test_slope_without_intercept(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", scl_slope=2, scl_inter=np.nan)
    with pytest.raises(DataError, match=r"a\.nii: rescales .* slope 2 and intercept nan"):
        read_image(path)


@pytest.mark.parametrize(("code", "factor"), [(3, 1e-3), (1, 1e3), (2, 1), (0, 1), (10, 1)])
@pytest.mark.fault("F20")
def test_units_of_length(tmp_path: Path, code: int, factor: float) -> None:
    path = nifti(tmp_path / "a.nii", xyzt_units=code)
    spacing = np.array(read_header(path).geometry.spacing)
    np.testing.assert_allclose(spacing, np.array([2.0, 0.6, 0.5]) * factor, rtol=1e-6)


@pytest.mark.fault("F01")
def test_disagreeing_forms(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", qoffset_x=0.2)
    with pytest.warns(DataWarning, match=r"a\.nii: its sform and qform put .* 0\.4 voxels apart"):
        geometry = read_header(path).geometry
    assert geometry.origin == (0.0, 0.0, 0.0)


@pytest.mark.fault("F01")
def test_slightly_disagreeing_forms_are_rounding(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    read_header(nifti(tmp_path / "a.nii", qoffset_x=0.02))
    assert not recwarn.list


@pytest.mark.fault("F03")
def test_zero_sform_falls_back_to_the_qform(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", srow_x=0, srow_y=0, srow_z=0)
    with pytest.warns(DataWarning, match="sform is all zero"):
        assert read_header(path).geometry.spacing == pytest.approx((2.0, 0.6, 0.5))


@pytest.mark.fault("F03")
def test_no_form_at_all(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii", sform_code=0, qform_code=0)
    with pytest.warns(DataWarning, match="nothing of orientation"):
        assert read_header(path).geometry.spacing == pytest.approx((2.0, 0.6, 0.5))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"srow_x": [np.nan, 0, 0, 0]}, "not finite"),
        ({"srow_x": [0, 0, 0, 0]}, r"spacing is \(2, 0\.6, 0\), needs positive"),
        ({"srow_x": [0, 1, 0, 0]}, "needs positive|do not span"),
        ({"srow_y": [0.5, 0, 0, 0]}, "needs positive|do not span"),
        ({"dim": [3, 4, 3, 0, 1, 1, 1, 1]}, "no voxels along an axis .*4 x 3 x 0"),
        ({"dim": [3, 4, 3, -2, 1, 1, 1, 1]}, "no voxels"),
        ({"dim": [9, 4, 3, 2, 1, 1, 1, 1]}, "9 axes"),
        ({"dim": [3, 4, 3, 4, 1, 1, 1, 1]}, r"truncated \(found \d+ bytes.*needs (96|448)\)"),
        ({"datatype": 32}, "data type 32"),
        ({"vox_offset": np.nan}, "starts at byte nan"),
        ({"vox_offset": 1e30}, "starts at byte"),
        ({"magic": b"xx"}, "not a NIfTI file"),
        ({"sizeof_hdr": 1}, "not a NIfTI file"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.filterwarnings("ignore::finemask.io.DataWarning")
@pytest.mark.fault("F03", "F17", "F19")
def test_impossible_headers(tmp_path: Path, suffix: str, fields: dict, message: str) -> None:
    path = nifti(tmp_path / f"a{suffix}", **fields)
    with pytest.raises(DataError, match=message) as error:
        read_image(path)
    assert error.value.subject == str(path)
    assert "\n" not in str(error.value)


@pytest.mark.fault("F17")
def test_a_bomb_is_refused_from_its_header(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz", dim=[3, 32767, 32767, 32767, 1, 1, 1, 1])
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=r"32767 x 32767 x 32767 = .* more than the limit"):
            read(path)


def test_the_budget_can_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINEMASK_MAX_VOXELS", "23")
    with pytest.raises(DataError, match="FINEMASK_MAX_VOXELS"):
        read_image(nifti(tmp_path / "a.nii"))


@pytest.mark.fault("F17")
def test_a_compression_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz")
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data + bytes(50 * 2**20)))
    with pytest.raises(DataError, match="far more data than the 400 bytes"):
        read_image(path)


@pytest.mark.parametrize("keep", [0, 1, 5, 60, -1, -8, -9])
@pytest.mark.fault("F14")
def test_truncated_gzip(tmp_path: Path, keep: int) -> None:
    values = np.random.default_rng(0).integers(0, 9999, (4, 5, 6)).astype(np.int16)
    path = nifti(tmp_path / "a.nii.gz", values)
    data = path.read_bytes()
    path.write_bytes(data[:keep])
    with pytest.raises(DataError, match=r"a\.nii\.gz: (is truncated|is empty|is corrupt|is no)"):
        read_image(path)


@pytest.mark.fault("F15")
def test_wrong_checksum(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 9999, (9, 50, 60)).astype(np.int16)
    path = nifti(tmp_path / "a.nii.gz", values)
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    assert nibabel.load(path).get_fdata().max() == values.max()  # nibabel does not notice
    with pytest.raises(DataError, match=r"is corrupt .*incorrect data check"):
        read_image(path)


def test_gzip_in_several_members_and_padded(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii.gz")
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:370]) + gzip.compress(data[370:]) + bytes(512))
    np.testing.assert_array_equal(read_image(path)[0][0], VALUES)


def test_truncated_and_longer_plain_files(tmp_path: Path) -> None:
    path = nifti(tmp_path / "a.nii")
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=r"found 47 bytes, its header needs 48"):
            read(path)
    path.write_bytes(data + b"123")
    with pytest.warns(DataWarning, match="3 bytes after the image"):
        np.testing.assert_array_equal(read_image(path)[0][0], VALUES)


def test_the_gz_is_read_although_a_nii_lies_beside_it(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii", VALUES * 0)
    path = nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(path)[0][0], VALUES)


@pytest.mark.parametrize(("made", "named"), [(".nii", ".nii.gz"), (".nii.gz", ".nii")])
@pytest.mark.fault("F16")
def test_wrong_suffix(tmp_path: Path, made: str, named: str) -> None:
    path = nifti(tmp_path / f"a{made}").rename(tmp_path / f"b{named}")
    with pytest.warns(DataWarning, match="in spite of its name"):
        np.testing.assert_array_equal(read_image(path)[0][0], VALUES)


@pytest.mark.fault("F10")
def test_axes_beyond_space(tmp_path: Path) -> None:
    single = nifti(tmp_path / "single.nii", VALUES[None, None])
    assert read_image(single)[0].shape == (1, 2, 3, 4)
    channels = np.random.default_rng(0).random((3, 2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(read_image(nifti(tmp_path / "c.nii", channels))[0], channels)
    series = nifti(tmp_path / "s.nii", np.zeros((17, 2, 3, 4), np.uint8))
    with pytest.raises(DataError, match=r"4 axes \(4 x 3 x 2 x 17\).*at most 16 channels"):
        read_image(series)
    with pytest.raises(DataError, match="5 axes"):
        read_image(nifti(tmp_path / "v.nii", np.zeros((3, 2, 2, 3, 4), np.uint8)))


def test_time_points_of_a_mask_are_no_colours(tmp_path: Path) -> None:
    layers = np.zeros((3, 2, 3, 4), np.uint8)
    layers[0, 0, 0, 0] = 1
    with pytest.raises(DataError, match="has 3 channels or layers, a mask needs one"):
        read_labels(nifti(tmp_path / "m.nii", layers))


def test_hippocampus_against_nibabel(real_data: Path) -> None:
    files = sorted((real_data / "MSD_Task04_Hippocampus").rglob("*.nii.gz"))[:12]
    assert files
    for path in files:
        array, geometry = read_image(path)
        other = nibabel.load(path)
        np.testing.assert_allclose(array[0].T, other.get_fdata(), rtol=1e-6)
        np.testing.assert_allclose(geometry.affine[:, [2, 1, 0, 3]], other.affine, atol=1e-5)
