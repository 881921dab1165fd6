"""Multi-scale units and heads to the HR grid."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finemask.nn.blocks import ResidualUnit, Style, make_transpose
from finemask.nn.patch_free import LightHead, MultiScaleUnit, PatchFreeDecoder, join_code

STYLE = Style(3, norm="instance_plain", activation="leaky_relu", bias=True)


def test_a_multi_scale_unit_written_out() -> None:
    torch.manual_seed(0)
    unit, x = MultiScaleUnit(3, 8, STYLE), torch.randn(2, 3, 8, 9, 7)
    shapes = [tuple(b.weight.shape) for b in unit.branches]
    assert shapes == [(8, 3, 3, 3, 3), (4, 3, 5, 5, 5), (4, 3, 7, 7, 7)]

    def norm(y: torch.Tensor) -> torch.Tensor:
        return nn.functional.instance_norm(y)

    parts = [
        nn.functional.conv3d(x, b.weight, b.bias, padding=k // 2)
        for b, k in zip(unit.branches, (3, 5, 7), strict=True)
    ]
    hidden = nn.functional.leaky_relu(norm(torch.cat(parts, 1)), 0.01)
    second, shortcut = unit.body[2], unit.shortcut[0]
    out = norm(nn.functional.conv3d(hidden, second.weight, second.bias, padding=1))
    out = out + norm(nn.functional.conv3d(x, shortcut.weight))
    expected = nn.functional.leaky_relu(out, 0.01)
    torch.testing.assert_close(unit(x), expected, rtol=1e-4, atol=1e-5)
    assert shortcut.bias is None


@pytest.mark.parametrize("scale", [(2, 2, 2), (1, 2, 2), (3, 1, 2), (4, 2, 1)])
def test_a_transposed_convolution_reaches_the_finer_grid(scale: tuple[int, ...]) -> None:
    layer = make_transpose(2, 3, scale)
    out = layer(torch.randn(1, 2, 4, 5, 6))
    assert out.shape == (1, 3, *(n * f for n, f in zip((4, 5, 6), scale, strict=True)))
    with torch.no_grad():
        layer.weight.fill_(1.0)
        flat = layer(torch.ones(1, 2, 9, 9, 9))
    mirrored = flat.flip(2, 3, 4)  # nothing leans to one side
    torch.testing.assert_close(flat, mirrored)


@pytest.mark.parametrize("scale", [(2, 2, 2), (1, 2, 2)])
def test_a_light_head_is_both_of_its_layers_in_one(scale: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    head = LightHead(6, 2, scale).double()
    x = torch.randn(1, 6, 4, 5, 3, dtype=torch.float64)
    slow = head.output(head.up(x))  # feature maps on the HR grid, then the 1x1 convolution
    torch.testing.assert_close(head(x), slow, rtol=1e-12, atol=1e-12)
    folded = head.folded()
    assert torch.equal(folded(x), head(x))  # to the last bit
    assert sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in head.parameters())
    owned = {p.data_ptr() for p in head.parameters()}
    assert not owned & {p.data_ptr() for p in folded.parameters()}


def test_a_light_head_learns_through_its_fold() -> None:
    torch.manual_seed(0)
    head = LightHead(4, 1, (2, 2, 2))
    x = torch.randn(1, 4, 3, 3, 3)
    head(x).square().mean().backward()
    found = [p.grad.clone() for p in head.parameters()]
    head.zero_grad()
    head.output(head.up(x)).square().mean().backward()
    for ours, p in zip(found, head.parameters(), strict=True):
        torch.testing.assert_close(ours, p.grad, rtol=1e-4, atol=1e-6)


def test_a_code_of_another_grid_is_interpolated() -> None:
    features = [torch.zeros(1, 2, 8, 8, 8), torch.zeros(1, 4, 4, 4, 4)]
    finer, joined = join_code(features, torch.ones(1, 3, 2, 3, 5))
    assert finer is features[0]
    assert joined.shape == (1, 7, 4, 4, 4)
    assert float(joined[:, 4:].min()) == 1


def test_a_decoder_has_the_papers_size() -> None:
    with torch.device("meta"):
        decoder = PatchFreeDecoder(
            (32, 32, 64, 128, 256), 64, 1, (2, 2, 2), STYLE, ResidualUnit, "residual"
        )
    assert sum(p.numel() for p in decoder.parameters()) == 5_299_793
