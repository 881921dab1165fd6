from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from finemask.errors import DataError, UsageError
from finemask.evaluation.cohort import evaluate
from finemask.geometry import Geometry
from finemask.io import write_image, write_labels, write_probs

PICTURE = Geometry.regular((40, 50))


def disc(radius: float, centre: tuple[int, int] = (20, 25)) -> np.ndarray:
    rows, columns = np.ogrid[:40, :50]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2).astype(np.uint8)


def save(folder: Path, **masks: np.ndarray) -> Path:
    for name, mask in masks.items():
        write_labels(folder / f"{name}.png", mask, PICTURE)
    return folder


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """A folder data set: three lesions and a healthy case."""
    rng = np.random.default_rng(0)
    names = {"a": disc(4), "b": disc(8), "c": disc(12), "healthy": disc(0) * 0}
    for name, mask in names.items():
        write_labels(tmp_path / "data/masks" / f"{name}.png", mask, PICTURE)
        image = np.round(80 + 60 * mask + rng.normal(0, 9, mask.shape)).clip(0, 255)
        write_image(tmp_path / "data/images" / f"{name}.png", image.astype(np.uint8), PICTURE)
    return tmp_path / "data"


@pytest.fixture
def pred(tmp_path: Path) -> Path:
    return save(tmp_path / "pred", a=disc(4), b=disc(8, (22, 25)), c=disc(10), healthy=disc(0) * 0)


def test_an_empty_case_left_empty_may_count_as_perfect(pred, truth, tmp_path) -> None:
    """Dice and IoU alone; a lesion that is invented there, or a missing mask, still counts 0."""
    result = evaluate(pred, truth, tmp_path / "out", empty="one")
    cell = result.summary["scores"]["dice"]["lesion"]["all"]
    plain = evaluate(pred, truth).summary["scores"]["dice"]["lesion"]["all"]
    assert (cell["n"], cell["undefined"]) == (4, {})
    assert cell["mean"] == pytest.approx((3 * plain["mean"] + 1) / 4)
    assert result.summary["scores"]["iou"]["lesion"]["empty"]["mean"] == 1
    assert result.summary["scores"]["precision"]["lesion"]["all"]["undefined"] == {"both empty": 1}
    assert "1 where both masks are empty" in (tmp_path / "out/report.html").read_text()
    (pred / "healthy.png").unlink()
    assert evaluate(pred, truth, empty="one").mean("dice") == pytest.approx(plain["mean"] * 3 / 4)
    save(pred, healthy=disc(3))
    assert evaluate(pred, truth, empty="one").mean("dice") == pytest.approx(plain["mean"] * 3 / 4)


def test_scores_every_case_and_writes_what_it_promises(pred, truth, tmp_path) -> None:
    result = evaluate(pred, truth, tmp_path / "out")
    assert (result.scored, result.failed, result.exit_code) == (4, 0, 0)
    assert {f.name for f in (tmp_path / "out").iterdir()} == {
        "cases.csv", "lesions.csv", "summary.json", "report.html",
    }  # fmt: skip
    rows = {row["case"]: row for row in rows_of(tmp_path / "out/cases.csv")}
    assert float(rows["a"]["dice"]) == 1
    assert float(rows["a"]["hd95"]) == 0
    assert float(rows["b"]["hd95"]) == 2
    assert rows["healthy"]["dice"] == "nan"
    assert rows["healthy"]["flags"] == "both empty"
    assert rows["healthy"]["size_group"] == "empty"
    assert [rows[n]["size_group"] for n in "abc"] == ["small", "medium", "large"]
    assert {row["unit"] for row in rows.values()} == {"px"}
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    cell = summary["scores"]["dice"]["lesion"]["all"]
    assert cell["n"] == 3
    assert cell["undefined"] == {"both empty": 1}
    assert cell["mean"] == pytest.approx(np.mean([float(rows[n]["dice"]) for n in "abc"]))
    assert summary["protocol"]["name"] == "segmentation"
    assert summary["pooled"]["lesion"]["dice_pooled"] != pytest.approx(cell["mean"])
    assert str(tmp_path) not in json.dumps(summary)


