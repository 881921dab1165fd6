"""DICOM SEG read as a mask: segments of binary files as classes, fractional ones as shares.

Planes that a file leaves out are background, as the standard has it: between
others they are filled in here; those beyond its first and last plane are known
only to the image, on whose grid `finemask.io.cases.on_grid` brings the mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from finemask.errors import DataError
from finemask.geometry import Geometry, Unit
from finemask.io.dicom_pixels import decoded, quiet
from finemask.io.dicom_planes import REGULARITY, Plane, found_in, frames_of, in_order, planes_of
from finemask.io.raster import Header, Raster, check_size, file_geometry, flip_lps

FORMAT = "DICOM SEG"


@dataclass(frozen=True, eq=False)
class Frames:
    """Where each frame of a segmentation belongs.

    Args:
        header: Grid of the whole mask.
        indices: Plane of each frame.
        segments: Segment number of each frame.
        numbers: Segment numbers in the order of their description.
        largest: Stored value that means 1, in fractional files; 0 in binary ones.
    """

    header: Header
    indices: tuple[int, ...]
    segments: tuple[int, ...]
    numbers: tuple[int, ...]
    largest: int


def read_header(path: Path) -> Header:
    """Grid, segments and kind of a segmentation, nothing decoded."""
    return _frames(path, _tags(path)).header


def read(path: Path) -> Raster:
    """``(1, *S)`` segment numbers of a binary file, ``(F, *S)`` shares of a fractional one.

    Raises:
        DataError: When segments of a binary file overlap, or the file is not sound.
    """
    import pydicom

    frames = _frames(path, _tags(path))
    header = frames.header
    with quiet():
        dataset = pydicom.dcmread(path)
    shape = (header.channels, *((1,) * (3 - header.geometry.ndim)), *header.shape)
    array = np.zeros(shape, header.dtype)
    for plane, segment, frame in zip(
        frames.indices, frames.segments, decoded(path, dataset), strict=True
    ):
        if frames.largest:
            if frame.max(initial=0) > frames.largest:
                raise DataError(
                    path, f"has shares above its maximum of {frames.largest}", "export it again"
                )
            share = frame.astype(np.float32) / np.float32(frames.largest)
            array[frames.numbers.index(segment), plane] = share
            continue
        labels = array[0, plane]
        inside = frame != 0
        if taken := sorted(set(np.unique(labels[inside]).tolist()) - {0, segment}):
            raise DataError(
                path,
                f"has segments that overlap ({taken[0]} and {segment}), which no map of labels "
                "holds",
                "export each segment as its own file",
            )
        labels[inside] = segment
    return Raster(header, array.reshape(header.channels, *header.shape))


def segment_names(path: Path) -> dict[int, str]:
    """Segment numbers with their labels, in the order of their description."""
    return {
        int(s.SegmentNumber): str(s.get("SegmentLabel", "")) for s in _tags(path).SegmentSequence
    }


def _tags(path: Path) -> Any:
    from finemask.io.dicom import read_tags

    tags = read_tags(path)
    frames, described = frames_of(tags), len(tags.get("PerFrameFunctionalGroupsSequence") or [])
    if frames != described:
        raise DataError(path, f"describes {described} of its {frames} frames", "export it again")
    check_size(path, (frames, int(tags.Rows), int(tags.Columns)))
    return tags


def _frames(path: Path, tags: Any) -> Frames:
    kind = str(tags.get("SegmentationType", ""))
    if kind not in ("BINARY", "FRACTIONAL"):
        raise DataError(
            path,
            f"is a segmentation of the kind {kind or 'unknown'}",
            "convert it to NIfTI (for example with dcmqi's segimage2itkimage)",
        )
    numbers = tuple(int(item.SegmentNumber) for item in tags.SegmentSequence)
    if len(set(numbers)) != len(numbers) or min(numbers) < 1 or max(numbers) > 65535:
        raise DataError(path, f"numbers its segments {numbers[:8]}", "export it again")
    segments = tuple(
        int(
            found_in(tags, i, "SegmentIdentificationSequence", "ReferencedSegmentNumber")
            or numbers[0]
        )
        for i in range(frames_of(tags))
    )
    if strange := set(segments) - set(numbers):
        raise DataError(path, f"has frames of an unknown segment {min(strange)}", "export it again")
    largest = int(tags.get("MaximumFractionalValue", 255)) if kind == "FRACTIONAL" else 0
    planes = planes_of(path, tags)
    channels = len(numbers) if largest else 1
    dtype = np.dtype(np.float32 if largest else np.uint8 if max(numbers) < 256 else np.uint16)
    geometry, indices = _grid(path, planes, tags)
    check_size(path, geometry.shape, channels)
    header = Header(path, FORMAT, geometry, channels, dtype)
    return Frames(header, indices, segments, numbers, largest)


def _grid(path: Path, planes: list[Plane], tags: Any) -> tuple[Geometry, tuple[int, ...]]:
    """Grid of all frames, and the plane of each; a picture where nothing stacks them."""
    told = found_in(tags, 0, "PixelMeasuresSequence", "SpacingBetweenSlices")
    if len({plane.position for plane in planes}) == 1 and not told:
        spacing = planes[0].spacing or (1.0, 1.0)
        size = planes[0].size[::-1]
        unit: Unit = "mm" if planes[0].spacing else "px"
        affine = np.diag([*spacing[::-1], 1.0])
        return file_geometry(path, size, affine, unit), (0,) * len(planes)
    ordered = in_order(path, planes)
    rows, columns = ordered[0].axes
    normal = np.cross(rows, columns)
    heights = np.array([(plane.place - ordered[0].place) @ normal for plane in planes])
    step = _step(np.sort(heights), float(told or 1))
    indices = np.round(heights / step).astype(int)
    wrong = np.flatnonzero(np.abs(heights - indices * step) > REGULARITY * step * (1 + indices))
    if len(wrong):
        raise DataError(
            path,
            f"has unevenly spaced frames, such as {planes[wrong[0]].label}, which lies "
            f"{heights[wrong[0]]:.4g} mm above the lowest; the smallest distance is {step:.4g} mm",
            "export it again on an even grid",
        )
    between_rows, between_columns = ordered[0].spacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = rows * between_columns, columns * between_rows
    affine[:3, 2], affine[:3, 3] = _direction(ordered, normal, indices) * step, ordered[0].place
    count = int(indices.max()) + 1
    sizes = (planes[0].size[1], planes[0].size[0], count)
    check_size(path, sizes)
    return file_geometry(path, sizes, flip_lps(affine)), tuple(indices.tolist())


def _step(heights: Float[ndarray, " n"], told: float) -> float:
    """Distance of neighbouring planes: the smallest there is; a tag counts for a single one."""
    gaps = np.diff(heights)
    gaps = gaps[gaps > 1e-3]
    return float(gaps.min()) if len(gaps) else told


def _direction(
    ordered: list[Plane], normal: Float[ndarray, " 3"], indices: NDArray[Any]
) -> Float[ndarray, " 3"]:
    """World vector of one millimetre along the stack, sheared as little as its planes are."""
    way = ordered[-1].place - ordered[0].place
    height = float(way @ normal)
    return way / height if indices.max() and height else normal


def widened(array: NDArray[Any], found: Geometry, wanted: Geometry) -> NDArray[Any] | None:
    """A mask whose outer empty planes were left out, on the grid of its image.

    Args:
        array: ``(..., *S)`` values.
        found: Grid of ``S``.
        wanted: Grid of the image.

    Returns:
        The values with zeros round them, or ``None`` where ``found`` is no block of ``wanted``.
    """
    if not found.ndim == wanted.ndim == 3 or found.unit != wanted.unit:
        return None
    steps = np.linalg.inv(wanted.matrix) @ found.matrix
    if found.shape[0] == 1:  # how far the planes lie apart that were left out is the image's to say
        steps[:, 0] /= np.abs(steps[:, 0]).max()
    turn = np.round(steps).astype(int)
    if (np.abs(turn).sum(0) != 1).any() or (np.abs(turn).sum(1) != 1).any():
        return None
    ends = np.array([[0, 0, 0], np.array(found.shape) - 1])
    places = wanted.to_index(found.to_world(ends))
    corners = np.round(places[:1]).astype(int) + ends @ turn.T
    low, high = corners.min(0), corners.max(0)
    if np.abs(places - corners).max() > 1e-3 or (low < 0).any() or (high >= wanted.shape).any():
        return None
    order = np.argmax(np.abs(turn), axis=1)
    lead = array.ndim - 3
    block = np.transpose(array, (*range(lead), *(lead + order)))
    falling = np.flatnonzero(turn.sum(1) < 0)
    full = np.zeros((*array.shape[:lead], *wanted.shape), array.dtype)
    inside = [slice(a, b + 1) for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    full[..., inside[0], inside[1], inside[2]] = np.flip(block, tuple((lead + falling).tolist()))
    return full
