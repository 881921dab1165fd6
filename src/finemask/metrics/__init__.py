"""Metrics: pure functions of numpy arrays, units in their names, degenerate cases decided.

>>> import numpy as np
>>> truth = np.zeros((16, 16), bool)
>>> truth[4:12, 4:12] = True
>>> dice(truth, truth), hd95(truth, truth, spacing_mm=0.5)
(1.0, 0.0)
"""

from finemask.metrics.calibration import (
    Ranking,
    average_precision,
    brier,
    calibration_error,
    pr_auc,
)
from finemask.metrics.comparison import Comparison
from finemask.metrics.detection import Detection, Lesion, detect_lesions
from finemask.metrics.edges import EdgeRows, edge_rows, med_column, med_nearest_sym
from finemask.metrics.elements import (
    SurfaceElements,
    hd95_deepmind,
    surface_dice_area,
    surface_elements,
)
from finemask.metrics.image import psnr, ssim
from finemask.metrics.lesions import components, equivalent_diameter_mm
from finemask.metrics.maps import grey_levels, minmax
from finemask.metrics.overlap import (
    Confusion,
    confusion,
    dice,
    iou,
    mae,
    precision,
    sensitivity,
    specificity,
)
from finemask.metrics.paired import (
    PairedDifference,
    holm,
    paired_difference,
    rank_biserial,
    wilcoxon_p,
)
from finemask.metrics.protocols import (
    CURVES,
    METRICS,
    PROTOCOLS,
    Curve,
    Metric,
    Protocol,
)
from finemask.metrics.statistics import Spread, bootstrap_interval, spread
from finemask.metrics.structure import dice_soft, iou_half, s_measure, weighted_f
from finemask.metrics.surface import (
    SurfaceDistances,
    assd,
    hd95,
    hd95_max,
    hd95_medpy,
    hd100,
    surface_dice,
    surface_distances,
)
from finemask.metrics.thresholds import Cuts, cut_adaptively, cut_everywhere, e_measure_adaptive

__all__ = [
    "CURVES",
    "METRICS",
    "PROTOCOLS",
    "Comparison",
    "Confusion",
    "Curve",
    "Cuts",
    "Detection",
    "EdgeRows",
    "Lesion",
    "Metric",
    "PairedDifference",
    "Protocol",
    "Ranking",
    "Spread",
    "SurfaceDistances",
    "SurfaceElements",
    "assd",
    "average_precision",
    "bootstrap_interval",
    "brier",
    "calibration_error",
    "components",
    "confusion",
    "cut_adaptively",
    "cut_everywhere",
    "detect_lesions",
    "dice",
    "dice_soft",
    "e_measure_adaptive",
    "edge_rows",
    "equivalent_diameter_mm",
    "grey_levels",
    "hd95",
    "hd95_deepmind",
    "hd95_max",
    "hd95_medpy",
    "hd100",
    "holm",
    "iou",
    "iou_half",
    "mae",
    "med_column",
    "med_nearest_sym",
    "minmax",
    "paired_difference",
    "pr_auc",
    "precision",
    "psnr",
    "rank_biserial",
    "s_measure",
    "sensitivity",
    "specificity",
    "spread",
    "ssim",
    "surface_dice",
    "surface_dice_area",
    "surface_distances",
    "surface_elements",
    "weighted_f",
    "wilcoxon_p",
]
