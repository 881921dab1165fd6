"""The same cases as every method saw them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finemask.case import Case
from finemask.comparison.plan import Cell
from finemask.comparison.results import Results, higher_is_better
from finemask.datasets import Dataset, load_dataset
from finemask.inference.view import view_case
from finemask.io import find_images, read_labels, stem
from finemask.preparation import to_grid
from finemask.pseudonyms import Pseudonyms
from finemask.report.panels import Panel, lesion_window, overlay

Classes = NDArray[np.uint8]


@dataclass(frozen=True)
class Example:
    """One case.

    Args:
        case: Its name.
        why: What it is an example of.
        input: What the networks were given.
        panels: Outlines of truth and prediction by row.
        scores: Headline score by row, of the seed that is shown.
    """

    case: str
    why: str
    input: Panel
    panels: Mapping[str, Panel]
    scores: Mapping[str, float]


def read_examples(
    results: Results, data: Path, out: Path, pseudonyms: Pseudonyms | None = None
) -> list[Example]:
    """Best, median and worst case, and another one on which the methods differ most."""
    dataset = load_dataset(data)
    if pseudonyms:
        dataset = dataset.pseudonymised(pseudonyms)
    return [_read(results, dataset, out, place, why) for place, why in choose(results).items()]


def choose(results: Results) -> dict[tuple[int, str], str]:
    """Places to show with the reason, by the headline metric of all rows and classes."""
    scores: dict[tuple[int, str], dict[str, list[float]]] = {}
    for row in results.rows:
        for label in results.labels:
            for place, value in results.case_values(row.label, results.headline, label).items():
                scores.setdefault(place, {}).setdefault(row.label, []).append(value)
    means = {p: [float(np.mean(v)) for v in rows.values()] for p, rows in scores.items()}
    means = {p: v for p, v in means.items() if len(v) == len(results.rows)} or means
    if not means:
        return {}
    sign = -1 if higher_is_better(results.headline) else 1
    ranked = sorted(means, key=lambda p: (sign * float(np.mean(means[p])), p))
    chosen = {ranked[0]: "Best"}
    chosen.setdefault(ranked[(len(ranked) - 1) // 2], "Median")
    chosen.setdefault(ranked[-1], "Worst")
    others = [place for place in ranked if place not in chosen]
    if len(results.rows) > 1 and others:
        apart = max(others, key=lambda p: max(means[p]) - min(means[p]))
        chosen[apart] = "Methods far apart"
    return chosen


def _read(
    results: Results, dataset: Dataset, out: Path, place: tuple[int, str], why: str
) -> Example:
    fold, name = place
    case = dataset.read(dataset.entry(name))
    truth = np.zeros(case.geometry.shape, np.uint8) if case.truth is None else case.truth
    cells: dict[str, Cell] = {}
    for c in results.cells:
        if c.cell.fold == fold:
            cells.setdefault(c.cell.row.label, c.cell)
    masks = {row: _mask(out, cell, name, truth) for row, cell in cells.items()}
    panels = {
        row: overlay(case.image, truth, mask, geometry=case.geometry) for row, mask in masks.items()
    }
    first = next(iter(panels.values()))
    drawn = [p.prediction for p in panels.values() if p.prediction is not None]
    window = lesion_window(np.zeros_like(drawn[0]) if first.truth is None else first.truth,
                           np.maximum.reduce(drawn), margin=0.35)  # fmt: skip
    seen, size = _input(results, dataset, case)
    shown = overlay(seen, truth, None, geometry=case.geometry, paint="none")
    return Example(
        case=name,
        why=why,
        input=replace(shown, frame=window, title=f"input, {size}"),
        panels={row: panel.zoomed(window) for row, panel in panels.items()},
        scores=_scores(results, cells, name),
    )


def _mask(out: Path, cell: Cell, name: str, truth: NDArray[Any]) -> Classes:
    """The predicted classes; none at all where there is no mask."""
    folder = out / "cells" / cell.name / "masks"
    found = {stem(path): path for path in find_images(folder)}
    if name not in found:
        return np.zeros(truth.shape, np.uint8)
    mask: Classes = read_labels(found[name])[0].astype(np.uint8)
    return mask


def _input(results: Results, dataset: Dataset, case: Case) -> tuple[NDArray[np.float32], str]:
    """What the networks were given, its coarse pixels on the grid of the image, and its size."""
    plan, recipe = results.plan, results.plan.rows[0].recipe
    if plan.mode == "native":
        return case.image, _size(case.geometry.shape)
    real = recipe.pairs.degrade == "real"
    lr_case = dataset.read_lr(dataset.entry(case.name)) if real else None
    view = view_case(recipe, case, mode=plan.mode, grid="source", lr_case=lr_case)
    image = view.lr.image
    for axis, factor in enumerate(recipe.task.scale, start=1):
        image = np.repeat(image, factor, axis=axis)
    image = image[(slice(None), *(slice(0, n) for n in view.result.shape))]
    size = _size(view.lr.geometry.shape)
    turn = view.result.axes_to(view.written)
    if turn is None:
        return to_grid(image, view.result, view.written), size
    order, flips = turn
    turned = np.transpose(image, (0, *(1 + a for a in order)))
    return np.flip(turned, tuple(1 + a for a in flips)), size


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _scores(results: Results, cells: Mapping[str, Cell], name: str) -> dict[str, float]:
    """Mean of the classes, of the one training that is shown."""
    found = {}
    for c in results.cells:
        if cells.get(c.cell.row.label) == c.cell:
            values = [
                s.values.get(results.headline, math.nan) for s in c.scores
                if s.case == name and s.label in results.labels
            ]  # fmt: skip
            finite = [v for v in values if math.isfinite(v)]
            found[c.cell.row.label] = float(np.mean(finite)) if finite else math.nan
    return found
