"""How far the edges of a layer are from the true ones, for retinal layers in OCT pictures.

A layer runs from column to column; in each it has an upper edge (its first voxel) and
a lower edge (its last). Challenges report a mean Euclidean distance (MED) of these edges
without saying how points are paired, so each pairing has its own name:

* ``med_column``: depth difference in the same column, over columns that both masks have.
* ``med_nearest_sym``: from each edge point to the nearest of the other edge, the mean of both
  directions. Never larger where both masks have the same columns, and kinder to slopes.

Both are the mean of the upper and the lower edge. An edge that is missing
altogether is NaN, never 0: `EdgeRows.missing` counts the columns that only one mask has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Shaped
from numpy import ndarray
from scipy.spatial import cKDTree

from finemask.masks import Spacing, as_masks, as_spacing


@dataclass(frozen=True, eq=False)
class EdgeRows:
    """Upper and lower edge of a layer in every column of two masks.

    Args:
        pred: Row of the first and the last voxel of the prediction; any number without a layer.
        truth: Of the truth.
        in_pred: Columns in which the prediction has the layer.
        in_truth: Columns in which the truth has it.
        spacing: Of rows and columns.
    """

    pred: Int[ndarray, " 2 w"]
    truth: Int[ndarray, " 2 w"]
    in_pred: Bool[ndarray, " w"]
    in_truth: Bool[ndarray, " w"]
    spacing: tuple[float, ...]

    @property
    def missing(self) -> float:
        """Share of the columns with a layer that only one of the masks has; NaN without any."""
        either = np.count_nonzero(self.in_pred | self.in_truth)
        return np.count_nonzero(self.in_pred ^ self.in_truth) / either if either else float("nan")

    @property
    def med_column(self) -> float:
        """Mean depth difference over both edges and the columns that both masks have."""
        both = self.in_pred & self.in_truth
        if not both.any():
            return float("nan")
        difference = np.abs(self.pred[:, both] - self.truth[:, both])
        return float(difference.mean()) * self.spacing[0]

    @property
    def med_nearest_sym(self) -> float:
        """Mean distance to the nearest point of the other edge, over both directions and edges."""
        if not (self.in_pred.any() and self.in_truth.any()):
            return float("nan")
        means = []
        for pred, truth in zip(self.pred, self.truth, strict=True):
            points = [
                np.column_stack([rows[there], np.flatnonzero(there)]) * np.array(self.spacing)
                for rows, there in ((pred, self.in_pred), (truth, self.in_truth))
            ]
            for these, others in (points, points[::-1]):
                means.append(cKDTree(others).query(these)[0].mean())
        return float(np.mean(means))


def edge_rows(
    pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."], spacing_mm: Spacing = 1
) -> EdgeRows:
    """Find the edges of a layer in two masks.

    Args:
        pred: Boolean or integer mask of a picture: rows are depth, columns run along the layer.
        truth: The same, on the same grid.
        spacing_mm: Of rows and columns, or one number; with 1 distances are in voxels.

    Raises:
        ValueError: When the shapes differ or the arrays are no masks of a picture.
    """
    pred, truth = as_masks(pred, truth)
    if pred.ndim != 2:
        raise ValueError(f"layers are found in pictures, got an array of shape {pred.shape}")
    edges = [
        np.stack([mask.argmax(axis=0), len(mask) - 1 - mask[::-1].argmax(axis=0)])
        for mask in (pred, truth)
    ]
    present = [np.asarray(mask.any(axis=0)) for mask in (pred, truth)]
    return EdgeRows(edges[0], edges[1], present[0], present[1], as_spacing(spacing_mm, 2))


def med_column(
    pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."], spacing_mm: Spacing = 1
) -> float:
    """Mean depth difference of the edges of a layer, column by column.

    Example:
        >>> layer = np.zeros((8, 5), bool)
        >>> layer[2:5] = True
        >>> med_column(np.roll(layer, 1, axis=0), layer, spacing_mm=0.5)
        0.5
    """
    return edge_rows(pred, truth, spacing_mm).med_column


def med_nearest_sym(
    pred: Shaped[ndarray, "..."], truth: Shaped[ndarray, "..."], spacing_mm: Spacing = 1
) -> float:
    """Mean distance of edge points of a layer to the nearest on the other, both directions.

    Example:
        >>> layer = np.zeros((8, 5), bool)
        >>> layer[2:5] = True
        >>> med_nearest_sym(np.roll(layer, 2, axis=0), layer)
        2.0
    """
    return edge_rows(pred, truth, spacing_mm).med_nearest_sym
