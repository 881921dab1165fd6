"""The report of a comparison: one HTML file, the verdict in words first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from finemask.comparison.examples import Example
from finemask.comparison.files import headline_name, metric_entry, shown_metrics
from finemask.comparison.page_details import (
    cost_section,
    counted,
    example_section,
    failure_section,
    method_section,
    number_section,
)
from finemask.comparison.results import Entry, Results, higher_is_better, in_unit_range
from finemask.comparison.verdict import decision, interval, verdicts
from finemask.report import html
from finemask.report.cells import name_of, ranges_of, show, under
from finemask.report.contrasts import Interval, by_group, gains, paired_cases
from finemask.report.figures import to_svg

WORDS = {1: "better", -1: "worse", 0: "not distinguishable"}


def comparison_page(
    results: Results,
    examples: Sequence[Example],
    *,
    title: str = "Comparison of methods",
    lead: str = "",
    notes: Sequence[str] = (),
    quotes: Sequence[Mapping[str, str]] = (),
) -> str:
    """Build the page.

    Args:
        results: Of the comparison.
        examples: Cases to show.
        title: Heading.
        lead: What was compared, in a sentence; made up from the plan if not given.
        notes: What else a reader should know, for the end of the page.
        quotes: Published rows.
    """
    return html.page(
        title,
        lead or _lead(results),
        *_warnings(results),
        html.section("What the numbers say", *_verdict(results)),
        html.section("Result", *_ranking(results, quotes)),
        html.section("By lesion size", *_by_size(results)),
        html.section("Case by case", *_cases(results)),
        html.section("What it costs", *cost_section(results)),
        html.section("The same cases, side by side", *example_section(results, examples)),
        html.section("All numbers", *number_section(results)),
        html.section("What failed", failure_section(results)),
        html.section("How this was measured", *method_section(results, notes)),
    )


def _lead(results: Results) -> str:
    plan = results.plan
    names = [row.label for row in results.rows]
    cases = sorted({s.case for c in results.cells for s in c.scores})
    patients = {s.group for c in results.cells for s in c.scores}
    scale = " x ".join(map(str, plan.rows[0].recipe.task.scale))
    said = f"{_and(names)} on {plan.data}: {len(cases)} test cases of {len(patients)} patients, "
    said += f"images {'reduced' if plan.mode == 'matched' else 'refined'} by {scale}, "
    said += f"{counted(len(plan.seeds), 'seed')}"
    return said + (f", {len(plan.splits)} folds." if len(plan.splits) > 1 else ".")


def _warnings(results: Results) -> list[str]:
    wanted, done = len(results.plan.cells), len(results.cells)
    said = []
    if done < wanted:
        said.append(
            f"{wanted - done} of {wanted} trainings are not done, {len(results.errors)} of them "
            "failed. Differences are of what both rows have."
        )
    if results.failed_predictions:
        said.append(
            f"{results.failed_predictions} masks are missing or unusable. Each counts as an empty "
            "prediction with the worst value of every overlap metric; none is left out."
        )
    if len({c.about.get("code_sha256") for c in results.cells}) > 1:
        said.append("The trainings were made by different versions of the program.")
    return [html.paragraph(text, "warn") for text in said]


def _verdict(results: Results) -> list[str]:
    said = verdicts(results)
    if not said:
        return [html.paragraph("One row alone: there is nothing to compare it with.")]
    return [html.bullets(said)]


def _ranking(results: Results, quotes: Sequence[Mapping[str, str]]) -> list[str]:
    first, *others = shown_metrics(results)
    content = []
    for label in results.labels:
        rows = [
            [
                row,
                _number(metric_entry(results, row, first, label)),
                _gain(results, row, label),
                *(_number(metric_entry(results, row, m, label)) for m in others),
            ]
            for row in ranked(results, label)
        ]
        rows += [
            [f"{q['row']} (quoted)", q.get(first) or "", html.number("quoted", q["source"]),
             *(q.get(m) or "" for m in others)]
            for q in quotes
            if q.get("class") in (None, "", label)
        ]  # fmt: skip
        header = ["Method", name_of(first, results.unit), f"Gain in {headline_name(results)}",
                  *(name_of(m, results.unit) for m in others)]  # fmt: skip
        table = html.table(header, rows, large=True)
        values = {
            row.label: {"overall": _difference(results.entry(row.label, results.headline, label))}
            | {
                name: _difference(results.entry(row.label, results.headline, label, group))
                for group, name in _size_names(results, label).items()
            }
            for row in results.rows[1:]
        }
        figure = ""
        if values:
            figure = html.vector(
                to_svg(gains(values, label=f"gain in {headline_name(results)} over "
                             f"{results.reference}",
                             worse_is_right=not higher_is_better(results.headline))),
                "Differences from the reference with their intervals",
                "Mean difference on the same cases with its 95 % interval (patients drawn again).",
            )  # fmt: skip
        content.append(under(label, results.labels, table + figure))
    note = (
        "Mean over the test cases, each the mean of its seeds, with its 95 % interval (patients "
        f"drawn again), best first. Gain: mean difference from {results.reference} on the same "
        "cases with its interval; better or worse only where a signed-rank test over patients "
        "agrees (corrected for the number of methods)."
    )
    if quotes:
        note += (
            " Quoted rows are as published, on other data, budgets and metrics: they give an "
            "order of size and cannot be compared with the others."
        )
    return [*content, html.paragraph(note, "note")]


def ranked(results: Results, label: str) -> list[str]:
    """Rows from best to worst by the headline metric of a class."""
    sign = -1 if higher_is_better(results.headline) else 1

    def key(row: str) -> float:
        entry = results.entry(row, results.headline, label)
        return sign * entry.mean if entry and entry.cases else math.inf

    return sorted((row.label for row in results.rows), key=key)


def _number(entry: Entry | None) -> html.Markup:
    if entry is None or not entry.cases:
        return html.number(show(None))
    known = math.isfinite(entry.ci_low)
    return html.number(
        show(entry.mean), f"{show(entry.ci_low)} to {show(entry.ci_high)}" if known else ""
    )


def _gain(results: Results, row: str, label: str) -> html.Markup:
    if row == results.reference:
        return html.number("reference")
    entry = results.entry(row, results.headline, label)
    if entry is None or entry.difference is None:
        return html.number(show(None))
    word = WORDS[decision(entry)]
    return html.number(f"{entry.difference.mean:+.3f}", f"{interval(entry)} {word}")


def _difference(entry: Entry | None) -> Interval:
    if entry is None or entry.difference is None:
        return Interval(math.nan)
    found = entry.difference
    return Interval(found.mean, found.ci_low, found.ci_high)


def _size_names(results: Results, label: str) -> dict[str, str]:
    """Size groups that exist for a class, with their limits for people."""
    edges = results.sizes.edges.get(label, ())
    told = ranges_of(results.sizes.names, edges, results.unit)
    present = [
        n for n in results.size_names
        if any(results.entry(r.label, results.headline, label, n) for r in results.rows)
    ]  # fmt: skip
    return {n: told.get(n, "no lesion") for n in present} if len(present) > 1 else {}


def _by_size(results: Results) -> list[str]:
    content = []
    metric = results.headline
    for label in results.labels:
        names = _size_names(results, label)
        if not names:
            continue
        entries = {
            row.label: {n: results.entry(row.label, metric, label, n) for n in names}
            for row in results.rows
        }
        shown = {
            row: {names[n]: Interval(e.mean, e.ci_low, e.ci_high) for n, e in found.items() if e}
            for row, found in entries.items()
        }
        first = entries[results.reference]
        header = ["Method", *(f"{names[n]} ({_cases_of(first[n])} cases)" for n in names)]
        rows = [[row, *(_with_gain(found[n]) for n in names)] for row, found in entries.items()]
        figure = html.vector(
            to_svg(by_group(shown, label=headline_name(results),
                            unit_range=in_unit_range(metric))),
            f"{headline_name(results)} of each method by lesion size",
            f"{headline_name(results)} by size of the true lesion, with 95 % intervals.",
        )  # fmt: skip
        table = html.table(
            header, rows,
            caption=f"{headline_name(results)}; below it the difference from {results.reference} "
            "with its interval, in bold where it is distinguishable.",
        )  # fmt: skip
        content.append(under(label, results.labels, figure + table))
    if content:
        content.append(
            html.paragraph(
                f"Groups by equivalent diameter of the true lesion ({results.sizes.rule}).", "note"
            )
        )
    return content


def _cases_of(entry: Entry | None) -> int:
    return entry.cases if entry else 0


def _with_gain(entry: Entry | None) -> html.Markup:
    if entry is None or not entry.cases:
        return html.number(show(None))
    if entry.difference is None or not entry.difference.cases:
        return html.number(show(entry.mean))
    told = f"{entry.difference.mean:+.3f} {interval(entry)}"
    return html.number(show(entry.mean), told, strong=decision(entry) != 0)


def _cases(results: Results) -> list[str]:
    content = []
    for label in results.labels:
        values = {}
        base = results.case_values(results.reference, results.headline, label)
        for row in results.rows[1:]:
            ours = results.case_values(row.label, results.headline, label)
            common = [place for place in base if place in ours]
            values[row.label] = ([base[p] for p in common], [ours[p] for p in common])
        if not values:
            return []
        figure = html.vector(
            to_svg(paired_cases(values, reference=results.reference, label=headline_name(results))),
            f"{headline_name(results)} of each case by two methods",
            f"A dot a case, the mean of its seeds: above the line the method is higher than "
            f"{results.reference}. Every case with its numbers is in cases.csv.",
        )
        content.append(under(label, results.labels, figure))
    return content


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
