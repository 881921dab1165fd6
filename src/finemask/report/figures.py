"""Figures: examples of cases, the curves of a run, and how scores are distributed.

Everything is drawn off screen; no window is ever opened.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Shaped
from numpy import ndarray
from numpy.typing import NDArray

from finemask.io.files import atomic_write
from finemask.report.panels import Panel, draw, lesion_slice, overlay, to_picture
from finemask.report.panels import lesion_window as _window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Panel", "curves", "distributions", "example_row", "overlay", "panel_picture",
    "restored_row", "save_examples", "size_scatter", "to_svg",
]  # fmt: skip

# Stands for "the colour of the text around it", which matplotlib has no word for.
INK = "#0a0b0c"
# Okabe and Ito's colours, lightened or darkened to be read on white and on black.
PALETTE = ("#2a8fd4", "#e07b1a", "#14a37f", "#c977ab", "#8c8cd9", "#a08a3c")


def example_row(
    image_lr: Shaped[ndarray, "..."],
    image_hr: Shaped[ndarray, "..."],
    truth: NDArray[Any],
    prediction: NDArray[Any],
    sr: Shaped[ndarray, "..."] | None = None,
    *,
    name: str = "",
) -> tuple[Panel, ...]:
    """What went in, what came out, and where it is wrong: one row of an example figure.

    Args:
        image_lr: ``(C, *S)`` on the LR grid.
        image_hr: ``(C, *S * scale)`` on the HR grid.
        truth: Classes on the HR grid.
        prediction: Classes on the HR grid.
        sr: Super-resolved image ``(C, *S * scale)``, where there is one.
        name: Of the case.

    Returns:
        Panels *input*, (*super-resolved*,) *outlines* and *errors*, all of the same place.
    """
    if truth.ndim == 3:
        index = lesion_slice(truth, prediction)
        index_lr = min(index * image_lr.shape[1] // truth.shape[0], image_lr.shape[1] - 1)
        image_lr, image_hr = image_lr[:, index_lr], image_hr[:, index]
        truth, prediction = truth[index], prediction[index]
        sr = None if sr is None else sr[:, index]
    window = _window(truth, prediction, margin=0.6, smallest=min(48, *truth.shape))
    outlines = overlay(image_hr, truth, prediction, title="truth (blue), prediction (orange)")
    rows, columns = image_lr.shape[-2:]
    ratio = (rows / truth.shape[0], columns / truth.shape[1])
    window_lr = None
    if window is not None:
        window_lr = (window[0] * ratio[0], window[1] * ratio[0],
                     window[2] * ratio[1], window[3] * ratio[1])  # fmt: skip
    coarse = (1 / ratio[0], 1 / ratio[1])
    panels = [Panel(to_picture(image_lr), spacing=coarse, window=window_lr,
                    title=f"{name} input {rows} x {columns}".strip())]  # fmt: skip
    if sr is not None:
        panels.append(Panel(to_picture(sr), window=window, title="super-resolved"))
    panels.append(outlines.zoomed(window))
    errors = replace(outlines, paint="errors", title="missed (blue), wrong (orange)")
    return (*panels, errors.zoomed(window))


def restored_row(
    image_lr: Float[ndarray, " c h w"],
    image_hr: Float[ndarray, " c i j"],
    sr: Float[ndarray, " c i j"],
) -> tuple[Panel, ...]:
    """What a network that restores images saw, what it made of it and what is true."""
    rows, columns = image_lr.shape[-2:]
    coarse = (image_hr.shape[-2] / rows, image_hr.shape[-1] / columns)
    return (
        Panel(to_picture(image_lr), spacing=coarse, title=f"input {rows} x {columns}"),
        Panel(to_picture(sr), title="super-resolved"),
        Panel(to_picture(image_hr), title="true"),
    )


def save_examples(
    rows: Sequence[Sequence[Panel]], path: str | Path, *, overwrite: bool = True
) -> None:
    """Save rows of panels as one PNG; column titles are those of the panels."""
    columns, side = max(len(row) for row in rows), 2.6
    heights = [side * max(p.shape_mm[0] / p.shape_mm[1] for p in row) + 0.28 for row in rows]
    figure = blank_figure(side * columns, sum(heights))
    grid = figure.subplots(
        len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes_row, row in zip(grid, rows, strict=True):
        for axes in axes_row[len(row) :]:
            axes.set_axis_off()
        for axes, panel in zip(axes_row, row, strict=False):
            draw(axes, panel, pen=0.7)
    gap = 0.3 * len(rows) / max(sum(heights) - 0.3 * len(rows), 1)
    figure.subplots_adjust(0.008, 0.01, 0.992, 1 - 0.28 / sum(heights), wspace=0.04, hspace=gap)
    with atomic_write(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=130, format="png", facecolor="white")


def panel_picture(panel: Panel, *, side_px: int = 560) -> bytes:
    """One panel as a JPEG that it fills to the edge, ``side_px`` on its longer side."""
    height, width = panel.shape_mm
    longer = max(height, width)
    figure = blank_figure(4 * width / longer, 4 * height / longer)
    axes = figure.add_axes((0, 0, 1, 1))
    draw(axes, panel)
    stream = io.BytesIO()
    figure.savefig(stream, dpi=side_px / 4, format="jpeg", facecolor="black",
                   pil_kwargs={"quality": 88, "subsampling": 0})  # fmt: skip
    return stream.getvalue()


def curves(log_csv: str | Path, path: str | Path, *, overwrite: bool = True) -> None:
    """Draw the loss parts, the validation score and the learning rate of a run.

    Args:
        log_csv: With a column ``step``; ``loss`` and the parts are drawn together,
            ``val_...`` and ``learning_rate`` on their own. Empty cells are passed over.
        path: PNG to write.
        overwrite: Replace an existing file.
    """
    columns = _read_columns(Path(log_csv))
    apart = {"step", "epoch", "learning_rate", "skipped_steps"}
    others = ("val_", "gradient_norm", "loss_")
    parts = [name for name in columns if name not in apart and not name.startswith(others)]
    score = columns["val_score"][1] if "val_score" in columns else np.empty(0)
    groups = {
        "loss": parts,
        # A score beyond 1 is the PSNR, which is drawn next to it.
        "validation score": ["val_score"] if score.size and score.max() <= 1 else [],
        "validation PSNR [dB]": [name for name in columns if name == "val_psnr_db"],
        "learning rate": [name for name in columns if name == "learning_rate"],
    }
    groups = {
        title: names for title, names in groups.items() if any(columns[n][0].size for n in names)
    }
    figure = blank_figure(3.6 * max(1, len(groups)), 2.9)
    for axes, (title, names) in zip(
        figure.subplots(1, max(1, len(groups)), squeeze=False)[0], groups.items(), strict=False
    ):
        _draw_curves(axes, title, {name: columns[name] for name in names})
    figure.tight_layout()
    with atomic_write(path, overwrite) as temporary:
        figure.savefig(temporary, dpi=130, format="png", facecolor="white")


def _draw_curves(
    axes: Axes, title: str, lines: Mapping[str, tuple[NDArray[Any], NDArray[Any]]]
) -> None:
    for i, (name, (steps, values)) in enumerate(lines.items()):
        if not steps.size:
            continue
        colour = "#222222" if name == "loss" else PALETTE[i % len(PALETTE)]
        marker = "o" if steps.size < 30 else None
        axes.plot(steps, values, color=colour, lw=1.3, marker=marker, ms=2.5, label=name)
    tidy(axes)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel("step", fontsize=9)
    values = np.concatenate([v for _, v in lines.values()])
    if title == "loss" and (values > 0).all() and values.max() > 20 * values.min():
        axes.set_yscale("log")
    if title == "validation score":
        axes.set_ylim(0, 1)
    if len(lines) > 1:
        axes.legend(fontsize=8, frameon=False, loc="upper right")


def _read_columns(path: Path) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Steps and finite values of each column."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]] = {}
    for name in rows[0] if rows else ():
        pairs = [(float(r["step"]), float(r[name])) for r in rows if r[name] not in ("", None)]
        finite = np.array([p for p in pairs if math.isfinite(p[1])]).reshape(-1, 2)
        columns[name] = (finite[:, 0], finite[:, 1])
    return columns


def distributions(
    values: Mapping[str, Mapping[str, Sequence[float]]], *, labels: Mapping[str, str]
) -> Figure:
    """Every case as a dot, with median and quartiles, for some metrics and groups.

    Args:
        values: ``[metric][group]`` of values; what is not finite is not drawn.
        labels: Of the axis of each metric.
    """
    metrics = list(values)
    groups = list(dict.fromkeys(g for by_group in values.values() for g in by_group))
    columns = min(3, len(metrics))
    lines = math.ceil(len(metrics) / columns)
    figure = blank_figure(10.2, lines * (0.8 + 0.5 * len(groups)))
    grid = figure.subplots(lines, columns, squeeze=False)
    rng = np.random.default_rng(0)
    for axes in grid.flat[len(metrics) :]:
        axes.set_axis_off()
    for number, (axes, metric) in enumerate(zip(grid.flat, metrics, strict=False)):
        for row, group in enumerate(groups):
            array = np.array(values[metric].get(group, ()), dtype=np.float64)
            _draw_strip(axes, array[np.isfinite(array)], float(-row), rng)
        axes.set_ylim(-len(groups) + 0.45, 0.45)
        tidy(axes)
        axes.set_xlabel(labels[metric], fontsize=9)
        names = groups if number % columns == 0 else []
        axes.set_yticks([-i for i in range(len(names))], names)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color=INK, alpha=0.12, lw=0.6)
    figure.tight_layout(w_pad=2.2, h_pad=1.4)
    return figure


def _draw_strip(
    axes: Axes, values: NDArray[np.float64], y: float, rng: np.random.Generator
) -> None:
    if not values.size:
        return
    jitter = rng.uniform(-0.16, 0.16, values.size)
    axes.scatter(values, y + 0.1 + jitter, s=11, color=PALETTE[0], alpha=0.65, lw=0, zorder=2)
    if values.size >= 4:
        low, middle, high = np.percentile(values, [25, 50, 75])
        axes.plot([low, high], [y - 0.3] * 2, color=INK, lw=1.1, solid_capstyle="butt", zorder=3)
        axes.plot([middle] * 2, [y - 0.38, y - 0.22], color=INK, lw=1.6, zorder=3)


def size_scatter(
    sizes: Mapping[str, Sequence[float]],
    values: Mapping[str, Sequence[float]],
    *,
    size_label: str,
    value_label: str,
    failed: Mapping[str, Sequence[bool]] | None = None,
) -> Figure:
    """A score against the size of the lesion, a colour a class, failed cases as crosses.

    Args:
        sizes: By class; positive ones are drawn, on a logarithmic axis.
        values: By class, as long.
        size_label: Of the horizontal axis.
        value_label: Of the vertical axis.
        failed: By class, as long.
    """
    figure = blank_figure(10.2, 3.2)
    axes = figure.subplots()
    for i, label in enumerate(sizes):
        x, y = np.array(sizes[label], float), np.array(values[label], float)
        crossed = np.array(failed[label], bool) if failed else np.zeros(x.size, bool)
        for chosen, style in ((~crossed, {"marker": "o", "lw": 0}), (crossed, {"marker": "x"})):
            drawn = chosen & (x > 0) & np.isfinite(y)
            name = label if style["marker"] == "o" and len(sizes) > 1 else None
            axes.scatter(x[drawn], y[drawn], s=20, alpha=0.8, color=PALETTE[i % 6], label=name,
                         **style)  # fmt: skip
    axes.set_xscale("log")
    plain_log_ticks(axes)
    axes.set_xlabel(size_label, fontsize=9)
    axes.set_ylabel(value_label, fontsize=9)
    axes.set_ylim(-0.03, 1.03)
    axes.grid(color=INK, alpha=0.12, lw=0.6)
    tidy(axes)
    if len(sizes) > 1:
        axes.legend(fontsize=8.5, frameon=False, labelcolor=INK, loc="lower right")
    figure.tight_layout()
    return figure


def to_svg(figure: Figure) -> str:
    """A figure as SVG for a page: text stays text, and lines take the colour of the page's text."""
    import matplotlib as mpl

    stream = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "finemask"}):
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # several drawings share one page
    svg = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font: \1px system-ui, sans-serif", svg)
    return svg.replace(INK, "currentColor")


def blank_figure(width: float, height: float) -> Figure:
    """A figure that belongs to no window and no global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set(color=INK, linewidth=0.7)
    axes.tick_params(labelsize=8.5, colors=INK, width=0.7, length=3, which="both")
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def plain_log_ticks(axes: Axes) -> None:
    """Ticks at 1, 2 and 5 times powers of ten, written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
