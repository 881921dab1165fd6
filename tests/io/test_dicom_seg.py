"""DICOM segmentations: written for archives and viewers of others, read as masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from builders.dicom import EVEN, VALUES, enhanced, save, series, slice_tags
from pydicom.uid import JPEG2000Lossless

from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io import (
    DataWarning,
    read_case,
    read_header,
    read_image,
    read_labels,
    read_probs,
    write_image,
    write_segmentation,
)

RNG = np.random.default_rng(0)
IDENTITY: dict[str, Any] = {
    "PatientName": "Müller^Ærø",
    "PatientID": "PID-token",
    "PatientBirthDate": "19500102",
    "PatientSex": "O",
    "StudyInstanceUID": "1.2.77",
    "StudyDate": "20200102",
    "StudyTime": "101112",
    "StudyID": "S1",
    "AccessionNumber": "A1",
    "SeriesNumber": 5,
    "FrameOfReferenceUID": "1.2.78",
    "SpecificCharacterSet": "ISO_IR 192",
}
PRIVATE: dict[str, Any] = {
    "ReferringPhysicianName": "Token^Referring",
    "OperatorsName": "Token^Operator",
    "InstitutionName": "Token institution",
    "StudyDescription": "Token study",
    "SeriesDescription": "Token series",
    "PatientAge": "070Y",
    "PatientAddress": "Token street",
    "OtherPatientIDs": "Token other",
    "PatientComments": "Token comments",
    "StationName": "Token station",
    "DeviceSerialNumber": "Token device",
    "AcquisitionDate": "20200103",
    "ProtocolName": "Token protocol",
    "RequestedProcedureDescription": "Token request",
}


def masks(shape: tuple[int, ...]) -> np.ndarray:
    """Two segments that share no voxel, and every voxel of which differs from its neighbours."""
    labels = RNG.integers(0, 3, shape)
    return np.stack([labels == 1, labels == 2])


def frames_by_hand(path: Path) -> dict[tuple[int, tuple[float, ...]], np.ndarray]:
    """What a reader finds that knows the standard and nothing of us: segment, place, pixels."""
    tags = pydicom.dcmread(path)
    size = tags.NumberOfFrames * tags.Rows * tags.Columns
    stored = np.frombuffer(tags.PixelData, np.uint8)
    if tags.BitsAllocated == 1:
        stored = np.unpackbits(stored, bitorder="little")
    pixels = stored[:size].reshape(-1, tags.Rows, tags.Columns)
    return {
        (
            int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber),
            tuple(round(float(v), 6) for v in group.PlanePositionSequence[0].ImagePositionPatient),
        ): frame
        for group, frame in zip(tags.PerFrameFunctionalGroupsSequence, pixels, strict=True)
    }


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    return series(tmp_path / "ct", EVEN, **IDENTITY)


@pytest.mark.parametrize("scale", [(1, 1, 1), (1, 2, 2), (2, 3, 2)])
def test_masks_lie_where_any_reader_finds_them(ct: Path, tmp_path: Path, scale: tuple) -> None:
    _, geometry = read_image(ct)
    fine, path = geometry.refined(scale), tmp_path / "m.dcm"
    segments = masks(fine.shape)
    write_segmentation(path, segments, fine, ct, ["lesion", "rim"])
    labels, where = read_labels(path)
    np.testing.assert_array_equal(labels, segments[0] + 2 * segments[1])
    assert where.distance_voxels(fine) < 1e-6
    frames = frames_by_hand(path)
    assert len(frames) == 2 * fine.shape[0]
    for index in range(fine.shape[0]):
        place = fine.to_world(np.array([index, 0, 0])) * [-1, -1, 1]
        for number in (1, 2):
            np.testing.assert_array_equal(
                frames[number, tuple(np.round(place, 6).tolist())], segments[number - 1, index]
            )
    tags = pydicom.dcmread(path)
    measures = tags.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(v) for v in measures.PixelSpacing] == pytest.approx(fine.spacing[1:])
    assert float(measures.SpacingBetweenSlices) == pytest.approx(fine.spacing[0])
    assert (tags.SegmentationType, tags.BitsAllocated, tags.Modality) == ("BINARY", 1, "SEG")
    assert [s.SegmentLabel for s in tags.SegmentSequence] == ["lesion", "rim"]
    assert tags.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Lesion"


@pytest.mark.parametrize("scale", [(1, 1, 1), (2, 2, 2)])
def test_highdicom_reads_masks_and_probabilities(ct: Path, tmp_path: Path, scale: tuple) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom is a reader of others")
    geometry = read_image(ct)[1].refined(scale)
    probs = RNG.random((2, *geometry.shape)).astype(np.float32)
    for values, kind in ((masks(geometry.shape), "BINARY"), (probs, "FRACTIONAL")):
        path = tmp_path / f"{kind}.dcm"
        write_segmentation(path, values, geometry, ct, ["lesion", "rim"])
        found = highdicom.seg.segread(path)
        assert found.segmentation_type.value == kind
        volume = found.get_volume(combine_segments=False)
        to_us = np.diag([-1, -1, 1, 1]) @ volume.affine
        where = Geometry.from_affine(volume.spatial_shape, to_us)
        order, flips = where.axes_to(geometry)
        array = np.flip(volume.array.transpose(3, *order), [a + 1 for a in flips])
        np.testing.assert_allclose(array, values, atol=0.51 / 255 * (kind != "BINARY"))


def test_the_bits_are_those_that_highdicom_writes(ct: Path, tmp_path: Path) -> None:
    seg = pytest.importorskip("highdicom", reason="highdicom is a writer of others").seg
    coded = pytest.importorskip("highdicom").sr.CodedConcept
    geometry = read_image(ct)[1]
    mask, lesion = masks(geometry.shape)[:1], coded("52988006", "SCT", "Lesion")
    write_segmentation(tmp_path / "m.dcm", mask, geometry, ct, ["lesion"])
    slices = sorted(map(pydicom.dcmread, ct.iterdir()), key=lambda t: t.ImagePositionPatient[2])
    for tags in slices:
        tags.Manufacturer = tags.ReferringPhysicianName = tags.PositionReferenceIndicator = ""
    kind = seg.SegmentAlgorithmTypeValues.AUTOMATIC
    family = coded("123109", "DCM", "Artificial Intelligence")
    made_by = pytest.importorskip("highdicom").AlgorithmIdentificationSequence("x", family, "1")
    theirs = seg.Segmentation(
        slices[::-1], mask[0, ::-1], "BINARY",
        [seg.SegmentDescription(1, "lesion", lesion, lesion, kind, made_by)],
        "1.2.3.4", 5, "1.2.3.5", 1, "m", "n", "1", "0", omit_empty_frames=False,
    )  # fmt: skip
    ours = pydicom.dcmread(tmp_path / "m.dcm")
    order = [
        float(g.PlanePositionSequence[0].ImagePositionPatient[2])
        for g in theirs.PerFrameFunctionalGroupsSequence
    ]
    frames = np.unpackbits(np.frombuffer(theirs.PixelData, np.uint8), bitorder="little")
    frames = frames[: mask.size].reshape(mask.shape[1:])[np.argsort(order)]
    assert ours.PixelData == np.packbits(frames.ravel(), bitorder="little").tobytes()
    skipped = {"ContributingEquipmentSequence", "SourceImageSequence", "PresentationLUTShape"}
    skipped |= {"InstanceCreationDate", "InstanceCreationTime", "DimensionOrganizationType"}
    assert {e.keyword for e in theirs} - {e.keyword for e in ours} <= skipped, "all are optional"


def test_probabilities_come_back_to_half_a_step(ct: Path, tmp_path: Path) -> None:
    geometry = read_image(ct)[1]
    probs = RNG.random((2, *geometry.shape)).astype(np.float32)
    probs[0, 0, 0, :2] = 0, 1
    write_segmentation(tmp_path / "p.dcm", probs, geometry, ct, ["lesion", "rim"])
    found, where = read_probs(tmp_path / "p.dcm")
    np.testing.assert_allclose(found, probs, atol=0.501 / 255)
    assert found[0, 0, 0, :2].tolist() == [0, 1]
    assert where.matches(geometry)
    with pytest.raises(DataError, match="2 channels or layers, a mask needs one"):
        read_labels(tmp_path / "p.dcm")


def derivations(path: Path) -> list[tuple[str, int | None]]:
    """Instance and frame that each frame says that it was derived from."""
    return [
        (source.ReferencedSOPInstanceUID, source.get("ReferencedFrameNumber"))
        for group in pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
        for derivation in group.get("DerivationImageSequence", [])
        for source in derivation.SourceImageSequence
    ]


def test_references_are_right_and_none_is_false(ct: Path, tmp_path: Path) -> None:
    geometry = read_image(ct)[1]
    slices = {
        float(tags.ImagePositionPatient[2]): tags.SOPInstanceUID
        for tags in map(pydicom.dcmread, ct.iterdir())
    }
    path = tmp_path / "m.dcm"
    write_segmentation(path, masks(geometry.shape), geometry, ct, ["lesion", "rim"])
    assert derivations(path) == [(slices[h], None) for h in sorted(slices)] * 2
    tags = pydicom.dcmread(path)
    (referenced,) = tags.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == "1.2.3"
    assert {i.ReferencedSOPInstanceUID for i in referenced.ReferencedInstanceSequence} == set(
        slices.values()
    )
    assert tags.FrameOfReferenceUID == "1.2.78"
    assert tags.SeriesInstanceUID != "1.2.3"
    fine = geometry.refined((1, 2, 2))
    write_segmentation(path, masks(fine.shape), fine, ct, ["lesion", "rim"], overwrite=True)
    assert derivations(path) == []
    tags = pydicom.dcmread(path)
    assert tags.FrameOfReferenceUID == "1.2.78"
    assert len(tags.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6


def test_frames_of_an_enhanced_file_are_referred_to_by_number(tmp_path: Path) -> None:
    order = [3, 0, 5, 1, 4, 2]
    source = save(
        tmp_path / "ct.dcm", enhanced(VALUES[order], [EVEN[i] for i in order], **IDENTITY)
    )
    geometry = read_image(source)[1]
    write_segmentation(tmp_path / "m.dcm", masks(geometry.shape)[:1], geometry, source, ["lesion"])
    uid = pydicom.dcmread(source).SOPInstanceUID
    assert derivations(tmp_path / "m.dcm") == [(uid, order.index(i) + 1) for i in range(6)]
    (instance,) = (
        pydicom.dcmread(tmp_path / "m.dcm").ReferencedSeriesSequence[0].ReferencedInstanceSequence
    )
    assert instance.ReferencedSOPInstanceUID == uid


@pytest.mark.fault("F49", "F50")
def test_nothing_goes_along_but_what_files_it_under_its_patient(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", EVEN, **IDENTITY, **PRIVATE)
    for path in folder.iterdir():
        tags = pydicom.dcmread(path)
        tags.private_block(0x0011, "TOKEN CREATOR", create=True).add_new(1, "LO", "Token private")
        save(path, tags)
    geometry = read_image(folder)[1]
    written = tmp_path / "m.dcm"
    write_segmentation(written, masks(geometry.shape), geometry, folder, ["lesion", "rim"])
    data = written.read_bytes()
    assert b"token" not in data.lower().replace(b"pid-token", b"")
    assert b"070Y" not in data
    assert b"20200103" not in data
    assert str(tmp_path).encode() not in data
    tags = pydicom.dcmread(written)
    assert not [element for element in tags.iterall() if element.tag.is_private]
    for name in (*IDENTITY,):
        if name not in ("SpecificCharacterSet", "SeriesNumber"):
            assert str(tags.get(name)) == str(IDENTITY[name]), name


@pytest.mark.parametrize("placed", [True, False])
def test_a_picture(tmp_path: Path, placed: bool) -> None:
    nowhere = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    tags = {**IDENTITY, **({} if placed else nowhere)}
    source = save(tmp_path / "xray.dcm", slice_tags(VALUES[0], **tags))
    geometry = read_image(source)[1]
    for grid in (geometry, geometry.refined((2, 2))):
        segments, path = masks(grid.shape), tmp_path / f"m{grid.shape[0]}.dcm"
        if not placed and grid is not geometry:
            with pytest.raises(DataError, match=r"not say where it lies .*; choose --grid source"):
                write_segmentation(path, segments, grid, source, ["lesion", "rim"])
            assert not path.exists()
            continue
        write_segmentation(path, segments, grid, source, ["lesion", "rim"])
        labels, where = read_labels(path)
        np.testing.assert_array_equal(labels, segments[0] + 2 * segments[1])
        assert (where.shape, where.spacing) == (grid.shape, pytest.approx(grid.spacing))
        assert len(derivations(path)) == 2 * (grid is geometry)
        if placed:
            corner = (-10 + grid.origin[1], 20 + grid.origin[0], 30)
            assert {place for _, place in frames_by_hand(path)} == {corner}
        else:
            assert "FrameOfReferenceUID" not in pydicom.dcmread(path)


@pytest.mark.filterwarnings("ignore:.*single slice:finemask.io.DataWarning")
def test_an_oblique_series_of_one_slice_is_a_volume(tmp_path: Path) -> None:
    row, column = [0.8, 0.6, 0.0], [-0.36, 0.48, -0.8]
    folder = series(tmp_path / "mr", EVEN[:1], ImageOrientationPatient=[*row, *column], **IDENTITY)
    geometry = read_image(folder)[1]
    fine = geometry.refined((3, 2, 2))
    write_segmentation(tmp_path / "m.dcm", masks(geometry.shape), geometry, folder, "ab")
    write_segmentation(tmp_path / "n.dcm", masks(fine.shape), fine, folder, "ab")
    assert read_header(tmp_path / "m.dcm").geometry.distance_voxels(geometry) < 1e-6
    assert read_header(tmp_path / "n.dcm").geometry.distance_voxels(fine) < 1e-6


def test_without_a_frame_of_reference_it_gets_its_own(tmp_path: Path) -> None:
    folder = series(tmp_path / "ct", EVEN)
    geometry = read_image(folder)[1]
    with pytest.warns(DataWarning, match="names no frame of reference"):
        write_segmentation(tmp_path / "m.dcm", masks(geometry.shape), geometry, folder, "ab")
    assert pydicom.dcmread(tmp_path / "m.dcm").FrameOfReferenceUID


def test_an_image_that_is_no_dicom_has_no_patient(tmp_path: Path) -> None:
    geometry = Geometry.regular((3, 4, 5), (1.0, 1.0, 1.0))
    write_image(tmp_path / "a.nii.gz", np.zeros((3, 4, 5)), geometry)
    with pytest.raises(DataError, match=r"is no DICOM, .*; choose another --format"):
        write_segmentation(
            tmp_path / "m.dcm", masks(geometry.shape), geometry, tmp_path / "a.nii.gz", "ab"
        )
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]


def edited(path: Path, change: Any) -> Path:
    tags = pydicom.dcmread(path)
    change(tags)
    return save(path, tags)


def test_planes_left_out_between_others_are_background(ct: Path, tmp_path: Path) -> None:
    geometry = read_image(ct)[1]
    segments = masks(geometry.shape)
    segments[:, 2] = False
    write_segmentation(tmp_path / "m.dcm", segments[:1], geometry, ct, ["lesion"])

    def without_plane_2(tags: Any) -> None:
        del tags.PerFrameFunctionalGroupsSequence[2]
        tags.NumberOfFrames = 5
        tags.PixelData = np.packbits(
            segments[0, [0, 1, 3, 4, 5]].ravel(), bitorder="little"
        ).tobytes()

    labels, where = read_labels(edited(tmp_path / "m.dcm", without_plane_2))
    np.testing.assert_array_equal(labels, segments[0])
    assert where.matches(geometry)


@pytest.mark.parametrize("kept", [[1, 2, 4], [3], [0], [5]])
@pytest.mark.parametrize("turned", [False, True])
def test_outer_planes_left_out_are_filled_in_from_the_image(
    ct: Path, tmp_path: Path, kept: list[int], turned: bool
) -> None:
    array, geometry = read_image(ct)
    segments = np.zeros((1, *geometry.shape), bool)
    segments[:, kept] = masks(geometry.shape)[:1, kept]
    write_segmentation(tmp_path / "m.dcm", segments, geometry, ct, ["lesion"])

    def without_empty(tags: Any) -> None:
        groups = tags.PerFrameFunctionalGroupsSequence
        tags.PerFrameFunctionalGroupsSequence = [groups[i] for i in kept]
        tags.NumberOfFrames = len(kept)
        data = np.packbits(segments[0, kept].ravel(), bitorder="little").tobytes()
        tags.PixelData = data + b"\0" * (len(data) % 2)

    mask, expected, image = edited(tmp_path / "m.dcm", without_empty), segments[0], ct
    if turned:
        image, grid = tmp_path / "ct.nii.gz", geometry.flipped(0).permuted((2, 1, 0)).flipped(1)
        write_image(image, np.flip(np.flip(array[0], 0).transpose(2, 1, 0), 1), grid)
        expected = np.flip(np.flip(segments[0], 0).transpose(2, 1, 0), 1)
    np.testing.assert_array_equal(read_case(image, truth=mask).truth, expected)
    # A block of a finer or shifted grid is none of this one.
    write_image(tmp_path / "other.nii.gz", array, replace(geometry, origin=(10.2, -20.0, 30.0)))
    with pytest.raises(DataError, match="does not lie on the grid"):
        read_case(tmp_path / "other.nii.gz", truth=mask)


def moved(tags: Any) -> None:
    tags.PerFrameFunctionalGroupsSequence[3].PlanePositionSequence[0].ImagePositionPatient = [
        -10, 20, 30 + 2.5 * 3.3,
    ]  # fmt: skip


def of_another_segment(tags: Any) -> None:
    groups = tags.PerFrameFunctionalGroupsSequence
    groups[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 7


def far_apart(tags: Any) -> None:
    for index, group in enumerate(tags.PerFrameFunctionalGroupsSequence):
        place = [-10, 20, 0.002 * index if index < 5 else 1e7]
        group.PlanePositionSequence[0].ImagePositionPatient = place


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: setattr(t, "SegmentationType", "LABELMAP"), "of the kind LABELMAP"),
        (lambda t: setattr(t, "NumberOfFrames", 99), "describes 12 of its 99 frames"),
        (lambda t: setattr(t, "PixelData", t.PixelData[:-8]), "bytes of pixel data"),
        (lambda t: t.SegmentSequence.pop(), "unknown segment 2"),
        (of_another_segment, "unknown segment 7"),
        (moved, "unevenly spaced frames"),
        (far_apart, "more than the limit|unevenly"),
    ],
)
@pytest.mark.fault("F39", "F48")
def test_impossible_segmentations(ct: Path, tmp_path: Path, change: Any, message: str) -> None:
    geometry, path = read_image(ct)[1], tmp_path / "m.dcm"
    write_segmentation(path, masks(geometry.shape), geometry, ct, ["lesion", "rim"])
    edited(path, change)
    with pytest.raises(DataError, match=message) as error:
        read_labels(path)
    assert error.value.subject == str(path)


def test_segments_that_overlap_are_no_label_map(ct: Path, tmp_path: Path) -> None:
    geometry = read_image(ct)[1]
    both = np.ones((2, *geometry.shape), bool)
    write_segmentation(tmp_path / "m.dcm", both, geometry, ct, ["lesion", "rim"])
    with pytest.raises(DataError, match=r"segments that overlap \(1 and 2\)"):
        read_labels(tmp_path / "m.dcm")


def test_a_segmentation_is_a_mask_and_no_image(ct: Path, tmp_path: Path) -> None:
    geometry = read_image(ct)[1]
    segments = masks(geometry.shape)
    write_segmentation(tmp_path / "m.dcm", segments, geometry, ct, ["lesion", "rim"])
    case = read_case(ct, truth=tmp_path / "m.dcm")
    np.testing.assert_array_equal(case.truth, segments[0] + 2 * segments[1])
    with pytest.raises(DataError, match="is a DICOM segmentation, not an image"):
        read_image(tmp_path / "m.dcm")


def test_segmentations_of_others(real_data: Path) -> None:
    """Of highdicom and of a scanner's software; overlapping segments are told."""
    folder = real_data / "DICOM"
    seg = folder / "seg_examples_highdicom"
    for name in ("seg_image_ct_binary.dcm", "seg_image_ct_binary_single_frame.dcm"):
        path = seg / name
        labels, geometry = read_labels(path)
        frames = frames_by_hand(path)
        assert labels.sum() == sum(int(f.sum()) for f in frames.values()) > 0
        assert geometry.unit == "mm"
    probs, _ = read_probs(seg / "seg_image_ct_true_fractional.dcm")
    assert 0 < probs.max() <= 1
    with pytest.raises(DataError, match="overlap"):
        read_labels(seg / "seg_image_ct_binary_overlap.dcm")
    labels, geometry = read_labels(folder / "singles_pydicom" / "liver.dcm")
    assert labels.shape == geometry.shape == (3, 512, 512)


def test_a_compressed_source_is_told_to_have_lost(tmp_path: Path) -> None:
    tags = {
        **IDENTITY, "LossyImageCompression": "01", "LossyImageCompressionRatio": 10,
        "LossyImageCompressionMethod": "ISO_15444_1",
    }  # fmt: skip
    folder = series(tmp_path / "ct", EVEN, **tags)
    geometry = read_image(folder)[1]
    write_segmentation(tmp_path / "m.dcm", masks(geometry.shape), geometry, folder, "ab")
    made = pydicom.dcmread(tmp_path / "m.dcm")
    assert (made.LossyImageCompression, made.LossyImageCompressionMethod) == ("01", "ISO_15444_1")
    assert made.file_meta.TransferSyntaxUID != JPEG2000Lossless
