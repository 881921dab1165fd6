"""Which numbers are reported: every metric with its unit and its worst value, in named sets.

A new metric is a function elsewhere in this package and a line in `METRICS`;
a new protocol is a line in `PROTOCOLS`. A published number names its protocol
and version, so the meaning of a name never changes: the version does.

Protocols score masks or grey maps of probabilities. Those of the polyp field stretch each map
to [0, 1] first, as its toolboxes do; with ``_raw`` they do not, and an unsure map stays unsure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from finemask.metrics import edges, maps, overlap, structure, surface, thresholds


@dataclass(frozen=True, eq=False)
class Comparison:
    """One case and one class: prediction and truth on one grid, costly parts computed once.

    Args:
        pred: Predicted mask.
        truth: True mask.
        spacing: Voxel spacing along each array axis, in mm (or pixels).
        probs: Predicted probabilities in [0, 1], where there are any.
        stretch: Stretch the probabilities to [0, 1] wherever a map is scored, but for ``mae``.
    """

    pred: Bool[ndarray, " *s"]
    truth: Bool[ndarray, " *s"]
    spacing: tuple[float, ...]
    probs: Float[ndarray, " *s"] | None = None
    stretch: bool = False

    @classmethod
    def of_map(
        cls,
        probs: Float[ndarray, " *s"],
        truth: Bool[ndarray, " *s"],
        spacing: tuple[float, ...],
        *,
        stretch: bool = False,
    ) -> Comparison:
        """Compare a map, whose mask is what exceeds 0.5 (after stretching it, if asked for)."""
        unsure = cls(truth, truth, spacing, probs, stretch)
        return cls(unsure.map > 0.5, truth, spacing, probs, stretch)

    @cached_property
    def counts(self) -> overlap.Confusion:
        return overlap.confusion(self.pred, self.truth)

    @cached_property
    def distances(self) -> surface.SurfaceDistances:
        return surface.surface_distances(self.pred, self.truth, self.spacing)

    @cached_property
    def edges(self) -> edges.EdgeRows:
        return edges.edge_rows(self.pred, self.truth, self.spacing)

    @cached_property
    def map(self) -> Float[ndarray, " *s"]:
        """The probabilities (the mask, where there are none) as the protocol scores them."""
        probs = self.pred if self.probs is None else self.probs
        return maps.minmax(probs) if self.stretch else maps.sixteen_bit(probs)

    @cached_property
    def cuts(self) -> thresholds.Cuts:
        return thresholds.cut_everywhere(self.map, self.truth)

    @property
    def mae(self) -> float:
        """Of the probabilities; NaN where there are none."""
        return math.nan if self.probs is None else overlap.mae(self.probs, self.truth)

    @property
    def mae_mask(self) -> float:
        """Of the binary mask: the share of voxels that are wrong."""
        return overlap.mae(self.pred, self.truth)

    @property
    def mae_minmax(self) -> float:
        """Of the stretched probabilities; NaN where there are none."""
        if self.probs is None:
            return math.nan
        return overlap.mae(maps.minmax(self.probs), self.truth)

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
class Curve:
    """A value for each of 256 thresholds, for one case and class; 0 for a failed case.

    Args:
        compute: From a comparison to the values, from threshold 0 to 1.
        label: For people.
    """

    compute: Callable[[Comparison], Float[ndarray, " 256"]]
    label: str


@dataclass(frozen=True)
class Protocol:
    """A named set of metrics.

    Args:
        name: What a published number names, with the version.
        version: Raised whenever the meaning of a number changes.
        metrics: By name, in the order of the tables.
        headline: Orders cases from best to worst.
        shown: The few metrics of the report's first table.
        conventions: What a reader must know, in sentences.
        curves: Metrics of which the mean curve over the data set is told too, and its maximum.
        of_maps: Whether predictions are maps of probabilities.
        of_pictures: Whether the metrics are defined in 2-D only.
        stretch: Whether each map is stretched to [0, 1] first.
    """

    name: str
    version: int
    metrics: tuple[str, ...]
    headline: str
    shown: tuple[str, ...]
    conventions: str
    curves: tuple[str, ...] = ()
    of_maps: bool = False
    of_pictures: bool = False
    stretch: bool = False

    def describe(self) -> dict[str, Any]:
        """What a file of results says about its metrics."""
        return {
            "name": self.name,
            "version": self.version,
            "headline": self.headline,
            "predictions": "maps" if self.of_maps else "masks",
            "stretched_to_0_1": self.stretch,
            "conventions": self.conventions,
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


CURVES = MappingProxyType(
    {
        "dice_256": Curve(lambda c: c.cuts.dice, "mDice (256)"),
        "iou_256": Curve(lambda c: c.cuts.iou, "mIoU (256)"),
        "e_256": Curve(lambda c: c.cuts.alignment, "E-measure (256)"),
        "sensitivity_256": Curve(lambda c: c.cuts.sensitivity, "Sensitivity (256)"),
        "specificity_256": Curve(lambda c: c.cuts.specificity, "Specificity (256)"),
    }
)
"""Over the thresholds 0, 1/255 ... 1; the metric of the same name is the mean of the curve."""


def _mean_of(curve: Curve) -> Metric:
    return Metric(lambda c: float(np.mean(curve.compute(c))), curve.label, 0.0)


def _length(compute: Callable[[Comparison], float], label: str) -> Metric:
    return Metric(compute, label, math.inf, higher_is_better=False, is_length=True)


def _error(compute: Callable[[Comparison], float], label: str) -> Metric:
    return Metric(compute, label, 1.0, higher_is_better=False)


METRICS = MappingProxyType(
    {
        "dice": Metric(lambda c: c.counts.dice, "Dice", 0.0),
        "iou": Metric(lambda c: c.counts.iou, "IoU", 0.0),
        "sensitivity": Metric(lambda c: c.counts.sensitivity, "Sensitivity", 0.0),
        "precision": Metric(lambda c: c.counts.precision, "Precision", 0.0),
        "specificity": Metric(lambda c: c.counts.specificity, "Specificity", 0.0),
        "mae": _error(lambda c: c.mae, "MAE (probabilities)"),
        "mae_mask": _error(lambda c: c.mae_mask, "MAE (mask)"),
        "mae_minmax": _error(lambda c: c.mae_minmax, "MAE (stretched)"),
        "hd95": _length(lambda c: c.distances.hd95_max, "HD95"),
        "hd95_medpy": _length(lambda c: c.distances.hd95_medpy, "HD95 (pooled)"),
        "assd": _length(lambda c: c.distances.assd, "ASSD"),
        "s_measure": Metric(lambda c: structure.s_measure(c.map, c.truth), "S-measure", 0.0),
        "weighted_f": Metric(lambda c: structure.weighted_f(c.map, c.truth), "Weighted F", 0.0),
        "dice_soft": Metric(lambda c: structure.dice_soft(c.map, c.truth), "Soft Dice", 0.0),
        "iou_half": Metric(lambda c: structure.iou_half(c.map, c.truth), "IoU at 0.5", 0.0),
        "e_adaptive": Metric(
            lambda c: thresholds.e_measure_adaptive(c.map, c.truth), "E-measure (adaptive)", 0.0
        ),
        "med_column": _length(lambda c: c.edges.med_column, "MED (column)"),
        "med_nearest_sym": _length(lambda c: c.edges.med_nearest_sym, "MED (nearest)"),
        "columns_missing": _error(lambda c: c.edges.missing, "Columns missing"),
        **{name: _mean_of(curve) for name, curve in CURVES.items()},
    }
)

_OF_MASKS = (
    "No smoothing. Both masks empty: Dice, IoU, precision and surface distances are undefined. "
    "One empty: Dice and IoU are 0, surface distances undefined; on a sheared grid they and "
    "the size of the lesion are undefined. MAE is of the probabilities where a case has them, "
    "MAE (mask) of the mask. Undefined values are left out "
    "of means and counted. HD95 is the larger of the two directed 95th percentiles; the pooled "
    "one goes by its own name. ASSD pools both directions."
)
_CUT = (
    " Dice, IoU, sensitivity, precision and specificity without a number of thresholds are of the "
    "map cut above 0.5, without smoothing, and undefined where nothing is there to be compared."
)
_STRETCHED = "Each map is stretched to [0, 1] first, but for MAE (probabilities)."
_AS_IT_IS = "Maps are taken as they are, not stretched."
_PRANET = (
    " (256): mean over the thresholds 0, 1/255 ... 1, so that even a perfect mask stays "
    "below 1 in Dice and IoU; 0 wherever no lesion is found, also where there is none. The "
    "maximum is that of the mean curve of all cases. Weighted F without a lesion is 0." + _CUT
)
_M2SNET = (
    " Soft Dice is of the map, never cut; IoU is at 0.5; both smoothed by 1e-5, so that they are "
    "1 where both are empty. The adaptive E-measure cuts at twice the mean of the map, at most 1; "
    "all of a map of zeros is then foreground. Weighted F without a lesion is 0." + _CUT
)
_AT_HALF = ("dice", "iou", "sensitivity", "precision", "specificity")


def _segmentation() -> Protocol:
    shown = ("dice", "iou", "sensitivity", "precision", "hd95", "assd")
    metrics = (*_AT_HALF, "mae", "mae_mask", "hd95", "hd95_medpy", "assd")
    return Protocol("segmentation", 2, metrics, "dice", shown, _OF_MASKS)


def _polyp_pranet(*, stretch: bool) -> Protocol:
    """Dice and IoU over 256 thresholds, as in the evaluation toolbox of PraNet."""
    mae = "mae_minmax" if stretch else "mae"
    shown = ("dice_256", "iou_256", "weighted_f", "s_measure", "e_256", mae)
    further = ("e_adaptive", "sensitivity_256", "specificity_256", *_AT_HALF)
    return Protocol(
        name="polyp_pranet" if stretch else "polyp_pranet_raw",
        version=1,
        metrics=(*shown, *further, *(["mae"] if stretch else [])),
        headline="dice_256",
        shown=shown,
        conventions=(_STRETCHED if stretch else _AS_IT_IS) + _PRANET,
        curves=tuple(CURVES),
        of_maps=True,
        of_pictures=True,
        stretch=stretch,
    )


def _polyp_m2snet(*, stretch: bool) -> Protocol:
    """Soft Dice and IoU at 0.5, as in the published code of M2SNet."""
    mae = "mae_minmax" if stretch else "mae"
    shown = ("dice_soft", "iou_half", "weighted_f", "s_measure", "e_adaptive", mae)
    return Protocol(
        name="polyp_m2snet" if stretch else "polyp_m2snet_raw",
        version=1,
        metrics=(*shown, *_AT_HALF, *(["mae"] if stretch else [])),
        headline="dice_soft",
        shown=shown,
        conventions=(_STRETCHED if stretch else _AS_IT_IS) + _M2SNET,
        of_maps=True,
        of_pictures=True,
        stretch=stretch,
    )


def _layers() -> Protocol:
    """Retinal layers in pictures whose columns run along them."""
    shown = ("dice", "med_nearest_sym", "med_column", "columns_missing")
    told = (
        "MED: mean distance of the upper and the lower edge of a layer, to the nearest point "
        "of the true edge (both directions) or within the column. Columns that only one mask has "
        "are left out of MED (column) and counted; without a common one MED is undefined."
    )
    metrics = (*shown, "iou", "hd95")
    return Protocol("layers", 1, metrics, "dice", shown, told, of_pictures=True)


PROTOCOLS = MappingProxyType(
    {
        protocol.name: protocol
        for protocol in (
            _segmentation(),
            _polyp_pranet(stretch=True),
            _polyp_pranet(stretch=False),
            _polyp_m2snet(stretch=True),
            _polyp_m2snet(stretch=False),
            _layers(),
        )
    }
)
