"""Two streams on their grids, at any scale and size, and what ships of them."""

from __future__ import annotations

import pytest
import torch

from finemask.errors import UsageError
from finemask.methods.describe import count_parameters
from finemask.nn.aligned import AlignedUp, OverlappingMaxPool, align
from finemask.nn.blocks import ResizeUp, Style
from finemask.nn.dual_stream import DualStream, StreamOptions
from finemask.nn.superres import MaskHead, SubPixelHead

UNET = StreamOptions(width=4, depth=3, sr_width=4)
DEEPLAB = StreamOptions(
    backbone="deeplab", width=4, encoder="resnet18", encoder_width=4, sr_width=4, head="interpolate"
)


@pytest.mark.parametrize("options", [UNET, DEEPLAB], ids=["unet", "deeplab"])
@pytest.mark.parametrize("scale", [(1, 1), (2, 2), (3, 3), (4, 4), (1, 2)])
@pytest.mark.parametrize("sides", [(16, 24), (13, 17)])
def test_both_streams_end_on_the_hr_grid(
    options: StreamOptions, scale: tuple[int, int], sides: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    streams, image = DualStream(3, 4, scale, options).eval(), torch.randn(1, 3, *sides)
    hr = [n * f for n, f in zip(sides, scale, strict=True)]
    shared = streams.encode(image)
    logits = streams.mask(streams.decode_seg(shared)[-1], image)
    assert logits.shape == (1, 4, *hr)
    assert streams.restore(image).shape == (1, 3, *hr)
    assert torch.equal(streams.mask_stream()(image), logits)


def test_the_plain_network_is_left_without_the_image() -> None:
    whole, plain = (DualStream(3, 2, (2, 2), UNET, restores=r) for r in (True, False))
    shipped = count_parameters(whole.mask_stream())
    assert count_parameters(plain) == shipped < count_parameters(whole)


def test_the_skip_is_the_interpolated_image() -> None:
    torch.manual_seed(0)
    streams = DualStream(1, 2, (2, 2), UNET).eval()
    for part in streams.sr_head.parameters():
        part.data.zero_()
    image = torch.full((1, 1, 8, 8), 7.0)
    assert torch.equal(streams.restore(image), torch.full((1, 1, 16, 16), 7.0))


def test_deeplab_interpolates() -> None:
    with pytest.raises(UsageError, match="head=interpolate"):
        StreamOptions(backbone="deeplab")


def test_a_softmax_of_two_starts_where_the_sigmoid_does() -> None:
    torch.manual_seed(0)
    features = torch.zeros(1, 4, 3, 3)
    one, two = (MaskHead(4, 2, (2, 2), "interpolate", softmax=s)(features) for s in (False, True))
    assert (one.shape[1], two.shape[1]) == (1, 2)
    torch.testing.assert_close(torch.sigmoid(one), torch.softmax(two, 1)[:, 1:])


def test_aligned_corners_stay() -> None:
    x = torch.rand(1, 2, 3, 4)
    fine = align(x, (6, 8))
    torch.testing.assert_close(fine[..., [0, 0, -1], [0, -1, -1]], x[..., [0, 0, -1], [0, -1, -1]])
    head = MaskHead(2, 2, (2, 2), "interpolate", aligned=True)
    torch.testing.assert_close(head(x), align(head.conv(x), (6, 8)))


def test_aligned_and_true_extent_differ_in_interpolation_only() -> None:
    torch.manual_seed(0)
    aligned, resized = (kind(4, 2, Style(norm="batch")).eval() for kind in (AlignedUp, ResizeUp))
    resized.load_state_dict(aligned.state_dict())
    flat, x = torch.ones(1, 4, 3, 3), torch.randn(1, 4, 3, 3)
    torch.testing.assert_close(aligned(flat, (6, 6)), resized(flat, (6, 6)))
    assert not torch.allclose(aligned(x, (6, 6)), resized(x, (6, 6)))


@pytest.mark.parametrize("side", [1, 6, 7])
def test_an_overlapping_pool_rounds_up(side: int) -> None:
    x = torch.arange(float(side)).expand(1, 1, side, side)
    pooled = OverlappingMaxPool(1, Style())(x)
    assert pooled.shape[2:] == (-(-side // 2),) * 2
    wanted = [min(2 * k + 1, side - 1) for k in range(-(-side // 2))]
    assert pooled[0, 0, 0].tolist() == wanted


def test_a_sub_pixel_head_has_no_bias_and_one_image() -> None:
    head = SubPixelHead(64, 3, (2, 2), 64)
    assert count_parameters(head) == 64 * 64 * 25 + 64 * 32 * 9 + 32 * 12 * 9
    assert head(torch.zeros(1, 64, 5, 6)).abs().sum() == 0
    assert head(torch.zeros(1, 64, 5, 6)).shape == (1, 3, 10, 12)
