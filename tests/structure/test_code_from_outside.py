"""Nothing that comes from a file is code, and nothing reaches a shell: checked on the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import finemask
from finemask.errors import UsageError
from finemask.methods import METHODS, create, default_recipe
from finemask.recipe import Recipe, Task

PACKAGE = Path(finemask.__file__).parent
SOURCES = [ast.parse(p.read_text(encoding="utf-8")) for p in sorted(PACKAGE.rglob("*.py"))]
CALLS = [node for tree in SOURCES for node in ast.walk(tree) if isinstance(node, ast.Call)]

RUNS_CODE = {
    *("eval", "exec", "compile", "__import__", "pickle.load", "pickle.loads", "marshal.loads"),
    *("yaml.load", "yaml.unsafe_load", "joblib.load", "runpy.run_path", "runpy.run_module"),
    *("shelve.open", "dill.load", "cloudpickle.load", "torch.hub.load", "torch.jit.load"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("shutil.unpack_archive", "tarfile.open"),
}
IMPORTS = {"f'finemask.io.{name}'", "'finemask.metrics'", "_HOMES[name]",
           "'finemask.datasets.phantoms'"}  # fmt: skip
"""What is imported by name, from tables in the source."""


def name_of(call: ast.Call) -> str:
    return ast.unparse(call.func)


def argument(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(k.value) for k in call.keywords if k.arg == name), None)


@pytest.mark.fault("F77", "F82")
def test_no_file_is_run() -> None:
    assert not {name_of(call) for call in CALLS} & RUNS_CODE
    loads = [call for call in CALLS if name_of(call) == "torch.load"]
    assert loads
    assert {argument(call, "weights_only") for call in loads} == {"True"}
    arrays = [call for call in CALLS if name_of(call) in ("np.load", "np.save")]
    assert arrays
    assert {argument(call, "allow_pickle") for call in arrays} == {"False"}
    assert not any(
        argument(call, "strict") == "False" for call in CALLS if "load_state" in name_of(call)
    )


@pytest.mark.fault("F78")
def test_only_tables_of_the_source_are_imported_from() -> None:
    imported = [call for call in CALLS if name_of(call).endswith("import_module")]
    assert imported
    assert {ast.unparse(call.args[0]) for call in imported} <= IMPORTS


@pytest.mark.fault("F81")
def test_nothing_reaches_a_shell() -> None:
    assert not any(argument(call, "shell") for call in CALLS)
    started = [call for call in CALLS if name_of(call).startswith("subprocess.")]
    assert started
    assert all(isinstance(call.args[0], ast.List) for call in started)


@pytest.mark.fault("F79")
def test_archives_are_read_and_never_unpacked() -> None:
    assert not {call.func.attr for call in CALLS if isinstance(call.func, ast.Attribute)} & {
        "extractall",
        "extract",
    }


def words(recipe: Recipe) -> list[str]:
    """Every setting of a recipe that is a word."""
    sections = recipe.to_dict()
    found = ["method"]
    for section, values in sections.items():
        if isinstance(values, dict):
            found += [f"{section}.{key}" for key, value in values.items() if isinstance(value, str)]
    return found


@pytest.mark.fault("F78")
@pytest.mark.parametrize("method", METHODS)
def test_no_setting_names_code(method: str, tmp_path: Path) -> None:
    """A word that could be imported or called is an unknown choice, or a plain word."""
    dims = METHODS[method].dims[0] if hasattr(METHODS[method], "dims") else 2
    recipe = default_recipe(method, Task(dims=dims, channels=1, classes=2, scale=(2,)))
    spelled = recipe.to_dict()
    refused = 0
    for key in words(recipe):
        changed = {k: dict(v) if isinstance(v, dict) else v for k, v in spelled.items()}
        section, _, name = key.rpartition(".")
        target = changed[section] if section else changed
        target[name] = f"os.mkdir:{tmp_path / 'made'}"
        try:
            made = Recipe.from_dict(changed, "recipe")
            create(made)
        except (UsageError, ValueError, KeyError):
            refused += 1
        else:
            assert name.endswith(PATHS), f"{key} takes any word"
    assert refused
    assert not (tmp_path / "made").exists()


PATHS = ("_weights", "teacher")
"""Settings that are paths: what is there is read as weights, and never run."""
