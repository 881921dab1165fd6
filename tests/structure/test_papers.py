"""Each numbered equation of each paper has one function that names it."""

from __future__ import annotations

import ast
import inspect
import re
from collections import defaultdict
from pathlib import Path

import finemask
from finemask.methods import METHODS

PACKAGE = Path(finemask.__file__).parent
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


def index_equations() -> dict[tuple[str, int], list[str]]:
    """Functions by the equations that the ``Paper:`` lines of their docstrings name."""
    found = defaultdict(list)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                for line in re.findall(r"Paper: (.*)", ast.get_docstring(node) or ""):
                    for paper, number in re.findall(r"(\w+) Eq\. \((\d+)\)", line):
                        found[paper, int(number)].append(f"{path.stem}.{node.name}")
    return dict(found)


def test_every_numbered_equation_has_a_function() -> None:
    found = index_equations()
    missing = [(p, n) for p, numbers in EQUATIONS.items() for n in numbers if (p, n) not in found]
    assert not missing


def test_papers_are_methods() -> None:
    assert {paper for paper, _ in index_equations()} <= set(METHODS)
    assert set(EQUATIONS) <= set(METHODS)


def test_a_methods_file_cites_and_tabulates() -> None:
    for name, method in METHODS.items():
        text = ast.get_docstring(ast.parse(Path(inspect.getfile(method)).read_text())) or ""
        assert re.search(r"\b(19|20)\d\d\b", text), f"{name} cites no paper"
        assert "Errata" in text
        assert text.count("|") > 10, f"{name} has no table from figure to code"
