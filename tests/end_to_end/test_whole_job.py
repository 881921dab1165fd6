"""The commands of USE.md, one after the other, on phantoms: what a user types and gets."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from finemask.case import Case
from finemask.datasets import make_phantoms
from finemask.geometry import Geometry
from finemask.io import read_image, read_labels, write_image, write_labels

QUICK = [
    "--set", "crop=32x32", "--set", "batch_size=2", "--set", "config.width=4",
    "--set", "config.depth=2",
]  # fmt: skip


def finemask(*words: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command as a process of its own."""
    command = [sys.executable, "-m", "finemask", *map(str, words), "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set and a run trained on it for a moment."""
    folder = tmp_path_factory.mktemp("job")
    make_phantoms(folder / "data", kind="ultrasound", cases=9, seed=2, size=(64, 64))
    finemask(
        "train", folder / "data", "--out", folder / "run", "--method", "dsrl", "--scale", 2,
        "--steps", 3, *QUICK,
    )  # fmt: skip
    return folder


def test_check_prints_a_summary(place: Path) -> None:
    said = finemask("check", place / "data").stdout
    assert "9" in said
    assert "64" in said
    report = json.loads(finemask("check", place / "data", "--json").stdout)
    assert report["problems"] == []
    assert len(report["cases"]) == 9


def test_predict_then_evaluate_the_test_part(place: Path, tmp_path: Path) -> None:
    masks, scores = tmp_path / "masks", tmp_path / "scores"
    finemask(
        "predict", place / "run", place / "data", "--out", masks, "--part", "test",
        "--mode", "matched", "--probs", "--sr",
    )  # fmt: skip
    names = json.loads((place / "run" / "splits.json").read_text())["test"]
    for name in names:
        truth, _ = read_labels(place / "data" / "masks" / f"{name}.png")
        assert read_labels(masks / f"{name}.png")[0].shape == truth.shape
        assert (masks / f"{name}_probs.png").exists()
        assert (masks / f"{name}_sr.png").exists()
    said = finemask("evaluate", masks, place / "data", "--split", place / "run", "--out", scores)
    assert f"{len(names)} scored, 0 failed" in said.stdout
    rows = list(csv.DictReader((scores / "cases.csv").open()))
    assert sorted(row["case"] for row in rows if row["class"] != "image") == sorted(names)
    summary = json.loads((scores / "summary.json").read_text())
    assert 0 <= summary["scores"]["dice"]["lesion"]["all"]["mean"] <= 1
    assert "psnr_db" in summary["scores"]
    page = (scores / "report.html").read_text()
    assert page.count("data:image/") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    again = finemask(
        "evaluate", masks, place / "data", "--split", place / "run", "--out", scores, code=2
    )
    assert "exists already" in again.stderr


def test_a_missing_prediction_is_a_failed_case(place: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    finemask(
        "predict",
        place / "run",
        place / "data",
        "--out",
        masks,
        "--part",
        "val",
        "--mode",
        "matched",
    )
    val = json.loads((place / "run" / "splits.json").read_text())["val"]
    test = json.loads((place / "run" / "splits.json").read_text())["test"]
    split = tmp_path / "splits.json"
    split.write_text(json.dumps({"train": [], "val": [], "test": [*val, test[0]]}))
    done = finemask(
        "evaluate", masks, place / "data", "--split", split, "--out", tmp_path / "s", code=1
    )
    assert f"{len(val)} scored, 1 failed" in done.stdout
    rows = {r["case"]: r for r in csv.DictReader((tmp_path / "s" / "cases.csv").open())}
    assert float(rows[test[0]]["dice"]) == 0
    assert test[0] in (tmp_path / "s" / "failures.csv").read_text()


def test_native_prediction_refines_the_image(place: Path, tmp_path: Path) -> None:
    image = next((place / "data" / "images").iterdir())
    finemask("predict", place / "run", image, "--out", tmp_path / "hr")
    finemask("predict", place / "run", image, "--out", tmp_path / "source", "--grid", "source")
    assert read_labels(tmp_path / "hr" / image.name)[0].shape == (128, 128)
    assert read_labels(tmp_path / "source" / image.name)[0].shape == (64, 64)


def test_one_bad_file_costs_only_itself(place: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for image in sorted((place / "data" / "images").iterdir())[:2]:
        (folder / image.name).write_bytes(image.read_bytes())
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    done = finemask("predict", place / "run", folder, "--out", tmp_path / "out", code=1)
    assert done.stderr.count("error: ") == 1
    assert "broken.png" in done.stderr
    assert "broken" in (tmp_path / "out" / "failures.csv").read_text()
    assert len(list((tmp_path / "out").glob("phantom*.png"))) == 2


def test_info_knows_runs_and_images(place: Path) -> None:
    assert "dsrl" in finemask("info", place / "run").stdout
    assert "64 x 64" in finemask("info", next((place / "data" / "images").iterdir())).stdout
    weights = place / "run" / "checkpoints" / "best" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        assert "model.safetensors" in finemask("info", place / "run", code=3).stderr
    finally:
        weights.write_bytes(whole)


def test_training_from_a_runs_recipe_repeats_it(place: Path, tmp_path: Path) -> None:
    finemask(
        "train",
        place / "data",
        "--recipe",
        place / "run" / "recipe.toml",
        "--out",
        tmp_path / "again",
    )
    first = (place / "run" / "checkpoints" / "last" / "model.safetensors").read_bytes()
    assert (tmp_path / "again/checkpoints/last/model.safetensors").read_bytes() == first


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of oblique, flipped, anisotropic volumes with a bright ball in each."""
    folder = tmp_path_factory.mktemp("volumes")
    turn = np.array([[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, -1]])
    for number in range(7):
        rng = np.random.default_rng(number)
        shape = (10, 20, 24)
        affine = np.eye(4)
        affine[:3, :3] = turn[:, ::-1] * np.array([3.0, 0.8, 0.8])
        affine[:3, 3] = rng.uniform(-100, 100, 3)
        grid = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
        centre = rng.uniform((4, 7, 8), (6, 13, 16))
        ball = (((grid - centre) * (3.0, 0.8, 0.8)) ** 2).sum(-1) < 16
        image = (ball * 100 + rng.normal(0, 20, shape)).astype(np.float32)
        geometry = Geometry.from_affine(shape, affine)
        write_image(folder / "images" / f"v{number}.nii.gz", image[None], geometry)
        write_labels(folder / "masks" / f"v{number}.nii.gz", ball.astype(np.uint8), geometry)
    return folder


def test_three_dimensions_with_an_anisotropic_scale(volumes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finemask(
        "train", volumes, "--out", run, "--method", "unet", "--scale", "1x2x2", "--steps", 60,
        "--set", "crop=8x16x16", "--set", "config.width=8", "--set", "config.depth=2",
        "--set", "batch_size=4", "--set", "learning_rate=0.01", "--set", "validate_every=30",
    )  # fmt: skip
    image, truth = volumes / "images" / "v0.nii.gz", volumes / "masks" / "v0.nii.gz"
    geometry = read_image(image)[1]
    finemask("predict", run, image, "--out", tmp_path / "hr")
    hr = read_labels(tmp_path / "hr" / "v0.nii.gz")[1]
    assert hr.shape == (10, 40, 48)
    np.testing.assert_allclose(hr.corners(), geometry.corners(), atol=1e-3)
    finemask(
        "predict", run, image, "--out", tmp_path / "mha", "--mode", "matched", "--format", "mha"
    )
    found, grid = read_labels(tmp_path / "mha" / "v0.mha")
    assert grid.matches(geometry, 0.01)
    true = read_labels(truth)[0]
    dice = 2 * (found * true).sum() / (found.sum() + true.sum())
    assert dice > 0.6, "the mask does not lie on the ball"


def test_python_does_what_the_commands_do(place: Path, tmp_path: Path) -> None:
    import finemask as fm

    run = fm.load_run(place / "run")
    outcome = fm.predict(run, [place / "data"], tmp_path / "masks", part="test", mode="matched")
    assert outcome.exit_code == 0
    case = fm.read_case(next((place / "data" / "images").iterdir()))
    assert isinstance(case, Case)
    truth = np.zeros((8, 8), bool)
    truth[2:5, 2:5] = True
    assert fm.metrics.hd95(np.roll(truth, 1, 0), truth, spacing_mm=(2.0, 1.0)) == 2.0
