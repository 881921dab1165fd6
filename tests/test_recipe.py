"""Recipes: strict, complete, and the same after a round trip through a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from finemask.errors import UsageError
from finemask.recipe import Recipe, Task


def test_a_recipe_survives_its_file(tmp_path: Path) -> None:
    recipe = Recipe(config={"width": 8}).with_settings(
        ["scale=1x2", "learning_rate=2e-4", "pairs.crop=32x48", "window_hu=-1000,400", "seed=3"]
    )
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert Recipe.load(tmp_path / "recipe.toml") == recipe
    assert recipe.task.scale == (1, 2)
    assert recipe.prepare.window_hu == (-1000.0, 400.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trian": {}}, "unknown key trian"),
        ({"train": {"step": 5}}, "unknown key step"),
        ({"train": {"steps": "many"}}, "steps: is 'many', needs int"),
        ({"train": {"steps": 2.5}}, "needs int"),
        ({"train": {"steps": True}}, "needs int"),
        ({"train": {"schedule": "exp"}}, "poly or cosine"),
        ({"train": {"tensorboard": "yes"}}, "needs bool"),
        ({"train": {"betas": [0.9]}}, "betas"),
        ({"train": 5}, "train"),
        ({"task": {"dims": 4}}, "must be 2 or 3"),
        ({"task": {"scale": [2, 2, 2]}}, "task.scale"),
        ({"task": {"scale": [0]}}, "task.scale"),
        ({"config": 3}, "config"),
    ],
)
def test_what_does_not_fit_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe.from_dict(values)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("steps", "not key=value"),
        ("train.speed=1", "train has"),
        ("trian.steps=1", "names no section"),
        ("steps=abc", "needs int"),
    ],
)
def test_bad_settings_teach(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Recipe().with_settings([setting])


def test_a_bare_key_finds_its_section_and_the_rest_belongs_to_the_method() -> None:
    recipe = Recipe().with_settings(["steps=5", "degrade=blur", "width=12", "head=shuffle"])
    assert (recipe.train.steps, recipe.pairs.degrade) == (5, "blur")
    assert recipe.config == {"width": 12, "head": "shuffle"}


def test_unreadable_files_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Recipe.load(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(UsageError, match="is not TOML"):
        Recipe.load(tmp_path / "bad.toml")


def test_one_scale_serves_every_axis_and_binary_has_one_foreground_class() -> None:
    assert Task(dims=3, scale=(2,)).scale == (2, 2, 2)
    assert Task(classes=1).foreground == Task(classes=2).foreground == 1
    assert Task(classes=3).names == ("class_1", "class_2")
