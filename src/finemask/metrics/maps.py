"""Probability maps at the door of the metrics that read them: range, stretch and grey levels.

A map is compared in whole steps of 1/65535, in which every 8-bit and every 16-bit file
is exact, so that the level of a voxel, ``floor(255 p)``, is that of the integers in the
file. Public code divides by 255 first and truncates what a stretch makes of these rounded
quotients: voxels that lie on a threshold are lost.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy import ndarray

from finemask.masks import as_mask

STEPS = 65535
LEVELS = 256


def as_map_and_mask(
    probs: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."]
) -> tuple[Float[ndarray, " *s"], Bool[ndarray, " *s"]]:
    """A map of probabilities as float64 and a true mask, on one grid.

    Raises:
        ValueError: When the shapes differ, a probability is outside [0, 1] or the truth is soft.
    """
    probs, truth = np.asarray(probs, dtype=np.float64), as_mask(truth, "truth")
    if probs.shape != truth.shape:
        raise ValueError(f"probs has shape {probs.shape}, truth {truth.shape}; one grid is needed")
    # The negation also refuses NaN.
    if probs.size and not (probs.min() >= 0 and probs.max() <= 1):
        raise ValueError(f"probs must lie in [0, 1], got {probs.min()} to {probs.max()}")
    return probs, truth


def sixteen_bit(probs: Shaped[ndarray, " *s"]) -> Float[ndarray, " *s"]:
    """The map in float64 as a 16-bit file holds it, freed of the rounding of float32.

    Example:
        >>> float(sixteen_bit(np.array([51 / 255], np.float32))[0])
        0.2
    """
    return np.round(np.asarray(probs, dtype=np.float64) * STEPS) / STEPS


def minmax(probs: Shaped[ndarray, " *s"]) -> Float[ndarray, " *s"]:
    """The map stretched so that its values span [0, 1]; a constant map stays as it is.

    The custom of the polyp field, image by image: a map that nowhere exceeds 0.3 then
    looks certain, and the noise of an empty one fills the whole range.

    Example:
        >>> minmax(np.array([0.1, 0.2, 0.3]))
        array([0. , 0.5, 1. ])
    """
    steps = np.round(np.asarray(probs, dtype=np.float64) * STEPS)
    low, high = steps.min(initial=STEPS), steps.max(initial=0)
    return (steps - low) / (high - low) if high > low else steps / STEPS


def grey_levels(probs: Shaped[ndarray, " *s"]) -> UInt8[ndarray, " *s"]:
    """Levels 0 to 255: a voxel reaches the threshold ``k/255`` when its level is at least ``k``.

    Example:
        85 of 255 after a stretch of [0, 3] to [0, 1]; ``int(1 / 3 * 255)`` may say 84.

        >>> grey_levels(np.array([0.0, 1 / 3, 0.5, 1.0]))
        array([  0,  85, 127, 255], dtype=uint8)
    """
    return np.floor(np.asarray(probs, dtype=np.float64) * (LEVELS - 1)).astype(np.uint8)
