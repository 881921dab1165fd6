"""What tests of training need: all of a run that may not depend on how it was made, and a stop."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from finemask.training import loop


def weights(run: Path, which: str) -> dict[str, Tensor]:
    """Of the checkpoint ``best`` or ``last``."""
    return load_file(run / "checkpoints" / which / "model.safetensors")


def contents(run: Path) -> dict[str, object]:
    """Everything of a run that must be the same whenever it was interrupted."""
    state = load_file(run / "checkpoints/last/state.safetensors")
    standing = json.loads((run / "checkpoints/last/meta.json").read_text())["standing"]
    standing.pop("seconds")
    return {
        "last": {k: v.numpy().tobytes() for k, v in weights(run, "last").items()},
        "best": {k: v.numpy().tobytes() for k, v in weights(run, "best").items()},
        "state": {k: v.numpy().tobytes() for k, v in state.items()},
        "standing": standing,
        "log": (run / "log.csv").read_text(),
        "recipe": (run / "recipe.toml").read_text(),
        "splits": (run / "splits.json").read_text(),
    }


def interrupt_after(monkeypatch: pytest.MonkeyPatch, turns: int) -> None:
    """Deliver SIGTERM to this process in that turn of a player, or step where there is one."""
    real, count = loop.step_player, iter(range(1, 1000))

    def stepping(*arguments: object, **options: object) -> dict[str, float]:
        if next(count) == turns:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "step_player", stepping)
