"""The plan: one task, pairing and budget for all, and nothing changed behind one's back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finemask.comparison.plan import (
    Choices,
    Plan,
    check_choices,
    extended,
    make_rows,
    make_splits,
)
from finemask.datasets import Split, load_dataset
from finemask.errors import UsageError
from finemask.methods.dsrl import DSRL
from finemask.methods.unet import UNet

MakePlan = Callable[..., Plan]

BOTH = Choices(methods=("unet", "dsrl"), bounds={"steps": 7})


def rows_of(phantoms: Path, **changes: Any) -> list[str]:
    return [row.label for row in make_rows(load_dataset(phantoms), replace(BOTH, **changes))]


def test_rows_share_task_and_budget(phantoms: Path) -> None:
    unet, dsrl = make_rows(load_dataset(phantoms), replace(BOTH, scale=(4,)))
    assert unet.recipe.task == dsrl.recipe.task
    assert unet.recipe.task.scale == (4, 4)
    assert unet.recipe.train.steps == dsrl.recipe.train.steps == 7


def test_a_bound_of_one_kind_lifts_the_others(phantoms: Path) -> None:
    (row,) = make_rows(load_dataset(phantoms), Choices(methods=("unet",), bounds={"minutes": 2.0}))
    assert (row.recipe.train.steps, row.recipe.train.minutes) == (0, 2.0)


def test_ablations_become_rows_below_their_method(
    phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"whole": {}, "thin": {"width": 8}, "w/o depth": {"depth": 2}}
    monkeypatch.setattr(DSRL, "ABLATIONS", changes)
    assert rows_of(phantoms, methods=("unet",), ablate=("dsrl",)) == [
        "unet", "dsrl", "dsrl: thin", "dsrl: w/o depth",
    ]  # fmt: skip
    rows = make_rows(load_dataset(phantoms), replace(BOTH, ablate=("dsrl",)))
    assert rows[2].recipe.config["width"] == 8
    assert rows[3].ablation == "w/o depth"
    assert "/" not in rows[3].folder
    chosen = rows_of(phantoms, methods=("unet",), ablate=("dsrl:w/o depth, thin",))
    assert chosen == ["unet", "dsrl", "dsrl: w/o depth", "dsrl: thin"]
    with pytest.raises(UsageError, match=r"dsrl: has no row thick; pick of whole, thin, w/o depth"):
        rows_of(phantoms, ablate=("dsrl:thin,thick",))
    monkeypatch.setattr(DSRL, "ABLATIONS", {})
    with pytest.raises(UsageError, match=r"dsrl.*has no ablations"):
        rows_of(phantoms, ablate=("dsrl",))
    monkeypatch.setattr(DSRL, "ABLATIONS", {"+ a": {"width": 8}, "a": {"width": 9}})
    with pytest.raises(UsageError, match="share the folder"):
        rows_of(phantoms, ablate=("dsrl",))


def test_settings_for_one_method_reach_it_alone(phantoms: Path) -> None:
    rows = make_rows(
        load_dataset(phantoms),
        replace(BOTH, settings=("width=8",), settings_for=("dsrl:width=6", "dsrl:crop=32x32")),
    )
    assert [row.recipe.config["width"] for row in rows] == [8, 6]
    assert [row.recipe.pairs.crop for row in rows] == [(), (32, 32)]
    for wrong in ("pfseg:width=6", "width=6"):
        with pytest.raises(UsageError, match="names no method that is compared"):
            rows_of(phantoms, settings_for=(wrong,))


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("train.steps=9", r"train.steps: is 7 for unet and 9 for dsrl"),
        ("train.minutes=1", r"train.minutes"),
        ("pairs.noise=0.1", r"pairs.noise"),
        ("pairs.degrade=blur", r"pairs.degrade"),
        ("task.scale=3", r"task.scale"),
        ("prepare.spacing_mm=2,2", r"prepare.spacing_mm"),
    ],
)
def test_what_would_favour_a_method_is_refused(phantoms: Path, setting: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        rows_of(phantoms, settings_for=(f"dsrl:{setting}",))


def test_budgets_of_the_methods_own_recipes_must_agree(
    phantoms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UNet, "RECIPE", {"train": {"epochs": 5}})
    with pytest.raises(UsageError, match="--steps, --epochs or --minutes"):
        rows_of(phantoms, bounds={})
    with pytest.raises(UsageError, match=r"train.epochs"):
        rows_of(phantoms)


@pytest.mark.parametrize(
    "changes",
    [{"methods": ("magic",)}, {"methods": ()}, {"settings": ("magic=1",)}],
    ids=lambda c: str(c),
)
def test_nonsense_is_refused_before_anything_runs(phantoms: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        rows_of(phantoms, **changes)


@pytest.mark.parametrize(
    "values",
    [{"protocol": "magic"}, {"mode": "magic"}, {"jobs": 0}, {"seeds": 0}, {"threads": -1},
     {"size_edges": (10.0, 4.0)}],
    ids=lambda v: str(v),
)  # fmt: skip
def test_values_that_no_comparison_has_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        check_choices(**values)


def test_every_part_of_every_fold_has_cases(phantoms: Path, tmp_path: Path) -> None:
    dataset = load_dataset(phantoms)
    folds = make_splits(dataset, folds=3)
    tested = [name for split in folds for name in split.test]
    assert sorted(tested) == sorted(entry.name for entry in dataset.entries)
    names = [entry.name for entry in dataset.entries]
    file = tmp_path / "splits.json"
    Split(train=tuple(names[:9]), val=tuple(names[9:11]), test=tuple(names[11:])).save(file)
    assert make_splits(dataset, split=file)[0].test == tuple(names[11:])
    with pytest.raises(UsageError, match="leave one out"):
        make_splits(dataset, split=file, folds=3)
    Split(train=tuple(names[:11]), val=(), test=tuple(names[11:])).save(file, overwrite=True)
    (drawn,) = make_splits(dataset, split=file)
    assert drawn.val, "who names no validation cases has them drawn from training"
    assert sorted(drawn.train + drawn.val) == sorted(names[:11])
    Split(train=tuple(names[:9]), val=tuple(names[9:]), test=()).save(file, overwrite=True)
    with pytest.raises(UsageError, match="no test case"):
        make_splits(dataset, split=file)


def test_a_plan_reads_back(phantoms: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    plan = replace(make_plan(phantoms, "unet", "dsrl"), size_edges=(4.0, 9.5), mode="native")
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan
    assert str(phantoms) not in (tmp_path / "plan.json").read_text()
    assert plan.cell("dsrl/seed-1-fold-1").recipe.train.seed == 1


def test_seeds_come_before_rows_so_that_a_stopped_comparison_is_even(
    phantoms: Path, make_plan: MakePlan
) -> None:
    plan = make_plan(phantoms, "unet", "dsrl")
    assert [(c.seed, c.row.label) for c in plan.cells] == [
        (0, "unet"), (0, "dsrl"), (1, "unet"), (1, "dsrl"),
    ]  # fmt: skip


def test_rows_and_seeds_may_be_added_and_reordered(phantoms: Path, make_plan: MakePlan) -> None:
    old = make_plan(phantoms, "unet", seeds=1)
    new = make_plan(phantoms, "dsrl", "unet", seeds=3)
    assert extended(old, new) == new


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mode": "native"}, "mode matched, this call has native"),
        ({"size_edges": (3.0,)}, "size_edges"),
        ({"threads": 2}, "threads 1, this call has 2"),
        ({"protocol_version": 1}, "protocol_version"),
        ({"fingerprint": "other"}, "another data set"),
        ({"seeds": (0,)}, "is 1, the folder holds 2"),
        ({"splits": ()}, "another splits"),
    ],
    ids=lambda c: str(c),
)
def test_anything_else_is_named_and_refused(
    phantoms: Path, make_plan: MakePlan, changes: dict[str, Any], named: str
) -> None:
    plan = make_plan(phantoms, "unet", "dsrl")
    with pytest.raises(UsageError, match=named):
        extended(plan, replace(plan, **changes))


def test_a_changed_or_missing_row_is_named(phantoms: Path, make_plan: MakePlan) -> None:
    old = make_plan(phantoms, "unet", "dsrl")
    with pytest.raises(UsageError, match="holds dsrl too"):
        extended(old, make_plan(phantoms, "unet"))
    changed = make_plan(phantoms, "unet", "dsrl", settings=("learning_rate=0.5",))
    with pytest.raises(UsageError, match=r"train.learning_rate = 0.001, this call has 0.5;"):
        extended(old, changed)
