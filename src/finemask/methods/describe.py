"""What a method costs: weights and multiplications, counted without running it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from finemask.errors import UsageError
from finemask.methods import METHODS, create, default_recipe, find_method
from finemask.methods.base import Method, Segmenter
from finemask.pairs.batches import Batch, guided
from finemask.recipe import Recipe, Task

DEFAULT_SIZE = {2: (256, 256), 3: (64, 96, 96)}


@dataclass(frozen=True)
class MethodFacts:
    """Cost of a method as one recipe configures it.

    Args:
        name: In ``METHODS``.
        paper: Citation.
        dims: Dimensions that the method is defined for.
        size: LR input that ``macs_inference`` is counted at.
        scale: HR voxels for each LR voxel along each axis.
        parameters_training: Weights while learning.
        parameters_inference: Weights that ship.
        macs_inference: Multiply-adds of the convolutions for one image of ``size``.
        parameters_teacher: Weights, of those that ship, of a frozen super-resolution network.
        macs_teacher: Its multiply-adds, of those at inference.
        dropped: What does not ship.
        stride: LR sides that are multiples of this need no padding.
    """

    name: str
    paper: str
    dims: tuple[int, ...]
    size: tuple[int, ...]
    scale: tuple[int, ...]
    parameters_training: int
    parameters_inference: int
    macs_inference: int
    parameters_teacher: int
    macs_teacher: int
    dropped: str
    stride: int


def describe(name: str, recipe: Recipe, size: Sequence[int]) -> MethodFacts:
    """Count the weights and multiplications of a method.

    Everything is done on PyTorch's meta device: shapes only, no memory.

    Args:
        name: Of the method; the recipe's own name is not read.
        recipe: Gives the task and the method's options.
        size: LR input, one number an axis.

    Raises:
        UsageError: On an unknown method or option, or a size of the wrong dimension.
    """
    task = recipe.task
    if len(size) != task.dims or min(size) < 1:
        raise UsageError(
            "size",
            f"is {'x'.join(map(str, size))}, a {task.dims}-D input has {task.dims} sides",
            "write for example " + "x".join(map(str, DEFAULT_SIZE[task.dims])),
        )
    with torch.device("meta"):
        method = create(replace(recipe, method=name))
        segmenter = method.deploy()
        macs = count_macs(method, segmenter, size)
        teacher = method.teacher or nn.Identity()
        macs_teacher = count_convolutions(teacher, torch.empty(1, task.channels, *size))
    return MethodFacts(
        name=name,
        paper=method.paper,
        dims=method.dims,
        size=tuple(size),
        scale=task.scale,
        parameters_training=count_parameters(method),
        parameters_inference=count_parameters(segmenter),
        macs_inference=macs,
        parameters_teacher=count_parameters(teacher),
        macs_teacher=macs_teacher,
        dropped=method.dropped,
        stride=segmenter.stride,
    )


def describe_methods(
    name: str | None = None,
    *,
    channels: int = 1,
    classes: int = 2,
    scale: Sequence[int] | None = None,
    dims: int | None = None,
    size: Sequence[int] | None = None,
    settings: Sequence[str] = (),
    as_json: bool = False,
) -> str:
    """The methods as a table, or one of them with its recipe and options, as text or JSON.

    Args:
        name: One method; all by default.
        channels: Image channels.
        classes: Classes, background included.
        scale: HR voxels for each LR voxel, one number or one an axis; 2 by default.
        dims: 2 or 3; taken from ``size`` or ``scale`` by default, else the method's first.
        size: LR input that costs are counted at.
        settings: ``section.key=value`` lines on top of the method's recipe.
        as_json: Print JSON instead of text.

    Raises:
        UsageError: On an unknown method, option, or dimension that it lacks.
    """
    told = len(size) if size else len(scale) if scale and len(scale) > 1 else None
    if told not in (None, 2, 3):
        raise UsageError("size", f"has {told} sides, needs 2 or 3", "write for example 256x256")
    wanted = dims or told
    names = [name] if name else [n for n, m in METHODS.items() if not wanted or wanted in m.dims]
    facts, recipes = [], []
    for each in names:
        task = Task(
            dims=wanted or find_method(each).dims[0],
            channels=channels,
            classes=classes,
            scale=tuple(scale or (2,)),
        )
        recipe = default_recipe(each, task).with_settings(settings)
        recipes.append(recipe)
        facts.append(describe(each, recipe, size or DEFAULT_SIZE[task.dims]))
    if as_json:
        values = [
            {**asdict(fact), "recipe": r.to_dict()} for fact, r in zip(facts, recipes, strict=True)
        ]
        return json.dumps(values[0] if name else values, indent=2)
    if name is None:
        return _table(facts)
    return f"{_card(facts[0])}\n\n{_options(METHODS[name])}\n\n{recipes[0].to_toml()}".rstrip()


def _table(facts: Sequence[MethodFacts]) -> str:
    head = ("method", "images", "train", "inference", "GMAC", "LR input", "paper")
    rows = [
        (
            fact.name,
            "/".join(f"{d}-D" for d in fact.dims),
            f"{fact.parameters_training / 1e6:.2f} M",
            f"{fact.parameters_inference / 1e6:.2f} M",
            f"{fact.macs_inference / 1e9:.2f}",
            "x".join(map(str, fact.size)),
            fact.paper,
        )
        for fact in facts
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)]
    note = "train, inference: weights; GMAC: multiply-adds of the convolutions of one LR input."
    return "\n".join([*lines, "", note])


def _card(fact: MethodFacts) -> str:
    size, scale = ("x".join(map(str, v)) for v in (fact.size, fact.scale))
    teacher = []
    if fact.parameters_teacher:
        teacher = [
            f"  of these the teacher  {fact.parameters_teacher:,} parameters, "
            f"{fact.macs_teacher:,} multiply-adds"
        ]
    return "\n".join(
        [
            f"{fact.name}: {fact.paper}",
            f"  images                {' and '.join(f'{d}-D' for d in fact.dims)}",
            f"  parameters_training   {fact.parameters_training:,}",
            f"  parameters_inference  {fact.parameters_inference:,}",
            f"  macs_inference        {fact.macs_inference:,} for {size} at scale {scale}",
            *teacher,
            f"  dropped at inference  {fact.dropped}",
        ]
    )


def _options(method: type[Method]) -> str:
    """The options of a method, from the docstrings of its ``Config`` and what that is made from."""
    first, *bases = (inspect.cleandoc(kind.__doc__ or "") for kind in method.config_type.mro()[:-1])
    shared = "".join("\n" + doc.partition("Args:\n")[2] for doc in bases)
    return (first + shared).replace("Args:", "Options:")


def count_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def count_macs(method: Method, segmenter: Segmenter, size: Sequence[int]) -> int:
    """Multiply-adds of all convolutions, functional ones too, for one image on the meta device."""
    task = segmenter.task
    scale = method.task.scale
    image = torch.empty(1, task.channels, *segmenter.on_its_grid(size, scale))
    hr = [s * f for s, f in zip(size, scale, strict=True)]
    guide = method.guide
    guidance = None if guide is None else torch.empty(1, task.channels, *guide.size(hr))
    return count_convolutions(segmenter.eval(), image, guidance)


def count_convolutions(network: nn.Module, *inputs: Tensor | None) -> int:
    """Multiply-adds of all convolutions of a forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    flops: int = counter.get_flop_counts().get("Global", {}).get(torch.ops.aten.convolution, 0)
    return flops // 2


