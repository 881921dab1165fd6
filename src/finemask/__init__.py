"""finemask: high-resolution lesion masks from low-resolution medical images.

The functions behind the commands, loaded when first used so that importing
the package stays light.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Case": "finemask.case",
    "Geometry": "finemask.geometry",
    "Recipe": "finemask.recipe",
    "FinemaskError": "finemask.errors",
    "read_case": "finemask.io",
    "write_image": "finemask.io",
    "write_labels": "finemask.io",
    "load_dataset": "finemask.datasets",
    "Split": "finemask.datasets",
    "make_phantoms": "finemask.datasets",
    "prepare": "finemask.preparation",
    "prepare_dataset": "finemask.datasets.public",
    "to_grid": "finemask.preparation",
    "make_pair": "finemask.pairs.degradation",
    "soften": "finemask.annotation.cohort",
    "METHODS": "finemask.methods",
    "train": "finemask.training.loop",
    "adapt": "finemask.adapt",
    "load_run": "finemask.runs",
    "predict": "finemask.inference.cohort",
    "export": "finemask.deploy.export",
    "load_exported": "finemask.deploy.exported",
    "evaluate": "finemask.evaluation.cohort",
    "compare": "finemask.comparison.compare",
    "soft_mask": "finemask.softmask.matting",
}
__all__ = ["__version__", "metrics", *_HOMES]


def __getattr__(name: str) -> Any:
    if name == "metrics":
        return importlib.import_module("finemask.metrics")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'finemask' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
