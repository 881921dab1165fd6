"""One picture of a lesion: how an image is shown, and how two outlines are drawn on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Shaped, UInt8
from numpy import ndarray
from numpy.typing import NDArray

from finemask.geometry import Geometry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, told apart with any colour vision, on grey and on red tissue.
TRUTH = "#56b4e9"
PREDICTION = "#e69f00"
AGREEMENT = "#009e73"
Paint = Literal["none", "contours", "errors"]


@dataclass(frozen=True, eq=False)
class Panel:
    """A slice as it is shown.

    Args:
        picture: ``(H, W, 3)`` in 0 to 255.
        truth: ``(H, W)`` true classes.
        prediction: ``(H, W)`` predicted classes.
        paint: Draw both ``contours``, fill the ``errors``, or neither.
        spacing: Distance of rows and of columns in ``unit``.
        unit: ``mm`` or ``px``.
        window: Rows and columns that are shown (edges, in pixels); ``None`` for all.
        frame: A window to outline.
        marks: Letters at the left and at the top edge ("R" and "A" in a radiological view).
        title: Above the panel in a figure.
    """

    picture: UInt8[ndarray, " h w 3"]
    truth: NDArray[Any] | None = None
    prediction: NDArray[Any] | None = None
    paint: Paint = "none"
    spacing: tuple[float, float] = (1.0, 1.0)
    unit: str = "px"
    window: tuple[float, float, float, float] | None = None
    frame: tuple[float, float, float, float] | None = None
    marks: tuple[str, str] = ("", "")
    title: str = ""

    def zoomed(self, window: tuple[float, float, float, float] | None, title: str = "") -> Panel:
        """The same slice, seen through a window."""
        return replace(self, window=window, title=title or self.title)

    @property
    def shape_mm(self) -> tuple[float, float]:
        """Height and width of what is shown, in ``unit``."""
        top, bottom, left, right = self.window or (
            0,
            self.picture.shape[0],
            0,
            self.picture.shape[1],
        )
        return (bottom - top) * self.spacing[0], (right - left) * self.spacing[1]


def to_picture(
    image: Shaped[ndarray, "..."] | None, shape: tuple[int, ...] = ()
) -> UInt8[ndarray, " h w 3"]:
    """Grey or colour image as 8-bit RGB, from its 0.5th to its 99.5th percentile.

    Args:
        image: ``(H, W)`` or ``(C, H, W)``; three channels are colour, of others the first
            is shown. ``None`` gives an even grey.
        shape: Of that even grey.
    """
    if image is None:
        return np.full((*shape, 3), 38, np.uint8)
    channels = np.asarray(image, dtype=np.float64)
    channels = channels[None] if channels.ndim == 2 else channels
    channels = channels if len(channels) == 3 else channels[:1]
    low, high = np.percentile(channels, [0.5, 99.5])
    scaled = (channels - low) / (high - low) if high > low else np.full_like(channels, 0.3)
    grey = np.round(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return np.ascontiguousarray(np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1))


def lesion_slice(truth: NDArray[Any], prediction: NDArray[Any] | None = None, axis: int = 0) -> int:
    """Slice with the largest true lesion; without one, the largest prediction, or the middle.

    Example:
        >>> truth = np.zeros((3, 2, 2), int)
        >>> truth[2] = 1
        >>> lesion_slice(truth)
        2
    """
    others = tuple(a for a in range(truth.ndim) if a != axis)
    for mask in (truth, prediction):
        if mask is not None and (mask > 0).any():
            return int((mask > 0).sum(axis=others).argmax())
    return truth.shape[axis] // 2


def lesion_window(
    truth: NDArray[Any],
    prediction: NDArray[Any] | None = None,
    *,
    margin: float = 0.5,
    smallest: int = 24,
) -> tuple[float, float, float, float] | None:
    """Window round everything true or predicted in a slice, with the proportions of the slice.

    Args:
        truth: ``(H, W)`` classes.
        prediction: The same.
        margin: Free space on each side, as a share of the lesion.
        smallest: Shorter side in pixels.

    Returns:
        Top, bottom, left and right edge; ``None`` where all is to be shown.
    """
    mask = (truth > 0) if prediction is None else (truth > 0) | (prediction > 0)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return None
    shape = np.array(mask.shape, dtype=float)
    ends = np.array([[rows[0], rows[-1] + 1], [columns[0], columns[-1] + 1]], dtype=float)
    needed = (ends[:, 1] - ends[:, 0]) * (1 + 2 * margin)
    share = max(float((needed / shape).max()), smallest / shape.min())
    if share >= 0.9:
        return None
    start = np.clip(ends.mean(1) - share * shape / 2, 0, shape * (1 - share))
    (top, left), (bottom, right) = start, start + share * shape
    return float(top), float(bottom), float(left), float(right)


def view(
    array: NDArray[Any], geometry: Geometry
) -> tuple[NDArray[Any], tuple[float, float, float], tuple[str, str]]:
    """A volume ready to look at: slices first, anterior (or superior) up, the patient's right left.

    The slices are those with the finest pixels; axial where all are alike.

    Args:
        array: ``(*S)`` or ``(C, *S)``.
        geometry: Grid of ``S``, 3-D.

    Returns:
        The array with its last three axes turned, their spacing, and the letters of
        the left and the top edge.
    """
    lead = array.ndim - 3
    order, flips = geometry.axes_to_canonical()
    spacing = np.array(geometry.spacing)[list(order)]
    thick = int(spacing.argmax()) if spacing.max() > 1.5 * spacing.min() else 0
    first = [thick, *(a for a in range(3) if a != thick)]
    array = np.flip(
        np.transpose(array, (*range(lead), *(lead + a for a in order))),
        tuple(lead + a for a in flips),
    )
    array = np.transpose(array, (*range(lead), *(lead + a for a in first)))
    array = np.flip(array, (lead + 1, lead + 2))
    up, left = (("S", "A", "R")[a] for a in first[1:])
    row, column = (float(s) for s in spacing[first[1:]])
    return array, (float(spacing[thick]), row, column), (left, up)


def overlay(
    image: Shaped[ndarray, "..."] | None,
    truth: NDArray[Any],
    prediction: NDArray[Any] | None,
    *,
    geometry: Geometry | None = None,
    paint: Paint = "contours",
    zoom: bool = False,
    title: str = "",
) -> Panel:
    """Truth and prediction on the image; of a volume, on the slice with the largest lesion.

    Args:
        image: ``(C, *S)``, 2-D or 3-D; ``None`` where unknown.
        truth: ``(*S)`` classes.
        prediction: ``(*S)`` classes.
        geometry: Grid of ``S``, for the scale bar and the radiological view.
        paint: Draw both ``contours``, or fill the ``errors``.
        zoom: Show the surroundings of the lesion only.
        title: Above the panel in a figure.
    """
    marks, spacing, unit = ("", ""), (1.0, 1.0), "px"
    if geometry is not None:
        unit = geometry.unit
        spacing = (geometry.spacing[-2], geometry.spacing[-1])
    if truth.ndim == 3:
        if geometry is not None and unit == "mm":
            image = None if image is None else view(image, geometry)[0]
            prediction = None if prediction is None else view(prediction, geometry)[0]
            truth, (_, *plane), marks = view(truth, geometry)
            spacing = (plane[0], plane[1])
        index = lesion_slice(truth, prediction)
        image = None if image is None else image[:, index]
        prediction = None if prediction is None else prediction[index]
        truth = truth[index]
    return Panel(
        picture=to_picture(image, truth.shape),
        truth=truth,
        prediction=prediction,
        paint=paint,
        spacing=spacing,
        unit=unit,
        window=lesion_window(truth, prediction) if zoom else None,
        marks=marks,
        title=title,
    )


def draw(axes: Axes, panel: Panel, *, bar: bool = True, pen: float = 1.0) -> None:
    """Draw a panel into matplotlib axes, without ticks or frame; ``pen`` scales the outlines."""
    height, width = panel.picture.shape[:2]
    top, bottom, left, right = panel.window or (0, height, 0, width)
    # Few pixels are shown as what they are; many are smoothed on the way to the screen.
    few = max(bottom - top, right - left) < 160
    axes.imshow(
        _painted(panel), extent=(0, width, height, 0), interpolation="nearest" if few else None
    )
    if panel.paint == "contours":
        # The truth is the wider line, so that it shows on both sides where the two agree.
        for classes, colour, width in (
            (panel.truth, TRUTH, 2.6),
            (panel.prediction, PREDICTION, 1.2),
        ):
            if classes is not None:
                _draw_outline(axes, classes, colour, pen * width)
    if panel.frame is not None:
        _draw_frame(axes, panel.frame)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect=panel.spacing[0] / panel.spacing[1])
    axes.set_axis_off()
    if bar:
        _draw_bar(axes, panel)
    style: dict[str, Any] = {"color": "white", "fontsize": 9, "transform": axes.transAxes}
    axes.text(0.02, 0.5, panel.marks[0], va="center", **style)
    axes.text(0.5, 0.98, panel.marks[1], va="top", ha="center", **style)
    if panel.title:
        axes.set_title(panel.title, fontsize=9, loc="left", pad=4)


def _painted(panel: Panel) -> UInt8[ndarray, " h w 3"]:
    """The picture with found, missed and wrongly found lesion filled."""
    if panel.paint != "errors" or panel.truth is None or panel.prediction is None:
        return panel.picture
    from matplotlib.colors import to_rgb

    found = (panel.truth > 0) & (panel.prediction == panel.truth)
    missed = (panel.truth > 0) & ~found
    wrong = (panel.prediction > 0) & (panel.truth == 0)
    mixed = panel.picture.astype(np.float64)
    for mask, colour, share in (
        (found, AGREEMENT, 0.35), (missed, TRUTH, 0.75), (wrong, PREDICTION, 0.75),
    ):  # fmt: skip
        mixed[mask] = (1 - share) * mixed[mask] + share * 255 * np.array(to_rgb(colour))
    return np.round(mixed).astype(np.uint8)


def outline(classes: NDArray[Any]) -> NDArray[np.float64]:
    """Pixel edges between different classes, as ``(n, 2, 2)`` segments of (column, row).

    Example:
        >>> len(outline(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])))
        4
    """
    padded = np.pad(classes, 1)
    rows, columns = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    flat = np.stack([np.stack([columns, rows], 1), np.stack([columns + 1, rows], 1)], 1)
    rows, columns = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    upright = np.stack([np.stack([columns, rows], 1), np.stack([columns, rows + 1], 1)], 1)
    return np.concatenate([flat, upright]).astype(np.float64)


def _draw_outline(axes: Axes, classes: NDArray[Any], colour: str, width: float) -> None:
    from matplotlib.collections import LineCollection

    lines = LineCollection(list(outline(classes)), colors=colour, linewidths=width)
    lines.set_capstyle("round")
    axes.add_collection(lines)


def _draw_frame(axes: Axes, frame: tuple[float, float, float, float]) -> None:
    from matplotlib.patches import Rectangle

    top, bottom, left, right = frame
    axes.add_patch(
        Rectangle((left, top), right - left, bottom - top, fill=False, color="white", lw=0.9)
    )


def _draw_bar(axes: Axes, panel: Panel) -> None:
    """A scale bar of a round length near a fifth of the width."""
    from matplotlib.patheffects import withStroke

    _, width = panel.shape_mm
    length = round_length(width / 4.5)
    ends, y = [0.96 - length / width, 0.96], 0.05
    halo = [withStroke(linewidth=3.5, foreground="black")]
    axes.plot(ends, [y, y], color="white", lw=2, transform=axes.transAxes, path_effects=halo,
              solid_capstyle="butt", scalex=False, scaley=False)  # fmt: skip
    axes.text(
        sum(ends) / 2, y + 0.022, f"{length:g} {panel.unit}", color="white", fontsize=9,
        ha="center", va="bottom", transform=axes.transAxes,
        path_effects=[withStroke(linewidth=2.2, foreground="black")],
    )  # fmt: skip


def round_length(length: float) -> float:
    """The largest of 1, 2 or 5 times a power of ten that is not longer.

    Example:
        >>> [round_length(v) for v in (0.7, 3.9, 26.0, 1.0)]
        [0.5, 2.0, 20.0, 1.0]
    """
    power = 10.0 ** np.floor(np.log10(length) + 1e-9)
    return float(round(max(f * power for f in (1, 2, 5) if f * power <= length * (1 + 1e-9)), 9))
