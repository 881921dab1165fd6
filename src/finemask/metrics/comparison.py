"""One prediction against its truth: what every metric is computed from, costly parts once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from jaxtyping import Bool, Float
from numpy import ndarray

from finemask.metrics import detection, edges, elements, maps, overlap, surface, thresholds


@dataclass(frozen=True, eq=False)
class Comparison:
    """One case and one class: prediction and truth on one grid, costly parts computed once.

    Args:
        pred: Predicted mask.
        truth: True mask.
        spacing: Voxel spacing along each array axis, in mm (or pixels).
        probs: Predicted probabilities in [0, 1], where there are any.
        stretch: Stretch the probabilities to [0, 1] wherever a map is scored, but for ``mae``.
    """

    pred: Bool[ndarray, " *s"]
    truth: Bool[ndarray, " *s"]
    spacing: tuple[float, ...]
    probs: Float[ndarray, " *s"] | None = None
    stretch: bool = False

    @classmethod
    def of_map(
        cls,
        probs: Float[ndarray, " *s"],
        truth: Bool[ndarray, " *s"],
        spacing: tuple[float, ...],
        *,
        stretch: bool = False,
    ) -> Comparison:
        """Compare a map, whose mask is what exceeds 0.5 (after stretching it, if asked for)."""
        unsure = cls(truth, truth, spacing, probs, stretch)
        return cls(unsure.map > 0.5, truth, spacing, probs, stretch)

    @cached_property
    def counts(self) -> overlap.Confusion:
        return overlap.confusion(self.pred, self.truth)

    @cached_property
    def distances(self) -> surface.SurfaceDistances:
        return surface.surface_distances(self.pred, self.truth, self.spacing)

    @cached_property
    def elements(self) -> elements.SurfaceElements:
        return elements.surface_elements(self.pred, self.truth, self.spacing)

    @cached_property
    def detection(self) -> detection.Detection:
        return detection.detect_lesions(self.pred, self.truth, self.spacing)

    @cached_property
    def edges(self) -> edges.EdgeRows:
        return edges.edge_rows(self.pred, self.truth, self.spacing)

    @cached_property
    def map(self) -> Float[ndarray, " *s"]:
        """The probabilities (the mask, where there are none) as the protocol scores them."""
        probs = self.pred if self.probs is None else self.probs
        return maps.minmax(probs) if self.stretch else maps.sixteen_bit(probs)

    @cached_property
    def cuts(self) -> thresholds.Cuts:
        return thresholds.cut_everywhere(self.map, self.truth)

    @property
    def mae(self) -> float:
        """Of the probabilities; NaN where there are none."""
        return math.nan if self.probs is None else overlap.mae(self.probs, self.truth)

    def of_probs(
        self, measure: Callable[[Float[ndarray, " *s"], Bool[ndarray, " *s"]], float]
    ) -> float:
        """A measure of the probabilities; NaN where there are none."""
        return math.nan if self.probs is None else measure(self.probs, self.truth)

    @property
    def mae_mask(self) -> float:
        """Of the binary mask: the share of voxels that are wrong."""
        return overlap.mae(self.pred, self.truth)

    @property
    def mae_minmax(self) -> float:
        """Of the stretched probabilities; NaN where there are none."""
        if self.probs is None:
            return math.nan
        return overlap.mae(maps.minmax(self.probs), self.truth)

    @property
    def emptiness(self) -> str:
        """Which masks are empty, in the words of the report; ``""`` when none is."""
        lesion, found = self.counts.tp + self.counts.fn, self.counts.tp + self.counts.fp
        if not lesion and not found:
            return "both empty"
        if not lesion:
            return "truth empty"
        return "" if found else "prediction empty"
