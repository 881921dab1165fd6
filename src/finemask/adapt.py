"""Test-phase fine-tuning: a trained method learns once more from the images it is to predict.

No labels are needed. The run first predicts every image; these masks, cut at its
threshold, stand in for the truth, and the image itself is the truth of the
super-resolved one. Then all weights (but those that a strategy freezes) take
small steps, one image a step, each image once. Nothing is augmented.

The images are taken as training takes them: as HR images that are reduced to LR
ones. So what is learnt is what these scanners and patients look like, and it serves
the prediction of LR images, too. The run that is given is never changed. Because
a whole cohort is learnt from at once, a score after it belongs beside one without it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import optim

from finemask.datasets import Split
from finemask.errors import DataError, FinemaskError, UsageError
from finemask.inference.inputs import Source, find_sources, of_part
from finemask.inference.model import Machine
from finemask.inference.network import guidance_of, image_of, run_whole, to_labels
from finemask.inference.view import View, view_case
from finemask.io.files import write_text
from finemask.io.tables import csv_table
from finemask.methods.base import Adaptation, Method
from finemask.metrics import dice
from finemask.outcome import Outcome
from finemask.pairs.batches import Batch, PairDataset, collate
from finemask.preparation import for_lr, prepare
from finemask.progress import Track, silent
from finemask.runs import Run, load_run
from finemask.training.checkpoint import save_checkpoint
from finemask.training.job import claimed

LEARNING_RATE = 1e-5
"""The paper's, for every strategy."""
COLUMNS = ("case", "voxels_before", "voxels_after", "dice_before_after")
"""Of ``adaptation.csv``."""


@dataclass(frozen=True)
class Tuning:
    """How a run is fine-tuned.

    Args:
        strategy: Name in the method's ``adaptations``; empty takes the first.
        epochs: Times that each image is learnt from.
        learning_rate: Of Adam.
    """

    strategy: str = ""
    epochs: int = 1
    learning_rate: float = LEARNING_RATE

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError("--epochs", f"is {self.epochs}", "give 1 or more")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError("--learning-rate", f"is {self.learning_rate}", "give a positive one")


def adapt(
    run: Run | str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    strategy: str = "",
    epochs: int = 1,
    learning_rate: float = LEARNING_RATE,
    part: str | None = None,
    overwrite: bool = False,
    device: str = "auto",
    progress: Track = silent,
) -> Outcome:
    """Fine-tune a run on a cohort of unlabelled images and leave a new run folder.

    Beside what a run folder holds there is ``adaptation.csv``: for each image the foreground
    voxels of its mask before and after, and the Dice overlap of the two.

    Args:
        run: A trained run, or the folder of one; it is not changed.
        inputs: Files, folders of images, data sets, DICOM series; labels are not read.
        out: Run folder to write.
        strategy: One of the method's; its usual one if empty.
        epochs: Times that each image is learnt from.
        learning_rate: Of Adam.
        part: Only these cases of the run's split: ``train``, ``val`` or ``test``.
        overwrite: Replace an existing run.
        device: ``auto``, ``cpu``, ``cuda``, ...
        progress: Tells the user how far it is.

    Returns:
        How many images were learnt from and how many could not be read.

    Raises:
        UsageError: When the method does not define such a fine-tuning, or the folder is there.
        DataError: When no image can be used, or the weights are not finite any more.
    """
    run, out = run if isinstance(run, Run) else load_run(run), Path(out)
    tuning = Tuning(strategy, epochs, learning_rate)
    chosen = find_adaptation(run, tuning.strategy)
    paths = [inputs] if isinstance(inputs, (str, Path)) else inputs
    sources = of_part(find_sources(paths), run.path, part)
    machine = Machine(run.find_device(device))
    with claimed(out, overwrite):
        adapted, before, failures = fine_tuned(run, sources, tuning, machine, progress)
        kept = {k: v for k, v in run.meta.items() if k not in ("format", "sha256", "standing")}
        kept["adapted"] = {
            "from_sha256": run.sha256(whole=True),
            "strategy": tuning.strategy or next(iter(run.method.adaptations())),
            "losses": list(chosen.parts),
            "epochs": epochs,
            "learning_rate": learning_rate,
            "images": len(before),
        }
        rows = list(_changes(adapted, sources, before, machine, progress))
        write_text(out / "recipe.toml", run.recipe.to_toml(), overwrite=True)
        if (run.path / "splits.json").exists():
            Split.load(run.path / "splits.json").save(out / "splits.json")
        write_text(out / "adaptation.csv", csv_table(COLUMNS, rows), overwrite=True)
        save_checkpoint(out / "checkpoints" / "best", adapted.method.state_dict(), kept)
    return Outcome(len(before), len(failures), 0, tuple(failures))


def find_adaptation(run: Run, strategy: str = "") -> Adaptation:
    """The strategy of a name, of those that the run's method defines.

    Raises:
        UsageError: When it defines none, or not this one.
    """
    known = run.method.adaptations()
    if not known:
        raise UsageError(
            run.path,
            f"is a run of {run.recipe.method}, which as configured defines no test-phase "
            "fine-tuning",
            "take a run of a method that does (pfseg with its SRT branch)",
        )
    if strategy and strategy not in known:
        raise UsageError("--strategy", f"is {strategy!r}", f"choose one of {', '.join(known)}")
    return known[strategy or next(iter(known))]


