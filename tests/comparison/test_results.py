"""Numbers that can be checked by hand, and what becomes of the undefined ones."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from finemask.comparison.plan import Cell, Plan
from finemask.comparison.results import Results, collect, higher_is_better
from finemask.metrics.paired import wilcoxon_p

Tabulate = Callable[..., Results]
INF = math.inf


def test_cases_and_seeds_are_kept_apart(tabulate_values: Tabulate) -> None:
    """Two cases differ by 0.4, two seeds by 0.02."""
    found = tabulate_values({
        "a": {0: {"x": 0.4, "y": 0.8}, 1: {"x": 0.42, "y": 0.82}},
    }).entry("a", "dice", "lesion")  # fmt: skip
    assert found is not None
    assert found.cases == 2
    assert found.mean == pytest.approx(0.61)
    assert found.sd_cases == pytest.approx(0.4 / math.sqrt(2))
    assert found.sd_seeds == pytest.approx(0.02 / math.sqrt(2))
    assert found.by_seed == pytest.approx({0: 0.6, 1: 0.62})
    assert found.difference is None


def test_differences_are_taken_case_by_case(tabulate_values: Tabulate) -> None:
    a = {"x": 0.1, "y": 0.5, "z": 0.9}
    b = {"x": 0.3, "y": 0.6, "z": 0.9}
    found = tabulate_values({"a": {0: a, 1: a}, "b": {0: b, 1: a}}).entry("b", "dice", "lesion")
    assert found is not None
    assert found.difference is not None
    assert found.difference.mean == pytest.approx((0.1 + 0.05 + 0) / 3)
    assert found.difference.p == wilcoxon_p(np.array([0.1, 0.05, 0.0])) == 0.5
    assert (found.seeds_above, found.seeds_paired) == (1, 2)
    assert found.unpaired == 0


def test_patients_not_images_are_drawn_again(tabulate_values: Tabulate) -> None:
    cases = {f"c{i}": 0.5 for i in range(8)}
    gains = {case: 0.5 + 0.01 * (i % 4) for i, case in enumerate(cases)}
    values = {"a": {0: cases}, "b": {0: gains}}
    apart = tabulate_values(values).entry("b", "dice", "lesion")
    together = tabulate_values(values, groups={c: f"p{i % 4}" for i, c in enumerate(cases)})
    entry = together.entry("b", "dice", "lesion")
    assert entry is not None
    assert apart is not None
    assert entry.difference is not None
    assert apart.difference is not None
    assert (entry.difference.groups, apart.difference.groups) == (4, 8)
    assert entry.difference.p > apart.difference.p


def test_undefined_values_are_counted_and_leave_pairs(tabulate_values: Tabulate) -> None:
    results = tabulate_values(
        {
            "a": {0: {"x": 3.0, "y": 4.0, "z": 8.0}, 1: {"x": 5.0, "y": INF, "z": 8.0}},
            "b": {0: {"x": 1.0, "y": INF, "z": 8.0}, 1: {"x": 5.0, "y": 2.0, "z": 8.0}},
        },
        metric="hd95",
    )
    a, b = (results.entry(row, "hd95", "lesion") for row in "ab")
    assert a is not None
    assert b is not None
    assert a.undefined == b.undefined == {"prediction empty": 1}
    assert a.mean == pytest.approx((4 + 4 + 8) / 3)
    assert b.difference is not None
    # y has no seed in which both are defined; x gains 2 in one seed of two.
    assert b.difference.cases == 2
    assert b.difference.mean == pytest.approx(-0.5)
    assert b.unpaired == 2
    assert not higher_is_better("hd95")


def test_a_seed_that_is_missing_counts_for_no_difference(tabulate_values: Tabulate) -> None:
    a, b = {"x": 0.5, "y": 0.5}, {"x": 0.7, "y": 0.6}
    found = tabulate_values({"a": {0: a, 1: {"x": 0.0, "y": 0.0}}, "b": {0: b}})
    entry = found.entry("b", "dice", "lesion")
    assert entry is not None
    assert entry.difference is not None
    assert entry.difference.mean == pytest.approx(0.15)
    assert entry.seeds_paired == 1
    assert entry.unpaired == 2


def test_holm_counts_the_rows(tabulate_values: Tabulate) -> None:
    cases = [f"c{i}" for i in range(6)]
    base = dict.fromkeys(cases, 0.5)
    better = {case: 0.6 + 0.01 * i for i, case in enumerate(cases)}
    mixed = {case: 0.5 + 0.1 * (-1) ** i for i, case in enumerate(cases)}
    results = tabulate_values({"a": {0: base}, "b": {0: better}, "c": {0: mixed}})
    b, c = (results.entry(row, "dice", "lesion") for row in "bc")
    assert b is not None
    assert c is not None
    assert b.p_holm == pytest.approx(2 * 2 / 64)
    assert c.p_holm == 1.0


def test_size_groups_are_those_of_the_lesions_not_of_the_rows(tabulate_values: Tabulate) -> None:
    cases = {"s": 0.2, "m": 0.5, "l": 0.9}
    results = tabulate_values(
        {"a": {0: cases, 1: cases}, "b": {0: cases, 1: cases}},
        sizes={"s": 2.0, "m": 6.0, "l": 11.0},
        size_edges=(4.0, 10.0),
    )
    assert results.size_names == ("<4", "4-10", ">=10")
    for row in "ab":
        found = [results.entry(row, "dice", "lesion", n) for n in results.size_names]
        assert [(e.cases, e.mean) for e in found if e] == [
            (1, pytest.approx(0.2)), (1, pytest.approx(0.5)), (1, pytest.approx(0.9)),
        ]  # fmt: skip


def test_everything_from_files_against_a_few_lines_of_numpy(
    phantoms: Path,
    tmp_path: Path,
    make_plan: Callable[..., Plan],
    make_up: Callable[..., None],
    grow: Callable[..., np.ndarray],
) -> None:
    plan = make_plan(phantoms, "unet", "dsrl", seeds=2)
    assert len(plan.splits[0].test) >= 3

    def draw(cell: Cell, name: str, truth: np.ndarray) -> np.ndarray:
        by = {"unet": 2, "dsrl": 1}[cell.row.label] + cell.seed
        return grow(truth, by) if name != plan.splits[0].test[0] else np.zeros_like(truth)

    make_up(plan, phantoms, tmp_path, draw)
    (tmp_path / "cells/dsrl/seed-1-fold-1/cell.json").unlink()  # not done
    results = collect(plan, tmp_path, {"dsrl/seed-1-fold-1": "fell over"})
    dice: dict[tuple[str, int], dict[str, float]] = {}
    for row, seed in (("unet", 0), ("unet", 1), ("dsrl", 0)):
        table = tmp_path / f"cells/{row}/seed-{seed}-fold-1/scores/cases.csv"
        lines = csv.DictReader(table.read_text().splitlines())
        dice[row, seed] = {line["case"]: float(line["dice"]) for line in lines}
    cases = sorted(dice["unet", 0])
    unet, dsrl = (results.entry(row, "dice", "lesion") for row in ("unet", "dsrl"))
    assert unet is not None
    assert dsrl is not None
    both = np.array([[dice["unet", s][c] for c in cases] for s in (0, 1)])
    assert unet.mean == pytest.approx(both.mean())
    assert unet.sd_cases == pytest.approx(both.mean(0).std(ddof=1))
    assert unet.sd_seeds == pytest.approx(both.mean(1).std(ddof=1))
    gain = np.array([dice["dsrl", 0][c] for c in cases]) - both[0]
    assert dsrl.difference is not None
    assert dsrl.difference.mean == pytest.approx(gain.mean())
    hd95 = results.entry("unet", "hd95", "lesion")
    assert hd95 is not None
    assert hd95.undefined == {"prediction empty": 2}
    assert results.exit_code == 1
    assert results.costs("unet")["macs_inference"] == 10**9


def test_a_missing_mask_is_a_failure_that_counts(
    phantoms: Path, tmp_path: Path, make_plan: Callable[..., Plan], make_up: Callable[..., None]
) -> None:
    from finemask.evaluation.cohort import evaluate
    from finemask.io import write_json

    plan = make_plan(phantoms, "unet", seeds=1)
    make_up(plan, phantoms, tmp_path, lambda _cell, _name, truth: truth)
    (cell,) = plan.cells
    test = plan.splits[0].test
    folder = tmp_path / "cells" / cell.name
    (folder / "masks" / f"{test[0]}.png").unlink()
    found = evaluate(folder / "masks", phantoms, folder / "scores", cases=test, overwrite=True)
    about = {"failed": [f.case for f in found.failures], "cost": {}}
    write_json(folder / "cell.json", about, overwrite=True)
    results = collect(plan, tmp_path, {})
    entry = results.entry("unet", "dice", "lesion")
    assert entry is not None
    assert entry.mean == pytest.approx((len(test) - 1) / len(test))
    assert results.failed_predictions == 1
    assert results.exit_code == 1
