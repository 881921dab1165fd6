"""Progress passes everything on and speaks on stderr only."""

from __future__ import annotations

import pytest

from finemask import progress
from finemask.progress import Track, bar, silent


@pytest.mark.parametrize("track", [silent, bar])
def test_every_item_is_passed_on_in_order(track: Track, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track(iter("abc"), "spelling")) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""


def test_a_log_file_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    losses = iter([0.5, 0.25])
    assert len(list(bar(range(5), lambda: f"loss {next(losses)}"))) == 5
    assert capsys.readouterr().err.splitlines() == ["loss 0.5 2/5 (40 s)", "loss 0.25 4/5 (80 s)"]


def test_a_terminal_gets_a_bar_whose_label_is_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    assert list(bar([1, 2], "case [red]x[/red]")) == [1, 2]
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "case [red]x[/red]" in shown.err
    assert "2/2" in shown.err


def test_an_error_within_the_loop_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        sum(1 / item for item in bar([1, 0], "dividing"))
