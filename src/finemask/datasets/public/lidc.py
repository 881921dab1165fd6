"""LIDC-IDRI: CT scans as DICOM with the outlines of up to four readers in XML.

Layout: ``LIDC-IDRI-0001/<study>/<series>/*.dcm`` with the readings as one ``.xml`` in the folder
of its series, or all of them elsewhere below the same folder (``LIDC-XML-only/``); each names
the series that it is of. Chest radiographs lie beside the scans and are left out. How outlines
become voxels, and readings nodules, is told in ``lidc_xml``. A reader who did not mark a nodule
has an empty mask of it: that is a vote, too.

Forms:

* ``original``: whole scans; four readers' masks, and what at least two of the four marked.
* ``sasrnet`` (sheet 000 section 4): a volume of 96 x 96 x 96 voxels of 1 mm round each nodule of
  at least one reader, from scans with slices of at most 2.5 mm. Its mask is what at least half of
  those marked who saw the nodule. The paper writes "1/1.2 mm": 1 mm is taken. Its split is by
  nodule, 1888/211/514, so that a patient may be in several parts.
* ``dsnet`` (sheet 001 section 8): nodules that all four readers outlined; every slice with
  something that at least two of them marked, as a picture of 64 x 64 pixels of the scan's own
  size, in Hounsfield units, round the nodule's middle. Its split is by nodule, 387/55/544.

Both papers' lists are not published; ours are drawn. ``patients`` is the leak-free one.

``read_lidc_slices`` reads the set that others cut from it and share as "LIDC-IDRI-slices":
``LIDC-IDRI-0001/nodule-0/images/slice-0.png`` and the same in ``mask-0/`` to ``mask-3/``. Each
slice was stretched to 0..255 by itself: its greys are no Hounsfield units, its pixel size is lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8
from numpy import ndarray

from finemask.datasets.dataset import Part
from finemask.datasets.public.grids import cut_window, onto
from finemask.datasets.public.layout import Raw, matching, partner
from finemask.datasets.public.lidc_xml import (
    READERS,
    Readings,
    Region,
    clustered,
    hull,
    read_readings,
    region_of,
)
from finemask.datasets.public.masks import read_foreground
from finemask.datasets.public.records import Computed, Draft, Item, Picture
from finemask.datasets.public.slices import whole_numbers
from finemask.datasets.public.splits import by_count, split_of
from finemask.datasets.split import Split
from finemask.errors import DataError, FinemaskError
from finemask.geometry import Geometry
from finemask.io import dicom, read_header
from finemask.io.formats import natural_key
from finemask.io.images import read_image
from finemask.preparation import to_grid

SASRNET_PARTS: dict[Part, int] = {"train": 1888, "val": 211, "test": 514}
DSNET_PARTS: dict[Part, int] = {"train": 387, "val": 55, "test": 544}
PATIENT_PARTS: dict[Part, int] = {"train": 70, "val": 10, "test": 20}
SASRNET_SIDE, SASRNET_SPACING_MM, THICKEST_MM = 96, 1.0, 2.5
DSNET_SIDE = 64
AIR_HU = -1024
SLICE = r"slice-(\d+)\.png"
LEAK = "it divides nodules, and those of one patient may be in several parts"
LABELS = {"nodule": 1}


@dataclass(frozen=True)
class Scan:
    """One CT series with what was read on it.

    Args:
        patient: Such as ``LIDC-IDRI-0001``.
        name: Of the scan; the patient's, numbered where there are several.
        folder: Its slices.
        geometry: Grid: slice, row, column.
        nodules: For each nodule the regions of those who saw it.
        xml: Its readings.
    """

    patient: str
    name: str
    folder: Path
    geometry: Geometry
    nodules: tuple[tuple[Region, ...], ...]
    xml: Path

    @property
    def inputs(self) -> tuple[Path, ...]:
        return (*sorted(self.folder.glob("*.dcm")), self.xml)


def read_lidc(raw: Raw) -> Draft:
    """Scans, or nodules in one of the papers' forms."""
    home = raw.home("LIDC-IDRI-*/*/*")
    scans, notes = _scans(home, raw.root)
    if raw.variant == "sasrnet":
        thin = [scan for scan in scans if scan.geometry.spacing[0] <= THICKEST_MM + 1e-3]
        if len(thin) < len(scans):
            notes.append(f"{len(scans) - len(thin)} scans with thicker slices are left out")
        items = [item for scan in thin for item in _volumes(scan)]
        return _of_nodules(items, SASRNET_PARTS, "sasrnet", notes)
    if raw.variant == "dsnet":
        items = [item for scan in scans for item in _pictures(scan)]
        return _of_nodules(items, DSNET_PARTS, "dsnet", notes)
    items = [_whole(scan) for scan in scans]
    return Draft(tuple(items), LABELS, {"patients": _by_patient(items)}, notes=tuple(notes))


