"""One training run: what every process of it needs, what it reads and what it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import optim

from finemask import __version__
from finemask.case import Case
from finemask.datasets import Dataset, Split
from finemask.errors import DataError, UsageError
from finemask.inference.network import to_labels
from finemask.io.files import is_draft
from finemask.methods import Method
from finemask.pairs.batches import PairDataset
from finemask.pairs.cache import PreparedCases, fingerprint_files
from finemask.pairs.degradation import Pair, make_pair
from finemask.pairs.targets import truth_of
from finemask.preparation import for_lr
from finemask.progress import Track
from finemask.recipe import Recipe
from finemask.runs import load_run
from finemask.training.checkpoint import (
    load_checkpoint,
    load_weights,
    pack_optimiser,
    save_checkpoint,
    unpack_optimiser,
)
from finemask.training.standing import Standing
from finemask.training.teacher import patients_of
from finemask.training.validation import predict_pair


@dataclass(frozen=True)
class Job:
    """All that a training process needs; every process of a run gets the same."""

    dataset: Dataset
    split: Split
    recipe: Recipe
    out: Path
    resume: bool
    cache: Path | None
    progress: Track
    fingerprint: str


@contextmanager
def claimed(out: Path, overwrite: bool) -> Iterator[None]:
    """Make a run folder; when nothing comes of it, what it replaced is put back.

    Raises:
        UsageError: When there is something that may not be replaced.
    """
    old = out.with_name(f".{out.name}.replaced")
    if out.exists() and not out.is_dir():
        raise UsageError(out, "is a file, a run is a folder", "choose another --out")
    if out.exists() and any(not _is_left_by_a_start(path) for path in out.iterdir()):
        if not overwrite:
            raise UsageError(out, "is not empty", "pass --resume, --overwrite or another --out")
        if not (out / "recipe.toml").exists():
            raise UsageError(out, "is no run folder, so nothing is deleted", "choose another --out")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            out, f"cannot be made ({error.strerror})", "choose another --out"
        ) from error
    try:
        yield
    finally:
        if not (out / "checkpoints").exists():
            shutil.rmtree(out, ignore_errors=True)
            if old.exists():
                old.rename(out)
        shutil.rmtree(old, ignore_errors=True)


def _is_left_by_a_start(path: Path) -> bool:
    """Whether a file is all that a run leaves which was killed before it was one."""
    return path.name == "splits.json" or is_draft(path)


def read_samples(job: Job, method: Method) -> PairDataset:
    """Training samples without end."""
    recipe = job.recipe
    real = recipe.pairs.degrade == "real"
    cases = prepared(job, job.split.train)
    return PairDataset(
        cases,
        recipe.task.scale,
        recipe.pairs,
        recipe.task.foreground,
        recipe.train.seed,
        guide=method.guide,
        stride=method.deploy().stride,
        lr_cases=prepared(job, job.split.train, lr=True) if real else None,
        normalise=recipe.prepare.by_image,
        two_labels=method.two_labels,
    )


def lr_spacing_range(samples: PairDataset) -> list[list[float]]:
    """Least and largest LR spacing of the training cases, axis by axis; empty when in pixels."""
    grids = [case.geometry for case in samples.cases]
    if any(grid.unit != "mm" for grid in grids):
        return []
    spacings = [
        [round(d * f, 6) for d, f in zip(grid.spacing, samples.scale, strict=True)]
        for grid in grids
    ]
    axes = list(zip(*spacings, strict=True))
    return [[min(axis) for axis in axes], [max(axis) for axis in axes]]


def read_holdout(job: Job) -> list[Pair]:
    """Whole-image pairs of the validation cases."""
    recipe = job.recipe
    names = job.split.val[: recipe.train.validate_cases or None]
    real = recipe.pairs.degrade == "real"
    lr_cases = prepared(job, names, lr=True) if real else [None] * len(names)
    return [
        make_pair(case, recipe.task.scale, recipe.pairs, lr_case, normalise=recipe.prepare.by_image)
        for case, lr_case in zip(prepared(job, names), lr_cases, strict=True)
    ]


def prepared(job: Job, names: Sequence[str], lr: bool = False) -> PreparedCases:
    """Cases of the data set (or their own LR images) in the form that a network sees."""
    settings = job.recipe.prepare
    if job.recipe.pairs.degrade == "real":
        settings = settings.fixed  # the pair does, both by its LR image
    return PreparedCases(
        names,
        partial(_read_lr if lr else _read, job.dataset),
        for_lr(settings, job.recipe.task.scale) if lr else settings,
        cache_dir=job.cache,
        fingerprint=partial(_fingerprint, job.dataset),
    )


def _read(dataset: Dataset, name: str) -> Case:
    return dataset.read(dataset.entry(name))


def _read_lr(dataset: Dataset, name: str) -> Case:
    case = dataset.read_lr(dataset.entry(name))
    if case is None:
        raise DataError(dataset.root, f"has no LR image of case {name}", "use degrade = 'area'")
    return case


def _fingerprint(dataset: Dataset, name: str) -> str:
    """Hash of everything that reading a case depends on."""
    entry = dataset.entry(name)
    return fingerprint_files(
        entry.files, entry.spacing_mm, entry.group, dict(dataset.labels), dataset.channels
    )


def save(
    job: Job,
    fabric: Fabric,
    method: Method,
    averaged: Method,
    optimisers: Mapping[str, optim.Optimizer],
    at: Standing,
) -> None:
    """Write ``last`` and, after a gain, ``best``; never a weight that is not finite."""
    weights = averaged.state_dict()
    if not all(torch.isfinite(w).all() for w in weights.values() if w.is_floating_point()):
        return
    state = {"random": torch.get_rng_state()}
    groups = {}
    for player, optimiser in optimisers.items():
        tensors, groups[player] = pack_optimiser(player, optimiser)
        state |= tensors
    if averaged is not method:
        state |= {f"raw/{name}": value for name, value in method.state_dict().items()}
    meta = {
        "method": job.recipe.method,
        "step": at.step,
        "score": at.best_score,
        "metric": job.recipe.train.metric,
        "threshold": at.threshold,
        "window_lr": at.window,
        "lr_spacing_mm": at.lr_spacing_mm,
        "equipment": at.equipment,
        "versions": {"finemask": __version__, "torch": torch.__version__},
        "data_fingerprint": job.fingerprint,
        "patients": patients_of(job.dataset, (*job.split.train, *job.split.val)),
    }
    at.scaler = fabric.strategy.precision.state_dict()
    folder = job.out / "checkpoints"
    # Best comes first: after a crash between the two, resuming from the last one finds it again.
    if at.best_step == at.step:
        save_checkpoint(folder / "best", weights, meta)
    save_checkpoint(
        folder / "last", weights, {**meta, "standing": asdict(at), "optimisers": groups}, state
    )


def restore(
    job: Job,
    fabric: Fabric,
    method: Method,
    averaged: Method,
    optimisers: Mapping[str, optim.Optimizer],
) -> Standing:
    """Bring everything back to where ``last`` left it, or to the start when there is none yet."""
    if not (job.out / "checkpoints").exists():
        return Standing()
    checkpoint = load_checkpoint(job.out / "checkpoints" / "last")
    weights, state = checkpoint.weights(), checkpoint.state()
    load_weights(averaged, weights, checkpoint.path)
    if averaged is not method:
        raw = {k.removeprefix("raw/"): v for k, v in state.items() if k.startswith("raw/")}
        load_weights(method, raw, checkpoint.path)
    try:
        for player, optimiser in optimisers.items():
            unpack_optimiser(player, optimiser, state, checkpoint.meta["optimisers"][player])
        torch.set_rng_state(state["random"])
        at = Standing(**checkpoint.meta["standing"])
        if at.scaler:
            fabric.strategy.precision.load_state_dict(at.scaler)
        return at
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            checkpoint.path, f"lacks what resuming needs ({error})", "train again"
        ) from error


def draw(job: Job, method: Method, holdout: Sequence[Pair]) -> None:
    """Leave pictures: the curves of the log, and the first validation cases of the best weights."""
    from finemask.report.figures import curves, example_row, restored_row, save_examples

    curves(job.out / "log.csv", job.out / "curves.png")
    best = load_run(job.out)
    rows = []
    for pair in holdout[:4]:
        probs, resolved = predict_pair(method, best.segmenter, pair)
        images = pair.lr.image, pair.hr.image
        if probs is None:
            assert resolved is not None
            rows.append(restored_row(*images, resolved))
            continue
        truth = truth_of(pair.hr, job.recipe.pairs, job.recipe.task.foreground)
        masks = to_labels(truth.astype(np.float32), 0.5), to_labels(probs, best.threshold)
        rows.append(example_row(*images, *masks, sr=resolved))
    if rows:
        save_examples(rows, job.out / "examples.png")
