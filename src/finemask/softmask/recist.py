"""RECIST marks: the longest diameter of a lesion and the longest across it, as a reader drew them.

A mark says little about the outline, but what it says is exact: four points of
it, and two chords that lie inside. Points are ``(row, column)`` in pixels of
the slice, (0, 0) is the centre of the first pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from finemask.errors import DataError
from finemask.io.notices import warn

Point = tuple[float, float]
Axis = tuple[Point, Point]

SHORTEST_PX = 0.5
"""An axis below this length was clicked, not measured."""
GAP_PX = 1.0
"""Largest distance between the two axes; those of one lesion cross."""
LONG_SLACK, SHORT_SLACK = 0.1, 0.25
"""How far a lesion may reach beyond what its axes allow, as shares of them."""
EQUAL_AXES = 0.01
"""Axes whose lengths differ by less than this share are of one length."""
LEAST_ANGLE_DEG = 20.0
"""Axes that cross more narrowly than this are one axis drawn twice, not two diameters."""


@dataclass(frozen=True)
class Mark:
    """The two axes of one lesion on one slice.

    Args:
        long: End points of the long axis, ``(row, column)`` in pixels.
        short: End points of the short axis.

    Example:
        >>> Mark.from_xy(1, 5, 9, 5, 4, 3, 4, 7).crossing
        (5.0, 4.0)
    """

    long: Axis
    short: Axis

    @classmethod
    def from_xy(cls, *xy: float | int) -> Mark:
        """A mark from eight numbers as tables list them: x1, y1, x2, y2 of the long axis, then
        of the short one; x along the columns, y along the rows."""
        x1, y1, x2, y2, x3, y3, x4, y4 = (float(number) for number in xy)
        return cls(((y1, x1), (y2, x2)), ((y3, x3), (y4, x4)))

    @property
    def points(self) -> Float[ndarray, " 4 2"]:
        """Both ends of the long axis, then both of the short one."""
        return np.array((*self.long, *self.short), dtype=np.float64)

    @property
    def crossing(self) -> Point:
        """Where the axes cross; half way between them where they just miss each other."""
        first, second = nearest_points(self.long, self.short)
        row, column = ((first + second) / 2).tolist()
        return row, column

    @property
    def angle_deg(self) -> float:
        """Angle between the axes, 0 to 90 degrees."""
        a, b, c, d = self.points
        (y1, x1), (y2, x2) = b - a, d - c
        return math.degrees(math.atan2(abs(y1 * x2 - x1 * y2), abs(y1 * y2 + x1 * x2)))

    def lengths(self, spacing: Sequence[float] = (1.0, 1.0)) -> tuple[float, float]:
        """Lengths of the long and the short axis, in the unit of ``spacing`` (rows, columns).

        Example:
            >>> Mark.from_xy(0, 2, 8, 2, 4, 0, 4, 4).lengths(spacing=(3.0, 0.5))
            (4.0, 12.0)
        """
        ends = self.points * np.array(spacing)
        return math.dist(ends[0], ends[1]), math.dist(ends[2], ends[3])

    def on_grid(self, start: Sequence[int] = (0, 0), factor: float | int = 1) -> Mark:
        """The same mark in pixels of a window from ``start``, each pixel split ``factor`` times.

        Example:
            >>> Mark.from_xy(0, 2, 8, 2, 4, 0, 4, 4).on_grid((2, 0), factor=2).long
            ((0.5, 0.5), (0.5, 16.5))
        """
        moved = (self.points - np.array(start) + 0.5) * factor - 0.5
        a, b, c, d = (tuple(point) for point in moved.tolist())
        return Mark((a, b), (c, d))


def check_mark(
    mark: Mark,
    shape: Sequence[int],
    subject: str,
    *,
    spacing: Sequence[float] = (1.0, 1.0),
    gap_px: float = GAP_PX,
) -> Mark:
    """Make sure that a mark can be one of a lesion on this slice.

    Args:
        mark: As it was read.
        shape: Rows and columns of the slice.
        subject: What an error is about: the table and its row.
        spacing: Pixel size along rows and columns, which decides the longer axis.
        gap_px: Largest distance allowed between the axes.

    Returns:
        The mark, its axes exchanged (with a warning) where the short one was the longer.

    Raises:
        DataError: When an end point is no number or outside the slice, or an axis too short,
            or the axes do not cross at an
            angle.
    """
    for name, axis in (("long", mark.long), ("short", mark.short)):
        if not np.isfinite(axis).all():
            raise DataError(
                subject, f"has an end point of the {name} axis that is no number ({_told(axis)})",
                "correct or remove the mark",
            )  # fmt: skip
        if (np.array(axis) < -0.5).any() or (np.array(axis) > np.array(shape) - 0.5).any():
            raise DataError(
                subject,
                f"has a {name} axis from {_told(axis)} (row, column), outside the slice of "
                f"{shape[0]} x {shape[1]} pixels",
                "check that it belongs to this image, and whether x and y, or px and mm, are mixed",
            )
        if (length := math.dist(*axis)) < SHORTEST_PX:
            raise DataError(
                subject,
                f"has a {name} axis of {length:.2g} px, needs at least {SHORTEST_PX:g}",
                "measure it again or remove the mark",
            )
    if (gap := math.dist(*nearest_points(mark.long, mark.short))) > gap_px:
        raise DataError(
            subject,
            f"has a short axis that misses the long axis by {gap:.3g} px, up to {gap_px:g} is "
            "accepted",
            "check that both belong to one lesion",
        )
    if (angle := mark.angle_deg) < LEAST_ANGLE_DEG:
        raise DataError(
            subject,
            f"has a short axis at {angle:.0f} degrees to the long axis, needs about 90",
            "measure the short axis across the long one",
        )
    long, short = mark.lengths(spacing)
    if short > long * (1 + EQUAL_AXES):
        warn(subject, f"its short axis ({short:.4g}) is longer than the long one ({long:.4g}); "
             "they were exchanged")  # fmt: skip
        return Mark(mark.short, mark.long)
    return mark


def nearest_points(first: Axis, second: Axis) -> tuple[Float[ndarray, " 2"], Float[ndarray, " 2"]]:
    """The point of each of two segments that is nearest to the other; one point where they cross.

    Example:
        >>> [p.tolist() for p in nearest_points(((0.0, 0.0), (0.0, 4.0)), ((3.0, 1.0), (1.0, 1.0)))]
        [[0.0, 1.0], [1.0, 1.0]]
    """
    (a, b), (c, d) = np.asarray(first, float), np.asarray(second, float)
    matrix = np.stack([b - a, c - d], axis=1)
    # Parallel segments of some length in common are as good as apart.
    if abs(np.linalg.det(matrix)) > 1e-12:
        share = np.linalg.solve(matrix, c - a)
        if (share >= 0).all() and (share <= 1).all():
            crossing = a + share[0] * (b - a)
            return crossing, crossing
    pairs = [(a, _nearest(a, c, d)), (b, _nearest(b, c, d))]
    pairs += [(_nearest(c, a, b), c), (_nearest(d, a, b), d)]
    return min(pairs, key=lambda pair: math.dist(*pair))


def _nearest(
    point: Float[ndarray, " *k 2"], begin: Float[ndarray, " 2"], end: Float[ndarray, " 2"]
) -> Float[ndarray, " *k 2"]:
    """The point of a segment that is nearest to each of some points."""
    along = end - begin
    share = (point - begin) @ along / max(float(along @ along), 1e-12)
    return begin + np.clip(share, 0, 1)[..., None] * along


def ellipse(mark: Mark, shape: Sequence[int]) -> Bool[ndarray, " h w"]:
    """Pixels inside the ellipse through the four end points, the axes being its diameters.

    Where the axes do not halve each other it is made of four quarters that meet
    at the end points; its area is ``pi / 4`` times the product of the axes and
    of the sine between them. A lesion smaller than a pixel has one pixel.

    Example:
        >>> ellipse(Mark.from_xy(0, 1, 4, 1, 2, 0, 2, 2), (3, 5)).astype(int)
        array([[0, 0, 1, 0, 0],
               [1, 1, 1, 1, 1],
               [0, 0, 1, 0, 0]])
    """
    return _quarters(mark, shape, power=2)


def quadrilateral(mark: Mark, shape: Sequence[int]) -> Bool[ndarray, " h w"]:
    """Pixels inside the quadrilateral whose corners are the four end points."""
    return _quarters(mark, shape, power=1)


def _quarters(mark: Mark, shape: Sequence[int], power: int) -> Bool[ndarray, " h w"]:
    """Pixels ``crossing + u a + v b`` with ``u^p + v^p <= 1``, for each pair of half axes."""
    centre = np.array(mark.crossing)
    inside = np.zeros(tuple(shape), bool)
    nearest = np.clip(np.rint(centre).astype(int), 0, np.array(shape) - 1)
    inside[tuple(nearest)] = True
    offsets = _pixels(shape) - centre
    for a in np.array(mark.long) - centre:
        for b in np.array(mark.short) - centre:
            basis = np.stack([a, b], axis=1)
            if abs(np.linalg.det(basis)) < 1e-9:  # the axes cross at an end: no quarter here
                continue
            shares = offsets @ np.linalg.inv(basis).T
            reach = (np.maximum(shares, 0) ** power).sum(-1)
            inside |= (shares > -1e-9).all(-1) & (reach <= 1 + 1e-9)
    return inside


def near_axes(mark: Mark, shape: Sequence[int], width: float = 1.5) -> Bool[ndarray, " h w"]:
    """Pixels whose centre is at most half of ``width`` from one of the axes; at least one.

    Example:
        >>> near_axes(Mark.from_xy(0, 1, 4, 1, 2, 0, 2, 2), (3, 5), width=1.0).sum()
        np.int64(7)
    """
    pixels = _pixels(shape)
    distance = np.full(tuple(shape), np.inf)
    for begin, end in (mark.long, mark.short):
        nearest = _nearest(pixels, np.array(begin, float), np.array(end, float))
        distance = np.minimum(distance, np.linalg.norm(pixels - nearest, axis=-1))
    return distance <= max(width / 2, float(distance.min()))


def within_reach(
    mark: Mark, shape: Sequence[int], spacing: Sequence[float] = (1.0, 1.0)
) -> Bool[ndarray, " h w"]:
    """Pixels that the lesion can take up if its axes are what they are said to be.

    No two points of it are farther apart than the ends of the long axis, and
    nothing reaches farther to one side than the short axis, the longest across
    it; a tenth of the long and a quarter of the short axis are allowed for.

    Args:
        mark: In pixels.
        shape: Rows and columns.
        spacing: Pixel size along rows and columns.
    """
    pixels, points = _pixels(shape) * np.array(spacing), mark.points * np.array(spacing)
    length, width = mark.lengths(spacing)
    pixel = max(spacing)
    reached = np.ones(tuple(shape), bool)
    for end in points[:2]:
        reached &= np.linalg.norm(pixels - end, axis=-1) <= (1 + LONG_SLACK) * length + pixel
    along = (points[1] - points[0]) / length
    across = np.array([-along[1], along[0]])
    sides, slack = (points[2:] - points[0]) @ across, SHORT_SLACK * width + pixel
    offset = (pixels - points[0]) @ across
    return reached & (offset >= sides.min() - slack) & (offset <= sides.max() + slack)


def _pixels(shape: Sequence[int]) -> Float[ndarray, " h w 2"]:
    return np.moveaxis(np.indices(tuple(shape), dtype=np.float64), 0, -1)


def _told(axis: Axis) -> str:
    return " to ".join(f"({row:.5g}, {column:.5g})" for row, column in axis)
