"""What is said about a network that a paper's authors released."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Released:
    """A released network, told in the terms of the method here.

    Args:
        source: Where the authors have it.
        sections: Task, preparation and graph, as changes by section to the method's recipe.
        modules: Our module for every released one that plays a part. What the two hold
            has the same names.
        unused: Prefixes of released weights that play no part.
        window_lr: LR sides of the windows that it learned from.
        adapt: Changes released weights that are kept in another form here.
        method: Of the package, where it is known by another name than this network.
    """

    source: str
    sections: Mapping[str, Mapping[str, Any]]
    modules: Mapping[str, str]
    unused: tuple[str, ...]
    window_lr: tuple[int, ...]
    adapt: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]] = dict
    method: str = ""
