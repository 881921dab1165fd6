"""What a network's answer was made from, as maps and as a figure for each case."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from numpy import ndarray
from torch import Tensor, nn

from finemask.inference.network import Machine, guidance_of, run_whole
from finemask.inference.view import View
from finemask.io import write_probs
from finemask.methods import Segmenter
from finemask.nn.superres import enlarge_by
from finemask.preparation import to_grid
from finemask.report.explanation import explanation_row
from finemask.report.figures import save_examples
from finemask.runs import Run


def explained(run: Run, view: View, machine: Machine) -> dict[str, Float[ndarray, " *s"]]:
    """Maps by name, in [0, 1] on the grid that is written."""
    shipped, task = run.segmenter, run.recipe.task
    maps = run_whole(
        _Explaining(shipped),
        view.lr.image,
        guidance_of(run, view),
        task.scale,
        shipped.stride,
        shipped.window,
        len(shipped.explanations),
        machine,
    )
    maps = maps[(slice(None), *(slice(0, side) for side in view.result.shape))]
    placed = to_grid(maps, view.result, view.written).clip(0, 1)
    return dict(zip(shipped.explanations, placed, strict=True))


def write_explanation(
    files: Sequence[Path],
    run: Run,
    view: View,
    labels: UInt8[ndarray, " *s"],
    machine: Machine,
) -> None:
    """Write each map, and the image with the mask's outline beside all of them.

    Args:
        files: One a map, then the figure.
        run: Its inference network has explanations.
        view: Of the case.
        labels: The mask on the grid that is written.
        machine: Where the network runs.
    """
    *places, figure = files
    maps = explained(run, view, machine)
    for place, values in zip(places, maps.values(), strict=True):
        write_probs(place, values, view.written, overwrite=True)
    image = to_grid(view.case.image, view.case.geometry, view.written)
    save_examples([explanation_row(image, labels, maps, view.written)], figure)


class _Explaining(nn.Module):
    """All explanations of a network in one tensor on the HR grid."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_lr: Tensor, guidance: Tensor | None = None) -> Tensor:
        maps = self.network.explain(image_lr, guidance)
        together = torch.cat([maps[name] for name in self.network.explanations], 1)
        return enlarge_by(together.float(), self.network.task.scale)
