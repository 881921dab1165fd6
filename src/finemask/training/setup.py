"""What a run starts from: its complete recipe, devices, optimisers and stream of batches."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from torch import optim
from torch.utils.data import DataLoader, Sampler

from finemask.datasets import Dataset
from finemask.errors import UsageError
from finemask.io.files import sha256
from finemask.methods import METHODS, Method, default_recipe, find_method
from finemask.nn.encoders.released import load_released
from finemask.pairs.batches import Batch, PairDataset, collate
from finemask.pairs.resizing import resized_batches
from finemask.recipe import Recipe, Task, TrainSettings, find_recipe
from finemask.strict import build, read_toml
from finemask.training.processes import ignore_interrupts
from finemask.training.teacher import Teacher, fill_teacher, read_teacher


def resolve_recipe(
    dataset: Dataset,
    method: str | None = None,
    recipe: str | Path | Recipe | None = None,
    settings: Sequence[str] = (),
    scale: Sequence[int] | None = None,
    encoder_weights: str | Path | None = None,
    teacher: str | Path | None = None,
) -> Recipe:
    """The complete recipe: method's defaults, then the file, then the settings.

    The data set decides dimension, channels and classes. A file of weights is
    named from the root, so that the recipe repeats the run from any folder. A
    teacher decides what its own network needs, before anybody else is asked.
    """
    given: Mapping[str, Any] = {}
    if isinstance(recipe, Recipe):
        given = recipe.to_dict()
    elif recipe is not None:
        given = read_toml(find_recipe(recipe))
    name, subject = method or given.get("method") or "unet", str(recipe or method or "unet")
    told = _teacher_of(name, given, settings, teacher)
    known = {"dims": dataset.dims, "channels": dataset.channels, "classes": len(dataset.labels) + 1}
    usual = told.recipe.task.scale if told else (2,)
    wanted = build(Task, {"scale": usual, **known, **given.get("task", {})}, f"{subject}: task")
    for key, value in known.items():
        if getattr(wanted, key) != value:
            raise UsageError(
                f"{recipe}: task.{key}",
                f"is {getattr(wanted, key)}, the data set has {value}",
                "take it out of the recipe, or use the data it was written for",
            )
    task = replace(wanted, scale=tuple(scale or wanted.scale), class_names=tuple(dataset.labels))
    base = default_recipe(name, task).to_dict()
    if told:
        base = told.applied_to(base)
    for section, values in given.items():
        if section in ("method", "task"):
            continue
        base[section] = {**base[section], **values} if section in base else values
    resolved = Recipe.from_dict(base, subject).with_settings(settings)
    file = encoder_weights or resolved.train.encoder_weights
    absolute = str(Path(file).absolute()) if file else ""
    named = str(told.path) if told else ""
    resolved = replace(
        resolved, train=replace(resolved.train, encoder_weights=absolute, teacher=named)
    )
    if told:
        told.check(resolved)
    return resolved


def _teacher_of(
    name: str, given: Mapping[str, Any], settings: Sequence[str], teacher: str | Path | None
) -> Teacher | None:
    """The teacher that is named: as an option, in the settings or in the recipe."""
    named = teacher or Recipe().with_settings(settings).train.teacher
    named = named or given.get("train", {}).get("teacher", "")
    return read_teacher(find_method(name), name, Path(named)) if named else None


def extended(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """The recipe of a run that is resumed: only its bounds may change."""
    changed = recipe.with_settings(settings)
    bounds = ("steps", "epochs", "minutes")
    same = replace(changed.train, **{key: getattr(recipe.train, key) for key in bounds})
    if replace(changed, train=same) != recipe:
        raise UsageError(
            "--resume",
            "keeps the recipe of the run but for steps, epochs and minutes",
            "leave the other settings out, or train into another --out",
        )
    return changed


def make_fabric(recipe: Recipe, accelerator: str, devices: int) -> Fabric:
    """Devices and precision; several devices share each step (DDP).

    Raises:
        UsageError: When this machine does not have them.
    """
    # Its notes on precision and processes are no news to somebody who chose them.
    for name in ("lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    several_players = len(METHODS[recipe.method].players) > 1
    ddp = DDPStrategy(start_method="spawn", find_unused_parameters=several_players)
    try:
        return Fabric(
            accelerator=accelerator,
            strategy=ddp if devices > 1 else "auto",
            devices=devices,
            precision=recipe.train.precision,  # type: ignore[arg-type]  # Fabric checks it
        )
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(
            f"--devices {devices} --accelerator {accelerator}",
            f"cannot be had ({error})",
            "try --devices 1 --accelerator cpu",
        ) from error


def check_answers(method: Method, recipe: Recipe) -> None:
    """Refuse a target that a method cannot do without, and a metric of what it does not make.

    Raises:
        UsageError: Naming what it needs.
    """
    if recipe.pairs.target == "none" and method.needs_masks:
        raise UsageError(
            "pairs.target", f"is none, but {recipe.method} learns from masks", "leave it out"
        )
    metric = recipe.train.metric
    if (metric != "psnr" and not method.needs_masks) or (
        metric == "psnr" and not method.makes_image()
    ):
        made, other = ("mask", "psnr") if metric != "psnr" else ("super-resolved image", "dice")
        raise UsageError(
            "train.metric",
            f"is {metric}, but {recipe.method} as configured makes no {made}",
            f"set train.metric={other}",
        )


def fill_from_files(method: Method, recipe: Recipe) -> dict[str, str]:
    """Start a fresh method from the files that its recipe names.

    Returns:
        The files and their checksums, for the run's record.

    Raises:
        UsageError: When the method takes no such file, or lacks a teacher that it needs.
        DataError: When a file does not fit it.
    """
    return fill_encoder(method, recipe) | fill_teacher(method, recipe)


def fill_encoder(method: Method, recipe: Recipe) -> dict[str, str]:
    """Start the method's encoder from the public file that the recipe names, if it names one.

    Returns:
        The file and its checksum, for the run's record.

    Raises:
        UsageError: When the method has no encoder with public weights.
        DataError: When the file does not fit it.
    """
    if not recipe.train.encoder_weights:
        return {}
    encoder, path = method.public_encoder(), Path(recipe.train.encoder_weights)
    if encoder is None:
        raise UsageError(
            "train.encoder_weights",
            f"names a file, but {recipe.method} as configured has no encoder with public weights",
            "leave it out, or use a method that has one (unet with config.encoder=resnet34)",
        )
    load_released(encoder, path)
    return {"encoder": f"{path} (sha256 {sha256(path)})"}


def make_optimiser(method: Method, player: str, settings: TrainSettings) -> optim.Optimizer:
    """The optimiser of one player, with a group for each learning-rate factor."""
    groups = [
        {"params": group.parameters, "factor": group.factor}
        for group in method.parameter_groups(player)
    ]
    if settings.optimiser == "sgd":
        return optim.SGD(
            groups,
            settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.nesterov and settings.momentum > 0,
        )
    kind = optim.AdamW if settings.optimiser == "adamw" else optim.Adam
    return kind(
        groups, settings.learning_rate, betas=settings.betas, weight_decay=settings.weight_decay
    )


class SampleNumbers(Sampler[int]):
    """Numbers of the samples of one process, from a step on and without end."""

    def __init__(self, settings: TrainSettings, rank: int, processes: int, first_step: int) -> None:
        self.batch, self.rank, self.processes = settings.batch_size, rank, processes
        self.first_batch = first_step * settings.accumulate

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count(self.first_batch):
            start = (number * self.processes + self.rank) * self.batch
            yield from range(start, start + self.batch)


def make_batches(
    samples: PairDataset, settings: TrainSettings, fabric: Fabric, first_step: int
) -> Iterator[Batch]:
    """Batches from ``first_step`` on; their own generator leaves the global one alone."""
    loader: DataLoader[Any] = DataLoader(
        samples,
        batch_size=settings.batch_size,
        sampler=SampleNumbers(settings, fabric.global_rank, fabric.world_size, first_step),
        num_workers=settings.workers,
        collate_fn=collate,
        generator=torch.Generator().manual_seed(settings.seed),
        persistent_workers=settings.workers > 0,
        worker_init_fn=ignore_interrupts,
    )
    return resized_batches(
        loader,
        settings.rescale,
        samples.scale,
        seed=settings.seed,
        first=first_step * settings.accumulate,
        stride=samples.stride,
        guide=samples.guide,
    )
