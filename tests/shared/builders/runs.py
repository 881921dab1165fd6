"""Run folders around a small network that has learnt nothing, to try commands on."""

from __future__ import annotations

from pathlib import Path

import torch

from finemask.io.files import write_text
from finemask.methods import create
from finemask.recipe import Recipe, Task
from finemask.training.checkpoint import save_checkpoint


def untrained(folder: Path, dims: int, channels: int = 1) -> Path:
    """A run folder as ``finemask train`` leaves it."""
    torch.manual_seed(0)
    recipe = Recipe("unet", Task(dims, channels, scale=(2,)), config={"width": 4, "depth": 2})
    meta = {
        "method": "unet", "step": 1, "score": None, "metric": "dice", "threshold": 0.5,
        "window_lr": [8] * dims, "lr_spacing_mm": [], "versions": {}, "data_fingerprint": "",
    }  # fmt: skip
    save_checkpoint(folder / "checkpoints" / "best", create(recipe).state_dict(), meta)
    write_text(folder / "recipe.toml", recipe.to_toml())
    return folder
