"""The page that sets methods side by side on the same cases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finemask.evaluation.results import Evaluation
from finemask.io import write_text
from finemask.metrics.scores import EVERY_SIZE
from finemask.report import html
from finemask.report.evaluation import name_of, show
from finemask.report.figures import panel_picture
from finemask.report.panels import PREDICTION, TRUTH, Panel, overlay, to_picture

SHOWN = ("dice", "iou", "sensitivity", "precision", "hd95", "assd")
IMAGE_QUALITY = {"psnr_db": "PSNR [dB]", "ssim": "SSIM"}


@dataclass(frozen=True)
class MethodResult:
    """What one method achieved.

    Args:
        name: Of the method.
        evaluation: Scores of its masks.
        parameters_training: Weights while it learned.
        parameters_inference: Weights that ship.
        steps: Optimiser steps of the best checkpoint.
        report: Page about it alone, relative to the comparison's page.
    """

    name: str
    evaluation: Evaluation
    parameters_training: int
    parameters_inference: int
    steps: int
    report: str


@dataclass(frozen=True)
class Example:
    """One case as every method saw it.

    Args:
        case: Its name.
        image_lr: ``(C, *S)`` what went in.
        image_hr: ``(C, *S * scale)`` what was hidden.
        truth: Classes on the HR grid.
        predictions: Classes on the HR grid, by method.
    """

    case: str
    image_lr: NDArray[np.float32]
    image_hr: NDArray[np.float32]
    truth: NDArray[np.uint8]
    predictions: dict[str, NDArray[np.uint8]]


def format_table(results: Sequence[MethodResult]) -> str:
    """The means of each method for the terminal."""
    unit = results[0].evaluation.summary["size_groups"]["unit"]
    metrics = [m for m in SHOWN if m in results[0].evaluation.summary["scores"]]
    header = ["method", *(name_of(m, unit) for m in metrics), "PSNR [dB]", "parameters"]
    rows = [header]
    for result in results:
        means = [_mean(result.evaluation, metric) for metric in (*metrics, "psnr_db")]
        rows.append(
            [result.name, *(show(mean) for mean in means), f"{result.parameters_inference:,}"]
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def write_comparison(
    path: Path,
    *,
    title: str,
    lead: str,
    results: Sequence[MethodResult],
    examples: Sequence[Example],
    method_notes: Sequence[str] = (),
) -> Path:
    """Write the page as one HTML file.

    Args:
        path: The file.
        title: Heading.
        lead: What was compared, in a sentence or two.
        results: In the order of the table.
        examples: Cases to show.
        method_notes: How it was done, a sentence each, for the end of the page.
    """
    content = html.page(
        title,
        lead,
        html.section("Result", *_tables(results)),
        html.section("The same cases, side by side", *_examples(examples)),
        html.section("How this was measured", *(html.paragraph(n, "note") for n in method_notes)),
    )
    write_text(path, content)
    return path


def choose_examples(
    results: Sequence[MethodResult], read: Callable[[str], Example], most: int = 4
) -> list[Example]:
    """The best, median and worst cases by the mean Dice of all methods, spread evenly."""
    by_case: dict[str, list[float]] = {}
    for result in results:
        for score in result.evaluation.scores:
            value = score.values.get("dice", math.nan)
            if math.isfinite(value):
                by_case.setdefault(score.case, []).append(value)
    ranked = sorted(by_case, key=lambda case: (-float(np.mean(by_case[case])), case))
    places = np.unique(np.linspace(0, len(ranked) - 1, min(most, len(ranked))).round().astype(int))
    return [read(ranked[place]) for place in places]


def _mean(evaluation: Evaluation, metric: str) -> float | None:
    if metric not in evaluation.summary["scores"]:
        return None
    return evaluation.mean(metric)


def _tables(results: Sequence[MethodResult]) -> list[str]:
    unit = results[0].evaluation.summary["size_groups"]["unit"]
    metrics = [m for m in SHOWN if m in results[0].evaluation.summary["scores"]]
    rows = [
        [result.name, *(_cell(result.evaluation, m) for m in metrics), *_sizes(result)]
        for result in results
    ]
    header = ["Method", *(name_of(m, unit) for m in metrics), "Learns with", "Ships with"]
    tables = [
        html.table(
            header,
            rows,
            caption="Mean over the test cases, with its 95 % interval (patients drawn again). "
            "Learns with, ships with: number of weights, in millions.",
            large=True,
        )
    ]
    with_image = [r for r in results if "psnr_db" in r.evaluation.summary["scores"]]
    if with_image:
        tables.append(
            html.table(
                ["Super-resolved image", *IMAGE_QUALITY.values()],
                [
                    [r.name, *(show(_mean(r.evaluation, m)) for m in IMAGE_QUALITY)]
                    for r in with_image
                ],
            )
        )
    return tables


def _cell(evaluation: Evaluation, metric: str) -> html.Markup:
    labels = evaluation.summary["scores"][metric]
    cells = [by_size[EVERY_SIZE] for by_size in labels.values()]
    interval = ""
    if len(cells) == 1 and math.isfinite(cells[0]["ci_low"]):
        interval = f"{show(cells[0]['ci_low'])} to {show(cells[0]['ci_high'])}"
    return html.number(show(evaluation.mean(metric)), interval)


def _sizes(result: MethodResult) -> tuple[str, str]:
    return (
        f"{result.parameters_training / 1e6:.2f}",
        f"{result.parameters_inference / 1e6:.2f}",
    )


def _examples(examples: Sequence[Example]) -> list[str]:
    if not examples:
        return []
    content = [
        html.legend(
            (TRUTH, "truth"),
            (PREDICTION, "prediction"),
        )
    ]
    content += [_example(example) for example in examples]
    return content


def _example(example: Example) -> str:
    rows, columns = example.image_lr.shape[-2:]
    coarse = (example.truth.shape[-2] / rows, example.truth.shape[-1] / columns)
    image_lr = example.image_lr
    if example.truth.ndim == 3:
        middle = int(np.argmax((example.truth > 0).sum((1, 2))))
        image_lr = image_lr[:, middle * image_lr.shape[1] // len(example.truth)]
    figures = [
        html.picture(
            panel_picture(Panel(to_picture(image_lr), spacing=coarse)),
            f"{example.case}: the input",
            f"input, {rows} x {columns}",
        )
    ]
    for name, prediction in example.predictions.items():
        panel = overlay(example.image_hr, example.truth, prediction)
        figures.append(
            html.picture(
                panel_picture(panel),
                f"{example.case}: outlines of the truth and of the prediction by {name}",
                f"{name}, outlines on the hidden HR image",
            )
        )
    heading = f"<p><strong>{html.escape(example.case)}</strong></p>"
    return f'<div class="example">{heading}{html.row(*figures)}</div>'
