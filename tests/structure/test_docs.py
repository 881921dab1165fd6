"""Documentation that cannot drift: docstrings, README commands, links between docs."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest
import typer

import finemask
from finemask.cli import app

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def modules() -> list[str]:
    found = pkgutil.walk_packages(finemask.__path__, "finemask.")
    return [m.name for m in found if not m.name.endswith("__main__")]


def public(module: ModuleType) -> list[tuple[str, object]]:
    return [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_")
        and getattr(value, "__module__", None) == module.__name__
        and (inspect.isfunction(value) or inspect.isclass(value))
    ]


@pytest.mark.parametrize("name", modules())
def test_every_public_name_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert (module.__doc__ or "").strip(), f"{name} has no docstring"
    for entry, value in public(module):
        plain_enum = name == "finemask.cli" and inspect.isclass(value)
        assert plain_enum or inspect.getdoc(value) or len(inspect.getsource(value)) < 400, (
            f"{name}.{entry} has no docstring"
        )


def test_everything_offered_by_the_package_is_there() -> None:
    for name in finemask.__all__:
        assert getattr(finemask, name) is not None


def commands_in(path: Path) -> list[list[str]]:
    """Commands of the shell blocks of a page, continuation lines joined."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", path.read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.startswith("finemask ")]


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_the_docs_exist_with_their_options(path: Path) -> None:
    known = typer.main.get_command(app)
    for words in commands_in(path):
        name = words[1]
        if name.startswith("-"):
            continue
        assert name in known.commands, f"{path.name}: finemask {name}"  # type: ignore[attr-defined]
        options = {o for p in known.commands[name].params for o in p.opts}  # type: ignore[attr-defined]
        used = {w.split("=")[0] for w in words[2:] if re.match(r"-[^\d.]", w)}
        assert used <= options | {"--quiet", "--debug", "-q", "-h", "--help"}, " ".join(words)


@pytest.mark.parametrize("path", DOCS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_the_docs_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
