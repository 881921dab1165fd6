"""The cells of a comparison, several at a time, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from finemask.comparison.plan import DONE, FAILED, STOPPED, TOLD, Cell, Plan, read_recipe
from finemask.datasets.listing import read_json
from finemask.errors import FinemaskError, UsageError
from finemask.progress import Track, silent
from finemask.training.processes import stop_on_signal
from finemask.training.schedule import bound_in_steps
from finemask.training.standing import Interrupted

PROGRAM = (sys.executable, "-m", "finemask.comparison.cell")
"""What does a cell; called with data set, folder and name of the cell."""
POLL_SECONDS = 0.1
GRACE_SECONDS = 60.0
"""What a cell gets to save its state before it is ended for good."""
LOCK_SECONDS = 20.0


def is_done(out: Path, cell: Cell) -> bool:
    """Whether a cell was finished with the recipe that the plan gives it."""
    path = out / "cells" / cell.name / DONE
    try:
        return path.exists() and read_recipe(read_json(path)["recipe"], cell.name) == cell.recipe
    except (FinemaskError, KeyError):
        return False


@dataclass
class Jobs:
    """Processes at work.

    Args:
        plan: What is compared.
        data: The data set.
        out: Folder of the comparison.
        lock: File descriptor that every process holds as long as it lives.
        key: File with the key of pseudonyms, if cases get them.
    """

    plan: Plan
    data: Path
    out: Path
    lock: int | None = None
    key: Path | None = None
    running: dict[subprocess.Popen[bytes], Cell] = field(default_factory=dict)

    def start(self, cell: Cell) -> None:
        """Start a cell; what it says goes to its ``log.txt``."""
        folder = self.out / "cells" / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / TOLD).unlink(missing_ok=True)
        words = [str(self.data.absolute()), str(self.out.absolute()), cell.name]
        words += [str(self.key.absolute())] if self.key else []
        threads = str(self.plan.threads)
        with open(folder / "log.txt", "ab") as log:
            process = subprocess.Popen(
                [*PROGRAM, *words],
                stdin=subprocess.PIPE,  # closes when this process is gone, whatever ended it
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
                start_new_session=True,  # Ctrl-C is ours to pass on
                pass_fds=() if self.lock is None else (self.lock,),
            )
        self.running[process] = cell

    def finished(self) -> Iterator[tuple[Cell, str]]:
        """Cells that have ended since, each with its error or ``""``."""
        for process in [p for p in self.running if p.poll() is not None]:
            if process.stdin:
                process.stdin.close()
            cell = self.running.pop(process)
            yield cell, self._error(cell, process.returncode)

    def news(self) -> list[tuple[Cell, int | None, str]]:
        """What running cells last told: steps to go where there is such a bound, and a label."""
        told = []
        for cell in self.running.values():
            try:
                text = (self.out / "cells" / cell.name / TOLD).read_text(encoding="utf-8")
                left, _, label = text.partition("\n")
                told.append((cell, int(left) if left else None, label))
            except (OSError, ValueError):  # nothing told yet, or half of it
                continue
        return told

    def stop(self) -> None:
        """Ask all to stop, and wait until they have."""
        for process in self.running:
            process.terminate()
        end = time.monotonic() + GRACE_SECONDS
        for process in self.running:
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin:
                process.stdin.close()  # not before: a cell takes it for a second signal
        self.running.clear()

    def _error(self, cell: Cell, code: int) -> str:
        if code == 0:
            return ""
        if code < 0 or code == STOPPED:
            return f"was ended by signal {-code}, perhaps for want of memory" if code < 0 else (
                "was stopped from outside"
            )  # fmt: skip
        try:
            return str(read_json(self.out / "cells" / cell.name / FAILED)["error"])
        except (FinemaskError, KeyError):
            return f"ended with code {code}; see log.txt"


def run_cells(
    plan: Plan,
    cells: Sequence[Cell],
    data: Path,
    out: Path,
    *,
    jobs: int,
    lock: int | None = None,
    key: Path | None = None,
    progress: Track = silent,
) -> dict[str, str]:
    """Do cells, ``jobs`` at a time, and show the steps of all of them as one bar.

    Returns:
        The errors of cells that could not be done, by name.

    Raises:
        Interrupted: After a signal, once every process has saved its state and ended.
    """
    work, state = Jobs(plan, data, out, lock, key), _State(plan, cells)
    with stop_on_signal() as stopped:
        try:
            for _ in progress(_work(work, state, jobs, stopped), state.label, state.total):
                pass
        finally:
            work.stop()
    return state.errors


class _State:
    """How far the cells of a call are, in optimiser steps, or in cells without such a bound."""

    def __init__(self, plan: Plan, cells: Sequence[Cell]) -> None:
        bounds = {
            c.name: bound_in_steps(c.recipe.train, len(plan.splits[c.fold - 1].train))
            for c in cells
        }
        self.by_steps = None not in bounds.values()
        self.steps = {name: bound if self.by_steps and bound else 1
                      for name, bound in bounds.items()}  # fmt: skip
        self.total = sum(self.steps.values())
        self.waiting, self.cells = list(cells), len(cells)
        self.errors: dict[str, str] = {}
        self.done, self.at_work = 0, ""

    def label(self) -> str:
        failed = f" ({len(self.errors)} failed)" if self.errors else ""
        return f"{self.done} of {self.cells} trainings done{failed}{self.at_work}"


def _work(work: Jobs, state: _State, jobs: int, stopped: Event) -> Iterator[None]:
    """Start and watch the cells; yields once for each step of any of them."""
    shown = finished_steps = 0
    while state.waiting or work.running:
        while state.waiting and len(work.running) < jobs:
            work.start(state.waiting.pop(0))
        for cell, error in work.finished():
            state.done += 1
            finished_steps += state.steps[cell.name]
            if error:
                state.errors[cell.name] = error
        news = work.news()
        steps = sum(max(0, state.steps[cell.name] - left) for cell, left, _ in news
                    if state.by_steps and left is not None)  # fmt: skip
        names = ", ".join(cell.row.label for cell, *_ in news)
        state.at_work = f"; {names} {news[0][-1] if len(news) == 1 else ''}".rstrip("; ")
        for _ in range(finished_steps + steps - shown):
            yield
        shown = max(shown, finished_steps + steps)
        if (state.waiting or work.running) and stopped.wait(POLL_SECONDS):
            to_do = len(state.waiting) + len(work.running)
            raise Interrupted(work.out, f"stopped with {to_do} trainings to do",
                              "go on with --resume")  # fmt: skip


@contextlib.contextmanager
def locked(out: Path) -> Iterator[int | None]:
    """Keep a folder to one comparison at a time, its orphaned cells included.

    Raises:
        UsageError: When another one is at work there.
    """
    try:
        import fcntl
    except ImportError:  # Windows: nobody is kept out
        yield None
        return
    with open(out / ".lock", "a") as file:
        end = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > end:
                    raise UsageError(
                        out, "is in use by another comparison", "wait until it has ended"
                    ) from None
                time.sleep(POLL_SECONDS)
        yield file.fileno()
