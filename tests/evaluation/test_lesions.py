"""Lesion by lesion: what was found by size, what is none, and where it is told."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from finemask.evaluation.cohort import evaluate
from finemask.geometry import Geometry
from finemask.io import write_labels


def write(folder: Path, name: str, *corners: tuple[int, int, int, int]) -> None:
    """A mask of boxes on a grid of 40 x 40."""
    mask = np.zeros((40, 40), np.uint8)
    for top, bottom, left, right in corners:
        mask[top:bottom, left:right] = 1
    write_labels(folder / f"{name}.png", mask, Geometry.regular((40, 40)))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Case a: a large lesion found, a small one missed. b: one found, one false. c: no mask."""
    truth, pred = tmp_path / "truth", tmp_path / "pred"
    write(truth, "a", (2, 18, 2, 18), (30, 33, 30, 33))
    write(pred, "a", (3, 18, 3, 18))
    write(truth, "b", (5, 15, 5, 15))
    write(pred, "b", (5, 15, 5, 15), (30, 34, 30, 34))
    write(truth, "c", (5, 8, 5, 8))
    return pred, truth


@pytest.mark.fault("F34")
def test_every_lesion_has_a_row_and_a_size_of_its_own(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    found = evaluate(*folders, tmp_path / "out", size_edges=(8.0,))
    rows = list(csv.DictReader((tmp_path / "out" / "lesions.csv").open()))
    told = [(r["case"], r["kind"], r["size_group"], r["voxels"]) for r in rows]
    assert sorted(told) == [
        ("a", "found", ">=8", "256"), ("a", "missed", "<8", "9"),
        ("b", "false", "", "16"), ("b", "found", ">=8", "100"),
        ("c", "missed", "<8", "9"),
    ]  # fmt: skip
    about = json.loads((tmp_path / "out" / "summary.json").read_text())["lesions"]
    (told_of_class,) = about["classes"].values()
    by_size = {group: (cell["n"], cell["mean"]) for group, cell in told_of_class["found"].items()}
    assert by_size == {"all": (4, 0.5), "<8": (2, 0.0), ">=8": (2, 1.0)}
    assert told_of_class["false"] == 1
    assert told_of_class["false_a_case"] == pytest.approx(1 / 3)
    assert len(found.lesions) == 5


def test_the_page_paints_whole_lesions(folders: tuple[Path, Path], tmp_path: Path) -> None:
    evaluate(*folders, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Lesion by lesion" in page
    assert "False lesions: 1, 0.33 a case." in page
    assert "a: 1 found, 1 missed, 0 false" in page
    assert "b: 1 found, 0 missed, 1 false" in page


def test_one_lesion_a_case_needs_no_section(tmp_path: Path) -> None:
    for folder in (tmp_path / "truth", tmp_path / "pred"):
        write(folder, "a", (5, 15, 5, 15))
        write(folder, "b", (5, 15, 5, 15))
    evaluate(tmp_path / "pred", tmp_path / "truth", tmp_path / "out")
    assert "Lesion by lesion" not in (tmp_path / "out" / "report.html").read_text()


def test_the_clinical_protocol_counts_lesions(folders: tuple[Path, Path]) -> None:
    found = evaluate(*folders, protocol="clinical")
    values = {s.case: s.values for s in found.scores}
    assert values["a"]["lesions_found"] == 0.5
    assert values["b"]["false_lesions"] == 1
    assert values["c"]["lesions_found"] == 0
    reasons = {
        metric: next(iter(found.summary["scores"][metric].values()))["all"]["undefined"]
        for metric in ("false_lesions", "average_precision")
    }
    assert reasons["false_lesions"] == {"failed": 1}
    assert reasons["average_precision"] == {"failed": 1, "no probabilities": 2}
