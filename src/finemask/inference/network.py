"""From an image of any size to a mask with its true place in the patient.

One image is predicted whole when it fits the memory, tile by tile when not
(`finemask.inference.tiles`). Tiles are blended as probabilities, not logits: a mean of
probabilities still sums to one over the classes, and a tile that is sure of
itself near its edge cannot outvote its neighbour. The threshold comes last, on
the grid that is written.

A method's guidance, where it takes one, is cut once from the whole image and
shown to every tile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from finemask.case import Case
from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.inference.memory import fit_tiles
from finemask.inference.tiles import blend
from finemask.inference.view import Grid, Mode, View, view_case
from finemask.methods.base import Method, Segmenter
from finemask.preparation import to_grid
from finemask.runs import Run

_AUTOCAST = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True)
class Machine:
    """Where and how a network runs.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ...
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.
        max_memory_bytes: Bound on what a prediction adds; by default most of what is free.
    """

    device: str = "cpu"
    precision: str = "32-true"
    max_memory_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.precision not in _AUTOCAST:
            raise UsageError(
                "precision", f"is {self.precision!r}", f"choose one of {', '.join(_AUTOCAST)}"
            )
        if self.max_memory_bytes is not None and self.max_memory_bytes < 1:
            raise UsageError("max memory", f"is {self.max_memory_bytes}", "give a positive size")

    def autocast(self) -> torch.autocast:
        """Reduced precision where it was asked for."""
        dtype = _AUTOCAST[self.precision]
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None)


@dataclass(frozen=True, eq=False)
class Prediction:
    """Probabilities of one case on a grid with its true place in the patient.

    Args:
        name: Case identifier.
        probs: ``(F, *S)`` float32 in [0, 1], one map a foreground class.
        geometry: Grid of ``S``, with the axes of the image as it was read.
    """

    name: str
    probs: Float[ndarray, " f *s"]
    geometry: Geometry


def predict_probs(
    segmenter: Segmenter,
    image_lr: Float[ndarray, " c *s"],
    *,
    guidance: Float[ndarray, " c *p"] | None = None,
    max_memory_bytes: int | None = None,
    device: str = "cpu",
    precision: str = "32-true",
) -> Float[ndarray, " f *hr"]:
    """Foreground probabilities of one prepared image on its HR grid.

    The image is padded to the network's stride by repeating its edge and the
    result cropped back, so it is exactly ``scale`` times the image.

    Args:
        segmenter: Moved to ``device``; in evaluation mode for the time being.
        image_lr: ``(C, *S)`` prepared intensities.
        guidance: What the method's guide cut from the HR image.
        max_memory_bytes: Bound on the memory that is added; by default most of what is free.
        device: Where the network runs.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.

    Returns:
        ``(F, *S * scale)`` in [0, 1].

    Raises:
        DataError: When not even the smallest tile fits the memory, or the network gives
            values that are not finite.

    Example:
        >>> from finemask.recipe import Task
        >>> segmenter = Segmenter(nn.Upsample(scale_factor=2), Task())
        >>> predict_probs(segmenter, np.zeros((1, 3, 5), np.float32)).shape
        (1, 6, 10)
    """
    machine = Machine(device, precision, max_memory_bytes)
    task = segmenter.task
    shape = (task.foreground, *_times(image_lr.shape[1:], task.scale))
    probs = np.empty(shape, np.float32)
    slabs = _probs_slabs(segmenter, image_lr, guidance, machine, probs.nbytes)
    for rows, slab in _placed(slabs, shape[1:]):
        probs[:, rows] = slab
    return probs


def super_resolve(
    method: Method,
    image_lr: Float[ndarray, " c *s"],
    machine: Machine = Machine(),
    stride: int = 1,
    window: tuple[int, ...] = (),
) -> Float[ndarray, " c *hr"]:
    """The super-resolved image of one prepared image, tiled where the memory needs it.

    Args:
        method: One that makes a super-resolved image.
        image_lr: ``(C, *S)`` prepared intensities.
        machine: Where the network runs.
        stride: LR sides are padded to a multiple of it, and cropped back.
        window: A smaller image is shown in the middle of a window of these LR sides.

    Returns:
        ``(C, *S * scale)`` in prepared intensities.
    """
    network = _Entry(method, "super_resolve")
    scale, maps = method.task.scale, len(image_lr)
    return run_whole(network, image_lr, None, scale, stride, window, maps, machine)


def to_labels(probs: Float[ndarray, " f *s"], threshold: float = 0.5) -> UInt8[ndarray, " *s"]:
    """Decide each voxel: one class by the threshold, several by the largest probability.

    The background takes part with one minus the sum of the classes, and wins a tie.

    Example:
        >>> to_labels(np.array([[0.2, 0.7]]), 0.5).tolist()
        [0, 1]
        >>> to_labels(np.array([[0.2, 0.5, 0.3], [0.2, 0.1, 0.4]])).tolist()
        [0, 1, 2]
    """
    if len(probs) == 1:
        return (probs[0] >= threshold).astype(np.uint8)
    labels = np.zeros(probs.shape[1:], np.uint8)
    best = 1 - probs.sum(axis=0)
    for label, share in enumerate(probs, 1):
        wins = share > best
        labels[wins] = label
        np.copyto(best, share, where=wins)
    return labels


def predict_case(
    run: Run,
    case: Case,
    *,
    mode: Mode = "native",
    grid: Grid = "hr",
    lr_case: Case | None = None,
    max_memory_bytes: int | None = None,
    device: str = "cpu",
    precision: str = "32-true",
) -> Prediction:
    """Foreground probabilities of one case, at their true place in the patient.

    Args:
        run: A trained run.
        case: As it was read; it is prepared as the run's recipe says.
        mode: ``native`` or ``matched``, see `view_case`.
        grid: ``hr`` or ``source``, see `view_case`.
        lr_case: The data set's own LR image, where the recipe wants one.
        max_memory_bytes: Bound on the memory that is added.
        device: Where the network runs.
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``.

    Raises:
        DataError: When the image does not suit the model.
    """
    view = view_case(run.recipe, case, mode=mode, grid=grid, lr_case=lr_case)
    machine = Machine(device, precision, max_memory_bytes)
    return Prediction(case.name, probs_of(run, view, machine), view.written)


def probs_of(run: Run, view: View, machine: Machine) -> Float[ndarray, " f *s"]:
    """Probabilities on the grid that is written."""
    shape = (run.recipe.task.foreground, *view.result.shape)
    probs = np.empty(shape, np.float32)
    copies = 1 if view.result.matches(view.written) else 2
    slabs = _view_slabs(run, view, machine, copies * probs.nbytes)
    for rows, slab in _placed(slabs, view.result.shape):
        probs[:, rows] = slab
    return to_grid(probs, view.result, view.written)


def labels_of(run: Run, view: View, machine: Machine, threshold: float) -> UInt8[ndarray, " *s"]:
    """Labels on the grid that is written, never holding all probabilities where that goes."""
    turn = view.result.axes_to(view.written)
    if turn is None:
        return to_labels(probs_of(run, view, machine), threshold)
    labels = np.empty(view.result.shape, np.uint8)
    slabs = _view_slabs(run, view, machine, 2 * labels.nbytes)
    for rows, slab in _placed(slabs, labels.shape):
        labels[rows] = to_labels(slab, threshold)
    order, flips = turn
    return np.ascontiguousarray(np.flip(np.transpose(labels, order), flips))


def super_resolved(run: Run, view: View, machine: Machine) -> Float[ndarray, " c *s"]:
    """The super-resolved image in the intensities of the source, on the grid that is written."""
    shipped = run.segmenter
    image = super_resolve(run.method, view.lr.image, machine, shipped.stride, shipped.window)
    image = image[(slice(None), *(slice(0, side) for side in view.result.shape))]
    return to_grid(view.to_source_intensities(image), view.result, view.written)


def guidance_of(run: Run, view: View) -> Float[ndarray, " c *p"] | None:
    """What the method's guide cuts from the HR image, for methods that take one."""
    if type(run.method).guide is Method.guide:
        return None
    return run.method.guide(view.on_hr_grid(run.recipe.task.scale).image)


