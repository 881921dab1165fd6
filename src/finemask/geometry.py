"""Where an array lies in the patient: a value that travels with the array.

World coordinates are millimetres in the RAS+ frame for volumes (x to the
patient's right, y anterior, z superior) and (row, column) for plain pictures.
Array axes come slowest first, so a volume is ``(slice, row, column)``.
Every operation returns a new geometry; "undo the preprocessing" is therefore
matching two grids, never replaying a history.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Real
from numpy import ndarray

Unit = Literal["mm", "px"]


@dataclass(frozen=True)
class Geometry:
    """The grid of an image: shape, spacing, origin and direction.

    Args:
        shape: Voxels along each array axis, slowest first; 2-D or 3-D.
        spacing: Distance of neighbouring voxel centres along each array axis.
        origin: World coordinates of the centre of the first voxel.
        direction: Row-major matrix; column ``a`` is the unit world vector of
            array axis ``a``. Need not be orthogonal: a sheared grid is kept
            as it is.
        unit: ``"mm"``, or ``"px"`` where the physical size is unknown.

    Raises:
        ValueError: On sizes that disagree, or a grid with no volume.

    Example:
        >>> lr = Geometry.regular((4, 4), spacing=(2.0, 2.0))
        >>> lr.refined((2, 2)).origin
        (-0.5, -0.5)
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[tuple[float, ...], ...]
    unit: Unit = "mm"

    def __post_init__(self) -> None:
        n = len(self.shape)
        sizes = {n, len(self.spacing), len(self.origin), len(self.direction)}
        sizes |= {len(row) for row in self.direction}
        if n not in (2, 3) or sizes != {n}:
            raise ValueError(f"a geometry is 2-D or 3-D throughout, got {self}")
        if min(self.shape) < 1:
            raise ValueError(f"every axis needs at least one voxel, got shape {self.shape}")
        numbers = [*self.spacing, *self.origin, *itertools.chain(*self.direction)]
        if not np.isfinite(numbers).all() or min(self.spacing) <= 0:
            raise ValueError(f"spacing must be positive and every number finite, got {self}")
        if abs(np.linalg.det(np.array(self.direction))) < 1e-6:
            raise ValueError(f"direction is singular: {self.direction}")

    @classmethod
    def regular(
        cls,
        shape: Sequence[int],
        spacing: Sequence[float] | None = None,
        origin: Sequence[float] | None = None,
        unit: Unit | None = None,
    ) -> Geometry:
        """Axis-aligned grid; without ``spacing`` it is in pixels."""
        n = len(shape)
        return cls(
            shape=tuple(int(s) for s in shape),
            spacing=tuple(float(s) for s in (spacing or (1.0,) * n)),
            origin=tuple(float(o) for o in (origin or (0.0,) * n)),
            direction=tuple(tuple(row) for row in np.eye(n).tolist()),
            unit=unit or ("px" if spacing is None else "mm"),
        )

    @classmethod
    def from_affine(
        cls, shape: Sequence[int], affine: Float[ndarray, " n n"], unit: Unit = "mm"
    ) -> Geometry:
        """Grid from a homogeneous matrix that maps array indices to world."""
        matrix = np.asarray(affine, dtype=np.float64)
        spacing = np.linalg.norm(matrix[:-1, :-1], axis=0)
        if not np.isfinite(matrix).all() or (spacing <= 0).any():
            raise ValueError(f"the affine is singular or not finite: {matrix.tolist()}")
        return cls(
            shape=tuple(int(s) for s in shape),
            spacing=tuple(spacing.tolist()),
            origin=tuple(matrix[:-1, -1].tolist()),
            direction=tuple(tuple(row) for row in (matrix[:-1, :-1] / spacing).tolist()),
            unit=unit,
        )

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def matrix(self) -> Float[ndarray, " n n"]:
        """Index step to world step: direction times spacing."""
        return np.array(self.direction) * np.array(self.spacing)

    @property
    def affine(self) -> Float[ndarray, " m m"]:
        """Homogeneous matrix from array index (slowest axis first) to world."""
        affine = np.eye(self.ndim + 1)
        affine[:-1, :-1] = self.matrix
        affine[:-1, -1] = self.origin
        return affine

    @property
    def extent(self) -> tuple[float, ...]:
        """Edge-to-edge length along each array axis."""
        return tuple(s * d for s, d in zip(self.shape, self.spacing, strict=True))

    @property
    def voxel_volume(self) -> float:
        """Volume (area in 2-D) of one voxel in ``unit`` to the power of ``ndim``."""
        return float(abs(np.linalg.det(self.matrix)))

    def to_world(self, index: Real[ndarray, " *k n"]) -> Float[ndarray, " *k n"]:
        """World coordinates of (fractional) array indices."""
        return np.asarray(index, dtype=np.float64) @ self.matrix.T + np.array(self.origin)

    def to_index(self, world: Real[ndarray, " *k n"]) -> Float[ndarray, " *k n"]:
        """Fractional array indices of world coordinates."""
        offset = np.asarray(world, dtype=np.float64) - np.array(self.origin)
        return offset @ np.linalg.inv(self.matrix).T

    def corners(self) -> Float[ndarray, " k n"]:
        """World coordinates of the outer corners of the voxel block."""
        ends = [(-0.5, s - 0.5) for s in self.shape]
        return self.to_world(np.array(list(itertools.product(*ends))))

    def resized(self, shape: Sequence[int]) -> Geometry:
        """Another number of voxels over exactly the same physical extent.

        This is the one line behind every change of resolution: voxel *edges*
        coincide, so centres move by half the difference of the spacings.
        """
        ratio = np.array(self.shape) / np.array(shape)
        return Geometry(
            shape=tuple(int(s) for s in shape),
            spacing=tuple((np.array(self.spacing) * ratio).tolist()),
            origin=tuple(self.to_world((ratio - 1) / 2).tolist()),
            direction=self.direction,
            unit=self.unit,
        )

    def refined(self, scale: Sequence[int]) -> Geometry:
        """The HR grid of this LR grid: each voxel split ``scale`` times."""
        return self.resized([s * f for s, f in zip(self.shape, scale, strict=True)])

    def coarsened(self, scale: Sequence[int]) -> Geometry:
        """The LR grid of this HR grid: blocks of ``scale`` voxels merged.

        Raises:
            ValueError: When a side is not a multiple of its scale.
        """
        if any(s % f for s, f in zip(self.shape, scale, strict=True)):
            raise ValueError(f"shape {self.shape} is not a multiple of scale {tuple(scale)}")
        return self.resized([s // f for s, f in zip(self.shape, scale, strict=True)])

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Geometry:
        """A window of this grid; a negative start or a longer shape pads it."""
        return Geometry(
            shape=tuple(int(s) for s in shape),
            spacing=self.spacing,
            origin=tuple(self.to_world(np.array(start)).tolist()),
            direction=self.direction,
            unit=self.unit,
        )

    def flipped(self, axis: int) -> Geometry:
        """The grid of ``numpy.flip(array, axis)``: same voxels, same places."""
        last = np.zeros(self.ndim)
        last[axis] = self.shape[axis] - 1
        direction = np.array(self.direction)
        direction[:, axis] *= -1
        return Geometry(
            shape=self.shape,
            spacing=self.spacing,
            origin=tuple(self.to_world(last).tolist()),
            direction=tuple(tuple(row) for row in direction.tolist()),
            unit=self.unit,
        )

    def permuted(self, order: Sequence[int]) -> Geometry:
        """The grid of ``numpy.transpose(array, order)``."""
        return Geometry(
            shape=tuple(self.shape[a] for a in order),
            spacing=tuple(self.spacing[a] for a in order),
            origin=self.origin,
            direction=tuple(tuple(row[a] for a in order) for row in self.direction),
            unit=self.unit,
        )

    def distance_voxels(self, other: Geometry) -> float:
        """Largest displacement between the corners of two grids, in voxels of this one.

        Infinite when the shapes or dimensions differ.
        """
        if self.shape != other.shape:
            return float("inf")
        return float(np.abs(self.to_index(other.corners()) - self.to_index(self.corners())).max())

    def matches(self, other: Geometry, tolerance: float = 1e-3) -> bool:
        """Whether two grids coincide to ``tolerance`` voxels (header noise is forgiven)."""
        return self.distance_voxels(other) <= tolerance

    def axes_to(self, other: Geometry) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Transpose order, then axes to flip, that turn this grid into ``other`` without loss.

        Returns:
            ``(order, flips)`` for ``numpy.transpose`` and ``numpy.flip``, or
            ``None`` when no permutation and flips make the grids coincide.
        """
        if sorted(self.shape) != sorted(other.shape):
            return None
        for order in itertools.permutations(range(self.ndim)):
            turned = self.permuted(order)
            if turned.shape != other.shape:
                continue
            cosines = np.sum(np.array(turned.direction) * np.array(other.direction), axis=0)
            flips = tuple(int(a) for a in np.flatnonzero(cosines < 0))
            for axis in flips:
                turned = turned.flipped(axis)
            if turned.matches(other):
                return order, flips
        return None

    def axes_to_canonical(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Transpose order and flips that bring the axes closest to the reversed world axes.

        A volume becomes (superior, anterior, right) with growing index; a
        picture, whose world is (row, column), is left alone.
        """
        n = self.ndim
        if n == 2:
            return (0, 1), ()
        direction = np.array(self.direction)

        def alignment(order: tuple[int, ...]) -> float:
            return float(sum(abs(direction[n - 1 - a, axis]) for a, axis in enumerate(order)))

        order = max(itertools.permutations(range(n)), key=alignment)
        flips = tuple(a for a in range(n) if direction[n - 1 - a, order[a]] < 0)
        return order, flips
