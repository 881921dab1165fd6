"""Voxels of all cases ranked together by their probability, for pooled areas under curves."""

from __future__ import annotations

from collections.abc import Mapping

from finemask.metrics.calibration import Ranking
from finemask.metrics.comparison import Comparison
from finemask.metrics.protocols import Protocol

ASKED_BY = "average_precision"
"""Protocols with this metric of single cases tell the pooled one too."""


def ranking_of(comparison: Comparison, protocol: Protocol, *, failed: bool) -> Ranking | None:
    """The voxels of one case and class; those of a failed one all have probability 0.

    Returns:
        ``None`` without probabilities, or where the protocol has no use for them.
    """
    probs = comparison.probs
    if ASKED_BY not in protocol.metrics or (probs is None and not failed):
        return None
    return Ranking.of(comparison.pred * 0.0 if probs is None else probs, comparison.truth)


class Rankings:
    """Sums over cases as they come, so that no more than one case is held."""

    def __init__(self) -> None:
        self._sums: dict[str, Ranking | None] = {}

    def take(self, rankings: Mapping[str, Ranking | None]) -> None:
        """Add one case, by class; a class that a case has no probabilities of is given up."""
        for label, ranking in rankings.items():
            known = self._sums.get(label, ranking)
            if label in self._sums and known is not None and ranking is not None:
                known = known + ranking
            self._sums[label] = None if ranking is None else known

    def values(self, label: str) -> dict[str, float]:
        """Areas of a class over all cases, under their own names."""
        total = self._sums.get(label)
        if total is None:
            return {}
        return {
            "average_precision_pooled": total.average_precision,
            "pr_auc_pooled": total.pr_auc,
        }
