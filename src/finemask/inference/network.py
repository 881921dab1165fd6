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
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

from finemask.case import Case
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.inference.memory import fit_tiles
from finemask.inference.model import Machine, Model, Network
from finemask.inference.tiles import blend
from finemask.inference.view import Grid, Mode, View, view_case
from finemask.pairs.guidance import framed
from finemask.preparation import to_grid


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
    model: Model,
    case: Case,
    *,
    mode: Mode = "native",
    grid: Grid = "hr",
    lr_case: Case | None = None,
    max_memory_bytes: int | None = None,
    device: str = "cpu",
    precision: str = "32-true",
    backend: str = "auto",
) -> Prediction:
    """Foreground probabilities of one case, at their true place in the patient.

    Args:
        model: A trained run, or an exported one.
        case: As it was read; it is prepared as the model's recipe says.
        mode: ``native`` or ``matched``, see `view_case`.
        grid: ``hr`` or ``source``, see `view_case`.
        lr_case: The data set's own LR image, where the recipe wants one.
        max_memory_bytes: Bound on the memory that is added.
        device: Where the network runs.
        precision: ``32-true``, ``bf16-mixed``, ``16-mixed`` or ``auto``.
        backend: See `Machine`.

    Raises:
        DataError: When the image does not suit the model.
    """
    machine = model.choose(Machine(device, precision, max_memory_bytes, backend))
    view = view_case(model.recipe, case, mode=mode, grid=grid, lr_case=lr_case)
    return Prediction(case.name, probs_of(model, view, machine), view.written)


def probs_of(model: Model, view: View, machine: Machine) -> Float[ndarray, " f *s"]:
    """Probabilities on the grid that is written."""
    shape = (model.recipe.task.foreground, *view.result.shape)
    probs = np.empty(shape, np.float32)
    copies = 1 if view.result.matches(view.written) else 2
    slabs = _view_slabs(model, view, machine, copies * probs.nbytes)
    for rows, slab in _placed(slabs, view.result.shape):
        probs[:, rows] = slab
    return to_grid(probs, view.result, view.written)


def labels_of(
    model: Model, view: View, machine: Machine, threshold: float
) -> UInt8[ndarray, " *s"]:
    """Labels on the grid that is written, never holding all probabilities where that goes."""
    turn = view.result.axes_to(view.written)
    if turn is None:
        return to_labels(probs_of(model, view, machine), threshold)
    labels = np.empty(view.result.shape, np.uint8)
    slabs = _view_slabs(model, view, machine, 2 * labels.nbytes)
    for rows, slab in _placed(slabs, labels.shape):
        labels[rows] = to_labels(slab, threshold)
    order, flips = turn
    return np.ascontiguousarray(np.flip(np.transpose(labels, order), flips))


def super_resolved(model: Model, view: View, machine: Machine) -> Float[ndarray, " c *s"]:
    """The super-resolved image in the intensities of the source, on the grid that is written."""
    network = model.image_network(machine)
    image = run_whole(network, view.lr.image, guidance_of(model, view), machine.max_memory_bytes)
    image = image[(slice(None), *(slice(0, side) for side in view.result.shape))]
    return to_grid(view.to_source_intensities(image), view.result, view.written)


def guidance_of(model: Model, view: View) -> Float[ndarray, " c *p"] | None:
    """What the model's guide cuts from the HR image, for models that have one."""
    if model.guide is None:
        return None
    return model.guidance(view.on_hr_grid(model.recipe.task.scale).image)


def _view_slabs(
    model: Model, view: View, machine: Machine, result_bytes: int
) -> Iterator[Float[ndarray, " f *slab"]]:
    guidance, network = guidance_of(model, view), model.network(machine)
    image = image_of(model, view)
    return slabs_of(network, image, guidance, machine.max_memory_bytes, result_bytes)


def image_of(model: Model, view: View) -> Float[ndarray, " c *s"]:
    """The image on the grid that the model reads."""
    if model.reads_hr:
        return view.on_hr_grid(model.recipe.task.scale).image
    return view.lr.image


def run_whole(
    network: Network,
    image: Float[ndarray, " c *s"],
    guidance: Float[ndarray, " g *p"] | None = None,
    max_memory_bytes: int | None = None,
) -> Float[ndarray, " f *hr"]:
    """All maps of a network on the HR grid of an image, tiled where the memory needs it.

    The image is padded to the network's stride by repeating its edge and the
    result cropped back, so it is exactly ``scale`` times the image.

    Args:
        network: Run on the whole image or on tiles of it.
        image: ``(C, *S)`` prepared intensities on the LR grid.
        guidance: What the model's guide cut from the HR image.
        max_memory_bytes: Bound on the memory that is added; by default most of what is free.

    Returns:
        ``(F, *S * scale)``.

    Raises:
        DataError: When not even the smallest tile fits the memory, or the network gives
            values that are not finite.
    """
    whole = np.empty((network.maps, *_times(image.shape[1:], network.scale)), np.float32)
    slabs = slabs_of(network, image, guidance, max_memory_bytes, whole.nbytes)
    for rows, slab in _placed(slabs, whole.shape[1:]):
        whole[:, rows] = slab
    return whole


def slabs_of(
    network: Network,
    image: Float[ndarray, " c *s"],
    guidance: Float[ndarray, " g *p"] | None,
    max_memory_bytes: int | None,
    result_bytes: int,
) -> Iterator[Float[ndarray, " f *slab"]]:
    """As `run_whole`, but the maps are handed out in slabs, from the first row to the last.

    Args:
        network: Run on the whole image or on tiles of it.
        image: ``(C, *S)`` prepared intensities on the LR grid.
        guidance: What the model's guide cut from the HR image.
        max_memory_bytes: Bound on the memory that is added.
        result_bytes: Of these, what the caller keeps.
    """
    sides, scale = image.shape[1:], network.scale
    image = framed(image, network.window)
    before = tuple((n - s) // 2 for n, s in zip(image.shape[1:], sides, strict=True))
    plan = fit_tiles(
        network,
        image.shape[1:],
        channels=len(image),
        result_bytes=result_bytes,
        extra=[] if guidance is None else [(1, *guidance.shape)],
        max_memory_bytes=max_memory_bytes,
    )

    def forward(tile: Float[ndarray, " c *t"]) -> Float[ndarray, " f *hr"]:
        values = network.forward(tile, guidance)
        if not np.isfinite(values).all():
            raise DataError(
                "model", "gave values that are not finite numbers", "use another checkpoint"
            )
        return values

    slabs = blend(image, forward, plan, scale)
    yield from _middle(slabs, _times(before, scale), _times(sides, scale))


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


def _times(shape: tuple[int, ...], scale: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side * factor for side, factor in zip(shape, scale, strict=True))