def _scans(home: Raw, root: Path) -> tuple[list[Scan], list[str]]:
    """Every series with readings; what is wrong with the others is a note."""
    readings = dict[str, tuple[Readings, Path]]()
    for path in sorted(root.rglob("*.xml")):
        found = read_readings(path)
        if found is not None:
            readings[found.series] = (found, path)
    if not readings:
        raise home.lacks("any readings (.xml)", "unpack LIDC-XML-only.zip beside the patients")
    folders = sorted({path.parent for path in home.root.rglob("*.dcm")})
    scans, bad, unread = list[Scan](), list[str](), 0
    for folder in home.progress(folders, "looking through scans", len(folders)):
        slices = _slices(folder)
        series = next(iter(slices.values()), ("", 0.0))[0] if slices else ""
        if series not in readings:
            unread += 1
            continue
        try:
            scans.append(_scan(home, folder, slices, *readings[series]))
        except FinemaskError as error:
            bad.append(f"{folder.relative_to(home.root).parts[0]}: {error.what}")
    notes = [f"{unread} series without readings are left out"] if unread else []
    if bad:
        notes.append(f"{len(bad)} scans cannot be read: {'; '.join(bad[:3])}")
    if not scans:
        raise DataError(
            home.root,
            f"has {len(folders)} series and {len(readings)} readings, of which none belong "
            f"together{' (' + bad[0] + ')' if bad else ''}",
            "unpack scans and readings of the same patients",
        )
    return _numbered(scans), notes


def _slices(folder: Path) -> dict[str, tuple[str, float]]:
    """Series and height of each slice by its SOPInstanceUID; radiographs have no height."""
    found = {}
    for path in sorted(folder.glob("*.dcm")):
        tags = dicom.read_tags(path)
        if tags.get("ImagePositionPatient"):
            found[str(tags.SOPInstanceUID)] = (
                str(tags.SeriesInstanceUID),
                float(tags.ImagePositionPatient[2]),
            )
    return found


def _scan(
    home: Raw,
    folder: Path,
    slices: Mapping[str, tuple[str, float]],
    readings: Readings,
    xml: Path,
) -> Scan:
    """A scan with its nodules.

    Raises:
        DataError: When it is no regular stack of slices, or an outline lies outside.
    """
    geometry = read_header(folder).geometry
    heights = {uid: z for uid, (_, z) in slices.items()}
    step = geometry.matrix[2, 0]
    numbers = {uid: round((z - geometry.origin[2]) / step) for uid, z in heights.items()}
    found = [region_of(reading, geometry, numbers) for reading in readings.nodules]
    regions = [region for region in found if region is not None]
    nodules = clustered(regions, geometry.spacing)
    patient = folder.relative_to(home.root).parts[0]
    return Scan(patient, patient, folder, geometry, tuple(map(tuple, nodules)), xml)


def _numbered(scans: Sequence[Scan]) -> list[Scan]:
    """Tell two scans of one patient apart."""
    of_patient = dict[str, list[Scan]]()
    for scan in scans:
        of_patient.setdefault(scan.patient, []).append(scan)
    return [
        replace(scan, name=f"{scan.patient}_{k}") if len(group) > 1 else scan
        for group in of_patient.values()
        for k, scan in enumerate(group, start=1)
    ]


def _by_patient(items: Sequence[Item]) -> Split:
    parts = by_count(items, PATIENT_PARTS, by_group=True)
    return split_of(parts, "70/10/20 % of the patients, drawn")


