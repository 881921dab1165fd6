"""Multi-frame DICOM, compressed or not: a volume by its frames' positions, or refused."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from builders.dicom import EVEN, VALUES, enhanced, item, save, series, slice_tags, upright
from PIL import Image
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from finemask.errors import DataError
from finemask.io import DataWarning, is_image, read_header, read_image

LARGE = np.random.default_rng(1).integers(0, 4000, (6, 48, 64)).astype(np.int16)
"""As JPEG 2000 halves an image five times."""

CODECS = {
    "RLE": (RLELossless, "pydicom"),
    "JPEG-LS": (JPEGLSLossless, "jpeg_ls"),
    "JPEG 2000": (JPEG2000Lossless, "openjpeg"),
}


def codec(name: str) -> str:
    """The transfer syntax of a codec that can be written here."""
    syntax, package = CODECS[name]
    pytest.importorskip(package, reason=f"{package} (finemask[dicom]) encodes {name}")
    return syntax


def test_frames_lie_where_they_say_whatever_their_order(tmp_path: Path) -> None:
    rescale = [(1.0 + i, -1000.0 - i) for i in range(6)]
    order = [3, 0, 5, 1, 4, 2]
    path = save(
        tmp_path / "ct.dcm",
        enhanced(VALUES[order], [EVEN[i] for i in order], [rescale[i] for i in order]),
    )
    array, geometry = read_image(path)
    slopes, intercepts = np.array(rescale).T[..., None, None]
    np.testing.assert_array_equal(array[0], VALUES * slopes + intercepts)
    assert geometry == read_image(series(tmp_path / "classic", EVEN))[1]
    header = read_header(path)
    assert (header.geometry, header.dtype, header.channels) == (geometry, np.int16, 1)


def test_one_frame_of_an_enhanced_file_is_a_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", enhanced(VALUES[:1], EVEN[:1], [(2.0, 1.0)]))
    array, geometry = read_image(path)
    np.testing.assert_array_equal(array[0], VALUES[0] * 2.0 + 1)
    assert geometry.spacing == (0.7, 0.5)


def test_a_series_cut_into_several_files_is_one_volume(tmp_path: Path) -> None:
    tags = {"ConcatenationUID": "1.2.9"}
    save(tmp_path / "b.dcm", enhanced(VALUES[:2], EVEN[:2], **tags))
    save(tmp_path / "a.dcm", enhanced(VALUES[2:], EVEN[2:], **tags))
    assert is_image(tmp_path), "one case, not one a file"
    np.testing.assert_array_equal(read_image(tmp_path)[0][0], VALUES)


def test_against_an_independent_writer_and_reader(real_data: Path, tmp_path: Path) -> None:
    """A real series, converted by highdicom to one enhanced file, is the same volume."""
    legacy = pytest.importorskip("highdicom").legacy
    folder = real_data / "DICOM" / "brain_MR_PGBM-002_hippocampus_crop"
    slices = [pydicom.dcmread(path) for path in sorted(folder.iterdir())]
    for tags in slices:
        tags.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
        tags.setdefault("FrameOfReferenceUID", "1.2.4")
        for name in ("AccessionNumber", "PatientBirthDate", "PatientSex", "StudyID"):
            tags.setdefault(name, "")
        for name in ("Manufacturer", "PositionReferenceIndicator", "ReferringPhysicianName"):
            tags.setdefault(name, "")
        tags.setdefault("StudyDate", "20000101")
        tags.setdefault("StudyTime", "000000")
        tags.setdefault("BurnedInAnnotation", "NO")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = legacy.LegacyConvertedEnhancedMRImage(
            slices, pydicom.uid.generate_uid(), 7, pydicom.uid.generate_uid(), 1
        )
        made.save_as(tmp_path / "mr.dcm")
    array, geometry = read_image(tmp_path / "mr.dcm")
    expected, where = read_image(folder)
    np.testing.assert_array_equal(array, expected)
    assert geometry.distance_voxels(where) < 1e-6


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        ([30, 32.5, 35, 40, 42.5, 45], r"lacks slices.*slices 3 of a\.dcm and 4 of a\.dcm \(5 mm"),
        ([30, 32.5, 35, 38, 40.5, 43], r"unevenly spaced.*3 of a\.dcm and 4 of a\.dcm \(3 mm"),
        ([30, 32.5, 32.5, 35, 37.5, 40], r"two slices at one place, .* slice [23] of a\.dcm"),
        ([30, 32.5, 35] * 2, r"two slices at one place, .* of a\.dcm.*; keep one .*echo"),
    ],
)
@pytest.mark.fault("F37", "F39", "F42")
def test_irregular_frames_are_refused_by_number(
    tmp_path: Path, heights: list[float], message: str
) -> None:
    path = save(tmp_path / "a.dcm", enhanced(VALUES, upright(heights)))
    for read in (read_header, read_image):
        with pytest.raises(DataError, match=message):
            read(path)


@pytest.mark.fault("F41")
def test_tilted_frames_are_refused(tmp_path: Path) -> None:
    tilted = [np.array([0.0, 0.5 * i, 2.5 * i]) for i in range(6)]
    with pytest.raises(DataError, match=r"is tilted: .*11\.3 degrees .*slices 1 of a\.dcm"):
        read_image(save(tmp_path / "a.dcm", enhanced(VALUES, tilted)))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"PerFrameFunctionalGroupsSequence": []}, "says of 0 of its 6 frames where they lie"),
        ({"NumberOfFrames": 7}, "says of 6 of its 7 frames"),
        ({"NumberOfFrames": 2**31 - 1}, "says of 6 of its 2147483647 frames"),
        ({"NumberOfFrames": -5}, "says of 6 of its -5 frames"),
        ({"PixelData": VALUES[:5].tobytes()}, "has 800 bytes .* 8 x 10 x 6 needs 960"),
        ({"SharedFunctionalGroupsSequence": []}, "without position, orientation or spacing: 1 of"),
        ({"Rows": 65535, "Columns": 65535}, "more than the limit"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.fault("F17", "F48")
def test_impossible_multi_frame_files(tmp_path: Path, tags: dict, message: str) -> None:
    path = save(tmp_path / "a.dcm", enhanced(VALUES, EVEN, **tags))
    with pytest.raises(DataError, match=message) as error:
        read_image(path)
    assert error.value.subject == str(path)


@pytest.mark.fault("F43")
def test_spacing_between_slices_and_thickness_place_nothing(tmp_path: Path) -> None:
    """Both tags are wrong in the wild: only positions tell how far slices lie apart."""
    tags = {"SpacingBetweenSlices": "0.625", "SliceThickness": "5", "SliceLocation": "7"}
    assert read_header(series(tmp_path / "ct", EVEN, **tags)).geometry.spacing[0] == 2.5
    dataset = enhanced(VALUES, EVEN)
    measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices, measures.SliceThickness = 0.625, 5
    assert read_header(save(tmp_path / "a.dcm", dataset)).geometry.spacing[0] == 2.5


@pytest.mark.parametrize("name", CODECS)
def test_compressed_frames(tmp_path: Path, name: str) -> None:
    dataset = enhanced(LARGE, EVEN)
    dataset.compress(codec(name))
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.dcm", dataset))[0][0], LARGE)
    one = slice_tags(LARGE[0])
    one.compress(codec(name))
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.dcm", one))[0][0], LARGE[0])


@pytest.mark.parametrize("name", CODECS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.fault("F46")
def test_a_frame_that_was_cut_off_is_never_filled_up(
    tmp_path: Path, name: str, share: float
) -> None:
    dataset = enhanced(LARGE, EVEN)
    dataset.compress(codec(name))
    frames = list(generate_frames(dataset.PixelData, number_of_frames=6))
    frames[2] = frames[2][: int(len(frames[2]) * share)]
    dataset.PixelData = encapsulate(frames)
    path = save(tmp_path / "a.dcm", dataset)
    with pytest.raises(DataError, match=r"a\.dcm: (is truncated .its frame 3|cannot be decoded)"):
        read_image(path)


@pytest.mark.parametrize("share", [0.3, 0.7, 0.95])
@pytest.mark.fault("F46")
def test_a_jpeg_that_was_cut_off_is_never_filled_up(tmp_path: Path, share: float) -> None:
    """The decoder of pylibjpeg returns the rest of the picture in grey."""
    packed, pixels = io.BytesIO(), (LARGE[0] >> 4).astype(np.uint8)
    Image.fromarray(pixels).save(packed, "JPEG", quality=95)
    dataset = slice_tags(pixels)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([packed.getvalue()])
    found = read_image(save(tmp_path / "a.dcm", dataset))[0][0]
    assert np.abs(found - pixels).max() < 40
    dataset.PixelData = encapsulate([packed.getvalue()[: int(len(packed.getvalue()) * share)]])
    with pytest.raises(DataError, match=r"is truncated \(its compressed image has no end mark"):
        read_image(save(tmp_path / "a.dcm", dataset))


@pytest.mark.parametrize("name", ["JPEG-LS", "JPEG 2000"])
@pytest.mark.fault("F17", "F51")
def test_a_stream_larger_than_its_header_is_not_decoded(tmp_path: Path, name: str) -> None:
    """Nine million pixels behind a header of a few hundred would fill what memory there is."""
    huge = slice_tags(np.zeros((3000, 3000), np.int16))
    huge.compress(codec(name))
    dataset = slice_tags(LARGE[0])
    dataset.PixelData, dataset.file_meta.TransferSyntaxUID = huge.PixelData, codec(name)
    path = save(tmp_path / "a.dcm", dataset)
    assert path.stat().st_size < 20_000
    with pytest.raises(DataError, match=r"image is 3000 x 3000, its header says 48 x 64"):
        read_image(path)


@pytest.mark.fault("F46")
def test_frames_that_are_missing_are_counted(tmp_path: Path) -> None:
    dataset = enhanced(VALUES, EVEN)
    dataset.compress(RLELossless)
    frames = list(generate_frames(dataset.PixelData, number_of_frames=6))
    dataset.PixelData = encapsulate(frames[:5])
    with pytest.raises(DataError, match=r"a\.dcm: "):
        read_image(save(tmp_path / "a.dcm", dataset))


def test_a_file_deflated_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = slice_tags(VALUES[0])
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    path = save(tmp_path / "a.dcm", dataset)
    np.testing.assert_array_equal(read_image(path)[0][0], VALUES[0])
    monkeypatch.setenv("FINEMASK_MAX_VOXELS", "20")
    with pytest.raises(DataError, match="unpacks to more than 160 bytes"):
        read_header(path)


def test_simpleitk_reads_the_same_frames(tmp_path: Path) -> None:
    path = save(tmp_path / "ct.dcm", enhanced(VALUES, EVEN))
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(read_image(path)[0][0], sitk.GetArrayFromImage(image))


@pytest.mark.fault("F40")
def test_a_stack_that_is_refused_cannot_be_waved_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no warning that one may silence, and no setting or budget lets it pass."""
    folder = series(tmp_path / "ct", upright([30, 32.5, 35, 40, 42.5, 45]))
    monkeypatch.setenv("FINEMASK_MAX_VOXELS", "999999999")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match="lacks slices"):
            read_image(folder)


def test_a_series_may_mix_slices_and_frames_but_not_twice(tmp_path: Path) -> None:
    series(tmp_path, EVEN[:3])
    save(tmp_path / "rest.dcm", enhanced(VALUES[3:], EVEN[3:]))
    np.testing.assert_array_equal(read_image(tmp_path)[0][0], VALUES)
    save(tmp_path / "again.dcm", enhanced(VALUES[3:], EVEN[3:]))
    with pytest.raises(DataError, match=r"two slices at one place, .* of rest\.dcm"):
        read_image(tmp_path)


def test_values_by_a_table_are_refused_in_frames_too(tmp_path: Path) -> None:
    dataset = enhanced(VALUES, EVEN)
    table = item(LUTDescriptor=[1, 0, 16], LUTData=b"\0\0", ModalityLUTType="HU")
    dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [
        item(ModalityLUTSequence=[table])
    ]
    with pytest.raises(DataError, match="by a table"):
        read_image(save(tmp_path / "a.dcm", dataset))


def test_a_lone_thickness_is_warned_of(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="its thickness of 9 mm was used"):
        read_image(series(tmp_path / "ct", EVEN[:1], SpacingBetweenSlices="3"))
