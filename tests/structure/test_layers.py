"""The architecture, checked on the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import finemask

PACKAGE = Path(finemask.__file__).parent
LAYERS = {
    0: (
        "errors",
        "geometry",
        "case",
        "masks",
        "options",
        "outcome",
        "progress",
        "recipe",
        "recipes",
        "strict",
    ),
    1: ("io", "pseudonyms", "datasets", "softmask", "intensities", "preparation"),
    2: ("pairs", "metrics", "nn", "losses"),
    3: ("methods",),
    4: (
        *("training", "runs", "inference", "evaluation", "report", "demo", "info", "comparison"),
        *("annotation", "deploy", "adapt"),
    ),
    5: ("cli", "__main__"),
}
LEVEL = {module: level for level, modules in LAYERS.items() for module in modules}
WITHOUT_TORCH = {
    *("errors", "geometry", "case", "masks", "recipe", "progress"),
    *("io", "datasets", "softmask", "intensities", "preparation"),
    *("metrics", "evaluation", "report", "annotation"),
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part_of(path: Path) -> str:
    """Top-level module or package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Names of the finemask modules and the libraries that a file imports, wherever it does."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "finemask":
                found |= {f"finemask.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down_only(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return
    assert part in LEVEL, f"{part} has no layer: add it to the table above"
    for name in imports_of(path):
        if name.startswith("finemask."):
            other = name.split(".")[1]
            if other in LEVEL:
                assert LEVEL[other] <= LEVEL[part], f"{path.name} imports {name} from above"


@pytest.mark.parametrize("path", sorted((PACKAGE / "methods").glob("*.py")), ids=lambda p: p.stem)
def test_methods_never_import_each_other(path: Path) -> None:
    from finemask.methods import METHODS

    if path.stem in ("__init__", "describe"):
        return
    siblings = {f"finemask.methods.{name}" for name in METHODS} - {f"finemask.methods.{path.stem}"}
    assert not imports_of(path) & siblings


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_modules_that_work_without_torch_never_name_it(path: Path) -> None:
    if part_of(path) in WITHOUT_TORCH:
        assert not {name for name in imports_of(path) if name.split(".")[0] == "torch"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400 or "Long because" in text, "over 400 lines wants a reason"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= 60, f"{node.name} has {length} lines"


def loaded_by(code: str) -> set[str]:
    """Top-level packages that a fresh interpreter has loaded after running ``code``."""
    script = f"import sys\n{code}\nprint('LOADED', *{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.rpartition("LOADED")[2].split())


def test_help_loads_no_engine() -> None:
    loaded = loaded_by(
        "from finemask.cli import app\n"
        "try: app(['--help'], standalone_mode=False)\n"
        "except SystemExit: pass"
    )
    heavy = {"torch", "numpy", "scipy", "nibabel", "matplotlib", "SimpleITK", "lightning_fabric"}
    assert not loaded & heavy


def test_package_and_evaluation_load_no_torch() -> None:
    assert "torch" not in loaded_by("import finemask")
    assert "torch" not in loaded_by("from finemask.evaluation.cohort import evaluate")
    assert "torch" not in loaded_by("from finemask.inference.cohort import predict")
    assert "torch" not in loaded_by("from finemask import load_exported")


def test_default_path_needs_no_forbidden_package() -> None:
    """torchvision breaks its dependants where there is no CPU build; the rest drag it in."""
    forbidden = {
        "torchvision",
        "timm",
        "monai",
        "lightning",
        "torchmetrics",
        "segmentation_models_pytorch",
    }
    assert (
        not loaded_by("import finemask.training.loop, finemask.inference.cohort, finemask.demo")
        & forbidden
    )
