"""The planes of a DICOM image: where each slice or frame says that it lies.

A classic file is one plane, an enhanced (multi-frame) one as many as it has
frames. Planes become a volume from their positions alone, never from their
numbers, names, thickness or ``SpacingBetweenSlices``, and are refused when
they are no regular stack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from finemask.errors import DataError
from finemask.io.notices import warn

REGULARITY = 0.01
"""Largest departure of a slice distance from the median, as a share of it."""

GREYS = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "PALETTE COLOR")


@dataclass(frozen=True, eq=False)
class Plane:
    """One slice of a series, or one frame of a file.

    Args:
        path: Its file.
        frame: Its number within the file, from 0.
        label: How a message names it.
        size: Rows and columns.
        channels: Values a pixel.
        spacing: Distance of rows and of columns in mm; empty when unknown.
        cosines: Unit vectors along a row and along a column, LPS; empty when unknown.
        position: Centre of its first pixel, LPS mm; empty when unknown.
        thickness: ``SliceThickness`` in mm, which places nothing; 0 when unknown.
        sop: Class and instance UID of its file, for references to it.
    """

    path: Path
    frame: int
    label: str
    size: tuple[int, int]
    channels: int
    spacing: tuple[float, ...]
    cosines: tuple[float, ...]
    position: tuple[float, ...]
    thickness: float
    sop: tuple[str, str]

    @property
    def is_placed(self) -> bool:
        """Whether it says where it lies."""
        return (len(self.spacing), len(self.cosines), len(self.position)) == (2, 6, 3)

    @property
    def grid(self) -> tuple[Any, ...]:
        """What all planes of a volume share, to the precision that headers keep."""
        cosines = tuple(round(v, 3) + 0.0 for v in self.cosines)
        return (self.size, self.channels, tuple(float(f"{v:.4g}") for v in self.spacing), cosines)

    @property
    def axes(self) -> tuple[Float[ndarray, " 3"], Float[ndarray, " 3"]]:
        """Unit vectors along a row (growing column) and along a column, LPS."""
        rows, columns = np.array(self.cosines[:3]), np.array(self.cosines[3:])
        return rows / np.linalg.norm(rows), columns / np.linalg.norm(columns)

    @property
    def place(self) -> Float[ndarray, " 3"]:
        return np.array(self.position)


def frames_of(tags: Any) -> int:
    """Number of frames of a file."""
    return int(tags.get("NumberOfFrames", 1) or 1)


def channels_of(tags: Any) -> int:
    """Values a pixel once colours are decoded."""
    return 1 if str(tags.PhotometricInterpretation) in GREYS else 3


def planes_of(path: Path, tags: Any) -> list[Plane]:
    """The planes of one file, in the order of its frames."""
    frames = frames_of(tags)
    number = tags.get("InstanceNumber")
    name = path.name if number is None else f"{number} ({path.name})"
    return [
        Plane(
            path=path,
            frame=index,
            label=name if frames == 1 else f"{index + 1} of {path.name}",
            size=(int(tags.Rows), int(tags.Columns)),
            channels=channels_of(tags),
            spacing=_numbers(found_in(tags, index, "PixelMeasuresSequence", "PixelSpacing")),
            cosines=_numbers(
                found_in(tags, index, "PlaneOrientationSequence", "ImageOrientationPatient")
            ),
            position=_numbers(
                found_in(tags, index, "PlanePositionSequence", "ImagePositionPatient")
            ),
            thickness=float(
                found_in(tags, index, "PixelMeasuresSequence", "SliceThickness") or 0
            ),
            sop=(str(tags.get("SOPClassUID", "")), str(tags.get("SOPInstanceUID", ""))),
        )
        for index in range(frames)
    ]  # fmt: skip


def found_in(tags: Any, frame: int, group: str, name: str) -> Any:
    """An attribute of one frame: its own, else that of all frames, else that of the file."""
    own = tags.get("PerFrameFunctionalGroupsSequence") or []
    shared = tags.get("SharedFunctionalGroupsSequence") or []
    for items in (own[frame : frame + 1], shared[:1]):
        sequence = items[0].get(group) if items else None
        if sequence and sequence[0].get(name) is not None:
            return sequence[0].get(name)
    return tags.get(name)


def _numbers(values: Any) -> tuple[float, ...]:
    return () if values is None else tuple(float(v) for v in values)


def listed(planes: Sequence[Plane]) -> str:
    """Planes as a message names them, not too many."""
    text = ", ".join(plane.label for plane in planes[:8])
    return text + (f" and {len(planes) - 8} more" if len(planes) > 8 else "")


def in_order(subject: Path, planes: Sequence[Plane]) -> list[Plane]:
    """Planes along their normal, all on one matrix and orientation.

    Raises:
        DataError: Naming the planes that differ from the rest.
    """
    lacking = [plane for plane in planes if not plane.is_placed]
    if lacking:
        raise DataError(
            subject,
            f"has slices without position, orientation or spacing: {listed(lacking)}",
            "give single files for 2-D images, or export the series again",
        )
    common = Counter(plane.grid for plane in planes).most_common(1)[0][0]
    odd = [plane for plane in planes if plane.grid != common]
    if odd:
        raise DataError(
            subject,
            f"mixes orientations, matrices or pixel spacings in one series; unlike the rest are "
            f"slices {listed(odd)}",
            "take them out (localisers, other acquisitions)",
        )
    rows, columns = planes[0].axes
    if not abs(rows @ columns) <= 1e-3:  # NaN too
        raise DataError(subject, "its rows and columns are not at right angles", "export it again")
    normal = np.cross(rows, columns)
    return sorted(planes, key=lambda plane: float(plane.place @ normal))


def volume_affine(subject: Path, planes: Sequence[Plane]) -> Float[ndarray, " 4 4"]:
    """LPS matrix of ``(column, row, plane)`` for planes in order.

    Raises:
        DataError: On planes that are missing, doubled, unevenly spaced or tilted.
    """
    rows, columns = planes[0].axes
    between_rows, between_columns = planes[0].spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = rows * between_columns, columns * between_rows
    affine[:3, 2] = _step(subject, planes, np.cross(rows, columns))
    affine[:3, 3] = planes[0].position
    return affine


def _step(
    subject: Path, planes: Sequence[Plane], normal: Float[ndarray, " 3"]
) -> Float[ndarray, " 3"]:
    """World vector from one plane to the next."""
    if len(planes) == 1:
        thickness = planes[0].thickness
        warn(subject, f"holds a single slice; its thickness of {thickness or 1:g} mm was used")
        return normal * (thickness or 1.0)
    places = np.array([plane.position for plane in planes])
    gaps = np.diff((places - places[0]) @ normal)
    median = float(np.median(gaps))
    doubled = [
        upper
        for upper, gap in zip(planes[1:], gaps, strict=True)
        if gap < max(REGULARITY * median, 1e-4)
    ]
    if doubled:
        raise DataError(
            subject,
            f"has two slices at one place, the second being slice {listed(doubled)}",
            "keep one acquisition, phase, echo or copy",
        )
    wrong = np.flatnonzero(np.abs(gaps - median) > REGULARITY * median)
    if len(wrong):
        _refuse_gaps(subject, planes, gaps, wrong)
    step = (places[-1] - places[0]) / (len(planes) - 1)
    sideways = np.linalg.norm(step - normal * (step @ normal))
    if not sideways <= REGULARITY * median:  # NaN too
        angle = np.degrees(np.arctan2(sideways, median))
        raise DataError(
            subject,
            f"is tilted: each slice is {sideways:.3g} mm beside the one below ({angle:.1f} degrees "
            f"of gantry tilt, slices {planes[0].label} to {planes[-1].label})",
            "resample it to an upright volume (for example with dcm2niix)",
        )
    return step


def _refuse_gaps(
    subject: Path, planes: Sequence[Plane], gaps: Float[ndarray, " n"], wrong: ndarray
) -> None:
    median = float(np.median(gaps))
    between = "; ".join(
        f"{planes[i].label} and {planes[i + 1].label} ({gaps[i]:.4g} mm)" for i in wrong[:5]
    )
    steps = gaps[wrong] / median
    whole = (np.abs(steps - np.round(steps)) < 0.05) & (steps > 1.5)
    what = "lacks slices" if whole.all() else "has unevenly spaced slices"
    raise DataError(
        subject,
        f"{what}: most are {median:.4g} mm apart, but not slices {between}"
        + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""),
        "export the whole series, or resample it to even slices",
    )
