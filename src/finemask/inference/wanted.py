"""What ``predict`` is asked to write: the options of a call, and the files of each case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finemask.errors import UsageError
from finemask.inference.inputs import Source
from finemask.inference.model import Model
from finemask.inference.view import Grid, Mode
from finemask.io.outputs import class_in_file_name

FORMATS = {
    2: {"png": ".png", "tif": ".tif", "tiff": ".tif", "dicom-seg": ".dcm"},
    3: {
        "nifti": ".nii.gz", "nii.gz": ".nii.gz", "nii": ".nii", "mha": ".mha", "nrrd": ".nrrd",
        "dicom-seg": ".dcm",
    },
}  # fmt: skip
"""Names of the output formats by dimension, the usual one first."""

DICOM_SEG = ".dcm"
"""Holds every class in one file, masks and probabilities, but no image."""

WHOLE_NUMBERS = (".png", ".jpg", ".jpeg", ".bmp")
"""Pictures of these kinds hold no fractions, so a PNG can show what is made from them."""


@dataclass(frozen=True)
class Wanted:
    """What is written for each case.

    Args:
        suffix: Of masks and probabilities; decides the format.
        grid: ``hr`` or ``source``.
        mode: ``native`` or ``matched``.
        threshold: Probability from which a voxel is foreground.
        classes: Names of the foreground classes.
        probs: Write probabilities too.
        sr: Write the super-resolved image too.
        explanations: Names of the maps of what the mask was made from that are written too.
        masks: Write masks; not where the model makes none, and the image is all that is written.
    """

    suffix: str
    grid: Grid
    mode: Mode
    threshold: float
    classes: tuple[str, ...]
    probs: bool = False
    sr: bool = False
    explanations: tuple[str, ...] = ()
    masks: bool = True

    def mask(self, out: Path, name: str) -> Path:
        return out / f"{name}{self.suffix}"

    def probs_files(self, out: Path, name: str) -> list[Path]:
        """One file, or one a class where there are several."""
        if not self.probs:
            return []
        single = len(self.classes) == 1 or self.suffix == DICOM_SEG
        ends = [""] if single else [f"_{class_in_file_name(label)}" for label in self.classes]
        return [out / f"{name}_probs{end}{self.suffix}" for end in ends]

    def sr_file(self, out: Path, source: Source) -> Path:
        picture = source.path.suffix.lower() in WHOLE_NUMBERS
        suffix = ".tif" if self.suffix == ".png" and not picture else self.suffix
        return out / f"{source.name}_sr{suffix}"

    def explanation_files(self, out: Path, name: str) -> list[Path]:
        """One file a map, then the figure of the case."""
        if not self.explanations:
            return []
        maps = [out / f"{name}_{each}{self.suffix}" for each in self.explanations]
        return [*maps, out / f"{name}_explained.png"]

    def files(self, out: Path, source: Source) -> list[Path]:
        """Everything that is written for a case, the mask last; nothing for one without a name."""
        if not source.sound:
            return []
        others = self.probs_files(out, source.name)
        others += self.explanation_files(out, source.name)
        if self.sr:
            others.append(self.sr_file(out, source))
        return [*others, self.mask(out, source.name)] if self.masks else others


def check_options(
    run: Model,
    grid: Grid,
    mode: Mode,
    probs: bool,
    sr: bool,
    explain: bool,
    format: str | None,
    threshold: float | None,
) -> Wanted:
    """The options of a call, checked against each other and the run.

    Raises:
        UsageError: When they make no sense together.
    """
    for option, value, choices in (
        ("--grid", grid, ("hr", "source")),
        ("--mode", mode, ("native", "matched")),
    ):
        if value not in choices:
            raise UsageError(option, f"is {value!r}", f"choose {' or '.join(choices)}")
    if sr and not run.makes_image:
        raise UsageError(
            "--sr",
            f"asks for a super-resolved image, which the method {run.recipe.method} does not make",
            "leave it out, or take a run of a method that does (see finemask methods)",
        )
    masks = run.makes_masks
    if probs and not masks:
        raise UsageError(
            "--probs", f"asks for probabilities, {run.recipe.method} makes images", "leave it out"
        )
    sr = sr or not masks
    explanations = run.explanations if explain else ()
    if explain and not explanations:
        raise UsageError(
            "--explain",
            f"asks for maps that the method {run.recipe.method}, as it was trained, does not make",
            "leave it out, or take a run of sasrnet with its sdc blocks",
        )
    suffix = _suffix(run.recipe.task.dims, format)
    if suffix == DICOM_SEG and (sr or explain):
        raise UsageError(
            "--sr" if sr else "--explain",
            "asks for images, which --format dicom-seg does not hold",
            "leave it out, or choose another format",
        )
    threshold = run.threshold if threshold is None else threshold
    if not 0 < threshold <= 1:
        raise UsageError("--threshold", f"is {threshold}", "give a probability above 0, up to 1")
    names = run.recipe.task.names
    return Wanted(suffix, grid, mode, threshold, names, probs, sr, explanations, masks)


def _suffix(dims: int, format: str | None) -> str:
    known = FORMATS[dims]
    name = next(iter(known)) if format is None else format.lower().lstrip(".")
    if name in known:
        return known[name]
    what = f"is {format!r}, which is not written for {dims}-D masks"
    raise UsageError("--format", what, f"choose one of {', '.join(known)}")
