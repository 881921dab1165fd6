"""Modules between two decoders: their equations in NumPy, and what each one looks at."""

from __future__ import annotations

import math
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from finemask.methods.describe import count_parameters
from finemask.nn.shared_features import (
    ChannelAttention,
    FeatureInteraction,
    MscgParts,
    MultiScaleConv,
    MultiScaleCrossGate,
    Sfem,
    make_sfem,
)

ERF = np.vectorize(math.erf)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * (1 + ERF(x / math.sqrt(2))) / 2


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def point(conv: nn.Module, x: np.ndarray) -> np.ndarray:
    """A 1x1 convolution of ``(C, H, W)``."""
    weight, bias = (p.detach().double().numpy() for p in (conv.weight, conv.bias))
    return np.einsum("oc,chw->ohw", weight[:, :, 0, 0], x) + bias[:, None, None]


def depthwise(conv: nn.Module, x: np.ndarray) -> np.ndarray:
    """A depthwise 3x3 convolution of ``(C, H, W)`` by its nine taps."""
    weight, bias = (p.detach().double().numpy() for p in (conv.weight, conv.bias))
    d = conv.dilation[0]
    wide = np.pad(x, ((0, 0), (d, d), (d, d)))
    out = np.zeros_like(x) + bias[:, None, None]
    for i in range(3):
        for j in range(3):
            part = wide[:, i * d : i * d + x.shape[1], j * d : j * d + x.shape[2]]
            out += weight[:, 0, i, j, None, None] * part
    return out


def normalise(norm: nn.Module, x: np.ndarray) -> np.ndarray:
    values = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    mean, var, gain, offset = (v.detach().double().numpy()[:, None, None] for v in values)
    return (x - mean) / np.sqrt(var + norm.eps) * gain + offset


