"""What an exported folder says of itself: ``model.json``, checked whole when it is read.

The file holds facts and numbers alone: it names no code, and nothing in the
folder is run but the graph, by a library that knows nothing else.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from finemask.errors import DataError, UsageError
from finemask.io.files import sha256, write_json
from finemask.pairs.guidance import CropGuide, Guide
from finemask.recipe import PairSettings, PrepareSettings, Recipe, Task
from finemask.strict import build

FORMAT = 1
FILE = "model.json"

Kind = Literal["onnx", "openvino"]
Numbers = Literal["float32", "int8"]

GRAPH = {"onnx": "model.onnx", "openvino": "model.xml"}
"""The file that a library opens; ``model.xml`` has its weights in ``model.bin`` beside it."""

GRID_RULE = (
    "Image and mask cover the same extent: along each axis, voxel i of the image lies under voxels "
    "scale*i to scale*i + scale - 1 of the mask. An image with fewer voxels than `window` is "
    "padded to it on both sides (the odd voxel at the end), then every side to a multiple of "
    "`stride` at its end (to two of them if all sides would be one), each time by repeating the "
    "edge; the mask is cut back to scale times the image."
)


@dataclass(frozen=True)
class Memory:
    """What a forward pass holds beside the weights, for each LR voxel.

    Args:
        bytes_per_voxel: At the peak; guidance of the usual size is in it.
        largest_per_voxel: Elements of the largest tensor.
    """

    bytes_per_voxel: float
    largest_per_voxel: float


@dataclass(frozen=True)
class Training:
    """Where the weights are from.

    Args:
        step: Optimiser steps.
        metric: Of the validation.
        score: Validation score; empty where there was none.
        versions: Of the libraries that trained.
        data_fingerprint: Of the training data.
        weights_sha256: Of the weights in the run, by name.
        lr_spacing_mm: Least and largest LR spacing; empty where unknown.
    """

    step: int
    metric: str
    score: tuple[float, ...]
    versions: Mapping[str, Any]
    data_fingerprint: str
    weights_sha256: str
    lr_spacing_mm: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Check:
    """How an exported network compares with the one in torch, on images.

    Args:
        backend: What ran it.
        precision: What it computed in.
        images: Which images, in words.
        cases: How many.
        logits_error: Largest difference of the logits, in their standard deviations.
        mask_dice: Dice of both masks, over all voxels of all images.
        dice: Mean Dice of the cases against the truth: in torch, and of this one; empty
            without a truth.
    """

    backend: str
    precision: str
    images: str
    cases: int
    logits_error: float
    mask_dice: float
    dice: tuple[float, ...]

    @property
    def loss(self) -> float:
        """Dice that is lost: against the truth where it is known, else of masks that differ."""
        return self.dice[0] - self.dice[1] if self.dice else 1 - self.mask_dice


@dataclass(frozen=True)
class Spec:
    """``model.json``.

    Args:
        format: Of this file.
        finemask: Version that wrote it.
        kind: Format of the graph.
        numbers: What its weights and activations are stored and computed in.
        method: Name of the method.
        paper: Its citation.
        task: Channels, classes and scale.
        prepare: How an image becomes the network's input.
        pairs: How LR images are made of HR images, for ``predict --mode matched``.
        inputs: Axes of each input of the graph, float32, by name.
        output: Axes of ``logits``.
        probabilities: What turns logits into probabilities of the foreground classes.
        grid: How the grids of image and mask lie on one another.
        stride: LR sides are multiples of it.
        window: Sides of the smallest image, on the grid that it reads.
        patches: Whether a larger image is shown in windows of these sides, overlapping by half.
        reads: The grid of ``image``: the LR image, or the one of the mask.
        threshold: Probability from which a voxel is foreground; for one class.
        guide: How ``guidance`` is cut from the prepared HR image; empty without one.
        memory: What a pass takes.
        training: Where the weights are from.
        checks: How it was compared with the network in torch.
        licence: Under which terms it may be used.
        card: What it is, for whoever looks at the folder.
        files: SHA-256 of every file beside this one.
    """

    format: int
    finemask: str
    kind: Kind
    numbers: Numbers
    method: str
    paper: str
    task: Task
    prepare: PrepareSettings
    pairs: PairSettings
    inputs: Mapping[str, Any]
    output: tuple[str, ...]
    probabilities: Literal["sigmoid", "softmax without the first class"]
    grid: str
    stride: int
    window: tuple[int, ...]
    patches: bool
    reads: Literal["lr", "hr"]
    threshold: float
    guide: Mapping[str, Any]
    memory: Memory
    training: Training
    checks: tuple[Check, ...]
    licence: str
    card: str
    files: Mapping[str, Any]

    @property
    def network_scale(self) -> tuple[int, ...]:
        """Voxels of the mask for each voxel of what is read."""
        return self.task.scale if self.reads == "lr" else (1,) * self.task.dims

    @property
    def recipe(self) -> Recipe:
        """As much of the run's recipe as prediction needs."""
        return Recipe(self.method, self.task, self.prepare, self.pairs)


