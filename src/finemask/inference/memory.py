"""How much memory a prediction takes, and how much there is.

A network is run once on tensors without content (the ``meta`` device) at the
very shape in question, while every storage is counted from its creation to
its release. So skip connections, attention and full-resolution heads cost
what they cost, and nothing is extrapolated. The count is of float32: reduced
precision only takes less.
"""

from __future__ import annotations

import itertools
import math
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from finemask.errors import DataError
from finemask.inference.tiles import TilePlan, padded_shape, plan_tiles, smaller_tile

SHARE = 0.8
"""Share of the available memory that a prediction may take unasked."""

WORKSPACE = 1.5
"""Memory of the kernels (reordered copies, columns) on top of live tensors, as a factor."""

SMALL = 4096
"""Bytes for each HR voxel that no network here comes near (a U-Net takes 100 to 250).

Where even these fit, nothing is counted; where counting fails, these are assumed."""

LARGEST_TENSOR = 2**31 - 1
"""Elements that every kernel can index."""


class _LiveStorage(TorchDispatchMode):
    """Counts the bytes of tensors that are alive while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = self.largest = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
                self._watch(tensor.untyped_storage())
        return out

    def _watch(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, count: int) -> None:
        self._known.discard(key)
        self.live -= count


def activation_bytes(network: nn.Module, *shapes: Sequence[int]) -> tuple[int, int]:
    """Peak of the live activations of one forward pass, in bytes.

    Args:
        network: Called with one tensor a shape.
        shapes: Shapes of the inputs with batch and channels.

    Returns:
        The peak in bytes (inputs and output included, weights not), and the number of
        elements of the largest tensor.

    Example:
        >>> activation_bytes(nn.Conv2d(1, 3, 1), (1, 1, 10, 10))  # 4 bytes (1 + 3) channels
        (1600, 300)
    """
    weights = {
        name: torch.empty_like(weight, device="meta")
        for name, weight in itertools.chain(network.named_parameters(), network.named_buffers())
    }
    with torch.no_grad(), _LiveStorage() as count:
        inputs = tuple(torch.empty(tuple(shape), device="meta") for shape in shapes)
        torch.func.functional_call(network, weights, inputs)
    return count.peak, count.largest


def available_bytes(device: torch.device | str = "cpu") -> int:
    """Memory that this process can still take on a device, within its container's limit."""
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + unused)
    limits = [_machine_bytes(), _container_bytes(Path("/sys/fs/cgroup"))]
    return min(limit for limit in limits if limit is not None)


def _machine_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return 4 * 2**30


def _container_bytes(root: Path) -> int | None:
    """Room below the limit of a control group, version 2 or 1; ``None`` without a limit."""
    for limit, usage in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most = int((root / limit).read_text())
            used = int((root / usage).read_text())
            stat = (root / limit).with_name("memory.stat").read_text().split()
        except (OSError, ValueError):  # "max" is no number: no limit
            continue
        cached = dict(zip(stat[::2], stat[1::2], strict=False)).get("inactive_file", "0")
        return max(0, most - used + int(cached))
    return None


def fit_tiles(
    network: nn.Module,
    shape: Sequence[int],
    scale: Sequence[int],
    *,
    stride: int = 1,
    channels: int = 1,
    maps: int = 1,
    result_bytes: int = 0,
    extra: Sequence[Sequence[int]] = (),
    max_memory_bytes: int | None = None,
    device: torch.device | str = "cpu",
) -> TilePlan:
    """The whole image as one tile when it fits the memory, else the largest tiles that do.

    Args:
        network: Maps ``(1, C, *T)`` to ``(1, maps, *T * scale)``.
        shape: LR image before padding.
        scale: HR voxels for each LR voxel along each axis.
        stride: LR sides of a tile are multiples of it.
        channels: Channels of the image.
        maps: Channels of the result.
        result_bytes: What the caller keeps of the result, all in all.
        extra: Shapes of the further inputs of the network.
        max_memory_bytes: Bound on everything that the prediction adds; by default a share
            of what is available.
        device: Where the network runs.

    Raises:
        DataError: When not even the smallest tile fits.
    """
    whole = padded_shape(shape, stride)
    budget = max_memory_bytes or int(SHARE * available_bytes(device))

    def needed(plan: TilePlan) -> int:
        inputs = [(1, channels, *plan.tile), *extra]
        try:
            peak, largest = activation_bytes(network, *inputs)
        except (RuntimeError, NotImplementedError):  # it looks at values, which meta has not
            peak, largest = SMALL * math.prod(plan.tile) * math.prod(scale), 0
        if largest > LARGEST_TENSOR:
            return largest * 4 + budget
        return int(WORKSPACE * peak) + result_bytes + _layer_bytes(plan, scale, channels, maps)

    plan = plan_tiles(whole, whole, stride)
    if SMALL * math.prod(whole) * math.prod(scale) + result_bytes <= budget:
        return plan
    while (need := needed(plan)) > budget:
        tile = smaller_tile(plan.tile, stride)
        if tile is None:
            raise DataError(
                "memory",
                f"{budget / 2**20:.0f} MiB are allowed, the smallest tile of an image of"
                f" {'x'.join(map(str, shape))} voxels needs {need / 2**20:.0f} MiB",
                "raise --max-memory, or free memory",
            )
        plan = plan_tiles(whole, tile, stride)
    return plan


def _layer_bytes(plan: TilePlan, scale: Sequence[int], channels: int, maps: int) -> int:
    """What ``tiles.blend`` holds: the padded image, two layers of tiles, a weighted tile."""
    image = 4 * channels * math.prod(plan.shape)
    factor = 4 * maps * math.prod(scale)
    if len(plan) == 1:
        return image + factor * math.prod(plan.tile)
    layer = plan.tile[0] * math.prod(plan.shape[1:])
    return image + factor * (2 * layer + 2 * math.prod(plan.tile))
