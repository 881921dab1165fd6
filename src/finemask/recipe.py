"""Recipes: everything that decides a run, as frozen dataclasses and a TOML file.

A recipe file has one table a section: ``[task]``, ``[prepare]``, ``[pairs]``,
``[train]`` and ``[config]``, the last with the options of the method itself.
Unknown keys are errors, so a misspelt option never passes silently.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from finemask.errors import UsageError
from finemask.strict import build, check_ranges, parse_value, read_toml

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true")
"""Lightning Fabric's names of what a network is trained in."""


@dataclass(frozen=True)
class Task:
    """What goes into a network and what comes out.

    Args:
        dims: 2 for pictures, 3 for volumes.
        channels: Image channels.
        classes: Classes with the background; 1 and 2 both mean one foreground class.
        scale: HR voxels for each LR voxel along each array axis.
        class_names: Names of the foreground classes.
    """

    dims: int = 2
    channels: int = 1
    classes: int = 2
    scale: tuple[int, ...] = (2, 2)
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.dims not in (2, 3):
            raise UsageError("task.dims", f"is {self.dims}, must be 2 or 3", "choose one of these")
        if len(self.scale) == 1:
            object.__setattr__(self, "scale", self.scale * self.dims)
        if len(self.scale) != self.dims or min(self.scale) < 1:
            raise UsageError(
                "task.scale",
                f"is {self.scale}, needs one whole number of at least 1, or {self.dims} of them",
                "write for example 2, or 1x2x2 for each axis (slice, row, column)",
            )
        if self.channels < 1 or self.classes < 1:
            raise UsageError("task", "needs at least one channel and class", "correct the counts")

    @property
    def foreground(self) -> int:
        """Number of foreground classes, F: the channels of every target."""
        return max(1, self.classes - 1)

    @property
    def names(self) -> tuple[str, ...]:
        """Foreground class names, made up where the data set gives none."""
        made_up = ("lesion",) if self.foreground == 1 else ()
        return (
            self.class_names or made_up or tuple(f"class_{k + 1}" for k in range(self.foreground))
        )


@dataclass(frozen=True)
class PrepareSettings:
    """How an image is brought into the form that a network sees.

    Args:
        orient: Turn volumes to the canonical axes (superior, anterior, right).
        spacing_mm: Resample to this spacing first; empty keeps the native grid.
        window_hu: Clip to this intensity range first; empty keeps all.
        window_to_unit: Bring the range to [0, 1], alike for every image.
        normalise: ``zscore`` (mean 0, sd 1 a channel), ``minmax`` (to [0, 1]), ``imagenet`` (by
            the statistics that public weights were trained with; 8-bit or windowed to unit),
            ``symmetric`` (to [-1, 1] from black to white, known as for ``imagenet``) or ``none``.
    """

    orient: bool = True
    spacing_mm: tuple[float, ...] = ()
    window_hu: tuple[float, ...] = ()
    window_to_unit: bool = False
    normalise: Literal["zscore", "minmax", "imagenet", "symmetric", "none"] = "zscore"

    @property
    def by_image(self) -> Literal["zscore", "minmax", "none"]:
        """The normalisation by an image's own statistics; those of a pair are its LR image's."""
        if self.normalise in ("zscore", "minmax"):
            return self.normalise
        return "none"

    @property
    def fixed(self) -> PrepareSettings:
        """What is done to every image alike, which leaves two images in units that they share."""
        return self if self.by_image == "none" else replace(self, normalise="none")


