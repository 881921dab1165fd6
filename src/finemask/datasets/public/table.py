"""The public sets as tables: for the terminal, for JSON and for the documentation."""

from __future__ import annotations

from typing import Any

from finemask.datasets.public.records import PublicSet
from finemask.datasets.public.registry import PUBLIC, find_public
from finemask.recipe import shipped_recipes

COLUMNS = ("name", "task", "modality", "dims", "classes", "readers", "splits", "recipes")


def describe_sets(name: str | None = None) -> str:
    """The table of all sets, or everything about one, as ``prepare`` prints it."""
    if name is not None:
        return _described(name, find_public(name))
    rows = [COLUMNS, *(_row(name) for name in PUBLIC)]
    widths = [max(len(row[k]) for row in rows) for k in range(len(COLUMNS))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    more = "finemask prepare NAME tells terms of use, where to get it, and the layout of RAW"
    return "\n".join([*lines, "", more])


def sets_as_dicts() -> list[dict[str, Any]]:
    """Everything about every set, for ``prepare --list --json``."""
    return [{"name": name, **_told(name, public)} for name, public in PUBLIC.items()]


def sets_as_markdown() -> str:
    """The table in the documentation."""
    head = (
        "| set | task, modality | D | classes | readers | named splits | forms | recipes | terms | "
        "where to get it |"
    )
    lines = [head, "|" + "---|" * 10]
    for name, public in PUBLIC.items():
        told = _told(name, public)
        splits = "; ".join(f"`{key}`: {text}" for key, text in public.splits.items())
        variants = "; ".join(f"`{key}`: {text}" for key, text in told["variants"].items())
        recipes = ", ".join(f"`{recipe}`" for recipe in told["recipes"])
        cells = (
            f"`{name}`: {public.title}",
            f"{public.task}, {public.modality}",
            str(public.dims),
            ", ".join(public.classes),
            public.readers,
            splits,
            variants,
            recipes,
            public.terms,
            public.home,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def recipes_of(name: str) -> list[str]:
    """The recipes that ship for a set."""
    return [recipe for recipe in shipped_recipes() if recipe.startswith(f"{name}/")]


def _told(name: str, public: PublicSet) -> dict[str, Any]:
    return {
        "title": public.title,
        "task": public.task,
        "modality": public.modality,
        "dims": public.dims,
        "classes": list(public.classes),
        "readers": public.readers,
        "terms": public.terms,
        "home": public.home,
        "layout": public.layout,
        "splits": dict(public.splits),
        "default": public.default,
        "variants": dict(public.variants),
        "recipes": recipes_of(name),
    }


def _row(name: str) -> tuple[str, ...]:
    public = PUBLIC[name]
    recipes = [recipe.partition("/")[2] for recipe in recipes_of(name)]
    classes = ", ".join(public.classes)
    return (
        name,
        public.task,
        public.modality,
        str(public.dims),
        classes if len(classes) <= 24 else f"{len(public.classes)} classes",
        public.readers,
        ", ".join(public.splits) or "-",
        ", ".join(recipes) or "-",
    )


def _described(name: str, public: PublicSet) -> str:
    told = _told(name, public)
    lines = [f"{name}: {public.title}"]
    for key in ("task", "modality", "dims", "classes", "readers", "terms", "home", "layout"):
        value = told[key]
        lines.append(f"  {key:9} {', '.join(value) if isinstance(value, list) else value}")
    variants = {public.default: "as it comes", **public.variants}
    for title, entries in (("--variant", variants), ("--split", public.splits)):
        lines += [f"  {title:9} {key}: {text}" for key, text in entries.items()]
    lines += [f"  --recipe  {recipe}" for recipe in told["recipes"]]
    return "\n".join(lines)
