"""The table of faults in ``docs/reliability.md``: its last column is read from the tests.

A test that injects a fault is marked ``@pytest.mark.fault("F37")``. To bring the
page up to date after marking one: ``python tests/structure/test_reliability.py``.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "reliability.md"
FAULTS = [f"F{number:02}" for number in range(1, 97)]
NO_CODE_YET = {"F88", "F89", "F90"}
"""Faults of web services, of which there is none here."""
ROW = re.compile(r"^\| (F\d\d) \| (.+?) \| (.+?) \| (.*?) *\|$", re.M)
"""A fault, what it is, what happens, and the tests that show it."""


def faults_in(tree: ast.AST) -> Iterator[str]:
    """Names in the ``pytest.mark.fault(...)`` of a piece of code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.fault":
            for name in node.args:
                assert isinstance(name, ast.Constant), "a fault is named by a plain string"
                yield str(name.value)


def tests_of_faults() -> dict[str, list[tuple[str, str]]]:
    """Files and names of the marked tests by fault, read without running anything."""
    found = defaultdict[str, list[tuple[str, str]]](list)
    for path in sorted(TESTS.rglob("test_*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        tables = {
            target.id: set(faults_in(node))
            for node in module.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for test in module.body:
            if isinstance(test, ast.FunctionDef) and test.name.startswith("test_"):
                marks = {fault for d in test.decorator_list for fault in faults_in(d)}
                for part in (n for d in test.decorator_list for n in ast.walk(d)):
                    marks |= tables.get(part.id, set()) if isinstance(part, ast.Name) else set()
                for fault in marks:
                    found[fault].append((path.relative_to(TESTS).as_posix(), test.name))
    return dict(found)


def page_of_today() -> str:
    """The page with the column of tests as the tests are now."""
    found = tests_of_faults()

    def row(match: re.Match[str]) -> str:
        tests = "<br>".join(
            f"[{name.removeprefix('test_').replace('_', ' ')}](../tests/{file})"
            for file, name in found.get(match[1], [])
        )
        return f"| {match[1]} | {match[2]} | {match[3]} | {tests or 'none'} |"

    return ROW.sub(row, PAGE.read_text(encoding="utf-8"))


def test_the_page_is_up_to_date() -> None:
    again = "run python tests/structure/test_reliability.py"
    assert page_of_today() == PAGE.read_text(encoding="utf-8"), again


def test_every_fault_is_told_once_and_shown_by_a_test() -> None:
    told = [match[1] for match in ROW.finditer(PAGE.read_text(encoding="utf-8"))]
    assert told == FAULTS
    assert set(FAULTS) - set(tests_of_faults()) == NO_CODE_YET


def test_only_known_faults_are_marked() -> None:
    assert set(tests_of_faults()) <= set(FAULTS)


if __name__ == "__main__":
    PAGE.write_text(page_of_today(), encoding="utf-8")