@dataclass(frozen=True)
class PairSettings:
    """How LR and HR training pairs are made from a prepared HR case.

    Args:
        degrade: ``area`` (mean of the blocks), ``blur`` (Gaussian, then stride) or
            ``real`` (the data set's own LR images).
        blur_sigma: Sigma of ``blur`` in LR voxels.
        noise: Standard deviation of noise added to the LR image, in normalised units.
        crop: HR window of a training sample; empty chooses one by dimension and scale.
        whole: The window holds the largest case whole, for methods that read whole volumes.
        lesion_fraction: Share of windows placed on a lesion, every lesion equally likely.
        flip: Mirror at random.
        rotation_deg: Largest in-plane rotation.
        zoom: Largest relative change of size.
        shift: Largest in-plane displacement, as a share of the window.
        intensity: Largest relative change of contrast and brightness.
        warp_probability: Share of samples that are rotated and zoomed, and of those shifted.
        target: What the network learns: ``hard`` truth, ``soft`` masks, the ``readers`` mean, or
            ``none`` for methods that learn from images alone.
    """

    degrade: Literal["area", "blur", "real"] = "area"
    blur_sigma: float = 0.5
    noise: float = 0.0
    crop: tuple[int, ...] = ()
    whole: bool = False
    lesion_fraction: float = 0.5
    flip: bool = True
    rotation_deg: float = 15.0
    zoom: float = 0.1
    shift: float = 0.0
    intensity: float = 0.1
    warp_probability: float = 0.5
    target: Literal["hard", "soft", "readers", "none"] = "hard"

    def __post_init__(self) -> None:
        ranges = {
            "blur_sigma": (0.0, math.inf),
            "noise": (0.0, math.inf),
            "crop": (1.0, math.inf),
            "lesion_fraction": (0.0, 1.0),
            "rotation_deg": (0.0, 180.0),
            "zoom": (0.0, 0.9),
            "shift": (0.0, 0.5),
            "intensity": (0.0, 0.9),
            "warp_probability": (0.0, 1.0),
        }
        check_ranges("pairs", self, ranges)


@dataclass(frozen=True)
class TrainSettings:
    """How long and in which way a network is trained.

    Args:
        steps: Optimiser steps; 0 when another bound is given.
        epochs: Passes over the training cases; 0 for no such bound.
        minutes: Wall-clock bound, validation included; 0 for none.
        batch_size: Samples a step and device.
        rescale: Factors, one drawn for each batch, that all its images are resized by; empty
            for none.
        accumulate: Batches whose gradients are summed into one step.
        optimiser: ``adamw``, ``adam`` or ``sgd``.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled for ``adamw``, classical otherwise.
        momentum: Of ``sgd``.
        nesterov: Nesterov's form of that momentum.
        betas: Of ``adam`` and ``adamw``.
        schedule: ``poly``, ``cosine``, ``linear``, ``plateau`` or ``constant``, over the bound;
            ``triangle`` rises linearly over its first half and falls over the second.
        poly_power: Of ``poly``.
        plateau_patience: Validations without gain before ``plateau`` divides by ten.
        warmup_steps: Linear warm-up.
        clip_norm: Largest gradient norm; 0 for no clipping.
        ema: Decay of the averaged weights that are validated and deployed; 0 for none.
        validate_every: Steps between validations; 0 for about twenty a run.
        validate_cases: At most this many validation cases at each validation; 0 for all.
        metric: Validation metric that chooses the best checkpoint; ``psnr`` is of the
            super-resolved image, in dB.
        patience: Validations without gain before the run stops; 0 for never.
        log_every: Steps between rows of ``log.csv``.
        seed: Seed of weights, sample order and augmentation.
        precision: Lightning Fabric's name, for example ``32-true`` or ``bf16-mixed``.
        workers: Processes that make samples; 0 makes them in the training process.
        max_bad_steps: Consecutive non-finite steps before the run stops.
        tensorboard: Write TensorBoard files too.
        encoder_weights: Public ImageNet file that the method's encoder starts from; empty for
            random weights. Read once, at the start of a fresh run.
        teacher: Super-resolution run that a method learns from, likewise.
    """

    steps: int = 1000
    epochs: int = 0
    minutes: float = 0.0
    batch_size: int = 8
    rescale: tuple[float, ...] = ()
    accumulate: int = 1
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    schedule: Literal["poly", "cosine", "linear", "triangle", "plateau", "constant"] = "poly"
    poly_power: float = 0.9
    plateau_patience: int = 5
    warmup_steps: int = 20
    clip_norm: float = 5.0
    ema: float = 0.0
    validate_every: int = 0
    validate_cases: int = 0
    metric: Literal["dice", "iou", "sensitivity", "precision", "psnr"] = "dice"
    patience: int = 0
    log_every: int = 10
    seed: int = 0
    precision: str = "32-true"
    workers: int = 0
    max_bad_steps: int = 10
    tensorboard: bool = False
    encoder_weights: str = ""
    teacher: str = ""

    def __post_init__(self) -> None:
        at_least_nothing = (
            *("steps", "epochs", "minutes", "learning_rate", "weight_decay", "poly_power"),
            *("warmup_steps", "clip_norm", "validate_every", "validate_cases", "patience"),
            *("seed", "workers"),
        )
        at_least_one = (
            "batch_size",
            "accumulate",
            "plateau_patience",
            "log_every",
            "max_bad_steps",
        )
        ranges: dict[str, tuple[float, float]] = dict.fromkeys(at_least_nothing, (0.0, math.inf))
        ranges |= dict.fromkeys(at_least_one, (1.0, math.inf))
        ranges |= dict.fromkeys(("momentum", "betas", "ema"), (0.0, 1.0))
        ranges["rescale"] = (0.1, 10.0)
        check_ranges("train", self, ranges)
        if self.precision not in PRECISIONS:
            raise UsageError(
                "train.precision", f"is {self.precision!r}", f"choose {', '.join(PRECISIONS)}"
            )


