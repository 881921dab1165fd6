"""Run folders: what training leaves and everything else starts from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from finemask.errors import DataError
from finemask.methods import Method, Segmenter, create
from finemask.recipe import Recipe
from finemask.training.checkpoint import load_checkpoint, load_weights


@dataclass(frozen=True, repr=False)
class Run:
    """A trained method, ready to predict.

    Args:
        path: The run folder.
        recipe: Complete recipe of the run.
        method: The training network, for what only it can do (super-resolved images).
        segmenter: The inference network in evaluation mode.
        threshold: Probability from which a voxel is foreground, chosen on validation cases.
        meta: Step, scores, versions and checksums of the checkpoint.
    """

    path: Path
    recipe: Recipe
    method: Method
    segmenter: Segmenter
    threshold: float
    meta: dict[str, Any]

    def __repr__(self) -> str:
        score = self.meta["score"]
        told = "not validated" if score is None else f"{self.meta['metric']} {score:.3f}"
        return f"<Run {self.path}: {self.recipe.method}, best at step {self.meta['step']}, {told}>"


def load_run(path: str | Path, which: str = "best", device: str = "cpu") -> Run:
    """Load a run folder whole and verified.

    Args:
        path: Folder that ``finemask train`` wrote.
        which: ``best`` or ``last``.
        device: Where the networks go.

    Raises:
        DataError: When the folder is no run, or damaged.
    """
    folder = Path(path)
    if not (folder / "recipe.toml").is_file():
        raise DataError(folder, "is no run folder (no recipe.toml)", "give what train wrote")
    recipe = Recipe.load(folder / "recipe.toml")
    checkpoints = folder / "checkpoints"
    if which == "best" and not (checkpoints / "best").exists() and (checkpoints / "last").exists():
        raise DataError(
            folder, "was stopped before its first validation", "go on with train --resume"
        )
    checkpoint = load_checkpoint(checkpoints / which)
    with torch.random.fork_rng():  # building a network must not disturb the caller's seed
        method = create(recipe)
    load_weights(method, checkpoint.weights(), checkpoint.path)
    method.to(device).eval().requires_grad_(False)
    segmenter = method.deploy().eval()
    segmenter.window = tuple(checkpoint.meta["window_lr"])
    return Run(
        path=folder,
        recipe=recipe,
        method=method,
        segmenter=segmenter,
        threshold=float(checkpoint.meta["threshold"]),
        meta=checkpoint.meta,
    )
