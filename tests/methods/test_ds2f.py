"""DS2F: its counts, its equations, who teaches whom, and the rows of its tables."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from finemask.errors import UsageError
from finemask.losses.overlap import generalised_dice_loss
from finemask.losses.region import rmi_loss
from finemask.losses.similarity import ssim_loss
from finemask.methods import default_recipe
from finemask.methods.describe import describe
from finemask.methods.ds2f import DS2F, Config
from finemask.methods.released.ds2f import GRAPH
from finemask.methods.unet import Config as UNetConfig
from finemask.methods.unet import UNet
from finemask.nn.outputs import foreground_probs
from finemask.pairs.batches import Batch
from finemask.recipe import Task

TINY = Config(width=4, depth=3, sr_width=4)
DEEPLAB = dataclasses.replace(
    TINY, backbone="deeplab", encoder="resnet18", encoder_width=4, head="interpolate"
)
TASK = Task(2, 3, 2, (2, 2))


def batch_for(task: Task, *sides: int) -> Batch:
    torch.manual_seed(3)
    hr = [n * s for n, s in zip(sides, task.scale, strict=True)]
    target = (torch.rand(2, task.foreground, *hr) > 0.8).float() / task.foreground
    return Batch(torch.randn(2, task.channels, *sides), torch.randn(2, task.channels, *hr), target)


def test_the_papers_counts() -> None:
    recipe = default_recipe("ds2f", TASK)
    recipe = dataclasses.replace(recipe, config={**recipe.config, **GRAPH})
    facts = describe("ds2f", recipe, (512, 512))
    assert facts.parameters_inference == 28_949_698
    assert facts.parameters_training == 39_194_682
    # The four 1x1 convolutions of the way up run before interpolation here: a fourth of the work.
    widths, saved = (64, 128, 256, 512, 1024), 0
    for level in range(4):
        coarse, fine = (512 >> (level + 1)) ** 2, (512 >> level) ** 2
        saved += widths[level + 1] * widths[level] * (fine - coarse)
    assert round((facts.macs_inference + saved) / 1e9, 1) == 192.7


def test_what_ships_costs_what_the_unet_costs() -> None:
    recipe = default_recipe("ds2f", TASK)
    ours, plain = (describe(n, default_recipe(n, TASK), (64, 64)) for n in ("ds2f", "unet"))
    assert recipe.config["width"] == default_recipe("unet", TASK).config["width"]
    assert ours.parameters_inference == plain.parameters_inference
    assert ours.macs_inference == plain.macs_inference


def test_the_shipped_network_is_the_unets() -> None:
    method, plain = DS2F(TASK, TINY), UNet(TASK, UNetConfig(width=4, depth=3))
    assert {k: v.shape for k, v in method.deploy().state_dict().items()} == {
        k: v.shape for k, v in plain.deploy().state_dict().items()
    }
    plain.deploy().load_state_dict(method.deploy().state_dict())
    image = torch.randn(1, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(method.deploy().eval()(image), plain.deploy().eval()(image))


@pytest.mark.parametrize("config", [TINY, DEEPLAB], ids=["unet", "deeplab"])
def test_the_proxies_are_made_from_gated_features_by_the_same_heads(config: Config) -> None:
    """Eqs. (7) and (17)."""
    method, batch = DS2F(TASK, config).eval(), batch_for(TASK, 16, 24)
    with torch.no_grad():
        parts, seen = method.losses(batch), method.look(batch)
        f_sr, f_seg = method.sfem(seen.sr_levels[-1], seen.seg_levels[-1])
        logits = method.streams.mask(f_seg, batch.image_lr)
        image = method.streams.image(f_sr, batch.image_lr)
    assert not torch.allclose(logits, seen.logits)
    assert parts["L_proxy_seg"] == rmi_loss(logits, batch.target)
    assert parts["L_proxy_sr"] == ssim_loss(image, batch.image_hr)
    assert parts["L_sr"] == (seen.image - batch.image_hr).square().mean()


@pytest.mark.parametrize("config", [TINY, DEEPLAB], ids=["unet", "deeplab"])
def test_the_proxy_mask_teaches_its_gate_and_both_decoders(config: Config) -> None:
    """In the released DeepLabV3+ it did not."""
    method = DS2F(TASK, config)
    method.losses(batch_for(TASK, 16, 24))["L_proxy_seg"].backward()
    gates = [method.sfem.to_seg, method.sfem.gate_seg, method.sfem.join]
    streams = method.streams
    for part in (*gates, streams.encoder, streams.seg_decoder, streams.sr_decoder):
        assert all(p.grad is not None for p in part.parameters())
        assert any(float(p.grad.abs().sum()) > 0 for p in part.parameters())
    assert all(p.grad is None for p in method.sfem.gate_sr.parameters())
    assert all(p.grad is None for p in streams.sr_head.parameters())


def test_table_ii_names_its_losses() -> None:
    batch = batch_for(TASK, 8, 8)
    for proxy_seg, loss in (
        ("rmi", rmi_loss),
        ("gdice", lambda z, y: generalised_dice_loss(foreground_probs(z), y)),
    ):
        method = DS2F(TASK, dataclasses.replace(TINY, proxy_seg=proxy_seg))
        logits = torch.randn(2, 1, 16, 16)
        assert method.proxy_seg_loss(logits, batch.target) == loss(logits, batch.target)


@pytest.mark.parametrize("label", DS2F.ABLATIONS)
def test_rows_of_the_ablations_learn_all_they_have(label: str) -> None:
    torch.manual_seed(0)
    method = DS2F(TASK, dataclasses.replace(TINY, **DS2F.ABLATIONS[label]))
    parts = method.losses(batch_for(TASK, 8, 12))
    assert set(parts) == set(method.weights())
    torch.stack([method.weights()[k] * part for k, part in parts.items()]).sum().backward()
    for name, p in method.named_parameters():
        assert (p.grad is not None) == p.requires_grad, name


def test_the_four_rows_differ_by_one_part_each() -> None:
    def has(label: str) -> tuple[bool, bool]:
        method = DS2F(TASK, dataclasses.replace(TINY, **DS2F.ABLATIONS.get(label, {})))
        image = torch.randn(1, 3, 8, 8)
        assert (method.super_resolve(image) is not None) == method.makes_image()
        return method.makes_image(), method.sfem is not None

    rows = ("U-Net+Inter", "U-Net+Inter+SR", "")
    assert [has(row) for row in rows] == [(False, False), (True, False), (True, True)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sr": False}, "sfem=none"),
        ({"proxy_seg": "none", "proxy_sr": "none"}, "no proxy loss"),
        ({"widest": 0}, "widest"),
    ],
)
def test_options_that_contradict_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(TINY, **changes)


def test_public_weights_fill_the_resnet() -> None:
    method = DS2F(TASK, dataclasses.replace(DEEPLAB, encoder_factor=0.1))
    assert method.public_encoder() is method.streams.encoder.encoder
    assert [group.factor for group in method.parameter_groups()] == [0.1, 1.0]
    assert DS2F(TASK, TINY).public_encoder() is None


@pytest.mark.parametrize("scale", [(1, 1), (3, 3), (4, 4)])
@pytest.mark.parametrize("classes", [2, 5])
def test_any_scale_and_classes(scale: tuple[int, int], classes: int) -> None:
    task = Task(2, 3, classes, scale)
    parts = DS2F(task, dataclasses.replace(DEEPLAB, softmax=True)).losses(batch_for(task, 16, 16))
    assert all(bool(part.isfinite()) for part in parts.values())
