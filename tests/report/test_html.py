from __future__ import annotations

from finemask.io.tables import csv_table
from finemask.report import html
from finemask.report.tables import plain

HOSTILE = "<script>alert('x')</script>\"&"


def test_what_a_user_named_is_shown_and_never_run() -> None:
    page = html.page(
        HOSTILE,
        HOSTILE,
        html.section(HOSTILE, html.paragraph(HOSTILE)),
        html.table([HOSTILE], [[HOSTILE]], caption=HOSTILE),
        html.picture(b"\x89PNG", HOSTILE, HOSTILE),
        html.vector("<svg width='1'></svg>", HOSTILE, HOSTILE),
        html.facts([(HOSTILE, HOSTILE)]),
        html.legend(("red", HOSTILE)),
        html.subsection(HOSTILE, html.number(HOSTILE, HOSTILE)),
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 18


def test_numbers_go_right_and_text_left() -> None:
    table = html.table(["Class", "Dice", "Why"], [["lesion", "0.8", "-"]], text=(0, 2))
    assert '<td class="num">0.8</td><td>-</td>' in table
    assert '<th scope="row">lesion</th>' in table


def test_a_section_without_content_is_left_out() -> None:
    assert html.section("Empty", "", "") == html.subsection("Empty") == ""


def test_pictures_say_what_they_are() -> None:
    assert 'src="data:image/png;base64,' in html.picture(b"\x89PNG...", "a")
    assert 'src="data:image/jpeg;base64,' in html.picture(b"\xff\xd8...", "a")


def test_formulas_are_made_harmless_but_numbers_stay_numbers() -> None:
    text = csv_table(["a"], [["=1"], ["+1"], ["-x"], ["@a"], [-0.5], [float("inf")], ["fine"]])
    assert text.split("\n")[1:8] == ["'=1", "'+1", "'-x", "'@a", "-0.5", "inf", "fine"]


def test_json_gets_null_where_it_has_no_word() -> None:
    assert plain([float("inf"), float("nan"), 1.5, "x", {"a": (1,)}]) == [
        None, None, 1.5, "x", {"a": [1]},
    ]  # fmt: skip
