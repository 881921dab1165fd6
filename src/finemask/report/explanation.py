"""One case and the maps that its mask was made from, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from numpy import ndarray
from numpy.typing import NDArray

from finemask.geometry import Geometry
from finemask.report.panels import Panel, lesion_slice, overlay, view


def explanation_row(
    image: Shaped[ndarray, " c *s"],
    labels: NDArray[Any],
    maps: Mapping[str, Float[ndarray, " *s"]],
    geometry: Geometry,
) -> tuple[Panel, ...]:
    """Panels of the image with the mask's outline and of each map with the same outline.

    All maps share one colour scale, black at 0 to white at 1. Of a volume, the slice with
    the largest predicted lesion is shown. Titles tell the mean within the mask, or over
    the whole image where the mask is empty.

    Args:
        image: ``(C, *S)``, 2-D or 3-D.
        labels: ``(*S)`` predicted classes.
        maps: ``(*S)`` in [0, 1], by name.
        geometry: Grid of ``S``.
    """
    first = overlay(
        image, np.zeros_like(labels), labels, geometry=geometry, zoom=True, title="image and mask"
    )
    inside = labels > 0 if (labels > 0).any() else np.ones(labels.shape, bool)
    panels = [
        replace(
            first,
            picture=heat(_shown(values, labels, geometry)),
            title=f"{name}: {values[inside].mean():.2f}",
        )
        for name, values in maps.items()
    ]
    return (first, *panels)


def _shown(values: NDArray[Any], labels: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
    """The slice that `overlay` shows."""
    if values.ndim == 2:
        return values
    if geometry.unit == "mm":
        values, labels = view(values, geometry)[0], view(labels, geometry)[0]
    return np.asarray(values[lesion_slice(labels)])


def heat(values: Float[ndarray, " h w"]) -> UInt8[ndarray, " h w 3"]:
    """Colours of values in [0, 1], evenly brighter, readable in grey and with any colour vision.

    Example:
        >>> heat(np.array([[0.0, 1.0]])).tolist()
        [[[0, 0, 4], [252, 253, 191]]]
    """
    from matplotlib import colormaps

    return np.round(255 * colormaps["magma"](values)[..., :3]).astype(np.uint8)
