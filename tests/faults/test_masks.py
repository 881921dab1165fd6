"""Faulty masks among sound ones, through ``evaluate`` and ``check``.

A mask that cannot be understood is a failed case: named in one line, counted,
scored as the worst, and never guessed at, resized or left out.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from builders.command import finemask
from PIL import Image

from finemask.datasets.facts import skipped_slices
from finemask.geometry import Geometry
from finemask.io import write_image, write_labels

RNG = np.random.default_rng(0)
SHAPE = (6, 10, 12)
GRID = Geometry.regular(SHAPE, (2.0, 0.6, 0.5))
TRUTH = np.zeros(SHAPE, np.uint8)
TRUTH[1:5, 2:7, 3:9] = 1
PICTURE = TRUTH[2]


def labels(values: np.ndarray, grid: Geometry = GRID) -> Callable[[Path], None]:
    return lambda path: write_image(path, values, grid)


def moved(columns: float) -> Geometry:
    return replace(GRID, origin=(0.0, 0.0, columns * 0.5))


def layers(path: Path) -> None:
    """Two segments of one voxel each, as Slicer keeps overlapping ones."""
    image = sitk.GetImageFromArray(np.stack([TRUTH, 1 - TRUTH], -1), isVector=True)
    image.SetSpacing((0.5, 0.6, 2.0))
    sitk.WriteImage(image, str(path))


# fault, name of the file, how it is written, what is said
VOLUMES = {
    "F21": ("f21.nrrd", layers, "has 2 channels or layers, a mask needs one"),
    "F26": ("f26.nii.gz", labels(TRUTH * np.float32(0.4)), "fractional labels such as 0.4"),
    "F27": ("f27.nii.gz", labels(RNG.normal(0, 400, SHAPE).round()), "looks like an image"),
    "F28": ("f28.nii.gz", labels(TRUTH * 3 + np.roll(TRUTH, 1, 0)),
            r"labels with gaps \(0, 1, 3, 4\); declare"),
    "F29": ("f29.nii.gz", labels(TRUTH[:, :, :9], Geometry.regular((6, 10, 9), GRID.spacing)),
            r"its shape is \(6, 10, 9\), not \(6, 10, 12\)"),
    "F32": ("f32.nii.gz", labels(TRUTH, moved(0.3)), r"displaced by up to 0\.3 voxels"),
    "F33": ("f33.nii.gz", labels(TRUTH, replace(GRID, spacing=(2.0, 0.6, 0.55))),
            r"its spacing is 2 x 0\.6 x 0\.55 mm, not 2 x 0\.6 x 0\.5"),
}  # fmt: skip
PICTURES = {
    "F25": ("f25.png", lambda p: Image.fromarray(RNG.integers(0, 256, (10, 12), np.uint8)).save(p),
            "looks like an image"),
    "F28": ("f28.png", lambda p: Image.fromarray(np.uint8(PICTURE * 3 + np.eye(10, 12))).save(p),
            "labels with gaps|has .* classes, the truth has one"),
    "F29": ("f29.png", lambda p: Image.fromarray(PICTURE[:, :9] * 255).save(p), "its shape is"),
    "F54": ("f54.png", lambda p: Image.fromarray(RNG.integers(0, 255, (10, 12, 3), np.uint8)
                                                 // 100 * 100).save(p), "colours, whose classes"),
    "F58": ("f58.tif", lambda p: tifffile.imwrite(p, TRUTH * 255, metadata={"axes": "ZYX"}),
            "holds 6 pages"),
}  # fmt: skip


def scored(folder: Path, faults: dict) -> tuple[int, list[str], dict[str, dict[str, str]], dict]:
    """``evaluate`` on one sound case and the faulty ones: code, lines, rows and summary."""
    suffix = ".nii.gz" if faults is VOLUMES else ".png"
    grid = GRID if faults is VOLUMES else Geometry.regular((10, 12))
    truth = TRUTH if faults is VOLUMES else PICTURE
    for name, write, _ in [("sound" + suffix, None, ""), *faults.values()]:
        stem = name.partition(".")[0]
        write_labels(folder / "truth" / f"{stem}{suffix}", truth, grid)
        if write is None:
            write_labels(folder / "pred" / name, truth, grid)
        else:
            write(folder / "pred" / name)
    before = {p: p.read_bytes() for p in folder.rglob("*.*")}
    code, _, err = finemask(
        "evaluate", folder / "pred", folder / "truth", "--out", folder / "scores"
    )
    assert {p: p.read_bytes() for p in before} == before, "no file of the user is touched"
    with open(folder / "scores" / "cases.csv", encoding="utf-8", newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert "Traceback" not in err
    summary = json.loads((folder / "scores" / "summary.json").read_text())
    return code, [x for x in err.splitlines() if x.startswith("error: ")], rows, summary


@pytest.mark.parametrize("faults", [VOLUMES, PICTURES], ids=["volumes", "pictures"])
@pytest.mark.fault(
    "F21", "F25", "F26", "F27", "F28", "F29", "F32", "F33", "F54", "F58", "F59", "F87", "F96"
)
def test_a_faulty_mask_is_a_failed_case(tmp_path: Path, faults: dict) -> None:
    (tmp_path / "pred").mkdir()
    code, errors, rows, summary = scored(tmp_path, faults)
    assert code == 1
    assert len(errors) == len(faults)
    for name, _, says in faults.values():
        (line,) = [e for e in errors if f"/{name}: " in e]
        assert re.search(says, line), line
        assert float(rows[name.partition(".")[0]]["dice"]) == 0.0
    assert float(rows["sound"]["dice"]) == 1.0
    assert len(rows) == len(faults) + 1
    assert json.dumps(summary).count("NaN") == 0


@pytest.mark.fault("F24", "F31", "F54")
def test_usual_oddities_of_masks_are_read_right(tmp_path: Path) -> None:
    """White or dark red for one class, header noise, another orientation: all the same mask."""
    red = np.zeros((10, 12, 3), np.uint8)
    red[PICTURE == 1] = 128, 0, 0
    (tmp_path / "pred2").mkdir()
    Image.fromarray(PICTURE * 255).save(tmp_path / "pred2" / "white.png")
    Image.fromarray(PICTURE * 76).save(tmp_path / "pred2" / "dark.png")
    Image.fromarray(red).save(tmp_path / "pred2" / "red.png")
    write_labels(tmp_path / "pred3" / "noise.mha", TRUTH, moved(0.0005))
    write_labels(tmp_path / "pred3" / "turned.nrrd", TRUTH.T, GRID.permuted((2, 1, 0)))
    write_labels(tmp_path / "pred3" / "flipped.nii.gz", TRUTH[::-1], GRID.flipped(0))
    for dims, suffix, truth in ((2, ".png", PICTURE), (3, ".nii.gz", TRUTH)):
        grid = GRID if dims == 3 else Geometry.regular((10, 12))
        for path in (tmp_path / f"pred{dims}").iterdir():
            stem = path.name.partition(".")[0]
            write_labels(tmp_path / f"truth{dims}" / f"{stem}{suffix}", truth, grid)
        folders = [tmp_path / f"{kind}{dims}" for kind in ("pred", "truth")]
        code, _, err = finemask("evaluate", *folders, "--out", tmp_path / f"out{dims}")
        assert code == 0, err
        with open(tmp_path / f"out{dims}" / "cases.csv", encoding="utf-8", newline="") as file:
            assert [float(row["dice"]) for row in csv.DictReader(file)] == [1.0] * 3


@pytest.mark.fault("F30", "F34", "F35")
def test_check_tells_what_is_odd_and_cannot_be_skipped(tmp_path: Path) -> None:
    """Specks, skipped slices and a mask off its grid; ``train`` refuses the last one, too."""
    image = RNG.integers(0, 99, SHAPE).astype(np.int16)
    skipped, specks = TRUTH.copy(), TRUTH.copy()
    skipped[2] = 0
    specks[5, 9, 10:] = 1
    for index, (name, mask, grid) in enumerate(
        [("ok1", TRUTH, GRID), ("ok2", TRUTH, GRID), ("skipped", skipped, GRID),
         ("specks", specks, GRID), ("off", TRUTH, moved(0.3))]
    ):  # fmt: skip
        write_image(tmp_path / "set" / "images" / f"{name}.nii.gz", image + index, GRID)
        write_labels(tmp_path / "set" / "masks" / f"{name}.nii.gz", mask, grid)
    code, said, err = finemask("check", tmp_path / "set")
    assert code == 1
    assert re.search(r"slices without a label between labelled .*: 1 cases \(skipped\)", said)
    assert re.search(r"lesions of at most 4 voxels: 1 cases \(specks\)", said)
    assert err.count("error: ") == 1
    assert "displaced by up to 0.3 voxels" in err
    # In a process of its own: here types are checked by reading any case before its turn.
    call = [sys.executable, "-m", "finemask", "train", tmp_path / "set", "--out", tmp_path / "run"]
    settings = ("steps=1", "pairs.crop=4x4x4", "config.width=4", "config.depth=2")
    call += [word for setting in settings for word in ("--set", setting)]
    ended = subprocess.run(call, capture_output=True, text=True)
    assert ended.returncode in (2, 3)
    assert "displaced by up to 0.3 voxels" in ended.stderr
    assert not list((tmp_path / "run").glob("checkpoints/*"))


@pytest.mark.fault("F35")
def test_slices_are_skipped_only_within_one_lesion() -> None:
    assert skipped_slices(TRUTH.astype(bool)) == 0
    apart = np.zeros((9, 8, 8), bool)
    apart[1:3, :3, :3], apart[6:8, 4:, 4:] = True, True
    assert skipped_slices(apart) == 0
    every_third = np.zeros((9, 8, 8), bool)
    every_third[::3, 2:6, 2:6] = True
    assert skipped_slices(every_third) == 4
    assert skipped_slices(every_third.transpose(1, 0, 2)) == 4
    assert skipped_slices(PICTURE.astype(bool)) == 0
