"""Batches of changing size: one extent on every grid, and the same draw after an interruption."""

from __future__ import annotations

from itertools import islice, repeat

import pytest
import torch

from finemask.pairs.batches import Batch
from finemask.pairs.guidance import CropGuide
from finemask.pairs.resizing import resized, resized_batches


def ramp(*sides: int) -> torch.Tensor:
    """The physical place of every voxel along the last axis of an image one unit wide."""
    places = (torch.arange(sides[-1]) + 0.5) / sides[-1]
    return places.expand(1, 1, *sides).clone()


def batch_of(lr: tuple[int, ...], scale: tuple[int, ...]) -> Batch:
    hr = [n * f for n, f in zip(lr, scale, strict=True)]
    return Batch(ramp(*lr), ramp(*hr), ramp(*hr), names=("case",))


@pytest.mark.parametrize("factor", [0.5, 0.7, 1.0, 1.25, 2.0])
@pytest.mark.parametrize("scale", [(2, 2), (1, 3), (1, 2, 2)])
def test_every_grid_keeps_the_extent(factor: float, scale: tuple[int, ...]) -> None:
    """A voxel holds its own place before and after, but for the outermost, which repeat."""
    batch = batch_of((4, 16, 24)[-len(scale) :], scale)
    out = resized(batch, factor, scale)
    for maps in (out.image_lr, out.image_hr, out.target):
        expected = ramp(*maps.shape[2:])
        inside = (..., slice(2, -2))
        torch.testing.assert_close(maps[inside], expected[inside], atol=1e-6, rtol=0)
    ratio = [h / n for h, n in zip(out.image_hr.shape[2:], out.image_lr.shape[2:], strict=True)]
    assert ratio == list(scale)
    assert out.names == batch.names


@pytest.mark.parametrize(
    ("factor", "sides"), [(0.01, (16, 16)), (0.6, (16, 32)), (1.0, (32, 48)), (1.3, (48, 64))]
)
def test_lr_sides_are_multiples_of_the_stride(factor: float, sides: tuple[int, int]) -> None:
    out = resized(batch_of((32, 48), (2, 2)), factor, (2, 2), stride=16)
    assert tuple(out.image_lr.shape[2:]) == sides


def test_the_number_of_a_batch_decides_its_size() -> None:
    batch, factors = batch_of((32, 32), (2, 2)), (0.25, 0.5, 0.75, 1.0)

    def sides(first: int, count: int) -> list[int]:
        stream = resized_batches(repeat(batch), factors, (2, 2), seed=3, first=first)
        return [b.image_lr.shape[-1] for b in islice(stream, count)]

    whole = sides(0, 40)
    assert set(whole) == {8, 16, 24, 32}
    assert sides(25, 15) == whole[25:]


def test_without_factors_batches_pass_untouched() -> None:
    batch = batch_of((32, 32), (2, 2))
    assert next(resized_batches([batch], (), (2, 2), seed=0)) is batch


def test_guidance_is_cut_from_the_resized_image() -> None:
    guide = CropGuide("central", parts=2)
    out = resized(batch_of((16, 16), (2, 2)), 0.5, (2, 2), guide=guide)
    assert out.guidance is not None
    assert torch.equal(out.guidance, out.image_hr[:, :, 4:12, 4:12])
