"""Test-phase fine-tuning: what it learns from, what it leaves alone, and what it refuses."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from finemask.adapt import Tuning, adapt, batch_of, fine_tuned, own_labels
from finemask.datasets import Split, make_phantoms
from finemask.errors import UsageError
from finemask.inference.cohort import predict
from finemask.inference.inputs import find_sources
from finemask.inference.model import Machine
from finemask.inference.view import view_case
from finemask.io import read_labels
from finemask.runs import Run, load_run
from finemask.training.loop import train

SMALL = ["steps=2", "config.width=4", "config.depth=3", "config.msres=none", "validate_cases=1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapt")
    return make_phantoms(folder / "data", kind="nodules", cases=6, size=(16, 24, 24))


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(
        data, tmp_path_factory.mktemp("adapt") / "run", method="pfseg", scale=(2,), settings=SMALL
    )


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: w.clone() for name, w in run.method.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("strategy", "parts"),
    [
        ("tfm", {"encoder", "sgm", "ust", "srt"}),
        ("srt", {"encoder", "sgm", "srt"}),
        ("srt+ust", {"encoder", "sgm", "ust", "srt"}),
        ("srt+ust+tfm", {"encoder", "sgm", "ust", "srt"}),
    ],
)
def test_each_strategy_moves_its_parts_and_never_the_given_run(
    run: Run, data: Path, strategy: str, parts: set[str]
) -> None:
    before, sources = weights(run), find_sources([data])[:2]
    new, labels, failures = fine_tuned(run, sources, Tuning(strategy), Machine())
    assert changed(before, weights(run)) == set()
    assert changed(before, weights(new)) == parts
    assert not failures
    assert set(labels) == {source.name for source in sources}
    step = max(float((before[k] - v).abs().max()) for k, v in weights(new).items())
    assert step < 2.1e-5  # Adam moves a weight by the learning rate a step at most, two steps
    assert not any(p.requires_grad for p in new.method.parameters())
    assert new.segmenter.window == run.segmenter.window


def test_the_truth_is_the_runs_own_mask_and_the_image_itself(run: Run, data: Path) -> None:
    source = find_sources([data])[0]
    view = view_case(run.recipe, source.read(), mode="matched")
    labels = own_labels(run, view, Machine())
    batch = batch_of(run, source, labels)
    inside = tuple(slice(0, n) for n in view.hr.image.shape[1:])
    np.testing.assert_array_equal(batch.target[(0, 0, *inside)], labels == 1)
    np.testing.assert_allclose(batch.image_hr[(0, slice(None), *inside)], view.hr.image, atol=1e-5)
    np.testing.assert_allclose(
        batch.image_lr[(0, slice(None), *(slice(0, n) for n in view.lr.image.shape[1:]))],
        view.lr.image,
        atol=1e-5,
    )
    guidance = run.guidance(view.hr.image)
    assert batch.guidance[0].shape == guidance.shape


def test_more_steps_lower_the_test_phase_loss(run: Run, data: Path) -> None:
    source = find_sources([data])[0]
    labels = own_labels(run, view_case(run.recipe, source.read(), mode="matched"), Machine())

    def loss(of: Run) -> float:
        with torch.no_grad():
            parts = of.method.losses(batch_of(run, source, labels))
        return float(parts["L_tel"] + parts["L_ssl"])

    new, *_ = fine_tuned(run, [source], Tuning("tfm", epochs=8, learning_rate=1e-3), Machine())
    assert loss(new) < loss(run)


def test_a_new_run_is_left_and_the_old_one_is_bit_for_bit_the_same(
    run: Run, data: Path, tmp_path: Path
) -> None:
    files = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    outcome = adapt(run, data, tmp_path / "run2", part="test", learning_rate=1e-3)
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == files
    new = load_run(tmp_path / "run2")
    test = Split.load(run.path / "splits.json").test
    assert (outcome.done, outcome.failed) == (len(test), 0)
    assert new.meta["adapted"]["images"] == len(test)
    assert new.meta["adapted"]["strategy"] == "tfm"
    assert new.meta["adapted"]["from_sha256"] == run.sha256(whole=True) != new.sha256(whole=True)
    assert new.threshold == run.threshold
    with open(tmp_path / "run2" / "adaptation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["case"] for row in rows] == sorted(test)
    assert all(0 <= float(row["dice_before_after"]) <= 1 for row in rows)
    with pytest.raises(UsageError, match="not empty"):
        adapt(run, data, tmp_path / "run2")
    assert predict(new, data, tmp_path / "masks", part="test", mode="matched").done == len(test)


@pytest.mark.parametrize("how", ["cohort", "case"])
def test_predict_adapts_in_memory(run: Run, data: Path, tmp_path: Path, how: str) -> None:
    images = sorted((data / "images").iterdir())[:2]
    before = weights(run)
    outcome = predict(run, images, tmp_path / "masks", mode="matched", adapt=how)
    assert (outcome.done, outcome.failed) == (2, 0)
    assert changed(before, weights(run)) == set()
    sources = find_sources(images)
    told = sources if how == "cohort" else sources[:1]
    new, *_ = fine_tuned(run, told, Tuning(), Machine())
    predict(new, images[:1], tmp_path / "expected", mode="matched")
    name = sources[0].name
    written, expected = (
        read_labels(tmp_path / folder / f"{name}.nii.gz")[0] for folder in ("masks", "expected")
    )
    np.testing.assert_array_equal(written, expected)
    again = predict(run, images, tmp_path / "masks", mode="matched", adapt=how, resume=True)
    assert again.skipped == 2


def test_a_bad_image_is_left_out_of_the_cohort(run: Run, data: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.nii.gz"
    bad.write_bytes(b"no image")
    good = sorted((data / "images").iterdir())[0]
    outcome = adapt(run, [bad, good], tmp_path / "run2")
    assert (outcome.done, outcome.failed, outcome.exit_code) == (1, 1, 1)
    assert str(bad) in str(outcome.failures[0])


def test_methods_without_it_are_refused(data: Path, run: Run, tmp_path: Path) -> None:
    small = ["steps=1", "config.width=4", "config.depth=3", "pairs.crop=16x16x16"]
    plain = train(data, tmp_path / "plain", method="unet", scale=(2,), settings=small)
    with pytest.raises(UsageError, match="defines no test-phase"):
        adapt(plain, data, tmp_path / "run2")
    assert not (tmp_path / "run2").exists()
    with pytest.raises(UsageError, match="defines no test-phase"):
        predict(plain, data, tmp_path / "masks", adapt="cohort")
    with pytest.raises(UsageError, match="tfm, srt, srt"):
        adapt(run, data, tmp_path / "run2", strategy="magic")
    with pytest.raises(UsageError, match="--epochs"):
        Tuning(epochs=0)
    with pytest.raises(UsageError, match="--learning-rate"):
        replace(Tuning(), learning_rate=0.0)
