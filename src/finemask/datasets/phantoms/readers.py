"""How people mark a lesion: several readers' outlines, and RECIST diameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, find_objects, label, map_coordinates
from scipy.spatial.distance import cdist

from finemask.datasets.phantoms.scene import Scene
from finemask.datasets.phantoms.shapes import points_of, waves


@dataclass(frozen=True)
class Reader:
    """The habit of one reader; displacements in units of a lesion's usual uncertainty.

    Args:
        bias: Mean outward displacement of the outline.
        wobble: Deviation of the displacement along the outline.
        misses: Chance to overlook a lesion about three pixels in radius.
    """

    bias: float
    wobble: float
    misses: float


READERS = (
    Reader(bias=0.1, wobble=0.6, misses=0.02),
    Reader(bias=0.8, wobble=0.9, misses=0.04),
    Reader(bias=-0.6, wobble=0.8, misses=0.08),
    Reader(bias=0.2, wobble=1.5, misses=0.12),
)


def read_outlines(
    scene: Scene, rng: Generator, readers: tuple[Reader, ...] = READERS
) -> NDArray[np.uint8]:
    """Masks of several readers: smooth displacements of the true outline, and misses.

    Small lesions are missed more often; a reader who missed every lesion gives
    an empty mask, which is a vote and not an absent reader.

    Returns:
        ``(R, *S)`` binary masks.
    """
    masks = np.zeros((len(readers), *scene.truth.shape), dtype=np.uint8)
    marked = scene.lesions if scene.lesions.any() else scene.truth
    spacing = np.array(scene.geometry.spacing)
    pixel = float(spacing.min())
    for number, found in enumerate(find_objects(marked), start=1):
        if found is None:
            continue
        margin = np.ceil(4 + 0.2 * np.array([s.stop - s.start for s in found])).astype(int)
        window = tuple(
            slice(max(s.start - m, 0), s.stop + m) for s, m in zip(found, margin, strict=True)
        )
        level = signed_distance(marked[window] == number, spacing)
        inradius = float(level.max()) + pixel / 2
        uncertainty = 0.35 * pixel + 0.045 * inradius
        near = np.abs(level) < 4 * uncertainty
        points = points_of(level.shape, spacing)[near]
        for mask, reader in zip(masks, readers, strict=True):
            wave = waves(rng, len(spacing), wavelength=max(1.5 * inradius, 7 * pixel), octaves=2)
            missed = rng.random() < reader.misses * 2 / (1 + inradius / pixel / 3)
            if missed and scene.lesions.any():
                continue
            drawn = level > 0
            shift = uncertainty * (reader.bias + reader.wobble * wave(points))
            drawn[near] = level[near] + shift > 0
            mask[window] |= drawn
    return masks


def signed_distance(
    mask: NDArray[np.bool_], spacing: Float[ndarray, " n"]
) -> Float[ndarray, " *s"]:
    """Distance to the border of a mask, positive inside.

    Example:
        >>> signed_distance(np.array([False, True, True, True, False]), np.array([2.0]))
        array([-1.,  1.,  3.,  1., -1.])
    """
    half = float(spacing.min()) / 2
    inside = distance_transform_edt(np.pad(mask, 1), sampling=spacing)
    inside = inside[(slice(1, -1),) * mask.ndim]
    outside = distance_transform_edt(~mask, sampling=spacing)
    return np.where(mask, inside - half, half - outside)


@dataclass(frozen=True)
class Recist:
    """The two diameters of one lesion; the fields are the columns of ``recist.csv``.

    End points are in pixels of the key slice, x along the columns and y along
    the rows, (0, 0) at the centre of the first pixel. Diameters and spacings
    are in ``unit``.

    Args:
        case: Name of the case.
        lesion: Number of the lesion in its case, from 1.
        slice: Index of the key slice, from 0; empty for a picture.
    """

    case: str
    lesion: int
    slice: int | None
    long_x1: float
    long_y1: float
    long_x2: float
    long_y2: float
    short_x1: float
    short_y1: float
    short_x2: float
    short_y2: float
    long_diameter: float
    short_diameter: float
    spacing_x: float
    spacing_y: float
    unit: str


def measure_recist(scene: Scene, case: str) -> tuple[Recist, ...]:
    """RECIST marks of every lesion, measured where its true cross-section is largest."""
    rows = []
    spacing = np.array(scene.geometry.spacing[-2:])
    for number, found in enumerate(find_objects(scene.lesions), start=1):
        if found is None:
            continue
        mine = scene.lesions == number
        key = None
        cover = np.where(mine, scene.coverage, np.minimum(scene.coverage, 0.49))
        if mine.ndim == 3:
            key = int(np.argmax(mine.sum(axis=(1, 2))))
            cover = cover[key]
        window = tuple(slice(max(s.start - 1, 0), s.stop + 1) for s in found[-2:])
        corner = np.array([w.start for w in window])
        axes = {
            name: corner + ends
            for name, ends in zip(("long", "short"), diameters(cover[window], spacing), strict=True)
        }
        columns: dict[str, float] = {}
        for name, ends in axes.items():
            for end, (y, x) in enumerate(ends, start=1):
                columns |= {f"{name}_x{end}": x, f"{name}_y{end}": y}
            columns[f"{name}_diameter"] = float(np.linalg.norm((ends[1] - ends[0]) * spacing))
        columns |= {"spacing_y": spacing[0], "spacing_x": spacing[1]}
        rounded = {name: round(float(value), 4) for name, value in columns.items()}
        rows.append(Recist(case, number, key, **rounded, unit=scene.geometry.unit))
    return tuple(rows)


def diameters(
    cover: Float[ndarray, " y x"], spacing: Float[ndarray, " 2"]
) -> tuple[Float[ndarray, " 2 2"], Float[ndarray, " 2 2"]]:
    """Longest diameter of a cross-section and the longest chord across it.

    Args:
        cover: Share of each pixel in the lesion; the border is where it is 0.5.
        spacing: Pixel size along rows and columns.

    Returns:
        End points of the long and the short axis, ``[[row, column], [row, column]]``
        in pixels; the axes are perpendicular in physical space.

    Example:
        >>> cover = np.zeros((5, 9)); cover[1:4, 1:8] = 1
        >>> long, short = diameters(cover, np.array([1.0, 1.0]))
        >>> float(np.linalg.norm(long[1] - long[0]).round(2))
        7.28
    """
    pieces, count = label(cover >= 0.5, structure=np.ones((3, 3)))
    if count > 1:
        biggest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
        cover = np.where((pieces == biggest) | (pieces == 0), cover, 0.49)
    cover = np.pad(cover, 1)
    border = border_points(cover) * spacing
    apart = cdist(border, border)
    first, last = np.unravel_index(int(np.argmax(apart)), apart.shape)
    long = border[[first, last]]
    short = longest_chord(cover, spacing, long)
    if np.linalg.norm(short[1] - short[0]) > np.linalg.norm(long[1] - long[0]):
        long, short = short, long
    return long / spacing - 1, short / spacing - 1


def border_points(cover: Float[ndarray, " y x"]) -> Float[ndarray, " k 2"]:
    """Where the border crosses the lines between neighbouring pixel centres, in pixels.

    Example:
        >>> border_points(np.array([[0.0, 1.0, 0.25]])).round(3).tolist()
        [[0.0, 0.5], [0.0, 1.667]]
    """
    found = []
    for axis in (0, 1):
        before = np.moveaxis(cover, axis, 0)[:-1]
        after = np.moveaxis(cover, axis, 0)[1:]
        crossed = np.argwhere((before >= 0.5) != (after >= 0.5)).astype(float)
        a, b = (side[tuple(crossed.astype(int).T)] for side in (before, after))
        crossed[:, 0] += (0.5 - a) / (b - a)
        found.append(crossed if axis == 0 else crossed[:, ::-1])
    return np.concatenate(found)


def longest_chord(
    cover: Float[ndarray, " y x"], spacing: Float[ndarray, " 2"], long: Float[ndarray, " 2 2"]
) -> Float[ndarray, " 2 2"]:
    """The longest chord that crosses the long axis at a right angle, in physical units."""
    length = float(np.linalg.norm(long[1] - long[0]))
    ahead = (long[1] - long[0]) / length
    aside = np.array([-ahead[1], ahead[0]])
    step = float(spacing.min()) / 4
    along = np.linspace(0, length, max(int(length / step), 4) + 1)
    across = np.arange(-np.ceil(length / step), np.ceil(length / step) + 1) * step
    points = long[0] + along[:, None, None] * ahead + across[:, None] * aside
    sampled = map_coordinates(cover, np.moveaxis(points / spacing, -1, 0), order=1, cval=0.0)

    inside = sampled >= 0.5
    low = inside.argmax(axis=1)
    high = len(across) - 1 - inside[:, ::-1].argmax(axis=1)
    straddles = (across[low] <= 2 * step) & (across[high] >= -2 * step) & inside.any(axis=1)
    width = np.where(straddles, high - low, -1)
    line = int(np.argmax(width))
    ends = [
        _crossing(sampled[line], across, int(low[line]), -1),
        _crossing(sampled[line], across, int(high[line]), 1),
    ]
    return long[0] + along[line] * ahead + np.array(ends)[:, None] * aside


def _crossing(
    values: Float[ndarray, " k"], at: Float[ndarray, " k"], last: int, step: int
) -> float:
    """Where a profile falls through 0.5 just beyond its last sample inside."""
    beyond = last + step
    share = (values[last] - 0.5) / max(float(values[last] - values[beyond]), 1e-9)
    return float(at[last] + (at[beyond] - at[last]) * share)
