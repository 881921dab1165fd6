"""Every recipe that ships parses, says where it was measured, and trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from public_trees import TREES

from finemask.annotation.cohort import soften
from finemask.datasets import make_phantoms
from finemask.datasets.public import PUBLIC, prepare_dataset
from finemask.errors import UsageError
from finemask.methods import METHODS
from finemask.recipe import Recipe, find_recipe, shipped_recipes
from finemask.strict import read_toml
from finemask.training.loop import train

ROOT = Path(__file__).parents[2]
QUICK = {"train.steps": 2, "train.epochs": 0, "train.validate_cases": 1, "config.width": 4}
"""Changed so that two steps take a moment; everything else must be as the file says."""
FLAT = {"pairs.crop": "32x32", "train.batch_size": 2}
DS2F = {
    **FLAT,
    "config.sr_width": 4,
    "config.encoder": "resnet18",
    "config.encoder_width": 4,
}
SMALLER = {
    "sasrnet": {"train.batch_size": 2, "config.sr_width": 4},
    "m2snet": {
        **FLAT,
        "config.encoder": "resnet18",
        "config.encoder_width": 4,
        "config.lossnet_width": 2,
        "config.lossnet_size": 32,
    },
    "sasrnet_pranet": {
        **FLAT,
        "config.encoder": "resnet18",
        "config.encoder_width": 4,
        "config.channel": 4,
        "config.sr_width": 4,
        "train.rescale": "1",
    },
    "dsnet": {**FLAT, "config.transfer": "none", "config.critic_width": 4, "config.depth": 3},
    "srgan": {
        **FLAT,
        "config.blocks": 1,
        "config.critic_width": 4,
        "config.critic_stages": 2,
        "config.content_width": 2,
    },
    "pfseg": {"config.depth": 3},
    "lidc_idri/sasrnet": {"pairs.crop": "8x24x24"},
    "promise12/dsnet": {"task.scale": "2"},  # its slices are of 16 x 12 pixels there
    "isic2018/sasrnet": {"pairs.crop": "32x32"},
    "ds2f": DS2F,
    "ds2f_deeplab": DS2F,
}
"""Changed further by method or recipe, where a step takes gigabytes."""
WITHOUT = {"sasrnet_pranet": ("config.width",)}
"""Of ``QUICK``, what a method does not have."""
FORMS = {
    "lidc_idri/dsnet": ("dsnet", "raters"),
    "deeplesion/dsnet": ("dsnet", "recist"),
    "isbi2012/dsnet": ("original", "mask"),
    "promise12/dsnet": ("dsnet", "mask"),
    "brats2020/pfseg": ("whole_tumour", ""),
}
"""Variant that a recipe needs, and what its Soft Masks are made from; else as the set comes."""
KINDS = {"hippocampus": "nodules", "left_atrium": "nodules"}
"""Phantoms for recipes of a kind of image; else ultrasound."""
RECIPES = shipped_recipes()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A small data set for a recipe: of its public set's own layout, or phantoms."""
    folder = tmp_path_factory.mktemp("recipes")

    def make(recipe: str) -> Path:
        name = recipe.partition("/")[0]
        if "/" not in recipe:
            kind = KINDS.get(recipe, "ultrasound")
            size = (16, 32, 32) if kind == "nodules" else (64, 64)
            return make_phantoms(folder / recipe, kind=kind, cases=5, size=size)
        variant, marks = FORMS.get(recipe, ("original", ""))
        raw, out = folder / f"raw_{name}", folder / f"{name}_{variant}"
        if not raw.exists():
            TREES[name](raw)
        if not out.exists():
            prepare_dataset(name, raw, out, variant=variant)
        if not marks:
            return out
        quick = {"raters": "mean", "mask": "dilation"}.get(marks, "matting")
        soften(out, folder / f"{name}_soft", marks, method=quick)
        return folder / f"{name}_soft"

    return make


@pytest.mark.parametrize("name", RECIPES)
def test_a_shipped_recipe_trains_two_steps(
    name: str, data: Callable[[str], Path], tmp_path: Path
) -> None:
    method = name.rpartition("/")[2]
    changed = {**QUICK, **SMALLER.get(method, {}), **SMALLER.get(name, {})}
    changed = {key: v for key, v in changed.items() if key not in WITHOUT.get(method, ())}
    run = train(
        data(name),
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


def test_every_papers_setting_ships_for_each_of_its_sets() -> None:
    settings = {
        "sasrnet": ("lidc_idri", "isic2018"),
        "sasrnet_pranet": ("polyps",),
        "dsnet": ("deeplesion", "lidc_idri", "isbi2012", "promise12"),
        "pfseg": ("brats2020", "liver_mr"),
        "m2snet": ("polyps", "polyp_videos", "covid19", "busi", "goals2022"),
        "ds2f": ("hrf", "prime_fp20", "fives", "idrid", "ddr", "cityscapes"),
        "ds2f_deeplab": ("idrid", "ddr"),
    }
    wanted = {f"{name}/{method}" for method, names in settings.items() for name in names}
    assert wanted <= set(RECIPES)
    for name in (name for name in RECIPES if "/" in name):
        folder, _, method = name.partition("/")
        assert folder in PUBLIC
        assert method.startswith(read_toml(find_recipe(name))["method"])


@pytest.mark.parametrize(
    ("name", "crop"),
    [
        ("hrf/ds2f", (1168, 1752)),
        ("prime_fp20/ds2f", (1296, 1408)),
        ("cityscapes/ds2f", (1024, 2048)),
    ],
)
def test_ds2f_sees_landscapes_as_landscapes(name: str, crop: tuple[int, int]) -> None:
    """Height first; the released setting has the width first and squeezes the images."""
    assert tuple(read_toml(find_recipe(name))["pairs"]["crop"]) == crop


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
