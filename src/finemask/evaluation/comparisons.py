"""What was predicted for a case beside its truth, class by class: masks, or maps of probabilities.

A protocol of maps takes them from ``<case>_probs`` (``<case>_probs_<class>`` for several
classes), else reads the prediction itself as a grey picture. Maps are scored at the
size of the truth and never resized.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.errors import DataError, UsageError
from finemask.evaluation.matching import (
    Predicted,
    Truth,
    read_predicted_probs,
    read_prediction,
)
from finemask.io import read_probs
from finemask.io.cases import on_grid
from finemask.metrics.comparison import Comparison
from finemask.metrics.protocols import Protocol


def compare(
    predicted: Predicted, truth: Truth, labels: Mapping[str, int], protocol: Protocol
) -> list[Comparison]:
    """Every class of a case, in class order.

    Raises:
        DataError: When a file is unsound, on another grid or of other classes.
    """
    spacing, classes = truth.geometry.spacing, range(1, len(labels) + 1)
    if protocol.of_maps:
        maps = _read_maps(predicted, truth, labels)
        return [
            Comparison.of_map(maps[k - 1], truth.classes == k, spacing, stretch=protocol.stretch)
            for k in classes
        ]
    masks = read_prediction(predicted.mask, labels, truth)
    probs = read_predicted_probs(predicted.probs, len(labels), truth) if predicted.probs else None
    return [
        Comparison(
            masks == k, truth.classes == k, spacing, probs[k - 1] if probs is not None else None
        )
        for k in classes
    ]


def predicted_classes(
    predicted: Predicted, truth: Truth, labels: Mapping[str, int], protocol: Protocol
) -> NDArray[Any]:
    """The predicted mask, for pictures; of maps, the likeliest class that exceeds one half."""
    if not protocol.of_maps:
        return read_prediction(predicted.mask, labels, truth)
    found = [(c.map, c.pred) for c in compare(predicted, truth, labels, protocol)]
    likeliest = np.argmax([one for one, _ in found], axis=0) + 1
    return np.where(np.any([mask for _, mask in found], axis=0), likeliest, 0).astype(np.uint8)


def check_dimensions(case: str, truth: Truth, protocol: Protocol) -> None:
    """Refuse volumes where a protocol is defined on pictures.

    Raises:
        UsageError: When the truth is a volume.
    """
    if protocol.of_pictures and truth.geometry.ndim != 2:
        raise UsageError(
            case,
            f"is a volume, protocol {protocol.name} is defined on pictures",
            "choose --protocol segmentation",
        )


def _read_maps(
    predicted: Predicted, truth: Truth, labels: Mapping[str, int]
) -> NDArray[np.float32]:
    """``(F, *S)`` in [0, 1] on the grid of the truth; a label map counts as maps of 0 and 1."""
    if predicted.probs:
        return read_predicted_probs(predicted.probs, len(labels), truth)
    if len(labels) > 1:
        masks = read_prediction(predicted.mask, labels, truth)
        return np.stack([masks == k for k in range(1, len(labels) + 1)]).astype(np.float32)
    probs, geometry = read_probs(predicted.mask)
    if (probs != probs[0]).any():
        raise DataError(
            predicted.mask, "is in colour, a map of probabilities is grey", "save it as grey"
        )
    return on_grid(predicted.mask, probs[:1], geometry, truth.geometry, "the truth")
