"""DICOM series and files, sound ones and those that must not be stacked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from builders.dicom import EVEN, RNG, VALUES, save, series, slice_tags, upright
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io import DataWarning, find_images, is_image, read_case, read_header, read_image
from finemask.io.dicom_pixels import _significant_bits
from finemask.io.raster import file_affine


def against_simpleitk(folder: Path, array: np.ndarray, geometry: Geometry) -> None:
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    np.testing.assert_allclose(array[0], sitk.GetArrayFromImage(image), atol=1e-3)
    affine = np.diag([-1, -1, 1, 1]) @ file_affine(geometry)
    last = [n - 1 for n in image.GetSize()]
    for index in ([0, 0, 0], last):
        world = affine @ [*index, 1]
        np.testing.assert_allclose(world[:3], image.TransformIndexToPhysicalPoint(index), atol=5e-3)


@pytest.mark.fault("F09")
def test_a_series_is_sorted_by_place(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", EVEN)
    (folder / "README.txt").write_text("not DICOM")
    (folder / "DICOMDIR").write_bytes(b"x")
    array, geometry = read_image(folder)
    np.testing.assert_array_equal(array[0], VALUES)
    assert geometry.spacing == (2.5, 0.7, 0.5)
    assert geometry.origin == (10.0, -20.0, 30.0)
    against_simpleitk(folder, array, geometry)
    header = read_header(folder)
    assert (header.geometry, header.dtype, header.format) == (geometry, np.int16, "DICOM")
    case = read_case(folder)
    assert case.name == "ct"


@pytest.mark.fault("F09")
def test_an_oblique_series_of_falling_numbers(tmp_path: Path) -> None:
    row, column = np.array([0.8, 0.6, 0.0]), np.array([-0.36, 0.48, -0.8])
    normal = np.cross(row, column)
    places = [np.array([5.0, -7.0, 9.0]) - 3.3 * i * normal for i in range(6)]
    folder = series(tmp_path / "mr", places, ImageOrientationPatient=[*row, *column])
    array, geometry = read_image(folder)
    np.testing.assert_array_equal(array[0], VALUES[::-1])
    against_simpleitk(folder, array, geometry)
    corner = np.append(places[2], 1) * [-1, -1, 1, 1]
    np.testing.assert_allclose(geometry.to_index(corner[:3]), [3, 0, 0], atol=1e-3)


def test_rescaling_is_by_slice(tmp_path: Path) -> None:
    folder = series(tmp_path / "pet", EVEN)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.RescaleSlope, dataset.RescaleIntercept = str(dataset.InstanceNumber), "-1024"
        save(path, dataset)
    expected = VALUES * np.arange(1, 7)[:, None, None] - 1024.0
    np.testing.assert_array_equal(read_image(folder)[0][0], expected)


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        ([30, 32.5, 35, 40, 42.5, 45], r"lacks slices.*2\.5 mm.*slices 3 \(.* and 4 \(.* \(5 mm"),
        ([30, 32.5, 35, 38, 40.5, 43], r"unevenly spaced.*slices 3 \(.* and 4 \(.* \(3 mm"),
        ([30, 32.5, 32.5, 35, 37.5, 40], r"two slices at one place, .* slice [23] \("),
    ],
)  # fmt: skip
@pytest.mark.fault("F37", "F39")
def test_irregular_stacks_are_refused(tmp_path: Path, heights: list[float], message: str) -> None:
    folder = series(tmp_path / "ct", upright(heights))
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=message) as error:
            read(folder)
        assert error.value.subject == str(folder)


@pytest.mark.fault("F38")
def test_rounded_positions_are_regular(tmp_path: Path) -> None:
    heights = [30 + 2.5 * i + 0.005 * (-1) ** i for i in range(6)]
    assert read_header(series(tmp_path / "ct", upright(heights))).geometry.spacing[0] == (
        pytest.approx(2.5, abs=0.01)
    )


@pytest.mark.fault("F41")
def test_gantry_tilt_is_refused(tmp_path: Path) -> None:
    places = [np.array([0.0, 0.5 * i, 2.5 * i]) for i in range(6)]
    with pytest.raises(DataError, match=r"is tilted: .*0\.5 mm .*11\.3 degrees .*slices 1 \("):
        read_image(series(tmp_path / "ct", places))


@pytest.mark.fault("F42", "F52")
def test_several_series_are_listed(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", EVEN)
    for index, place in enumerate(EVEN):
        tags = slice_tags(-VALUES[index], SeriesInstanceUID="9.8.7", ImagePositionPatient=[*place])
        save(folder / f"other{index}.dcm", tags)
    with pytest.raises(DataError, match=r"holds 2 series: 1\.2\.3 \(6 slices\), 9\.8\.7 \(6 slic"):
        read_image(folder)
    np.testing.assert_array_equal(read_image(folder, series="9.8.7")[0][0], -VALUES)
    with pytest.raises(DataError, match="no DICOM image of series 5"):
        read_image(folder, series="5")


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageOrientationPatient": [1.0, 0, 0, 0, 0, -1.0]},
        {"PixelSpacing": [0.7, 0.6]},
        {"Rows": 7, "PixelData": VALUES[0, :7].tobytes()},
    ],
)
@pytest.mark.fault("F23", "F42")
def test_a_localiser_in_the_series_is_named(tmp_path: Path, tags: dict) -> None:
    folder = series(tmp_path / "ct", EVEN)
    save(folder / "localiser.dcm", slice_tags(VALUES[0], InstanceNumber=99, **tags))
    with pytest.raises(
        DataError, match=r"mixes .* unlike the rest are slices 99 \(localiser\.dcm\)"
    ):
        read_image(folder)


def test_slices_without_a_place(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", EVEN)
    save(folder / "x.dcm", slice_tags(VALUES[0], ImagePositionPatient=None))
    with pytest.raises(DataError, match=r"without position.*: x\.dcm"):
        read_image(folder)


def test_a_series_of_one_slice(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match=r"single slice; its thickness of 9 mm"):
        array, geometry = read_image(series(tmp_path / "ct", EVEN[:1]))
    assert array.shape == (1, 1, 8, 10)
    assert geometry.spacing == (9.0, 0.7, 0.5)


def test_other_objects_are_left_out_of_a_series(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", EVEN)
    save(folder / "report.dcm", slice_tags(VALUES[0], Modality="SR", Rows=None, PixelData=None))
    with pytest.warns(DataWarning, match=r"no images were left out \(1 SR\)"):
        assert read_image(folder)[0].shape == (1, 6, 8, 10)


def test_a_single_file_is_a_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "xray.dcm", slice_tags(VALUES[0], RescaleIntercept="-1000"))
    array, geometry = read_image(path)
    np.testing.assert_array_equal(array[0], VALUES[0] - 1000.0)
    assert geometry == Geometry.regular((8, 10), (0.7, 0.5))
    assert read_header(path).geometry == geometry
    save(path, slice_tags(VALUES[0], PixelSpacing=None))
    assert read_header(path).geometry.unit == "px"
    save(path, slice_tags(VALUES[0], PixelSpacing=None, ImagerPixelSpacing=[0.2, 0.1]))
    with pytest.warns(DataWarning, match="at the detector only"):
        assert read_header(path).geometry.spacing == (0.2, 0.1)
    region = Dataset()
    region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection = 3, 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = 0.02, 0.03
    save(path, slice_tags(VALUES[0], PixelSpacing=None, SequenceOfUltrasoundRegions=[region]))
    assert read_header(path).geometry.spacing == pytest.approx((0.3, 0.2))


@pytest.mark.parametrize(("signed", "expected"), [(0, 0x0ABC), (1, 0x0ABC - 0x1000)])
def test_foreign_high_bits_are_off(tmp_path: Path, signed: int, expected: int) -> None:
    pixels = np.full((2, 2), 0x7ABC, np.int16 if signed else np.uint16)
    tags = slice_tags(pixels, BitsStored=12, HighBit=11)
    assert (read_image(save(tmp_path / "a.dcm", tags))[0] == expected).all()
    # Also where the decoder leaves them on.
    assert (_significant_bits(tmp_path, pixels, tags)[0] == expected).all()


@pytest.mark.parametrize(
    ("dtype", "bits", "stored", "expected"),
    [(np.uint16, 12, 4000, 95), (np.uint8, 8, 5, 250), (np.int16, 12, -2048, 2047)],
)
@pytest.mark.fault("F44")
def test_monochrome1_is_turned_over_once(
    tmp_path: Path, dtype: type, bits: int, stored: int, expected: int
) -> None:
    tags = slice_tags(
        np.full((2, 2), stored, dtype), BitsStored=bits, HighBit=bits - 1,
        PhotometricInterpretation="MONOCHROME1", RescaleSlope="2", RescaleIntercept="-7",
    )  # fmt: skip
    assert (read_image(save(tmp_path / "a.dcm", tags))[0] == 2 * expected - 7).all()


@pytest.mark.fault("F45")
def test_negative_slope_is_not_turned_again(tmp_path: Path) -> None:
    tags = slice_tags(VALUES[0], RescaleSlope="-1", RescaleIntercept="5")
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.dcm", tags))[0][0], 5.0 - VALUES[0])


def test_colours(tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    tags = slice_tags(pixels, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "a.dcm", tags))[0], np.moveaxis(pixels, -1, 0)
    )


def test_run_length_encoding(tmp_path: Path) -> None:
    dataset = slice_tags(VALUES[0])
    dataset.compress(RLELossless)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.dcm", dataset))[0][0], VALUES[0])


@pytest.mark.fault("F47")
def test_a_missing_decoder_is_named_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", property(lambda _: False))
    dataset = slice_tags(VALUES[0])
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8" + bytes(20)])
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
    path = save(tmp_path / "a.dcm", dataset)
    with pytest.raises(
        DataError, match=r'a\.dcm: is compressed with JPEG-LS .*; pip install "finemask\[dicom\]"'
    ):
        read_image(path)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PixelData": VALUES[0].tobytes()[:-10]}, "has 150 bytes .*, its size of 8 x 10"),
        ({"PixelData": VALUES[:2].tobytes()}, "has 320 bytes"),
        ({"PixelData": None}, "no pixel data"),
        ({"PixelSpacing": [0.0, 0.5]}, "needs positive"),
        ({"Rows": 0}, "no voxels"),
        ({"Rows": 65535, "Columns": 65535}, "more than the limit"),
        ({"HighBit": 14, "BitsStored": 12}, "in the middle"),
        ({"PhotometricInterpretation": "HSV"}, "colours HSV"),
        ({"NumberOfFrames": 5}, "says of 0 of its 5 frames where"),
        ({"Modality": "RTDOSE"}, "object of kind RTDOSE, not an image"),
        ({"PixelSpacing": [0.5]}, r"cannot be decoded \(TypeError"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.fault("F48")
def test_impossible_files(tmp_path: Path, tags: dict, message: str) -> None:
    dataset = slice_tags(VALUES[0])
    for key, value in tags.items():
        if value is None:
            delattr(dataset, key)
        else:
            setattr(dataset, key, value)
    path = save(tmp_path / "a.dcm", dataset)
    with pytest.raises(DataError, match=message) as error:
        read_image(path)
    assert error.value.subject == str(path)
    assert "\n" not in str(error.value)


def test_errors_of_pydicoms_own_kind_are_one_line(tmp_path: Path) -> None:
    """Found by damaging files: not every exception of pydicom is a ValueError."""
    path = save(tmp_path / "a.dcm", slice_tags(VALUES[0]))
    data = bytearray(path.read_bytes())
    assert data[132:140] == b"\x02\0\0\0UL\x04\0"
    data[138] = 2
    path.write_bytes(data)
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=r"a\.dcm: cannot be decoded \(BytesLengthException"):
            read(path)


@pytest.mark.fault("F37", "F48")
def test_a_slice_that_lost_its_header_is_not_left_out(tmp_path: Path) -> None:
    """Found by damaging slices: without its first slice the rest was a sound volume."""
    folder = series(tmp_path / "ct", EVEN)
    first = folder / "IM000.dcm"
    first.write_bytes(first.read_bytes()[:132] + bytes(50))
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=r"IM000\.dcm.*(does not say what it is|decoded)"):
            read(folder)


@pytest.mark.fault("F48")
def test_a_truncated_slice_is_named(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", EVEN)
    path = folder / "IM003.dcm"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"IM003\.dcm"):
        read_image(folder)
    path.write_bytes(b"garbage" * 99)
    with pytest.raises(DataError, match=r"IM003\.dcm: is not DICOM"):
        read_image(folder)


def test_folders_of_series_and_of_pictures(tmp_path: Path) -> None:
    series(tmp_path / "ct", EVEN)
    xrays = tmp_path / "xrays"
    xrays.mkdir()
    for index in range(2):
        bare = slice_tags(VALUES[0], SeriesInstanceUID=f"5.{index}", ImagePositionPatient=None)
        save(xrays / f"{index}.dcm", bare)
    save(xrays / "IM7", bare)
    assert is_image(tmp_path / "ct")
    assert not is_image(xrays)
    assert [p.name for p in find_images(tmp_path)] == ["ct"]
    assert [p.name for p in find_images(xrays)] == ["0.dcm", "1.dcm", "IM7"]


@pytest.mark.parametrize("name", ["brain_MR_PGBM-003_T1post", "brain_MR_PGBM-002_hippocampus_crop"])
def test_real_series(real_data: Path, name: str) -> None:
    folder = real_data / "DICOM" / name
    array, geometry = read_image(folder)
    against_simpleitk(folder, array, geometry)
    assert read_header(folder).geometry == geometry


@pytest.mark.parametrize(
    "name", ["singles_pydicom/693_UNCR.dcm", "seg_examples_highdicom/ct_image.dcm"]
)
def test_real_single_files(real_data: Path, name: str) -> None:
    path = real_data / "DICOM" / name
    array, geometry = read_image(path)
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(image))
    assert geometry.spacing == pytest.approx(image.GetSpacing()[1::-1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("singles_pydicom/emri_small.dcm", "says of 0 of its 10 frames where they lie"),
        ("singles_pydicom/liver.dcm", "is a DICOM segmentation, not an image; give it as a mask"),
        ("seg_examples_highdicom/seg_image_ct_binary.dcm", "is a DICOM segmentation, not an image"),
    ],
)
def test_real_files_that_are_refused(real_data: Path, name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_image(real_data / "DICOM" / name)
