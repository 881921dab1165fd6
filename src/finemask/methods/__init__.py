"""The methods, by name: one file a paper and one line here."""

from __future__ import annotations

import dataclasses
from typing import Any

from finemask.errors import UsageError
from finemask.methods.base import Method, ParameterGroup, Segmenter
from finemask.methods.baselines3d import SAN, HDResUNet, ResUNet3D, ResUNet3DUp, UNet3D, VNet
from finemask.methods.ds2f import DS2F
from finemask.methods.dsnet import DSNet
from finemask.methods.dsrl import DSRL
from finemask.methods.dual_streams import SSMAF, CogSeg, SuperVessel
from finemask.methods.m2snet import M2SNet, MSNet
from finemask.methods.pfseg import PFSeg
from finemask.methods.pranet import PraNet
from finemask.methods.sasrnet import SASRNet
from finemask.methods.sasrnet_pranet import SASRPraNet
from finemask.methods.srgan import SRGAN
from finemask.methods.unet import UNet
from finemask.recipe import Recipe, Task
from finemask.strict import build

METHODS: dict[str, type[Method]] = {
    "unet": UNet,
    "dsrl": DSRL,
    "sasrnet": SASRNet,
    "pranet": PraNet,
    "sasrnet_pranet": SASRPraNet,
    "msnet": MSNet,
    "m2snet": M2SNet,
    "dsnet": DSNet,
    "srgan": SRGAN,
    "pfseg": PFSeg,
    "ds2f": DS2F,
    "cogseg": CogSeg,
    "supervessel": SuperVessel,
    "ssmaf": SSMAF,
    "vnet": VNet,
    "unet3d": UNet3D,
    "resunet3d": ResUNet3D,
    "resunet3d_up": ResUNet3DUp,
    "hdresunet": HDResUNet,
    "san": SAN,
}

__all__ = [
    "METHODS",
    "Method",
    "ParameterGroup",
    "Segmenter",
    "create",
    "default_recipe",
    "find_method",
]


def find_method(name: str, dims: int | None = None) -> type[Method]:
    """The method of a name.

    Raises:
        UsageError: When there is none, or none for images of ``dims`` dimensions.
    """
    if name not in METHODS:
        raise UsageError(
            "method", f"{name!r} is unknown; there are {', '.join(METHODS)}", "pick one"
        )
    method = METHODS[name]
    if dims is not None and dims not in method.dims:
        able = [other for other, kind in METHODS.items() if dims in kind.dims]
        has = " and ".join(f"{d}-D" for d in method.dims)
        raise UsageError(
            "method",
            f"{name} is defined for {has} images, these are {dims}-D",
            f"use one of {', '.join(able)}",
        )
    return method


def create(recipe: Recipe) -> Method:
    """Build the training network of a recipe, with fresh weights from torch's random state.

    Raises:
        UsageError: On an unknown method or option, or a dimension that the method lacks.
    """
    method = find_method(recipe.method, recipe.task.dims)
    return method(recipe.task, build(method.config_type, recipe.config, f"{recipe.method} config"))


def default_recipe(name: str, task: Task) -> Recipe:
    """The recipe of a method for a task, every option of the method filled in.

    Raises:
        UsageError: On an unknown method, or a dimension that it lacks.
    """
    method = find_method(name, task.dims)
    sections: dict[str, Any] = Recipe(
        method=name, task=task, config=dataclasses.asdict(method.config_type())
    ).to_dict()
    for changes in (method.RECIPE, method.RECIPE_3D if task.dims == 3 else {}):
        for section, values in changes.items():
            sections[section] = {**sections[section], **values}
    return Recipe.from_dict(sections, f"recipe of {name}")
