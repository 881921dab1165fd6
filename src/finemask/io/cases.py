"""One case from the files of its channels, masks and readers, all on one grid."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.case import Case
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.io.dicom import is_segmentation
from finemask.io.dicom_seg import widened
from finemask.io.formats import stem
from finemask.io.images import read_image, read_probs
from finemask.io.labels import read_labels
from finemask.io.raster import FilePath


def read_case(
    image: FilePath | Sequence[FilePath],
    *,
    name: str | None = None,
    truth: FilePath | None = None,
    readers: Sequence[FilePath] = (),
    soft: FilePath | Sequence[FilePath] | None = None,
    group: str | None = None,
    spacing_mm: float | Sequence[float] | None = None,
    labels: Mapping[str, int] | None = None,
) -> Case:
    """Read an image with its masks, all brought onto the grid of the image.

    A file whose axes are turned or flipped is re-oriented without loss; one on
    any other grid is refused, never resized. Masks of an image whose voxel
    size is unknown (plain pictures) need the same shape only.

    Args:
        image: File or DICOM folder, or one file a channel.
        name: Identifier; the file's stem if not given.
        truth: Reference mask or label map.
        readers: One mask a reader who was asked; empty masks count.
        soft: Soft mask in [0, 1]: one file, or one a foreground class.
        group: The patient.
        spacing_mm: Voxel size along each array axis, for files that do not know it.
        labels: Name to stored value of the classes, see ``read_labels``.

    Raises:
        DataError: When a file is unsound, or lies on another grid.
    """
    paths = _as_paths(image)
    channels, geometry = read_image(paths[0])
    parts = [channels]
    parts += [on_grid(p, *read_image(p), geometry, paths[0]) for p in paths[1:]]
    if spacing_mm is not None:
        geometry = _with_spacing(paths[0], geometry, spacing_mm)

    def mask(path: FilePath) -> NDArray[Any]:
        return on_grid(path, *read_labels(path, labels), geometry, paths[0])

    soft_map = None
    if soft is not None:
        first = _as_paths(soft)[0]
        soft_map = on_grid(first, *read_probs(soft), geometry, paths[0])
    return Case(
        name=stem(paths[0]) if name is None else name,
        image=np.concatenate(parts) if len(parts) > 1 else channels,
        geometry=geometry,
        truth=None if truth is None else mask(truth),
        soft=soft_map,
        readers=np.stack([mask(path) for path in readers]) if readers else None,
        group=group,
        source=Path(paths[0]),
    )


def _as_paths(image: FilePath | Sequence[FilePath]) -> list[FilePath]:
    if isinstance(image, Sequence) and not isinstance(image, str):
        return list(image)
    return [image]


def _with_spacing(path: FilePath, geometry: Geometry, spacing_mm: Any) -> Geometry:
    """Give a grid of unknown voxel size the declared one, or check the known one."""
    spacing = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), (geometry.ndim,))
    if not np.isfinite(spacing).all() or (spacing <= 0).any():
        raise DataError(
            path, f"is declared with the spacing {spacing_mm}, needs positive numbers of mm",
            "correct spacing_mm",
        )  # fmt: skip
    if geometry.unit == "px":
        return replace(geometry, spacing=tuple(spacing.tolist()), unit="mm")
    if not np.allclose(spacing, geometry.spacing, rtol=1e-3):
        raise DataError(
            path,
            f"has the spacing {_numbers(geometry.spacing)} mm, declared is {_numbers(spacing)}",
            "correct the declaration or the file",
        )
    return geometry


def _numbers(values: Any) -> str:
    return " x ".join(f"{v:.6g}" for v in values)


def on_grid(
    path: FilePath,
    array: NDArray[Any],
    found: Geometry,
    wanted: Geometry,
    owner: str | os.PathLike[str] = "the image",
) -> NDArray[Any]:
    """Turn and flip an array onto a grid without loss, or say how the grids differ.

    Pictures of unknown pixel size need the same shape only. Planes that a DICOM
    segmentation leaves out are background, as the standard has it.

    Args:
        path: File that the array was read from, for messages.
        array: ``(*S)`` on ``found``, or ``(C, *S)``.
        found: Grid of the array.
        wanted: Grid to turn it onto.
        owner: Whose grid ``wanted`` is, for messages.

    Raises:
        DataError: When no turning makes the grids coincide to 1e-3 voxel.
    """
    leading = array.ndim - found.ndim
    if found.ndim == wanted.ndim and "px" in (found.unit, wanted.unit):
        if found.shape == wanted.shape:
            return array
    elif found.matches(wanted):
        return array
    elif found.ndim == wanted.ndim and (turn := found.axes_to(wanted)) is not None:
        order, flips = turn
        turned = np.transpose(array, (*range(leading), *(leading + a for a in order)))
        return np.ascontiguousarray(np.flip(turned, tuple(leading + a for a in flips)))
    elif is_segmentation(Path(path)) and (full := widened(array, found, wanted)) is not None:
        return full
    raise DataError(
        path,
        f"does not lie on the grid of {os.fspath(owner)}: {_difference(found, wanted)}",
        "resample it to that grid (with nearest neighbours for a mask)",
    )


def _difference(found: Geometry, wanted: Geometry) -> str:
    if found.shape != wanted.shape:
        return f"its shape is {found.shape}, not {wanted.shape}"
    if not np.allclose(found.spacing, wanted.spacing, rtol=1e-3):
        return f"its spacing is {_numbers(found.spacing)} mm, not {_numbers(wanted.spacing)}"
    return f"it is displaced by up to {wanted.distance_voxels(found):.3g} voxels"
