"""Networks in torch, for prediction: the only part of it that knows of devices and autocast."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor, nn

from finemask.errors import UsageError
from finemask.inference.activations import activation_bytes
from finemask.inference.memory import SMALL
from finemask.inference.model import Machine, Network
from finemask.methods.base import Method, Segmenter
from finemask.nn.superres import enlarge_by

_AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class TorchNetwork(Network):
    """A network in torch, on any device.

    Args:
        module: Maps tensors ``(1, C, *T)``, and guidance, to ``(1, maps, *T * scale)``. Moved to
            the machine's device; in evaluation mode for the time of each pass.
        machine: Where it runs, and how precisely.
        scale: HR voxels for each LR voxel along each axis.
        maps: How many it gives.
        stride: LR sides of a tile are multiples of it.
        window: LR sides of the smallest image that it is shown.
        patches: And of the only one.
        run: What is called in place of ``module``, for a compiled one.
    """

    def __init__(
        self,
        module: nn.Module,
        machine: Machine,
        scale: tuple[int, ...],
        maps: int,
        stride: int = 1,
        window: tuple[int, ...] = (),
        patches: bool = False,
        run: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(scale, maps, stride, window, patches)
        self.module, self.machine = module.to(machine.device), machine
        self.run = run or module

    def forward(
        self, tile: Float[ndarray, " c *t"], guidance: Float[ndarray, " g *p"] | None = None
    ) -> Float[ndarray, " f *hr"]:
        arrays = [tile] if guidance is None else [tile, guidance]
        # A cached case is read-only.
        writable = [np.require(array, np.float32, ["C", "W"]) for array in arrays]
        batch = [torch.from_numpy(array)[None].to(self.machine.device) for array in writable]
        with _evaluating(self.module), torch.inference_mode(), autocast(self.machine):
            out = self.run(*batch)
        values: Float[ndarray, " f *hr"] = out[0].float().cpu().numpy()
        return values

    def activation_bytes(self, *shapes: Sequence[int]) -> tuple[int, int]:
        try:
            return activation_bytes(self.module, *shapes)
        except (RuntimeError, NotImplementedError):  # it looks at values, which meta has not
            return SMALL * math.prod(shapes[0][2:]) * math.prod(self.scale), 0

    def available_bytes(self) -> int:
        device = torch.device(self.machine.device)
        if device.type != "cuda":
            return super().available_bytes()
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + unused)


def autocast(machine: Machine) -> torch.autocast:
    """Reduced precision where it was asked for."""
    dtype = _AUTOCAST.get(machine.precision)
    kind = torch.device(machine.device).type
    return torch.autocast(kind, dtype or torch.bfloat16, enabled=dtype is not None)


def find_device(name: str) -> str:
    """The device of a name; ``auto`` is a GPU where there is one.

    Raises:
        UsageError: When it is not here.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError("--device", f"is {name!r}, which is not here", "choose cpu") from error
    return name


def segmenting(segmenter: Segmenter, machine: Machine) -> TorchNetwork:
    """The foreground probabilities of an inference network.

    Example:
        >>> from finemask.inference.network import run_whole
        >>> from finemask.recipe import Task
        >>> network = segmenting(Segmenter(nn.Upsample(scale_factor=2), Task()), Machine())
        >>> run_whole(network, np.zeros((1, 3, 5), np.float32)).shape
        (1, 6, 10)
    """
    task, module = segmenter.task, _Entry(segmenter, "probs")
    run = _compiled(segmenter) if machine.backend == "compile" else None
    return TorchNetwork(
        module,
        machine,
        task.scale,
        task.foreground,
        segmenter.stride,
        segmenter.window,
        segmenter.patches,
        run,
    )


def explaining(segmenter: Segmenter, machine: Machine) -> TorchNetwork:
    """The explanations of an inference network, in their order."""
    maps = len(segmenter.explanations)
    return TorchNetwork(
        _Explaining(segmenter),
        machine,
        segmenter.task.scale,
        maps,
        segmenter.stride,
        segmenter.window,
    )


def resolving(
    method: Method, machine: Machine, stride: int = 1, window: tuple[int, ...] = ()
) -> TorchNetwork:
    """The super-resolved image of a method that makes one.

    Args:
        method: The training network.
        machine: Where it runs.
        stride: Of its inference network.
        window: Of its inference network.
    """
    task, module = method.task, _Entry(method, "super_resolve")
    return TorchNetwork(module, machine, task.scale, task.channels, stride, window)


def weights_sha256(network: nn.Module) -> str:
    """Checksum of a network's weights, by name, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _compiled(segmenter: Segmenter) -> Callable[..., Tensor]:
    """Compiled at the first call, once for each network."""
    return torch.compile(segmenter.probs)


class _Entry(nn.Module):
    """One way into a network as a module of its own, so that its memory can be counted."""

    def __init__(self, network: nn.Module, entry: str) -> None:
        super().__init__()
        self.network, self.entry = network, entry

    def forward(self, *inputs: Tensor) -> Tensor:
        out: Tensor = getattr(self.network, self.entry)(*inputs)
        return out


class _Explaining(nn.Module):
    """All explanations of a network in one tensor on the HR grid."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, image_lr: Tensor, guidance: Tensor | None = None) -> Tensor:
        maps = self.network.explain(image_lr, guidance)
        together = torch.cat([maps[name] for name in self.network.explanations], 1)
        return enlarge_by(together.float(), self.network.task.scale)


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; every part is put back as it was."""
    training = [part for part in network.modules() if part.training]
    network.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True
