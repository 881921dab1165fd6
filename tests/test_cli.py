"""The command line: exit codes, one line an error, help without an engine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from finemask import cli
from finemask.errors import UsageError
from finemask.options import read_bytes


def call(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    monkeypatch.setattr(sys, "argv", ["finemask", *words])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    output = capsys.readouterr()
    return int(exit_.value.code or 0), output.out, output.err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--help"], 0, ""),
        (["--version"], 0, ""),
        (["methods"], 0, ""),
        ([], 0, ""),
        (["magic"], 2, "No such command"),
        (["train"], 2, "Missing"),
        (["train", "nowhere", "--out", "x"], 3, "nowhere: "),
        (["train", "nowhere", "--out", "x", "--fold", "9/5"], 2, "--fold: is '9/5'"),
        (["train", "nowhere", "--out", "x", "--scale", "two"], 2, "--scale: is 'two'"),
        (["train", "nowhere", "--out", "x", "--wrong"], 2, "No such option"),
        (["predict", "nowhere", "also", "--out", "x"], 3, "nowhere: "),
        (["predict", "r", "i", "--out", "x", "--grid", "fine"], 2, "--grid"),
        (["predict", "r", "i", "--out", "x", "--max-memory", "lots"], 2, "--max-memory"),
        (["evaluate", "nowhere", "also", "--out", "x"], 3, "also: "),
        (["info", "nowhere"], 3, "nowhere: does not exist"),
        (["methods", "magic"], 2, "magic"),
        (["methods", "unet", "--size", "5"], 2, "size"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_exit_codes_and_one_line_errors(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = call(capsys, monkeypatch, *words)
    assert got == code
    if code:
        assert said in err
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert out == ""
    else:
        assert out
        assert err == ""
    assert list(tmp_path.iterdir()) == []


def test_debug_gives_the_traceback_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    from finemask.errors import DataError

    for words in (["info", "nowhere", "--debug"], ["--debug", "info", "nowhere"]):
        monkeypatch.setattr(sys, "argv", ["finemask", *words])
        with pytest.raises(DataError, match="nowhere"):
            cli.main()


def test_surprises_are_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from finemask import info

    for error, said in (
        (MemoryError("4 GB"), "memory ran out"),
        (RuntimeError("DefaultCPUAllocator: can't allocate"), "memory ran out"),
        (ZeroDivisionError("division\nby zero"), "division by zero"),
        (KeyboardInterrupt(), "interrupted"),
    ):

        def fail(*_: object, error: BaseException = error) -> str:
            raise error

        monkeypatch.setattr(info, "describe_path", fail)
        code, _, err = call(capsys, monkeypatch, "info", "x")
        assert code
        assert said in err
        assert err.count("\n") == 1


def test_sizes_of_memory_are_read() -> None:
    read = read_bytes
    assert read("4GB") == 4 * 10**9
    assert read("1.5 GiB") == int(1.5 * 2**30)
    assert read("1000") == 1000
    assert read(None) is None
    with pytest.raises(UsageError):
        read("4 potatoes")


def test_methods_prints_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    _, out, _ = call(
        capsys, monkeypatch, "methods", "dsrl", "--channels", "3", "--classes", "4",
        "--scale", "2", "--size", "64x64", "--set", "width=8", "--json",
    )  # fmt: skip
    found = json.loads(out)
    assert found["parameters_training"] > found["parameters_inference"] > 0
    assert found["macs_inference"] > 0
    assert found["size"] == [64, 64]
