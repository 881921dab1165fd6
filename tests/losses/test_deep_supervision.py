"""Every map is judged as if it were alone."""

from __future__ import annotations

import pytest
import torch

from finemask.losses.deep_supervision import side_map_losses
from finemask.losses.structure import structure_losses


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("classes", [1, 3])
def test_each_map_has_its_structure_loss(weighted: bool, classes: int) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, classes, 40, 36) for _ in range(3)]
    target = torch.rand(2, max(1, classes - 1), 40, 36) / classes
    losses = side_map_losses(maps, target, weighted_bce=weighted)
    for loss, logits in zip(losses, maps, strict=True):
        iou, bce = structure_losses(logits, target, weighted_bce=weighted)
        torch.testing.assert_close(loss, iou + bce)
