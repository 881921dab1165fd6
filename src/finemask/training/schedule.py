"""When a run ends and what the learning rate is until then."""

from __future__ import annotations

import math

from finemask.errors import UsageError
from finemask.recipe import TrainSettings


def bound_in_steps(settings: TrainSettings, cases: int, devices: int = 1) -> int | None:
    """Optimiser steps after which a run ends, or ``None`` when only minutes bound it.

    Example:
        >>> bound_in_steps(TrainSettings(steps=0, epochs=3, batch_size=4), cases=10)
        8
    """
    bounds = [settings.steps] if settings.steps > 0 else []
    if settings.epochs > 0:
        samples = settings.batch_size * settings.accumulate * devices
        bounds.append(math.ceil(settings.epochs * cases / samples))
    if not bounds and settings.minutes <= 0:
        raise UsageError("train", "has no bound", "give --steps, --epochs or --minutes")
    return min(bounds) if bounds else None


def share_done(
    settings: TrainSettings, step: int, seconds: float, total_steps: int | None
) -> float:
    """How much of the run is done, by the bound that will be reached first; 1 is the end."""
    by_steps = step / total_steps if total_steps else 0.0
    by_time = seconds / (60 * settings.minutes) if settings.minutes > 0 else 0.0
    return max(by_steps, by_time)


class Rhythm:
    """When a run is validated: about twenty times, or ten when only minutes bound it.

    Example:
        >>> rhythm = Rhythm(TrainSettings(), total_steps=100)
        >>> [step for step in range(1, 16) if rhythm.validates(step, step / 100)]
        [5, 10, 15]
    """

    def __init__(self, settings: TrainSettings, total_steps: int | None) -> None:
        self.every = settings.validate_every
        if total_steps and not self.every:
            self.every = max(1, min(500, total_steps // 20))
        self._tenths = 0

    def validates(self, step: int, share: float) -> bool:
        """Whether to validate after this step, at which ``share`` of the run is done."""
        if self.every:
            return step % self.every == 0
        before, self._tenths = self._tenths, int(10 * share)
        return self._tenths > before


def learning_rate_factor(
    settings: TrainSettings, step: int, share: float, plateau_drops: int = 0
) -> float:
    """Learning rate as a share of its peak, in [0, 1].

    Args:
        settings: Schedule and warm-up.
        step: Steps done.
        share: Share of the run that is done, in [0, 1].
        plateau_drops: Times that the ``plateau`` schedule has divided by ten.

    Example:
        >>> learning_rate_factor(TrainSettings(schedule="cosine", warmup_steps=0), 500, 0.5)
        0.5
    """
    share = min(share, 1.0)
    factor = {
        "poly": (1 - share) ** settings.poly_power,
        "linear": 1 - share,
        "triangle": 1 - abs(2 * share - 1),
        "cosine": round(0.5 * (1 + math.cos(math.pi * share)), 12),
        "plateau": 0.1**plateau_drops,
        "constant": 1.0,
    }[settings.schedule]
    if step < settings.warmup_steps:
        factor *= (step + 1) / settings.warmup_steps
    return factor
