"""The report and the tables of a comparison with known masks."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finemask.case import Case
from finemask.comparison.compare import read_quotes
from finemask.comparison.examples import choose, read_examples
from finemask.comparison.files import aligned, latex, markdown, overview, write_tables
from finemask.comparison.page import comparison_page, ranked
from finemask.comparison.plan import Cell, Plan
from finemask.comparison.results import Results, collect
from finemask.datasets import load_dataset, make_phantoms
from finemask.errors import UsageError

Tabulate = Callable[..., Results]


@pytest.fixture(scope="module")
def made(
    phantoms: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make_plan: Callable[..., Plan],
    make_up: Callable[..., None],
    grow: Callable[..., np.ndarray],
) -> tuple[Results, Path]:
    """Masks of three rows, the first too large, the last with a name that is markup."""
    out = tmp_path_factory.mktemp("made")
    plan = make_plan(phantoms, "unet", "dsrl")
    odd = replace(plan.rows[1], label="dsrl: <b>50 %</b> & more_")
    plan = replace(plan, rows=(*plan.rows, odd))
    by = {"unet": 3, "dsrl": 1, odd.label: 2}

    def draw(cell: Cell, _name: str, truth: np.ndarray) -> np.ndarray:
        return grow(truth, by[cell.row.label] + cell.seed)

    make_up(plan, phantoms, out, draw)
    return collect(plan, out, {"dsrl/seed-9-fold-1": "<fell> over"}), out


def test_the_page_says_it_in_words_first_and_needs_nothing(
    made: tuple[Results, Path], phantoms: Path
) -> None:
    results, out = made
    examples = read_examples(results, phantoms, out)
    quotes = [{"row": "their <net>", "source": "Paper 2020", "dice": "0.91"}]
    page = comparison_page(results, examples, quotes=quotes)
    assert page.index("dsrl is ") < page.index("<table")
    assert "<b>50" not in page
    assert "&lt;b&gt;50 %" in page
    assert "their &lt;net&gt; (quoted)" in page
    head = re.findall(r'<th[^>]*scope="col">([^<]*)', page)
    assert head[:3] == ["Method", "Dice", "Gain in Dice"]  # seen without scrolling
    assert re.search(r'0\.91</td><td class="num">quoted<span class="ci">Paper 2020', page)
    assert "cannot be compared with the others" in page
    assert "&lt;fell&gt; over" in page
    assert "different versions" not in page
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|src=\"(?!data:)", page)
    assert page.count("data:image/jpeg") == len(examples) * 4
    assert str(phantoms.parent) not in page


def test_rows_are_ranked_and_the_worst_comes_last(made: tuple[Results, Path]) -> None:
    results, _ = made
    assert ranked(results, "lesion") == ["dsrl", results.rows[2].label, "unet"]
    assert results.reference == "unet"


def test_examples_are_best_median_worst_and_show_one_place(
    made: tuple[Results, Path], phantoms: Path
) -> None:
    results, out = made
    places = choose(results)
    assert next(iter(places.values())) == "Best"
    assert "Worst" in places.values()
    dice = {place: np.mean([results.case_values(r.label, "dice", "lesion")[place]
                            for r in results.rows]) for place in places}  # fmt: skip
    assert max(dice, key=dice.__getitem__) == next(iter(places))
    for example in read_examples(results, phantoms, out):
        windows = {panel.window for panel in example.panels.values()}
        assert windows == {example.input.frame}
        assert set(example.panels) == {row.label for row in results.rows}
        assert "32 x 32" in example.input.title


def test_tables_for_programs(made: tuple[Results, Path], tmp_path: Path) -> None:
    results, _ = made
    write_tables(results, tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text())))
    keys = {(r["row"], r["metric"], r["class"], r["size_group"]) for r in rows}
    assert len(keys) == len(rows) == len(results.entries)
    first = next(r for r in rows if r["row"] == "dsrl" and r["metric"] == "dice")
    entry = results.entry("dsrl", "dice", "lesion")
    assert entry is not None
    assert entry.difference is not None
    assert float(first["mean"]) == pytest.approx(entry.mean)
    assert float(first["difference_mean"]) == pytest.approx(entry.difference.mean)
    cases = list(csv.DictReader(io.StringIO((tmp_path / "cases.csv").read_text())))
    tests = len(results.plan.splits[0].test)
    assert len(cases) == tests * len(results.plan.cells)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["rows"]["dsrl"]["scores"]["dice"]["lesion"]["all"]["cases"] == tests
    assert summary["cells"] == {"wanted": 6, "done": 6, "failed": dict(results.errors)}
    assert "fell" in (tmp_path / "failures.csv").read_text()
    write_tables(replace(results, errors={}), tmp_path)
    assert not (tmp_path / "failures.csv").exists()


def test_tables_to_paste(made: tuple[Results, Path]) -> None:
    results, _ = made
    text = markdown(results, [{"row": "theirs", "source": "P 2020", "dice": "0.91"}])
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1
    assert "theirs (quoted, P 2020)" in lines[-1]
    assert lines[1].startswith("| -----")
    assert "unet" in overview(results)
    tex = latex(results)
    assert r"50 \%" in tex
    assert r"\& more\_" in tex
    assert r"$\pm$" in tex


def test_columns_are_aligned() -> None:
    assert aligned([["a", "bb"], ["ccc", "d"]]) == "a    bb\nccc   d"
    assert aligned([["a", "bb"], ["ccc", "d"]], rule=True).splitlines()[1] == "| --- | -: |"


@pytest.mark.parametrize(
    "text",
    ["row,dice\nx,0.5\n", "row,source,beauty\nx,y,1\n", ""],
    ids=["source", "metric", "empty"],
)
def test_quotes_that_mean_nothing_here_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "quotes.csv").write_text(text)
    with pytest.raises(UsageError, match="row, source and metrics"):
        read_quotes(tmp_path / "quotes.csv")
    (tmp_path / "quotes.csv").write_text("row,source,dice\nx,y,0.5\n")
    assert read_quotes(tmp_path / "quotes.csv") == [{"row": "x", "source": "y", "dice": "0.5"}]


def test_the_input_of_a_turned_volume_is_shown_where_its_lesion_is(
    tmp_path: Path, make_plan: Callable[..., Plan]
) -> None:
    """The LR image, enlarged, lies on the grid of the file, whichever way its axes run."""
    from finemask.comparison.examples import _input

    data = make_phantoms(tmp_path / "data", kind="nodules", cases=6, seed=2, size=(16, 24, 20))
    dataset = load_dataset(data)
    plan = make_plan(data, "unet", seeds=1)
    case = dataset.read(dataset.entry(plan.splits[0].test[0]))
    turned = Case(
        image=np.flip(np.transpose(case.image, (0, 2, 3, 1)), 2).copy(),
        geometry=case.geometry.permuted((1, 2, 0)).flipped(1),
        name=case.name,
    )
    for one in (case, turned):
        image, size = _input(_nothing(plan), dataset, one)
        assert image.shape == one.image.shape
        assert np.corrcoef(image.ravel(), one.image.ravel())[0, 1] > 0.8
        assert size == "8 x 12 x 10"


def _nothing(plan: Plan) -> Results:
    from finemask.metrics.scores import SizeGroups

    return Results(plan, (), {}, SizeGroups(()), (), (), "px", {}, {})
