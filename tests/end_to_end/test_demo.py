"""The demo, made small: everything it promises is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from finemask.demo import run_demo
from finemask.errors import DataError


def test_demo_leaves_a_report_with_pictures(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    said = run_demo(out, minutes=0.02, cases=9)
    assert "unet" in said
    assert "dsrl" in said
    page = (out / "report.html").read_text()
    assert page.count("data:image/") >= 3
    assert "phantom" in page
    assert (out / "scores" / "dsrl" / "report.html").exists()
    with pytest.raises(DataError, match="not empty"):
        run_demo(out, minutes=0.02, cases=9)


def test_demo_deletes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        run_demo(tmp_path, minutes=0.02, overwrite=True)
    assert (tmp_path / "thesis.tex").read_text() == "mine"
