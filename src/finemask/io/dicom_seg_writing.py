"""DICOM SEG written: masks as binary, probabilities as fractional segmentations.

Only what the standard asks for is taken over from the source, so that an
archive files the object under the same patient and study: name, ID, birth date
and sex; study UID, date, time, ID and accession number. Nobody else's name, no
description, device or private tag goes along.

On the source's own grid each frame names the slice or frame that it was
derived from. On a finer grid no frame has such a slice, so none is named; the
frames lie in the source's frame of reference, and the series is referred to as
a whole.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from finemask import __version__
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.dicom import SEGMENTATION, Source, is_dicom, open_source
from finemask.io.dicom_planes import Plane, volume_affine
from finemask.io.files import atomic_write
from finemask.io.notices import warn
from finemask.io.raster import FilePath, file_affine, file_geometry, flip_lps

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber")
LARGEST = 255
"""Stored value of the probability 1."""

LESION = (
    ("49755003", "SCT", "Morphologically Abnormal Structure"),
    ("52988006", "SCT", "Lesion"),
)
TISSUE = (("85756007", "SCT", "Tissue"), ("85756007", "SCT", "Tissue"))
"""Category and type of a class of any other name: nothing is guessed from a name."""

Code = tuple[str, str, str]


def write_segmentation(
    path: FilePath,
    segments: NDArray[np.bool_] | NDArray[np.float32],
    geometry: Geometry,
    source: Path,
    names: Sequence[str],
    *,
    algorithm: str = "finemask",
    overwrite: bool = False,
) -> None:
    """Write a DICOM SEG of an image that was DICOM itself.

    Args:
        path: File to write, ``.dcm``.
        segments: ``(F, *S)``, one a class: booleans make a binary object, floats in
            [0, 1] a fractional one, to 1/255.
        geometry: Grid of ``S``: the source's, or a finer one over the same extent.
        source: The DICOM file or folder that the image was read from.
        names: A label for each segment.
        algorithm: What made the masks.
        overwrite: Replace an existing file.

    Raises:
        DataError: When the source is no DICOM, or says no place where one is needed.
    """
    if not (source.is_dir() or is_dicom(source)):
        raise DataError(
            source,
            "is no DICOM, so a segmentation would belong to no patient and study",
            "choose another --format",
        )
    image = open_source(source)
    planes, on_source = _planes(image, geometry)
    dataset = _identity(image)
    _add_grid(dataset, image, planes, geometry)
    _add_segments(dataset, names, algorithm)
    _add_frames(dataset, image, planes, len(names), on_source)
    _add_pixels(dataset, np.asarray(segments))
    with atomic_write(path, overwrite) as temporary:
        dataset.save_as(temporary, enforce_file_format=True)


def _planes(image: Source, geometry: Geometry) -> tuple[list[list[float]], bool]:
    """Positions of the planes (empty where nothing says any), and whether they are the source's."""
    first = image.planes[0]
    if image.is_volume:
        own = flip_lps(volume_affine(image.path, image.planes))
        sizes = (*first.size[::-1], len(image.planes))
        if file_geometry(image.path, sizes, own).matches(geometry):
            return [list(plane.position) for plane in image.planes], True
        affine = flip_lps(file_affine(geometry))
        _check_upright(image.path, affine)
        return [(affine[:3, 3] + k * affine[:3, 2]).tolist() for k in range(geometry.shape[0])], (
            False
        )
    on_source = geometry.shape == first.size and not any(geometry.origin)
    if not first.is_placed:
        if not on_source:
            raise DataError(
                image.path,
                "does not say where it lies in the patient, so a finer mask cannot either",
                "choose --grid source or another --format",
            )
        return [], True
    rows, columns = first.axes
    down, right = geometry.origin
    return [(first.place + down * columns + right * rows).tolist()], on_source


def _check_upright(path: Path, affine: Float[ndarray, " 4 4"]) -> None:
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if np.abs(directions.T @ directions - np.eye(3)).max() > 0.02:
        raise DataError(path, "lies on a sheared grid, which DICOM SEG has not", "choose nifti")


