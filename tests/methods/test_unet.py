"""The U-Net: what its losses are made of, and that it starts from rare foreground."""

from __future__ import annotations

import pytest
import torch

from finemask.losses.overlap import cross_entropy, dice_loss
from finemask.methods.unet import Config, UNet
from finemask.nn.outputs import foreground_probs
from finemask.pairs.batches import Batch
from finemask.recipe import Task


def batch_for(task: Task, *sides: int) -> Batch:
    torch.manual_seed(3)
    hr = [n * s for n, s in zip(sides, task.scale, strict=True)]
    target = torch.rand(2, task.foreground, *hr) / task.foreground
    return Batch(torch.randn(2, task.channels, *sides), torch.randn(2, task.channels, *hr), target)


@pytest.mark.parametrize("classes", [2, 3])
def test_losses_are_of_its_own_answer(classes: int) -> None:
    task = Task(2, 1, classes, (2, 2))
    method = UNet(task, Config(width=4, depth=3, w_dice=0.25)).eval()
    batch = batch_for(task, 8, 12)
    logits = method.deploy()(batch.image_lr)
    parts = method.losses(batch)
    torch.testing.assert_close(parts["L_ce"], cross_entropy(logits, batch.target))
    torch.testing.assert_close(parts["L_dice"], dice_loss(foreground_probs(logits), batch.target))
    assert method.weights() == {"L_ce": 1.0, "L_dice": 0.25}


def test_the_answer_starts_near_the_prior() -> None:
    torch.manual_seed(0)
    task = Task(2, 1, 2, (2, 2))
    probs = UNet(task, Config()).deploy().probs(torch.randn(1, 1, 32, 32))
    assert 0.03 < probs.mean().item() < 0.25


def test_the_stride_is_the_poolings() -> None:
    assert UNet(Task(), Config(width=2, depth=4)).deploy().stride == 8


def test_batch_norm_and_dropout_are_at_rest_in_prediction() -> None:
    task = Task(2, 1, 2, (2, 2))
    method = UNet(task, Config(width=4, depth=2, norm="batch", dropout=0.5))
    images = torch.randn(2, 1, 8, 8)
    assert not torch.equal(method.deploy()(images), method.deploy()(images))
    segmenter = method.eval().deploy()
    together, alone = segmenter(images)[:1], segmenter(images[:1])
    torch.testing.assert_close(together, alone)
