"""Training: exact resume, bounds, divergence, several processes, EMA."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from run_folders import contents, interrupt_after, weights

from finemask.datasets import make_phantoms
from finemask.errors import DataError, UsageError
from finemask.methods import METHODS
from finemask.recipe import Recipe
from finemask.runs import load_run
from finemask.training import loop as module
from finemask.training.loop import train
from finemask.training.standing import Interrupted, TrainingError

QUICK = (
    "steps=6",
    "train.validate_every=3",
    "log_every=2",
    "batch_size=2",
    "crop=32x32",
    "config.width=4",
    "config.depth=2",
    "warmup_steps=0",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    return make_phantoms(folder, kind="ultrasound", cases=8, seed=1, size=(64, 64))


@pytest.mark.parametrize("method", ["unet", "dsrl"])
def test_a_run_leaves_what_the_contract_says(data: Path, tmp_path: Path, method: str) -> None:
    run = train(data, tmp_path / "run", method=method, settings=QUICK)
    names = {p.name for p in run.path.iterdir()}
    expected = {"recipe.toml", "splits.json", "log.csv", "checkpoints", "curves.png"}
    assert names == {*expected, "examples.png"}
    rows = list(csv.DictReader((run.path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["2", "3", "4", "6"]
    assert [bool(row["val_score"]) for row in rows] == [False, True, False, True]
    assert all(float(row["L_ce"]) > 0 for row in rows)
    assert all(bool(row["val_psnr_db"]) == (method == "dsrl") for row in rows if row["val_score"])
    again = Recipe.load(run.path / "recipe.toml")
    assert again == run.recipe
    assert (again.train.steps, again.task.channels) == (6, 1)
    assert run.meta["versions"]["torch"] == torch.__version__


@pytest.mark.parametrize(
    "extra", [(), ("ema=0.9",), ("workers=2",), ("dropout=0.2", "accumulate=2", "rescale=0.5,1")]
)
@pytest.mark.parametrize("at", [2, 3])
@pytest.mark.fault("F64")
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: tuple[str, ...], at: int
) -> None:
    settings = (*QUICK, *extra)
    whole = train(data, tmp_path / "whole", method="dsrl", settings=settings)
    with monkeypatch.context() as patched:
        interrupt_after(patched, at)
        with pytest.raises(Interrupted, match="--resume"):
            train(data, tmp_path / "parts", method="dsrl", settings=settings)
    resumed = train(data, tmp_path / "parts", resume=True)
    assert contents(resumed.path) == contents(whole.path)


@pytest.mark.fault("F66")
def test_a_killed_run_goes_on_from_its_last_checkpoint(data: Path, tmp_path: Path) -> None:
    """Nothing is handled here: the process dies between two checkpoints."""
    settings = [s for s in QUICK if not s.startswith("steps")]
    out = tmp_path / "killed"
    arguments = [x for s in [*settings, "steps=40"] for x in ("--set", s)]
    command = [sys.executable, "-m", "finemask", "train", str(data), "--out", str(out)]
    process = subprocess.Popen([*command, *arguments, "--quiet"])
    last = out / "checkpoints" / "last" / "meta.json"
    deadline = time.monotonic() + 60
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert last.exists()
    resumed = train(data, out, resume=True)
    whole = train(data, tmp_path / "whole", settings=[*settings, "steps=40"])
    assert contents(resumed.path) == contents(whole.path)


@pytest.mark.fault("F65")
def test_validating_more_often_trains_the_same_weights(data: Path, tmp_path: Path) -> None:
    settings = (*QUICK, "dropout=0.2", "steps=4", "validate_cases=1")
    often = train(data, tmp_path / "often", settings=(*settings, "validate_every=1"))
    once = train(data, tmp_path / "once", settings=(*settings, "validate_every=4"))
    for name, weight in weights(often.path, "last").items():
        assert torch.equal(weight, weights(once.path, "last")[name]), name


def test_two_processes_step_like_one_with_the_same_batch(data: Path, tmp_path: Path) -> None:
    settings = (*QUICK, "steps=3")
    one = train(data, tmp_path / "one", settings=(*settings, "batch_size=4"), accelerator="cpu")
    two = train(data, tmp_path / "two", settings=settings, accelerator="cpu", devices=2)
    for name, weight in weights(one.path, "last").items():
        other = weights(two.path, "last")[name]
        torch.testing.assert_close(weight, other, rtol=1e-4, atol=1e-5)


def test_half_precision_trains(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", method="dsrl", settings=(*QUICK, "precision=bf16-mixed"))
    assert 0 <= run.meta["score"] <= 1
    assert all(torch.isfinite(w).all() for w in weights(run.path, "best").values())


def test_accumulation_steps_like_the_larger_batch(data: Path, tmp_path: Path) -> None:
    settings = (*QUICK, "steps=2")
    large = train(data, tmp_path / "large", settings=(*settings, "batch_size=4"))
    small = train(data, tmp_path / "small", settings=(*settings, "accumulate=2"))
    for name, weight in weights(large.path, "last").items():
        torch.testing.assert_close(weight, weights(small.path, "last")[name], rtol=1e-4, atol=1e-5)


@pytest.mark.fault("F60")
def test_a_diverging_run_stops_and_is_never_best(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = METHODS["unet"].losses
    count = iter(range(1000))

    def losses(self: torch.nn.Module, *arguments: object) -> dict[str, torch.Tensor]:
        parts = real(self, *arguments)  # type: ignore[arg-type]
        return {k: v * (1 if next(count) < 8 else float("nan")) for k, v in parts.items()}

    monkeypatch.setattr(METHODS["unet"], "losses", losses)
    with pytest.raises(TrainingError, match="diverged: 3 steps"):
        train(data, tmp_path / "run", settings=(*QUICK, "steps=20", "max_bad_steps=3"))
    best = load_run(tmp_path / "run")
    assert all(torch.isfinite(w).all() for w in best.method.state_dict().values())
    assert best.meta["step"] in (3, 6), "a validation before the first bad step"


@pytest.mark.fault("F61")
def test_single_bad_steps_are_skipped_and_counted(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = METHODS["unet"].losses
    count = iter(range(1000))

    def losses(self: torch.nn.Module, *arguments: object) -> dict[str, torch.Tensor]:
        factor = float("inf") if next(count) == 1 else 1.0
        return {k: v * factor for k, v in real(self, *arguments).items()}  # type: ignore[arg-type]

    monkeypatch.setattr(METHODS["unet"], "losses", losses)
    run = train(data, tmp_path / "run", settings=QUICK)
    rows = list(csv.DictReader((run.path / "log.csv").open()))
    assert [row["skipped_steps"] for row in rows] == ["1"] * len(rows)
    assert np.isfinite([float(row["loss"]) for row in rows]).all()


def test_minutes_bound_a_run(data: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    run = train(data, tmp_path / "run", settings=(*QUICK, "steps=0", "minutes=0.03"))
    assert run.meta["step"] >= 1
    assert time.monotonic() - start < 30


def test_patience_ends_a_run_early(data: Path, tmp_path: Path) -> None:
    settings = (*QUICK, "steps=60", "learning_rate=0.0", "patience=2", "validate_every=2")
    run = train(data, tmp_path / "run", settings=settings)
    rows = list(csv.DictReader((run.path / "log.csv").open()))
    assert rows[-1]["step"] == "6"
    assert run.meta["step"] == 2


def test_existing_folders_are_kept(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        train(data, out, settings=QUICK)
    with pytest.raises(UsageError, match="no run folder"):
        train(data, out, settings=QUICK, overwrite=True)
    assert (out / "precious.txt").read_text() == "mine"


def test_what_a_killed_start_leaves_is_in_nobodys_way(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "splits.json").write_text("{}")
    (tmp_path / "run" / ".finemask-0a1b2c3d-recipe.toml").touch()
    assert train(data, tmp_path / "run", settings=(*QUICK, "steps=1")).meta["step"] == 1


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_that_cannot_start_leaves_what_was_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    out = tmp_path / "run"
    if overwrite:
        train(data, out, settings=(*QUICK, "steps=1"))
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for settings in (("precision=foo",), ("learning_rate=-1.0",), ("batch_size=0",), ("steps=0",)):
        with pytest.raises(UsageError):
            train(data, out, settings=(*QUICK, *settings), overwrite=overwrite)
    with pytest.raises(UsageError, match="cannot be had"):
        train(data, out, settings=QUICK, overwrite=overwrite, accelerator="abacus")

    def fail(*_: object) -> None:
        raise DataError("a case", "is damaged", "mend it")

    monkeypatch.setattr(module, "read_samples", fail)
    with pytest.raises(DataError, match="damaged"):
        train(data, out, settings=QUICK, overwrite=overwrite)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert {p.name for p in tmp_path.iterdir()} == ({"run"} if overwrite else set())


def test_a_crash_between_best_and_last_loses_neither(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finemask.training import job

    whole = train(data, tmp_path / "whole", settings=QUICK)
    real, saved = job.save_checkpoint, []

    def crashing(folder: Path, *arguments: object) -> None:
        saved.append(folder.name)
        if len(saved) == 4:
            raise KeyboardInterrupt
        real(folder, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(job, "save_checkpoint", crashing)
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "parts", settings=QUICK)
    assert saved[:2] == ["best", "last"]
    resumed = train(data, tmp_path / "parts", resume=True)
    assert contents(resumed.path) == contents(whole.path)


def test_resume_keeps_the_recipe_and_may_go_further(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", settings=(*QUICK, "steps=3"))
    for options in ({"method": "dsrl"}, {"scale": (4,)}, {"settings": ["learning_rate=0.5"]}):
        with pytest.raises(UsageError, match=r"keeps"):
            train(data, run.path, resume=True, **options)  # type: ignore[arg-type]
    longer = train(data, run.path, resume=True, settings=["steps=6"])
    rows = list(csv.DictReader((run.path / "log.csv").open()))
    assert rows[-1]["step"] == "6"
    assert longer.recipe.train.steps == 6


def test_a_run_stopped_before_its_first_validation_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        interrupt_after(patched, 1)
        with pytest.raises(Interrupted):
            train(data, tmp_path / "run", settings=QUICK)
    with pytest.raises(DataError, match="--resume"):
        load_run(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    assert train(data, tmp_path / "run", resume=True).meta["step"] in (3, 6)


@pytest.mark.fault("F60")
def test_answers_that_are_not_finite_are_divergence(data: Path, tmp_path: Path) -> None:
    settings = (*QUICK, "learning_rate=1e30", "clip_norm=0.0", "max_bad_steps=50", "steps=30")
    with pytest.raises(TrainingError, match="learning_rate"):
        train(data, tmp_path / "run", settings=settings)


@pytest.mark.fault("F67")
def test_an_error_in_one_of_several_processes_keeps_its_words(data: Path, tmp_path: Path) -> None:
    settings = (*QUICK, "learning_rate=1e30", "clip_norm=0.0", "max_bad_steps=2", "steps=30")
    with pytest.raises(TrainingError, match="learning_rate"):
        train(data, tmp_path / "run", settings=settings, accelerator="cpu", devices=2)


def test_without_validation_cases_the_last_weights_are_kept(data: Path, tmp_path: Path) -> None:
    names = sorted(p.stem for p in (data / "images").iterdir())
    split = tmp_path / "split.json"
    split.write_text(json.dumps({"train": names[:4], "val": [], "test": names[4:]}))
    run = train(data, tmp_path / "run", settings=QUICK, split=split)
    assert run.meta["score"] is None
    assert run.meta["step"] == 6
    assert run.threshold == 0.5


def test_unknown_or_contradicting_task_keys_are_errors(data: Path, tmp_path: Path) -> None:
    for text, said in (("scal = 4", "unknown key scal"), ("channels = 3", "the data set has 1")):
        (tmp_path / "r.toml").write_text(f"[task]\n{text}\n")
        with pytest.raises(UsageError, match=said):
            train(data, tmp_path / "run", recipe=tmp_path / "r.toml", settings=QUICK)


def test_resume_refuses_other_data(data: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", settings=(*QUICK, "steps=1"))
    changed = tmp_path / "changed"
    shutil.copytree(data, changed)
    next((changed / "images").iterdir()).unlink()
    with pytest.raises((DataError, UsageError)):
        train(changed, run.path, resume=True)


def test_wrong_settings_leave_nothing(data: Path, tmp_path: Path) -> None:
    for settings in (("width=wide",), ("nonsense=1",), ("method=none",)):
        with pytest.raises(UsageError):
            train(data, tmp_path / "run", settings=(*QUICK, *settings))
    with pytest.raises(UsageError, match="unknown"):
        train(data, tmp_path / "run", method="magic")
    assert not (tmp_path / "run").exists()
