"""Data sets: three layouts on disk become one list of cases, split by patient.

The layouts are a folder with ``images/`` and ``masks/``, an nnU-Net raw folder
and a ``manifest.csv``; ``load_dataset`` tells them apart.
"""

from __future__ import annotations

import importlib
from typing import Any

from finemask.datasets.check import CaseFacts, CheckReport, check_dataset
from finemask.datasets.dataset import Dataset, Entry
from finemask.datasets.load import load_dataset
from finemask.datasets.split import Split, find_split, make_split

__all__ = [
    "CaseFacts",
    "CheckReport",
    "Dataset",
    "Entry",
    "Split",
    "check_dataset",
    "find_split",
    "load_dataset",
    "make_phantoms",
    "make_split",
]


def __getattr__(name: str) -> Any:
    if name == "make_phantoms":
        return importlib.import_module("finemask.datasets.phantoms").make_phantoms
    raise AttributeError(f"module 'finemask.datasets' has no attribute {name!r}")
