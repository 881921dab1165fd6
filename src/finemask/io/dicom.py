"""DICOM: a folder with one series is a volume, a file of one frame a picture.

A file of several frames (enhanced CT, MR, PET) is a volume by itself, and so
are the files of a series that was cut into several (a concatenation).
Segmentations are read as masks, never as images; see `finemask.io.dicom_seg`.
"""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finemask.errors import DataError
from finemask.geometry import Unit
from finemask.io.dicom_pixels import quiet, read_frames
from finemask.io.dicom_planes import (
    COLOURS,
    GREYS,
    Plane,
    found_in,
    frames_of,
    in_order,
    planes_of,
    volume_affine,
)
from finemask.io.notices import warn
from finemask.io.raster import (
    BLOCK,
    Header,
    Raster,
    check_size,
    file_geometry,
    flip_lps,
    max_voxels,
)

FORMAT = "DICOM"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
ASKED = 3
"""Files of a folder that say whether it is a series."""
DEFLATED = "1.2.840.10008.1.2.1.99"

NO_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG", "DOC", "FID", "ANN"}


@dataclass(frozen=True, eq=False)
class Source:
    """What a DICOM path holds: its planes in order and the tags of one of its files.

    Args:
        path: File or folder.
        planes: One for a picture; for a volume all, along their normal.
        tags: Of the first plane's file, without pixels.
        is_volume: Whether the planes are a stack.
        lossy: Whether any file was ever compressed with loss.
    """

    path: Path
    planes: tuple[Plane, ...]
    tags: Any
    is_volume: bool
    lossy: bool


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark behind its preamble."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_series(folder: Path) -> bool:
    """Whether a folder directly holds cross-sectional slices, or the parts of a volume.

    A slice that cannot be read decides nothing, nor does a single one that lost
    its place; if none can be read it is a series, so that its reader is told.
    """
    marked = [path for path in _candidates(folder) if is_dicom(path)]
    tags = list(itertools.islice(_readable(marked), ASKED))
    if marked and not tags:
        return True
    return any("ImagePositionPatient" in each or "ConcatenationUID" in each for each in tags)


def _readable(paths: list[Path]) -> Iterator[Any]:
    for path in paths:
        with suppress(Exception):  # pydicom has many kinds for damaged files
            yield read_tags(path)


def read_header(path: Path, series: str | None = None) -> Header:
    """Geometry and depth of a file, or of the series in a folder."""
    if is_segmentation(path):
        from finemask.io import dicom_seg

        return dicom_seg.read_header(path)
    return _header(open_source(path, series))


def read(path: Path, series: str | None = None) -> Raster:
    """Rescaled values of a file, or of the series in a folder, slices in spatial order."""
    if is_segmentation(path):
        from finemask.io import dicom_seg

        return dicom_seg.read(path)
    source = open_source(path, series)
    header = _header(source)
    if not source.is_volume:
        return Raster(header, next(read_frames(path)))
    array = np.empty((header.channels, *header.shape), np.float32)
    index = {(plane.path, plane.frame): i for i, plane in enumerate(source.planes)}
    for file in sorted({plane.path for plane in source.planes}):
        for frame, values in enumerate(read_frames(file)):
            if values.shape != (header.channels, *header.shape[1:]):
                raise DataError(file, f"has shape {values.shape}, its series "
                                f"{(header.channels, *header.shape[1:])}",
                                "export the series again")  # fmt: skip
            array[:, index[file, frame]] = values
    return Raster(header, array)


def open_source(path: Path, series: str | None = None) -> Source:
    """The planes behind a file or folder, nothing decoded.

    Raises:
        DataError: When it is no image, or no regular stack.
    """
    if path.is_dir():
        files = _series(path, series)
        planes = [plane for file, tags in files for plane in planes_of(file, tags)]
    else:
        tags = _image_tags(path)
        files, planes = [(path, tags)], planes_of(path, tags)
    is_volume = path.is_dir() or len(planes) > 1
    if is_volume:
        planes = in_order(path, planes)
    tags = dict(files)[planes[0].path]
    lossy = any(str(t.get("LossyImageCompression", "00")) == "01" for _, t in files)
    return Source(path, tuple(planes), tags, is_volume, lossy)


def _header(source: Source) -> Header:
    first, tags = source.planes[0], source.tags
    rows, columns = first.size
    if not source.is_volume:
        check_size(source.path, first.size, first.channels)
        spacing = _pixel_spacing(source.path, tags)
        affine = np.eye(3)
        if spacing is not None:
            affine[0, 0], affine[1, 1] = spacing[::-1]
        unit: Unit = "px" if spacing is None else "mm"
        geometry = file_geometry(source.path, (columns, rows), affine, unit)
    else:
        sizes = (columns, rows, len(source.planes))
        check_size(source.path, sizes, first.channels)
        affine = flip_lps(volume_affine(source.path, source.planes))
        geometry = file_geometry(source.path, sizes, affine)
    format = f"{FORMAT}, multi-frame" if frames_of(tags) > 1 else FORMAT
    return Header(source.path, format, geometry, first.channels, _depth(tags), source.lossy)


def read_tags(path: Path) -> Any:
    """Every tag of a file but its pixels.

    Raises:
        DataError: When it is no DICOM, or unpacks to more than an image may hold.
    """
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with quiet():
            _refuse_deflated_bomb(path, pydicom.filereader.read_file_meta_info(path))
            return pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError as error:
        raise DataError(path, "is not DICOM (it has no DICM mark)", "export it again") from error