class _Entry(nn.Module):
    """One way into a network as a module of its own, so that its memory can be counted."""

    def __init__(self, network: nn.Module, entry: str) -> None:
        super().__init__()
        self.network, self.entry = network, entry

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = getattr(self.network, self.entry)(*inputs)
        return out


def _view_slabs(
    run: Run, view: View, machine: Machine, result_bytes: int
) -> Iterator[Float[ndarray, " f *slab"]]:
    guidance = guidance_of(run, view)
    return _probs_slabs(run.segmenter, view.lr.image, guidance, machine, result_bytes)


def _probs_slabs(
    segmenter: Segmenter,
    image: Float[ndarray, " c *s"],
    guidance: Float[ndarray, " c *p"] | None,
    machine: Machine,
    result_bytes: int,
) -> Iterator[Float[ndarray, " f *slab"]]:
    task, network = segmenter.task, _Entry(segmenter, "probs")
    yield from _slabs(
        network,
        image,
        guidance,
        task.scale,
        segmenter.stride,
        segmenter.window,
        task.foreground,
        result_bytes,
        machine,
    )


def run_whole(
    network: nn.Module,
    image: Float[ndarray, " c *s"],
    guidance: Float[ndarray, " c *p"] | None,
    scale: tuple[int, ...],
    stride: int,
    window: tuple[int, ...],
    maps: int,
    machine: Machine,
) -> Float[ndarray, " f *hr"]:
    """All HR maps of a network in one array."""
    whole = np.empty((maps, *_times(image.shape[1:], scale)), np.float32)
    slabs = _slabs(network, image, guidance, scale, stride, window, maps, whole.nbytes, machine)
    for rows, slab in _placed(slabs, whole.shape[1:]):
        whole[:, rows] = slab
    return whole


