"""Many tasks in several processes, none of which can bring the others down."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

T, R = TypeVar("T"), TypeVar("R")
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Killed(Exception):
    """The process of a task ended without a word, most likely for want of memory."""


def run_tasks(
    work: Callable[[T], R], tasks: Iterable[T], jobs: int
) -> Iterator[tuple[T, R | Killed]]:
    """Do tasks, here or in ``jobs`` processes, and hand each result over when it is there.

    A task whose process is killed is tried once more on its own, so that it
    takes no other with it; when that ends the same way its result is ``Killed``.

    Args:
        work: A function that raises nothing; with its tasks and results it goes through pickle.
        tasks: In any number: only a few are waiting at a time.
        jobs: Processes; 1 works in this one.
    """
    if jobs == 1:
        yield from ((task, work(task)) for task in tasks)
        return
    left = iter(tasks)
    with _one_thread_each():
        while True:
            suspects: list[T] = []
            yield from _run_in_pool(work, left, jobs, suspects)
            if not suspects:
                return
            for task in suspects:
                again: list[T] = []
                yield from _run_in_pool(work, iter([task]), 1, again)
                yield from ((lost, Killed()) for lost in again)


def _run_in_pool(
    work: Callable[[T], R], tasks: Iterator[T], jobs: int, suspects: list[T]
) -> Iterator[tuple[T, R]]:
    """Results until the tasks end or the pool breaks; then what it worked on are suspects."""
    # A fresh interpreter, as forking one with threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_leave_interrupts_alone)
    waiting: dict[Future[R], T] = {}
    try:
        while True:
            while len(waiting) < 2 * jobs and (task := next(tasks, None)) is not None:
                try:
                    waiting[pool.submit(work, task)] = task
                except BrokenProcessPool:
                    suspects.append(task)
                    raise
            if not waiting:
                return
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                result = future.result()
                yield waiting.pop(future), result
    except BrokenProcessPool:
        for future, task in waiting.items():
            if future.done() and future.exception() is None:
                yield task, future.result()
            else:
                suspects.append(task)
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_alone() -> None:
    """Ctrl-C is for the parent, which lets its children finish what they have in hand."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep numerical libraries of new processes to one thread: they would get in each other's way.

    They read these variables when they are loaded, before any code of ours.
    """
    before = {name: os.environ.get(name) for name in THREAD_LIMITS}
    os.environ.update(dict.fromkeys(THREAD_LIMITS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
