"""Run folders: what training leaves and everything else starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from finemask import __version__
from finemask.errors import DataError, UsageError
from finemask.inference import torch_backend
from finemask.inference.model import Machine, Model
from finemask.inference.probe import fastest
from finemask.io.files import sha256, write_text
from finemask.methods import Method, Segmenter, create
from finemask.methods.released import find_released, load_released, released_recipe
from finemask.pairs.guidance import Guide
from finemask.recipe import Recipe
from finemask.training.checkpoint import load_checkpoint, load_weights, save_checkpoint


@dataclass(frozen=True, repr=False)
class Run(Model):
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

    @property
    def explanations(self) -> tuple[str, ...]:
        return self.segmenter.explanations

    @property
    def makes_masks(self) -> bool:
        return self.method.needs_masks

    @property
    def makes_image(self) -> bool:
        return self.method.makes_image()

    @property
    def guide(self) -> Guide | None:
        return self.method.guide

    @property
    def window_lr(self) -> tuple[int, ...]:
        return tuple(self.meta["window_lr"])

    @property
    def reads_hr(self) -> bool:
        return self.segmenter.task.scale != self.recipe.task.scale

    def find_device(self, name: str) -> str:
        return torch_backend.find_device(name)

    def choose(self, machine: Machine) -> Machine:
        backend = "torch" if machine.backend == "auto" else machine.backend
        if backend not in ("torch", "compile"):
            raise UsageError(
                "--backend",
                f"is {backend}, but {self.path} is a run, which torch runs",
                f"export it first: finemask export RUN --to {backend} --out DIR",
            )
        precisions = (
            ["32-true", "bf16-mixed"] if machine.precision == "auto" else [machine.precision]
        )
        choices = [replace(machine, backend=backend, precision=each) for each in precisions]
        return fastest(self, choices)

    def network(self, machine: Machine) -> torch_backend.TorchNetwork:
        return torch_backend.segmenting(self.segmenter, machine)

    def image_network(self, machine: Machine) -> torch_backend.TorchNetwork:
        shipped = self.segmenter
        return torch_backend.resolving(self.method, machine, shipped.stride, shipped.window)

    def explaining_network(self, machine: Machine) -> torch_backend.TorchNetwork:
        return torch_backend.explaining(self.segmenter, machine)

    def sha256(self, whole: bool = False) -> str:
        return torch_backend.weights_sha256(self.method if whole else self.segmenter)


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
    segmenter.window = segmenter.on_its_grid(checkpoint.meta["window_lr"], recipe.task.scale)
    return Run(
        path=folder,
        recipe=recipe,
        method=method,
        segmenter=segmenter,
        threshold=float(checkpoint.meta["threshold"]),
        meta=checkpoint.meta,
    )


def import_released(name: str, weights: str | Path, out: str | Path) -> Run:
    """Write a run folder around weights that a paper's authors released.

    `finemask predict` and `finemask info` take the folder as they take a trained one.
    Nothing is downloaded, and nothing in the file is run.

    Args:
        name: Of the method; `finemask.methods.released` has one file for each.
        weights: The authors' file, ``.pth`` or ``.safetensors``.
        out: Run folder to write.

    Raises:
        DataError: When the file is not the released network.
        UsageError: When the method has none, or ``out`` is there already.

    Example:
        >>> import_released("unet", "weights.pth", "run")
        Traceback (most recent call last):
        ...
        finemask.errors.UsageError: method: 'unet' has no released network that is known here; ...
    """
    released, weights, out = find_released(name), Path(weights), Path(out)
    if out.exists():
        raise UsageError(out, "exists already", "choose another folder")
    method = load_released(name, weights)
    meta = {
        "method": name,
        "step": 0,
        "score": None,
        "metric": "dice",
        "threshold": 0.5,
        "window_lr": list(released.window_lr),
        "lr_spacing_mm": [],
        "versions": {"finemask": __version__, "torch": torch.__version__},
        "data_fingerprint": sha256(weights),
        "source": released.source,
    }
    save_checkpoint(out / "checkpoints" / "best", method.state_dict(), meta)
    write_text(out / "recipe.toml", released_recipe(name).to_toml())
    return load_run(out)