@pytest.mark.fault("F96")
def test_a_missing_prediction_is_the_worst_and_never_left_out(pred, truth, tmp_path) -> None:
    complete = evaluate(pred, truth)
    (pred / "a.png").unlink()
    result = evaluate(pred, truth, tmp_path / "out")
    assert (result.scored, result.failed, result.exit_code) == (3, 1, 1)
    cell = result.summary["scores"]["dice"]["lesion"]["all"]
    assert cell["n"] == 3
    assert cell["mean"] == pytest.approx(complete.mean("dice") - 1 / 3)
    distances = result.summary["scores"]["hd95"]["lesion"]["all"]
    assert distances["undefined"] == {"both empty": 1, "failed": 1}
    (failure,) = rows_of(tmp_path / "out/failures.csv")
    assert failure["case"] == "a"
    assert "is missing" in failure["error"]
    assert result.text().splitlines()[-1] == "3 scored, 1 failed of 4"


def test_a_damaged_or_misplaced_prediction_fails_alone(pred, truth) -> None:
    (pred / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n not much more")
    write_labels(pred / "b.png", disc(8)[:, :-1], Geometry.regular((40, 49)), overwrite=True)
    result = evaluate(pred, truth)
    reasons = {f.case: str(f.error) for f in result.failures}
    assert set(reasons) == {"a", "b"}
    assert (
        "b.png: does not lie on the grid of the truth: its shape is (40, 49), not (40, 50)"
        in reasons["b"]
    )


def test_extra_predictions_are_listed(pred, truth) -> None:
    save(pred, stranger=disc(3))
    result = evaluate(pred, truth)
    assert result.summary["cases"]["extra_predictions"] == ["stranger"]
    assert result.exit_code == 0
    assert "predictions without a truth were left out: stranger" in result.text()


def test_only_the_cases_asked_for(pred, truth) -> None:
    result = evaluate(pred, truth, cases=["b"])
    assert {s.case for s in result.scores} == {"b"}
    assert result.summary["cases"]["extra_predictions"] == []
    with pytest.raises(UsageError, match="has no truth for nobody"):
        evaluate(pred, truth, cases=["nobody"])


def test_a_broken_truth_is_flagged_and_not_scored(pred, truth) -> None:
    (truth / "masks/c.png").write_bytes((truth / "masks/c.png").read_bytes()[:60])
    result = evaluate(pred, truth / "masks")
    (bad,) = [s for s in result.scores if s.case == "c"]
    assert bad.flag == "truth unreadable"
    assert math.isnan(bad.values["dice"])
    assert result.failed == 1


def test_probabilities_and_super_resolved_image_beside_the_masks(pred, truth) -> None:
    soft = np.where(disc(4) > 0, 0.75, 0.25).astype(np.float32)
    write_probs(pred / "a_probs.png", soft[None], PICTURE)
    image = np.full((40, 50), 80, np.uint8) + 60 * disc(4)
    write_image(pred / "a_sr.png", image, PICTURE)
    result = evaluate(pred, truth)
    by_case = {(s.case, s.label): s for s in result.scores}
    assert by_case["a", "lesion"].values["mae"] == pytest.approx(0.25, abs=1e-4)
    assert by_case["b", "lesion"].values["mae_mask"] == pytest.approx(
        np.mean(disc(8) != disc(8, (22, 25)))
    )
    cell = result.summary["scores"]["mae"]["lesion"]["all"]
    assert (cell["n"], cell["undefined"]) == (1, {"no probabilities": 3})
    assert 15 < by_case["a", "image"].values["psnr_db"] < 35
    assert result.summary["scores"]["ssim"]["image"]["all"]["n"] == 1
    assert "image" not in result.summary["scores"]["dice"]


def test_probabilities_of_several_classes_are_found_and_put_in_class_order(tmp_path) -> None:
    both = disc(8) + (disc(4, (20, 40)) * 2 * (disc(8) == 0)).astype(np.uint8)
    labels = {"rim zone": 1, "core": 2}
    data = tmp_path / "data"
    write_labels(data / "masks/a.png", both, PICTURE, labels=labels)
    write_image(data / "images/a.png", 100 * both, PICTURE)
    declared = {"labels": {"background": 0, **labels}}
    (data / "dataset.json").write_text(json.dumps(declared))
    write_labels(tmp_path / "pred/a.png", both, PICTURE, labels=labels)
    for k, (name, weight) in enumerate({"rim_zone": 0.9, "core": 0.6}.items(), start=1):
        probs = (weight * (both == k)).astype(np.float32)
        write_probs(tmp_path / f"pred/a_probs_{name}.png", probs[None], PICTURE)
    result = evaluate(tmp_path / "pred", data)
    mae = {s.label: s.values["mae"] for s in result.scores}
    assert mae["rim zone"] == pytest.approx(0.1 * np.mean(both == 1), rel=1e-3)
    assert mae["core"] == pytest.approx(0.4 * np.mean(both == 2), rel=1e-3)
    assert result.summary["cases"]["extra_predictions"] == []
    (tmp_path / "pred/a_probs_core.png").unlink()
    result = evaluate(tmp_path / "pred", data)
    assert result.failed == 0
    assert result.summary["scores"]["mae"]["core"]["all"]["undefined"] == {"no probabilities": 1}
    assert "probabilities not scored" in result.text()


def test_what_belongs_to_a_missing_mask_is_no_extra_prediction(pred, truth) -> None:
    write_probs(pred / "a_probs.png", np.zeros((1, 40, 50), np.float32), PICTURE)
    write_image(pred / "a_sr.png", np.zeros((40, 50), np.uint8), PICTURE)
    (pred / "a.png").unlink()
    result = evaluate(pred, truth)
    assert result.summary["cases"]["extra_predictions"] == []
    assert result.summary["cases"]["failed"] == ["a"]


def test_a_failed_case_is_undefined_and_counted_for_the_image_too(pred, truth) -> None:
    for name in "abc":
        write_image(pred / f"{name}_sr.png", np.full((40, 50), 80, np.uint8), PICTURE)
    (pred / "a.png").unlink()
    cell = evaluate(pred, truth).summary["scores"]["psnr_db"]["image"]["all"]
    assert cell["n"] == 2
    assert cell["undefined"] == {"failed": 1, "no super-resolved image": 1}


def test_failures_alone_make_no_mean_of_the_probabilities(pred, truth) -> None:
    (pred / "a.png").unlink()
    cell = evaluate(pred, truth).summary["scores"]["mae"]["lesion"]["all"]
    assert (cell["n"], cell["undefined"]) == (0, {"failed": 1, "no probabilities": 3})
    write_probs(pred / "b_probs.png", np.zeros((1, 40, 50), np.float32), PICTURE)
    assert evaluate(pred, truth).summary["scores"]["mae"]["lesion"]["all"]["n"] == 2


def test_lengths_on_a_sheared_grid_are_undefined_and_said_to_be(tmp_path) -> None:
    mask = np.zeros((12, 16, 20), np.uint8)
    mask[3:8, 4:12, 5:15] = 1
    square = np.diag([0.7, 0.7, 3.0, 1.0])
    sheared = square.copy()
    sheared[0, 2] = 0.9  # a gantry tilt
    for folder in ("truth", "pred"):
        (tmp_path / folder).mkdir()
        for name, affine in (("plain", square), ("tilted", sheared)):
            nib.save(nib.Nifti1Image(mask, affine), tmp_path / folder / f"{name}.nii.gz")
    result = evaluate(tmp_path / "pred", tmp_path / "truth", tmp_path / "out")
    scores = {s.case: s for s in result.scores}
    assert scores["tilted"].flag == "sheared grid"
    assert scores["tilted"].values["dice"] == 1
    assert math.isnan(scores["tilted"].values["hd95"])
    assert math.isnan(scores["tilted"].size)
    assert scores["plain"].values["hd95"] == 0
    cell = result.summary["scores"]["assd"]["lesion"]["all"]
    assert (cell["n"], cell["undefined"]) == (1, {"sheared grid": 1})
    assert "sheared grids: tilted" in result.text()
    assert "nan" not in (tmp_path / "out/report.html").read_text().lower().split("<body")[-1]


def test_a_super_resolved_image_of_another_size_is_noted(pred, truth) -> None:
    write_image(pred / "a_sr.png", np.zeros((20, 25), np.uint8), Geometry.regular((20, 25)))
    result = evaluate(pred, truth)
    assert result.failed == 0
    assert "1 super-resolved images were not scored" in result.text()


def test_size_edges(pred, truth) -> None:
    result = evaluate(pred, truth, size_edges=(10, 20))
    assert [s.size_group for s in result.scores] == ["<10", "10-20", ">=20", "empty"]
    with pytest.raises(UsageError, match="must be positive and ascend"):
        evaluate(pred, truth, size_edges=(20, 10))


@pytest.mark.fault("F84")
def test_nothing_is_overwritten_unless_asked(pred, truth, tmp_path) -> None:
    evaluate(pred, truth, tmp_path / "out")
    before = (tmp_path / "out/cases.csv").read_bytes()
    save(pred, stranger=disc(3))
    (pred / "a.png").unlink()
    with pytest.raises(UsageError, match="exists already"):
        evaluate(pred, truth, tmp_path / "out")
    assert (tmp_path / "out/cases.csv").read_bytes() == before
    evaluate(pred, truth, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/failures.csv").exists()
    save(pred, a=disc(4))
    evaluate(pred, truth, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out/failures.csv").exists()


def test_a_folder_that_cannot_be_written_is_found_before_anything_is_scored(
    pred, truth, tmp_path, monkeypatch
) -> None:
    def scored(*_: object) -> None:
        raise AssertionError("scored before the folder was tried")

    monkeypatch.setattr("finemask.evaluation.cohort._score_case", scored)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "out", Path("/proc/finemask")):
        with pytest.raises(UsageError, match="cannot be written"):
            evaluate(pred, truth, out)


def test_files_that_are_shared_name_no_home(pred, truth, tmp_path) -> None:
    (pred / "a.png").unlink()
    (pred / "b.png").write_bytes(b"\x89PNG\r\n\x1a\n not much more")
    (truth / "masks/c.png").write_bytes((truth / "masks/c.png").read_bytes()[:60])
    write_image(pred / "healthy_sr.png", np.zeros((20, 25), np.uint8), Geometry.regular((20, 25)))
    result = evaluate(pred, truth / "masks", tmp_path / "out", images=truth / "images")
    assert all(str(tmp_path) in str(failure.error) for failure in result.failures)
    for file in (tmp_path / "out").iterdir():
        assert str(tmp_path) not in file.read_text(encoding="utf-8"), file.name
    files = {row["case"]: row["file"] for row in rows_of(tmp_path / "out/failures.csv")}
    assert files == {"a": "a", "b": "b.png", "c": "c.png"}
    assert json.loads((tmp_path / "out/summary.json").read_text())["inputs"] == {
        "pred": "pred", "truth": "masks",
    }  # fmt: skip


def test_masks_alone_and_one_mask_against_one(pred, truth) -> None:
    full = evaluate(pred, truth)
    alone = evaluate(pred, truth / "masks")
    assert [s.values for s in alone.scores if s.case != "healthy"] == [
        s.values for s in full.scores if s.case != "healthy"
    ]
    one = evaluate(pred / "c.png", truth / "masks/b.png")
    assert len(one.scores) == 1
    assert one.scores[0].case == "b"


def test_tables_of_masks_and_the_patient_column(pred, truth) -> None:
    for folder, where in ((pred, "."), (truth, "masks")):
        lines = [f"{n},{where}/{n}.png,p{n in 'ab'}" for n in ("a", "b", "c", "healthy")]
        (folder / "table.csv").write_text("\n".join(["case,mask,patient", *lines]))
    result = evaluate(pred / "table.csv", truth / "table.csv", group="patient")
    assert [s.group for s in result.scores] == ["pTrue", "pTrue", "pFalse", "pFalse"]
    with pytest.raises(UsageError, match="is no column of"):
        evaluate(pred, truth / "table.csv", group="hospital")
    with pytest.raises(UsageError, match=r"has no manifest\.csv"):
        evaluate(pred, truth, group="patient")


def test_a_formula_as_group_reaches_no_spreadsheet(pred, truth, tmp_path) -> None:
    lines = [f"{n},masks/{n}.png,=HYPERLINK(1)" for n in ("a", "b", "c", "healthy")]
    (truth / "table.csv").write_text("\n".join(["case,mask,patient", *lines]))
    evaluate(pred, truth / "table.csv", tmp_path / "out", group="patient")
    assert {r["group"] for r in rows_of(tmp_path / "out/cases.csv")} == {"'=HYPERLINK(1)"}


def test_refuses_what_cannot_be_scored(pred, truth, tmp_path) -> None:
    with pytest.raises(UsageError, match="is no protocol; there are segmentation"):
        evaluate(pred, truth, protocol="magic")
    with pytest.raises(DataError, match="does not exist"):
        evaluate(tmp_path / "nowhere", truth)
    other = save(tmp_path / "other", x=disc(3))
    with pytest.raises(DataError, match="has no mask named as a truth"):
        evaluate(other, truth)
    write_labels(pred / "a.tif", disc(4), PICTURE)
    with pytest.raises(DataError, match="has two files for case a"):
        evaluate(pred, truth)


def test_a_class_absent_from_one_mask_keeps_its_number(tmp_path) -> None:
    both = disc(8) + (disc(4, (20, 40)) * 2 * (disc(8) == 0)).astype(np.uint8)
    only_second = np.where(both == 2, 2, 0).astype(np.uint8)
    save(tmp_path / "truth", a=both, b=only_second)
    save(tmp_path / "pred", a=both, b=only_second)
    result = evaluate(tmp_path / "pred", tmp_path / "truth")
    dice = {(s.case, s.label): s.values["dice"] for s in result.scores}
    assert dice["a", "class_1"] == dice["a", "class_2"] == dice["b", "class_2"] == 1
    assert math.isnan(dice["b", "class_1"])


@pytest.mark.fault("F32")
def test_volumes_in_another_orientation_and_off_the_grid(tmp_path) -> None:
    mask = np.zeros((12, 16, 20), np.uint8)
    mask[3:8, 4:12, 5:15] = 1
    affine = np.array([[0.7, 0, 0, -9], [0, 0.7, 0, 4], [0, 0, 3.0, 1], [0, 0, 0, 1.0]])
    flipped = affine.copy()
    flipped[:, 0] *= -1
    flipped[:3, 3] = (affine @ [11, 0, 0, 1])[:3]
    moved = affine.copy()
    moved[0, 3] += 0.35
    files = {
        "truth/turned": (mask, affine),
        "truth/moved": (mask, affine),
        "pred/turned": (mask[::-1], flipped),
        "pred/moved": (mask, moved),
    }
    for name, (array, matrix) in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array, matrix), tmp_path / f"{name}.nii.gz")
    result = evaluate(tmp_path / "pred", tmp_path / "truth", tmp_path / "out")
    scores = {s.case: s for s in result.scores}
    assert scores["turned"].values["dice"] == 1
    assert scores["turned"].unit == "mm"
    assert scores["turned"].size == pytest.approx((6 * 400 * 0.7 * 0.7 * 3 / math.pi) ** (1 / 3))
    assert scores["moved"].failed
    assert "displaced by up to 0.5 voxels" in str(result.failures[0].error)