def _of_nodules(
    items: Sequence[Item], counts: Mapping[Part, int], name: str, notes: Sequence[str]
) -> Draft:
    """A draft with a split by nodule and one by patient; a nodule is what is before ``_s``."""
    nodules = {item.name: item.name.partition("_s")[0] for item in items}
    units = [replace(item, group=nodules[item.name]) for item in items]
    parts = by_count(units, counts, by_group=True)
    sizes = "/".join(map(str, counts.values()))
    note = f"{sizes} nodules at random, as the paper; its own list is not published"
    splits = {"patients": _by_patient(items), name: split_of(parts, note, LEAK)}
    return Draft(tuple(items), LABELS, splits, notes=tuple(notes))


def _whole(scan: Scan) -> Item:
    """A whole scan; its files are the DICOM slices themselves."""
    masks = [
        Computed(partial(_scan_mask, scan, reader), (scan.xml,), ".nii.gz")
        for reader in range(READERS)
    ]
    consensus = Computed(partial(_scan_mask, scan, None), (scan.xml,), ".nii.gz")
    return Item(scan.name, (scan.folder,), consensus, tuple(masks), group=scan.patient)


def _scan_mask(scan: Scan, reader: int | None) -> Picture:
    """One reader's nodules in the whole scan, or what at least two of the four marked."""
    marked = np.zeros(scan.geometry.shape, bool)
    for nodule in scan.nodules:
        start, shape = hull(nodule)
        masks = votes_of(nodule, start, shape)
        chosen = 2 * masks.sum(0) >= READERS if reader is None else masks[reader]
        Region(0, start, chosen).into(marked, (0, 0, 0))
    return marked.astype(np.uint8), scan.geometry


def votes_of(
    nodule: Sequence[Region], start: Sequence[int], shape: Sequence[int]
) -> Bool[ndarray, " r s h w"]:
    """Masks of the four readers in a window of the scan; who saw nothing marked nothing."""
    masks = np.zeros((READERS, *shape), bool)
    for region in nodule:
        region.into(masks[min(region.reader, READERS - 1)], start)
    return masks


@lru_cache(maxsize=1)
def _scan_image(folder: Path) -> Picture:
    """A scan in Hounsfield units; nodules of one scan are asked for one after another."""
    array, geometry = read_image(folder)
    return array, geometry


def _volumes(scan: Scan) -> list[Item]:
    """A volume of 1 mm voxels round each nodule."""
    items = []
    for k, nodule in enumerate(scan.nodules, start=1):
        start, shape = hull(nodule)
        middle = np.add(start, np.array(shape) / 2 - 0.5)
        target = _cube_round(scan.geometry, middle)
        masks = votes_of(nodule, start, shape)
        half = 2 * masks.sum(0) >= len(nodule)
        diameter = (6 / np.pi * half.sum() * scan.geometry.voxel_volume) ** (1 / 3)
        readers = [
            Computed(partial(_cube_mask, scan, nodule, r, target), (scan.xml,), ".nii.gz")
            for r in range(READERS)
        ]
        items.append(
            Item(
                f"{scan.name}_n{k:02d}",
                (Computed(partial(_cube, scan, target), scan.inputs, ".nii.gz"),),
                Computed(partial(_cube_mask, scan, nodule, None, target), (scan.xml,), ".nii.gz"),
                tuple(readers),
                group=scan.patient,
                diameter_mm=float(diameter),
                about=(target.origin,),
            )
        )
    return items


def _cube_round(geometry: Geometry, middle: ndarray) -> Geometry:
    """A cube of 1 mm voxels along the axes of a scan, its middle at a voxel's."""
    spacing = np.full(3, SASRNET_SPACING_MM)
    corner = geometry.to_world(middle) - np.array(geometry.direction) @ (
        spacing * (SASRNET_SIDE - 1) / 2
    )
    return replace(
        geometry,
        shape=(SASRNET_SIDE,) * 3,
        spacing=tuple(spacing.tolist()),
        origin=tuple(corner.tolist()),
    )


def _cube(scan: Scan, target: Geometry) -> Picture:
    """Hounsfield units in a cube; air beyond the scan."""
    array, geometry = _scan_image(scan.folder)
    cube = to_grid(array, geometry, target, outside=float(AIR_HU))
    return np.rint(cube).astype(np.int16), target


