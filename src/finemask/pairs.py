"""Training pairs: LR and HR of one case, sharing one physical extent."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """What a method learns from; the suffix of a name says its grid.

    Args:
        image_lr: ``(B, C, *S)`` prepared intensities on the LR grid.
        image_hr: ``(B, C, *S * scale)`` the same image on the HR grid.
        target: ``(B, F, *S * scale)`` in [0, 1], one map a foreground class.
        guidance: ``(B, C, *P)`` what the method's ``guide`` cut from the HR image.
        names: Case of each sample.
    """

    image_lr: Tensor
    image_hr: Tensor
    target: Tensor
    guidance: Tensor | None = None
    names: tuple[str, ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            f.name: value.to(device)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)
