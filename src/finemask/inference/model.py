"""What prediction needs to know of a model, whichever library runs it.

A `Model` says how images are prepared and what its answer means; a `Network` is
one way through its weights, ready to run. Geometry, tiles, memory and files see
nothing else, so a run folder in torch and an exported folder without it are
predicted by the same lines.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from finemask.errors import UsageError
from finemask.inference.resources import available_bytes
from finemask.pairs.guidance import Guide, cut_guidance
from finemask.recipe import Recipe

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "auto")
"""Lightning Fabric's names of what a network predicts in; ``auto`` is for `Model.choose`."""
BACKENDS = ("auto", "torch", "compile", "onnx", "openvino")
"""What runs a network; ``compile`` is torch, with the network compiled first."""


@dataclass(frozen=True)
class Machine:
    """Where and how a network runs.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``, ...
        precision: ``32-true``, ``bf16-mixed`` or ``16-mixed``; ``auto`` for `Model.choose`.
        max_memory_bytes: Bound on what a prediction adds; by default most of what is free.
        backend: One of ``BACKENDS``; ``auto`` for `Model.choose`.
    """

    device: str = "cpu"
    precision: str = "32-true"
    max_memory_bytes: int | None = None
    backend: str = "auto"

    def __post_init__(self) -> None:
        for option, value, known in (
            ("--precision", self.precision, PRECISIONS),
            ("--backend", self.backend, BACKENDS),
        ):
            if value not in known:
                raise UsageError(option, f"is {value!r}", f"choose one of {', '.join(known)}")
        if self.max_memory_bytes is not None and self.max_memory_bytes < 1:
            raise UsageError("max memory", f"is {self.max_memory_bytes}", "give a positive size")


class Network(ABC):
    """One way through a network: a tile of the LR image in, maps on its HR grid out.

    Args:
        scale: HR voxels for each LR voxel along each axis.
        maps: How many it gives.
        stride: LR sides of a tile are multiples of it.
        window: A smaller image is shown in the middle of a window of these LR sides.
        patches: A larger image is shown in windows of these sides only.
    """

    def __init__(
        self,
        scale: tuple[int, ...],
        maps: int,
        stride: int = 1,
        window: tuple[int, ...] = (),
        patches: bool = False,
    ) -> None:
        self.scale, self.maps, self.stride = scale, maps, stride
        self.window, self.patches = window, patches

    @abstractmethod
    def forward(
        self, tile: Float[ndarray, " c *t"], guidance: Float[ndarray, " g *p"] | None = None
    ) -> Float[ndarray, " f *hr"]:
        """Float32 maps of one tile."""

    @abstractmethod
    def activation_bytes(self, *shapes: Sequence[int]) -> tuple[int, int]:
        """Peak of what a forward pass holds beside the weights.

        Args:
            shapes: Of the inputs, with batch and channels.

        Returns:
            Bytes, and the number of elements of the largest tensor.
        """

    def available_bytes(self) -> int:
        """Memory that is still free where the network runs."""
        return available_bytes()


class Model(ABC):
    """A trained network, and all that decides what becomes of an image.

    Args:
        path: The folder it was read from.
        recipe: Task and preparation; of the rest, what ``matched`` prediction repeats.
        threshold: Probability from which a voxel is foreground.
        meta: ``lr_spacing_mm``: least and largest LR spacing in training, or empty.
    """

    path: Path
    recipe: Recipe
    threshold: float
    meta: Mapping[str, Any]

    @property
    def explanations(self) -> tuple[str, ...]:
        """Names of the maps of what an answer was made from, where there are any."""
        return ()

    @property
    def makes_masks(self) -> bool:
        """Whether it answers with masks; else the super-resolved image is its only answer."""
        return True

    @property
    def makes_image(self) -> bool:
        """Whether it can hand out a super-resolved image."""
        return False

    @property
    def guide(self) -> Guide | None:
        """What chooses the part of the HR image that it is shown beside the LR image."""
        return None

    @property
    def window_lr(self) -> tuple[int, ...]:
        """LR sides of the windows that it learned from."""
        return ()

    @property
    def reads_hr(self) -> bool:
        """Whether it reads the image on the HR grid in place of the LR image."""
        return False

    def guidance(self, image_hr: Float[ndarray, " c *s"]) -> Float[ndarray, " g *p"] | None:
        """What its guide cuts from the prepared image on the HR grid."""
        return cut_guidance(self.guide, image_hr, self.window_lr, self.recipe.task.scale)

    @abstractmethod
    def find_device(self, name: str) -> str:
        """The device of a name, ``auto`` included.

        Raises:
            UsageError: When it is not here.
        """

    @abstractmethod
    def choose(self, machine: Machine) -> Machine:
        """The same machine with a backend and a precision in place of ``auto``, by measurement.

        Raises:
            UsageError: When what was asked for does not run this model.
        """

    @abstractmethod
    def network(self, machine: Machine) -> Network:
        """Foreground probabilities."""

    def image_network(self, machine: Machine) -> Network:
        """The super-resolved image, of models that make one."""
        raise NotImplementedError

    def explaining_network(self, machine: Machine) -> Network:
        """The explanations, in their order, of models that have some."""
        raise NotImplementedError

    @abstractmethod
    def sha256(self, whole: bool = False) -> str:
        """Checksum of the weights that predict; ``whole``: and of those that only train."""