def randomised(module: nn.Module) -> nn.Module:
    """Statistics and gains that are not the first ones, in evaluation."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values in (part.running_mean, part.running_var, part.weight, part.bias):
                values.data.uniform_(0.5, 1.5)
    return module.eval()


def array(x: Tensor) -> np.ndarray:
    return x[0].detach().double().numpy()


def attention_in_numpy(module: ChannelAttention, x: np.ndarray) -> np.ndarray:
    """Eqs. (9) to (11)."""
    z = depthwise(module.second, depthwise(module.first, x))
    squeezed = point(module.squeeze, z)
    weights = sigmoid(point(module.expand, np.where(squeezed > 0, squeezed, 0.01 * squeezed)))
    return x + weights * z


def scales_in_numpy(module: MultiScaleConv, x: np.ndarray) -> np.ndarray:
    """Eq. (12)."""
    one, two, three, four = np.split(x, 4)
    mean = np.broadcast_to(four.mean((1, 2), keepdims=True), four.shape)
    parts = [
        point(module.branches[0], one),
        depthwise(module.branches[1], two),
        depthwise(module.branches[2], three),
        point(module.branches[3].conv, mean),
    ]
    return gelu(normalise(module.norm, np.concatenate(parts)))


def test_mrcab_and_ms_conv_against_numpy() -> None:
    x = torch.randn(1, 8, 7, 9, generator=torch.Generator().manual_seed(1))
    for module, written in (
        (randomised(ChannelAttention(8)), attention_in_numpy),
        (randomised(MultiScaleConv(8, MscgParts())), scales_in_numpy),
    ):
        np.testing.assert_allclose(array(module(x)), written(module, array(x)), atol=1e-5)


def test_taps_are_as_far_apart_as_the_group_says() -> None:
    """The index of the group less one; SS-MAF's and SuperVessel's have distances of their own."""
    scales = MultiScaleConv(8, MscgParts())
    maf, fim = make_sfem("maf", 8), make_sfem("fim", 8)
    assert [branch.dilation[0] for branch in scales.branches[1:3]] == [1, 2]
    assert [branch.dilation[0] for branch in maf.body[1].branches[1:]] == [1, 2, 3]
    assert [branch.dilation[0] for branch in fim.branches] == [1, 2, 4]


def test_mscg_against_numpy() -> None:
    """Eqs. (6), (8), (13) and (14), with the sum that the text has and the equations lack."""
    gate = randomised(MultiScaleCrossGate(6, 5, hidden=8))
    f_sr, f_seg = torch.randn(1, 6, 7, 9), torch.randn(1, 5, 7, 9)
    sr, seg = gate(f_sr, f_seg)
    both = np.concatenate([array(f_sr), array(f_seg)])
    fused = gelu(normalise(gate.join.norm, point(gate.join.conv, both)))
    shared = scales_in_numpy(gate.scales, attention_in_numpy(gate.attention, fused)) + fused
    for made, given, to, last in (
        (sr, f_sr, gate.to_sr, gate.gate_sr),
        (seg, f_seg, gate.to_seg, gate.gate_seg),
    ):
        weighed = gelu(point(to, shared)) * array(given)
        np.testing.assert_allclose(array(made), point(last, weighed) + array(given), atol=1e-5)


@pytest.mark.parametrize("name", get_args(Sfem))
def test_both_streams_are_reweighed_by_both(name: Sfem) -> None:
    torch.manual_seed(0)
    module = make_sfem(name, 8)
    f_sr, f_seg = (torch.randn(2, 8, 10, 12, requires_grad=True) for _ in range(2))
    for made, other in zip(module(f_sr, f_seg), (f_seg, f_sr), strict=True):
        assert made.shape == f_sr.shape
        (gradient,) = torch.autograd.grad(made.square().sum(), other, retain_graph=True)
        assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize("name", ["conv", "se", "fim", "maf"])
def test_attention_adds_at_most_what_it_weighs(name: Sfem) -> None:
    torch.manual_seed(0)
    module = make_sfem(name, 8)
    f_sr, f_seg = torch.rand(2, 8, 10, 12), torch.rand(2, 8, 10, 12)
    for made, given in zip(module(f_sr, f_seg), (f_sr, f_seg), strict=True):
        assert bool((made >= given).all())
        assert bool((made <= 2 * given).all())


def test_released_widths_count_as_released() -> None:
    """Of 64 and 64 maps: what the released modules hold, counted by hand."""
    join, attention = 128 * 32 + 32 + 64, 2 * (32 * 9 + 32) + 32 * 8 + 8 + 8 * 32 + 32
    scales = 2 * (8 * 8 + 8) + 2 * (8 * 9 + 8) + 64
    gates = 2 * (32 * 64 + 64 + 64 * 64 + 64)
    assert count_parameters(make_sfem("mscg", 64)) == join + attention + scales + gates
    maf = 128 * 32 + 32 + 8 * 8 + 8 + 3 * 8 * 8 * 9 + 64 + 2 * (32 * 64 + 64)
    assert count_parameters(make_sfem("maf", 64)) == maf
    fim = 5 * 24 + 24 + 3 * (8 * 9 + 8) + 24 * 8 + 8 + 8 + 1
    assert count_parameters(FeatureInteraction(3, 2)) == fim


@pytest.mark.parametrize(
    "parts",
    [
        MscgParts(attention="rcab"),
        MscgParts(attention="mrcab_pooled"),
        MscgParts(scales="aspp"),
        MscgParts(scales="self_attention"),
        MscgParts(scales="none"),
        MscgParts(attention="none"),
        MscgParts(point=False),
        MscgParts(image_pool=False),
        MscgParts(depthwise=False),
    ],
    ids=str,
)
def test_every_ablation_changes_the_answer(parts: MscgParts) -> None:
    f_sr, f_seg = torch.randn(2, 8, 10, 12), torch.randn(2, 8, 10, 12)
    answers = []
    for one in (MscgParts(), parts):
        torch.manual_seed(0)
        answers.append(make_sfem("mscg", 8, one)(f_sr, f_seg)[1])
    assert answers[0].shape == answers[1].shape
    assert not torch.allclose(*answers)


def test_pooling_attends_alike_everywhere_and_mrcab_does_not() -> None:
    torch.manual_seed(0)
    z = torch.randn(1, 8, 6, 6)
    for kind, alike in (("mrcab", False), ("mrcab_pooled", True)):
        weights = ChannelAttention(8, kind).attend(z) / z
        spread = weights.flatten(2).std(2).max()
        assert (spread.item() < 1e-6) == alike


def test_image_pooling_sees_the_far_corner() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 8, 20, 20)
    moved = x.clone()
    moved[..., -1, -1] += 100
    for pooling, reached in ((True, True), (False, False)):
        module = MultiScaleConv(8, MscgParts(image_pool=pooling)).eval()
        change = (module(moved) - module(x))[..., 0, 0].abs().sum()
        assert (float(change) > 0) == reached
