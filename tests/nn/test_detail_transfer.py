"""DRTM: Eqs. 9 to 14 of paper 001 against NumPy, one at a time and together."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from finemask.nn.detail_transfer import ChannelSelection, DetailBranch, DetailTransfer


def linear(layer: nn.Linear, x: np.ndarray) -> np.ndarray:
    return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def convolved(conv: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    """Tap by tap, zeros beyond the edge."""
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    (step, _), side = conv.dilation, weight.shape[-1]
    reach = step * (side // 2)
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    h, w = x.shape[2:]
    taps = [
        np.einsum("oc,bchw->bohw", weight[..., i, j],
                  padded[..., i * step : i * step + h, j * step : j * step + w])
        for i in range(side) for j in range(side)
    ]  # fmt: skip
    return sum(taps) + bias[:, None, None]


def test_detail_is_where_a_point_differs_from_its_surroundings() -> None:
    torch.manual_seed(0)
    branch, f_sr = DetailBranch(3, 2).double(), torch.randn(2, 3, 7, 8).double()
    assert branch.high.kernel_size == (1, 1)
    assert (branch.low.kernel_size, branch.low.dilation) == ((3, 3), (2, 2))
    x = f_sr.numpy()
    f_h = 1 / (1 + np.exp(-(convolved(branch.high, x) - convolved(branch.low, x))))
    np.testing.assert_allclose(branch.contrast(f_sr).detach().numpy(), f_h, rtol=1e-9)
    np.testing.assert_allclose(branch(f_sr).detach().numpy(), x * f_h, rtol=1e-9)


def test_branches_are_chosen_channel_by_channel() -> None:
    torch.manual_seed(1)
    select = ChannelSelection(3).double()
    f_c, f_d = torch.randn(2, 2, 3, 5, 4).double()
    c, d = f_c.numpy(), f_d.numpy()
    v_z = np.concatenate([d, c], 1).mean((2, 3))
    np.testing.assert_allclose(select.describe(f_c, f_d).numpy(), v_z, rtol=1e-12)
    shared = np.maximum(linear(select.reduce[0], v_z), 0)
    v_c, v_d = linear(select.to_context, shared), linear(select.to_detail, shared)
    found = [v.detach().numpy() for v in select.logits(torch.from_numpy(v_z))]
    np.testing.assert_allclose(found, [v_c, v_d], rtol=1e-9)
    a = np.exp(v_c) / (np.exp(v_c) + np.exp(v_d))
    b = np.exp(v_d) / (np.exp(v_c) + np.exp(v_d))
    shares = select.shares(torch.from_numpy(v_c), torch.from_numpy(v_d))
    np.testing.assert_allclose([s.numpy() for s in shares], [a, b], rtol=1e-9)
    np.testing.assert_allclose(a + b, 1)
    expected = a[..., None, None] * c + b[..., None, None] * d
    np.testing.assert_allclose(select(f_c, f_d).detach().numpy(), expected, rtol=1e-9)


def test_the_module_joins_both_images_and_the_features() -> None:
    torch.manual_seed(2)
    image_lr, image_sr, f_sr = (
        torch.rand(1, 1, 4, 4),
        torch.rand(1, 1, 8, 8),
        torch.rand(1, 6, 8, 8),
    )
    whole = DetailTransfer(1, 6, 2).eval()
    enlarged = F.interpolate(image_lr, scale_factor=2, mode="bilinear")
    f_c = whole.context(torch.cat([enlarged, image_sr], 1))
    torch.testing.assert_close(
        whole(image_lr, image_sr, f_sr), whole.select(f_c, whole.detail(f_sr))
    )


def test_without_its_parts_it_is_the_mean_of_context_and_features() -> None:
    torch.manual_seed(3)
    image_lr, image_sr, f_sr = (
        torch.rand(1, 1, 4, 4),
        torch.rand(1, 1, 8, 8),
        torch.rand(1, 6, 8, 8),
    )
    plain = DetailTransfer(1, 6, 2, convs=2, detail=False, select=False).eval()
    enlarged = F.interpolate(image_lr, scale_factor=2, mode="bilinear")
    f_c = plain.context(torch.cat([enlarged, image_sr], 1))
    torch.testing.assert_close(plain(image_lr, image_sr, f_sr), (f_c + f_sr) / 2)
    assert [type(block).__name__ for block in plain.context] == ["ConvBlock"] * 2
