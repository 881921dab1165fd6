"""The demo, made small: everything it promises is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from finemask import demo
from finemask.demo import run_demo
from finemask.errors import UsageError


def test_demo_leaves_a_report_with_pictures(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    said = run_demo(out, minutes=0.02, cases=9)
    assert "unet" in said
    assert "dsrl" in said
    page = (out / "report.html").read_text()
    assert page.count("data:image/") >= 3
    assert "phantom" in page
    assert "better" in page or "not distinguishable" in page
    assert (out / "comparison/cells/dsrl/seed-0-fold-1/scores/report.html").exists()
    with pytest.raises(UsageError, match="not empty"):
        run_demo(out, minutes=0.02, cases=9)


@pytest.mark.parametrize("foreign", ["thesis.tex", "phantoms/thesis.tex", "comparison/thesis.tex"])
@pytest.mark.parametrize("about", [None, "[]", '{"generator": "my own phantoms"}'])
def test_a_folder_that_no_demo_made_is_left_alone(
    tmp_path: Path, foreign: str, about: str | None
) -> None:
    (tmp_path / "phantoms").mkdir()
    if about is not None:
        (tmp_path / "phantoms" / "dataset.json").write_text(about)
    (tmp_path / foreign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    with pytest.raises(UsageError, match="not empty"):
        run_demo(tmp_path, minutes=0.02, overwrite=True)
    assert (tmp_path / foreign).read_text() == "mine"


def test_a_demo_replaces_only_what_a_demo_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = demo.make_phantoms(tmp_path / "out" / "phantoms", kind="ultrasound", cases=1).parent
    for name in (
        "comparison/cells/unet/cell.json",
        "report.html",
        "thesis/thesis.tex",
        "notes.txt",
    ):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")

    class Reached(Exception):
        pass

    def stop(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr(demo, "make_phantoms", stop)
    with pytest.raises(Reached):
        run_demo(out, overwrite=True)
    left = sorted(p.relative_to(out).as_posix() for p in out.rglob("*"))
    assert left == ["notes.txt", "thesis", "thesis/thesis.tex"]