def _refuse_deflated_bomb(path: Path, meta: Any) -> None:
    """A file deflated as a whole is unpacked at once, so its length is found out first."""
    if str(meta.get("TransferSyntaxUID", "")) != DEFLATED:
        return
    found, limit = 0, 8 * max_voxels()
    stream = zlib.decompressobj(wbits=-15)
    data = memoryview(path.read_bytes())[132 + 12 + int(meta.FileMetaInformationGroupLength) :]
    for start in range(0, len(data), BLOCK):
        block: bytes | memoryview = data[start : start + BLOCK]
        while len(block) and not stream.eof:
            found += len(stream.decompress(block, BLOCK))
            block = stream.unconsumed_tail
            if found > limit:
                raise DataError(
                    path,
                    f"unpacks to more than {limit:,} bytes",
                    "crop it, or raise the limit in the environment variable FINEMASK_MAX_VOXELS",
                )


def is_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM SEG, by its first bytes alone."""
    from pydicom.filereader import read_file_meta_info

    if path.is_dir() or not is_dicom(path):
        return False
    return str(read_file_meta_info(path).get("MediaStorageSOPClassUID", "")) == SEGMENTATION


def _image_tags(path: Path) -> Any:
    """Tags of an image; everything else is refused by what it is."""
    tags = read_tags(path)
    _check_image(path, tags)
    return tags


def _check_image(path: Path, tags: Any) -> None:
    modality = str(tags.get("Modality", ""))
    if modality in NO_IMAGES or "Rows" not in tags or "Columns" not in tags:
        fix = "convert it to NIfTI (for example with dcmqi's segimage2itkimage)"
        raise DataError(
            path,
            f"is a DICOM object of kind {modality or 'unknown'}, not an image",
            fix if modality == "SEG" else "leave it out",
        )
    frames, described = frames_of(tags), len(tags.get("PerFrameFunctionalGroupsSequence") or [])
    if frames != 1 and frames != described:
        raise DataError(
            path,
            f"is a multi-frame file that says of {described} of its {frames} frames where they lie",
            "save each frame as its own file, or convert it to NIfTI",
        )
    check_size(path, (frames, int(tags.Rows), int(tags.Columns))[frames == 1 :])
    kind = str(tags.get("PhotometricInterpretation", ""))
    if kind not in (*GREYS, *COLOURS):
        raise DataError(path, f"has the colours {kind or 'unknown'}", "export it as MONOCHROME2")


def _depth(tags: Any) -> np.dtype[Any]:
    """Type of the stored values."""
    bits = int(tags.get("BitsAllocated", 16))
    kind = "i" if int(tags.get("PixelRepresentation", 0) or 0) else "u"
    return np.dtype(f"{kind}{max(1, bits // 8)}")


def _pixel_spacing(path: Path, tags: Any) -> tuple[float, float] | None:
    """Distance of rows and of columns in millimetres, where the file knows it."""
    spacing = found_in(tags, 0, "PixelMeasuresSequence", "PixelSpacing")
    if spacing is None and (spacing := tags.get("ImagerPixelSpacing")) is not None:
        warn(path, "gives the pixel spacing at the detector only, which magnifies")
    if spacing is not None:
        rows, columns = (float(v) for v in spacing)
        return rows, columns
    regions = tags.get("SequenceOfUltrasoundRegions") or []
    if len(regions) == 1 and regions[0].get("PhysicalUnitsXDirection") == 3:  # centimetres
        region = regions[0]
        return 10 * abs(float(region.PhysicalDeltaY)), 10 * abs(float(region.PhysicalDeltaX))
    return None


def _candidates(folder: Path) -> list[Path]:
    names = (p for p in folder.iterdir() if not p.name.startswith(".") and p.name != "DICOMDIR")
    return sorted(p for p in names if p.is_file())


Files = list[tuple[Path, Any]]


def _series(folder: Path, uid: str | None) -> Files:
    """The files of the one series in a folder, each with its tags."""
    groups: dict[str, Files] = {}
    left_out: Counter[str] = Counter()
    for path in _candidates(folder):
        if not is_dicom(path):
            if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
                raise DataError(path, "is not DICOM (it has no DICM mark)", "export it again")
            continue
        tags = read_tags(path)
        modality = str(tags.get("Modality", ""))
        if modality in NO_IMAGES or "Rows" not in tags:
            if not modality or "SOPClassUID" not in tags:
                raise DataError(path, "does not say what it is (no Modality)", "export it again")
            left_out[modality] += 1
            continue
        groups.setdefault(str(tags.get("SeriesInstanceUID", "")), []).append((path, tags))
    if left_out:
        found = ", ".join(f"{n} {kind}" for kind, n in sorted(left_out.items()))
        warn(folder, f"DICOM objects that are no images were left out ({found})")
    if uid is not None:
        groups = {k: v for k, v in groups.items() if k == uid}
    if not groups:
        wanted = f" of series {uid}" if uid else ""
        raise DataError(folder, f"holds no DICOM image{wanted}", "check the folder")
    if len(groups) > 1:
        listed = ", ".join(f"{k} ({len(v)} slices)" for k, v in sorted(groups.items()))
        raise DataError(
            folder,
            f"holds {len(groups)} series: {listed}",
            "put each into its own folder, or name one (read_image(folder, series=UID))",
        )
    files = next(iter(groups.values()))
    for path, tags in files:
        _check_image(path, tags)
    return files
