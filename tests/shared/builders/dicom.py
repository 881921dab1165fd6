"""DICOM slices, series and multi-frame files as scanners describe them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian

RNG = np.random.default_rng(0)
VALUES = RNG.integers(0, 4000, (6, 8, 10)).astype(np.int16)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def slice_tags(pixels: np.ndarray, **tags: object) -> Dataset:
    """A CT slice as a scanner would describe it; ``None`` removes a tag."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    kind = tags.get("SOPClassUID", CTImageStorage)
    dataset.file_meta.MediaStorageSOPClassUID = kind
    dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    values = {
        "SOPClassUID": kind,
        "SOPInstanceUID": dataset.file_meta.MediaStorageSOPInstanceUID,
        "SeriesInstanceUID": "1.2.3",
        "Modality": "CT",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "SamplesPerPixel": 1 if pixels.ndim == 2 else 3,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8 * pixels.itemsize,
        "BitsStored": 8 * pixels.itemsize,
        "HighBit": 8 * pixels.itemsize - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelSpacing": [0.7, 0.5],
        "ImageOrientationPatient": list(AXIAL),
        "ImagePositionPatient": [-10.0, 20.0, 30.0],
        "SliceThickness": 9.0,
        "PixelData": pixels.tobytes(),
        **tags,
    }
    for key, value in values.items():
        if value is not None:
            setattr(dataset, key, value)
    return dataset


def save(path: Path, dataset: Dataset) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def series(folder: Path, places: Sequence[np.ndarray], **tags: object) -> Path:
    """Slices at places, saved under names that sort in another order."""
    folder.mkdir(exist_ok=True, parents=True)
    for index, place in enumerate(places):
        dataset = slice_tags(
            VALUES[index], ImagePositionPatient=[float(f"{v:.8g}") for v in place],
            InstanceNumber=index + 1, **tags,
        )  # fmt: skip
        save(folder / f"IM{(index * 5) % 7:03d}.dcm", dataset)
    return folder


def upright(heights: Sequence[float]) -> list[np.ndarray]:
    return [np.array([-10.0, 20.0, h]) for h in heights]


EVEN = upright([30 + 2.5 * i for i in range(6)])


def item(**values: object) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def enhanced(
    pixels: np.ndarray,
    places: Sequence[np.ndarray],
    rescale: Sequence[tuple[float, float]] = (),
    **tags: object,
) -> Dataset:
    """One multi-frame CT file; a rescaling is each frame's own, orientation and spacing shared."""
    shared = item(
        PixelMeasuresSequence=[item(PixelSpacing=[0.7, 0.5], SliceThickness=9.0)],
        PlaneOrientationSequence=[item(ImageOrientationPatient=list(AXIAL))],
    )
    frames = []
    for index, place in enumerate(places):
        position = item(ImagePositionPatient=[float(f"{v:.8g}") for v in place])
        frames.append(item(PlanePositionSequence=[position]))
        if rescale:
            slope, intercept = rescale[index]
            frames[-1].PixelValueTransformationSequence = [
                item(RescaleSlope=slope, RescaleIntercept=intercept, RescaleType="HU")
            ]
    return slice_tags(
        pixels[0],
        **{
            "SOPClassUID": EnhancedCTImageStorage,
            "NumberOfFrames": len(pixels),
            "SharedFunctionalGroupsSequence": [shared],
            "PerFrameFunctionalGroupsSequence": frames,
            "PixelData": pixels.tobytes(),
            "PixelSpacing": None,
            "ImageOrientationPatient": None,
            "ImagePositionPatient": None,
            "SliceThickness": None,
            **tags,
        },
    )