@dataclass(frozen=True)
class Recipe:
    """A complete, resolved description of a run; ``config`` belongs to the method."""

    method: str = "unet"
    task: Task = Task()
    prepare: PrepareSettings = PrepareSettings()
    pairs: PairSettings = PairSettings()
    train: TrainSettings = TrainSettings()
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Sequences as a file gives them back, so that a recipe equals its copy on disk.
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in self.config.items()}
        object.__setattr__(self, "config", plain)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], subject: str = "recipe") -> Recipe:
        """Build a recipe from nested tables.

        Raises:
            UsageError: On an unknown key or a value of the wrong type.
        """
        return build(cls, values, subject)

    @classmethod
    def load(cls, path: Path) -> Recipe:
        """Read a recipe file (TOML)."""
        return cls.from_dict(read_toml(path), str(path))

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_toml(self) -> str:
        import tomli_w

        return tomli_w.dumps(self.to_dict())

    def with_settings(self, settings: Iterable[str]) -> Recipe:
        """Apply ``section.key=value`` lines; a bare key is enough where it is unambiguous.

        Example:
            >>> Recipe().with_settings(["steps=5", "pairs.crop=64x64"]).pairs.crop
            (64, 64)
        """
        recipe = self
        for setting in settings:
            recipe = recipe._with_setting(setting)
        return recipe

    def _with_setting(self, setting: str) -> Recipe:
        name, found, text = setting.partition("=")
        if not found:
            raise UsageError(setting, "is not key=value", "write for example --set steps=500")
        section, _, key = name.strip().rpartition(".")
        if not section:
            section = self._section_of(key)
        if section == "config":
            return replace(self, config={**self.config, key: parse_value(text)})
        if section not in SECTIONS:
            raise UsageError(name, f"names no section ({', '.join(SECTIONS)})", "correct the name")
        part = getattr(self, section)
        known = {f.name for f in dataclasses.fields(part)}
        if key not in known:
            raise UsageError(
                name, f"is unknown; {section} has {', '.join(sorted(known))}", "pick one"
            )
        values = {**dataclasses.asdict(part), key: parse_value(text)}
        return replace(self, **{section: build(type(part), values, section)})

    def _section_of(self, key: str) -> str:
        places = [
            s
            for s in SECTIONS
            if s != "config" and key in {f.name for f in dataclasses.fields(getattr(self, s))}
        ]
        if len(places) > 1:
            raise UsageError(key, f"could be in {' or '.join(places)}", "write section.key=value")
        return places[0] if places else "config"


SECTIONS = ("task", "prepare", "pairs", "train", "config")


def find_recipe(name: str | Path) -> Path:
    """A recipe file, or the one of that name that ships with finemask.

    Those that ship are for a kind of image (``fundus_vessels``), or a paper's
    setting for a public data set: ``SET/METHOD``.

    Raises:
        UsageError: When there is neither; the message names those that ship.

    Example:
        >>> find_recipe("hippocampus").name
        'hippocampus.toml'
        >>> find_recipe("polyps/m2snet").name
        'm2snet.toml'
    """
    shipped = Path(__file__).parent / "recipes"
    for path in (Path(name), shipped / f"{name}.toml"):
        if path.is_file():
            return path
    raise UsageError(
        name,
        f"is no recipe file, nor one that ships ({', '.join(shipped_recipes())})",
        "correct the name",
    )


def shipped_recipes() -> list[str]:
    """Names of the recipes that ship, as ``--recipe`` takes them."""
    shipped = Path(__file__).parent / "recipes"
    files = shipped.rglob("*.toml")
    return sorted(path.relative_to(shipped).with_suffix("").as_posix() for path in files)
