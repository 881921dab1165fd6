"""Make phantoms: one case in memory, or a data set on disk."""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from finemask.case import Case
from finemask.datasets.phantoms.layers import LAYERS, layers
from finemask.datasets.phantoms.nodules import nodules
from finemask.datasets.phantoms.readers import READERS, Recist, measure_recist, read_outlines
from finemask.datasets.phantoms.scene import Scene
from finemask.datasets.phantoms.skin import skin
from finemask.datasets.phantoms.ultrasound import ultrasound
from finemask.datasets.phantoms.vessels import vessels
from finemask.errors import DataError, UsageError

README = """Generated pictures, no patient
==============================

Every image of this folder was computed by `finemask` ({kind} phantoms, seed {seed}).
Nothing here was measured on a person; do not report results on it as clinical.

images/            the pictures: {image}
masks/             the known truth: pixels at least half inside the {target}
masks_reader1 ...  simulated readers: the true outline displaced smoothly, at times missed
                   (none for layers)
recist.csv         RECIST marks measured on the truth (lesions only). End points in pixels of
                   the key slice, x along columns, y along rows, (0, 0) = centre of the first
                   pixel; slice counts from 0 along the first array axis (empty in 2-D);
                   diameters and spacing in `unit`.
"""


@dataclass(frozen=True)
class Recipe:
    """What a kind of phantom is made of.

    Args:
        scene: Makes the picture from randomness, shape and size quantile.
        shape: Default shape.
        smallest: Least size along any axis.
        targets: Names of the foreground classes.
        dtype: Type of the stored intensities.
        image: What the intensities are, in words.
    """

    scene: Callable[..., Scene]
    shape: tuple[int, ...]
    smallest: int
    targets: tuple[str, ...]
    dtype: type[np.integer[Any]]
    image: str


RECIPES: dict[str, Recipe] = {
    "skin": Recipe(skin, (256, 256), 48, ("lesion",), np.uint8, "dermoscopy, 8-bit RGB PNG"),
    "ultrasound": Recipe(
        ultrasound, (256, 256), 48, ("lesion",), np.uint8, "breast ultrasound, 8-bit grey PNG"
    ),
    "vessels": Recipe(vessels, (256, 256), 48, ("vessel",), np.uint8, "fundus, 8-bit RGB PNG"),
    "layers": Recipe(
        layers, (256, 256), 48, LAYERS, np.uint8, "OCT around the optic disc, 8-bit grey PNG"
    ),
    "nodules": Recipe(
        nodules, (64, 96, 96), 16, ("nodule",), np.int16, "chest CT in Hounsfield units, NIfTI"
    ),
}
ALIASES = {"lesions": "ultrasound"}


@dataclass(frozen=True, eq=False)
class Phantom:
    """A generated case with marks that do not fit on its grid.

    Args:
        case: Image, truth, coverage as ``soft``, and readers' masks but for layers.
        recist: RECIST marks, one a lesion; none for vessels and layers.
    """

    case: Case
    recist: tuple[Recist, ...]


def make_phantom(
    kind: str, number: int, seed: int = 0, size: int | Sequence[int] | None = None
) -> Phantom:
    """Compute one phantom; the same arguments give the same phantom.

    It depends on ``seed`` and ``number`` only, not on how many others are made.
    Lesion sizes are spread evenly in the logarithm over two decades of area or
    volume, already in a small set.

    Args:
        kind: ``"skin"``, ``"ultrasound"`` (also called ``"lesions"``), ``"vessels"``,
            ``"layers"`` (three classes) or ``"nodules"``.
        number: Number of the case, from 0.
        seed: Seed of the data set.
        size: Pixels along each axis, or one number for all of them.

    Raises:
        UsageError: On an unknown kind, a negative number or an impossible size.

    Example:
        >>> make_phantom("ultrasound", number=3, size=64).case.image.shape
        (1, 64, 64)
    """
    name, recipe = _recipe(kind)
    shape = _shape(recipe, size)
    if number < 0 or seed < 0:
        raise UsageError("phantoms", f"number {number} and seed {seed}", "give none below 0")
    rng = np.random.default_rng([seed, number])
    # A golden-ratio sequence covers the sizes evenly from the first few cases on.
    quantile = (np.random.default_rng(seed).random() + number * 0.6180339887498949) % 1
    scene = recipe.scene(rng, shape, quantile)
    case_name = f"phantom_{name}_{number:03d}"
    case = Case(
        name=case_name,
        image=scene.image,
        geometry=scene.geometry,
        truth=scene.truth,
        soft=scene.soft,
        readers=None if scene.classes is not None else read_outlines(scene, rng),
    )
    return Phantom(case, measure_recist(scene, case_name))


