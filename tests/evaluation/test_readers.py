"""Readers against each other, their consensus and the predictions: paper 001, Table VI."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from finemask.datasets import load_dataset
from finemask.errors import DataError
from finemask.evaluation.cohort import evaluate
from finemask.evaluation.readers import others_of
from finemask.geometry import Geometry
from finemask.io import write_image, write_labels

NAMES = ("anna", "ben", "cleo")
SIDE = 12


def masks_of(seed: int) -> dict[str, NDArray[np.uint8]]:
    """Three readers and a prediction who draw alike, but not the same."""
    rng = np.random.default_rng(seed)
    lesion = np.zeros((SIDE, SIDE))
    lesion[3:9, 3:9] = 1
    return {
        name: (lesion + 0.35 * rng.standard_normal(lesion.shape) > 0.5).astype(np.uint8)
        for name in (*NAMES, "prediction")
    }


def write_case(
    root: Path, name: str, masks: dict[str, NDArray[np.uint8]], labels: dict[str, int] | None = None
) -> None:
    grid = Geometry.regular((SIDE, SIDE))
    write_image(
        root / "data/images" / f"{name}.png",
        np.full((1, SIDE, SIDE), 9, np.float32),
        grid,
        overwrite=True,
    )
    for who, mask in masks.items():
        folder = root / "masks" if who == "prediction" else root / "data" / f"masks_{who}"
        write_labels(folder / f"{name}.png", mask, grid, labels=labels, overwrite=True)


@pytest.fixture
def cases(tmp_path: Path) -> dict[str, dict[str, NDArray[np.uint8]]]:
    found = {f"case_{k}": masks_of(k) for k in range(4)}
    for name in ("ben", "cleo"):
        found["case_3"][name] *= 0  # an empty mask is a vote
    for name, masks in found.items():
        write_case(tmp_path, name, masks)
    return found


def dice(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    size = a.sum(dtype=int) + b.sum(dtype=int)
    return 2 * int((a & b).sum()) / size if size else float("nan")


def half(masks: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return (2 * np.sum(masks, 0) >= len(masks)).astype(np.uint8)


def test_every_pair_is_the_mean_dice_of_its_cases(tmp_path: Path, cases: dict) -> None:
    study = evaluate(tmp_path / "masks", tmp_path / "data", readers=True).readers
    assert study is not None
    assert study.names == (*NAMES, "consensus", "prediction")
    every = [masks | {"consensus": half([masks[n] for n in NAMES])} for masks in cases.values()]
    for first, second in itertools.combinations(study.names, 2):
        values = [dice(masks[first], masks[second]) for masks in every]
        found = study.between("lesion", second, first)
        assert found.dice.mean == pytest.approx(np.nanmean(values))
        assert found.undefined == np.isnan(values).sum()
        joined = [np.concatenate([m[who] for m in every]) for who in (first, second)]
        assert found.pooled == pytest.approx(dice(*joined))
    assert study.between("lesion", "ben", "cleo").undefined == 1, "both left case_3 empty"


def test_the_consensus_of_the_others_is_made_without_the_reader(
    tmp_path: Path, cases: dict
) -> None:
    study = evaluate(tmp_path / "masks", tmp_path / "data", readers=True).readers
    assert study is not None
    for who in (*NAMES, "prediction"):
        reader = who if who in NAMES else "ben"
        values = [
            dice(masks[who], half([masks[n] for n in NAMES if n != reader]))
            for masks in cases.values()
        ]
        found = study.between("lesion", who, others_of(reader))
        assert found.dice.mean == pytest.approx(np.nanmean(values))


def test_table_figure_page_and_summary_are_written(tmp_path: Path, cases: dict) -> None:
    out = tmp_path / "scores"
    told = evaluate(tmp_path / "masks", tmp_path / "data", out, readers=True)
    rows = list(csv.DictReader((out / "readers.csv").open()))
    assert len(rows) == 10 + 2 * len(NAMES)
    first = next(r for r in rows if {r["first"], r["second"]} == {"anna", "prediction"})
    assert told.readers is not None
    assert float(first["dice"]) == pytest.approx(
        told.readers.between("lesion", "anna", "prediction").dice.mean
    )
    page = (out / "report.html").read_text()
    assert "Between readers" in page
    assert "without cleo" in page
    assert (out / "readers.png").stat().st_size > 5000
    assert json.loads((out / "summary.json").read_text())["readers"]["cases"] == len(cases)
    assert "consensus  prediction" in told.text()
    evaluate(tmp_path / "masks", tmp_path / "data", out, overwrite=True)
    assert not (out / "readers.csv").exists(), "what was not asked for does not stay"
    assert "Between readers" not in (out / "report.html").read_text()


def test_a_missing_prediction_is_an_empty_one(tmp_path: Path, cases: dict) -> None:
    (tmp_path / "masks" / "case_0.png").unlink()
    study = evaluate(tmp_path / "masks", tmp_path / "data", readers=True).readers
    assert study is not None
    values = [0.0, *(dice(cases[n]["anna"], cases[n]["prediction"]) for n in list(cases)[1:])]
    assert study.between("lesion", "anna", "prediction").dice.mean == pytest.approx(np.mean(values))


def test_cases_that_lack_a_reader_are_left_out_and_named(tmp_path: Path, cases: dict) -> None:
    (tmp_path / "data/masks_ben" / "case_1.png").unlink()
    study = evaluate(tmp_path / "masks", tmp_path / "data", readers=True).readers
    assert study is not None
    assert (study.readers, study.cases) == (NAMES, 3)
    assert "case_1" in study.notes[0]
    kept = [masks for name, masks in cases.items() if name != "case_1"]
    values = [dice(masks["anna"], masks["cleo"]) for masks in kept]
    assert study.between("lesion", "anna", "cleo").dice.mean == pytest.approx(np.mean(values))


def test_classes_have_tables_of_their_own(tmp_path: Path, cases: dict) -> None:
    for name, masks in cases.items():
        twice = {who: mask if who == "anna" else 2 * mask for who, mask in masks.items()}
        write_case(tmp_path, name, twice, {"class_1": 1, "class_2": 2})
    study = evaluate(tmp_path / "masks", tmp_path / "data", tmp_path / "out", readers=True).readers
    assert study is not None
    assert study.labels == ("class_1", "class_2")
    assert study.between("class_1", "anna", "ben").dice.mean == 0, "ben never marked it"
    assert study.between("class_1", "ben", "cleo").undefined == len(cases)


@pytest.mark.usefixtures("cases")
def test_without_several_readers_it_says_where_they_belong(tmp_path: Path) -> None:
    for name in ("ben", "cleo"):
        for file in (tmp_path / "data" / f"masks_{name}").iterdir():
            file.unlink()
    with pytest.raises(DataError, match="masks_<reader>/"):
        evaluate(tmp_path / "masks", tmp_path / "data", readers=True)


def test_readers_of_a_manifest_are_called_by_their_columns(tmp_path: Path, cases: dict) -> None:
    lines = ["case,image,rater_1,rater_2"]
    lines += [f"{n},images/{n}.png,masks_anna/{n}.png,masks_ben/{n}.png" for n in cases]
    (tmp_path / "data/manifest.csv").write_text("\n".join(lines))
    assert load_dataset(tmp_path / "data").entries[0].reader_names == ("rater_1", "rater_2")
    study = evaluate(tmp_path / "masks", tmp_path / "data", readers=True).readers
    assert study is not None
    assert study.readers == ("rater_1", "rater_2")
