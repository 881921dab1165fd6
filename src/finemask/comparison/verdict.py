"""What the numbers allow to say, in words."""

from __future__ import annotations

import math

from finemask.comparison.results import Entry, Results, higher_is_better
from finemask.metrics.paired import least_p
from finemask.metrics.scores import EVERY_SIZE
from finemask.report.cells import name_of, ranges_of, show

LEVEL = 0.05


def verdicts(results: Results) -> list[str]:
    """One sentence for each row and class: what the headline metric tells against the reference.

    A row is better or worse only when the interval of the difference leaves zero out and
    the corrected test agrees.
    """
    said = []
    for row in results.rows[1:]:
        for label in results.labels:
            whole = results.entry(row.label, results.headline, label)
            if whole is None or whole.difference is None:
                continue
            where = f" on {label.replace('_', ' ')}" if len(results.labels) > 1 else ""
            said.append(f"{_sentence(results, whole, where)}.{_by_size(results, whole)}")
    return said


def decision(entry: Entry) -> int:
    """1 better, -1 worse, 0 not distinguishable from the reference."""
    found = entry.difference
    if found is None or math.isnan(found.ci_low) or not entry.p_holm < LEVEL:
        return 0
    if found.ci_low <= 0 <= found.ci_high:
        return 0
    return 1 if (found.mean > 0) == higher_is_better(entry.metric) else -1


def _sentence(results: Results, entry: Entry, where: str) -> str:
    found, name = entry.difference, name_of(entry.metric, results.unit)
    assert found is not None  # asked by the caller
    said = decision(entry)
    others = len(results.rows) - 1
    if not found.cases:
        return f"{entry.row} and {results.reference} have no case in common{where}"
    gap = f"{show(abs(found.mean))} {interval(entry, flip=said < 0)} {name}"
    if said:
        word = "better" if said > 0 else "worse"
        agreeing = entry.seeds_above if found.mean > 0 else entry.seeds_paired - entry.seeds_above
        return (
            f"{entry.row} is {word} than {results.reference}{where} by {gap} "
            f"(p = {entry.p_holm:.2g}; {_patients(found.groups)}; "
            f"in {agreeing} of {_seeds(entry.seeds_paired)})"
        )
    why = ""
    if least_p(found.groups) * others >= LEVEL:
        why = f"; {_patients(found.groups)} are too few for any verdict"
    elif not math.isnan(entry.p_holm):
        why = f", p = {entry.p_holm:.2g}; {_patients(found.groups)}"
    return (
        f"{entry.row} is not distinguishable from {results.reference}{where} "
        f"({found.mean:+.3f} {interval(entry)} {name}{why})"
    )


def _by_size(results: Results, whole: Entry) -> str:
    """Where the verdict is another one for some sizes."""
    names = [n for n in results.size_names if n != EVERY_SIZE]
    edges = results.sizes.edges.get(whole.label, ())
    told = ranges_of(results.sizes.names, edges, results.unit)
    words = {1: "better", -1: "worse", 0: "not distinguishable"}
    parts: dict[int, list[str]] = {}
    for name in names:
        entry = results.entry(whole.row, whole.metric, whole.label, name)
        if entry is None or entry.difference is None or not entry.difference.cases:
            continue
        p = "" if math.isnan(entry.p_holm) else f", p = {entry.p_holm:.2g}"
        parts.setdefault(decision(entry), []).append(
            f"{told.get(name, name)} ({entry.difference.mean:+.3f} {interval(entry)}{p})"
        )
    if set(parts) <= {decision(whole)}:
        return ""
    return (
        " By lesion size: "
        + "; ".join(
            f"{words[said]} for {', '.join(groups)}" for said, groups in sorted(parts.items())[::-1]
        )
        + "."
    )


def interval(entry: Entry, flip: bool = False) -> str:
    """The 95 % interval of the difference in brackets; of its negative when it is a loss."""
    found = entry.difference
    if found is None or math.isnan(found.ci_low):
        return "[no interval]"
    low, high = (-found.ci_high, -found.ci_low) if flip else (found.ci_low, found.ci_high)
    return f"[{low:.3f}, {high:.3f}]"


def _patients(count: int) -> str:
    return f"{count} patient{'s' if count != 1 else ''}"


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count != 1 else ''}"
