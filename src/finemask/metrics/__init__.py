"""Metrics: pure functions of numpy arrays, units in their names, degenerate cases decided.

>>> import numpy as np
>>> truth = np.zeros((16, 16), bool)
>>> truth[4:12, 4:12] = True
>>> dice(truth, truth), hd95(truth, truth, spacing_mm=0.5)
(1.0, 0.0)
"""

from finemask.metrics.image import psnr, ssim
from finemask.metrics.lesions import components, equivalent_diameter_mm
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
from finemask.metrics.protocols import METRICS, PROTOCOLS, Comparison, Metric, Protocol
from finemask.metrics.statistics import Spread, bootstrap_interval, spread
from finemask.metrics.surface import (
    SurfaceDistances,
    assd,
    hd95,
    hd95_max,
    hd95_medpy,
    hd100,
    surface_distances,
)

__all__ = [
    "METRICS",
    "PROTOCOLS",
    "Comparison",
    "Confusion",
    "Metric",
    "Protocol",
    "Spread",
    "SurfaceDistances",
    "assd",
    "bootstrap_interval",
    "components",
    "confusion",
    "dice",
    "equivalent_diameter_mm",
    "hd95",
    "hd95_max",
    "hd95_medpy",
    "hd100",
    "iou",
    "mae",
    "precision",
    "psnr",
    "sensitivity",
    "specificity",
    "spread",
    "ssim",
    "surface_distances",
]
