"""SDC blocks: Eq. (3) by hand, any size and scale, and what the maps are good for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy import ndarray

from finemask.inference.activations import activation_bytes
from finemask.nn.blocks import Style
from finemask.nn.scale_aware import FIELDS, ScaleAwareConv, ScaleAwareDecoder, stack_maps
from finemask.nn.unet import UNetEncoder


def convolve(x: ndarray, weight: ndarray, bias: ndarray | None, dilation: int) -> ndarray:
    """A convolution of ``(C, H, W)`` that keeps the size, tap by tap, zeros outside."""
    reach = weight.shape[-1] // 2
    padded = np.pad(x, [(0, 0), *[(reach * dilation,) * 2] * 2])
    out = np.zeros((len(weight), *x.shape[1:]))
    for i in range(weight.shape[2]):
        for j in range(weight.shape[3]):
            shift = padded[:, i * dilation :, j * dilation :][:, : x.shape[1], : x.shape[2]]
            out += np.einsum("oc,chw->ohw", weight[:, :, i, j], shift)
    return out if bias is None else out + bias[:, None, None]


@pytest.mark.parametrize("fusion", ["sum", "concat"])
def test_equation_3_against_numpy(fusion: str) -> None:
    """Without a norm: sigmoid gates, rectified branches of dilations 1, 2 and 5, and the sum."""
    torch.manual_seed(0)
    block = ScaleAwareConv(3, 2, Style(2, norm="none"), fusion=fusion)
    x = torch.randn(1, 3, 9, 13)
    with torch.no_grad():
        got, maps = block.with_maps(x)
    values = {k: v.double().numpy() for k, v in block.state_dict().items()}
    image = x[0].double().numpy()
    gates = 1 / (1 + np.exp(-convolve(image, values["gates.weight"], values["gates.bias"], 1)))
    weighed = []
    for k, dilation in enumerate((1, 1, 2, 5)):
        weight, bias = (values[f"branches.{k}.conv.{part}"] for part in ("weight", "bias"))
        assert weight.shape[2:] == ((1, 1) if k == 0 else (3, 3))
        weighed.append(gates[k] * np.maximum(convolve(image, weight, bias, dilation), 0))
    expected = sum(weighed)
    if fusion == "concat":
        weight, bias = values["mix.conv.weight"], values["mix.conv.bias"]
        expected = np.maximum(convolve(np.concatenate(weighed), weight, bias, 1), 0)
    np.testing.assert_allclose(maps[0].numpy(), gates, atol=1e-6)
    np.testing.assert_allclose(got[0].numpy(), expected, atol=1e-5)


def test_fields_are_what_the_branches_see() -> None:
    """A single voxel reaches as far as the field of its branch, and no further."""
    block = ScaleAwareConv(1, 1, Style(2, norm="none"))
    x = torch.zeros(1, 1, 15, 15, requires_grad=True)
    for branch, field in zip(block.branches, FIELDS, strict=True):
        conv = branch.conv
        (seen,) = torch.autograd.grad(conv(x)[0, 0, 7, 7], x)
        rows = seen[0, 0].abs().sum(1).nonzero().flatten()
        assert int(rows.max() - rows.min()) + 1 == field


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 19), min_size=2, max_size=3))
def test_any_size_comes_back(sides: list[int]) -> None:
    style, widths = Style(len(sides)), (2, 3, 4, 4)
    with torch.no_grad():
        features = UNetEncoder(1, widths, style)(torch.randn(1, 1, *sides))
        decoder = ScaleAwareDecoder(widths, style)
        out, maps = decoder.with_maps(features)
        stack = stack_maps(maps)
    assert torch.equal(out, decoder(features))
    assert tuple(out.shape) == (1, 2, *sides)
    assert tuple(stack.shape) == (1, 12, *sides)
    assert 0 < float(stack.min()) <= float(stack.max()) < 1
    assert bool(out.isfinite().all())


def test_a_volume_of_one_slice_is_a_picture() -> None:
    """The middle planes of 3-D kernels do what 2-D kernels do; the others see padding only."""
    torch.manual_seed(0)
    flat, deep = (ScaleAwareConv(2, 3, Style(dims, norm="none"), "concat") for dims in (2, 3))
    weights = deep.state_dict()
    for name, value in flat.state_dict().items():
        if name.endswith("weight"):
            weights[name][:, :, weights[name].shape[2] // 2] = value
        else:
            weights[name] = value
    deep.load_state_dict(weights)
    x = torch.randn(1, 2, 11, 12)
    with torch.no_grad():
        torch.testing.assert_close(deep(x[:, :, None])[:, :, 0], flat(x))


def test_the_stack_puts_coarse_maps_on_the_finest_grid() -> None:
    """A coarse voxel lies over the fine ones of the same place, also where sides are odd."""
    coarse = torch.arange(3.0).reshape(1, 1, 3, 1).expand(1, 1, 3, 3)
    fine = torch.zeros(1, 1, 5, 6)
    stack = stack_maps([coarse, fine])
    assert stack.shape == (1, 2, 5, 6)
    assert stack[0, 0, :, 2].tolist() == [0.0, 0.25, 0.75, 1.25, 1.75]


def test_the_maps_learn() -> None:
    block = ScaleAwareConv(2, 3, Style(2))
    block(torch.randn(1, 2, 8, 8)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_prediction_holds_one_branch_at_a_time() -> None:
    """Peak of the live maps: the input, the maps, the sum, one branch and one weighed branch."""
    block = ScaleAwareConv(1, 8, Style(2, norm="none"))
    peak, _ = activation_bytes(block, (1, 1, 20, 20))
    assert peak <= 4 * 400 * (1 + 2 * 4 + 3 * 8)


def test_dropout_rests_in_evaluation() -> None:
    """The released code builds it anew in every call, so that its predictions are random."""
    block = ScaleAwareConv(2, 16, Style(2, dropout=0.5))
    x = torch.randn(1, 2, 8, 8)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))
