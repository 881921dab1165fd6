"""What a generator of anatomy hands over: a picture and the truth beneath it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from finemask.geometry import Geometry


@dataclass(frozen=True, eq=False)
class Scene:
    """An imaged piece of anatomy with everything known about it.

    Args:
        image: ``(C, *S)`` float32, quantised as the scanner's file would be.
        coverage: ``(*S)`` share of each voxel inside the target, in [0, 1].
        lesions: ``(*S)`` integer map, lesion number where that lesion covers at
            least half of the voxel; all 0 where the target is no lesion.
        geometry: Grid of ``S``.
        classes: ``(F, *S)`` share of each voxel inside each class, where there are several.
    """

    image: NDArray[np.float32]
    coverage: NDArray[np.float32]
    lesions: NDArray[Any]
    geometry: Geometry
    classes: NDArray[np.float32] | None = None

    @property
    def truth(self) -> NDArray[np.uint8]:
        """The mask: voxels at least half inside the target, or inside one class of several."""
        if self.classes is None:
            return (self.coverage >= 0.5).astype(np.uint8)
        numbers = np.arange(1, 1 + len(self.classes), dtype=np.uint8)
        return np.tensordot(numbers, (self.classes >= 0.5).astype(np.uint8), 1)

    @property
    def soft(self) -> NDArray[np.float32]:
        """The share of each voxel inside each class, ``(F, *S)``."""
        return self.coverage[None] if self.classes is None else self.classes


def as_bytes(picture: Float[ndarray, " *s"]) -> NDArray[np.float32]:
    """A picture in [0, 1] as whole grey levels 0 to 255.

    Example:
        >>> as_bytes(np.array([0.5, 2.0]))
        array([128., 255.], dtype=float32)
    """
    return np.rint(np.clip(picture, 0, 1) * 255).astype(np.float32)


def blend(
    below: Float[ndarray, " *a"], above: Float[ndarray, " *b"] | float, share: Float[ndarray, " *c"]
) -> Float[ndarray, " *d"]:
    """One material over another, mixed by the share of the upper one.

    Example:
        >>> blend(np.array([0.0, 0.0]), 4.0, np.array([0.0, 0.25]))
        array([0., 1.])
    """
    return below + (above - below) * share


def smooth_step(level: Float[ndarray, " *s"], width: float) -> Float[ndarray, " *s"]:
    """From 0 to 1 across a border of the given width, 0.5 where the level is 0."""
    return 1 / (1 + np.exp(np.clip(-4 * level / width, -50, 50)))


def place_inside(
    rng: np.random.Generator, shape: Sequence[int], reach: float, spacing: Sequence[float]
) -> NDArray[np.float64]:
    """A random point at least ``reach`` from every face; the middle where there is no room."""
    extent = (np.array(shape) - 1) * np.array(spacing)
    margin = np.minimum(reach, extent / 2)
    return margin + rng.random(len(shape)) * (extent - 2 * margin)
