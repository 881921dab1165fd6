"""Which numbers are reported: every metric with its unit and its worst value, in named sets.

A new metric is a function elsewhere in this package and a line in `METRICS`;
a new protocol is a line in `PROTOCOLS`. A published number names its protocol
and version, so the meaning of a name never changes: the version does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from jaxtyping import Bool, Float
from numpy import ndarray

from finemask.metrics import overlap, surface


@dataclass(frozen=True, eq=False)
class Comparison:
    """One case and one class: prediction and truth on one grid, costly parts computed once.

    Args:
        pred: Predicted mask.
        truth: True mask.
        spacing: Voxel spacing along each array axis, in mm (or pixels).
        probs: Predicted probabilities in [0, 1], where there are any.
    """

    pred: Bool[ndarray, " *s"]
    truth: Bool[ndarray, " *s"]
    spacing: tuple[float, ...]
    probs: Float[ndarray, " *s"] | None = None

    @cached_property
    def counts(self) -> overlap.Confusion:
        return overlap.confusion(self.pred, self.truth)

    @cached_property
    def distances(self) -> surface.SurfaceDistances:
        return surface.surface_distances(self.pred, self.truth, self.spacing)

    @property
    def mae(self) -> float:
        """Of the probabilities; NaN where there are none."""
        return math.nan if self.probs is None else overlap.mae(self.probs, self.truth)

    @property
    def mae_mask(self) -> float:
        """Of the binary mask: the share of voxels that are wrong."""
        return overlap.mae(self.pred, self.truth)

    @property
    def emptiness(self) -> str:
        """Which masks are empty, in the words of the report; ``""`` when none is."""
        lesion, found = self.counts.tp + self.counts.fn, self.counts.tp + self.counts.fp
        if not lesion and not found:
            return "both empty"
        if not lesion:
            return "truth empty"
        return "" if found else "prediction empty"


@dataclass(frozen=True)
class Metric:
    """A number for one case and class.

    Args:
        compute: From a comparison to a float; NaN or ``inf`` where undefined.
        label: For people.
        worst: What a failed case scores; ``inf`` is undefined and counted instead.
        higher_is_better: Which way is good.
        is_length: In mm, or pixels where the spacing is unknown.
    """

    compute: Callable[[Comparison], float]
    label: str
    worst: float
    higher_is_better: bool = True
    is_length: bool = False


@dataclass(frozen=True)
class Protocol:
    """A named set of metrics; ``headline`` orders cases from best to worst."""

    name: str
    version: int
    metrics: tuple[str, ...]
    headline: str

    def describe(self) -> dict[str, Any]:
        """What a file of results says about its metrics."""
        return {
            "name": self.name,
            "version": self.version,
            "headline": self.headline,
            "metrics": {
                name: {
                    "label": METRICS[name].label,
                    "unit": "mm or px" if METRICS[name].is_length else "",
                    "higher_is_better": METRICS[name].higher_is_better,
                    "worst": METRICS[name].worst,
                }
                for name in self.metrics
            },
            "image_range": "PSNR and SSIM: largest less smallest value of the real image",
        }


METRICS = MappingProxyType(
    {
        "dice": Metric(lambda c: c.counts.dice, "Dice", 0.0),
        "iou": Metric(lambda c: c.counts.iou, "IoU", 0.0),
        "sensitivity": Metric(lambda c: c.counts.sensitivity, "Sensitivity", 0.0),
        "precision": Metric(lambda c: c.counts.precision, "Precision", 0.0),
        "specificity": Metric(lambda c: c.counts.specificity, "Specificity", 0.0),
        "mae": Metric(lambda c: c.mae, "MAE (probabilities)", 1.0, higher_is_better=False),
        "mae_mask": Metric(lambda c: c.mae_mask, "MAE (mask)", 1.0, higher_is_better=False),
        "hd95": Metric(
            lambda c: c.distances.hd95_max, "HD95", math.inf, higher_is_better=False, is_length=True
        ),
        "hd95_medpy": Metric(
            lambda c: c.distances.hd95_medpy,
            "HD95 (pooled)",
            math.inf,
            higher_is_better=False,
            is_length=True,
        ),
        "assd": Metric(
            lambda c: c.distances.assd, "ASSD", math.inf, higher_is_better=False, is_length=True
        ),
    }
)

PROTOCOLS = MappingProxyType(
    {
        "segmentation": Protocol(
            name="segmentation",
            version=2,
            metrics=(
                *("dice", "iou", "sensitivity", "precision", "specificity"),
                *("mae", "mae_mask", "hd95", "hd95_medpy", "assd"),
            ),
            headline="dice",
        )
    }
)
