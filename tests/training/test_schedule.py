"""When a run ends, and the learning rate until then."""

from __future__ import annotations

import pytest

from finemask.errors import UsageError
from finemask.recipe import TrainSettings
from finemask.training.schedule import bound_in_steps, learning_rate_factor, share_done

PLAIN = {"warmup_steps": 0}


def test_the_tightest_bound_counts() -> None:
    assert bound_in_steps(TrainSettings(steps=7, epochs=100), cases=5) == 7
    assert bound_in_steps(TrainSettings(steps=0, epochs=2, batch_size=2, accumulate=2), 10) == 5
    assert bound_in_steps(TrainSettings(steps=0, epochs=2, batch_size=2), 10, devices=2) == 5
    assert bound_in_steps(TrainSettings(steps=0, minutes=1.0), 10) is None


def test_a_run_without_a_bound_is_refused() -> None:
    with pytest.raises(UsageError, match="--minutes"):
        bound_in_steps(TrainSettings(steps=0), 10)


def test_share_is_the_larger_of_steps_and_minutes() -> None:
    settings = TrainSettings(minutes=2.0)
    assert share_done(settings, step=10, seconds=30.0, total_steps=100) == 0.25
    assert share_done(settings, step=50, seconds=30.0, total_steps=100) == 0.5
    assert share_done(TrainSettings(), step=10, seconds=1e9, total_steps=100) == 0.1


@pytest.mark.parametrize("schedule", ["poly", "cosine", "linear"])
def test_decaying_schedules_go_from_one_to_nothing(schedule: str) -> None:
    settings = TrainSettings(schedule=schedule, **PLAIN)  # type: ignore[arg-type]
    factors = [learning_rate_factor(settings, 1, share / 10) for share in range(11)]
    assert factors[0] == 1
    assert factors[-1] == pytest.approx(0, abs=1e-9)
    assert factors == sorted(factors, reverse=True)


def test_a_triangle_rises_and_falls() -> None:
    settings = TrainSettings(schedule="triangle", **PLAIN)
    factors = [learning_rate_factor(settings, 1, share / 4) for share in range(5)]
    assert factors == [0, 0.5, 1, 0.5, 0]


def test_poly_follows_its_formula() -> None:
    assert learning_rate_factor(TrainSettings(poly_power=2.0, **PLAIN), 1, 0.5) == 0.25


def test_plateau_divides_by_ten_at_each_drop() -> None:
    settings = TrainSettings(schedule="plateau", **PLAIN)
    assert learning_rate_factor(settings, 5, 0.9, plateau_drops=2) == pytest.approx(0.01)


def test_warm_up_rises_linearly_and_never_starts_at_zero() -> None:
    settings = TrainSettings(schedule="constant", warmup_steps=4)
    factors = [learning_rate_factor(settings, step, 0.0) for step in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1, 1, 1]
