"""Choosing a method: names, options and dimensions that do not fit are refused in one line."""

from __future__ import annotations

import dataclasses

import pytest

import finemask.methods
from finemask.errors import UsageError
from finemask.methods import METHODS, create, default_recipe, find_method
from finemask.methods.unet import Config, UNet
from finemask.recipe import Recipe, Task


class FlatUNet(UNet):
    """For pictures only."""

    dims = (2,)


def test_an_unknown_method_is_answered_with_the_names() -> None:
    with pytest.raises(UsageError, match="'nonet' is unknown; there are unet, dsrl"):
        default_recipe("nonet", Task())


def test_a_missing_dimension_is_answered_with_methods_that_have_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(finemask.methods.METHODS, "flat", FlatUNet)
    task = Task(3, scale=(2,))
    with pytest.raises(UsageError, match="flat is defined for 2-D images, these are 3-D; use one"):
        create(Recipe("flat", task))
    assert find_method("flat", 2) is FlatUNet


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"widht": 8}, "unknown key widht"),
        ({"width": "wide"}, "unet config: width: is 'wide', needs int"),
        ({"norm": "layer"}, "needs instance or batch"),
    ],
)
def test_options_are_checked(config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(Recipe("unet", config=config))


@pytest.mark.parametrize("config", [{"width": 0}, {"depth": 1}, {"dropout": 1.0}])
@pytest.mark.parametrize("name", ["unet", "dsrl"])
def test_impossible_networks_are_refused(name: str, config: dict[str, float]) -> None:
    (option,) = config
    with pytest.raises(UsageError, match=option):
        create(Recipe(name, config=config))


@pytest.mark.parametrize("name", METHODS)
def test_the_default_recipe_is_complete_and_rebuilds_itself(name: str) -> None:
    for dims in METHODS[name].dims:
        recipe = default_recipe(name, Task(dims, scale=(2,)))
        fields = {f.name for f in dataclasses.fields(METHODS[name].config_type)}
        assert set(recipe.config) == fields
        assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_volumes_get_a_narrower_network() -> None:
    flat = default_recipe("unet", Task(2))
    deep = default_recipe("unet", Task(3, scale=(2,)))
    assert flat.config == dataclasses.asdict(Config())
    assert deep.config["width"] < flat.config["width"]
    assert deep.train.batch_size < flat.train.batch_size
