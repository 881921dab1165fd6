"""Writes docs/papers/<name>.md: each equation with its function and its tests, errata, counts.

All of it is read from the code: docstrings of methods, ``Paper:`` lines of functions, names
that tests use. Run it after a change to any of these; a test compares.

    python docs/make_papers.py
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from finemask.methods import METHODS
from finemask.methods.describe import describe
from finemask.methods.released import released_recipe

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "finemask"
TESTS = ROOT / "tests"
PAPERS = ("dsrl", "sasrnet", "dsnet", "ds2f", "pfseg", "pranet", "m2snet")
"""Papers with numbered equations; each is named as the method whose file tells of it."""
TOLD_BY_MANY = {"forward", "losses", "weights"}
"""Names that every method has: only tests that name the class as well are of one of them."""


@dataclass(frozen=True)
class Reported:
    """A number that a paper or its released code states, counted on the released network.

    Args:
        quantity: In words.
        value: As stated.
        released: Name in ``finemask.methods.released``.
        size: LR input.
        fact: Of ``MethodFacts``.
    """

    quantity: str
    value: str
    released: str
    size: tuple[int, ...]
    fact: str


LEARN, SHIP, COST = "parameters_training", "parameters_inference", "macs_inference"
CUBE, SQUARE, VOLUME = (48, 48, 48), (256, 256), (64, 96, 96)
REPORTED: dict[str, tuple[Reported, ...]] = {
    "sasrnet": (
        Reported("weights in training (code, less its dead layers)", "13,232,350", "sasrnet", CUBE,
                 LEARN),
        Reported("weights at inference", "8,341,389", "sasrnet", CUBE, SHIP),
    ),
    "m2snet": (
        Reported("weights of MSNet", "27.7 M", "msnet", SQUARE, SHIP),
        Reported("weights of M2SNet", "27.7 M", "m2snet", SQUARE, SHIP),
        Reported("multiply-adds of M2SNet at 256 x 256", "9.0 G", "m2snet", SQUARE, COST),
    ),
    "ds2f": (
        Reported("weights in training (code)", "39,194,682", "ds2f", (512, 512), LEARN),
        Reported("weights at inference (code)", "28,949,698", "ds2f", (512, 512), SHIP),
        Reported("multiply-adds at 512 x 512", "198.77 G", "ds2f", (512, 512), COST),
    ),
    "pfseg": (
        Reported("weights in training, MSRes (code)", "29,161,426", "pfseg", VOLUME, LEARN),
        Reported("weights at inference, MSRes (code)", "23,861,633", "pfseg", VOLUME, SHIP),
        Reported("weights in training, Res (code)", "14,655,042", "pfseg_2021", VOLUME, LEARN),
        Reported("weights at inference, Res (code)", "9,355,249", "pfseg_2021", VOLUME, SHIP),
    ),
}  # fmt: skip


@dataclass
class Place:
    """Where an equation is: a function and the tests that call it by name."""

    module: Path
    name: str
    tests: list[str] = field(default_factory=list)

    @property
    def link(self) -> str:
        source = f"../../{self.module.relative_to(ROOT)}"
        return f"[`{self.name}`]({source})"


def find_equations() -> dict[tuple[str, int], list[Place]]:
    """Functions by the equations that the ``Paper:`` lines of their docstrings name."""
    found: dict[tuple[str, int], list[Place]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, node in _functions(ast.parse(path.read_text(encoding="utf-8"))):
            for paper, number in equations_in(ast.get_docstring(node) or ""):
                found.setdefault((paper, number), []).append(Place(path, name))
    tests = _uses_of_tests()
    for places in found.values():
        for place in places:
            owner, _, name = place.name.rpartition(".")
            wanted = owner if name in TOLD_BY_MANY else name
            place.tests = [t for t, words in tests.items() if wanted in words]
            place.tests = place.tests or [t for t, words in tests.items() if owner in words]
    return found


def equations_in(docstring: str) -> list[tuple[str, int]]:
    """Papers and numbers that a docstring's ``Paper:`` lines name.

    Example:
        >>> equations_in("Paper: pfseg Eq. (4), pfseg Eq. (5)")
        [('pfseg', 4), ('pfseg', 5)]
    """
    lines = re.findall(r"Paper: (.*(?:\n.*Eq\. \(\d+\).*)*)", docstring)
    found = re.findall(r"(\w+) Eq\. \((\d+)\)", " ".join(lines))
    return [(paper, int(number)) for paper, number in found]


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions with the names of the classes that they are in."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    yield f"{node.name}.{part.name}", part


def _uses_of_tests() -> dict[str, set[str]]:
    """Every test with the names that it, or a function of its file that it calls, uses."""
    uses: dict[str, set[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        words = {node.name: _words(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
        for name, own in words.items():
            if name.startswith("test_"):
                called = (words[other] for other in own & words.keys() if other != name)
                uses[f"{path.relative_to(ROOT)}::{name}"] = own.union(*called)
    return uses


def _words(node: ast.FunctionDef) -> set[str]:
    names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    names |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return names | {a.arg for a in node.args.args}  # a fixture may do the calling


def page(paper: str, equations: dict[tuple[str, int], list[Place]]) -> str:
    """The page of one paper."""
    method = METHODS[paper]
    told = ast.get_docstring(ast.parse(Path(inspect.getfile(method)).read_text("utf-8"))) or ""
    head, _, errata = told.partition("Errata and departures:\n")
    parts = [
        f"# {paper}\n",
        "Written by `python docs/make_papers.py` from the code: change that, not this page.\n",
        head.strip() + "\n",
        "## Equations, functions, tests\n",
        *_equation_table(paper, equations),
        "## Errata and departures\n",
        errata.strip() + "\n",
    ]
    if paper in REPORTED:
        parts += ["## Reported and counted\n", *_reported_table(paper)]
    results = ROOT / "docs" / "results" / f"{paper}.md"
    if results.exists():
        parts.append(f"What was measured: [results](../results/{paper}.md).\n")
    return "\n".join(parts)


def _equation_table(paper: str, equations: dict[tuple[str, int], list[Place]]) -> list[str]:
    rows = ["| Eq. | function | tests |", "|---|---|---|"]
    for (name, number), places in sorted(equations.items(), key=lambda item: item[0]):
        if name == paper:
            tests = sorted({test for place in places for test in place.tests}, key=_by_strength)
            shown = "<br>".join(f"`{t.partition('tests/')[2]}`" for t in tests[:3])
            more = f"<br>and {len(tests) - 3} more" if len(tests) > 3 else ""
            links = ", ".join(place.link for place in places)
            rows.append(f"| ({number}) | {links} | {shown}{more} |")
    return [*rows, ""]


def _by_strength(test: str) -> tuple[bool, str]:
    """Tests against an independent version come first."""
    return not re.search("numpy|equation|formula|naive|by_hand|textbook", test), test


def _reported_table(paper: str) -> list[str]:
    rows = ["| quantity | reported | counted here |", "|---|---:|---:|"]
    for each in REPORTED[paper]:
        recipe = released_recipe(each.released)
        count = getattr(describe(recipe.method, recipe, each.size), each.fact)
        rows.append(f"| {each.quantity} | {each.value} | {count:,} |")
    return [*rows, ""]


def main() -> None:
    folder = ROOT / "docs" / "papers"
    folder.mkdir(exist_ok=True)
    equations = find_equations()
    for paper in PAPERS:
        (folder / f"{paper}.md").write_text(page(paper, equations), encoding="utf-8")
        print(folder / f"{paper}.md")


if __name__ == "__main__":
    main()