GUIDES = {"crop": CropGuide}
"""What ``guide`` may name, under ``cut``; its other entries are the options."""


def describe_guide(guide: Guide | None) -> dict[str, Any]:
    """A guide as ``model.json`` tells it; empty without one.

    Raises:
        UsageError: When it has no name there.

    Example:
        >>> describe_guide(CropGuide("central"))
        {'cut': 'crop', 'mode': 'central', 'parts': 4}
    """
    if guide is None:
        return {}
    for name, kind in GUIDES.items():
        if isinstance(guide, kind):
            return {"cut": name, **dataclasses.asdict(guide)}
    raise UsageError("export", f"cannot describe {guide!r}", "report it")


def make_guide(values: Mapping[str, Any]) -> CropGuide | None:
    """The guide that ``model.json`` tells of.

    Raises:
        UsageError: When there is none of that name, or with such options.
    """
    if not values:
        return None
    options = dict(values)
    name = options.pop("cut", None)
    if name not in GUIDES:
        raise UsageError("guide", f"is {name!r}", f"choose {', '.join(GUIDES)}")
    return build(GUIDES[name], options, "guide")


def write_spec(folder: Path, spec: Spec) -> None:
    """Write ``model.json``, in place of one that is there."""
    write_json(folder / FILE, dataclasses.asdict(spec), overwrite=True)


def read_spec(folder: Path) -> Spec:
    """Read ``model.json`` and compare every checksum.

    Raises:
        DataError: When the folder is no export, or anything in it is missing or changed.
    """
    path = folder / FILE
    redo = "export the run again"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(folder, f"holds no {FILE}", "give what finemask export wrote") from error
    except (OSError, ValueError) as error:
        raise DataError(path, f"is damaged ({error})", redo) from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        found = values.get("format") if isinstance(values, dict) else None
        raise DataError(path, f"is of format {found!r}, this version reads format {FORMAT}", redo)
    missing = {f.name for f in dataclasses.fields(Spec)} - set(values)
    if missing:
        raise DataError(path, f"lacks {', '.join(sorted(missing))}", redo)
    try:
        spec = build(Spec, values, str(path))
        make_guide(spec.guide)
    except (UsageError, TypeError, ValueError) as error:
        what = f"{error.subject}: {error.what}" if isinstance(error, UsageError) else str(error)
        raise DataError(path, f"is damaged ({what})", redo) from error
    _check(path, spec)
    return spec


def _check(path: Path, spec: Spec) -> None:
    """Refuse values that no export has."""
    task, redo = spec.task, "export the run again"
    names = {"image", "guidance"} if spec.guide else {"image"}
    wrong = [
        name
        for name, fits in {
            "threshold": 0 < spec.threshold <= 1,
            "stride": spec.stride >= 1,
            "window": len(spec.window) in (0, task.dims),
            "inputs": set(spec.inputs) == names,
            "memory": min(spec.memory.bytes_per_voxel, spec.memory.largest_per_voxel) > 0,
            "lr_spacing_mm": len(spec.training.lr_spacing_mm) in (0, 2),
        }.items()
        if not fits
    ]
    if wrong:
        raise DataError(path, f"has an impossible {wrong[0]}", redo)
    graph = GRAPH[spec.kind]
    if graph not in spec.files or any(Path(name).name != name for name in spec.files):
        raise DataError(path, f"does not list {graph}, or files elsewhere", redo)
    for name, expected in spec.files.items():
        file = path.parent / name
        if not file.is_file() or sha256(file) != expected:
            raise DataError(file, "is missing or damaged (checksum differs)", redo)
