"""Figures that set methods side by side: gains, sizes, cases, cost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from finemask.report.figures import INK, PALETTE, blank_figure, plain_log_ticks, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 10.2
"""Inches; pages are drawn for this."""
MARKERS = "os^Dv"
IN_A_ROW = 5
"""Names in a row of a legend."""


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % interval; NaN ends where there is none."""

    mean: float
    low: float = math.nan
    high: float = math.nan


def colour_of(number: int) -> str:
    """The colour of the ``number``-th method, the same in every figure."""
    return PALETTE[number % len(PALETTE)]


def marker_of(number: int) -> str:
    """Tells methods apart that share a colour, once there are more of them than colours."""
    return MARKERS[number // len(PALETTE) % len(MARKERS)]


def gains(
    values: Mapping[str, Mapping[str, Interval]], *, label: str, worse_is_right: bool = False
) -> Figure:
    """Differences from the reference with their intervals, overall and by group.

    Args:
        values: ``[method][group]``; the first group of each is drawn heaviest.
        label: Of the axis.
        worse_is_right: Whether a gain is a loss, as of a distance.
    """
    lines = [(method, group) for method, groups in values.items() for group in groups]
    figure = blank_figure(WIDTH, 0.75 + 0.27 * len(lines) + 0.12 * len(values))
    axes = figure.subplots()
    axes.axvline(0, color=INK, lw=0.9)
    ticks, names, y = [], [], 0.0
    for method, groups in values.items():
        for number, (group, found) in enumerate(groups.items()):
            colour, size = (INK, 6.0) if number == 0 else (PALETTE[0], 4.0)
            if math.isfinite(found.low):
                axes.plot([found.low, found.high], [y, y], color=colour, lw=size / 3.2,
                          solid_capstyle="butt")  # fmt: skip
            if math.isfinite(found.mean):
                axes.plot([found.mean], [y], "o", color=colour, ms=size)
            ticks.append(y)
            names.append(method if number == 0 else group)
            y -= 1
        y -= 0.45
    axes.set_yticks(ticks, names)
    axes.set_ylim(y + 0.6, 0.6)
    axes.set_xlabel(label, fontsize=9)
    axes.margins(x=0.06)
    tidy(axes)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=INK, alpha=0.12, lw=0.6)
    far = axes.get_xlim()
    arrow: dict[str, Any] = {
        "fontsize": 8.5,
        "color": INK,
        "alpha": 0.75,
        "transform": axes.get_xaxis_transform(),
    }
    if far[1] > 0:
        axes.text(far[1], 1.0, "worse" if worse_is_right else "better", ha="right", **arrow)
    if far[0] < 0:
        axes.text(far[0], 1.0, "better" if worse_is_right else "worse", ha="left", **arrow)
    figure.tight_layout()
    return figure


def by_group(
    values: Mapping[str, Mapping[str, Interval]], *, label: str, unit_range: bool = True
) -> Figure:
    """The mean of each method in each size group, side by side.

    Args:
        values: ``[method][group]``, groups from small to large.
        label: Of the vertical axis.
        unit_range: Whether values lie in [0, 1], which the axis does not leave.
    """
    groups = list(dict.fromkeys(g for found in values.values() for g in found))
    figure = blank_figure(WIDTH, 3.2 + 0.2 * math.ceil(len(values) / IN_A_ROW))
    axes = figure.subplots()
    step = min(0.16, 0.72 / max(1, len(values)))
    for number, (method, found) in enumerate(values.items()):
        at = np.arange(len(groups)) + (number - (len(values) - 1) / 2) * step
        shown = [found.get(g, Interval(math.nan)) for g in groups]
        axes.plot(at, [i.mean for i in shown], marker_of(number), color=colour_of(number), ms=5.5,
                  label=method)  # fmt: skip
        for x, i in zip(at, shown, strict=True):
            axes.plot([x, x], [i.low, i.high], color=colour_of(number), lw=1.6)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_ylabel(label, fontsize=9)
    if unit_range:
        low, high = axes.get_ylim()  # dots, not bars: nothing is measured from 0
        axes.set_ylim(max(low, -0.02), min(high, 1.02))
    tidy(axes)
    axes.grid(axis="y", color=INK, alpha=0.12, lw=0.6)
    axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, ncols=min(IN_A_ROW, len(values)),
                loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2,
                handletextpad=0.2)  # fmt: skip
    figure.tight_layout()
    return figure