def make_phantoms(
    out: str | os.PathLike[str],
    kind: str = "lesions",
    cases: int = 24,
    seed: int = 0,
    size: int | Sequence[int] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a data set of phantoms: images, truth, readers' masks and RECIST marks.

    The folder appears complete or not at all. Only a folder that an earlier call
    made is ever replaced.

    Args:
        out: Folder to make.
        kind: As in :func:`make_phantom`.
        cases: How many.
        seed: Seed of the data set.
        size: Pixels along each axis, or one number for all of them.
        overwrite: Replace phantoms that are there already.

    Returns:
        The folder.

    Raises:
        UsageError: On an unknown kind, no cases or an impossible size.
        DataError: When ``out`` exists and may not be replaced.
    """
    name, recipe = _recipe(kind)
    _shape(recipe, size)
    if cases < 1:
        raise UsageError("phantoms", f"{cases} cases were asked for", "ask for at least 1")
    target = Path(out)
    _refuse_existing(target, overwrite)
    partial = target.with_name(f".{secrets.token_hex(4)}-{target.name}")
    try:
        marks = [
            mark
            for number in range(cases)
            for mark in _write_case(partial, make_phantom(kind, number, seed, size), recipe)
        ]
        _write_about(partial, name, seed, marks, recipe)
        if target.exists():
            shutil.rmtree(target)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _recipe(kind: str) -> tuple[str, Recipe]:
    name = ALIASES.get(kind, kind)
    if name not in RECIPES:
        known = ", ".join([*RECIPES, *ALIASES])
        raise UsageError("phantoms", f"unknown kind {kind!r}", f"choose one of {known}")
    return name, RECIPES[name]


def _shape(recipe: Recipe, size: int | Sequence[int] | None) -> tuple[int, ...]:
    if size is None:
        return recipe.shape
    n = len(recipe.shape)
    shape = (size,) * n if isinstance(size, int) else tuple(int(s) for s in size)
    if len(shape) != n or min(shape) < recipe.smallest:
        raise UsageError(
            "phantoms",
            f"size {size} (found), {n} numbers of at least {recipe.smallest} are needed",
            "give one number or one an axis",
        )
    return shape


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not overwrite:
        raise DataError(target, "exists already", "choose another place or pass --overwrite")
    about = target / "dataset.json"
    try:
        ours = json.loads(about.read_text(encoding="utf-8")).get("generator") == "finemask phantoms"
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise DataError(
            target, "exists and holds no phantoms, so it is not replaced", "choose another place"
        )


def _write_case(out: Path, phantom: Phantom, recipe: Recipe) -> tuple[Recist, ...]:
    from finemask.io import write_image, write_labels

    case = phantom.case
    ending = ".png" if case.geometry.ndim == 2 else ".nii.gz"
    file = f"{case.name}{ending}"
    assert case.truth is not None
    write_image(out / "images" / file, case.image.astype(recipe.dtype), case.geometry)
    masks = [("masks", case.truth)]
    if case.readers is not None:
        masks += [(f"masks_reader{r}", mask) for r, mask in enumerate(case.readers, start=1)]
    for folder, mask in masks:
        write_labels(out / folder / file, mask, case.geometry, labels=_numbers(recipe))
    return phantom.recist


def _numbers(recipe: Recipe) -> dict[str, int]:
    return {name: number for number, name in enumerate(recipe.targets, start=1)}


def _write_about(out: Path, name: str, seed: int, marks: list[Recist], recipe: Recipe) -> None:
    from finemask.io import write_json, write_text

    about = {
        "name": f"{name} phantoms",
        "description": "Computed by finemask; no patient.",
        "generator": "finemask phantoms",
        "kind": name,
        "seed": seed,
        "labels": {"background": 0, **_numbers(recipe)},
        "readers": 0 if len(recipe.targets) > 1 else len(READERS),
    }
    write_json(out / "dataset.json", about)
    text = README.format(
        kind=name, seed=seed, image=recipe.image, target=" or ".join(recipe.targets)
    )
    write_text(out / "README.txt", text)
    if marks:
        table = io.StringIO()
        rows = csv.DictWriter(table, [f.name for f in fields(Recist)], lineterminator="\n")
        rows.writeheader()
        rows.writerows(asdict(mark) for mark in marks)
        write_text(out / "recist.csv", table.getvalue())
