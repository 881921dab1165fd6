"""Networks that the papers' authors trained and released, brought into the methods here.

One file a paper says which options of the method make the released graph and how its
names map to ours. Nothing is downloaded: the user has the file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from finemask.errors import DataError, UsageError
from finemask.methods import create, default_recipe
from finemask.methods.base import Method
from finemask.methods.released.base import Released
from finemask.methods.released.ds2f import DS2F
from finemask.methods.released.m2snet import M2SNET, MSNET
from finemask.methods.released.pfseg import PFSEG, PFSEG_2021
from finemask.methods.released.pranet import PRANET
from finemask.methods.released.sasrnet import SASRNET
from finemask.nn.weights import read_weights
from finemask.recipe import Recipe, Task

RELEASED: dict[str, Released] = {
    "sasrnet": SASRNET,
    "pranet": PRANET,
    "msnet": MSNET,
    "m2snet": M2SNET,
    "pfseg": PFSEG,
    "pfseg_2021": PFSEG_2021,
    "ds2f": DS2F,
}

__all__ = ["RELEASED", "Released", "find_released", "load_released", "released_recipe"]

COUNTER = "num_batches_tracked"
"""Counts training steps; older files lack it, and nothing here reads it."""


def find_released(name: str) -> Released:
    """What is known of a method's released network.

    Raises:
        UsageError: When there is none.
    """
    if name not in RELEASED:
        raise UsageError(
            "method",
            f"{name!r} has no released network that is known here; there are {', '.join(RELEASED)}",
            "pick one, or train it",
        )
    return RELEASED[name]


def released_recipe(name: str) -> Recipe:
    """The recipe whose network is the released one."""
    released = find_released(name)
    sections = released.sections
    recipe = default_recipe(released.method or name, Task(**sections["task"]))
    values = recipe.to_dict()
    for section, changes in sections.items():
        values[section] = {**values[section], **changes}
    return Recipe.from_dict(values, f"released recipe of {name}")


def load_released(name: str, path: Path) -> Method:
    """The training network of a method with the weights that its authors released.

    Every weight must be met on both sides, but for those that play no part.

    Args:
        name: Of the method.
        path: ``.pth`` or ``.safetensors``, see ``nn.weights.read_weights``.

    Raises:
        DataError: When the file cannot be read, or names or shapes do not fit.
        UsageError: When the method has no released network.
    """
    released = find_released(name)
    given = released.adapt(read_weights(path))
    with torch.random.fork_rng():  # building a network must not disturb the caller's seed
        method = create(released_recipe(name))
    own, found, wrong = method.state_dict(), dict[str, Tensor](), []
    for theirs, value in given.items():
        if theirs.startswith(released.unused):
            continue
        module, _, tensor = theirs.rpartition(".")
        ours = f"{released.modules.get(module, '')}.{tensor}"
        if ours not in own:
            wrong.append(f"{theirs} unexpected")
        elif value.shape != own[ours].shape:
            wrong.append(f"{theirs} is {tuple(value.shape)}, needs {tuple(own[ours].shape)}")
        else:
            found[ours] = value
    missing = [key for key in own if key not in found and not key.endswith(COUNTER)]
    wrong += [f"{key} has no weight" for key in missing]
    if wrong:
        raise DataError(
            path,
            f"is not the released {name} ({'; '.join(wrong[:3])}; {len(wrong)} in all)",
            f"give the file of {released.source}",
        )
    method.load_state_dict(own | found)
    return method
