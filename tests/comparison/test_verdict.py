"""Words that the numbers allow, and no others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from finemask.comparison.results import Results
from finemask.comparison.verdict import decision, verdicts

Tabulate = Callable[..., Results]


def gains(tabulate: Tabulate, *by: float, metric: str = "dice", **options: object) -> Results:
    base = {f"c{i}": 0.5 for i in range(len(by))}
    ours = {case: 0.5 + gain for case, gain in zip(base, by, strict=True)}
    return tabulate({"a": {0: base, 1: base}, "b": {0: ours, 1: ours}}, metric=metric, **options)


def test_better_with_its_interval_and_its_patients(tabulate_values: Tabulate) -> None:
    (said,) = verdicts(gains(tabulate_values, *[0.1] * 12))
    assert said == (
        "b is better than a by 0.100 [0.100, 0.100] Dice (p = 0.00049; 12 patients; "
        "in 2 of 2 seeds)."
    )


def test_worse_is_told_as_a_positive_loss(tabulate_values: Tabulate) -> None:
    (said,) = verdicts(gains(tabulate_values, *[-0.1] * 11, -0.2))
    assert said.startswith("b is worse than a by 0.108 [0.100, 0.125] Dice")
    assert "in 2 of 2 seeds" in said


def test_noise_is_not_distinguishable(tabulate_values: Tabulate) -> None:
    (said,) = verdicts(gains(tabulate_values, 0.1, -0.1, 0.05, -0.04, 0.02, -0.03, 0.01))
    assert said.startswith("b is not distinguishable from a (+0.001 [")
    assert "7 patients" in said


def test_few_patients_allow_no_verdict_however_large_the_gain(tabulate_values: Tabulate) -> None:
    (said,) = verdicts(gains(tabulate_values, *[0.3] * 5))
    assert "not distinguishable" in said
    assert "5 patients are too few for any verdict" in said
    assert "better" not in said


def test_an_interval_alone_is_not_enough(tabulate_values: Tabulate) -> None:
    """One patient gains so much that zero is left out; the signs say nothing."""
    results = gains(tabulate_values, *[0.3] * 3, *[-0.002, 0.002] * 6)
    entry = results.entry("b", "dice", "lesion")
    assert entry is not None
    assert entry.difference is not None
    assert entry.difference.ci_low > 0
    assert decision(entry) == 0


def test_a_shorter_distance_is_better(tabulate_values: Tabulate) -> None:
    results = gains(tabulate_values, *[-0.1] * 9, metric="hd95")
    entry = results.entry("b", "hd95", "lesion")
    assert entry is not None
    assert decision(entry) == 1


def test_sizes_are_told_where_they_differ(tabulate_values: Tabulate) -> None:
    sizes = {f"c{i}": 3.0 if i < 10 else 9.0 for i in range(20)}
    small = [0.01 * (-1) ** i for i in range(10)]
    (said,) = verdicts(gains(tabulate_values, *small, *[0.2] * 10, sizes=sizes, size_edges=(4.0,)))
    assert "b is better than a by" in said
    assert "By lesion size: better for 4 mm and more (+0.200 [0.200, 0.200]" in said
    assert "not distinguishable for below 4 mm (+0.000" in said


@pytest.mark.parametrize("seeds", [1, 2])
def test_seeds_that_disagree_are_told(tabulate_values: Tabulate, seeds: int) -> None:
    base = {f"c{i}": 0.5 for i in range(12)}
    up, down = (dict.fromkeys(base, v) for v in (0.8, 0.45))
    values = {0: up, 1: down} if seeds == 2 else {0: up}
    (said,) = verdicts(tabulate_values({"a": dict.fromkeys(values, base), "b": values}))
    assert f"in 1 of {seeds} seed{'s' if seeds > 1 else ''}" in said


def test_one_row_has_nothing_to_say(tabulate_values: Tabulate) -> None:
    assert verdicts(tabulate_values({"a": {0: {"x": 0.5}}})) == []
