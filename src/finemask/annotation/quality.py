"""What is told of each Soft Mask, for a person who decides which to trust: ``quality.csv``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool
from numpy import ndarray

from finemask.datasets.facts import find_lesions
from finemask.geometry import Geometry
from finemask.metrics import dice
from finemask.softmask.softening import Softened
from finemask.softmask.trimap import UNKNOWN

SEEN_OBLIQUELY = {2: 4 / math.pi, 3: 1.5}
"""How much longer (larger) the outline of pixels (voxels) is, averaged over all directions."""
LOW_AGREEMENT = 0.7
"""A mask that agrees less than this with what it was made from is worth a look."""
AGREEMENT_WITH = {"mask": "mask", "raters": "consensus", "recist": "ellipse"}


@dataclass(frozen=True)
class Row:
    """One case of the data set; the fields are the columns.

    Args:
        case: Its name.
        source: ``mask``, ``raters`` or ``recist``.
        method: How it was softened.
        image_case: The case of the input that it is from.
        slice: Of a volume, where it is one slice of it.
        readers: How many were asked (R), for ``raters``.
        lesions: Connected parts of the mask.
        diameter: Equivalent diameter of the largest of them.
        long_axis: Longest RECIST axis.
        short_axis: Its short axis.
        unit: Of these lengths: ``mm``, or ``px`` of the image where nobody knows.
        band_px: Mean width of the unknown band, in voxels of the finest axis that is written.
        band_mm: The same in mm.
        unknown_share: Of the voxels that are not certainly background, the share that is open.
        agreement: Dice of the mask with what it was made from; none where both are empty.
        agreement_with: The input ``mask``, the ``consensus`` of half of the readers, or the
            ``ellipse`` of the axes.
        seconds: Taken.
        flags: What is worth a look.
    """

    case: str
    source: str
    method: str
    image_case: str
    slice: int | None
    readers: int | None
    lesions: int
    diameter: float
    long_axis: float | None
    short_axis: float | None
    unit: str
    band_px: float
    band_mm: float | None
    unknown_share: float
    agreement: float | None
    agreement_with: str
    seconds: float
    flags: str

    @classmethod
    def columns(cls) -> tuple[str, ...]:
        return tuple(f.name for f in fields(cls))

    def cells(self) -> list[Any]:
        """Values of the columns; nothing where they are unknown."""
        return ["" if value is None else value for value in vars(self).values()]


def measure(
    made: Softened,
    geometry: Geometry,
    axes: Sequence[tuple[float, float]],
    **known: Any,
) -> Row:
    """Measure one Soft Mask.

    Args:
        made: The masks.
        geometry: Their grid; a finer one without a physical size is in pixels of the image.
        axes: Long and short axis of each mark, in the unit of ``geometry``.
        known: Columns that need no measuring.
    """
    hard = made.hard
    lesions = find_lesions(hard, geometry)
    open_ = made.trimap == UNKNOWN if made.trimap is not None else (made.soft > 0) & (made.soft < 1)
    certain = int((made.soft[~open_] > 0).sum())
    opened = int(open_.sum())
    in_mm = geometry.unit == "mm"
    steps = np.array(geometry.spacing) / min(geometry.spacing)
    longest = max(axes, default=None)
    agreement = dice(hard, made.reference)
    flags = [*made.flags, *(["low_agreement"] if agreement < LOW_AGREEMENT else [])]
    return Row(
        lesions=len(lesions),
        diameter=round(lesions[0].diameter, 4) if lesions else 0.0,
        long_axis=round(longest[0], 4) if longest else None,
        short_axis=round(longest[1], 4) if longest else None,
        unit=geometry.unit,
        band_px=round(band_width(open_, hard, steps.tolist()), 3),
        band_mm=round(band_width(open_, hard, geometry.spacing), 4) if in_mm else None,
        unknown_share=round(opened / max(opened + certain, 1), 4),
        agreement=None if math.isnan(agreement) else round(agreement, 4),
        flags=" ".join(flags),
        **known,
    )


def band_width(
    band: Bool[ndarray, " *s"], mask: Bool[ndarray, " *s"], spacing: Sequence[float]
) -> float:
    """Mean width of a band along the outline of a mask, in the unit of ``spacing``.

    The area of the band over the length of the outline (in 3-D, its volume over
    the area of the surface), as stairs of pixels seen from all directions.

    Example:
        >>> y, x = np.indices((101, 101)) - 50
        >>> radius = np.hypot(y, x)
        >>> round(band_width((radius > 27) & (radius < 33), radius < 30, (1.0, 1.0)), 1)
        6.0
    """
    voxel = math.prod(spacing)
    surface = 0.0
    for axis, step in enumerate(spacing):
        edges = np.diff(np.pad(mask, 1).astype(np.int8), axis=axis)
        surface += np.count_nonzero(edges) * voxel / step
    return float(band.sum() * voxel * SEEN_OBLIQUELY[mask.ndim] / surface) if surface else 0.0
