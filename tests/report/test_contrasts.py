"""Figures that set methods side by side: every method can be told from the others."""

from __future__ import annotations

import itertools

from finemask.report.contrasts import (
    Interval,
    by_group,
    colour_of,
    cost_against_quality,
    marker_of,
    paired_cases,
)

NAMES = [f"method {n}" for n in range(15)]


def test_no_two_methods_look_alike() -> None:
    looks = [(colour_of(n), marker_of(n)) for n in range(len(NAMES))]
    assert len(set(looks)) == len(NAMES)
    values = {name: {"all": Interval(0.5, 0.4, 0.6)} for name in NAMES}
    (axes,) = by_group(values, label="Dice").axes
    drawn = [line for line in axes.lines if line.get_label() in NAMES]
    assert [(line.get_color(), line.get_marker()) for line in drawn] == looks
    costs = {"seconds": dict.fromkeys(NAMES, 2.0)}
    quality = {name: Interval(0.5, 0.4, 0.6) for name in NAMES}
    (axes,) = cost_against_quality(costs, quality, label="Dice").axes
    drawn = [line for line in axes.lines if line.get_label() in NAMES]
    assert [(line.get_color(), line.get_marker()) for line in drawn] == looks


def test_a_legend_of_many_names_lies_above_the_panels() -> None:
    quality = {name: Interval(0.5, 0.4, 0.6) for name in NAMES}
    figure = cost_against_quality({"seconds": dict.fromkeys(NAMES, 2.0)}, quality, label="Dice")
    figure.canvas.draw()
    lowest = figure.legends[0].get_window_extent().y0
    assert lowest >= max(axes.get_window_extent().y1 for axes in figure.axes) - 1


def test_titles_of_cases_keep_to_their_panels() -> None:
    long = "sasrnet: SDC+DSR+FA+SA"
    figure = paired_cases(
        {f"{long} {n}": ([0.1, 0.9], [0.2, 0.8]) for n in range(4)}, reference="unet", label="Dice"
    )
    figure.canvas.draw()
    titles = [axes.title if axes.get_title() else axes._left_title for axes in figure.axes]
    boxes = sorted((t.get_window_extent() for t in titles), key=lambda box: box.x0)
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
