"""The files of a comparison: tables for other programs, and one to paste into a page."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finemask import __version__
from finemask.comparison.results import Entry, Results
from finemask.comparison.verdict import decision, interval, verdicts
from finemask.evaluation.undefined import IMAGE, IMAGE_METRICS
from finemask.io import write_json, write_text
from finemask.io.tables import csv_table
from finemask.metrics.paired import PairedDifference
from finemask.metrics.protocols import METRICS, PROTOCOLS
from finemask.metrics.statistics import RESAMPLES
from finemask.report.cells import name_of, show
from finemask.report.tables import plain

COSTS = {
    "parameters_training": "weights while learning",
    "parameters_inference": "weights that ship",
    "macs_training": "multiply-adds of one training sample, forward and backward",
    "macs_inference": "multiply-adds of one prediction of that size",
    "seconds_training": "training time",
    "seconds_a_case": "time from an image in memory to its mask",
    "memory_training_bytes": "largest memory of the training process",
    "memory_inference_bytes": "weights and live activations of a prediction",
}
"""What each row costs; all of it measured in its own cells."""


def write_tables(results: Results, out: Path) -> None:
    """Write what other programs read: CSV tables, a LaTeX table, ``summary.json``."""
    for name, table in (
        ("comparison.csv", comparison_table(results)),
        ("cases.csv", cases_table(results)),
        ("costs.csv", costs_table(results)),
        ("table.tex", latex(results)),
    ):
        write_text(out / name, table, overwrite=True)
    write_json(out / "summary.json", plain(summary(results)), overwrite=True)
    _write_failures(results, out)


def _write_failures(results: Results, out: Path) -> None:
    """Write ``failures.csv`` when there is anything to tell, and remove an earlier one."""
    rows = [(name, "", error) for name, error in results.errors.items()]
    rows += [
        (c.cell.name, case, "no usable mask") for c in results.cells for case in c.about["failed"]
    ]
    if rows:
        table = csv_table(("cell", "case", "error"), rows)
        write_text(out / "failures.csv", table, overwrite=True)
    else:
        (out / "failures.csv").unlink(missing_ok=True)


def comparison_table(results: Results) -> str:
    """A row a method, metric, class and size group."""
    paired = list(PairedDifference.__dataclass_fields__)
    header = ["row", "class", "metric", "unit", "size_group", "cases", "mean", "sd_cases",
              "sd_seeds", "seeds", "median", "ci_low", "ci_high", "undefined",
              *(f"difference_{name}" for name in paired), "p_holm", "seeds_above", "unpaired",
              "verdict"]  # fmt: skip
    rows = []
    for entry in results.entries.values():
        found = entry.difference
        differing = [getattr(found, n) for n in paired] if found else [""] * len(paired)
        said = {1: "better", -1: "worse", 0: "not distinguishable"}[decision(entry)]
        rows.append(
            [entry.row, entry.label, entry.metric, unit_of(entry.metric, results.unit),
             entry.size_group, entry.cases, entry.mean, entry.sd_cases, entry.sd_seeds,
             len(entry.by_seed), entry.median, entry.ci_low, entry.ci_high,
             sum(entry.undefined.values()), *differing, entry.p_holm if found else "",
             entry.seeds_above if found else "", entry.unpaired if found else "",
             said if found else "reference"]
        )  # fmt: skip
    return csv_table(header, rows)


def cases_table(results: Results) -> str:
    """A row a case, class, method, seed and fold."""
    header = ["row", "seed", "fold", "case", "group", "class", "diameter", "unit", "size_group",
              *results.metrics, "flags"]  # fmt: skip
    rows = [
        [c.cell.row.label, c.cell.seed, c.cell.fold, s.case, s.group, s.label,
         s.size if s.size >= 0 else "", s.unit,
         results.size_group_of.get(((c.cell.fold, s.case), s.label), ""),
         *(s.values.get(m, "") for m in results.metrics), s.flag]
        for c in results.cells
        for s in c.scores
    ]  # fmt: skip
    return csv_table(header, rows)


def costs_table(results: Results) -> str:
    """A row a method: what it takes to train and to run it."""
    rows = [
        [row.label, *(results.costs(row.label).get(name, "") for name in COSTS)]
        for row in results.rows
    ]
    return csv_table(["row", *COSTS], rows)


def summary(results: Results) -> dict[str, Any]:
    """All numbers and how they were made, for programs."""
    plan = results.plan
    return {
        "verdicts": verdicts(results),
        "reference": results.reference,
        "protocol": PROTOCOLS[plan.protocol].describe(),
        "mode": plan.mode,
        "data": {"name": plan.data, "fingerprint": plan.fingerprint},
        "seeds": list(plan.seeds),
        "folds": len(plan.splits),
        "cases": [
            {part: len(split.part(part)) for part in ("train", "val", "test")}
            for split in plan.splits
        ],
        "cells": {
            "wanted": len(plan.cells),
            "done": len(results.cells),
            "failed": dict(results.errors),
        },
        "failed_predictions": results.failed_predictions,
        "interval": f"95 %, bootstrap over groups (patients), {RESAMPLES} draws, seed 0",
        "test": "Wilcoxon signed-rank over patients, two-sided, Holm over the rows",
        "size_groups": {
            "unit": results.unit,
            "rule": results.sizes.rule,
            "names": list(results.sizes.names),
            "edges": dict(results.sizes.edges),
        },
        "rows": {row.label: _row(results, row.label) for row in results.rows},
        "versions": {"finemask": __version__, "python": platform.python_version()},
    }


def _row(results: Results, row: str) -> dict[str, Any]:
    scores: dict[str, Any] = {}
    for (metric, label, size_group, owner), entry in results.entries.items():
        if owner == row:
            by_label = scores.setdefault(metric, {}).setdefault(label, {})
            by_label[size_group] = _numbers(entry)
    cells = [c for c in results.cells if c.cell.row.label == row]
    return {
        "method": cells[0].cell.row.recipe.method,
        "ablation": cells[0].cell.row.ablation,
        "cost": results.costs(row),
        "macs_input": cells[0].about["cost"]["macs_input"],
        "steps_best": {c.cell.name: c.about["step_best"] for c in cells},
        "scores": scores,
    }


def _numbers(entry: Entry) -> dict[str, Any]:
    values = {k: v for k, v in vars(entry).items() if k not in ("row", "metric", "label")}
    difference = vars(entry.difference) if entry.difference else None
    return {**values, "difference": difference, "sd_seeds": entry.sd_seeds}


def markdown(results: Results, quotes: Sequence[Mapping[str, str]] = ()) -> str:
    """The tables and the verdicts as Markdown, to read on a terminal and to paste."""
    metrics = shown_metrics(results)
    parts = []
    for label in results.labels:
        quoted = [
            [f"{q['row']} (quoted, {q['source']})", *(q.get(m) or "" for m in metrics)]
            for q in quotes
            if q.get("class") in (None, "", label)
        ]
        head = [*_header(results, label), *COST_HEADER]
        rows = [
            [*_cells(results, row.label, label), *_cost_cells(results, row.label)]
            for row in results.rows
        ]
        rows += [cells + [""] * (len(head) - len(cells)) for cells in quoted]
        parts.append(aligned([head, *rows], rule=True))
    parts.append("\n".join(f"- {line}" for line in verdicts(results)))
    return "\n\n".join(part for part in parts if part)


def overview(results: Results) -> str:
    """The means and the weights that ship, for a terminal."""
    parts = []
    for label in results.labels:
        head = [*_header(results, label)[:-1], "parameters"]
        rows = [
            [*_cells(results, row.label, label)[:-1],
             f"{results.costs(row.label)['parameters_inference']:,.0f}"]
            for row in results.rows
        ]  # fmt: skip
        parts.append(aligned([head, *rows]))
    return "\n\n".join(parts)


def latex(results: Results) -> str:
    """The tables of means and gains for a paper."""
    parts = []
    for label in results.labels:
        rows = [_header(results, label)]
        rows += [_cells(results, row.label, label) for row in results.rows]
        lines = [" & ".join(map(_tex, cells)) + r" \\" for cells in rows]
        lines[0] += r" \hline"
        columns = "l" + "r" * (len(rows[0]) - 1)
        body = "\n".join(lines)
        parts.append(f"\\begin{{tabular}}{{{columns}}}\n{body}\n\\end{{tabular}}\n")
    return "\n".join(parts)


def aligned(rows: Sequence[Sequence[str]], *, rule: bool = False) -> str:
    """Rows in columns, numbers to the right; with ``rule`` as a Markdown table.

    Example:
        >>> print(aligned([["method", "Dice"], ["unet", "0.8"]]))
        method  Dice
        unet     0.8
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        [cell.ljust(w) if i == 0 else cell.rjust(w)
         for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]  # fmt: skip
    if not rule:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    lines.insert(1, ["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def shown_metrics(results: Results) -> list[str]:
    """The metrics of the short tables."""
    shown = (*PROTOCOLS[results.plan.protocol].shown, *IMAGE_METRICS)
    return [m for m in shown if m in results.metrics]


def _header(results: Results, label: str) -> list[str]:
    named = "method" if len(results.labels) == 1 else f"method, {label.replace('_', ' ')}"
    metrics = [name_of(m, results.unit) for m in shown_metrics(results)]
    return [named, *metrics, f"gain in {headline_name(results)}"]


def _cells(results: Results, row: str, label: str) -> list[str]:
    """Means with the spread of the seeds, and what is gained over the reference."""
    means = [_with_spread(metric_entry(results, row, m, label)) for m in shown_metrics(results)]
    main = results.entry(row, results.headline, label)
    gain = "reference" if row == results.reference else "-"
    if main is not None and main.difference is not None and main.difference.cases:
        mark = {1: " better", -1: " worse", 0: ""}[decision(main)]
        gain = f"{main.difference.mean:+.3f} {interval(main)}{mark}"
    return [row, *means, gain]


COST_HEADER = ("weights [M]", "GMAC", "s a case", "MiB", "min to train", "seeds")


def _cost_cells(results: Results, row: str) -> list[str]:
    cost = results.costs(row)
    seeds = len({c.cell.seed for c in results.cells if c.cell.row.label == row})
    return [
        f"{cost['parameters_inference'] / 1e6:.2f}", f"{cost['macs_inference'] / 1e9:.2f}",
        show(cost["seconds_a_case"]), f"{cost['memory_inference_bytes'] / 2**20:.0f}",
        f"{cost['seconds_training'] / 60:.1f}", str(seeds),
    ]  # fmt: skip


def _tex(text: str) -> str:
    """Text as LaTeX shows it."""
    for sign, shown in (("\\", r"\textbackslash "), ("&", r"\&"), ("%", r"\%"), ("_", r"\_"),
                        ("#", r"\#"), ("±", r"$\pm$")):  # fmt: skip
        text = text.replace(sign, shown)
    return text


def headline_name(results: Results) -> str:
    """The metric of the verdicts, for people."""
    return name_of(results.headline, results.unit)


def metric_entry(results: Results, row: str, metric: str, label: str) -> Entry | None:
    """A number of a class, or of the image where the metric is its quality."""
    return results.entry(row, metric, IMAGE if metric in IMAGE_METRICS else label)


def _with_spread(entry: Entry | None) -> str:
    if entry is None or not entry.cases:
        return "-"
    spread = f" ± {show(entry.sd_seeds)}" if math.isfinite(entry.sd_seeds) else ""
    return f"{show(entry.mean)}{spread}"


def unit_of(metric: str, unit: str) -> str:
    """Unit of a metric's values, for the tables."""
    if metric == "psnr_db":
        return "dB"
    return unit if metric in METRICS and METRICS[metric].is_length else ""