def _cube_mask(
    scan: Scan, nodule: tuple[Region, ...], reader: int | None, target: Geometry
) -> Picture:
    """One reader's mask in a cube, or what at least half of those marked who saw the nodule."""
    start, shape = hull(nodule)
    masks = votes_of(nodule, start, shape)
    chosen = 2 * masks.sum(0) >= len(nodule) if reader is None else masks[reader]
    grid = scan.geometry.cropped(start, shape)
    return onto(chosen.astype(np.uint8), grid, target, True), target


def _pictures(scan: Scan) -> list[Item]:
    """A picture for each slice of each nodule that all four readers outlined."""
    items = []
    for k, nodule in enumerate(scan.nodules, start=1):
        if len(nodule) < READERS:
            continue
        start, shape = hull(nodule)
        votes = votes_of(nodule, start, shape)
        agreed = 2 * votes.sum(0) >= READERS
        if not agreed.any():
            continue
        _, rows, columns = np.nonzero(agreed)
        corner = [
            int(np.floor(first + places.mean() - DSNET_SIDE / 2 + 0.5))
            for first, places in zip(start[1:], (rows, columns), strict=True)
        ]
        for s in np.flatnonzero(agreed.any(axis=(1, 2))):
            window = (start[0] + int(s), corner[0], corner[1])
            items.append(_picture(scan, nodule, window, f"{scan.name}_n{k:02d}_s{s:02d}"))
    return items


def _picture(
    scan: Scan, nodule: tuple[Region, ...], start: tuple[int, int, int], name: str
) -> Item:
    readers = tuple(
        Computed(partial(_picture_mask, nodule, r, start), (scan.xml,)) for r in range(READERS)
    )
    return Item(
        name,
        (Computed(partial(_picture_image, scan.folder, start), scan.inputs, ".tif"),),
        Computed(partial(_picture_mask, nodule, None, start), (scan.xml,)),
        readers,
        group=scan.patient,
        spacing_mm=scan.geometry.spacing[1:],
        about=(start,),
    )


def _picture_image(folder: Path, start: tuple[int, int, int]) -> Picture:
    array, _ = _scan_image(folder)
    cut = cut_window(array, start, (1, DSNET_SIDE, DSNET_SIDE), AIR_HU)[:, 0]
    return whole_numbers(cut), Geometry.regular((DSNET_SIDE, DSNET_SIDE))


def _picture_mask(
    nodule: tuple[Region, ...], reader: int | None, start: tuple[int, int, int]
) -> Picture:
    masks = votes_of(nodule, start, (1, DSNET_SIDE, DSNET_SIDE))[:, 0]
    chosen = 2 * masks.sum(0) >= READERS if reader is None else masks[reader]
    classes: UInt8[ndarray, " h w"] = chosen.astype(np.uint8)
    return classes, Geometry.regular((DSNET_SIDE, DSNET_SIDE))


def read_lidc_slices(raw: Raw) -> Draft:
    """Slices that others cut: four readers each, and what at least two of them marked."""
    home = raw.home("LIDC-IDRI-*/nodule-*/images")
    items = []
    for folder in sorted(home.root.glob("LIDC-IDRI-*/nodule-*"), key=natural_key):
        nodule = replace(home, root=folder)
        images = matching(nodule.folder("images"), SLICE)
        masks = [nodule.folder(f"mask-{reader}") for reader in range(READERS)]
        files = [matching(mask, SLICE) for mask in masks]
        for key, image in images.items():
            of_slice = tuple(
                partner(found, key, image, mask) for found, mask in zip(files, masks, strict=True)
            )
            readers = tuple(Computed(partial(read_foreground, path), (path,)) for path in of_slice)
            items.append(
                Item(
                    f"{folder.parent.name}_{folder.name}_s{int(key):02d}",
                    (image,),
                    Computed(partial(_agreed, of_slice), of_slice),
                    readers,
                    group=folder.parent.name,
                )
            )
    return Draft(tuple(items), LABELS, {"patients": _by_patient(items)})


def _agreed(paths: tuple[Path, ...]) -> Picture:
    """What at least half of the readers marked."""
    masks = [read_foreground(path) for path in paths]
    votes = np.sum([mask for mask, _ in masks], axis=0)
    return (2 * votes >= len(paths)).astype(np.uint8), masks[0][1]
