"""DICOM: a folder with one series is a volume, a single file a picture.

A volume is put together from where its slices say they are, never from their
numbers, names or thickness, and refused when that is not a regular stack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from finemask.errors import DataError
from finemask.io.dicom_pixels import GREYS, quiet, read_values
from finemask.io.notices import warn
from finemask.io.raster import Header, Raster, check_size, file_geometry, flip_lps

FORMAT = "DICOM"
REGULARITY = 0.01
"""Largest departure of a slice distance from the median, as a share of it."""

NO_IMAGES = {"SEG", "RTSTRUCT", "RTDOSE", "RTPLAN", "SR", "PR", "KO", "REG", "DOC", "FID", "ANN"}
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")


def is_dicom(path: Path) -> bool:
    """Whether a file has DICOM's mark behind its preamble."""
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def is_series(folder: Path) -> bool:
    """Whether a folder directly holds cross-sectional DICOM slices."""
    for path in _candidates(folder):
        if is_dicom(path):
            return "ImagePositionPatient" in _tags(path)
    return False


def read_header(path: Path, series: str | None = None) -> Header:
    """Geometry and depth of a file, or of the series in a folder."""
    if path.is_dir():
        return _volume_header(path, _series(path, series))
    return _picture_header(path, _image_tags(path))


def read(path: Path, series: str | None = None) -> Raster:
    """Rescaled values of a file, or of the series in a folder, slices in spatial order."""
    if not path.is_dir():
        tags = _image_tags(path)
        header = _picture_header(path, tags)
        return Raster(header, read_values(path))
    slices = _series(path, series)
    header = _volume_header(path, slices)
    array = np.empty((header.channels, *header.shape), np.float32)
    for index, (file, _) in enumerate(slices):
        values = read_values(file)
        if values.shape != array[:, index].shape:
            raise DataError(file, f"has shape {values.shape}, its series {array[:, index].shape}",
                            "export the series again")  # fmt: skip
        array[:, index] = values
    return Raster(header, array)


def _tags(path: Path) -> Any:
    import pydicom
    from pydicom.errors import InvalidDicomError

    try:
        with quiet():
            return pydicom.dcmread(path, stop_before_pixels=True)
    except InvalidDicomError as error:
        raise DataError(path, "is not DICOM (it has no DICM mark)", "export it again") from error


def _image_tags(path: Path) -> Any:
    """Tags of an image of one frame; everything else is refused by what it is."""
    tags = _tags(path)
    modality = str(tags.get("Modality", ""))
    if modality in NO_IMAGES or "Rows" not in tags or "Columns" not in tags:
        fix = "convert it to NIfTI (for example with dcmqi's segimage2itkimage)"
        raise DataError(
            path,
            f"is a DICOM object of kind {modality or 'unknown'}, not an image",
            fix if modality == "SEG" else "leave it out",
        )
    frames = int(tags.get("NumberOfFrames", 1) or 1)
    if frames != 1:
        raise DataError(
            path,
            f"is a multi-frame DICOM file with {frames} frames, needs one frame a file",
            "convert it to NIfTI (for example with dcm2niix)",
        )
    kind = str(tags.get("PhotometricInterpretation", ""))
    if kind not in (*GREYS, *COLOURS):
        raise DataError(path, f"has the colours {kind or 'unknown'}", "export it as MONOCHROME2")
    return tags


def _depth(tags: Any) -> np.dtype[Any]:
    """Type of the stored values."""
    bits = int(tags.get("BitsAllocated", 16))
    kind = "i" if int(tags.get("PixelRepresentation", 0) or 0) else "u"
    return np.dtype(f"{kind}{max(1, bits // 8)}")


def _channels(tags: Any) -> int:
    return 1 if str(tags.PhotometricInterpretation) in GREYS else 3


