"""The U-Net: what its losses are made of, and that it starts from rare foreground."""

from __future__ import annotations

import pytest
import torch

from finemask.errors import UsageError
from finemask.losses.overlap import cross_entropy, dice_loss
from finemask.losses.region import rmi_loss
from finemask.methods.unet import Config, UNet
from finemask.nn.encoders import ENCODERS, EncoderName
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


@pytest.mark.parametrize("name", ENCODERS)
def test_a_public_encoder_takes_the_place_of_its_own(name: EncoderName) -> None:
    torch.manual_seed(0)
    task = Task(2, 3, 3, (2, 2))
    method = UNet(task, Config(width=4, encoder=name, encoder_width=4))
    batch = batch_for(task, 33, 20)
    sum(method.losses(batch).values()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in method.parameters())
    segmenter = method.deploy()
    assert segmenter.stride == method.public_encoder().strides[-1]
    assert segmenter(batch.image_lr).shape == (2, 3, *batch.target.shape[2:])
    assert {id(p) for p in segmenter.parameters()} == {id(p) for p in method.parameters()}


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_every_level_of_a_public_encoder_reaches_the_answer(name: EncoderName) -> None:
    torch.manual_seed(0)
    method = UNet(Task(), Config(width=4, encoder=name, encoder_width=4)).eval()
    features = method.encoder(torch.randn(1, 1, 64, 64))
    assert [f.shape[1] for f in features] == list(method.encoder.widths)
    assert [64 // f.shape[2] for f in features] == [2**k for k in range(len(features))]
    logits = method.head(method.decoder(features))
    gradients = torch.autograd.grad(logits.square().sum(), features)
    assert all(float(g.abs().sum()) > 0 for g in gradients)


def test_a_public_encoder_has_a_learning_rate_of_its_own() -> None:
    method = UNet(Task(), Config(width=4, encoder="resnet18", encoder_width=4, encoder_factor=0.1))
    inside, rest = method.parameter_groups()
    encoder = method.public_encoder()
    assert (inside.factor, rest.factor) == (0.1, 1.0)
    assert {id(p) for p in inside.parameters} == {id(p) for p in encoder.parameters()}
    assert len(inside.parameters) + len(rest.parameters) == len(list(method.parameters()))
    (only,) = UNet(Task(), Config(width=4)).parameter_groups()
    assert only.factor == 1.0


def test_public_encoders_are_for_pictures() -> None:
    with pytest.raises(UsageError, match=r"config\.encoder: is vgg16, .*2-D.*; use plain"):
        UNet(Task(dims=3, scale=(2,)), Config(encoder="vgg16"))


def test_sizes_stay_as_they_were() -> None:
    """Plain: as in every earlier release. With ResNet-50: its 23,501,760 and the rest."""
    count = lambda config: sum(p.numel() for p in UNet(Task(), config).parameters())  # noqa: E731
    with torch.device("meta"):
        assert count(Config()) == 4_815_972
        assert count(Config(encoder="resnet50")) == 28_766_884


def test_batch_norm_and_dropout_are_at_rest_in_prediction() -> None:
    task = Task(2, 1, 2, (2, 2))
    method = UNet(task, Config(width=4, depth=2, norm="batch", dropout=0.5))
    images = torch.randn(2, 1, 8, 8)
    assert not torch.equal(method.deploy()(images), method.deploy()(images))
    segmenter = method.eval().deploy()
    together, alone = segmenter(images)[:1], segmenter(images[:1])
    torch.testing.assert_close(together, alone)


def test_region_information_is_one_loss_more() -> None:
    task = Task(2, 1, 3, (2, 2))
    method = UNet(task, Config(width=4, depth=3, w_rmi=0.5)).eval()
    batch = batch_for(task, 16, 12)
    parts = method.losses(batch)
    assert method.weights() == {"L_ce": 1.0, "L_dice": 1.0, "L_rmi": 0.5}
    assert parts["L_rmi"] == rmi_loss(method.deploy()(batch.image_lr), batch.target)
    with pytest.raises(UsageError, match="for 2-D images"):
        UNet(Task(3, 1, 2, (2,)), Config(width=4, w_rmi=0.5))


def test_lr_supervision_never_sees_the_pixels_between() -> None:
    task = Task(2, 1, 2, (2, 2))
    config = Config(width=4, depth=3, head="interpolate", supervision="lr")
    method, batch = UNet(task, config).eval(), batch_for(task, 8, 12)
    first = method.losses(batch)
    assert first["L_ce"] == cross_entropy(
        method.head.conv(method.decoder(method.encoder(batch.image_lr))),
        batch.target[..., 1::2, 1::2],
    )
    batch.target[..., ::2, :] = 1 - batch.target[..., ::2, :]
    assert method.losses(batch) == first
    assert method.deploy()(batch.image_lr).shape == batch.target.shape
    with pytest.raises(UsageError, match="head=interpolate"):
        Config(supervision="lr")
