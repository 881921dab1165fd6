"""Makes sod_maps.json: small grey maps scored by PySODMetrics, outside this package.

    pip install pysodmetrics==1.6.2
    python tests/golden/make_sod_maps.py

Every map spans 0 to 255, so that stretching it changes nothing and the truncation of its
rounded quotients (an error of PySODMetrics) cannot show. Where PySODMetrics is wrong about the
S-measure (centroids at one half, empty quadrants), the case says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

CASES = 13
FILE = Path(__file__).with_name("sod_maps.json")


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey map and a mask that it resembles more or less."""
    rng = np.random.default_rng(number)
    shape = tuple(rng.integers(9, 27, 2))
    truth = ndimage.gaussian_filter(rng.normal(size=shape), 1 + number % 4) > 0.02
    if number == 9:
        truth[:] = False
    if number == 10:
        truth[:] = True
    if number == 11:
        truth[:] = False
        truth[4, -1] = True  # the quadrants right of it have no voxel
    if number == 12:
        truth[:] = False
        truth[2:5, 2:4] = True  # its centroid is in column 2.5
    soft = ndimage.gaussian_filter(truth + rng.normal(0, 0.2 * (number % 5), shape), 0.8)
    soft = (soft - soft.min()) / max(np.ptp(soft), 1e-9) if number != 10 else rng.random(shape)
    grey = np.round(255 * soft).astype(np.uint8)
    grey.flat[grey.argmin()], grey.flat[grey.argmax()] = 0, 255
    return grey, truth


def half_to_even_matters(truth: np.ndarray) -> bool:
    """Whether NumPy rounds a coordinate of the centroid down where MATLAB rounds it up."""
    if not truth.any() or truth.all():
        return False
    doubled = 2 * np.argwhere(truth).sum(axis=0) / truth.sum()
    return bool(np.any((doubled % 4) == 1))


def score(grey: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Values of PySODMetrics; curves from threshold 0 to 1."""
    import py_sod_metrics as sod

    handlers = {"dice": sod.DICEHandler, "iou": sod.IOUHandler, "sensitivity": sod.RecallHandler}
    overlap = sod.FmeasureV2({n: h(True, False) for n, h in handlers.items()})
    s, e, w, mae = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure(), sod.MAE()
    for metric in (overlap, s, e, w, mae):
        metric.step(grey, np.where(truth, 255, 0).astype(np.uint8))
    curves = {name: value["dynamic"][::-1] for name, value in overlap.get_results().items()}
    curves["e"] = e.get_results()["em"]["curve"][::-1]
    return {
        "s_measure": float(s.sms[0]) if np.isfinite(s.sms[0]) else None,
        "weighted_f": float(w.weighted_fms[0]),
        "mae": float(mae.maes[0]),
        "e_adaptive": float(e.adaptive_ems[0]),
        **{f"{n}_mean": float(c.mean()) for n, c in curves.items()},
        **{f"{n}_max": float(c.max()) for n, c in curves.items()},
        **{f"{n}_at_128": float(c[128]) for n, c in curves.items()},
    }


def main() -> None:
    cases = []
    for number in range(CASES):
        grey, truth = draw(number)
        case = {"grey": [row.tobytes().hex() for row in grey],
                "truth": ["".join("01"[v] for v in row) for row in truth.astype(int)]}  # fmt: skip
        wrong = [] if not half_to_even_matters(truth) else ["centroid at one half"]
        wrong += ["empty quadrant"] if number == 11 else []
        cases.append({**case, "s_measure_is_wrong": wrong, "values": score(grey, truth)})
    made = "pysodmetrics 1.6.2 by make_sod_maps.py; grey in hexadecimal, a string a row"
    FILE.write_text(json.dumps({"made": made, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