def _picture_header(path: Path, tags: Any) -> Header:
    size = (int(tags.Rows), int(tags.Columns))
    check_size(path, size, _channels(tags))
    spacing = _pixel_spacing(path, tags)
    affine = np.eye(3)
    if spacing is not None:
        affine[0, 0], affine[1, 1] = spacing[::-1]
    geometry = file_geometry(path, size[::-1], affine, "px" if spacing is None else "mm")
    return Header(path, FORMAT, geometry, _channels(tags), _depth(tags), _is_lossy(tags))


def _is_lossy(tags: Any) -> bool:
    return str(tags.get("LossyImageCompression", "00")) == "01"


def _pixel_spacing(path: Path, tags: Any) -> tuple[float, float] | None:
    """Distance of rows and of columns in millimetres, where the file knows it."""
    for name in ("PixelSpacing", "ImagerPixelSpacing"):
        if tags.get(name) is not None:
            if name == "ImagerPixelSpacing":
                warn(path, "gives the pixel spacing at the detector only, which magnifies")
            rows, columns = (float(v) for v in tags.get(name))
            return rows, columns
    regions = tags.get("SequenceOfUltrasoundRegions") or []
    if len(regions) == 1 and regions[0].get("PhysicalUnitsXDirection") == 3:  # centimetres
        region = regions[0]
        return 10 * abs(float(region.PhysicalDeltaY)), 10 * abs(float(region.PhysicalDeltaX))
    return None


def _candidates(folder: Path) -> list[Path]:
    names = (p for p in folder.iterdir() if not p.name.startswith(".") and p.name != "DICOMDIR")
    return sorted(p for p in names if p.is_file())


Slices = list[tuple[Path, Any]]


def _series(folder: Path, uid: str | None) -> Slices:
    """The slices of the one series in a folder, sorted along their normal."""
    groups: dict[str, Slices] = {}
    left_out: Counter[str] = Counter()
    for path in _candidates(folder):
        if not is_dicom(path):
            if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
                raise DataError(path, "is not DICOM (it has no DICM mark)", "export it again")
            continue
        tags = _tags(path)
        modality = str(tags.get("Modality", "unknown"))
        if modality in NO_IMAGES or "Rows" not in tags:
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
    return _sorted_slices(folder, next(iter(groups.values())))


def _label(item: tuple[Path, Any]) -> str:
    """How a message names a slice: its number, and its file where it has none."""
    path, tags = item
    number = tags.get("InstanceNumber")
    return path.name if number is None else f"{number} ({path.name})"


def _listed(items: Sequence[tuple[Path, Any]]) -> str:
    text = ", ".join(_label(item) for item in items[:8])
    return text + (f" and {len(items) - 8} more" if len(items) > 8 else "")


def _sorted_slices(folder: Path, slices: Slices) -> Slices:
    """Slices in spatial order, all on one matrix and orientation.

    Raises:
        DataError: Naming the slices that differ from the rest.
    """
    for path, _ in slices:
        _image_tags(path)
    lacking = [s for s in slices if not _is_placed(s[1])]
    if lacking:
        raise DataError(
            folder, f"has slices without position, orientation or spacing: {_listed(lacking)}",
            "give single files for 2-D images, or export the series again",
        )  # fmt: skip
    grids = [_grid_key(tags) for _, tags in slices]
    common = Counter(grids).most_common(1)[0][0]
    odd = [s for s, key in zip(slices, grids, strict=True) if key != common]
    if odd:
        raise DataError(
            folder,
            f"mixes orientations, matrices or pixel spacings in one series; unlike the rest are "
            f"slices {_listed(odd)}",
            "take them out (localisers, other acquisitions)",
        )
    rows, columns = _cosines(slices[0][1])
    if abs(rows @ columns) > 1e-3:
        raise DataError(folder, "its rows and columns are not at right angles", "export it again")
    normal = np.cross(rows, columns)
    return sorted(slices, key=lambda s: float(_position(s[1]) @ normal))


