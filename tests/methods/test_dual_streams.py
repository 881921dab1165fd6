"""CogSeg, SuperVessel and SS-MAF: what their streams are told to have in common."""

from __future__ import annotations

import pytest
import torch

from finemask.losses.region import rmi_loss
from finemask.methods import METHODS, default_recipe
from finemask.methods.describe import describe
from finemask.methods.dual_streams import SSMAF, CogSeg, Config, SuperVessel
from finemask.nn.shared_features import FeatureInteraction
from finemask.pairs.batches import Batch
from finemask.recipe import Task

TINY = Config(width=4, depth=3, sr_width=4)
TASK = Task(2, 3, 3, (2, 2))


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(3)
    target = (torch.rand(2, 2, 16, 24) > 0.8).float() / 2
    return Batch(torch.randn(2, 3, 8, 12), torch.randn(2, 3, 16, 24), target)


def cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    truth = torch.cat([1 - target.sum(1, keepdim=True), target], 1)
    return -(truth * logits.log_softmax(1)).sum(1).mean()


def test_cogseg_compares_every_level(batch: Batch) -> None:
    method = CogSeg(TASK, TINY)
    seen, parts = method.look(batch), method.losses(batch)
    levels = zip(seen.sr_levels, seen.seg_levels, strict=True)
    distances = [(a - b).abs().mean() for a, b in levels]
    assert len(distances) == TINY.depth - 1
    torch.testing.assert_close(parts["L_1"], sum(distances))
    parts["L_1"].backward()
    assert all(p.grad is None for p in method.streams.seg_head.parameters())
    assert all(p.grad is not None for p in method.streams.seg_decoder.parameters())


def test_supervessel_weighs_the_mask_behind_the_heads(batch: Batch) -> None:
    method = SuperVessel(TASK, TINY).eval()
    with torch.no_grad():
        seen, parts = method.look(batch), method.losses(batch)
        weight = method.interaction.attention(seen.image, seen.logits)
    assert isinstance(method.interaction, FeatureInteraction)
    assert weight.shape == (2, 1, 16, 24)
    fused = weight * seen.logits + seen.logits
    torch.testing.assert_close(parts["L_proxy_seg"], cross_entropy(fused, batch.target))


def test_ss_maf_asks_both_tasks_of_reweighed_features(batch: Batch) -> None:
    method = SSMAF(TASK, TINY).eval()
    with torch.no_grad():
        seen, parts = method.look(batch), method.losses(batch)
        f_sr, f_seg = method.fusion(seen.sr_levels[-1], seen.seg_levels[-1])
        logits = method.streams.mask(f_seg, batch.image_lr)
        image = method.streams.image(f_sr, batch.image_lr)
    assert parts["L_proxy_seg"] == rmi_loss(logits, batch.target)
    torch.testing.assert_close(parts["L_proxy_sr"], (image - batch.image_hr).square().mean())


@pytest.mark.parametrize("name", ["cogseg", "supervessel", "ssmaf"])
def test_all_ship_the_plain_unet(name: str) -> None:
    task = Task(2, 3, 2, (4, 4))
    facts, plain = (describe(n, default_recipe(n, task), (64, 64)) for n in (name, "unet"))
    assert facts.parameters_inference == plain.parameters_inference
    assert facts.macs_inference == plain.macs_inference
    assert facts.parameters_training > plain.parameters_training
    assert METHODS[name].makes_image(METHODS[name](task, TINY))
