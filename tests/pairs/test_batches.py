"""Training samples: the same by number however they are made, and aligned through every change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import settings as budget
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from finemask.case import Case
from finemask.errors import DataError, UsageError
from finemask.geometry import Geometry
from finemask.pairs.batches import Batch, PairDataset, Sample, collate
from finemask.pairs.cache import PreparedCases
from finemask.pairs.degradation import LEAST_SIDE, downsample, make_pair
from finemask.pairs.guidance import CropGuide
from finemask.pairs.resizing import resized
from finemask.preparation import prepare
from finemask.recipe import PairSettings, PrepareSettings

STILL = PairSettings(
    flip=False, rotation_deg=0.0, zoom=0.0, intensity=0.0, lesion_fraction=0.0, crop=(16,)
)
FULL = PairSettings(warp_probability=1.0, rotation_deg=25.0, zoom=0.2, intensity=0.0, crop=(32,))


def smooth_case(shape: Sequence[int], name: str = "a", channels: int = 1, seed: int = 0) -> Case:
    """An image with a few lesions; the first channel is the mask itself."""
    rng = np.random.default_rng(seed)
    truth = np.zeros(shape, np.uint8)
    index = np.indices(shape)
    for label in (1, 2, 1):
        centre = [rng.uniform(0.2, 0.8) * n for n in shape]
        far = sum((i - c) ** 2 for i, c in zip(index, centre, strict=True))
        truth[far < (min(shape) / 6) ** 2] = label
    image = rng.normal(size=(channels, *shape)).astype(np.float32)
    image[0] = truth
    spacing = (2.0, 0.8, 0.8)[-len(shape) :]
    return Case(name, image, Geometry.regular(shape, spacing), truth=truth)


def same(one: Sample, two: Sample) -> bool:
    arrays = ("image_lr", "image_hr", "target")
    equal = all(np.array_equal(getattr(one, f), getattr(two, f)) for f in arrays)
    return equal and one.name == two.name


@pytest.mark.parametrize(
    ("shape", "scale", "crop"),
    [
        ((40, 50), (2, 2), (32, 32)),
        ((12, 40, 36), (1, 2, 2), (8, 16, 24)),
        ((13, 9), (4, 2), (16,)),
    ],
)
@pytest.mark.parametrize("degrade", ["area", "blur"])
def test_samples_have_the_shapes_of_the_contract(
    shape: tuple[int, ...], scale: tuple[int, ...], crop: tuple[int, ...], degrade: str
) -> None:
    cases = [smooth_case(shape, name, channels=3, seed=k) for k, name in enumerate("abc")]
    settings = replace(FULL, crop=crop, degrade=degrade, noise=0.1)
    dataset = PairDataset(cases, scale, settings, 2, seed=1, guide=CropGuide("central"))
    batch = collate([dataset[n] for n in range(4)])
    sides = dataset.crop
    assert batch.image_hr.shape == (4, 3, *sides)
    assert batch.target.shape == (4, 2, *sides)
    assert batch.image_lr.shape == (4, 3, *(s // f for s, f in zip(sides, scale, strict=True)))
    assert batch.guidance.shape == (4, 3, *(side // 4 for side in sides))
    assert set(batch.names) == {"a", "b", "c"}
    for tensor in (batch.image_lr, batch.image_hr, batch.target, batch.guidance):
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("shape", [(60, 70), (20, 40, 44)])
@pytest.mark.parametrize("target", ["hard", "soft", "readers"])
def test_image_and_target_move_together(shape: tuple[int, ...], target: str) -> None:
    """Warping an image that equals its mask gives a mask that equals the image."""
    case = smooth_case(shape)
    truth = (case.truth > 0).astype(np.uint8)
    case = replace(
        case,
        truth=truth,
        soft=truth[None].astype(np.float32),
        readers=np.stack([truth, truth]),
        image=np.pad(truth, 0)[None].astype(np.float32),
    )
    settings = replace(FULL, target=target, crop=(12, 32, 32)[-len(shape) :])
    dataset = PairDataset([case], (2,) * len(shape), settings, 1, seed=0)
    positive = 0
    for number in range(12):
        sample = dataset[number]
        inside = slice(2, -2)  # beyond the image its edge goes on, but no lesion does
        image, mask = (a[(0, *(inside,) * len(shape))] for a in (sample.image_hr, sample.target))
        if target == "hard":
            assert set(np.unique(mask)) <= {0, 1}
            apart = np.mean((image >= 0.5) != (mask == 1))
        else:
            assert ((mask > 0) & (mask < 1)).any() or not mask.any()
            apart = np.abs(image - mask).max()
        assert apart < 1e-3
        np.testing.assert_allclose(
            downsample(sample.image_hr, (2,) * len(shape)), sample.image_lr, atol=1e-5
        )
        positive += bool(mask.any())
    assert positive > 5


def test_classes_move_together() -> None:
    case = smooth_case((64, 64))
    truth = np.kron(np.random.default_rng(0).integers(0, 3, (8, 8)), np.ones((8, 8))).astype(int)
    soft = np.stack([truth == 1, truth == 2]).astype(np.float32)
    case = replace(case, truth=truth, image=soft)
    dataset = PairDataset([case], (2, 2), replace(FULL, crop=(16, 16)), 2, seed=3)
    for number in range(8):
        sample = dataset[number]
        assert sample.target.sum(0).max() <= 1
        sure = sample.image_hr.max(0) > 0.6
        wrong = (sample.image_hr.argmax(0) != sample.target.argmax(0)) & sure
        assert not wrong[1:-1, 1:-1].any()


@pytest.mark.parametrize("degrade", ["area", "blur"])
@pytest.mark.parametrize("normalise", ["none", "zscore"])
def test_a_still_sample_is_a_window_of_the_matched_pair(degrade: str, normalise: str) -> None:
    """So that training sees what validation and users see, blur and normalisation included."""
    case = smooth_case((48, 40), channels=2)
    settings = replace(STILL, degrade=degrade, blur_sigma=0.7)
    pair = make_pair(case, (2, 2), settings, normalise=normalise)
    dataset = PairDataset([case], (2, 2), settings, 2, seed=0, normalise=normalise)
    windows = {
        (a, b): pair.hr.image[:, a : a + 16, b : b + 16] for a in range(33) for b in range(25)
    }
    on_grid = 0
    for number in range(30):
        sample = dataset[number]
        (start,) = [s for s, w in windows.items() if np.allclose(w, sample.image_hr, atol=1e-4)]
        truth = case.truth[start[0] : start[0] + 16, start[1] : start[1] + 16]
        np.testing.assert_array_equal(sample.target, np.stack([truth == 1, truth == 2]))
        if start[0] % 2 == start[1] % 2 == 0:
            on_grid += 1
            a, b = start[0] // 2, start[1] // 2
            expected = pair.lr.image[:, a : a + 8, b : b + 8]
            np.testing.assert_allclose(sample.image_lr, expected, atol=1e-4)
    assert on_grid > 2


@budget(max_examples=40, deadline=None)
@given(
    st.tuples(*[st.integers(1, 30)] * 2), st.sampled_from([(1, 1), (2, 2), (3, 1), (4, 4)]),
    st.integers(0, 5),
)  # fmt: skip
@pytest.mark.fault("F75")
def test_any_image_fills_any_crop(shape: tuple[int, int], scale: tuple[int, int], n: int) -> None:
    assume(all(f == 1 or s > (LEAST_SIDE - 1) * f for s, f in zip(shape, scale, strict=True)))
    case = smooth_case(shape, channels=2)
    dataset = PairDataset([case], scale, replace(FULL, crop=(24, 12)), 2, seed=0)
    sample = dataset[n]
    assert sample.image_hr.shape == (2, *dataset.crop)
    assert np.isfinite(sample.image_hr).all()
    assert sample.image_hr.min() >= case.image.min() - 1e-5
    assert sample.image_hr.max() <= case.image.max() + 1e-5


def test_numbers_decide_alone() -> None:
    cases = [smooth_case((40, 40), name, seed=k) for k, name in enumerate("abc")]
    one, two = (PairDataset(cases, (2, 2), FULL, 2, seed=7) for _ in range(2))
    forward = [one[n] for n in range(9)]
    backward = [two[n] for n in reversed(range(9))][::-1]
    assert all(same(a, b) for a, b in zip(forward, backward, strict=True))
    other = PairDataset(cases, (2, 2), FULL, 2, seed=8)
    assert not all(same(a, other[n]) for n, a in enumerate(forward))
    assert not any(same(forward[0], sample) for sample in forward[1:])
    alone = PairDataset(cases[:1], (2, 2), FULL, 2, seed=7)
    assert len({alone[n].image_hr.tobytes() for n in range(40)}) == 40


def test_an_epoch_is_every_case_once_in_its_own_order() -> None:
    cases = [smooth_case((20, 20), str(k)) for k in range(6)]
    dataset = PairDataset(cases, (2, 2), STILL, 2, seed=0)
    orders = [[dataset[6 * epoch + k].name for k in range(6)] for epoch in range(4)]
    assert all(sorted(order) == list("012345") for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert len(dataset) == 6
    assert [sample.name for sample in dataset] == orders[0]


def test_workers_and_resuming_change_nothing() -> None:
    cases = [smooth_case((40, 40), name, seed=k) for k, name in enumerate("abc")]
    prepared = PreparedCases("abc", {c.name: c for c in cases}.__getitem__, PrepareSettings())
    dataset = PairDataset(prepared, (2, 2), replace(FULL, noise=0.2), 2, seed=7)

    def batches(first: int, workers: int) -> list[Batch]:
        loader = DataLoader(
            dataset, 4, sampler=range(first, 24), num_workers=workers, collate_fn=collate
        )
        return list(loader)

    alone, resumed = batches(0, 0), batches(8, 0)
    for others, expected in ((batches(0, 2), alone), (resumed, alone[2:])):
        for one, two in zip(others, expected, strict=True):
            assert one.names == two.names
            for field in ("image_lr", "image_hr", "target"):
                assert torch.equal(getattr(one, field), getattr(two, field))


def test_cases_are_never_written() -> None:
    case = smooth_case((40, 40), channels=2)
    image, truth = case.image.copy(), case.truth.copy()
    loud = replace(FULL, intensity=0.5, noise=1.0)
    for settings in (loud, replace(loud, warp_probability=0.0), replace(STILL, intensity=0.5)):
        dataset = PairDataset([case], (2, 2), settings, 2, seed=0, normalise="zscore")
        for number in range(8):
            sample = dataset[number]
            for array in (sample.image_hr, sample.image_lr, sample.target):
                assert not np.shares_memory(array, case.image)
                array[...] = -5
    np.testing.assert_array_equal(case.image, image)
    np.testing.assert_array_equal(case.truth, truth)


def test_tiny_lesions_are_seen_as_often_as_huge_ones() -> None:
    truth = np.zeros((200, 200), np.uint8)
    truth[:80, :80], truth[170, 150] = 1, 2
    case = Case("a", np.zeros((1, 200, 200), np.float32), Geometry.regular((200, 200)), truth=truth)
    settings = PairSettings(crop=(32, 32), lesion_fraction=1.0, warp_probability=1.0)
    dataset = PairDataset([case], (2, 2), settings, 2, seed=0)
    seen = np.mean([dataset[n].target.any((1, 2)) for n in range(100)], axis=0)
    # Interpolation may lose a lesion of a single voxel, the window does not miss it.
    assert 0.3 < seen[0] < 0.7
    assert 0.2 < seen[1] < 0.6
    still = replace(settings, warp_probability=0.0)
    dataset = PairDataset([case], (2, 2), still, 2, seed=0)
    seen = np.mean([dataset[n].target.any((1, 2)) for n in range(200)], axis=0)
    np.testing.assert_allclose(seen, 0.5, atol=0.1)


def test_lesion_fraction_of_zero_is_blind_to_lesions() -> None:
    case = smooth_case((64, 64))
    empty = replace(case, truth=np.zeros_like(case.truth))
    one, two = (
        PairDataset([c], (2, 2), replace(STILL, lesion_fraction=f), 2, seed=0)
        for c, f in ((case, 0.0), (empty, 1.0))
    )
    assert all(np.array_equal(one[n].image_hr, two[n].image_hr) for n in range(5))


def test_intensity_is_the_same_on_both_grids() -> None:
    case = smooth_case((32, 32), channels=2)
    settings = replace(STILL, intensity=0.3, crop=(32, 32))
    dataset = PairDataset([case], (2, 2), settings, 2, seed=0)
    changed = [dataset[n] for n in range(5)]
    for sample in changed:
        np.testing.assert_allclose(downsample(sample.image_hr, (2, 2)), sample.image_lr, atol=1e-5)
        gain, shift = np.polyfit(case.image.ravel(), sample.image_hr.ravel(), 1)
        np.testing.assert_allclose(case.image * gain + shift, sample.image_hr, atol=1e-4)
        assert 0.7 <= gain <= 1.3
        assert -0.3 <= shift <= 0.3
    assert np.ptp([sample.image_hr.mean() for sample in changed]) > 0.01


@pytest.mark.parametrize("shape", [(40, 48), (12, 40, 48)])
def test_real_lr_images_move_with_their_hr_images(shape: tuple[int, ...]) -> None:
    """A real LR image that happens to be the block mean stays it, to interpolation."""
    index = np.indices(shape).astype(np.float32)
    waves = np.stack([np.sin(index[-1] / 9) + index[-2] / 30, np.cos(index[-2] / 8)])
    case = replace(smooth_case(shape), image=waves)
    scale = (1, 2, 2)[-len(shape) :]
    lr = make_pair(case, scale).lr
    settings = replace(FULL, degrade="real", crop=(8, 24, 24)[-len(shape) :], intensity=0.2)
    dataset = PairDataset([case], scale, settings, 2, seed=0, lr_cases=[lr])
    for number in range(10):
        sample = dataset[number]
        apart = np.abs(downsample(sample.image_hr, scale) - sample.image_lr)
        inside = (..., slice(4, -4), slice(4, -4))
        assert apart[inside].max() < 0.03
    other = replace(lr, image=lr.image + 1)
    dataset = PairDataset([case], scale, replace(STILL, degrade="real"), 2, 0, lr_cases=[other])
    sample = dataset[0]
    np.testing.assert_allclose(downsample(sample.image_hr, scale) + 1, sample.image_lr, atol=1e-5)


@pytest.mark.parametrize("normalise", ["zscore", "minmax"])
def test_real_samples_are_windows_of_the_matched_pair(normalise: str) -> None:
    """Both grids are normalised by the LR image, in training as in validation."""
    case = smooth_case((48, 40), channels=2)
    case = replace(case, image=100 + 20 * case.image)
    settings = replace(STILL, degrade="real", crop=(48, 40))
    lr = make_pair(case, (2, 2)).lr
    pair = make_pair(case, (2, 2), settings, lr, normalise=normalise)
    dataset = PairDataset([case], (2, 2), settings, 2, seed=0, lr_cases=[lr], normalise=normalise)
    sample = dataset[0]
    np.testing.assert_allclose(sample.image_hr, pair.hr.image, atol=1e-4)
    np.testing.assert_allclose(sample.image_lr, pair.lr.image, atol=1e-4)
    np.testing.assert_allclose(downsample(sample.image_hr, (2, 2)), sample.image_lr, atol=1e-4)


def test_crops_follow_the_stride_and_the_data() -> None:
    case = smooth_case((40, 100))

    def crop_of(settings: PairSettings, **options: object) -> tuple[int, ...]:
        return PairDataset([case], (2, 2), settings, 2, seed=0, **options).crop

    assert crop_of(PairSettings(), stride=8) == (48, 112)
    assert crop_of(PairSettings(crop=(30,)), stride=4) == (32, 32)
    assert crop_of(PairSettings(crop=(30,)), crop=(64, 32)) == (64, 32)
    with pytest.raises(UsageError):
        crop_of(PairSettings(crop=(8, 8, 8)))


@pytest.mark.fault("F30")
def test_faulty_cases_are_named_before_training() -> None:
    good, flat = smooth_case((40, 40), "good"), replace(smooth_case((40, 40), "bad"), truth=None)
    with pytest.raises(DataError, match="case bad has no truth"):
        PairDataset([good, flat], (2, 2), STILL, 2, seed=0)
    with pytest.raises(DataError, match="case good has 2 foreground classes"):
        PairDataset([good], (2, 2), STILL, 1, seed=0)
    with pytest.raises(DataError, match="case good is 2-D, the scale has 3 axes"):
        PairDataset([good], (2, 2, 2), STILL, 2, seed=0)
    with pytest.raises(DataError, match="case rgb has 3 channels, the first case has 1"):
        PairDataset([good, smooth_case((9, 9), "rgb", 3)], (2, 2), STILL, 2, seed=0)
    with pytest.raises(UsageError, match="case good of 40 x 40 voxels .* 1 x 20 at scale 100 x 2"):
        PairDataset([good], (100, 2), STILL, 2, seed=0)
    with pytest.raises(DataError, match="are none"):
        PairDataset([], (2, 2), STILL, 2, seed=0)
    with pytest.raises(DataError, match="has no LR image of its own"):
        PairDataset([good], (2, 2), replace(STILL, degrade="real"), 2, seed=0)


@pytest.mark.parametrize("shape", [(24, 24), (9, 24, 24)])
def test_empty_and_full_masks_make_samples(shape: tuple[int, ...]) -> None:
    for value in (0, 1):
        case = prepare(
            Case(
                "a",
                np.full((1, *shape), 3, np.float32),
                Geometry.regular(shape),
                truth=np.full(shape, value),
            )
        )
        dataset = PairDataset(
            [case], (2,) * len(shape), replace(FULL, crop=(8,)), 1, 0, normalise="zscore"
        )
        for number in range(6):
            sample = dataset[number]
            assert not sample.image_lr.any()
            assert set(np.unique(sample.target)) <= {0, value}


def test_a_soft_target_and_the_binary_mask_move_together() -> None:
    """The soft mask here is the mask at half its height, so the two tell each other."""
    case = smooth_case((60, 60))
    truth = (case.truth > 0).astype(np.uint8)
    case = replace(case, truth=truth, soft=0.5 * truth[None].astype(np.float32))
    settings = replace(FULL, target="soft")
    both = PairDataset([case], (2, 2), settings, 1, seed=1, two_labels=True)
    alone = PairDataset([case], (2, 2), settings, 1, seed=1)
    for number in range(6):
        sample, plain = both[number], alone[number]
        np.testing.assert_array_equal(sample.mask, (sample.target >= 0.25).astype(np.float32))
        assert 0 < sample.mask.mean() < 1
        assert plain.mask is None
        assert same(sample, plain), "the mask changes nothing else"
    batch = collate([both[n] for n in range(2)])
    assert batch.mask.shape == batch.target.shape
    small = resized(batch, 0.5, (2, 2), stride=4)
    assert small.mask.shape == small.target.shape
    assert set(small.mask.unique().tolist()) <= {0.0, 1.0}


def test_without_a_binary_mask_in_every_case_there_is_none() -> None:
    first = smooth_case((40, 40))
    soft = (first.truth > 0).astype(np.float32)[None]
    first = replace(first, soft=soft, truth=soft[0].astype(np.uint8))
    cases = [first, replace(first, name="b", truth=None)]
    for these, target in ((cases, "soft"), (cases[:1], "hard")):
        settings = replace(FULL, target=target)
        assert PairDataset(these, (2, 2), settings, 1, seed=1, two_labels=True)[0].mask is None


def test_images_alone_give_samples_without_maps() -> None:
    case = replace(smooth_case((40, 40)), truth=None)
    settings = replace(FULL, target="none", lesion_fraction=1.0)
    batch = collate([PairDataset([case], (2, 2), settings, 1, seed=1)[n] for n in range(2)])
    assert batch.target.shape == (2, 0, 32, 32)
    assert batch.image_hr.shape == (2, 1, 32, 32)
    assert resized(batch, 0.5, (2, 2)).target.shape == (2, 0, 16, 16)


def test_a_shift_moves_image_and_labels_alike_within_the_plane() -> None:
    truth = np.zeros((8, 40, 40), np.uint8)
    truth[:, 16:24, 16:24] = 1
    geometry = Geometry.regular((8, 40, 40), (5.0, 1.0, 1.0))
    case = Case("a", truth[None].astype(np.float32), geometry, truth=truth)
    settings = PairSettings(
        whole=True,
        shift=0.2,
        flip=False,
        rotation_deg=0.0,
        zoom=0.0,
        intensity=0.0,
        warp_probability=1.0,
        lesion_fraction=0.0,
    )
    dataset = PairDataset([case], (1, 2, 2), settings, 1, seed=0)
    assert dataset.crop == (8, 40, 40)
    corners = []
    for sample in (dataset[n] for n in range(12)):
        np.testing.assert_array_equal(sample.image_hr, sample.target)
        corners.append([int(places.min()) for places in np.nonzero(sample.target[0])])
    assert {corner[0] for corner in corners} == {0}  # never through the slices
    for axis in (1, 2):
        moved = {corner[axis] - 16 for corner in corners}
        assert len(moved) > 4
        assert max(map(abs, moved)) <= 8
