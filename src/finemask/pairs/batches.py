"""What training feeds on: random windows of LR/HR pairs, by number, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from finemask.case import Case
from finemask.errors import DataError
from finemask.pairs.augmentation import (
    Warp,
    draw_flips,
    draw_intensity,
    draw_shift,
    draw_warp,
    hardened,
    rescale,
    warped,
)
from finemask.pairs.degradation import (
    Normalise,
    check_sides,
    context,
    downsample,
    lr_normalisation,
    make_pair,
    noisy,
)
from finemask.pairs.guidance import Guide, Window
from finemask.pairs.targets import check_labels, labels_of, lesion_masks, maps_of
from finemask.pairs.windows import (
    Lesions,
    choose_start,
    cut,
    default_crop,
    find_lesions,
    fitting_crop,
    inner,
)
from finemask.preparation import class_maps, subject
from finemask.recipe import PairSettings

ORDER, SAMPLE = 0, 1
"""Keys that keep the random streams of case order and of samples apart."""


@dataclass
class Batch:
    """What a method learns from; the suffix of a name says its grid.

    Not frozen, because Fabric converts its tensors field by field.

    Args:
        image_lr: ``(B, C, *S)`` prepared intensities on the LR grid.
        image_hr: ``(B, C, *S * scale)`` the same image on the HR grid.
        target: ``(B, F, *S * scale)`` in [0, 1], one map a foreground class.
        guidance: ``(B, C, *P)`` the window of the HR image that the method's ``guide`` chose.
        guidance_start: ``(B, n)`` first voxel of that window.
        mask: ``(B, F, *S * scale)`` binary masks beside a soft target, for methods that learn
            from both.
        names: Case of each sample.
    """

    image_lr: Tensor
    image_hr: Tensor
    target: Tensor
    guidance: Tensor | None = None
    guidance_start: Tensor | None = None
    mask: Tensor | None = None
    names: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Sample:
    """One item of a batch, as arrays."""

    image_lr: NDArray[np.float32]
    image_hr: NDArray[np.float32]
    target: NDArray[np.float32]
    name: str
    mask: NDArray[np.float32] | None = None
    window: Window | None = None


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch."""

    def stacked(field: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(sample, field) for sample in samples]))

    batch = Batch(
        image_lr=stacked("image_lr"),
        image_hr=stacked("image_hr"),
        target=stacked("target"),
        mask=None if samples[0].mask is None else stacked("mask"),
        names=tuple(sample.name for sample in samples),
    )
    return guided(batch, [sample.window for sample in samples])


def guided(batch: Batch, windows: Sequence[Window | None]) -> Batch:
    """A batch with the guidance that the windows, one a sample, cut from its HR images."""
    chosen = [window for window in windows if window is not None]
    if not chosen:
        return batch
    cuts = [image[(slice(None), *w)] for image, w in zip(batch.image_hr, chosen, strict=True)]
    starts = torch.tensor([[side.start for side in window] for window in chosen])
    return replace(batch, guidance=torch.stack(cuts), guidance_start=starts)


@dataclass(frozen=True)
class _Facts:
    """What is found out once about a case: its lesions and how its LR image is normalised."""

    lesions: Lesions
    offset: NDArray[np.float64]
    gain: NDArray[np.float64]