def paired_cases(
    values: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, reference: str, label: str
) -> Figure:
    """Each case by the reference's score and by that of every other method.

    Args:
        values: By method: scores of the reference and of the method, a pair a case.
        reference: Name of the horizontal axis.
        label: Of the score.
    """
    columns = min(4, max(2, len(values)))
    lines = math.ceil(len(values) / columns)
    figure = blank_figure(WIDTH * columns / 4, lines * 2.9)
    grid = figure.subplots(lines, columns, squeeze=False)
    numbers = [v for pair in values.values() for side in pair for v in side if math.isfinite(v)]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    edge = 0.04 * (high - low or 1.0)
    for axes in grid.flat[len(values) :]:
        axes.set_axis_off()
    for number, (axes, (method, (x, y))) in enumerate(zip(grid.flat, values.items(), strict=False)):
        axes.plot([low, high], [low, high], color=INK, lw=0.7, alpha=0.5)
        axes.scatter(x, y, s=14, color=colour_of(number + 1), alpha=0.7, lw=0)
        above = sum(b > a for a, b in zip(x, y, strict=True))
        axes.set_title(f"{method}\nabove in {above} of {len(x)}", fontsize=9, color=INK, loc="left")
        axes.set(xlim=(low - edge, high + edge), ylim=(low - edge, high + edge), aspect="equal")
        axes.set_xlabel(f"{label}, {reference}", fontsize=8.5)
        tidy(axes)
    figure.tight_layout()
    return figure


def cost_against_quality(
    costs: Mapping[str, Mapping[str, float]], quality: Mapping[str, Interval], *, label: str
) -> Figure:
    """Quality against what it costs, a panel a cost, each on a logarithmic axis.

    Args:
        costs: ``[cost][method]``, positive.
        quality: By method.
        label: Of the vertical axis.
    """
    legend = 0.22 * math.ceil(len(quality) / IN_A_ROW)
    figure = blank_figure(WIDTH, 3.0 + legend)
    for axes, (name, by_method) in zip(
        figure.subplots(1, len(costs), squeeze=False, sharey=True)[0], costs.items(), strict=True
    ):
        for number, (method, found) in enumerate(quality.items()):
            x = by_method.get(method, math.nan)
            axes.plot([x, x], [found.low, found.high], color=colour_of(number), lw=1.6)
            axes.plot([x], [found.mean], marker_of(number), color=colour_of(number), ms=6,
                      label=method)  # fmt: skip
        _log_axis(axes, [v for v in by_method.values() if v > 0])
        axes.set_xlabel(name, fontsize=9)
        tidy(axes)
        axes.grid(color=INK, alpha=0.12, lw=0.6)
    axes = figure.axes[0]
    axes.set_ylabel(label, fontsize=9)
    figure.legend(
        *axes.get_legend_handles_labels(), fontsize=8.5, frameon=False, labelcolor=INK,
        ncols=min(IN_A_ROW, len(quality)), loc="upper left", handletextpad=0.2,
    )  # fmt: skip
    figure.tight_layout(rect=(0, 0, 1, 1 - legend / (3.0 + legend)), w_pad=2)
    return figure


def _log_axis(axes: Axes, values: Sequence[float]) -> None:
    if not values:
        return
    axes.set_xscale("log")
    # Room on both sides, and a decade at the least, so that like costs look alike.
    middle = math.sqrt(min(values) * max(values))
    reach = max(max(values) / middle * 1.25, 3.2)
    axes.set_xlim(middle / reach, middle * reach)
    plain_log_ticks(axes)
