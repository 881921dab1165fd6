"""A teacher trained from images alone, and a pupil that is complete without its folder."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import contents, interrupt_after, weights
from safetensors.torch import load_file

from finemask.comparison.plan import Choices, make_rows
from finemask.datasets import Split, load_dataset, make_phantoms
from finemask.deploy.export import export
from finemask.errors import DataError, UsageError
from finemask.inference.cohort import predict
from finemask.io import DataWarning, read_image
from finemask.runs import Run, load_run
from finemask.training import loop as module
from finemask.training.loop import train
from finemask.training.setup import resolve_recipe
from finemask.training.standing import Interrupted
from finemask.training.teacher import warn_of_leak

RHYTHM = ("train.validate_every=2", "log_every=2", "batch_size=2", "crop=32x32")
TEACHER = (
    *RHYTHM, "steps=4", "config.width=4", "blocks=1", "kernel=3", "skip=true", "critic_width=4",
    "critic_stages=2", "content_width=2", "content_level=2",
)  # fmt: skip
PUPIL = (*RHYTHM, "steps=4", "config.width=4", "depth=2", "critic_width=4", "target=hard")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    return make_phantoms(folder, kind="ultrasound", cases=8, seed=1, size=(48, 48))


@pytest.fixture(scope="module")
def images(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nothing but pictures."""
    folder = tmp_path_factory.mktemp("images")
    shutil.copytree(data / "images", folder, dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def teacher(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("teacher") / "run"
    return train(images, out, method="srgan", scale=(4,), settings=TEACHER)


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than these trainings; the teacher above has drawn its own."""
    monkeypatch.setattr(module, "draw", lambda *_: None)


def test_a_teacher_learns_from_images_alone_in_two_phases(teacher: Run) -> None:
    rows = list(csv.DictReader((teacher.path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert [bool(row["L_MSE"]) for row in rows] == [True, False]
    assert [bool(row["L_D"]) for row in rows] == [False, True]
    assert all(row["val_score"][:5] == row["val_psnr_db"][:5] for row in rows)
    assert teacher.meta["metric"] == "psnr"
    assert teacher.meta["step"] == 4, "the second phase has a best of its own"
    assert (teacher.path / "examples.png").exists()
    parts = json.loads((teacher.path / "splits.json").read_text())
    assert all(parts[name] for name in ("train", "val", "test"))


def test_a_teacher_predicts_images_and_no_masks(teacher: Run, images: Path, tmp_path: Path) -> None:
    outcome = predict(teacher, images, tmp_path / "out", part="test", mode="matched")
    assert outcome.exit_code == 0
    written = sorted(p.name for p in (tmp_path / "out").glob("*.png"))
    assert written
    assert all(name.endswith("_sr.png") for name in written)
    assert read_image(tmp_path / "out" / written[0])[0].shape == (1, 48, 48)
    with pytest.raises(UsageError, match="--probs"):
        predict(teacher, images, tmp_path / "no", probs=True)
    with pytest.raises(UsageError, match="makes images"):
        export(teacher, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_a_teacher_resumes_exactly(
    images: Path, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 4)  # in the second phase
        with pytest.raises(Interrupted):
            train(images, tmp_path / "parts", method="srgan", scale=(4,), settings=TEACHER)
    resumed = train(images, tmp_path / "parts", resume=True)
    assert contents(resumed.path) == contents(teacher.path)


def test_a_pupil_is_whole_without_its_teachers_folder(
    data: Path, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = tmp_path / "lent"
    shutil.copytree(teacher.path, lent)
    whole = train(data, tmp_path / "whole", method="dsnet", teacher=lent, settings=PUPIL)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 6)
        with pytest.raises(Interrupted):
            train(data, tmp_path / "parts", method="dsnet", teacher=lent, settings=PUPIL)
    shutil.rmtree(lent)
    resumed = train(data, tmp_path / "parts", resume=True)
    assert contents(resumed.path) == contents(whole.path)
    best = weights(teacher.path, "best")
    for name, values in weights(resumed.path, "last").items():
        if name.startswith("network.teacher."):
            their = "generator." + name.removeprefix("network.teacher.")
            assert torch.equal(values, best[their]), f"{name} is the teacher's, and stayed it"
    assert {name.split("/")[0] for name in load_file(
        resumed.path / "checkpoints/last/state.safetensors")} >= {"network", "critic"}  # fmt: skip
    outcome = predict(resumed, data, tmp_path / "masks", part="test", mode="matched", sr=True)
    assert outcome.exit_code == 0
    assert str(lent) in load_run(resumed.path).meta["equipment"]["teacher"]
    with pytest.raises(DataError, match="no run folder"):
        train(data, tmp_path / "again", recipe=resumed.path / "recipe.toml")


def test_scaling_and_scale_travel_with_the_teacher(
    data: Path, images: Path, tmp_path: Path
) -> None:
    window = ("prepare.window_hu=0,200", "prepare.window_to_unit=true", "prepare.normalise=none")
    teacher = train(
        images, tmp_path / "teacher", method="srgan", scale=(2,), settings=(*TEACHER, *window)
    ).path
    pupil = train(data, tmp_path / "pupil", method="dsnet", teacher=teacher, settings=PUPIL)
    prepare = pupil.recipe.prepare
    assert (prepare.window_hu, prepare.window_to_unit, prepare.normalise) == (
        (0, 200),
        True,
        "none",
    )
    assert pupil.recipe.task.scale == (2, 2)
    assert pupil.recipe.config["teacher_skip"] is True
    for wrong, said in (
        ({"settings": (*PUPIL, "prepare.normalise=zscore")}, "prepare.normalise"),
        ({"settings": (*PUPIL, "prepare.window_hu=0,100")}, "prepare.window_hu"),
        ({"settings": (*PUPIL, "teacher_blocks=2")}, "config.teacher_blocks"),
        ({"settings": PUPIL, "scale": (4,)}, "task.scale"),
    ):
        with pytest.raises(UsageError, match=said):
            train(data, tmp_path / "no", method="dsnet", teacher=teacher, **wrong)
    with pytest.raises(UsageError, match="learns from none"):
        train(data, tmp_path / "no", method="unet", teacher=teacher, settings=RHYTHM)
    with pytest.raises(DataError, match="a teacher is one of srgan"):
        train(data, tmp_path / "no", method="dsnet", teacher=pupil.path, settings=PUPIL)
    assert not (tmp_path / "no").exists()


def test_a_teacher_of_the_patients_who_test_is_told_of(data: Path, teacher: Run) -> None:
    dataset, parts = load_dataset(data), Split.load(teacher.path / "splits.json")
    recipe = resolve_recipe(dataset, "dsnet", teacher=teacher.path)
    swapped = replace(parts, train=parts.test, test=parts.train)
    with pytest.warns(DataWarning, match=f"{len(parts.train)} patients"):
        warn_of_leak(recipe, dataset, swapped)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        warn_of_leak(recipe, dataset, parts)
    names = {entry.group for entry in dataset.entries}
    assert len(teacher.meta["patients"]) == len(parts.train) + len(parts.val)
    assert not set(teacher.meta["patients"]) & names, "hashes, not names"


def test_without_a_teacher_it_says_how_to_get_one_or_do_without(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--method srgan .* transfer=none"):
        train(data, tmp_path / "run", method="dsnet", settings=PUPIL)
    run = train(data, tmp_path / "run", method="dsnet", settings=(*PUPIL, "transfer=none"))
    assert run.method.teacher is None
    assert not run.makes_image


def test_rows_of_a_comparison_share_teacher_and_scaling(data: Path, teacher: Run) -> None:
    dataset = load_dataset(data)
    choices = Choices(
        methods=["unet"], ablate=["dsnet:backbone,+ SR input"], scale=(4,),
        settings_for=[f"dsnet:train.teacher={teacher.path}"],
    )  # fmt: skip
    rows = {row.label: row.recipe for row in make_rows(dataset, choices)}
    assert list(rows) == ["unet", "dsnet", "dsnet: backbone", "dsnet: + SR input"]
    assert {recipe.prepare.normalise for name, recipe in rows.items() if name != "unet"} == {
        "minmax"
    }
    with pytest.raises(UsageError, match=r"train\.teacher"):
        make_rows(dataset, Choices(methods=["dsnet"], scale=(4,)))
    with pytest.raises(UsageError, match="makes images"):
        make_rows(dataset, Choices(methods=["srgan"]))


def test_a_metric_of_what_is_not_made_is_refused(data: Path, tmp_path: Path) -> None:
    for method, metric, other in (("unet", "psnr", "dice"), ("srgan", "dice", "psnr")):
        with pytest.raises(UsageError, match=f"train.metric={other}"):
            train(data, tmp_path / "run", method=method, settings=(f"train.metric={metric}",))
    with pytest.raises(UsageError, match=r"pairs\.target"):
        train(data, tmp_path / "run", method="unet", settings=("pairs.target=none",))
    run = train(
        data, tmp_path / "run", method="dsrl",
        settings=(*RHYTHM, "steps=2", "config.width=4", "depth=2", "train.metric=psnr"),
    )  # fmt: skip
    rows = list(csv.DictReader((run.path / "log.csv").open()))
    assert run.meta["score"] == pytest.approx(float(rows[-1]["val_psnr_db"]), abs=1e-3)
    assert np.isfinite(run.threshold)
