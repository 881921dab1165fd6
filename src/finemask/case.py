"""One patient image with everything that is known about it, on one grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Case:
    """An image, its geometry and what readers say about it, all on one grid.

    Args:
        name: Identifier, unique in a data set.
        image: ``(C, *S)`` float32 intensities.
        geometry: Grid of ``S``.
        truth: ``(*S)`` integer labels, 0 is background; ``None`` when unknown.
        soft: ``(F, *S)`` float32 in [0, 1], one map a foreground class.
        readers: ``(R, *S)`` integer labels, one map a reader who was asked.
        group: The patient; cases of one group never straddle a split.
        source: File or folder that the image was read from.

    Raises:
        ValueError: When an array does not lie on the grid.
    """

    name: str
    image: NDArray[np.float32]
    geometry: Geometry
    truth: NDArray[Any] | None = None
    soft: NDArray[np.float32] | None = None
    readers: NDArray[Any] | None = None
    group: str | None = None
    source: Path | None = None

    def __post_init__(self) -> None:
        shape = self.geometry.shape
        for field, array, leading in (
            ("image", self.image, 1),
            ("truth", self.truth, 0),
            ("soft", self.soft, 1),
            ("readers", self.readers, 1),
        ):
            if array is not None and (
                array.shape[leading:] != shape or array.ndim != leading + len(shape)
            ):
                raise ValueError(f"{field} of {self.name} has shape {array.shape}, grid is {shape}")

    def with_arrays(
        self, change: Callable[[NDArray[Any]], NDArray[Any]], geometry: Geometry
    ) -> Case:
        """Apply one change of the last ``ndim`` axes to every array of the case."""

        def changed(array: NDArray[Any] | None) -> NDArray[Any] | None:
            return None if array is None else np.ascontiguousarray(change(array))

        return replace(
            self,
            image=np.ascontiguousarray(change(self.image)),
            truth=changed(self.truth),
            soft=changed(self.soft),
            readers=changed(self.readers),
            geometry=geometry,
        )

    def cropped(self, start: Sequence[int], shape: Sequence[int]) -> Case:
        """A window; parts outside the image repeat its edge (truth: background)."""
        inside = [
            slice(min(max(b, 0), n - 1), max(min(b + s, n), min(max(b, 0), n - 1) + 1))
            for b, s, n in zip(start, shape, self.geometry.shape, strict=True)
        ]
        margins = [
            (i.start - b, b + s - i.stop) for i, b, s in zip(inside, start, shape, strict=True)
        ]
        if any(m < 0 for pair in margins for m in pair):
            raise ValueError(f"window {tuple(start)} + {tuple(shape)} misses {self.name}")

        def window(array: NDArray[Any]) -> NDArray[Any]:
            lead = array.ndim - len(inside)
            part = array[(slice(None),) * lead + tuple(inside)]
            if not any(m for pair in margins for m in pair):
                return part
            widths = [(0, 0)] * lead + margins
            if array is self.image:
                return np.pad(part, widths, mode="edge")
            return np.pad(part, widths, mode="constant")

        return self.with_arrays(window, self.geometry.cropped(start, shape))

    def turned(self, order: Sequence[int], flips: Sequence[int] = ()) -> Case:
        """Transpose the grid axes by ``order``, then flip the axes ``flips``."""
        geometry = self.geometry.permuted(order)
        for axis in flips:
            geometry = geometry.flipped(axis)

        def turn(array: NDArray[Any]) -> NDArray[Any]:
            lead = array.ndim - len(order)
            array = np.transpose(array, (*range(lead), *(lead + a for a in order)))
            return np.flip(array, tuple(lead + a for a in flips))

        return self.with_arrays(turn, geometry)
