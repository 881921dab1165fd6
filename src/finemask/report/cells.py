"""Numbers, metrics and size groups as reports write them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from finemask.metrics.protocols import METRICS
from finemask.report import html

IMAGE_LABELS = {"psnr_db": "PSNR [dB]", "ssim": "SSIM"}
NONE = "\N{EN DASH}"


def name_of(metric: str, unit: str) -> str:
    """A metric for people, with the unit of its values.

    Example:
        >>> name_of("hd95", "mm"), name_of("dice", "mm")
        ('HD95 [mm]', 'Dice')
    """
    if metric in IMAGE_LABELS:
        return IMAGE_LABELS[metric]
    return METRICS[metric].label + (f" [{unit}]" if METRICS[metric].is_length else "")


def show(value: float | None) -> str:
    """A number as people read it, to about three digits; a dash for none.

    Example:
        >>> show(0.81234), show(2.345), show(12.345)
        ('0.812', '2.35', '12.3')
    """
    if value is None or not math.isfinite(value):
        return NONE
    decimals = 3 if abs(value) < 1 else 2 if abs(value) < 10 else 1
    return f"{value:.{decimals}f}"


def number(cell: Mapping[str, Any] | None) -> html.Markup:
    """A mean with its interval below; a dash for none.

    Args:
        cell: With ``n``, ``mean``, ``ci_low`` and ``ci_high``.
    """
    if cell is None or not cell["n"]:
        return html.number(NONE)
    if math.isnan(cell["ci_low"]):
        return html.number(show(cell["mean"]))
    return html.number(show(cell["mean"]), f"{show(cell['ci_low'])} to {show(cell['ci_high'])}")


def ranges_of(names: Sequence[str], edges: Sequence[float | int], unit: str) -> dict[str, str]:
    """Each size group with its limits: ``small, below 4.2 mm``."""
    if not edges:
        return {}
    limits = [
        f"below {edges[0]:.3g} {unit}",
        *(f"{a:.3g} to {b:.3g} {unit}" for a, b in itertools.pairwise(edges)),
        f"{edges[-1]:.3g} {unit} and more",
    ]
    return {
        name: f"{name}, {limit}" if name.isalpha() else limit
        for name, limit in zip(names, limits, strict=True)
    }


def under(label: str, labels: Sequence[str], content: str) -> str:
    """What belongs to a class, under its name where there are several."""
    return html.subsection(label.replace("_", " "), content) if len(labels) > 1 else content