class _Checker(HTMLParser):
    """Collects what a page would fetch, and pictures without a description."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.undescribed = 0
        self.pictures = 0

    def handle_starttag(self, tag, attrs) -> None:
        values = dict(attrs)
        self.fetched += [
            v for k, v in attrs
            if k in ("src", "href", "xlink:href") and not v.startswith(("data:", "#"))
        ]  # fmt: skip
        assert tag not in ("script", "link", "iframe")
        if tag in ("img", "svg"):
            self.pictures += 1
            self.undescribed += not (values.get("alt") or values.get("aria-label"))


def test_the_report_is_one_file_with_described_pictures(pred, truth, tmp_path) -> None:
    for folder in (pred, truth / "masks", truth / "images"):
        (folder / "c.png").rename(folder / "c-x_.1.png")
    (pred / "a.png").unlink()
    evaluate(pred, truth, tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    checker = _Checker()
    checker.feed(page)
    assert checker.fetched == []
    assert checker.undescribed == 0
    assert checker.pictures >= 8
    for words in ("Best", "Worst", "c-x_.1", "1 of 4 cases failed", "is missing", "version 2"):
        assert words in page


def test_a_report_without_any_score_to_show(tmp_path) -> None:
    masks = save(tmp_path / "none", a=disc(0) * 0, healthy=disc(0) * 0)
    save(tmp_path / "empty", a=disc(0) * 0, healthy=disc(0) * 0)
    result = evaluate(masks, tmp_path / "empty", tmp_path / "out")
    assert math.isnan(result.mean("dice"))
    assert (tmp_path / "out/report.html").exists()


def test_evaluate_starts_without_torch() -> None:
    code = "import finemask.evaluation.cohort, finemask.report.evaluation; import sys; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
