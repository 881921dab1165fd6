"""Heads: grids, scales, and what an untrained one says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from finemask.nn.outputs import foreground_probs
from finemask.nn.superres import ImageHead, MaskHead, pixel_shuffle, pixel_unshuffle

SCALES = [(1, 1), (2, 2), (4, 4), (3, 1), (1, 2, 2), (2, 2, 2), (1, 1, 1)]
scales = st.lists(st.integers(1, 3), min_size=2, max_size=3)


@settings(max_examples=30, deadline=None)
@given(scales)
def test_unshuffling_undoes_shuffling(scale: list[int]) -> None:
    shape = (2, 3 * int(np.prod(scale)), *(range(2, 2 + len(scale))))
    x = torch.arange(float(np.prod(shape))).reshape(shape)
    fine = pixel_shuffle(x, scale)
    assert fine.shape == (2, 3, *(n * s for n, s in zip(shape[2:], scale, strict=True)))
    assert torch.equal(pixel_unshuffle(fine, scale), x)


@pytest.mark.parametrize("scale", [2, 3])
def test_shuffling_in_2d_is_pytorchs(scale: int) -> None:
    x = torch.randn(2, 2 * scale**2, 3, 4)
    assert torch.equal(pixel_shuffle(x, (scale, scale)), F.pixel_shuffle(x, scale))
    y = torch.randn(2, 2, 3 * scale, 4 * scale)
    assert torch.equal(pixel_unshuffle(y, (scale, scale)), F.pixel_unshuffle(y, scale))


def test_shuffling_places_each_channel_by_index() -> None:
    x = torch.randn(1, 12, 2, 3, 2)
    fine = pixel_shuffle(x, (1, 2, 3))
    for i, j in np.ndindex(2, 3):
        assert torch.equal(fine[:, :, :, i::2, j::3], x[:, [i * 3 + j, 6 + i * 3 + j]])


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", ["interpolate", "shuffle"])
def test_masks_lie_on_the_hr_grid(scale: tuple[int, ...], classes: int, kind: str) -> None:
    sides = (3, 4, 5)[: len(scale)]
    logits = MaskHead(6, classes, scale, kind)(torch.randn(2, 6, *sides))
    hr = tuple(n * s for n, s in zip(sides, scale, strict=True))
    assert logits.shape == (2, 1 if classes == 2 else 4, *hr)


@pytest.mark.parametrize("kind", ["interpolate", "shuffle"])
@pytest.mark.parametrize("classes", [1, 2, 3, 5])
def test_an_untrained_head_expects_little_foreground(classes: int, kind: str) -> None:
    probs = foreground_probs(MaskHead(4, classes, (2, 2), kind)(torch.zeros(1, 4, 3, 3)))
    torch.testing.assert_close(probs.sum(1), torch.full((1, 6, 6), 0.1))


def test_shuffling_starts_as_nearest_enlargement() -> None:
    head = MaskHead(4, 3, (2, 3), "shuffle")
    logits = head(torch.randn(1, 4, 3, 3))
    coarse = logits[:, :, ::2, ::3]
    torch.testing.assert_close(logits, coarse.repeat_interleave(2, 2).repeat_interleave(3, 3))


@pytest.mark.parametrize("scale", SCALES)
def test_images_lie_on_the_hr_grid(scale: tuple[int, ...]) -> None:
    sides = (3, 4, 5)[: len(scale)]
    head = ImageHead(6, 3, scale, inner=4)
    x = torch.randn(2, 6, *sides)
    hr = tuple(n * s for n, s in zip(sides, scale, strict=True))
    assert head.features(x).shape == (2, 4, *hr)
    assert head(x).shape == (2, 3, *hr)
    assert torch.equal(head.output(head.features(x)), head(x))


def test_an_image_head_can_enlarge_exactly() -> None:
    """With its residual body silent it can copy each LR voxel: nothing is shifted."""
    head = ImageHead(1, 1, (2, 3))
    with torch.no_grad():
        for p in head.parameters():
            p.zero_()
        head.up.weight.fill_(1)
        head.output.weight.fill_(1)
        x = torch.arange(6.0).reshape(1, 1, 2, 3)
        assert torch.equal(head(x), x.repeat_interleave(2, 2).repeat_interleave(3, 3))
