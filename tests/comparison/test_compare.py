"""The command as a user calls it: killed, resumed, extended, refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import finemask as fm
from finemask.comparison import cell as cell_module
from finemask.comparison import compare as module
from finemask.comparison.cell import run_cell
from finemask.comparison.compare import compare
from finemask.comparison.plan import Plan
from finemask.comparison.results import Results
from finemask.datasets import make_phantoms
from finemask.errors import DataError, UsageError

TINY = ("width=4", "config.depth=2", "crop=32x32", "batch_size=2", "train.validate_every=2")
CALL = {"steps": 4, "settings": TINY, "threads": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compare") / "data"
    return make_phantoms(folder, kind="ultrasound", cases=9, seed=1, size=(48, 48))


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods and two seeds, one after the other and never interrupted."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_cells", one_by_one)
        compare(data, out, ["unet", "dsrl"], seeds=2, **CALL)  # type: ignore[arg-type]
    return out


def one_by_one(
    plan: Plan, cells: list[object], data: Path, out: Path, **_: object
) -> dict[str, str]:
    """Cells in this process, without the time that loading an engine takes."""
    for cell in cells:
        run_cell(plan, cell, data, out)  # type: ignore[arg-type]
    return {}


def begin(data: Path, out: Path, *words: str) -> subprocess.Popen[str]:
    settings = [word for setting in TINY for word in ("--set", setting)]
    call = [sys.executable, "-m", "finemask", "compare", str(data), "--out", str(out), "--quiet"]
    if "--resume" not in words:
        call += ["--methods", "unet,dsrl", "--steps", "4", "--threads", "1", *settings]
    return subprocess.Popen(
        [*call, *words], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def stamps(out: Path) -> dict[str, int]:
    return {p.parent.parent.name: p.stat().st_mtime_ns for p in out.glob("cells/*/*/cell.json")}


def test_killed_and_resumed_two_at_a_time_is_the_same_as_never_stopped(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    started = begin(data, out, "--jobs", "1")
    end = time.monotonic() + 300
    # In the second training: the first is done, the second has a checkpoint.
    while not ((out / "cells/dsrl/seed-0-fold-1/run/checkpoints/last").exists()):
        assert started.poll() is None, started.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)
    started.kill()
    started.communicate()
    done = stamps(out)
    assert "unet" in done
    resumed = begin(data, out, "--resume", "--seeds", "2", "--jobs", "2")
    said, complaints = resumed.communicate()
    assert resumed.returncode == 0, complaints
    assert complaints == ""
    assert "| unet" in said
    assert said.rstrip().endswith("report.html")
    for path in out.glob("cells/*/seed-0-fold-1/cell.json"):
        name = path.parent.parent.name
        if name in done:
            assert path.stat().st_mtime_ns == done[name]
    for name in ("cases.csv", "comparison.csv"):
        assert (out / name).read_text() == (whole / name).read_text()
    ours, theirs = (json.loads((f / "plan.json").read_text()) for f in (out, whole))
    assert ours == theirs


def test_what_it_leaves(whole: Path, data: Path) -> None:
    assert {p.name for p in whole.iterdir()} == {
        "plan.json", "splits", "cells", "comparison.csv", "cases.csv", "costs.csv", "table.tex",
        "summary.json", "report.html", ".lock",
    }  # fmt: skip
    summary = json.loads((whole / "summary.json").read_text())
    for row in ("unet", "dsrl"):
        cost = summary["rows"][row]["cost"]
        assert all(cost[name] > 0 for name in cost), cost
    assert (
        summary["rows"]["dsrl"]["cost"]["parameters_training"]
        > summary["rows"]["dsrl"]["cost"]["parameters_inference"]
        == summary["rows"]["unet"]["cost"]["parameters_inference"]
    )
    assert "psnr_db" in summary["rows"]["dsrl"]["scores"]
    about = json.loads((whole / "cells/unet/seed-0-fold-1/cell.json").read_text())
    assert about["step_last"] == 4
    recipe = fm.Recipe.load(whole / "cells/dsrl/seed-1-fold-1/run/recipe.toml")
    assert recipe.train.seed == 1
    assert str(data.parent) not in (whole / "report.html").read_text()


def test_nothing_is_redone_and_the_reference_can_change(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    monkeypatch.setattr(module, "run_cells", refuse_to_run)
    results = compare(data, out, ["dsrl", "unet"], seeds=2, resume=True, **CALL)  # type: ignore[arg-type]
    assert results.reference == "dsrl"
    assert "dsrl" in (out / "report.html").read_text()
    assert compare(data, out, resume=True).reference == "dsrl"
    results = compare(data, out, resume=True, reference="unet")
    assert (results.reference, len(results.cells)) == ("unet", 4)
    with pytest.raises(UsageError, match=r"--reference: unet: thin is no row; pick of unet, dsrl"):
        compare(data, out, resume=True, reference="unet: thin")


def refuse_to_run(_plan: Plan, cells: list[object], *_: object, **__: object) -> dict[str, str]:
    assert cells == []
    return {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d, o: compare(d, o, ["unet", "dsrl"], seeds=2, **CALL), "pass --resume"),
        (
            lambda d, o: compare(d, o, ["unet", "dsrl"], seeds=2, resume=True,
                                 **{**CALL, "steps": 5}),
            "train.steps = 4, this call has 5",
        ),
        (lambda d, o: compare(d, o, ["unet"], seeds=2, resume=True, **CALL), "holds dsrl too"),
        (lambda d, o: compare(d, o, seeds=1, resume=True), "holds 2"),
        (lambda d, o: compare(d, o, mode="native", resume=True), "mode matched"),
        (lambda d, o: compare(d, o, ["unet", "dsrl"], folds=3, seeds=2, resume=True, **CALL),
         "another splits"),
        (lambda d, o: compare(d, o, resume=True, overwrite=True), "contradict"),
    ],
    ids=["again", "steps", "fewer", "seeds", "mode", "folds", "both"],
)  # fmt: skip
def test_a_changed_call_is_refused_and_changes_nothing(
    data: Path, whole: Path, change: Callable[[Path, Path], Results], said: str
) -> None:
    before = (whole / "plan.json").read_bytes()
    with pytest.raises(UsageError, match=said):
        change(data, whole)
    assert (whole / "plan.json").read_bytes() == before


def test_other_data_is_refused(whole: Path, phantoms: Path) -> None:
    with pytest.raises(UsageError, match="another data set"):
        compare(phantoms, whole, resume=True)


def test_overwrite_removes_a_comparison_and_nothing_else(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    (out / "thesis.tex").write_text("mine")
    seen: list[int] = []

    def note(_plan: Plan, cells: list[object], *_: object, **__: object) -> dict[str, str]:
        seen.append(len(cells))
        return {"unet/seed-0-fold-1": "was ended"}

    monkeypatch.setattr(module, "run_cells", note)
    with pytest.raises(DataError, match=r"no cell could be done; .*was ended"):
        compare(data, out, ["unet"], overwrite=True, **CALL)  # type: ignore[arg-type]
    assert seen == [1]
    assert (out / "thesis.tex").read_text() == "mine"
    assert not (out / "report.html").exists()


def test_a_folder_of_somebody_else_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(UsageError, match="no comparison made it"):
            compare(data, tmp_path, ["unet"], **options, **CALL)  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_what_makes_no_sense_leaves_no_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="names none"):
        compare(data, out)
    with pytest.raises(UsageError, match="magic"):
        compare(data, out, ["magic"])
    with pytest.raises(UsageError, match="no comparison to go on with"):
        compare(data, out, resume=True)
    assert not out.exists()


def test_a_training_that_diverges_is_named_and_the_others_are_told(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    plan = Plan.load(out)
    name = "dsrl/seed-1-fold-1"
    shutil.rmtree(out / "cells" / name)
    (out / "cells" / name).mkdir()
    train = plan.cell(name).recipe.train
    worse = replace(train, learning_rate=1e30, clip_norm=0.0, max_bad_steps=1, warmup_steps=0)
    rows = [replace(r, recipe=replace(r.recipe, train=worse)) for r in plan.rows]
    replace(plan, rows=tuple(rows)).save(tmp_path / "diverging")
    monkeypatch.setattr(cell_module, "stop_with_parent", lambda: None)
    folder = tmp_path / "diverging" / "cells" / name
    monkeypatch.setattr(sys, "argv", ["cell", str(data), str(tmp_path / "diverging"), name])
    threads = torch.get_num_threads()
    assert cell_module.main() == 1
    torch.set_num_threads(threads)
    error = json.loads((folder / "failure.json").read_text())["error"]
    assert error.startswith("run: diverged: 1 steps in a row were not finite")

    monkeypatch.setattr(module, "run_cells", lambda *_, **__: {name: error})
    results = compare(data, out, resume=True)
    assert results.exit_code == 1
    assert len(results.cells) == 3
    assert "diverged" in (out / "failures.csv").read_text()
    assert "1 of 4 trainings are not done" in (out / "report.html").read_text()
