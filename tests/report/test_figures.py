from __future__ import annotations

import io
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from finemask.report.figures import (
    curves,
    distributions,
    example_row,
    overlay,
    panel_picture,
    save_examples,
    size_scatter,
    to_svg,
)


def lesion(*shape: int) -> np.ndarray:
    grid = np.ogrid[tuple(slice(s) for s in shape)]
    return (sum((g - s / 2) ** 2 for g, s in zip(grid, shape, strict=True)) < 25).astype(np.uint8)


def coloured(data: bytes, colour: tuple[int, int, int], tolerance: int = 40) -> int:
    array = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)
    return int((np.abs(array - colour).max(-1) < tolerance).sum())


BLUE, ORANGE = (86, 180, 233), (230, 159, 0)


def test_errors_are_painted_where_they_are() -> None:
    truth, grey = lesion(40, 40), np.zeros((1, 40, 40))
    missed = panel_picture(overlay(grey, truth, truth * 0, paint="errors"), side_px=200)
    wrong = panel_picture(overlay(grey, truth * 0, truth, paint="errors"), side_px=200)
    right = panel_picture(overlay(grey, truth, truth, paint="errors"), side_px=200)
    area = 25 * truth.sum()
    for data, blue, orange in ((missed, 1, 0), (wrong, 0, 1), (right, 0, 0)):
        assert coloured(data, BLUE, 70) == pytest.approx(blue * area, abs=0.12 * area)
        assert coloured(data, ORANGE, 70) == pytest.approx(orange * area, abs=0.12 * area)


def test_outlines_of_both_are_drawn() -> None:
    truth = lesion(40, 40)
    data = panel_picture(overlay(np.zeros((1, 40, 40)), truth, np.roll(truth, 12, 1)))
    assert coloured(data, BLUE) > 100
    assert coloured(data, ORANGE) > 100


def test_a_panel_has_the_proportions_of_the_patient() -> None:
    from finemask.geometry import Geometry

    geometry = Geometry.regular((40, 40), (2.0, 1.0))
    panel = overlay(None, lesion(40, 40), None, geometry=geometry)
    width, height = Image.open(io.BytesIO(panel_picture(panel, side_px=300))).size
    assert (height, width) == (300, 150)


@pytest.mark.parametrize("sr", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_example_rows_in_2d_and_3d(tmp_path, dims, sr) -> None:
    shape = (24, 32, 40)[-dims:]
    truth = lesion(*shape)
    image = np.random.default_rng(0).random((3 if dims == 2 else 1, *shape))
    image_lr = image[(slice(None), *[slice(None, None, 2)] * dims)]
    row = example_row(image_lr, image, truth, truth, sr=image if sr else None, name="case_1")
    assert len(row) == 3 + sr
    assert row[0].title.startswith("case_1")
    assert row[0].shape_mm == pytest.approx(row[-1].shape_mm)
    save_examples([row, row], tmp_path / "examples.png")
    width, height = Image.open(tmp_path / "examples.png").size
    assert width > height / 2 > 200


def test_input_and_output_show_the_same_place() -> None:
    truth = np.zeros((64, 64), np.uint8)
    truth[50:56, 4:10] = 1
    fine = truth[None] * 100.0
    coarse = fine[:, ::4, ::4]
    first, *_, last = example_row(coarse, fine, truth, truth)
    assert last.window is not None
    assert first.window == pytest.approx(tuple(w / 4 for w in last.window))


def test_curves_of_a_log_with_gaps(tmp_path) -> None:
    log = tmp_path / "log.csv"
    rows = ["step,epoch,learning_rate,loss,L_seg,L_sr,gradient_norm,val_score,val_psnr_db"]
    rows += [f"{s},0,{1e-3 / s},{9 / s},{5 / s},{4 / s},1," for s in range(1, 9)]
    rows = [rows[0], *(f"{r}," if i % 4 else f"{r[:-1]},0.{i},nan" for i, r in enumerate(rows[1:]))]
    log.write_text("\n".join(rows) + "\n")
    curves(log, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 900


def test_curves_of_a_log_without_rows(tmp_path) -> None:
    (tmp_path / "log.csv").write_text("step,loss,val_score\n")
    curves(tmp_path / "log.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0


def test_drawings_are_sound_xml_that_takes_the_colour_of_the_text() -> None:
    values = {"dice": {"small": [0.1, 0.5, 0.6, 0.9, float("nan")], "large": [0.8], "none": []}}
    scatter = size_scatter(
        {"a": [1.0, 20.0, 0.0], "b": [3.0, 4.0, 5.0]},
        {"a": [0.1, 0.2, 0.3], "b": [0.5, float("nan"), 0.0]},
        size_label="mm",
        value_label="Dice",
        failed={"a": [False] * 3, "b": [False, False, True]},
    )
    for figure in (distributions(values, labels={"dice": "Dice"}), scatter):
        svg = to_svg(figure)
        ElementTree.fromstring(svg)
        assert "currentColor" in svg
        assert "#0a0b0c" not in svg
        assert to_svg(figure) == svg


def test_drawing_needs_no_screen_and_no_torch() -> None:
    code = """
import sys, numpy as np
from finemask.report.figures import overlay, panel_picture
panel_picture(overlay(None, np.eye(9, dtype=int), None))
sys.exit(any(m in sys.modules for m in ("torch", "matplotlib.pyplot", "tkinter")))
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_score_in_decibels_is_drawn_once(tmp_path) -> None:
    """Four panels for a score of masks; its PSNR alone is no score between 0 and 1."""
    widths = []
    for score in (0.8, 28.0):
        log = tmp_path / f"{score}.csv"
        log.write_text(
            "step,learning_rate,loss,L_D,loss_critic,gradient_norm_critic,val_score,val_psnr_db\n"
            f"1,0.1,2.0,0.7,0.7,5.0,{score},28.0\n2,0.1,1.0,0.7,0.7,5.0,{score},28.0\n"
        )
        curves(log, tmp_path / "curves.png")
        widths.append(Image.open(tmp_path / "curves.png").size[0])
    assert widths[1] == pytest.approx(0.75 * widths[0], rel=0.02)
