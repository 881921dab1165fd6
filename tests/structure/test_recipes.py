"""Every recipe that ships parses, says where it was measured, and trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from finemask.datasets import make_phantoms
from finemask.errors import UsageError
from finemask.methods import METHODS
from finemask.recipe import Recipe, find_recipe, shipped_recipes
from finemask.strict import read_toml
from finemask.training.loop import train

ROOT = Path(__file__).parents[2]
VOLUMES = ("hippocampus", "left_atrium", "lidc_idri/sasrnet")
QUICK = {"train.steps": 2, "train.epochs": 0, "train.validate_cases": 1, "config.width": 4}
"""Changed so that two steps take a moment; everything else must be as the file says."""
SMALLER = {
    "lidc_idri/sasrnet": {"pairs.crop": "24x24x24", "train.batch_size": 2, "config.sr_width": 4},
    "isic2018/sasrnet": {"pairs.crop": "64x64", "train.batch_size": 2},
    "polyps/m2snet": {
        "pairs.crop": "64x64",
        "train.batch_size": 2,
        "config.encoder": "resnet18",
        "config.encoder_width": 4,
        "config.lossnet_width": 2,
        "config.lossnet_size": 32,
    },
}
"""Changed further where a step takes gigabytes."""
RECIPES = shipped_recipes()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("recipes")
    return {
        2: make_phantoms(folder / "two", kind="ultrasound", cases=5, size=(64, 64)),
        3: make_phantoms(folder / "three", kind="nodules", cases=5, size=(16, 32, 32)),
    }


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_trains_two_steps(
    name: str, data: dict[int, Path], tmp_path: Path
) -> None:
    changed = {**QUICK, **SMALLER.get(name, {})}
    run = train(
        data[3 if name in VOLUMES else 2],
        tmp_path / "run",
        recipe=name,
        settings=[f"{key}={value}" for key, value in changed.items()],
    )
    assert run.meta["step"] in (1, 2)
    told = read_toml(find_recipe(name))
    resolved = run.recipe.to_dict()
    assert resolved["method"] == told.pop("method", "unet")
    for section, values in told.items():
        for key, value in values.items():
            if f"{section}.{key}" not in changed:
                kept = resolved[section][key]
                assert (list(kept) if isinstance(kept, tuple) else kept) == value


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_points_to_its_measurement(name: str) -> None:
    page = find_recipe(name).read_text().split("see ")[1].split(":")[0].split("\n")[0].rstrip(".")
    assert (ROOT / page).exists()


@pytest.mark.parametrize("name", METHODS)
def test_a_complete_recipe_of_every_method_reads_back(name: str) -> None:
    import tomllib

    from finemask.methods import create, default_recipe
    from finemask.recipe import Task

    for dims in METHODS[name].dims:
        recipe = default_recipe(name, Task(dims=dims, scale=(2,)))
        again = Recipe.from_dict(tomllib.loads(recipe.to_toml()))
        assert again == recipe
        create(again)


def test_an_unknown_recipe_names_those_that_ship() -> None:
    with pytest.raises(UsageError, match="hippocampus"):
        find_recipe("hipocampus")