def count_training_macs(recipe: Recipe, window: Sequence[int]) -> int:
    """Multiply-adds of all convolutions of one training step, for each of its samples.

    Forward and backward pass of every player, at batches of two.

    Args:
        recipe: Of the method.
        window: LR sides of a training sample.
    """
    try:
        with FakeTensorMode():  # shapes only, no memory; unlike meta it may be asked for autocast
            return _count_step(recipe, window)
    except (RuntimeError, NotImplementedError):  # a loss looks at values, which these have not
        return _count_step(recipe, window)


def _count_step(recipe: Recipe, window: Sequence[int]) -> int:
    task, method = recipe.task, create(recipe)
    hr = [s * f for s, f in zip(window, task.scale, strict=True)]
    batch = Batch(
        image_lr=torch.rand(2, task.channels, *window),
        image_hr=torch.rand(2, task.channels, *hr),
        target=torch.rand(2, task.foreground, *hr).round(),
        names=("noise", "noise"),
    )
    if method.guide is not None:
        corner = tuple(slice(side) for side in method.guide.size(hr))
        batch = guided(batch, [corner, corner])
    weights = method.weights()
    with FlopCounterMode(display=False) as counter:
        for player in method.players:
            parts = method.losses(batch, player)
            torch.stack([weights[name] * part for name, part in parts.items()]).sum().backward()
    flops = counter.get_flop_counts()["Global"]
    both = (torch.ops.aten.convolution, torch.ops.aten.convolution_backward)
    return sum(flops.get(kind, 0) for kind in both) // 2 // len(batch.names)
