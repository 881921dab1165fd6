"""Training: one loop for every method, read from top to bottom.

A method may have several players (a network, or a generator and a critic);
each is stepped in turn on the same batch. Everything random in a sample comes
from the seed and the sample's number, so a run resumes exactly: its position
in the data is its step, and the rest of its state is in the checkpoint.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, optim

from finemask.datasets import Dataset, Split, find_split, load_dataset, make_split
from finemask.errors import DataError, FinemaskError, UsageError
from finemask.io.files import write_text
from finemask.methods import Method, create, find_method
from finemask.pairs.batches import Batch
from finemask.pairs.degradation import Pair
from finemask.progress import Track, silent
from finemask.pseudonyms import Pseudonyms
from finemask.recipe import Recipe, TrainSettings
from finemask.runs import Run, load_run
from finemask.training.job import (
    Job,
    claimed,
    draw,
    lr_spacing_range,
    read_holdout,
    read_samples,
    restore,
    save,
)
from finemask.training.log import Log
from finemask.training.processes import (
    launch,
    leave_terminal,
    orderly,
    stop_on_signal,
    worker_error,
)
from finemask.training.schedule import Rhythm, bound_in_steps, learning_rate_factor, share_done
from finemask.training.setup import (
    check_answers,
    extended,
    fill_from_files,
    make_batches,
    make_fabric,
    make_optimiser,
    resolve_recipe,
)
from finemask.training.standing import Interrupted, Standing, TrainingError
from finemask.training.teacher import warn_of_leak
from finemask.training.validation import Validation, validate


def train(
    data: str | Path | Dataset,
    out: str | Path,
    *,
    method: str | None = None,
    recipe: str | Path | Recipe | None = None,
    settings: Sequence[str] = (),
    scale: Sequence[int] | None = None,
    encoder_weights: str | Path | None = None,
    teacher: str | Path | None = None,
    split: str | Path | None = None,
    fold: tuple[int, int] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    devices: int = 1,
    accelerator: str = "auto",
    cache: Path | None = None,
    pseudonyms: Pseudonyms | None = None,
    progress: Track = silent,
) -> Run:
    """Train a method on a data set and leave a run folder.

    Args:
        data: Data set, in any layout that ``load_dataset`` reads.
        out: Run folder to write.
        method: Name in ``METHODS``.
        recipe: File, name of one that ships, or value; what it leaves open takes the
            method's defaults.
        settings: ``key=value`` changes, applied last.
        scale: HR voxels for each LR voxel, one number or one an axis.
        encoder_weights: Public ImageNet file that the method's encoder starts from.
        teacher: Super-resolution run that the method learns from.
        split: A ``splits.json``, or one of the data set's ``splits/`` by its name.
        fold: ``(k, n)``: fold ``k`` of ``n``, counted from 1.
        resume: Continue the run in ``out``; its recipe and split are kept.
        overwrite: Replace an existing run.
        devices: Processes or GPUs that share each step.
        accelerator: Lightning Fabric's name, for example ``cpu`` or ``cuda``.
        cache: Folder for prepared cases; without it they are kept in memory.
        pseudonyms: Name cases and patients by keyed hashes in everything that is written.
        progress: Shows how far the run is.

    Returns:
        The finished run with its best weights.

    Raises:
        FinemaskError: When the data, the recipe or the folder cannot be used.
        TrainingError: When the loss stayed non-finite.
    """
    out = Path(out)
    dataset = data if isinstance(data, Dataset) else load_dataset(Path(data))
    if pseudonyms:
        dataset = dataset.pseudonymised(pseudonyms)
    fingerprint = dataset.fingerprint()
    if resume:
        if method or recipe or scale or encoder_weights or teacher or split or fold:
            raise UsageError(out, "keeps its recipe and split when resumed", "leave them out")
        resolved = extended(Recipe.load(out / "recipe.toml"), settings)
        parts = Split.load(out / "splits.json")
        if parts.fingerprint != fingerprint:
            raise DataError(dataset.root, "is not what the run was trained on", "resume with that")
    else:
        resolved = resolve_recipe(
            dataset, method, recipe, settings, scale, encoder_weights, teacher
        )
        labelled = find_method(resolved.method).needs_masks
        parts = (
            find_split(dataset, split)
            if split
            else make_split(dataset, fold=fold, labelled=labelled)
        )
    if not parts.train:
        raise UsageError(dataset.root, "has no training cases in this split", "change the split")
    # Whatever can be wrong with the recipe or the machine is found before anything is written.
    trial = create(resolved)
    trial.equip()
    check_answers(trial, resolved)
    if not resume:
        fill_from_files(trial, resolved)
        warn_of_leak(resolved, dataset, parts)
    bound_in_steps(resolved.train, len(parts.train), devices)
    fabric = make_fabric(resolved, accelerator, devices)
    job = Job(dataset, parts, resolved, out, resume, cache, progress, fingerprint)
    with nullcontext() if resume else claimed(out, overwrite):
        if not resume:
            parts.save(out / "splits.json", overwrite=True)
        # Last, as it makes a folder a run.
        write_text(out / "recipe.toml", resolved.to_toml(), overwrite=True)
        failure = launch(fabric, partial(run_or_tell, job=job), out, devices)
        if failure is not None:
            raise failure
    return load_run(out)


def run_or_tell(fabric: Fabric, job: Job) -> FinemaskError | None:
    """Train, and carry an error for the user home from whatever process this is."""
    if fabric.world_size > 1:
        leave_terminal()
    try:
        run_training(fabric, job)
        fabric.barrier()
    except FinemaskError as error:
        return error
    except RuntimeError as error:
        if (told := worker_error(error, job.out)) is None:
            raise
        return told
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
            if not fabric.is_global_zero:
                # Its work is done; gloo's threads may abort a process that winds down.
                os._exit(0)
    return None


def run_training(fabric: Fabric, job: Job) -> None:
    """Train until a bound is reached, on every device of ``fabric``.

    Raises:
        TrainingError: When the loss stayed non-finite.
        Interrupted: After a signal, once everything is saved.
    """
    recipe, settings = job.recipe, job.recipe.train
    torch.manual_seed(settings.seed)
    method = create(recipe).to(fabric.device)
    equipment = method.equip()
    if not (job.out / "checkpoints").exists():
        equipment |= fill_from_files(method, recipe)
    optimisers = {player: make_optimiser(method, player, settings) for player in method.players}
    averaged = copy.deepcopy(method) if settings.ema else method
    samples = read_samples(job, method)
    holdout = read_holdout(job) if fabric.is_global_zero else []
    total_steps = bound_in_steps(settings, len(job.split.train), fabric.world_size)
    rhythm = Rhythm(settings, total_steps)
    at = restore(job, fabric, method, averaged, optimisers) if job.resume else Standing()
    at.window = [s // f for s, f in zip(samples.crop, recipe.task.scale, strict=True)]
    at.lr_spacing_mm, at.equipment = lr_spacing_range(samples), at.equipment | equipment
    batches = orderly(make_batches(samples, settings, fabric, first_step=at.step))

    model, *wrapped = fabric.setup(method, *optimisers.values())
    model.mark_forward_method("losses")
    players = dict(zip(method.players, wrapped, strict=True))
    samples_a_step = settings.batch_size * settings.accumulate * fabric.world_size
    started = time.monotonic() - at.seconds
    share = fabric.broadcast(share_done(settings, at.step, at.seconds, total_steps))
    at.over = share >= 1
    left = None if total_steps is None else total_steps - at.step
    progress = job.progress if fabric.is_global_zero else silent

    with stop_on_signal() as stopped, open_log(fabric, job, method, at) as log:
        for _ in progress(unfinished(at), at.label, left):
            factor = learning_rate_factor(settings, at.step, share, at.plateau_drops)
            micro = [next(batches).to(fabric.device) for _ in range(settings.accumulate)]
            parts: dict[str, float] = {}
            for player in at.begin(method.turn(share)):
                optimiser = players[player]
                set_learning_rate(optimiser, settings.learning_rate * factor)
                parts |= step_player(fabric, model, method, player, optimiser, micro, settings)
            at.step += 1
            at.add(parts, settings, job.out, [name for batch in micro for name in batch.names])
            if averaged is not method:
                average_weights(averaged, method, settings.ema)

            at.seconds = time.monotonic() - started
            share = share_done(settings, at.step, at.seconds, total_steps)
            # One clock for all: processes with learning rates of their own would drift apart.
            share, interrupted = fabric.broadcast((share, stopped.is_set()))
            at.over = share >= 1
            result = None
            # After a signal, too: a resumed run would never make up for it.
            if at.over or rhythm.validates(at.step, share):
                result = validate_once(fabric, job, averaged, holdout, at)
                at.judge(result, settings)
            if log and (result or at.step % settings.log_every == 0):
                epoch = at.step * samples_a_step / len(job.split.train)
                log.row(at.row(result, settings.learning_rate * factor, epoch))
            if fabric.is_global_zero and (result or interrupted):
                save(job, fabric, method, averaged, optimisers, at)
            if interrupted:
                raise Interrupted(job.out, f"stopped after step {at.step}", "go on with --resume")
    if fabric.is_global_zero:
        draw(job, averaged, holdout)


def open_log(
    fabric: Fabric, job: Job, method: Method, at: Standing
) -> AbstractContextManager[Log | None]:
    """The log of a run, kept by the first process; a column for each loss part of each player."""
    if not fabric.is_global_zero:
        return nullcontext()
    extra = [f"{n}_{player}" for player in method.players[1:] for n in ("loss", "gradient_norm")]
    board = job.out / "tensorboard" if job.recipe.train.tensorboard else None
    return Log(job.out / "log.csv", [*method.weights(), *extra], at.step, board)


def unfinished(at: Standing) -> Iterator[int]:
    """Steps as long as the run is not over."""
    while not at.over:
        yield at.step


def step_player(
    fabric: Fabric,
    model: Any,
    method: Method,
    player: str,
    optimiser: optim.Optimizer,
    micro: Sequence[Batch],
    settings: TrainSettings,
) -> dict[str, float]:
    """One step of one player over the accumulated batches; skipped when it is not finite.

    Returns:
        Means of its loss parts, their weighted sum ``loss`` and its ``gradient_norm``.
    """
    weights = method.weights()
    sums: dict[str, Tensor] = {}
    optimiser.zero_grad()
    for number, batch in enumerate(micro, start=1):
        with fabric.no_backward_sync(model, enabled=number < len(micro)):
            parts = model.losses(batch, player)
            total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
            fabric.backward(total / len(micro))
        for name, part in {"loss": total, **parts}.items():
            sums[name] = sums.get(name, torch.zeros((), device=part.device)) + part.detach()
    norm = fabric.clip_gradients(
        model,
        optimiser,
        max_norm=settings.clip_norm or math.inf,
        error_if_nonfinite=False,
    )
    means = {name: float(value) / len(micro) for name, value in sums.items()}
    means["gradient_norm"] = float(norm) if norm is not None else 0.0
    # With float16 the scaler must see every step: it skips the bad ones and adapts.
    if math.isfinite(means["gradient_norm"]) or settings.precision == "16-mixed":
        optimiser.step()
    if player != method.players[0]:
        for name in ("loss", "gradient_norm"):
            means[f"{name}_{player}"] = means.pop(name)
    return means


def set_learning_rate(optimiser: optim.Optimizer, learning_rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = learning_rate * group["factor"]


@torch.no_grad()
def average_weights(averaged: Method, method: Method, decay: float) -> None:
    """Move the averaged weights a little towards the trained ones; buffers are copied."""
    for kept, current in zip(averaged.parameters(), method.parameters(), strict=True):
        kept.lerp_(current, 1 - decay)
    for copied, buffer in zip(averaged.buffers(), method.buffers(), strict=True):
        copied.copy_(buffer)


def validate_once(
    fabric: Fabric, job: Job, method: Method, holdout: Sequence[Pair], at: Standing
) -> Validation:
    """Validate in the first process and tell the others.

    Raises:
        TrainingError: In every process, when the network's answers are not finite.
    """
    result: Validation | TrainingError | None = None
    if fabric.is_global_zero:
        training = method.training
        method.eval()
        try:
            segmenter = method.deploy()
            segmenter.window = segmenter.on_its_grid(at.window, method.task.scale)
            result = validate(method, segmenter, holdout, job.recipe)
        except FinemaskError as error:
            result = TrainingError(
                job.out,
                f"diverged: at step {at.step} the network {error.what}; the checkpoints before it "
                "are kept",
                "lower train.learning_rate, and clip gradients (train.clip_norm)",
            )
        method.train(training)
    result = fabric.broadcast(result)
    if isinstance(result, TrainingError):
        raise result
    return cast(Validation, result)