def _is_placed(tags: Any) -> bool:
    lengths = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
    return all(tags.get(k) is not None and len(tags.get(k)) == n for k, n in lengths.items())


def _grid_key(tags: Any) -> tuple[Any, ...]:
    cosines = tuple(round(float(v), 3) + 0.0 for v in tags.ImageOrientationPatient)
    spacing = tuple(float(f"{float(v):.4g}") for v in tags.PixelSpacing)
    return (int(tags.Rows), int(tags.Columns), _channels(tags), spacing, cosines)


def _cosines(tags: Any) -> tuple[Float[ndarray, " 3"], Float[ndarray, " 3"]]:
    """Unit vectors along a row (growing column) and along a column, LPS."""
    values = np.array([float(v) for v in tags.ImageOrientationPatient])
    rows, columns = values[:3], values[3:]
    return rows / np.linalg.norm(rows), columns / np.linalg.norm(columns)


def _position(tags: Any) -> Float[ndarray, " 3"]:
    return np.array([float(v) for v in tags.ImagePositionPatient])


def _volume_header(folder: Path, slices: Slices) -> Header:
    tags = slices[0][1]
    rows, columns = _cosines(tags)
    between_rows, between_columns = (float(v) for v in tags.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = rows * between_columns, columns * between_rows
    affine[:3, 2] = _slice_step(folder, slices, np.cross(rows, columns))
    affine[:3, 3] = _position(tags)
    sizes = (int(tags.Columns), int(tags.Rows), len(slices))
    check_size(folder, sizes, _channels(tags))
    geometry = file_geometry(folder, sizes, flip_lps(affine))
    lossy = any(_is_lossy(t) for _, t in slices)
    return Header(folder, FORMAT, geometry, _channels(tags), _depth(tags), lossy)


def _slice_step(folder: Path, slices: Slices, normal: Float[ndarray, " 3"]) -> Float[ndarray, " 3"]:
    """World vector from one slice to the next.

    Raises:
        DataError: On slices that are missing, doubled, unevenly spaced or tilted.
    """
    if len(slices) == 1:
        thickness = float(slices[0][1].get("SliceThickness", 0) or 0)
        warn(folder, f"holds a single slice; its thickness of {thickness or 1:g} mm was used")
        return normal * (thickness or 1.0)
    places = np.array([_position(tags) for _, tags in slices])
    heights = (places - places[0]) @ normal
    gaps = np.diff(heights)
    median = float(np.median(gaps))
    doubled = [slices[i + 1] for i in np.flatnonzero(gaps < max(REGULARITY * median, 1e-4))]
    if doubled:
        raise DataError(
            folder,
            f"has two slices at one place, the second being slice {_listed(doubled)}",
            "keep one acquisition, phase or copy",
        )
    wrong = np.flatnonzero(np.abs(gaps - median) > REGULARITY * median)
    if len(wrong):
        between = "; ".join(
            f"{_label(slices[i])} and {_label(slices[i + 1])} ({gaps[i]:.4g} mm)" for i in wrong[:5]
        )
        steps = gaps[wrong] / median
        whole = (np.abs(steps - np.round(steps)) < 0.05) & (steps > 1.5)
        what = "lacks slices" if whole.all() else "has unevenly spaced slices"
        raise DataError(
            folder,
            f"{what}: most are {median:.4g} mm apart, but not slices {between}"
            + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
            "export the whole series, or resample it to even slices",
        )
    step = (places[-1] - places[0]) / (len(slices) - 1)
    sideways = np.linalg.norm(step - normal * (step @ normal))
    if sideways > REGULARITY * median:
        angle = np.degrees(np.arctan2(sideways, median))
        raise DataError(
            folder,
            f"is tilted: each slice is {sideways:.3g} mm beside the one below ({angle:.1f} degrees "
            f"of gantry tilt, slices {_label(slices[0])} to {_label(slices[-1])})",
            "resample it to an upright volume (for example with dcm2niix)",
        )
    return step
