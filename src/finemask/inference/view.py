"""What a network is shown of a case, and on which grids its answer lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from finemask.case import Case
from finemask.errors import DataError
from finemask.geometry import Geometry
from finemask.pairs.degradation import make_pair, native_pair
from finemask.preparation import for_lr, prepare
from finemask.recipe import PrepareSettings, Recipe, Task

Grid = Literal["hr", "source"]
Mode = Literal["native", "matched"]


@dataclass(frozen=True, eq=False)
class View:
    """What a network is shown of a case, and where its answer lies.

    Args:
        case: The case as it was read.
        lr: Prepared LR image.
        hr: Prepared HR image of the matched mode; the LR image in the native mode.
        settings: How ``hr`` was prepared.
        result: Grid of the network's answer, within ``lr.geometry.refined(scale)``.
        written: Grid that is wanted, with the axes of ``case``.
    """

    case: Case
    lr: Case
    hr: Case
    settings: PrepareSettings
    result: Geometry
    written: Geometry

    def on_hr_grid(self, scale: tuple[int, ...]) -> Case:
        """The image on the HR grid, interpolated where there is no better, for a guide to cut."""
        return native_pair(self.lr, scale).hr if self.hr is self.lr else self.hr

    def to_source_intensities(self, image: Float[ndarray, " c *s"]) -> Float[ndarray, " c *s"]:
        """Undo windowing and normalisation of an image, as far as they can be undone."""
        plain = replace(self.settings, normalise="none", window_to_unit=False)
        original = prepare(self.case, plain).image
        result = np.empty_like(image)
        for channel, seen, source, target in zip(
            image, self.hr.image, original, result, strict=True
        ):
            # Both are linear, so the extremes before and after give offset and gain.
            low, span = float(seen.min()), float(np.ptp(seen)) or 1.0
            np.multiply(channel - np.float32(low), float(np.ptp(source)) / span, out=target)
            target += source.min()
        return result


def unlike_spacing(
    spacing_mm: Sequence[float], learned_mm: Sequence[Sequence[float]], scale: Sequence[int]
) -> bool:
    """Whether an LR image is spaced unlike those that a network learned from.

    Up to half as coarse again passes, and finer by the scale and half again: in
    native use the images are as fine as the HR images were in training.

    Args:
        spacing_mm: Of the LR image, axis by axis.
        learned_mm: Least and largest LR spacing in training, axis by axis; empty when unknown.
        scale: HR voxels for each LR voxel.

    Example:
        >>> learned = [[2.0, 2.0], [2.0, 2.0]]
        >>> unlike_spacing((1.0, 1.0), learned, (2, 2)), unlike_spacing((6.5, 1.0), learned, (2, 2))
        (False, True)
    """
    if not learned_mm:
        return False
    return any(
        not least / (1.5 * factor) <= spacing <= 1.5 * largest
        for spacing, least, largest, factor in zip(spacing_mm, *learned_mm, scale, strict=True)
    )


def view_case(
    recipe: Recipe,
    case: Case,
    *,
    mode: Mode = "native",
    grid: Grid = "hr",
    lr_case: Case | None = None,
) -> View:
    """Prepare a case for a network and find the grids of the answer.

    Args:
        recipe: Of the run.
        case: As it was read.
        mode: ``native``: the image is the LR input and the answer is finer than the data.
            ``matched``: the image is reduced first and the answer lies on its own grid.
        grid: ``hr``: the fine grid, with the axes of the image as it was read; ``source``:
            the image's own grid.
        lr_case: The data set's own LR image, for ``pairs.degrade = "real"`` in matched mode.

    Raises:
        DataError: When the image does not suit the network.
    """
    task, settings = recipe.task, recipe.prepare
    if case.geometry.ndim == 2 and task.channels == 3 and len(case.image) == 1:
        case = replace(case, image=np.repeat(case.image, 3, axis=0))  # as data sets do
    _check_fit(case, task)
    if mode == "native":
        settings = for_lr(settings, task.scale)
        lr = hr = prepare(case, settings)
        result = lr.geometry.refined(task.scale)
    else:
        # A real pair is normalised by its LR image, which needs both in their own units.
        alone = settings.fixed if lr_case is not None else settings
        prepared = prepare(case, alone)
        if lr_case is not None:
            lr_case = prepare(lr_case, for_lr(alone, task.scale))
        pair = make_pair(prepared, task.scale, recipe.pairs, lr_case, normalise=settings.by_image)
        lr, hr, result = pair.lr, pair.hr, prepared.geometry
    written = case.geometry if grid == "source" else _unturned(case.geometry, result, settings)
    return View(case, lr, hr, settings, result, written)


def _check_fit(case: Case, task: Task) -> None:
    subject = case.source or case.name
    if case.geometry.ndim != task.dims:
        raise DataError(
            subject,
            f"is {case.geometry.ndim}-D, the model takes {task.dims}-D images",
            f"give {'pictures' if task.dims == 2 else 'volumes'}, or train a "
            f"{case.geometry.ndim}-D model",
        )
    channels = len(case.image)
    if channels != task.channels:
        raise DataError(
            subject,
            f"has {_counted(channels, task)}, the model takes {_counted(task.channels, task)}",
            "convert the image, or train a model on images like this one",
        )


def _counted(channels: int, task: Task) -> str:
    if channels == 1:
        return "1 channel (grey)"
    if task.dims == 3:
        return f"{channels} channels (a fourth axis, such as time points)"
    return "3 channels (colour)" if channels == 3 else f"{channels} channels"


def _unturned(source: Geometry, result: Geometry, settings: PrepareSettings) -> Geometry:
    """The grid of the answer over the source's extent, along the source's axes."""
    order = source.axes_to_canonical()[0] if settings.orient else range(source.ndim)
    sides = dict(zip(order, result.shape, strict=True))
    return source.resized([sides[axis] for axis in range(source.ndim)])
