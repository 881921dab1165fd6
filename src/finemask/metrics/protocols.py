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
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from finemask.metrics import calibration, structure, thresholds
from finemask.metrics.comparison import Comparison


@dataclass(frozen=True)
class Metric:
    """A number for one case and class.

    Args:
        compute: From a comparison to a float; NaN or ``inf`` where undefined.
        label: For people.
        worst: What a failed case scores; ``inf`` is undefined and counted instead.
        higher_is_better: Which way is good.
        is_length: In mm, or pixels where the spacing is unknown.
        by_length: Computed from lengths, so that it needs to know them, though it is none.
        of_probs: Of probabilities, which not every prediction has.
    """

    compute: Callable[[Comparison], float]
    label: str
    worst: float
    higher_is_better: bool = True
    is_length: bool = False
    by_length: bool = False
    of_probs: bool = False


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


def _near(tolerance: float) -> Metric:
    return Metric(lambda c: c.distances.surface_dice(tolerance), f"Surface Dice ({tolerance:g})",
                  0.0, by_length=True)  # fmt: skip


def _near_by_area(tolerance: float) -> Metric:
    return Metric(lambda c: c.elements.surface_dice(tolerance), f"NSD ({tolerance:g})",
                  0.0, by_length=True)  # fmt: skip


def _of_probs(
    measure: Callable[..., float], label: str, worst: float, higher_is_better: bool = True
) -> Metric:
    return Metric(lambda c: c.of_probs(measure), label, worst, higher_is_better, of_probs=True)


def _error(compute: Callable[[Comparison], float], label: str) -> Metric:
    return Metric(compute, label, 1.0, higher_is_better=False)


METRICS = MappingProxyType(
    {
        "dice": Metric(lambda c: c.counts.dice, "Dice", 0.0),
        "iou": Metric(lambda c: c.counts.iou, "IoU", 0.0),
        "sensitivity": Metric(lambda c: c.counts.sensitivity, "Sensitivity", 0.0),
        "precision": Metric(lambda c: c.counts.precision, "Precision", 0.0),
        "specificity": Metric(lambda c: c.counts.specificity, "Specificity", 0.0),
        "mcc": Metric(lambda c: c.counts.mcc, "MCC", 0.0),
        "informedness": Metric(lambda c: c.counts.informedness, "Informedness", 0.0),
        "volume_error": _error(lambda c: c.counts.volume_error, "Volume error"),
        "mae": replace(_error(lambda c: c.mae, "MAE (probabilities)"), of_probs=True),
        "mae_mask": _error(lambda c: c.mae_mask, "MAE (mask)"),
        "mae_minmax": _error(lambda c: c.mae_minmax, "MAE (stretched)"),
        "hd95": _length(lambda c: c.distances.hd95_max, "HD95"),
        "hd95_medpy": _length(lambda c: c.distances.hd95_medpy, "HD95 (pooled)"),
        "hd95_deepmind": _length(lambda c: c.elements.hd95, "HD95 (by area)"),
        "assd": _length(lambda c: c.distances.assd, "ASSD"),
        "surface_dice_1": _near(1.0),
        "surface_dice_2": _near(2.0),
        "nsd_1": _near_by_area(1.0),
        "nsd_2": _near_by_area(2.0),
        "lesions_found": Metric(lambda c: c.detection.sensitivity, "Lesions found", 0.0),
        "lesion_f1": Metric(lambda c: c.detection.f1, "Lesion F1", 0.0),
        "false_lesions": Metric(
            lambda c: float(c.detection.count("false")),
            "False lesions",
            math.inf,
            higher_is_better=False,
        ),
        "average_precision": _of_probs(calibration.average_precision, "AP", 0.0),
        "pr_auc": _of_probs(calibration.pr_auc, "PR-AUC (trapezoid)", 0.0),
        "brier": _of_probs(calibration.brier, "Brier score", 1.0, higher_is_better=False),
        "ece": _of_probs(
            calibration.calibration_error, "Calibration error", 1.0, higher_is_better=False
        ),
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
_OF_LESIONS = (
    " Surface Dice (1), (2): share of both outlines within 1 and 2 mm (px where the spacing is "
    "unknown) of the other; 0 when one mask is empty. NSD and HD95 (by area) weigh pieces of "
    "surface by their area, as DeepMind's surface-distance does. Volume error: difference over the "
    "true volume, undefined without a lesion. Lesions are voxels that touch; one is found when "
    "anything predicted touches it, and a predicted one is false when it touches none. MCC is 0 "
    "where a mask is constant; informedness (BM) is sensitivity + specificity - 1. AP (steps), "
    "PR-AUC (trapezoid), Brier score and calibration error (15 bins) are of the probabilities of "
    "all voxels of a case; pooled ones, where every case has probabilities, of all cases together."
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


def _clinical() -> Protocol:
    """What a reader of a study asks: lesions found, outlines within tolerance, volumes, trust."""
    shown = ("dice", "surface_dice_2", "hd95", "volume_error", "lesions_found", "false_lesions")
    metrics = (
        *shown,
        *("lesion_f1", "iou", *_AT_HALF[2:], "mcc", "informedness", "surface_dice_1"),
        *(
            "nsd_1",
            "nsd_2",
            "hd95_medpy",
            "hd95_deepmind",
            "assd",
            "mae",
            "mae_mask",
            "average_precision",
            "pr_auc",
            "brier",
            "ece",
        ),
    )
    return Protocol("clinical", 2, metrics, "dice", shown, _OF_MASKS + _OF_LESIONS)


def _vessels() -> Protocol:
    """Thin structures and small lesions: overlap and correlation, each image and pooled."""
    shown = ("iou", "dice", "mcc", "informedness", "sensitivity", "precision")
    metrics = (*shown, "specificity", "mae", "average_precision", "pr_auc")
    told = (
        "No smoothing, no field of view. Both masks empty: Dice, IoU and precision are undefined; "
        "one empty: Dice and IoU are 0. MCC is 0 where a mask is constant; informedness (BM) is "
        "sensitivity + specificity - 1. Means are over images; the same of all voxels of all "
        "images together goes by the name pooled, as does their PR-AUC, by 256 thresholds; that "
        "of an image cuts at every value."
    )
    return Protocol("vessels", 1, metrics, "dice", shown, told)


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
            _clinical(),
            _vessels(),
            _polyp_pranet(stretch=True),
            _polyp_pranet(stretch=False),
            _polyp_m2snet(stretch=True),
            _polyp_m2snet(stretch=False),
            _layers(),
        )
    }
)
