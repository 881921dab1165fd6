"""LIDC-IDRI's readings: outlines in XML, and which outlines of several readers are one nodule.

A file has one ``readingSession`` a radiologist (mostly four), in it an ``unblindedReadNodule``
for each nodule that this one saw. From 3 mm on it has ``characteristics`` and a ``roi`` a slice
with an ``edgeMap`` a pixel of its outline; smaller ones, and ``nonNodule`` marks, are a point.
An outline lies just outside the nodule: its own pixels do not belong to it. A ``roi`` whose
``inclusion`` is ``FALSE`` outlines what is not nodule within another one of that slice.

Readers are anonymous, and nodules are not numbered across readers. Readings are one nodule
when they lie within a slice distance of each other; where that would give one reader two
nodules of a cluster, the distance is reduced until it does not (as pylidc does), and what even
touches is one nodule that this reader drew in two parts.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy import ndimage
from scipy.spatial import cKDTree

from finemask.errors import DataError
from finemask.geometry import Geometry

READERS = 4
"""Radiologists who were asked about each scan."""


@dataclass(frozen=True)
class Outline:
    """One closed outline on one slice.

    Args:
        z_mm: Position of the slice.
        uid: SOPInstanceUID of the slice.
        inclusion: Whether it encloses nodule, or a hole in it.
        points: Row and column of the pixels of the outline, in order.
    """

    z_mm: float
    uid: str
    inclusion: bool
    points: Int[ndarray, " k 2"]


@dataclass(frozen=True)
class Reading:
    """A nodule of at least 3 mm, as one reader outlined it.

    Args:
        reader: Number of the reading session in its file, from 0.
        name: The reader's own number of it.
        outlines: On its slices.
    """

    reader: int
    name: str
    outlines: tuple[Outline, ...]


@dataclass(frozen=True)
class Readings:
    """What a file says about one CT series.

    Args:
        series: SeriesInstanceUID.
        readers: Reading sessions in it.
        nodules: Of all readers.
    """

    series: str
    readers: int
    nodules: tuple[Reading, ...]


def read_readings(path: Path) -> Readings | None:
    """Read one file; ``None`` for the chest radiographs' files, which are of another kind.

    Raises:
        DataError: When it is no such file, or is damaged.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, OSError) as error:
        raise DataError(path, f"is no sound XML ({error})", "download it again") from error
    if _kind(root.tag) != "LidcReadMessage":
        if _kind(root.tag) == "IdriReadMessage":
            return None
        raise DataError(
            path, f"is XML of the kind {_kind(root.tag)}, needs LidcReadMessage", "remove it"
        )
    names = {_kind(child.tag): child for child in root.iter()}
    series = (names["SeriesInstanceUid"].text or "").strip() if "SeriesInstanceUid" in names else ""
    sessions = [child for child in root if _kind(child.tag) == "readingSession"]
    if not series:
        raise DataError(path, "names no SeriesInstanceUid", "download it again")
    nodules = [
        reading
        for number, session in enumerate(sessions)
        for reading in _nodules(path, number, session)
    ]
    return Readings(series, len(sessions), tuple(nodules))


def _kind(tag: str) -> str:
    return tag.rpartition("}")[2]