def _identity(image: Source) -> Any:
    """A data set that belongs to the patient, study and frame of reference of an image."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

    now, tags, dataset = datetime.datetime.now(), image.tags, Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = UID(SEGMENTATION)
    uid = generate_uid(prefix=None)
    dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.SOPInstanceUID = uid
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for name in (*PATIENT, *STUDY):
        setattr(dataset, name, str(tags.get(name, "") or ""))
    dataset.ReferringPhysicianName = ""  # may be unknown; whoever files the object needs it not
    dataset.StudyInstanceUID = str(tags.get("StudyInstanceUID", "")) or generate_uid(prefix=None)
    dataset.Modality, dataset.SeriesInstanceUID = "SEG", generate_uid(prefix=None)
    dataset.SeriesNumber, dataset.InstanceNumber = 1000 + int(tags.get("SeriesNumber") or 0), 1
    dataset.SeriesDescription = "finemask segmentation"
    dataset.Manufacturer = dataset.ManufacturerModelName = "finemask"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "none", __version__
    dataset.ContentDate = dataset.SeriesDate = now.strftime("%Y%m%d")
    dataset.ContentTime = dataset.SeriesTime = now.strftime("%H%M%S")
    dataset.ContentLabel, dataset.ContentDescription = "SEGMENTATION", "Made by finemask"
    dataset.ContentCreatorName = ""
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.LossyImageCompression = "01" if image.lossy else "00"
    for name in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if image.lossy and tags.get(name) is not None:
            setattr(dataset, name, tags.get(name))
    _add_references(dataset, image)
    return dataset


def _add_references(dataset: Any, image: Source) -> None:
    """The series as a whole, with each of its instances once."""
    series = _item(
        SeriesInstanceUID=str(image.tags.get("SeriesInstanceUID", "")),
        ReferencedInstanceSequence=[
            _item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=uid)
            for kind, uid in dict.fromkeys(plane.sop for plane in image.planes)
        ],
    )
    dataset.ReferencedSeriesSequence = [series]


def _add_grid(dataset: Any, image: Source, planes: list[list[float]], geometry: Geometry) -> None:
    """Size, spacing and orientation, which all frames share."""
    from pydicom.uid import generate_uid

    shared, first = _item(), image.planes[0]
    dataset.Rows, dataset.Columns = geometry.shape[-2:]
    if geometry.unit == "mm":
        measures = _item(PixelSpacing=_decimals(geometry.spacing[-2:]))
        if geometry.ndim == 3:
            measures.SliceThickness = measures.SpacingBetweenSlices = _decimals(
                geometry.spacing[:1]
            )[0]
        elif first.thickness:
            measures.SliceThickness = _decimals([first.thickness])[0]
        shared.PixelMeasuresSequence = [measures]
    if planes:
        shared.PlaneOrientationSequence = [
            _item(ImageOrientationPatient=_decimals(np.concatenate(first.axes)))
        ]
        uid = str(image.tags.get("FrameOfReferenceUID", ""))
        if not uid:
            warn(image.path, "names no frame of reference; its segmentation has one of its own")
        dataset.FrameOfReferenceUID = uid or generate_uid(prefix=None)
        dataset.PositionReferenceIndicator = ""
    dataset.SharedFunctionalGroupsSequence = [shared]


def _add_segments(dataset: Any, names: Sequence[str], algorithm: str) -> None:
    dataset.SegmentSequence = []
    for number, name in enumerate(names, 1):
        category, kind = LESION if name == "lesion" else TISSUE
        dataset.SegmentSequence.append(
            _item(
                SegmentNumber=number,
                SegmentLabel=name[:64],
                SegmentAlgorithmType="AUTOMATIC",
                SegmentAlgorithmName=algorithm[:64],
                SegmentedPropertyCategoryCodeSequence=[_code(category)],
                SegmentedPropertyTypeCodeSequence=[_code(kind)],
            )
        )


def _add_frames(
    dataset: Any, image: Source, planes: list[list[float]], segments: int, on_source: bool
) -> None:
    """What each frame is: a segment in a plane, derived from a source plane where it is that."""
    from pydicom.datadict import tag_for_keyword
    from pydicom.uid import generate_uid

    pointers = [("ReferencedSegmentNumber", "SegmentIdentificationSequence")]
    pointers += [("ImagePositionPatient", "PlanePositionSequence")] * bool(planes)
    organization = generate_uid(prefix=None)
    dataset.DimensionOrganizationSequence = [_item(DimensionOrganizationUID=organization)]
    dataset.DimensionIndexSequence = [
        _item(
            DimensionOrganizationUID=organization,
            DimensionIndexPointer=tag_for_keyword(pointer),
            FunctionalGroupPointer=tag_for_keyword(group),
        )
        for pointer, group in pointers
    ]
    dataset.PerFrameFunctionalGroupsSequence = []
    for number in range(1, segments + 1):
        for index in range(len(planes) or 1):
            values = [number, index + 1] if planes else [number]
            frame = _item(
                FrameContentSequence=[_item(DimensionIndexValues=values)],
                SegmentIdentificationSequence=[_item(ReferencedSegmentNumber=number)],
            )
            if planes:
                position = _item(ImagePositionPatient=_decimals(planes[index]))
                frame.PlanePositionSequence = [position]
            if on_source:
                frame.DerivationImageSequence = [_derivation(image.planes[index], image)]
            dataset.PerFrameFunctionalGroupsSequence.append(frame)
    dataset.NumberOfFrames = len(dataset.PerFrameFunctionalGroupsSequence)


def _derivation(plane: Plane, image: Source) -> Any:
    purpose = ("121322", "DCM", "Source image for image processing operation")
    source = _item(
        ReferencedSOPClassUID=plane.sop[0],
        ReferencedSOPInstanceUID=plane.sop[1],
        PurposeOfReferenceCodeSequence=[_code(purpose)],
        SpatialLocationsPreserved="YES",
    )
    if image.tags.get("NumberOfFrames"):
        source.ReferencedFrameNumber = plane.frame + 1
    return _item(
        SourceImageSequence=[source],
        DerivationCodeSequence=[_code(("113076", "DCM", "Segmentation"))],
    )


def _add_pixels(dataset: Any, segments: NDArray[Any]) -> None:
    """One bit a pixel without a gap between frames, or one byte."""
    binary = segments.dtype == np.bool_
    dataset.SegmentationType = "BINARY" if binary else "FRACTIONAL"
    if not binary:
        dataset.SegmentationFractionalType = "PROBABILITY"
        dataset.MaximumFractionalValue = LARGEST
    dataset.SegmentsOverlap = "NO" if binary or len(segments) == 1 else "YES"
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelRepresentation = 0
    dataset.BitsAllocated = dataset.BitsStored = 1 if binary else 8
    dataset.HighBit = dataset.BitsStored - 1
    if binary:
        data = np.packbits(segments.ravel(), bitorder="little").tobytes()
    else:
        data = np.round(segments * LARGEST).astype(np.uint8).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB"


def _item(**values: Any) -> Any:
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _code(code: Code) -> Any:
    value, scheme, meaning = code
    return _item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)


def _decimals(values: Sequence[float] | Float[ndarray, " n"]) -> list[Any]:
    """Numbers as DICOM writes them, in at most 16 characters."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(value), auto_format=True) for value in values]
