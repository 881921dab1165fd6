"""An exported network beside the one it came from, on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Integer
from numpy import ndarray

from finemask.case import Case
from finemask.deploy.exported import Exported
from finemask.deploy.spec import Check
from finemask.errors import DataError
from finemask.inference.model import Machine
from finemask.inference.network import guidance_of, image_of, probs_of, to_labels
from finemask.inference.tiles import padded_shape, smaller_tile
from finemask.inference.view import Mode, View, view_case
from finemask.runs import Run

LOGITS_ERROR = 0.002
"""Largest difference of float32 logits, in their standard deviations."""
MASK_DICE = 0.999
"""Least agreement of masks that float32 logits make."""
INT8_LOSS = 0.005
"""Dice that eight bits may cost."""
MOST_VOXELS = 2**18
"""LR voxels of the tiles whose logits are compared; masks are compared whole."""


def compare(
    run: Run, exported: Exported, machine: Machine, cases: Sequence[Case], images: str
) -> Check:
    """Logits of one tile of each case and masks of whole cases, in torch and exported.

    Args:
        run: The original.
        exported: What was written.
        machine: Backend and precision of the exported network.
        cases: As they were read.
        images: What they are, in words.
    """
    network, threshold = exported.network(machine), run.threshold
    errors, ours, dice = [], np.zeros(3), []
    for case in cases:
        view = view_for(run, case)
        tiles = tiles_of(run, view)
        with torch.inference_mode():
            expected = run.segmenter(*map(torch.from_numpy, tiles)).float().numpy()
        errors.append(np.abs(network.logits(*tiles) - expected).max() / (expected.std() or 1))
        first = to_labels(probs_of(run, view, Machine()), threshold)
        second = to_labels(probs_of(exported, view, machine), threshold)
        ours += [np.sum((first == second) & (first > 0)), np.sum(first > 0), np.sum(second > 0)]
        if case.truth is not None and (case.truth > 0).any():
            dice.append([mean_dice(labels, case.truth, run) for labels in (first, second)])
    both, one, other = ours
    return Check(
        machine.backend,
        machine.precision,
        images,
        len(cases),
        float(max(errors)),
        float(2 * both / (one + other)) if one + other else 1.0,
        tuple(np.mean(dice, axis=0).tolist()) if dice else (),
    )


def view_for(run: Run, case: Case) -> View:
    """A case as a network is scored on it: reduced first where that can be done here."""
    mode: Mode = "native" if run.recipe.pairs.degrade == "real" else "matched"
    return view_case(run.recipe, case, mode=mode, grid="source")


def tiles_of(run: Run, view: View) -> list[Float[ndarray, " b c *s"]]:
    """A batch of two of everything the network reads: the middle of an image, and its mirror."""
    image, shipped = image_of(run, view), run.segmenter
    sides = image.shape[1:]
    least = shipped.window or sides
    whole = padded_shape([max(n, w) for n, w in zip(sides, least, strict=True)], shipped.stride)
    margins = [(0, w - n) for n, w in zip(sides, whole, strict=True)]
    image = np.pad(image, [(0, 0), *margins], mode="edge")
    tile_sides = whole
    while math.prod(tile_sides) > MOST_VOXELS:
        smaller = smaller_tile(tile_sides, shipped.stride)
        if smaller is None:
            break
        tile_sides = smaller
    window = (slice((n - t) // 2, (n - t) // 2 + t) for n, t in zip(whole, tile_sides, strict=True))
    tile = image[(slice(None), *window)]
    batch = [np.ascontiguousarray(np.stack([tile, tile[..., ::-1]]), np.float32)]
    cut = guidance_of(run, view)
    if cut is not None:
        batch.append(np.ascontiguousarray(np.stack([cut, cut]), np.float32))
    return batch


def mean_dice(labels: Integer[ndarray, " *s"], truth: Integer[ndarray, " *s"], run: Run) -> float:
    """Mean Dice over the classes that the truth or the mask has."""
    scores = []
    for label in range(1, run.recipe.task.foreground + 1):
        a, b = labels == label, truth == label
        if total := int(a.sum() + b.sum()):
            scores.append(2 * int((a & b).sum()) / total)
    return float(np.mean(scores))


def refuse_if_unlike(check: Check, numbers: str) -> None:
    """Raise unless an exported network may take the place of the original.

    Raises:
        DataError: With the numbers.
    """
    told = (
        f"on {check.images}: logits differ by up to {check.logits_error:.2g} standard deviations, "
        f"masks agree with Dice {check.mask_dice:.4f}"
    )
    if check.dice:
        told += f", Dice against the truth {check.dice[0]:.4f} became {check.dice[1]:.4f}"
    if numbers == "int8":
        if check.loss > INT8_LOSS:
            raise DataError(
                "int8",
                f"costs {check.loss:.4f} Dice, more than {INT8_LOSS} ({told})",
                "export without --int8",
            )
    elif check.logits_error > LOGITS_ERROR or check.mask_dice < MASK_DICE:
        raise DataError(
            "export", f"gave another network than the run's ({told})", "report it; nothing is left"
        )
