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

from finemask.comparison.plan import DONE, FAILED, STOPPED, Cell, Plan
from finemask.datasets.listing import read_json
from finemask.errors import FinemaskError, UsageError
from finemask.training.loop import stop_on_signal
from finemask.training.standing import Interrupted

POLL_SECONDS = 0.1
GRACE_SECONDS = 60.0
"""What a cell gets to save its state before it is ended for good."""
LOCK_SECONDS = 20.0


def is_done(out: Path, cell: Cell) -> bool:
    """Whether a cell was finished with the recipe that the plan gives it."""
    path = out / "cells" / cell.name / DONE
    try:
        return path.exists() and read_json(path)["recipe_sha256"] == cell.fingerprint
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
    """

    plan: Plan
    data: Path
    out: Path
    lock: int | None = None
    running: dict[subprocess.Popen[bytes], Cell] = field(default_factory=dict)

    def start(self, cell: Cell) -> None:
        """Start a cell; what it says goes to its ``log.txt``."""
        folder = self.out / "cells" / cell.name
        folder.mkdir(parents=True, exist_ok=True)
        words = [str(self.data.absolute()), str(self.out.absolute()), cell.name]
        threads = str(self.plan.threads)
        with open(folder / "log.txt", "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "finemask.comparison.cell", *words],
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
    plan: Plan, cells: Sequence[Cell], data: Path, out: Path, *, jobs: int, lock: int | None = None
) -> Iterator[tuple[Cell, str]]:
    """Do cells, ``jobs`` at a time; each comes back with its error or ``""``.

    Raises:
        Interrupted: After a signal, once every process has saved its state and ended.
    """
    waiting = list(cells)
    work = Jobs(plan, data, out, lock)
    with stop_on_signal() as stopped:
        try:
            while waiting or work.running:
                while waiting and len(work.running) < jobs:
                    work.start(waiting.pop(0))
                yield from work.finished()
                if stopped.wait(POLL_SECONDS):
                    raise Interrupted(
                        out, f"stopped with {len(waiting) + len(work.running)} cells to do",
                        "go on with --resume",
                    )  # fmt: skip
        finally:
            work.stop()


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