def fine_tuned(
    run: Run,
    sources: Sequence[Source],
    tuning: Tuning,
    machine: Machine,
    progress: Track = silent,
) -> tuple[Run, dict[str, UInt8[ndarray, " *s"]], list[FinemaskError]]:
    """The run with weights that learnt from images without labels.

    Returns:
        A new run; the masks that it learnt from, by case, in the prepared orientation; and
        the errors of images that were left out.

    Raises:
        UsageError: When the method does not define such a fine-tuning.
        DataError: When no image can be used, or the weights are not finite any more.
    """
    chosen = find_adaptation(run, tuning.strategy)
    labels: dict[str, UInt8[ndarray, " *s"]] = {}
    usable, failures = [], list[FinemaskError]()
    for source in progress(sources, "labelling", len(sources)):
        try:
            labels[source.name] = own_labels(run, _view(run, source), machine)
            usable.append(source)
        except FinemaskError as error:
            failures.append(error)
        except Exception as error:  # a bad image costs only itself
            text = " ".join(str(error).split())[:300]
            told = f"could not be labelled ({type(error).__name__}: {text})"
            failures.append(DataError(source.path, told, "leave it out"))
    if not usable:
        raise failures[0] if failures else DataError(run.path, "was given no image", "name some")
    method = copy.deepcopy(run.method).to(machine.device).requires_grad_(True).train()
    for name in chosen.frozen:
        method.get_submodule(name).requires_grad_(False)
    learnt = [p for p in method.parameters() if p.requires_grad]
    optimiser = optim.Adam(learnt, tuning.learning_rate)
    order = [source for _ in range(tuning.epochs) for source in usable]
    for source in progress(order, "fine-tuning", len(order)):
        batch = batch_of(run, source, labels[source.name]).to(machine.device)
        step(method, batch, chosen, optimiser)
    if not all(bool(weight.isfinite().all()) for weight in learnt):
        raise DataError(
            run.path, "lost its weights to values that are not finite", "lower --learning-rate"
        )
    method.eval().requires_grad_(False)
    segmenter = method.deploy().eval()
    segmenter.window = run.segmenter.window
    return replace(run, method=method, segmenter=segmenter), labels, failures


def step(
    method: Method, batch: Batch, chosen: Adaptation, optimiser: optim.Optimizer
) -> dict[str, float]:
    """One step on one image, and the loss parts that it was made of."""
    weights, parts = method.weights(), method.losses(batch)
    used = {name: parts[name] for name in chosen.parts if name in parts}
    optimiser.zero_grad()
    torch.stack([weights[name] * part for name, part in used.items()]).sum().backward()
    optimiser.step()
    return {name: float(part.detach()) for name, part in used.items()}


def own_labels(run: Run, view: View, machine: Machine) -> UInt8[ndarray, " *s"]:
    """The run's own mask of an image on its HR grid: the pseudo-label."""
    guidance, image = guidance_of(run, view), image_of(run, view)
    probs = run_whole(run.network(machine), image, guidance)
    inside = tuple(slice(0, side) for side in view.result.shape)
    return to_labels(probs[(slice(None), *inside)], run.threshold)


def batch_of(run: Run, source: Source, labels: UInt8[ndarray, " *s"]) -> Batch:
    """An image whole, with these labels for its truth, as training would see it unaugmented."""
    recipe, shipped = run.recipe, run.segmenter
    real = recipe.pairs.degrade == "real"
    settings = recipe.prepare.fixed if real else recipe.prepare
    prepared = replace(prepare(_view(run, source).case, settings), truth=labels)
    lr_case = source.read_lr() if real else None
    lr_settings = for_lr(settings, recipe.task.scale)
    pairs = replace(
        recipe.pairs,
        flip=False,
        rotation_deg=0.0,
        zoom=0.0,
        shift=0.0,
        intensity=0.0,
        noise=0.0,
        lesion_fraction=0.0,
        whole=False,
        target="hard",
    )
    window = [n * f for n, f in zip(shipped.window, shipped.task.scale, strict=True)]
    sides = [max(n, w) for n, w in zip(prepared.geometry.shape, window, strict=True)]
    samples = PairDataset(
        [prepared],
        recipe.task.scale,
        pairs,
        recipe.task.foreground,
        seed=0,
        guide=run.method.guide,
        crop=sides,
        stride=shipped.stride,
        lr_cases=None if lr_case is None else [prepare(lr_case, lr_settings)],
        normalise=recipe.prepare.by_image,
    )
    return collate([samples[0]])


def _changes(
    adapted: Run,
    sources: Sequence[Source],
    before: dict[str, UInt8[ndarray, " *s"]],
    machine: Machine,
    progress: Track,
) -> Iterator[list[Any]]:
    """What fine-tuning did to the mask of each image, by `COLUMNS`."""
    learnt = [source for source in sources if source.name in before]
    for source in progress(learnt, "comparing", len(learnt)):
        old = before[source.name]
        new = own_labels(adapted, _view(adapted, source), machine)
        counts = [int(np.count_nonzero(mask)) for mask in (old, new)]
        yield [source.name, *counts, f"{dice(old > 0, new > 0):.4f}"]


def _view(run: Run, source: Source) -> View:
    lr_case = source.read_lr() if run.recipe.pairs.degrade == "real" else None
    return view_case(run.recipe, source.read(), mode="matched", lr_case=lr_case)
