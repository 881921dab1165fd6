"""Public data sets, read as they are downloaded: one small reader a set."""

from __future__ import annotations

from finemask.datasets.public.prepare import Prepared, prepare_dataset
from finemask.datasets.public.records import PublicSet
from finemask.datasets.public.registry import PUBLIC, find_public
from finemask.datasets.public.table import describe_sets, sets_as_dicts, sets_as_markdown

__all__ = [
    "PUBLIC",
    "Prepared",
    "PublicSet",
    "describe_sets",
    "find_public",
    "prepare_dataset",
    "sets_as_dicts",
    "sets_as_markdown",
]
