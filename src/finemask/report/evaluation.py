"""The page about one evaluation: how good, for which lesions, and what that looks like."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finemask.metrics.protocols import CURVES, METRICS
from finemask.metrics.scores import EMPTY, EVERY_SIZE
from finemask.report import html
from finemask.report.cells import IMAGE_LABELS, NONE, name_of, number, ranges_of, show, under
from finemask.report.figures import distributions, panel_picture, size_scatter, to_svg
from finemask.report.lesions import lesion_section
from finemask.report.panels import AGREEMENT, PREDICTION, TRUTH, overlay
from finemask.report.readers import reader_section

if TYPE_CHECKING:
    from finemask.evaluation.matching import Truth
    from finemask.evaluation.results import Evaluation

_MANY_FAILURES = 100

Load = Callable[[str], "tuple[Truth, NDArray[Any]]"]


def evaluation_page(evaluation: Evaluation, load: Load, labels: Sequence[str]) -> str:
    """Build the report of an evaluation as one HTML file.

    Args:
        evaluation: The scores.
        load: Reads truth and prediction of a case again, for the pictures.
        labels: Names of the classes.
    """
    summary = evaluation.summary
    cases = summary["cases"]
    protocol = summary["protocol"]
    lead = f"{cases['scored']} of {cases['total']} cases scored"
    lead += f", protocol {protocol['name']} version {protocol['version']}."
    return html.page(
        "Evaluation of masks",
        lead,
        _failures_notice(evaluation),
        html.section("Result", _headline(evaluation, labels)),
        html.section("By lesion size", *_by_size(evaluation, labels)),
        html.section("Lesion by lesion", *lesion_section(evaluation, load, labels)),
        html.section("Between readers", *_readers(evaluation)),
        html.section("Best, median and worst case", *_examples(evaluation, load)),
        html.section("Every case", *_distributions(evaluation, labels)),
        html.section("All numbers", *_details(evaluation)),
        html.section("Cases that failed", _failures(evaluation)),
        html.section("How this was measured", *_method(evaluation)),
    )


def _failures_notice(evaluation: Evaluation) -> str:
    if not evaluation.failed:
        return ""
    return html.paragraph(
        f"{evaluation.failed} of {evaluation.failed + evaluation.scored} cases failed. Each counts "
        "as an empty prediction with the worst value of every overlap metric; none is left out.",
        "warn",
    )


def _headline(evaluation: Evaluation, labels: Sequence[str]) -> str:
    scores, unit = evaluation.summary["scores"], evaluation.summary["size_groups"]["unit"]
    metrics = evaluation.protocol.shown
    rows = [
        [
            label.replace("_", " "),
            *(number(scores[m][label][EVERY_SIZE]) for m in metrics),
            str(scores[metrics[0]][label][EVERY_SIZE]["n"]),
            _undefined({m: scores[m][label][EVERY_SIZE] for m in metrics}),
        ]
        for label in labels
    ]
    table = html.table(
        ["Class", *(name_of(m, unit) for m in metrics), "Cases", "Undefined"],
        rows,
        caption="Mean over cases, with its 95 % interval (patients drawn again). Cases: for which "
        f"{METRICS[metrics[0]].label} is defined. Undefined: left out of a mean, the most for any "
        "metric shown.",
        large=True,
    )
    image = [m for m in IMAGE_LABELS if m in scores]
    if not image:
        return table
    cells = [number(scores[m]["image"][EVERY_SIZE]) for m in image]
    count = str(scores[image[0]]["image"][EVERY_SIZE]["n"])
    return table + html.table(
        ["", *(IMAGE_LABELS[m] for m in image), "Cases"],
        [["Super-resolved image", *cells, count]],
    )


def _undefined(cells: Mapping[str, Mapping[str, Any]]) -> str:
    return str(max(sum(cell["undefined"].values()) for cell in cells.values()) or "0")


def _by_size(evaluation: Evaluation, labels: Sequence[str]) -> list[str]:
    summary = evaluation.summary
    groups, unit = summary["size_groups"], summary["size_groups"]["unit"]
    metrics = evaluation.protocol.shown
    content = []
    for label in labels:
        cells = {m: summary["scores"][m][label] for m in metrics}
        names = [n for n in (*groups["names"], EMPTY) if n in cells[metrics[0]]]
        if len(names) < 2:
            continue
        members = {n: sum(s.label == label and s.size_group == n for s in evaluation.scores)
                   for n in names}  # fmt: skip
        ranges = ranges_of(groups["names"], groups["edges"].get(label, ()), unit)
        rows = [
            [
                ranges.get(n, "no lesion"),
                str(members[n]),
                *(number(cells[m].get(n)) for m in metrics),
            ]
            for n in names
        ]
        table = html.table(["Lesion", "Cases", *(name_of(m, unit) for m in metrics)], rows)
        content.append(under(label, labels, table))
    if not content:
        return []
    content.append(
        html.paragraph(
            f"Groups by equivalent diameter of the true lesion ({groups['rule']}): that of a disc "
            "or ball as large as all the foreground of the class in that case.", "note",
        )
    )  # fmt: skip
    return [*content, _scatter(evaluation, labels)]


def _scatter(evaluation: Evaluation, labels: Sequence[str]) -> str:
    metric, unit = evaluation.protocol.headline, evaluation.summary["size_groups"]["unit"]
    rows = {label: [s for s in evaluation.scores if s.label == label] for label in labels}
    label = METRICS[metric].label
    figure = size_scatter(
        {k.replace("_", " "): [s.size for s in v] for k, v in rows.items()},
        {k.replace("_", " "): [s.values[metric] for s in v] for k, v in rows.items()},
        size_label=f"equivalent diameter of the true lesion [{unit}]",
        value_label=label,
        failed={k.replace("_", " "): [s.failed for s in v] for k, v in rows.items()},
    )
    crossed = " Crosses are failed cases." if evaluation.failed else ""
    return html.vector(
        to_svg(figure),
        f"{label} of each case against the size of its lesion",
        f"{label} of each case against the size of its lesion.{crossed}",
    )


def _distributions(evaluation: Evaluation, labels: Sequence[str]) -> list[str]:
    summary = evaluation.summary
    unit, names = summary["size_groups"]["unit"], [*summary["size_groups"]["names"], EVERY_SIZE]
    edges, drawn = summary["size_groups"]["edges"], []
    for label in labels:
        rows = [s for s in evaluation.scores if s.label == label]
        present = [n for n in names if any(s.size_group == n for s in rows)]
        told = {n: n for n in present}
        told |= ranges_of(summary["size_groups"]["names"], edges.get(label, ()), unit)
        values = {
            m: {told[n]: [s.values[m] for s in rows if s.size_group == n] for n in present}
            for m in evaluation.protocol.shown
            if not m.startswith("iou")  # which Dice draws already
        }
        if not present:
            continue
        figure = distributions(values, labels={m: name_of(m, unit) for m in values})
        title = label.replace("_", " ")
        picture = html.vector(
            to_svg(figure),
            f"Distribution of {', '.join(METRICS[m].label for m in values)} for {title}",
            "A dot a case; below each row the median and the quartiles. What is undefined "
            "(see below) is not drawn.",
        )
        drawn.append(under(label, labels, picture))
    return drawn


def _examples(evaluation: Evaluation, load: Load) -> list[str]:
    chosen = choose_examples(evaluation)
    if not chosen:
        return []
    content = [
        html.legend(
            (TRUTH, "truth, and what was missed"),
            (PREDICTION, "prediction, and what is wrong"),
            (AGREEMENT, "agreement"),
        )
    ]
    for title, case in chosen.items():
        truth, prediction = load(case)
        content.append(_example(evaluation, title, case, truth, prediction))
    return content


def choose_examples(evaluation: Evaluation) -> dict[str, str]:
    """Cases with the best, the median and the worst headline score, the mean of their classes."""
    metric = evaluation.protocol.headline
    values: dict[str, list[float]] = {}
    for s in evaluation.scores:
        if not s.failed and math.isfinite(s.values.get(metric, math.nan)):
            values.setdefault(s.case, []).append(s.values[metric])
    sign = -1 if METRICS[metric].higher_is_better else 1
    ranked = sorted(values, key=lambda case: (sign * float(np.mean(values[case])), case))
    if not ranked:
        return {}
    chosen = {"Best": ranked[0]}
    if len(ranked) > 2:
        chosen["Median"] = ranked[(len(ranked) - 1) // 2]
    if len(ranked) > 1:
        chosen["Worst"] = ranked[-1]
    return chosen


def _example(
    evaluation: Evaluation, title: str, case: str, truth: Truth, prediction: NDArray[Any]
) -> str:
    whole = overlay(truth.image, truth.classes, prediction, geometry=truth.geometry)
    close = overlay(truth.image, truth.classes, prediction, geometry=truth.geometry, zoom=True)
    context = replace(whole, paint="none", frame=close.window)
    errors = replace(close, paint="errors")
    told_metrics = (evaluation.protocol.headline, "hd95")
    rows = [s for s in evaluation.scores if s.case == case and s.values.keys() & METRICS.keys()]
    unit = truth.geometry.unit
    told = "; ".join(
        (f"{s.label.replace('_', ' ')}: " if len(rows) > 1 else "")
        + "".join(_named(m, s.values[m], unit) for m in told_metrics if m in s.values)
        + _diameter(s.size, unit)
        for s in rows
    )
    where = ", slice with the largest lesion" if truth.classes.ndim == 3 else ""
    what = f"{title} case {case}{where}"
    figures = (
        html.picture(panel_picture(context), f"{what}: the image", "Image"),
        html.picture(
            panel_picture(close), f"{what}: outlines of truth and prediction, {told}", "Outlines"
        ),
        html.picture(panel_picture(errors), f"{what}: found, missed and wrong", "Errors"),
    )
    heading = (
        f"<p><strong>{html.escape(title)}</strong> &ensp;{html.escape(case)}{html.escape(where)}"
        f'<span class="note">&ensp;{html.escape(told)}</span></p>'
    )
    return f'<div class="example">{heading}{html.row(*figures)}</div>'


def _readers(evaluation: Evaluation) -> list[str]:
    return reader_section(evaluation.readers) if evaluation.readers else []


def _diameter(size: float, unit: str) -> str:
    if math.isnan(size):
        return "diameter undefined"
    return f"diameter {size:.3g} {unit}" if size else "no lesion"


def _named(metric: str, value: float, unit: str) -> str:
    length = f" {unit}" if METRICS[metric].is_length else ""
    told = f"{show(value)}{length}" if math.isfinite(value) or not length else "undefined"
    return f"{METRICS[metric].label} {told}, "


def _details(evaluation: Evaluation) -> list[str]:
    summary = evaluation.summary
    unit = summary["size_groups"]["unit"]
    rows, by_group = [], _has_groups(summary["scores"])
    for metric, by_label in summary["scores"].items():
        for label, by_size in by_label.items():
            cell = by_size[EVERY_SIZE]
            reasons = ", ".join(f"{n} {reason}" for reason, n in cell["undefined"].items())
            interval = NONE if math.isnan(cell["ci_low"]) else (
                f"{show(cell['ci_low'])} to {show(cell['ci_high'])}"
            )  # fmt: skip
            rows.append([name_of(metric, unit), label.replace("_", " "), str(cell["n"]),
                         show(cell["mean"]), interval, show(cell["sd"]), show(cell["median"]),
                         *([str(cell["groups"]), show(cell["group_mean"])] if by_group else []),
                         reasons or NONE])  # fmt: skip
    header = ["Metric", "Class", "n", "Mean", "95 % interval", "SD", "Median"]
    header += ["Groups", "Mean of groups"] if by_group else []
    told = "Mean of groups: of each patient or clip first, then over them." if by_group else ""
    text = (0, 1, len(header))
    content = [html.table([*header, "Undefined"], rows, caption=told, text=text)]
    content.append(_curves(evaluation))
    if summary["pooled"]:
        names = list(dict.fromkeys(n for v in summary["pooled"].values() for n in v))
        content.append(
            html.table(
                ["Class", *(f"{METRICS[n.removesuffix('_pooled')].label}, pooled" for n in names)],
                [[k.replace("_", " "), *(show(v.get(n)) for n in names)]
                 for k, v in summary["pooled"].items()],
                caption="Pooled: all voxels of all cases put together, so that large lesions "
                "outweigh small ones. Not comparable with the means above.",
            )
        )  # fmt: skip
    return content


def _has_groups(scores: Mapping[str, Any]) -> bool:
    """Whether any patient or clip has several cases."""
    cells = [cell[EVERY_SIZE] for by_label in scores.values() for cell in by_label.values()]
    return any(cell["groups"] < cell["n"] for cell in cells)


def _curves(evaluation: Evaluation) -> str:
    rows = [
        [CURVES[name].label, label.replace("_", " "), str(told["n"]), show(told["mean"]),
         show(told["max"]), show(told["threshold_at_max"])]
        for label, curves in evaluation.summary["curves"].items()
        for name, told in curves.items()
    ]  # fmt: skip
    if not rows:
        return ""
    return html.table(
        ["Over 256 thresholds", "Class", "n", "Mean", "Maximum", "at the threshold"],
        rows,
        text=(0, 1),
        caption="Of the curve averaged over all cases: its mean over the thresholds, and its "
        "maximum, which no single threshold chosen beforehand is sure to reach.",
    )


def _failures(evaluation: Evaluation) -> str:
    rows = [[f.case, f.line] for f in evaluation.failures[:_MANY_FAILURES]]
    if not rows:
        return ""
    rest = len(evaluation.failures) - len(rows)
    more = f"{rest} more are in failures.csv." if rest else ""
    return html.table(["Case", "Why"], rows, text=(0, 1), caption=more)


def _method(evaluation: Evaluation) -> list[str]:
    summary = evaluation.summary
    protocol = summary["protocol"]
    return [
        html.paragraph(protocol["conventions"], "note"),
        *(html.paragraph(note, "note") for note in evaluation.notes),
        html.facts(
            [
                ("Protocol", f"{protocol['name']}, version {protocol['version']}"),
                ("Predictions", summary["inputs"]["pred"]),
                ("Truth", summary["inputs"]["truth"]),
                ("Interval", summary["interval"]),
                ("Versions", ", ".join(f"{k} {v}" for k, v in summary["versions"].items())),
            ]
        ),
    ]