def _slabs(
    network: nn.Module,
    image: Float[ndarray, " c *s"],
    guidance: Float[ndarray, " c *p"] | None,
    scale: tuple[int, ...],
    stride: int,
    window: tuple[int, ...],
    maps: int,
    result_bytes: int,
    machine: Machine,
) -> Iterator[Float[ndarray, " f *slab"]]:
    """Run a network over an image, whole or tiled; hand out its HR maps from first to last."""
    sides = image.shape[1:]
    margins = [max(0, w - s) for w, s in zip(window or sides, sides, strict=True)]
    if any(margins):
        before = tuple(margin // 2 for margin in margins)
        widths = [(0, 0), *((b, m - b) for b, m in zip(before, margins, strict=True))]
        shown = np.pad(image, widths, mode="edge")
        slabs = _slabs(network, shown, guidance, scale, stride, (), maps, result_bytes, machine)
        yield from _middle(slabs, _times(before, scale), _times(sides, scale))
        return
    network.to(machine.device)
    further = [] if guidance is None else [_to_batch(guidance, machine.device)]
    plan = fit_tiles(
        network,
        image.shape[1:],
        scale,
        stride=stride,
        channels=len(image),
        maps=maps,
        result_bytes=result_bytes,
        extra=[tuple(tensor.shape) for tensor in further],
        max_memory_bytes=machine.max_memory_bytes,
        device=machine.device,
    )

    def forward(tile: Float[ndarray, " c *t"]) -> Float[ndarray, " f *hr"]:
        with _evaluating(network), torch.inference_mode(), machine.autocast():
            out = network(_to_batch(tile, machine.device), *further)
        values: Float[ndarray, " f *hr"] = out[0].float().cpu().numpy()
        if not np.isfinite(values).all():
            raise DataError(
                "model", "gave values that are not finite numbers", "use another checkpoint"
            )
        return values

    yield from blend(image, forward, plan, scale)


def _middle(
    slabs: Iterator[Float[ndarray, " f *slab"]], start: tuple[int, ...], shape: tuple[int, ...]
) -> Iterator[Float[ndarray, " f *slab"]]:
    """The part of a sequence of slabs that begins at ``start``."""
    inside = tuple(slice(b, b + s) for b, s in zip(start[1:], shape[1:], strict=True))
    row = 0
    for slab in slabs:
        first, last = start[0] - row, start[0] + shape[0] - row
        row += slab.shape[1]
        part = slab[(slice(None), slice(max(0, first), max(0, last)), *inside)]
        if part.shape[1]:
            yield part


def _placed(
    slabs: Iterator[Float[ndarray, " f *slab"]], shape: tuple[int, ...]
) -> Iterator[tuple[slice, Float[ndarray, " f *slab"]]]:
    """Each slab with its place along the first axis, cut to a grid of ``shape``."""
    start = 0
    inside = tuple(slice(0, side) for side in shape[1:])
    for slab in slabs:
        rows = slice(start, min(start + slab.shape[1], shape[0]))
        yield rows, slab[(slice(None), slice(0, rows.stop - start), *inside)]
        start += slab.shape[1]


def _to_batch(array: Float[ndarray, " c *s"], device: str) -> Tensor:
    writable = np.require(array, np.float32, ["C", "W"])  # a cached case is read-only
    return torch.from_numpy(writable)[None].to(device)


def _times(shape: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side * factor for side, factor in zip(shape, scale, strict=True))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every part is put back as it was."""
    training = [part for part in network.modules() if part.training]
    network.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