class PairDataset(Dataset[Sample]):
    """Training samples by number; the same number always gives the same sample.

    Sample ``n`` is a random window of a random case. Everything random in it
    derives from ``(seed, n)`` and the order of the cases in epoch ``e`` from
    ``(seed, e)``, so neither the number of workers nor an interruption changes
    what a network sees: feed it ``range(first, last)`` as the sampler.

    Args:
        cases: Prepared cases, never written to; read once here, so that a
            faulty case is reported before training starts.
        scale: HR voxels for each LR voxel along each axis.
        settings: The ``[pairs]`` table of a recipe.
        foreground: Number of foreground classes.
        seed: Any whole number.
        guide: The method's own.
        crop: HR window; ``None`` takes ``settings.crop``, or else `default_crop`. With
            ``settings.whole`` it is as large as the largest case instead.
        stride: LR sides of a sample are multiples of this.
        lr_cases: The data set's own LR images in the same order, for ``degrade="real"``;
            in the units of ``cases``, so neither normalised alone.
        normalise: As in `make_pair`; give the same there.
        two_labels: Beside a soft target hand out the binary masks, if every case has one.

    Raises:
        DataError: On a case that does not fit the task.
        UsageError: On a crop that does not fit the scale, or a scale that leaves a
            case too few LR voxels.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        scale: Sequence[int],
        settings: PairSettings,
        foreground: int,
        seed: int,
        *,
        guide: Guide | None = None,
        crop: Sequence[int] | None = None,
        stride: int = 1,
        lr_cases: Sequence[Case] | None = None,
        normalise: Normalise = "none",
        two_labels: bool = False,
    ) -> None:
        if not len(cases):
            raise DataError("training cases", "are none", "check the split of the data set")
        self.cases, self.guide = cases, guide
        self.lr_cases = lr_cases if settings.degrade == "real" else None
        self.scale, self.settings, self.foreground = tuple(scale), settings, foreground
        self.seed, self.stride, self.normalise = seed, stride, normalise
        self.two_labels = two_labels and settings.target == "soft"
        largest = self._checked_sides()
        wanted = largest if settings.whole else tuple(crop or settings.crop)
        wanted = wanted or default_crop(len(scale), scale, stride, largest)
        self.crop = fitting_crop(wanted, scale, stride)
        self._facts: dict[int, _Facts] = {}
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        """Samples in an epoch, one a case; numbers beyond it are the next epochs."""
        return len(self.cases)

    def __iter__(self) -> Iterator[Sample]:
        """The first epoch."""
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Sample:
        index = self._case_of(number)
        case, facts = self.cases[index], self._facts_of(index)
        rng = np.random.default_rng([self.seed, SAMPLE, number])
        start = self._start(rng, case, facts.lesions)
        warp = draw_warp(rng, self.settings, case.geometry.spacing)
        flips = draw_flips(rng, self.settings, len(self.scale))
        contrast, brightness = draw_intensity(rng, self.settings)

        around = context(self.scale, self.settings)
        margin = [c * f for c, f in zip(around, self.scale, strict=True)]
        first = [b - m for b, m in zip(start, margin, strict=True)]
        size = [s + 2 * m for s, m in zip(self.crop, margin, strict=True)]
        image, target, mask = self._window(case, first, size, warp)
        shift = brightness - facts.offset * facts.gain * contrast
        rescale(image, facts.gain * contrast, shift)
        if self.lr_cases is None:
            image_lr = inner(downsample(image, self.scale, self.settings), around)
            image_lr = noisy(np.flip(image_lr, flips), self.settings.noise, rng)
        else:
            image_lr = self._real_lr(self.lr_cases[index], start, warp)
            rescale(image_lr, facts.gain * contrast, shift)
            image_lr = np.flip(image_lr, flips)
        image_hr = np.ascontiguousarray(np.flip(inner(image, margin), flips))
        target, mask = (
            np.ascontiguousarray(np.flip(inner(x, margin), flips)) for x in (target, mask)
        )
        return Sample(
            image_lr=np.ascontiguousarray(image_lr),
            image_hr=image_hr,
            target=target,
            mask=mask if self.two_labels else None,
            name=case.name,
            window=None if self.guide is None else self.guide(image_hr),
        )

    def _checked_sides(self) -> tuple[int, ...]:
        """Largest side along each axis, after a look at every case."""
        sides = []
        for index, case in enumerate(self.cases):
            if case.geometry.ndim != len(self.scale):
                raise DataError(
                    subject(case),
                    f"case {case.name} is {case.geometry.ndim}-D, the scale has "
                    f"{len(self.scale)} axes",
                    "set task.scale to one number an axis",
                )
            if len(case.image) != len(self.cases[0].image):
                raise DataError(
                    subject(case),
                    f"case {case.name} has {len(case.image)} channels, the first case has "
                    f"{len(self.cases[0].image)}",
                    "give every case the same channels",
                )
            check_labels(case, self.settings, self.foreground)
            check_sides(case, self.scale)
            if self.settings.degrade == "real":
                lr_case = None if self.lr_cases is None else self.lr_cases[index]
                make_pair(case, self.scale, self.settings, lr_case)
            self.two_labels = self.two_labels and case.truth is not None
            sides.append(case.geometry.shape)
        return tuple(max(side) for side in zip(*sides, strict=True))

    def _case_of(self, number: int) -> int:
        epoch, place = divmod(number, len(self))
        if self._order[0] != epoch:
            rng = np.random.default_rng([self.seed, ORDER, epoch])
            self._order = (epoch, rng.permutation(len(self)))
        return int(self._order[1][place])

    def _facts_of(self, index: int) -> _Facts:
        if index not in self._facts:
            case = self.cases[index]
            larger = any(n > s for n, s in zip(case.geometry.shape, self.crop, strict=True))
            lesions = Lesions(())
            if larger and self.settings.lesion_fraction > 0:
                labels = labels_of(case, self.settings)
                lesions = find_lesions(lesion_masks(labels, self.settings, self.foreground))
            offset, gain = np.zeros(len(case.image)), np.ones(len(case.image))
            if self.normalise != "none":
                lr_case = None if self.lr_cases is None else self.lr_cases[index]
                offset, gain = lr_normalisation(
                    case, self.scale, self.settings, self.normalise, lr_case
                )
            self._facts[index] = _Facts(lesions, offset, gain)
        return self._facts[index]

    def _start(self, rng: Generator, case: Case, lesions: Lesions) -> tuple[int, ...]:
        on_lesion = len(lesions) > 0 and rng.random() < self.settings.lesion_fraction
        around = lesions.pick(rng) if on_lesion else None
        # A real LR image has its voxels where it has them; a made one follows the window.
        align = self.scale if self.lr_cases is not None else (1,) * len(self.scale)
        start = choose_start(rng, case.geometry.shape, self.crop, around, align)
        shift = draw_shift(rng, self.settings, self.crop, case.geometry.spacing)
        return tuple(b + s // a * a for b, s, a in zip(start, shift, align, strict=True))

    def _window(
        self, case: Case, start: Sequence[int], size: Sequence[int], warp: Warp | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Image, target and (or no maps) binary masks of a window, as new arrays."""
        start, sides = _widened(start, size, warp)
        image = cut(case.image, start, sides, repeat_edge=True)
        labels = cut(labels_of(case, self.settings), start, sides, repeat_edge=False)
        target = maps_of(labels, self.settings, self.foreground)
        mask = np.empty((0, *image.shape[1:]), np.float32)
        if self.two_labels and case.truth is not None:
            truth = cut(case.truth, start, sides, repeat_edge=False)
            mask = class_maps(truth, self.foreground)
        if warp is not None:
            counts = np.cumsum([len(image), len(target)])
            moved = warped(np.concatenate([image, target, mask]), warp, size)
            image, target, mask = np.split(moved, counts)
            mask = hardened(mask) if len(mask) else mask
            target = hardened(target) if self.settings.target == "hard" else target
        return image, target, mask

    def _real_lr(
        self, lr_case: Case, start: Sequence[int], warp: Warp | None
    ) -> NDArray[np.float32]:
        """The part of a real LR image with the extent of an HR window, moved alike."""
        start = [b // f for b, f in zip(start, self.scale, strict=True)]
        size = [s // f for s, f in zip(self.crop, self.scale, strict=True)]
        warp = warp and warp.coarsened(self.scale)
        start, sides = _widened(start, size, warp)
        image = cut(lr_case.image, start, sides, repeat_edge=True)
        return image if warp is None else warped(image, warp, size)


def _widened(
    start: Sequence[int], size: Sequence[int], warp: Warp | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """A window with the margin that a warp reaches into."""
    if warp is None:
        return tuple(start), tuple(size)
    margin = warp.margin(size)
    return (
        tuple(b - m for b, m in zip(start, margin, strict=True)),
        tuple(s + 2 * m for s, m in zip(size, margin, strict=True)),
    )
