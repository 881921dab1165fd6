"""What a network's answer was made from, as maps and as a figure for each case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jaxtyping import Float, UInt8
from numpy import ndarray

from finemask.inference.model import Machine, Model
from finemask.inference.network import guidance_of, run_whole
from finemask.inference.view import View
from finemask.io import write_probs
from finemask.preparation import to_grid
from finemask.report.explanation import explanation_row
from finemask.report.figures import save_examples


def explained(model: Model, view: View, machine: Machine) -> dict[str, Float[ndarray, " *s"]]:
    """Maps by name, in [0, 1] on the grid that is written."""
    network, guidance = model.explaining_network(machine), guidance_of(model, view)
    maps = run_whole(network, view.lr.image, guidance, machine.max_memory_bytes)
    maps = maps[(slice(None), *(slice(0, side) for side in view.result.shape))]
    placed = to_grid(maps, view.result, view.written).clip(0, 1)
    return dict(zip(model.explanations, placed, strict=True))


def write_explanation(
    files: Sequence[Path],
    model: Model,
    view: View,
    labels: UInt8[ndarray, " *s"],
    machine: Machine,
) -> None:
    """Write each map, and the image with the mask's outline beside all of them.

    Args:
        files: One a map, then the figure.
        model: One that has explanations.
        view: Of the case.
        labels: The mask on the grid that is written.
        machine: Where the network runs.
    """
    *places, figure = files
    maps = explained(model, view, machine)
    for place, values in zip(places, maps.values(), strict=True):
        write_probs(place, values, view.written, overwrite=True)
    image = to_grid(view.case.image, view.case.geometry, view.written)
    save_examples([explanation_row(image, labels, maps, view.written)], figure)
