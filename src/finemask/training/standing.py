"""Where a training run stands: all of its state that is not a tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from finemask.errors import FinemaskError
from finemask.recipe import TrainSettings
from finemask.training.validation import Validation


class TrainingError(FinemaskError):
    """A run that cannot go on, for example because its loss diverged."""


class Interrupted(FinemaskError):
    """A run that was told to stop and saved what it had."""

    exit_code = 1


@dataclass
class Standing:
    """Step, scores and counters of a run; JSON throughout, so that it resumes exactly."""

    step: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    threshold: float = 0.5
    validations_without_gain: int = 0
    plateau_drops: int = 0
    skipped_steps: int = 0
    bad_steps_in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    summed: dict[str, int] = field(default_factory=dict)
    over: bool = False
    loss: float | None = None
    window: list[int] = field(default_factory=list)
    lr_spacing_mm: list[list[float]] = field(default_factory=list)
    equipment: dict[str, str] = field(default_factory=dict)
    scaler: dict[str, float | int] = field(default_factory=dict)
    turn: list[str] = field(default_factory=list)

    def begin(self, players: Sequence[str]) -> Sequence[str]:
        """Note whose turn it is; where others step than before, the best is chosen anew."""
        if self.turn and self.turn != list(players):
            self.best_score, self.validations_without_gain = None, 0
        self.turn = list(players)
        return players

    def add(
        self, parts: Mapping[str, float], settings: TrainSettings, out: Path, names: Sequence[str]
    ) -> None:
        """Count one step and the means of its loss parts.

        Raises:
            TrainingError: After ``max_bad_steps`` non-finite steps in a row.
        """
        # Gradients are the same in every process, so all of them decide alike.
        norms = [value for name, value in parts.items() if name.startswith("gradient_norm")]
        if all(map(math.isfinite, norms)):
            self.bad_steps_in_a_row = 0
            self.loss = parts["loss"]
            for name, value in parts.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.summed[name] = self.summed.get(name, 0) + 1
            return
        self.skipped_steps += 1
        self.bad_steps_in_a_row += 1
        if self.bad_steps_in_a_row >= settings.max_bad_steps:
            raise TrainingError(
                out,
                f"diverged: {self.bad_steps_in_a_row} steps in a row were not finite, "
                f"the last with {', '.join(sorted(set(names))[:5])}",
                "lower train.learning_rate, or look at these cases with finemask check",
            )

    def mean(self, name: str) -> float:
        """Mean of a loss part since the last row of the log."""
        return self.sums.get(name, math.nan) / self.summed.get(name, 1)

    def label(self) -> str:
        """What a progress bar says."""
        loss = f", loss {self.loss:.3f}" if self.loss is not None else ""
        best = "" if self.best_score is None else f", best validation {self.best_score:.3f}"
        return f"training{loss}{best}"

    def judge(self, result: Validation, settings: TrainSettings) -> None:
        """Take note of a validation; the run is over when patience runs out."""
        if self.best_score is None or result.score > self.best_score or not result.cases:
            self.best_score, self.best_step = result.score if result.cases else None, self.step
            self.threshold = result.threshold
            self.validations_without_gain = 0
        else:
            self.validations_without_gain += 1
            if self.validations_without_gain % settings.plateau_patience == 0:
                self.plateau_drops += 1
        if 0 < settings.patience <= self.validations_without_gain:
            self.over = True

    def row(self, result: Validation | None, learning_rate: float, epoch: float) -> dict[str, Any]:
        """One row of the log; the means start anew."""
        row: dict[str, Any] = {"step": self.step, "epoch": round(epoch, 3)}
        row["learning_rate"] = f"{learning_rate:.6g}"
        row |= {name: f"{self.mean(name):.6g}" for name in self.sums}
        row["skipped_steps"] = self.skipped_steps
        if result and result.cases:
            row |= {"val_score": f"{result.score:.6f}", "val_threshold": result.threshold}
            if result.psnr_db is not None:
                row["val_psnr_db"] = f"{result.psnr_db:.4f}"
        self.sums, self.summed = {}, {}
        return row