def _children(node: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    return [child for child in node if _kind(child.tag) == kind]


def _text(node: ElementTree.Element, kind: str) -> str:
    found = _children(node, kind)
    return (found[0].text or "").strip() if found else ""


def _nodules(path: Path, number: int, session: ElementTree.Element) -> list[Reading]:
    """Nodules of at least 3 mm, which alone are outlined."""
    found = []
    for node in _children(session, "unblindedReadNodule"):
        outlines = [_outline(path, roi) for roi in _children(node, "roi")]
        if any(len(outline.points) > 1 for outline in outlines):
            found.append(Reading(number, _text(node, "noduleID"), tuple(outlines)))
    return found


def _outline(path: Path, roi: ElementTree.Element) -> Outline:
    try:
        points = [
            (int(_text(edge, "yCoord")), int(_text(edge, "xCoord")))
            for edge in _children(roi, "edgeMap")
        ]
        z_mm = float(_text(roi, "imageZposition"))
    except ValueError as error:
        what = f"has an outline that is no numbers ({error})"
        raise DataError(path, what, "download it again") from error
    inclusion = _text(roi, "inclusion").upper() != "FALSE"
    return Outline(z_mm, _text(roi, "imageSOP_UID"), inclusion, np.array(points).reshape(-1, 2))


def enclosed(points: Int[ndarray, " k 2"], shape: Sequence[int]) -> Bool[ndarray, " h w"]:
    """Pixels strictly inside a closed outline; those of the outline itself lie outside.

    Args:
        points: Row and column of its pixels in order; gaps are bridged by straight lines.
        shape: Of the slice.

    Example:
        >>> square = [(1, 1), (1, 2), (1, 3), (2, 3), (3, 3), (3, 2), (3, 1), (2, 1)]
        >>> np.argwhere(enclosed(np.array(square), (5, 5))).tolist()
        [[2, 2]]
    """
    edge = np.zeros(tuple(shape), bool)
    for first, last in zip(points, np.roll(points, -1, axis=0), strict=True):
        steps = int(max(np.abs(last - first).max(), 1))
        line = np.rint(np.linspace(first, last, steps + 1)).astype(int)
        line = line[((line >= 0) & (line < np.array(shape))).all(axis=1)]
        edge[tuple(line.T)] = True
    # Outlines step diagonally, which a background that steps along axes alone cannot cross.
    return ndimage.binary_fill_holes(edge) & ~edge


@dataclass(frozen=True, eq=False)
class Region:
    """Voxels of one reading, or of what several readers agree on.

    Args:
        reader: Who drew it.
        start: First voxel of its box: slice, row, column.
        mask: Within the box.
    """

    reader: int
    start: tuple[int, int, int]
    mask: Bool[ndarray, " s h w"]

    def into(self, window: Bool[ndarray, " s h w"], start: Sequence[int]) -> None:
        """Mark the region in a window of the scan; what is beyond it is lost."""
        offset = [a - b for a, b in zip(self.start, start, strict=True)]
        target, source = [], []
        for shift, length, size in zip(offset, self.mask.shape, window.shape, strict=True):
            low, high = max(shift, 0), min(shift + length, size)
            target.append(slice(low, max(high, low)))
            source.append(slice(low - shift, max(high, low) - shift))
        window[tuple(target)] |= self.mask[tuple(source)]


def region_of(reading: Reading, geometry: Geometry, slice_of: Mapping[str, int]) -> Region | None:
    """Voxels that a reading encloses; ``None`` when its outlines enclose nothing.

    Args:
        reading: Outlines.
        geometry: Grid of the scan: slice, row, column.
        slice_of: Slice of each SOPInstanceUID; others are looked up by their position.

    Raises:
        DataError: When an outline is on no slice of the scan.
    """
    masks = dict[int, Bool[ndarray, " h w"]]()
    for wanted in (True, False):  # holes are cut when everything is there
        for outline in reading.outlines:
            if outline.inclusion is not wanted or not len(outline.points):
                continue
            number = slice_of.get(outline.uid, -1)
            number = slice_at(geometry, outline.z_mm) if number < 0 else number
            inside = enclosed(outline.points, geometry.shape[1:])
            if wanted:
                masks[number] = masks.get(number, np.zeros(geometry.shape[1:], bool)) | inside
            elif number in masks:
                masks[number] &= ~inside
    masks = {number: mask for number, mask in masks.items() if mask.any()}
    if not masks:
        return None
    held = np.any(list(masks.values()), axis=0)
    rows, columns = (np.flatnonzero(held.any(axis=a)) for a in (1, 0))
    first, last = min(masks), max(masks)
    box = np.zeros((last - first + 1, rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1), bool)
    for number, mask in masks.items():
        box[number - first] = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return Region(reading.reader, (first, int(rows[0]), int(columns[0])), box)


def slice_at(geometry: Geometry, z_mm: float) -> int:
    """The slice at a height, the patient lying along the slices' normal.

    Raises:
        DataError: When none is there.
    """
    step = geometry.matrix[2, 0]
    number = (z_mm - geometry.origin[2]) / step if step else np.nan
    if not np.isfinite(number) or not -0.5 <= number < geometry.shape[0] - 0.5:
        raise DataError(
            "outline", f"at {z_mm:g} mm is on no slice of its scan", "download the scan again"
        )
    return round(float(number))


def clustered(regions: Sequence[Region], spacing_mm: Sequence[float]) -> list[list[Region]]:
    """Which regions are one nodule, each cluster with at most one region a reader.

    Args:
        regions: Of all readers of a scan.
        spacing_mm: Voxel size along slice, row and column.

    Returns:
        Clusters in the order of their first voxels; regions in the order of the readers.
    """
    places = [_places(region, spacing_mm) for region in regions]
    count = len(regions)
    away = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            away[i, j] = away[j, i] = _distance(places[i], places[j])
    found = list[list[int]]()
    open_groups = [(list(range(count)), float(spacing_mm[0]))]
    while open_groups:
        members, reach = open_groups.pop()
        for group in _components(members, away, reach):
            readers = [regions[i].reader for i in group]
            if len(set(readers)) == len(readers) or reach == 0:
                found.append(group)
            else:
                closer = reach / 2 if reach > 0.1 else 0.0
                open_groups.append((group, closer))
    clusters = [_merged([regions[i] for i in group]) for group in found]
    return sorted(clusters, key=lambda cluster: cluster[0].start)


def _places(region: Region, spacing_mm: Sequence[float]) -> Float[ndarray, " k 3"]:
    return (np.argwhere(region.mask) + region.start) * np.array(spacing_mm)


def _distance(first: Float[ndarray, " k 3"], second: Float[ndarray, " m 3"]) -> float:
    """Least distance of two sets of voxel centres; 0 when they share one."""
    gap = np.maximum(first.min(0) - second.max(0), second.min(0) - first.max(0))
    if (gap > 20).any():
        return float(gap.max())  # far apart: the exact distance decides nothing
    return float(cKDTree(first).query(second)[0].min())


def _components(
    members: Sequence[int], away: Float[ndarray, " n n"], reach: float
) -> list[list[int]]:
    """Members that are connected by steps of at most ``reach``."""
    left, groups = set(members), []
    while left:
        group, border = set[int](), {min(left)}
        while border:
            group |= border
            left -= border
            border = {j for j in left if any(away[i, j] <= reach for i in border)}
        groups.append(sorted(group))
    return groups


def _merged(regions: Sequence[Region]) -> list[Region]:
    """One region a reader: parts that one reader drew of a nodule are put together."""
    merged = []
    for reader in sorted({region.reader for region in regions}):
        parts = [region for region in regions if region.reader == reader]
        start, shape = hull(parts)
        mask = np.zeros(shape, bool)
        for part in parts:
            part.into(mask, start)
        merged.append(Region(reader, start, mask))
    return merged


def hull(regions: Sequence[Region]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """First voxel and size of the box that holds all regions."""
    low = np.min([region.start for region in regions], axis=0)
    high = np.max([np.add(region.start, region.mask.shape) for region in regions], axis=0)
    size = high - low
    return (int(low[0]), int(low[1]), int(low[2])), (int(size[0]), int(size[1]), int(size[2]))
