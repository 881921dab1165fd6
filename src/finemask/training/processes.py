"""The processes of a training run: signals reach all of them, and a death is told in one line."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessExitedException

from finemask.training.standing import Interrupted, TrainingError

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)
WORKER = "DataLoader worker"
"""How PyTorch's messages about the processes that read samples begin, or go on."""


def launch(fabric: Fabric, function: Callable[[Fabric], T], out: Path, devices: int) -> T:
    """Call a function in the processes of ``fabric`` and return what the first of them did.

    Several processes are children of this one, which passes a signal on to them
    and then waits until they have saved what they have.

    Raises:
        Interrupted: After a signal that came too early for anything to be saved.
        TrainingError: When a process was killed.
    """
    if devices == 1:
        return fabric.launch(function)
    with _signals_passed_on() as stopped:
        try:
            return fabric.launch(function)
        except ProcessExitedException as error:
            if stopped.is_set():
                what = "stopped before its processes had begun"
                raise Interrupted(out, what, "go on with --resume, or train again") from error
            raise _killed(out, f"process {error.error_index + 1} of {devices}", error) from error


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event; the second one acts as usual."""
    with _on_first_signal(lambda: None) as stopped:
        yield stopped


@contextmanager
def _signals_passed_on() -> Iterator[threading.Event]:
    """The same, and tell the children that are started meanwhile to stop."""
    before = {child.pid for child in multiprocessing.active_children()}

    def tell() -> None:
        for child in multiprocessing.active_children():
            if child.pid not in before:
                child.terminate()

    with _on_first_signal(tell) as stopped:
        yield stopped


@contextmanager
def _on_first_signal(act: Callable[[], None]) -> Iterator[threading.Event]:
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before: dict[int, Any] = {n: signal.getsignal(n) for n in SIGNALS}

    def note(number: int, _frame: Any) -> None:
        stopped.set()
        signal.signal(number, before[number])
        act()

    for number in before:
        signal.signal(number, note)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def leave_terminal() -> None:
    """Ctrl-C reaches all processes of a terminal; ours hear of it from their parent, once."""
    with suppress(OSError, AttributeError):  # the head of a session already, or Windows
        os.setsid()


def ignore_interrupts(_worker: int) -> None:
    """A process that reads samples ends with the one that trains, never before it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def orderly(batches: Iterator[T]) -> Iterator[T]:
    """The same batches; a reading process that died is told when the next one is asked for.

    PyTorch raises as soon as it hears of a death, wherever the program happens to be: half way
    through saving, or with gradients switched off.
    """
    yield next(batches)  # now the processes are there, and PyTorch listens to them
    in_main = threading.current_thread() is threading.main_thread()
    alarm = signal.getsignal(signal.SIGCHLD) if in_main and hasattr(signal, "SIGCHLD") else None
    if not callable(alarm):
        yield from batches
        return
    deaths: list[RuntimeError] = []

    def note(number: int, frame: FrameType | None) -> None:
        try:
            alarm(number, frame)
        except RuntimeError as error:
            deaths.append(error)

    signal.signal(signal.SIGCHLD, note)
    try:
        yield from batches
    except RuntimeError as error:
        if deaths:
            raise deaths[0] from error
        raise
    finally:
        signal.signal(signal.SIGCHLD, alarm)


def worker_error(error: RuntimeError, out: Path) -> TrainingError | None:
    """What PyTorch says of a process that reads samples, in one line; ``None`` for other errors."""
    text = str(error)
    if text.startswith(WORKER):
        return _killed(out, "a process that reads samples", error)
    if f"in {WORKER} process" in text:
        last = text.rstrip().splitlines()[-1].partition(": ")[-1]
        return TrainingError(out, f"could not read its samples ({last})", "see finemask check")
    return None


def _killed(out: Path, who: str, error: Exception) -> TrainingError:
    text = " ".join(str(error).split())
    shared = "bus error" in text.lower()
    cause = "shared memory (/dev/shm)" if shared else "memory"
    if "unexpectedly" in text:  # torch found it gone, and does not know by which signal
        cause = "memory, or shared memory (/dev/shm)"
    fix = "fewer train.workers" if shared else "smaller crops, batches or fewer train.workers"
    return TrainingError(
        out,
        f"{who} died, most likely for want of {cause}: {text[:160]}",
        f"use {fix}, or give it more, and go on with --resume",
    )
