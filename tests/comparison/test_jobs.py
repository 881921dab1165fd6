"""Cells in processes: several at a time, none twice, and none that outlives its parent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finemask.comparison import jobs
from finemask.comparison.jobs import is_done, locked, run_cells
from finemask.comparison.plan import Plan
from finemask.errors import UsageError
from finemask.training.standing import Interrupted

MakePlan = Callable[..., Plan]

# Does what a cell does, as far as its parent can see, without loading an engine.
CELL = """
import json, os, signal, sys, threading, time
from pathlib import Path
data, out, name = sys.argv[1:]
folder = Path(out) / "cells" / name
plan = json.loads((Path(out) / "plan.json").read_text())
(folder / "begun").write_text((folder / "begun").read_text() + "x"
                              if (folder / "begun").exists() else "x")
(folder / "pid").write_text(str(os.getpid()))
(folder / "threads").write_text(os.environ["OMP_NUM_THREADS"])
def watch():
    while os.read(0, 1): pass
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=watch, daemon=True).start()
how = (Path(out) / "how").read_text() if (Path(out) / "how").exists() else ""
if how == "wait":
    (folder / ".progress").write_text("2\\ntraining, loss 0.5")
    time.sleep(60)
if how == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
if how == "fail" and name.startswith("dsrl"):
    (folder / "failure.json").write_text(json.dumps({"error": "fell over"}))
    sys.exit(1)
if how == "crash" and name.startswith("dsrl"):
    os.kill(os.getpid(), signal.SIGKILL)
if how == "mute" and name.startswith("dsrl"):
    sys.exit(7)
(folder / "cell.json").write_text((folder / "wanted").read_text())
"""


@pytest.fixture
def plan(
    phantoms: Path, tmp_path: Path, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> Plan:
    """A plan in ``tmp_path`` whose cells are done by the program above."""
    program = tmp_path / "cell.py"
    program.write_text(CELL)
    monkeypatch.setattr(jobs, "PROGRAM", (sys.executable, "-S", str(program)))
    made = make_plan(phantoms, "unet", "dsrl")
    made.save(tmp_path)
    for cell in made.cells:
        folder = tmp_path / "cells" / cell.name
        folder.mkdir(parents=True)
        (folder / "wanted").write_text(json.dumps({"recipe": cell.recipe.to_dict()}))
    return made


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False


@pytest.mark.parametrize("at_a_time", [1, 3])
def test_every_cell_is_done(plan: Plan, tmp_path: Path, at_a_time: int) -> None:
    seen: list[str] = []

    def track(items: Iterable[Any], label: Any, total: int | None = None) -> Iterator[Any]:
        assert total == 16  # four trainings of four steps
        for item in items:
            seen.append(label())
            yield item

    errors = run_cells(plan, plan.cells, tmp_path, tmp_path, jobs=at_a_time, progress=track)
    assert errors == {}
    assert len(seen) == 16
    assert seen[-1].startswith("4 of 4 trainings done")
    for cell in plan.cells:
        assert is_done(tmp_path, cell)
        assert (tmp_path / "cells" / cell.name / "begun").read_text() == "x"
        assert (tmp_path / "cells" / cell.name / "threads").read_text() == "1"


def test_a_cell_of_another_recipe_is_not_done(plan: Plan, tmp_path: Path) -> None:
    run_cells(plan, plan.cells[:1], tmp_path, tmp_path, jobs=1)
    first = plan.cells[0]
    assert is_done(tmp_path, first)
    (tmp_path / "cells" / first.name / "cell.json").write_text(json.dumps({"recipe": {}}))
    assert not is_done(tmp_path, first)
    (tmp_path / "cells" / first.name / "cell.json").write_text('{"recipe": {"tr')
    assert not is_done(tmp_path, first)


def test_an_option_that_the_program_has_learned_since_redoes_nothing(
    plan: Plan, tmp_path: Path
) -> None:
    first = plan.cells[0]
    old = first.recipe.to_dict()
    del old["train"]["ema"]
    old["config"] = {key: value for key, value in old["config"].items() if key != "dropout"}
    path = tmp_path / "cells" / first.name / "cell.json"
    path.write_text(json.dumps({"recipe": old}))
    assert is_done(tmp_path, first)
    path.write_text(json.dumps({"recipe": {**old, "train": {**old["train"], "ema": 0.5}}}))
    assert not is_done(tmp_path, first)


@pytest.mark.parametrize(
    ("how", "said"),
    [("fail", "fell over"), ("crash", "signal 9"), ("mute", "code 7; see log.txt")],
)
def test_a_cell_that_fails_is_named_and_the_others_go_on(
    plan: Plan, tmp_path: Path, how: str, said: str
) -> None:
    (tmp_path / "how").write_text(how)
    errors = run_cells(plan, plan.cells, tmp_path, tmp_path, jobs=2)
    assert sorted(errors) == ["dsrl/seed-0-fold-1", "dsrl/seed-1-fold-1"]
    assert all(said in error for error in errors.values())
    assert [is_done(tmp_path, cell) for cell in plan.cells] == [True, False, True, False]


def test_a_signal_ends_every_cell(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "how").write_text("wait")
    pids = [tmp_path / "cells" / c.name / "pid" for c in plan.cells[:2]]

    def interrupt() -> None:
        wait_for(lambda: all(p.exists() and p.read_text() for p in pids))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted, match="4 trainings to do; go on with --resume"):
        run_cells(plan, plan.cells, tmp_path, tmp_path, jobs=2)
    thread.join()
    assert not any(is_alive(int(p.read_text())) for p in pids)
    assert not (tmp_path / "cells" / plan.cells[2].name / "pid").exists()


def test_a_cell_that_does_not_listen_is_killed(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "GRACE_SECONDS", 0.3)
    (tmp_path / "how").write_text("stubborn")
    work = jobs.Jobs(plan, tmp_path, tmp_path)
    work.start(plan.cells[0])
    pid = tmp_path / "cells" / plan.cells[0].name / "pid"
    wait_for(lambda: pid.exists() and bool(pid.read_text()))
    time.sleep(0.2)
    work.stop()
    assert not is_alive(int(pid.read_text()))


def test_cells_end_with_a_parent_that_was_killed(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "how").write_text("wait")
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"""
from pathlib import Path
from finemask.comparison import jobs
from finemask.comparison.plan import Plan
jobs.PROGRAM = {jobs.PROGRAM!r}
out = Path({str(tmp_path)!r})
plan = Plan.load(out)
with jobs.locked(out) as lock:
    jobs.run_cells(plan, plan.cells, out, out, jobs=1, lock=lock)
""",
        ]
    )
    pid = tmp_path / "cells" / plan.cells[0].name / "pid"
    wait_for(lambda: pid.exists() and bool(pid.read_text()))
    parent.kill()
    parent.wait()
    wait_for(lambda: not is_alive(int(pid.read_text())))
    with locked(tmp_path):
        pass


def test_a_folder_takes_one_comparison_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LOCK_SECONDS", 0.2)
    refused = pytest.raises(UsageError, match="in use by another comparison")
    with locked(tmp_path), refused, locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
