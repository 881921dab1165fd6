"""The memory that a torch network takes, counted without running it.

The network is run once on tensors without content (the ``meta`` device) at the
very shape in question, while every storage is counted from its creation to
its release. So skip connections, attention and full-resolution heads cost
what they cost, and nothing is extrapolated. The count is of float32: reduced
precision only takes less.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode


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
