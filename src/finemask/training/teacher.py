"""A super-resolution run as the teacher of another: what it decides, and how its weights go over.

The weights are copied when a run is fresh and saved in it from then on, so that
neither resuming nor predicting needs the teacher's folder again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finemask.datasets import Dataset, Split
from finemask.errors import DataError, UsageError
from finemask.io.files import sha256
from finemask.io.notices import warn
from finemask.methods import Method
from finemask.recipe import Recipe
from finemask.runs import load_run

SCALING = ("window_hu", "window_to_unit", "normalise")
"""Settings that make the intensities which a network was trained on."""


@dataclass(frozen=True)
class Teacher:
    """A run that restores images, as the recipe of its pupil sees it.

    Args:
        path: Its folder, from the root.
        recipe: Its own.
        options: Names of its options in the pupil, see ``Method.teacher_options``.
    """

    path: Path
    recipe: Recipe
    options: Mapping[str, str]

    def applied_to(self, sections: Mapping[str, Any]) -> dict[str, Any]:
        """A pupil's default recipe with what the teacher decides: network and intensities."""
        theirs = self.recipe.to_dict()
        scaling = {key: theirs["prepare"][key] for key in SCALING}
        network = {mine: theirs["config"][their] for their, mine in self.options.items()}
        return {
            **sections,
            "prepare": {**sections["prepare"], **scaling},
            "config": {**sections["config"], **network},
        }

    def check(self, recipe: Recipe) -> None:
        """Refuse a pupil that would show the teacher other images than those it learned from.

        Raises:
            UsageError: Naming the first setting that differs.
        """
        ours, theirs = recipe.to_dict(), self.recipe.to_dict()
        same = [("task", key, key) for key in ("scale", "channels")]
        same += [("prepare", key, key) for key in SCALING]
        same += [("config", mine, their) for their, mine in self.options.items()]
        for section, mine, their in same:
            if ours[section][mine] != theirs[section][their]:
                raise UsageError(
                    f"{section}.{mine}",
                    f"is {ours[section][mine]}, the teacher {self.path} was trained with "
                    f"{theirs[section][their]}",
                    "leave it out, or train another teacher",
                )


def read_teacher(method: type[Method], name: str, path: Path) -> Teacher:
    """The teacher in a run folder.

    Raises:
        UsageError: When the method takes none.
        DataError: When the folder is no run of a method that restores images.
    """
    if not method.teacher_options:
        raise UsageError("--teacher", f"is given, but {name} learns from none", "leave it out")
    if not (path / "recipe.toml").is_file():
        raise DataError(path, "is no run folder (no recipe.toml)", "give what train wrote")
    recipe = Recipe.load(path / "recipe.toml")
    if not set(method.teacher_options) <= set(recipe.config) or recipe.method != "srgan":
        raise DataError(
            path,
            f"is a run of {recipe.method}, a teacher is one of srgan",
            "train one: finemask train IMAGES --method srgan --scale 4 --out TEACHER",
        )
    return Teacher(path.absolute(), recipe, method.teacher_options)


def check_teacher(method: Method, recipe: Recipe) -> None:
    """Make sure that a method which learns from a teacher is given one.

    Raises:
        UsageError: Saying how to make one, and how to do without.
    """
    if method.teacher is not None and not recipe.train.teacher:
        raise UsageError(
            "train.teacher",
            f"names none; {recipe.method} sees images through a network that restores them",
            "train one (finemask train IMAGES --method srgan --scale 4 --out TEACHER) and give it "
            "as --teacher, or do without (--set transfer=none)",
        )


def fill_teacher(method: Method, recipe: Recipe) -> dict[str, str]:
    """Copy the weights of the teacher that the recipe names into the method that wants one.

    Returns:
        The teacher and the checksum of its weights, for the run's record.

    Raises:
        UsageError: When the method needs a teacher and none is named.
        DataError: When the run is damaged.
    """
    check_teacher(method, recipe)
    if method.teacher is None:
        return {}
    run = load_run(recipe.train.teacher)
    method.teacher.load_state_dict(run.segmenter.network.state_dict())
    weights = sha256(run.path / "checkpoints" / "best" / "model.safetensors")
    return {"teacher": f"{run.path} (sha256 {weights})"}


def patients_of(dataset: Dataset, names: Iterable[str]) -> list[str]:
    """The patients of some cases, as hashes: to be compared, not to be read."""
    groups = {dataset.entry(name).group for name in names}
    return sorted(hashlib.sha256(group.encode()).hexdigest()[:16] for group in groups)


def warn_of_leak(recipe: Recipe, dataset: Dataset, parts: Split) -> None:
    """Tell of patients who test a run and taught its teacher, by the names that both sets use."""
    if not recipe.train.teacher:
        return
    taught = load_run(recipe.train.teacher).meta.get("patients", ())
    if both := set(taught) & set(patients_of(dataset, parts.test)):
        warn(
            recipe.train.teacher,
            f"learned from {len(both)} patients (or cases) named as some who test this run, whose "
            "scores will flatter; train the teacher without them (--split)",
        )
