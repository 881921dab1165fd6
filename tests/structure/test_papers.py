"""Each numbered equation of each paper has one function that names it, and a test."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from finemask.methods import METHODS

ROOT = Path(__file__).parents[2]
EQUATIONS = {
    "dsrl": range(1, 6),
    "sasrnet": range(1, 9),
    "pranet": range(1, 4),
    "m2snet": range(1, 7),
    "dsnet": range(1, 23),  # (23) is label smoothing, which the paper compares with in words
    "pfseg": range(1, 20),
    "ds2f": range(1, 21),
}
"""Numbered equations of the papers whose methods have landed."""


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    """The script that writes docs/papers."""
    spec = importlib.util.spec_from_file_location("make_papers", ROOT / "docs" / "make_papers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_papers"] = module
    spec.loader.exec_module(module)
    return module


def test_every_numbered_equation_has_a_function_and_a_test(pages: ModuleType) -> None:
    found = pages.find_equations()
    wanted = [(paper, n) for paper, numbers in EQUATIONS.items() for n in numbers]
    assert not [each for each in wanted if each not in found]
    assert not [each for each in wanted if not any(place.tests for place in found[each])]


def test_the_pages_of_the_papers_are_those_of_the_code(pages: ModuleType) -> None:
    equations = pages.find_equations()
    for paper in EQUATIONS:
        written = (ROOT / "docs" / "papers" / f"{paper}.md").read_text(encoding="utf-8")
        assert written == pages.page(paper, equations), "run python docs/make_papers.py"


def test_papers_are_methods(pages: ModuleType) -> None:
    assert {paper for paper, _ in pages.find_equations()} <= set(METHODS)
    assert set(EQUATIONS) == set(pages.PAPERS)


def test_a_methods_file_cites_and_tabulates() -> None:
    for name, method in METHODS.items():
        text = ast.get_docstring(ast.parse(Path(inspect.getfile(method)).read_text())) or ""
        assert re.search(r"\b(19|20)\d\d\b", text), f"{name} cites no paper"
        assert "Errata" in text
        assert text.count("|") > 10, f"{name} has no table from figure to code"
