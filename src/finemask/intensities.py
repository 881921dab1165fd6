"""Intensities as a network sees them: windowed, then brought to a common scale."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.typing import NDArray

from finemask.errors import DataError, UsageError
from finemask.recipe import PrepareSettings

FLAT, TINY = 1e-6, 1e-24
"""An intensity range below this share of the values, or of ``TINY``, is rounding, not contrast."""

IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue over ImageNet, black being 0 and white 1: what public weights expect."""

GREY_MEAN, GREY_SD = 0.449, 0.226
"""Their means: for images that are not RGB."""


def windowed(image: NDArray[np.float32], settings: PrepareSettings) -> NDArray[np.float32]:
    """Clip to the window, and bring it to [0, 1] where the settings say so.

    Raises:
        UsageError: When the window is none.
    """
    window = settings.window_hu
    if not window and not settings.window_to_unit:
        return image
    if len(window) != 2 or window[0] >= window[1]:
        raise UsageError(
            "prepare.window_hu",
            f"is {tuple(window)}, needs a lower and a higher number",
            "write for example -1000,400",
        )
    low, high = np.array(window, np.float32)
    image = image.clip(low, high)
    return (image - low) / (high - low) if settings.window_to_unit else image


def normalisation(
    image: Float[ndarray, " c *s"], settings: PrepareSettings
) -> tuple[Float[ndarray, " c"], Float[ndarray, " c"]]:
    """Offset and gain of each channel, so that a network sees ``(image - offset) * gain``.

    Intensities in original units are ``prepared / gain + offset``. A channel
    without contrast has no scale of its own: its gain is 1, and it becomes 0.
    ``imagenet`` takes its numbers from the public weights instead of the image, ``symmetric``
    from black and white.

    Args:
        image: Original intensities, finite.
        settings: Of which ``normalise`` and, for ``imagenet`` and ``symmetric``, ``window_to_unit``
            are used.

    Returns:
        ``(offset, gain)``, one number a channel.

    Example:
        >>> offset, gain = normalisation(np.array([[1.0, 5.0]], np.float32), PrepareSettings())
        >>> offset.tolist(), gain.tolist()
        ([3.0], [0.5])
    """
    channels = len(image)
    offset, gain = np.zeros(channels), np.ones(channels)
    if settings.normalise == "none":
        return offset, gain
    white = 1.0 if settings.window_to_unit else 255.0
    if settings.normalise == "symmetric":
        return offset + white / 2, gain * 2 / white
    if settings.normalise == "imagenet":
        mean, deviation = (IMAGENET_MEAN, IMAGENET_SD) if channels == 3 else (GREY_MEAN, GREY_SD)
        return offset + white * np.array(mean), gain / (white * np.array(deviation))
    for k, channel in enumerate(image):
        low, high = float(channel.min()), float(channel.max())
        if high - low <= FLAT * max(abs(low), abs(high), TINY):
            offset[k] = low
        elif settings.normalise == "minmax":
            offset[k], gain[k] = low, 1 / (high - low)
        else:
            offset[k] = channel.mean(dtype=np.float64)
            gain[k] = 1 / channel.std(dtype=np.float64)
    return offset, gain


def normalised(
    image: Float[ndarray, " c *s"], offset: Float[ndarray, " c"], gain: Float[ndarray, " c"]
) -> Float[ndarray, " c *s"]:
    """``(image - offset) * gain`` for each channel, as float32."""
    if not offset.any() and (gain == 1).all():
        return image
    result = np.empty_like(image, np.float32)
    for k, channel in enumerate(image):
        for plane, values in zip(result[k], channel, strict=True):
            # In float64, slice by slice: a large offset would cost digits or overflow.
            plane[...] = (values.astype(np.float64) - offset[k]) * gain[k]
    return result


def check_known_range(image: NDArray[np.float32], settings: PrepareSettings, name: str) -> None:
    """Refuse an image of which it is not known what is black and what is white.

    Known are 8-bit pictures (0 and 255), and any image whose window has become [0, 1].

    Raises:
        DataError: Naming ``name``.
    """
    low, high = float(image.min()), float(image.max())
    if settings.window_to_unit or (low >= 0 and (1 < high <= 255 or high == 0)):
        return
    raise DataError(
        name,
        f"has intensities from {low:g} to {high:g}; prepare.normalise={settings.normalise} needs "
        "8-bit pictures (0 to 255), or a window that says what is black and what is white",
        "set prepare.window_hu and prepare.window_to_unit=true, or use normalise=zscore",
    )
