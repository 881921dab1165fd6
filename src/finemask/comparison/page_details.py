"""The second half of the report: cost, pictures, all numbers, failures, protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence

from finemask.comparison.examples import Example
from finemask.comparison.files import headline_name
from finemask.comparison.results import Entry, Results
from finemask.comparison.verdict import interval
from finemask.metrics.scores import EVERY_SIZE
from finemask.report import html
from finemask.report.cells import name_of, show
from finemask.report.contrasts import Interval, cost_against_quality
from finemask.report.figures import panel_picture, to_svg
from finemask.report.panels import PREDICTION, TRUTH


def cost_section(results: Results) -> list[str]:
    """What each row takes to train and to run, and what it gives for that."""
    costs = {row.label: results.costs(row.label) for row in results.rows}
    label = results.labels[0]
    quality = {}
    for row in results.rows:
        entry = results.entry(row.label, results.headline, label)
        quality[row.label] = (
            Interval(entry.mean, entry.ci_low, entry.ci_high) if entry else Interval(math.nan)
        )
    panels = {
        "seconds a case": {r: c["seconds_a_case"] for r, c in costs.items()},
        "multiply-adds of a prediction [G]": {
            r: c["macs_inference"] / 1e9 for r, c in costs.items()
        },
        "minutes to train": {r: c["seconds_training"] / 60 for r, c in costs.items()},
    }
    figure = html.vector(
        to_svg(cost_against_quality(panels, quality, label=headline_name(results))),
        "Quality of each method against its cost",
        f"{headline_name(results)}"
        + (f" of {label.replace('_', ' ')}" if len(results.labels) > 1 else "")
        + " against three costs; up and to the left is better.",
    )
    header = ["Method", "Learns with [M]", "Ships with [M]", "GMAC to learn", "GMAC to run",
              "Training [min]", "Memory [MiB]", "Seconds a case", "To run [MiB]"]  # fmt: skip
    rows = [
        [
            r,
            f"{c['parameters_training'] / 1e6:.2f}",
            f"{c['parameters_inference'] / 1e6:.2f}",
            show(c["macs_training"] / 1e9),
            show(c["macs_inference"] / 1e9),
            show(c["seconds_training"] / 60),
            f"{c['memory_training_bytes'] / 2**20:.0f}",
            show(c["seconds_a_case"]),
            f"{c['memory_inference_bytes'] / 2**20:.0f}",
        ]
        for r, c in costs.items()
    ]
    first = results.cells[0].about["cost"]
    windows = {tuple(c.about["cost"]["macs_input"]) for c in results.cells}
    size = " or ".join(sorted("x".join(map(str, w)) for w in windows))
    caption = (
        f"Weights in millions. GMAC: multiply-adds of the convolutions at an LR window of {size}, "
        "to learn from one sample (forward and backward) and to run. Memory: of the whole training "
        "process; to run: weights and live activations of one prediction. Seconds from an image in "
        "memory to its mask. "
        f"Medians over the trainings, on {first['device']} with "
        f"{counted(first['threads'], 'thread')}."
    )
    return [figure, html.table(header, rows, small=True), html.paragraph(caption, "note")]


def example_section(results: Results, examples: Sequence[Example]) -> list[str]:
    """Pictures of some cases by all rows."""
    if not examples:
        return []
    content = [html.legend((TRUTH, "truth"), (PREDICTION, "prediction"))]
    for example in examples:
        figures = [
            html.picture(
                panel_picture(example.input), f"{example.case}: the input", example.input.title
            )
        ]
        for row, panel in example.panels.items():
            told = f"{row}, {headline_name(results)} {show(example.scores.get(row))}"
            what = f"{example.case}: outlines of the truth and of the prediction by {told}"
            figures.append(html.picture(panel_picture(panel), what, told))
        heading = (
            f"<p><strong>{html.escape(example.why)}</strong> &ensp;{html.escape(example.case)}</p>"
        )
        content.append(f'<div class="example">{heading}{html.row(*figures)}</div>')
    return content


def number_section(results: Results) -> list[str]:
    """Every metric with its spreads, test and effect."""
    several = len(results.labels) > 1
    rows = []
    for (metric, label, group, row), entry in results.entries.items():
        if group != EVERY_SIZE:
            continue
        found = entry.difference
        first = row == results.reference
        rows.append([
            name_of(metric, results.unit) + (f", {label.replace('_', ' ')}" if several else "")
            if first else "",
            row, str(entry.cases), show(entry.mean), show(entry.sd_cases), show(entry.sd_seeds),
            ", ".join(show(v) for v in entry.by_seed.values()),
            f"{found.mean:+.3f} {interval(entry)}" if found and found.cases else show(None),
            _p(entry), _effect(entry), _reasons(entry),
        ])  # fmt: skip
    header = ["Metric", "Method", "Cases", "Mean", "SD of cases", "SD of seeds", "Seed by seed",
              f"Against {results.reference}", "p", "Effect", "Left out"]  # fmt: skip
    note = (
        "SD of cases: between cases, each the mean of its seeds. SD of seeds: between the means "
        "of the trainings. p: Wilcoxon signed-rank test over patients, two-sided, Holm-corrected "
        "for the methods. Effect: rank-biserial correlation with its interval, 1 when every "
        "patient gains. Left out: undefined values with the reason, and values without a partner "
        "in the difference (unpaired). All size groups are in comparison.csv."
    )
    return [html.table(header, rows, text=(0, 1, 10), small=True), html.paragraph(note, "note")]


def _p(entry: Entry) -> str:
    return show(None) if math.isnan(entry.p_holm) else f"{entry.p_holm:.2g}"


def _effect(entry: Entry) -> str:
    found = entry.difference
    if found is None or not found.cases:
        return show(None)
    if math.isnan(found.effect_low):
        return f"{found.effect:+.2f}"
    return f"{found.effect:+.2f} [{found.effect_low:.2f}, {found.effect_high:.2f}]"


def _reasons(entry: Entry) -> str:
    said = [f"{n} {reason}" for reason, n in entry.undefined.items()]
    if entry.unpaired:
        said.append(f"{entry.unpaired} unpaired")
    return ", ".join(said) or show(None)


def failure_section(results: Results) -> str:
    """Cells and predictions that failed."""
    rows = [[name, error] for name, error in results.errors.items()]
    rows += [
        [c.cell.name, f"no usable mask of {', '.join(c.about['failed'][:5])}"
         + (f" and {len(c.about['failed']) - 5} more" if len(c.about["failed"]) > 5 else "")]
        for c in results.cells
        if c.about["failed"]
    ]  # fmt: skip
    return html.table(["Training", "What happened"], rows, text=(0, 1)) if rows else ""


def method_section(results: Results, notes: Sequence[str]) -> list[str]:
    """The protocol, so that somebody else can judge and repeat it."""
    plan, train = results.plan, results.plan.rows[0].recipe.train
    bounds = [
        counted(train.steps, "step") if train.steps else "",
        counted(train.epochs, "epoch") if train.epochs else "",
        f"{train.minutes:g} minutes" if train.minutes else "",
    ]
    parts = [
        " / ".join(str(len(split.part(p))) for p in ("train", "val", "test"))
        for split in plan.splits
    ]
    said = (
        "Every method got the same cases, splits (by patient), seeds and budget, the same LR "
        "images and the same grid to be scored on. Checkpoint and threshold were chosen on "
        "validation cases; test cases were only scored. Options that differ between methods are "
        "in plan.json, complete."
    )
    both = "images are reduced by the scale, masks are scored on the grid of the images"
    if plan.mode == "native":
        both = "images are the LR input, masks are brought back to their grid and scored there"
    facts = [
        ("Budget of a training", ", ".join(b for b in bounds if b)),
        ("Cases (train / val / test)", "; ".join(parts)),
        ("Mode", f"{plan.mode}: {both}"),
        ("Seeds", ", ".join(map(str, plan.seeds))),
        ("Protocol", f"{plan.protocol}, version {plan.protocol_version}"),
        ("Best checkpoint at step", _steps(results)),
        ("Data", f"{plan.data}, fingerprint {plan.fingerprint[:16]}"),
        ("Program", f"finemask {results.cells[0].about['finemask']}"),
    ]
    return [
        html.paragraph(said, "note"),
        *(html.paragraph(note, "note") for note in notes),
        html.facts(facts),
    ]


def _steps(results: Results) -> str:
    return "; ".join(
        f"{row.label}: "
        + ", ".join(
            str(c.about["step_best"]) for c in results.cells if c.cell.row.label == row.label
        )
        for row in results.rows
    )


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    Example:
        >>> counted(1, "seed"), counted(3, "seed")
        ('1 seed', '3 seeds')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"
