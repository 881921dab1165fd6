"""What is scored against what: truths and predictions of one name, or of one pseudonym."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from finemask.errors import DataError
from finemask.evaluation.matching import (
    Predicted,
    Truths,
    find_predictions,
    find_truths,
    nearest_names,
    select,
    single_files,
)
from finemask.metrics.protocols import Protocol
from finemask.pseudonyms import Pseudonyms


def pair(
    pred: Path,
    truth: Path,
    protocol: Protocol,
    *,
    images: Path | None = None,
    group: str | None = None,
    cases: Collection[str] | None = None,
    pseudonyms: Pseudonyms | None = None,
) -> tuple[Truths, dict[str, Predicted]]:
    """Cases that must be scored, and predictions by the name of the case they belong to.

    Args:
        pred: Folder of masks, a table, or one mask.
        truth: Folder of masks, a data set, or one mask.
        protocol: Whether it scores maps.
        images: Folder of images, where ``truth`` has none.
        group: Column of the manifest that names the patient.
        cases: Only these, by name or pseudonym.
        pseudonyms: Rename all cases; predictions may have the names or the pseudonyms.

    Raises:
        DataError: When nothing can be scored.
        UsageError: On a case or a column that does not exist.
    """
    truths = known = find_truths(truth, images=images, group=group)
    if pseudonyms:
        truths = _renamed(truths, pseudonyms)
        known = Truths(truths.labels, {**known.cases, **truths.cases})
        cases = None if cases is None else [pseudonyms(name) for name in cases]
    truths = select(truths, cases, truth)
    predictions = find_predictions(pred, known, of_maps=protocol.of_maps)
    if (only := single_files(pred, truth)) is not None:
        only = pseudonyms(only) if pseudonyms else only
        return truths, {only: next(iter(predictions.values()))}
    if pseudonyms:
        predictions = {pseudonyms(name): found for name, found in predictions.items()}
    if not set(predictions) & set(truths.cases):
        raise DataError(
            pred,
            f"has no mask named as a truth ({nearest_names(truths.cases, predictions)})",
            "name the masks as the cases",
        )
    return truths, predictions


def _renamed(truths: Truths, names: Pseudonyms) -> Truths:
    cases = [replace(c, name=names(c.name), group=names(c.group)) for c in truths.cases.values()]
    return Truths(truths.labels, {case.name: case for case in cases})
