"""The table of public sets: complete, and the same in the documentation."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from finemask.datasets.public import PUBLIC, describe_sets, sets_as_dicts, sets_as_markdown
from finemask.errors import UsageError
from finemask.recipe import shipped_recipes

DOCS = Path(__file__).parents[3] / "docs" / "datasets.md"


def test_the_table_in_the_docs_is_that_of_the_registry() -> None:
    text = DOCS.read_text(encoding="utf-8")
    told = text.split("<!-- sets_as_markdown() -->\n")[1].split("<!-- end -->")[0].strip()
    assert told == sets_as_markdown()


def test_every_set_tells_what_a_user_must_know() -> None:
    for told in sets_as_dicts():
        for key in ("title", "task", "modality", "classes", "readers", "terms", "home", "layout"):
            assert told[key], f"{told['name']} lacks {key}"
        assert told["dims"] in (2, 3)


def test_sets_of_recipes_are_there_with_their_form_and_split() -> None:
    """A recipe's head names the command that makes its data, which must exist."""
    for recipe in (name for name in shipped_recipes() if "/" in name):
        name = recipe.partition("/")[0]
        path = Path(__file__).parents[3] / "src/finemask/recipes" / f"{recipe}.toml"
        head = " ".join(re.findall(r"^# (.*)$", path.read_text(), re.M))
        prepared = re.search(r"finemask prepare (\w+) \w+ \w+(?: --variant (\w+))?", head)
        if prepared is not None:
            assert prepared[1] == name
            assert prepared[2] is None or prepared[2] in PUBLIC[name].variants, recipe
        for split in re.findall(r"--split (\w+)", head):
            known = [key.partition("1..")[0] for key in PUBLIC[name].splits]
            assert any(split.startswith(key) for key in known), (recipe, split)


def test_the_list_names_every_set_and_one_set_tells_all() -> None:
    listed = describe_sets()
    assert all(re.search(rf"^{name} ", listed, re.M) for name in PUBLIC)
    told = describe_sets("lidc_idri")
    for word in ("CC BY 3.0", "--variant", "sasrnet", "leaks patients", "up to 4"):
        assert word in told
    with pytest.raises(UsageError, match="is none of the sets lidc_idri"):
        describe_sets("lidc")


def test_json_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    from finemask.cli import app

    app(["prepare", "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == sets_as_dicts()
    app(["prepare", "drive"], standalone_mode=False)
    assert "training/ and test/" in capsys.readouterr().out
