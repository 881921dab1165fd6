"""Readers, their consensus and the predictions, two by two: tables and a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finemask.evaluation.readers import PREDICTION, ReaderStudy, others_of
from finemask.io.files import atomic_write
from finemask.report import html
from finemask.report.cells import NONE, number, show, under
from finemask.report.figures import INK, blank_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def reader_section(study: ReaderStudy) -> list[str]:
    """Tables and drawings of a study, class by class."""
    content = []
    for label in study.labels:
        rows = [
            [first, *(_cell(study, label, first, second) for second in study.names)]
            for first in study.names
        ]
        table = html.table(["Dice", *study.names], rows)
        drawing = html.vector(
            to_svg(agreement_map(study, [label])),
            f"Mean Dice of every two of {', '.join(study.names)}",
            "Mean Dice of every two; the darker, the more alike.",
        )
        content.append(under(label, study.labels, table + drawing + _alone(study, label)))
    told = (
        f"{study.cases} cases that every reader was asked about. The consensus is what at least "
        "half of the readers marked; a case that neither of two marked is left out of their mean. "
        "An interval is of 95 %, patients drawn again."
    )
    return [
        *content,
        html.paragraph(told, "note"),
        *(html.paragraph(n, "note") for n in study.notes),
    ]


def _alone(study: ReaderStudy, label: str) -> str:
    """Each reader and the predictions with the consensus of the other readers."""
    rows = []
    for reader in study.readers:
        pair = [study.between(label, who, others_of(reader)) for who in (reader, PREDICTION)]
        rows.append([f"without {reader}", *(number(asdict(a.dice)) for a in pair)])
    nearer = sum(
        study.between(label, PREDICTION, others_of(r)).dice.mean
        >= study.between(label, r, others_of(r)).dice.mean
        for r in study.readers
    )
    caption = (
        "A reader is one of those who make the consensus, the predictions are not. With the "
        f"consensus of the others the predictions agree better than {nearer} of "
        f"{len(study.readers)} readers do."
    )
    return html.table(["Consensus", "The reader left out", "Predictions"], rows, caption=caption)


def _cell(study: ReaderStudy, label: str, first: str, second: str) -> str:
    return NONE if first == second else number(asdict(study.between(label, first, second).dice))


def save_agreement(study: ReaderStudy, path: Path) -> None:
    """The table as a picture, the classes below each other."""
    with atomic_write(path, True) as temporary:
        agreement_map(study, study.labels).savefig(
            temporary, dpi=130, format="png", facecolor="white"
        )


def agreement_map(study: ReaderStudy, labels: Sequence[str]) -> Figure:
    """The table as squares, each with its number; one below the other for some classes."""
    names, shown = study.names, len(labels)
    figure = blank_figure(1.6 + 0.95 * len(names), shown * (0.6 + 0.5 * len(names)))
    for axes, label in zip(figure.subplots(shown, squeeze=False)[:, 0], labels, strict=True):
        values = np.array([[_mean(study, label, a, b) for b in names] for a in names])
        low = min(float(values[np.isfinite(values)].min(initial=1.0)) - 0.1, 0.9)
        axes.imshow(values, cmap="Blues", vmin=low, vmax=1.0, aspect="auto")
        for (i, j), value in np.ndenumerate(values):
            colour = INK if np.isnan(value) else "white" if value > (1 + low) / 2 else "black"
            axes.text(j, i, show(float(value)), ha="center", va="center", fontsize=9, color=colour)
        axes.set_xticks(range(len(names)), names)
        axes.set_yticks(range(len(names)), names)
        axes.tick_params(labelsize=9, colors=INK, length=0, labeltop=True, labelbottom=False)
        axes.spines[:].set_visible(False)
        if len(study.labels) > 1:
            axes.set_title(label.replace("_", " "), fontsize=9.5, color=INK, loc="left", pad=22)
    figure.tight_layout()
    return figure


def _mean(study: ReaderStudy, label: str, first: str, second: str) -> float:
    return float("nan") if first == second else study.between(label, first, second).dice.mean
