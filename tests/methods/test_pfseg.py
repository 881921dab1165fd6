"""PFSeg against the paper's numbers and a graph written out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from finemask.errors import UsageError
from finemask.losses.overlap import dice_loss
from finemask.methods import Method, create, default_recipe
from finemask.methods.describe import describe
from finemask.methods.pfseg import Config, PFSeg
from finemask.nn.outputs import foreground_probs
from finemask.pairs.batches import Batch, guided
from finemask.recipe import Task

SIDES = (8, 12, 12)


def make(channels: int = 1, classes: int = 2, **options: object) -> Method:
    recipe = default_recipe("pfseg", Task(3, channels, classes, (2, 2, 2)))
    config = {**recipe.config, "width": 4, "depth": 3, **options}
    torch.manual_seed(0)
    return create(replace(recipe, config=config))


def batch_for(method: Method, samples: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(1)
    task = method.task
    hr = [2 * n for n in SIDES]
    image = torch.rand(samples, task.channels, *hr, generator=generator)
    target = (torch.rand(samples, task.foreground, *hr, generator=generator) > 0.6).float()
    if task.foreground > 1:
        target[:, 1] *= 1 - target[:, 0]
    batch = Batch(F.avg_pool3d(image, 2), image, target)
    if method.guide is None:
        return batch
    return guided(batch, [method.guide(x.numpy()) for x in image])


@pytest.mark.parametrize(
    ("msres", "training", "inference"),
    [("all", 29_161_426, 23_861_633), ("none", 14_655_042, 9_355_249)],
)
def test_the_papers_networks_have_their_sizes(msres: str, training: int, inference: int) -> None:
    recipe = default_recipe("pfseg", Task(3, scale=(2, 2, 2))).with_settings(
        [f"config.msres={msres}"]
    )
    facts = describe("pfseg", recipe, (64, 96, 96))
    assert (facts.parameters_training, facts.parameters_inference) == (training, inference)
    assert round(facts.macs_inference / 1e9) == {"all": 285, "none": 232}[msres]
    narrow = describe("pfseg", recipe.with_settings(["config.width=8"]), (64, 96, 96))
    assert narrow.parameters_inference < inference / 12


def test_res_blocks_written_out() -> None:
    """Both branches of the Res version at depth 3 from its state dict, layer by layer."""
    method = make(msres="none").eval()
    batch, w = batch_for(method), dict(method.named_parameters())

    def res(name: str, x: Tensor) -> Tensor:
        first, second = f"{name}.body.0.conv", f"{name}.body.1"
        y = F.conv3d(x, w[f"{first}.weight"], w[f"{first}.bias"], padding=1)
        y = F.leaky_relu(F.instance_norm(y))
        y = F.instance_norm(F.conv3d(y, w[f"{second}.weight"], w[f"{second}.bias"], padding=1))
        return F.leaky_relu(y + F.instance_norm(F.conv3d(x, w[f"{name}.shortcut.0.weight"])))

    def up(name: str, x: Tensor) -> Tensor:
        return F.leaky_relu(
            F.conv_transpose3d(x, w[f"{name}.weight"], w[f"{name}.bias"], stride=2, padding=1)
        )

    e1 = res("encoder.blocks.0", batch.image_lr)
    e2 = res("encoder.blocks.1", F.max_pool3d(e1, 2))
    e3 = res("encoder.blocks.2", F.max_pool3d(e2, 2))
    code = res("sgm.blocks.1", F.max_pool3d(res("sgm.blocks.0", batch.guidance), 2))
    deepest = torch.cat([e3, F.interpolate(code, e3.shape[2:], mode="trilinear")], 1)

    def branch(name: str) -> Tensor:
        d2 = torch.cat([up(f"{name}.decoder.ups.0.conv", deepest), e2], 1)
        d2 = res(f"{name}.decoder.blocks.0", d2)
        d1 = torch.cat([up(f"{name}.decoder.ups.1.conv", d2), e1], 1)
        d1 = res(f"{name}.decoder.blocks.1", d1)
        fine = res(f"{name}.head.2", up(f"{name}.head.0", d1))
        return F.conv3d(fine, w[f"{name}.head.3.weight"], w[f"{name}.head.3.bias"])

    with torch.no_grad():
        logits, image = method.decode(method.features(batch.image_lr, batch.guidance))
        torch.testing.assert_close(logits, branch("ust"), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(image, branch("srt").relu(), rtol=1e-3, atol=1e-4)
        shipped = method.deploy()(batch.image_lr, batch.guidance)
        assert torch.equal(shipped, logits)
        assert torch.equal(method.super_resolve(batch.image_lr, batch.guidance), image)


@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (4, 2), (2, 3)])
def test_the_losses_are_the_papers_equations(channels: int, classes: int) -> None:
    method = make(channels, classes, msres="none")
    batch = batch_for(method)
    with torch.no_grad():
        parts = method.losses(batch)
        logits, image = method.decode(method.features(batch.image_lr, batch.guidance))
    assert image.shape[1] == channels
    p = foreground_probs(logits).numpy().astype(float)
    y, sr, x = batch.target.numpy(), image.numpy().astype(float), batch.image_hr.numpy()
    everything = np.concatenate([1 - p.sum(1, keepdims=True), p], 1)
    truth = np.concatenate([1 - y.sum(1, keepdims=True), y], 1)
    bce = -(truth * np.log(everything)).sum(1).mean()
    overlap, sizes = (p * y).sum((2, 3, 4)), (p**2 + y**2).sum((2, 3, 4))
    dice = 1 - ((2 * overlap + 1) / (sizes + 1)).mean()
    window, size = np.zeros_like(x), batch.guidance.shape[2:]
    for k, start in enumerate(batch.guidance_start.tolist()):
        inside = tuple(slice(b, b + s) for b, s in zip(start, size, strict=True))
        window[(k, slice(None), *inside)] = 1
    fused = np.concatenate([p[:, f : f + 1] * sr for f in range(y.shape[1])], 1)
    wanted = np.concatenate([y[:, f : f + 1] * x for f in range(y.shape[1])], 1)
    similar = [
        ((a.T @ a - b.T @ b) ** 2).mean()
        for a, b in zip(
            fused.reshape(*fused.shape[:2], -1)[:, :, ::7],
            wanted.reshape(*wanted.shape[:2], -1)[:, :, ::7],
            strict=True,
        )
    ]
    expected = {
        "L_bce": bce,
        "L_dice": dice,
        "L_srt": ((sr - x) ** 2).mean(),
        "L_sgl": (window * (sr - x) ** 2).mean(),
        "L_tel": ((fused - wanted) ** 2).mean(),
    }
    for name, value in expected.items():
        assert float(parts[name]) == pytest.approx(value, rel=1e-4), name
    assert float(parts["L_ssl"]) == pytest.approx(np.mean(similar), rel=0.2)  # of every 7th voxel
    assert method.weights() == dict.fromkeys(("L_bce", "L_dice"), 1.0) | dict.fromkeys(
        ("L_srt", "L_sgl", "L_tel", "L_ssl"), 0.5
    )


@pytest.mark.parametrize("label", PFSeg.ABLATIONS)
def test_rows_of_table_iv_train_and_ship(label: str) -> None:
    options = {**PFSeg.ABLATIONS[label]}
    method = make(**{"msres": "all", **options})
    batch = batch_for(method, samples=1)
    parts = method.losses(batch)
    assert set(parts) == set(method.weights())
    sum(parts.values()).backward()
    assert ("SGM" in label) == (batch.guidance is not None) == (method.guide is not None)
    assert ("SRT" in label) == method.makes_image() == bool(method.adaptations())
    assert ("TEL" in label or "TFM" in label) == ("L_tel" in parts)
    shipped = {name.split(".")[0] for name, _ in method.deploy().network.named_parameters()}
    assert shipped == {"encoder", "decoder", "head"} | ({"sgm"} if "SGM" in label else set())


@pytest.mark.parametrize("backbone", ["resunet3d", "unet3d"])
def test_a_light_head_ships_folded_and_answers_alike(backbone: str) -> None:
    method = make(head="light", backbone=backbone, msres="sgm").eval()
    batch = batch_for(method)
    with torch.no_grad():
        logits, image = method.decode(method.features(batch.image_lr, batch.guidance))
        assert torch.equal(method.deploy()(batch.image_lr, batch.guidance), logits)
    assert image.shape == batch.image_hr.shape
    assert [name for name, _ in method.deploy().network.head.named_parameters()] == [
        "weight",
        "bias",
    ]


def test_strategies_are_those_of_table_iii() -> None:
    strategies = make().adaptations()
    assert list(strategies) == ["tfm", "srt", "srt+ust", "srt+ust+tfm"]
    assert strategies["tfm"].parts == ("L_tel", "L_ssl")
    assert strategies["srt"].frozen == ("ust",)
    assert "L_tel" not in strategies["srt+ust"].parts
    assert list(make(tel=False, ssl=False).adaptations()) == ["srt", "srt+ust"]


def test_options_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UsageError, match="without srt"):
        Config(srt=False)


def test_a_network_with_guidance_asks_for_it() -> None:
    method = make()
    with pytest.raises(ValueError, match="guidance"):
        method.deploy()(torch.zeros(1, 1, 8, 8, 8))


def test_half_the_dice_weight_is_the_released_gradient() -> None:
    """The released Dice, 1 - (sum py + 1) / (sum p^2 + sum y^2 + 1), has half the slope of ours."""
    torch.manual_seed(0)
    y = (torch.rand(1, 1, 600) > 0.5).double()
    p = torch.rand(1, 1, 600, dtype=torch.float64, requires_grad=True)
    (0.5 * dice_loss(p, y, eps=0.0)).backward()
    ours, p.grad = p.grad.clone(), None
    (1 - (p * y).sum() / (p.square().sum() + y.square().sum())).backward()
    torch.testing.assert_close(ours, p.grad, rtol=1e-5, atol=1e-9)
