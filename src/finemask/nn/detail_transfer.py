"""DRTM, the detail representation transfer module: a super-resolution network's features,
made ready for segmentation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from finemask.nn.blocks import ConvBlock, Style, make_conv, resize


class DetailBranch(nn.Module):
    """Find where features change within a neighbourhood, and bring that out.

    Args:
        width: Feature maps, C.
        dims: 2 or 3.
        dilation: Of the convolution with the wide view.
    """

    def __init__(self, width: int, dims: int, dilation: int = 2) -> None:
        super().__init__()
        self.high = make_conv(dims, width, width, 1)
        self.low = make_conv(dims, width, width, 3, dilation=dilation)

    def contrast(self, f_sr: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *s"]:
        """``F_h = sigmoid(C_h(F_SR) - C_l(F_SR))``: a point against its surroundings, in (0, 1).

        Paper: dsnet Eq. (9)
        """
        return torch.sigmoid(self.high(f_sr) - self.low(f_sr))

    def forward(self, f_sr: Float[Tensor, " b c *s"]) -> Float[Tensor, " b c *s"]:
        """``F_d = F_SR F_h``: features where there is detail.

        Paper: dsnet Eq. (10)
        """
        return f_sr * self.contrast(f_sr)


class ChannelSelection(nn.Module):
    """Choose channel by channel between two branches, by what both see over the whole image.

    Args:
        width: Feature maps of each branch, C.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.reduce = nn.Sequential(nn.Linear(2 * width, width), nn.ReLU(inplace=True))
        self.to_context = nn.Linear(width, width)
        self.to_detail = nn.Linear(width, width)

    @staticmethod
    def describe(
        f_c: Float[Tensor, " b c *s"], f_d: Float[Tensor, " b c *s"]
    ) -> Float[Tensor, " b d"]:
        """``v_z``: the mean of each map of both branches, those of the detail first.

        Paper: dsnet Eq. (11)
        """
        return torch.cat([f_d, f_c], 1).flatten(2).mean(2)

    def logits(
        self, v_z: Float[Tensor, " b d"]
    ) -> tuple[Float[Tensor, " b c"], Float[Tensor, " b c"]]:
        """``v_c`` and ``v_d``, by one fully connected layer that is shared and one for each.

        Paper: dsnet Eq. (12)
        """
        shared = self.reduce(v_z)
        return self.to_context(shared), self.to_detail(shared)

    @staticmethod
    def shares(
        v_c: Float[Tensor, " b c"], v_d: Float[Tensor, " b c"]
    ) -> tuple[Float[Tensor, " b c"], Float[Tensor, " b c"]]:
        """``a`` and ``b`` with ``a + b = 1``: a softmax over the two branches in each channel.

        Paper: dsnet Eq. (13)

        Example:
            >>> ChannelSelection.shares(torch.zeros(1, 1), torch.zeros(1, 1))
            (tensor([[0.5000]]), tensor([[0.5000]]))
        """
        a, b = torch.softmax(torch.stack([v_c, v_d]), 0)
        return a, b

    def forward(
        self, f_c: Float[Tensor, " b c *s"], f_d: Float[Tensor, " b c *s"]
    ) -> Float[Tensor, " b c *s"]:
        """``F_out = a F_c + b F_d``.

        Paper: dsnet Eq. (14)
        """
        a, b = self.shares(*self.logits(self.describe(f_c, f_d)))
        a, b = (share.reshape(*share.shape, *[1] * (f_c.ndim - 2)) for share in (a, b))
        return a * f_c + b * f_d


class DetailTransfer(nn.Module):
    """Figure 5: context branch, detail branch and their fusion.

    Args:
        channels: Image channels.
        width: Feature maps of the super-resolution network, C.
        dims: 2 or 3.
        convs: 3x3 convolution blocks of the context branch.
        dilation: See ``DetailBranch``.
        detail: Bring out detail (DTM); else its branch is ``F_SR`` as it is.
        select: Fuse by ``ChannelSelection`` (CSF); else by the mean of both branches.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        dims: int,
        convs: int = 1,
        dilation: int = 2,
        detail: bool = True,
        select: bool = True,
    ) -> None:
        super().__init__()
        style = Style(dims, norm="batch")
        self.context = nn.Sequential(
            *(ConvBlock(width if n else 2 * channels, width, style) for n in range(convs))
        )
        self.detail = DetailBranch(width, dims, dilation) if detail else nn.Identity()
        self.select = ChannelSelection(width) if select else None

    def forward(
        self,
        image_lr: Float[Tensor, " b c *s"],
        image_sr: Float[Tensor, " b c *hr"],
        f_sr: Float[Tensor, " b w *hr"],
    ) -> Float[Tensor, " b w *hr"]:
        enlarged = resize(image_lr, image_sr.shape[2:])
        f_c, f_d = self.context(torch.cat([enlarged, image_sr], 1)), self.detail(f_sr)
        return (f_c + f_d) / 2 if self.select is None else self.select(f_c, f_d)
