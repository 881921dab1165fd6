"""Tasks in processes: every result once, and a killed process costs its own task only."""

from __future__ import annotations

import operator
import os
from functools import partial

import pytest

from finemask.annotation.parallel import THREAD_LIMITS, Killed, run_tasks

# Tasks that are calls go through pickle whatever the tests are named.
WORK = operator.call


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_task_has_its_result(jobs: int) -> None:
    tasks = [partial(pow, 2, k) for k in range(9)]
    found = {task.args[1]: result for task, result in run_tasks(WORK, tasks, jobs)}
    assert found == {k: 2**k for k in range(9)}


@pytest.mark.fault("F67", "F86")
def test_a_killed_process_takes_no_other_task_with_it() -> None:
    tasks = [partial(pow, 2, 1), partial(os._exit, 9), *(partial(pow, 2, k) for k in range(2, 6))]
    found = [(task, result) for task, result in run_tasks(WORK, tasks, 2)]
    assert sorted(result for task, result in found if task.func is pow) == [2, 4, 8, 16, 32]
    (lost,) = [result for task, result in found if task.func is os._exit]
    assert isinstance(lost, Killed)


def test_libraries_of_the_processes_use_one_thread() -> None:
    before = {name: os.environ.get(name) for name in THREAD_LIMITS}
    tasks = [partial(os.getenv, name) for name in THREAD_LIMITS]
    assert {result for _, result in run_tasks(WORK, tasks, 2)} == {"1"}
    assert {name: os.environ.get(name) for name in THREAD_LIMITS} == before


def test_whoever_stops_listening_stops_the_work() -> None:
    results = run_tasks(WORK, (partial(pow, 2, k) for k in range(10**9)), 2)
    assert isinstance(next(results)[1], int)
    results.close()
