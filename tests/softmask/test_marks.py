"""Tables of marks: DeepLesion's columns and ours; a bad row costs itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from finemask.datasets import make_phantoms
from finemask.errors import DataError
from finemask.io import DataWarning
from finemask.softmask.marks import COORDINATES, MarkedLesion, find_marks, read_marks
from finemask.softmask.recist import Mark

SHARED = Path(__file__).parents[3] / "shared" / "data"
OWN = ",".join(("case", *COORDINATES))
DEEP = "File_name,Patient_index,Key_slice_index,Measurement_coordinates,Bounding_boxes,"
DEEP += "Lesion_diameters_Pixel_,Possibly_noisy,Spacing_mm_px_,DICOM_windows,Train_Val_Test"


def own(folder: Path, *rows: str, more: str = "") -> Path:
    path = folder / "recist.csv"
    path.write_text("\n".join([OWN + more, *rows]) + "\n")
    return path


def deep(folder: Path, **changed: str) -> Path:
    values = {
        "File_name": "000012_03_01_045.png",
        "Patient_index": "12",
        "Key_slice_index": "45",
        "Measurement_coordinates": '"10, 20, 40, 20, 24, 12, 24, 30"',
        "Bounding_boxes": '"5, 7, 45, 35"',
        "Lesion_diameters_Pixel_": '"30, 18"',
        "Possibly_noisy": "0",
        "Spacing_mm_px_": '"0.5, 2, 5"',
        "DICOM_windows": '"-1500, 500"',
        "Train_Val_Test": "2",
    } | changed
    path = folder / "DL_info.csv"
    path.write_text(DEEP + "\n" + ",".join(values[c] for c in DEEP.split(",")) + "\n")
    return path


def test_deeplesions_columns_are_read(tmp_path: Path) -> None:
    (row,) = read_marks(deep(tmp_path)).rows
    assert (row.case, row.lesion, row.group, row.split) == ("000012_03_01_045", "1", "12", "val")
    assert row.mark == Mark.from_xy(10, 20, 40, 20, 24, 12, 24, 30)
    assert row.spacing_mm == (2.0, 0.5)  # rows, columns: the file says x first
    assert row.window == (-1500.0, 500.0)
    assert row.files[0] == "Images_png/000012_03_01/045.png"
    assert row.flags == ()
    assert find_marks(tmp_path) == tmp_path / "DL_info.csv"


def test_deeplesions_own_doubts_are_flags(tmp_path: Path) -> None:
    assert read_marks(deep(tmp_path, Possibly_noisy="1")).rows[0].flags == ("possibly_noisy",)
    with pytest.warns(DataWarning, match="Bounding_boxes"):
        rows = read_marks(deep(tmp_path, Bounding_boxes='"7, 5, 35, 45"')).rows
    assert rows[0].flags == ("box_differs",)
    with pytest.warns(DataWarning, match="said to be 30 and 12, its end points are 30 and 18"):
        rows = read_marks(deep(tmp_path, Lesion_diameters_Pixel_='"30, 12"')).rows
    assert rows[0].flags == ("diameters_differ",)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"File_name": "x.jpg"}, "File_name 'x.jpg'"),
        ({"Measurement_coordinates": '"1, 2, 3"'}, "needs 8 numbers"),
        ({"Measurement_coordinates": ""}, "lacks Measurement_coordinates"),
        ({"Measurement_coordinates": '"a, 2, 3, 4, 5, 6, 7, 8"'}, "needs 8 numbers"),
        ({"Spacing_mm_px_": '"0, 1, 5"'}, "has the spacing"),
        ({"DICOM_windows": '"500, -1500"'}, "has the window"),
    ],
)
def test_a_bad_row_of_deeplesion(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    table = read_marks(deep(tmp_path, **changed))
    assert table.rows == ()
    (problem,) = table.problems
    assert said in str(problem)
    assert "DL_info.csv row 2" in problem.subject


def test_our_columns_and_a_bad_row_among_good_ones(tmp_path: Path) -> None:
    path = own(
        tmp_path,
        "a,1,5,9,5,4,3,4,7,4",
        "a,1,5,9,x,4,3,4,7,4",
        "a,1,5,9,,4,3,4,7,4",
        ",1,5,9,5,4,3,4,7,4",
        "a,1,5,9,5,4,3,4,7,1.5",
        "a,1,5,9,5,4,3,4,7,-1",
        "b,1,5,9,nan,4,3,4,7,4",
        "a,21,5,29,5,24,3,24,7,4",
        more=",slice",
    )
    table = read_marks(path)
    assert [(r.case, r.lesion, r.slice) for r in table.rows] == [("a", "1", 4), ("a", "2", 4)]
    said = ["has long_y2 'x', needs a number", "lacks long_y2", "lacks case", "has slice 1.5",
            "has slice -1", "has long_y2 'nan'"]  # fmt: skip
    for problem, words in zip(table.problems, said, strict=True):
        assert words in str(problem)
    rows = [int(p.subject.split("row ")[1].split()[0]) for p in table.problems]
    assert rows == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("columns", "cells", "said"),
    [
        (",points_unit", "cm", "points_unit 'cm'"),
        (",split", "later", "split 'later'"),
        (",spacing_x,spacing_y", "0.5,", "only one of spacing_y and spacing_x"),
        (",spacing_x,spacing_y", "0.5,-1", "has the spacing"),
        (",window_low,window_high", "5,5", "has the window"),
    ],
)
def test_bad_optional_cells(tmp_path: Path, columns: str, cells: str, said: str) -> None:
    table = read_marks(own(tmp_path, f"a,1,5,9,5,4,3,4,7,{cells}", more=columns))
    assert said in str(table.problems[0])


def test_one_lesion_is_not_marked_twice(tmp_path: Path) -> None:
    rows = ["a,1,5,9,5,4,3,4,7,1", "a,2,5,9,5,4,3,4,7,1"]
    table = read_marks(own(tmp_path, *rows, more=",lesion"))
    assert len(table.rows) == 1
    assert "is lesion 1 as is row 2 (a)" in str(table.problems[0])


def test_a_table_of_other_columns_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recist.csv").write_text("case,x,y\na,1,2\n")
    with pytest.raises(DataError, match="has the columns case, x, y, needs case,long_x1"):
        read_marks(tmp_path / "recist.csv")


@pytest.mark.fault("F91")
def test_millimetres_become_pixels_along_each_axis(tmp_path: Path) -> None:
    """Rows of 3 mm, columns of 0.5 mm: x is divided by 0.5 and y by 3, not the other way."""
    row = "a,2,30,10,30,6,24,6,36,mm,0.5,3"
    found = read_marks(own(tmp_path, row, more=",points_unit,spacing_x,spacing_y")).rows[0]
    assert found.mark_px() == Mark.from_xy(4, 10, 20, 10, 12, 8, 12, 12)
    bare = MarkedLesion("row", "a", "1", found.mark, unit="mm")
    assert bare.mark_px((3.0, 0.5)) == found.mark_px()
    assert bare.mark_px((3.0, 0.5)).lengths((3.0, 0.5)) == found.mark.lengths()
    with pytest.raises(DataError, match="is in mm, and the pixel size of its image is unknown"):
        bare.mark_px()


@pytest.mark.parametrize(("kind", "size"), [("nodules", (16, 24, 24)), ("skin", 64)])
def test_phantoms_bring_such_a_table(tmp_path: Path, kind: str, size: int) -> None:
    table = read_marks(make_phantoms(tmp_path / "set", kind, cases=2, size=size) / "recist.csv")
    assert len(table.rows) >= 2
    assert table.problems == ()
    assert all(not row.flags for row in table.rows)
    assert (table.rows[0].slice is None) == (kind == "skin")
    assert table.rows[0].spacing_mm == ((0.7, 0.7) if kind == "nodules" else ())


def test_the_official_rows_are_read() -> None:
    path = SHARED / "DeepLesion" / "DL_info_subset.csv"
    if not path.exists():
        pytest.skip("the real data DeepLesion are not beside the repository (../shared/data)")
    table = read_marks(path)
    assert len(table.rows) == 128
    assert table.problems == ()
    assert {flag for row in table.rows for flag in row.flags} == set()
    assert {row.window for row in table.rows} >= {(-175.0, 275.0), (-1500.0, 500.0)}
    lengths = np.array([row.mark.lengths() for row in table.rows])
    assert (lengths[:, 0] > 4).all()
