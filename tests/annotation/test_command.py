"""finemask soften: exit codes, one line an error, what comes next."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from finemask import cli
from finemask.datasets import make_phantoms


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_phantoms(tmp_path_factory.mktemp("data") / "set", "skin", cases=2, size=48)


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["finemask", "--quiet", "soften", *words])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    output = capsys.readouterr()
    return int(exit_.value.code or 0), output.out, output.err


def test_a_run_tells_what_to_look_at_and_what_comes_next(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "soft"
    words = (str(data), str(out), "--from", "recist", "--scale", "2", "--window", "-5", "255",
             "--epsilon", "1e-5", "--radius", "3", "--trimap", "--crop", "40")  # fmt: skip
    code, said, complained = call(capsys, monkeypatch, *words)
    assert (code, complained) == (0, "")
    assert "2 done, 0 failed, 0 skipped of 2" in said
    assert "agreement with the ellipse: median Dice 0." in said
    assert f"look at: {out / 'contact_sheet_001.png'}" in said
    assert f"next: finemask train {out} --set pairs.target=soft" in said
    code, said, complained = call(capsys, monkeypatch, *words)
    assert code == 2
    assert complained.startswith(f"error: {out}: exists already")
    assert call(capsys, monkeypatch, *words, "--resume")[1].startswith("0 done, 0 failed, 2 skip")
    assert call(capsys, monkeypatch, *words, "--overwrite")[1].startswith("2 done")


def test_bad_marks_are_lines_and_code_1_then_3(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    header, first, second = (data / "recist.csv").read_text().splitlines()
    marks = tmp_path / "marks.csv"
    marks.write_text("\n".join([header, first, second.replace("skin_001", "skin_999")]) + "\n")
    words = (str(data), str(tmp_path / "soft"), "--from", "recist", "--marks", str(marks))
    code, said, complained = call(capsys, monkeypatch, *words)
    assert code == 1
    assert complained.startswith(f"error: {marks} row 3 (phantom_skin_999): is on the image")
    assert complained.count("\n") == 1
    assert "1 done, 1 failed, 0 skipped of 2" in said
    many = [first.replace("skin_000", f"skin_{k}99") for k in range(12)]
    marks.write_text("\n".join([header, *many]) + "\n")
    monkeypatch.setattr("finemask.cli.MOST_LINES", 10)
    code, said, complained = call(capsys, monkeypatch, *words, "--overwrite")
    assert code == 3
    assert complained.count("\n") == 11
    assert "soft: 2 more cases failed; see failures.csv" in complained
    assert "look at" not in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "Missing"),
        (["data", "soft"], 2, "--from"),
        (["data", "soft", "--from", "mouth"], 2, "--from"),
        (["data", "soft", "--from", "mask", "--method", "blur"], 2, "--method"),
        (["nowhere", "soft", "--from", "mask"], 3, "nowhere: does not exist"),
        (["nowhere", "soft", "--from", "recist"], 3, "nowhere: does not exist"),
        (["data", "soft", "--from", "mask", "--scale", "two"], 2, "--scale: is 'two'"),
        (["data", "soft", "--from", "mask", "--method", "mean"], 2, "--method: is mean"),
        (["data", "soft", "--from", "mask", "--crop", "64"], 2, "--crop: is for --from recist"),
        (["data", "data/soft", "--from", "mask"], 2, "data/soft: lies in data"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage_errors_are_one_line_and_write_nothing(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(data)
    got, out, err = call(capsys, monkeypatch, *words)
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
