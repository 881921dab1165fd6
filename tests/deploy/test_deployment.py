"""The page on deployment: its examples run, and the container's steps are those of a script."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from packaging.requirements import Requirement

from finemask.geometry import Geometry
from finemask.io import read_labels, write_image

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "deploy.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
SCRIPT = (ROOT / "tools" / "install_runtime.sh").read_text(encoding="utf-8")
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


@pytest.fixture
def place(
    exported_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder with what the examples name."""
    shutil.copytree(exported_of(2, "onnx"), tmp_path / "exported")
    picture(tmp_path / "scan.png", 0)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def picture(path: Path, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 255, (24, 20)).astype(np.uint8)
    write_image(path, image, Geometry.regular((24, 20)))


def test_ten_lines_of_python(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert 8 <= len([line for line in BLOCKS[0].splitlines() if line]) <= 10
    exec(compile(BLOCKS[0], "docs/deploy.md", "exec"), {})
    assert read_labels(place / "mask.png")[0].shape == (24, 20)
    assert capsys.readouterr().out.startswith("(24, 20)")


def test_a_folder_is_watched(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service: dict[str, Any] = {"__name__": "service"}
    exec(compile(BLOCKS[1], "docs/deploy.md", "exec"), service)
    (place / "inbox").mkdir()
    picture(place / "inbox" / "a.png", 1)
    (place / "inbox" / "b.png").write_text("no picture")
    service["serve"]("exported", "inbox", "outbox", 0.0, 2)
    assert "1 done, 1 failed" in capsys.readouterr().out
    (place / "inbox" / "b.png").unlink()
    picture(place / "inbox" / "b.png", 2)
    service["serve"]("exported", "inbox", "outbox", 0.0, 1)
    assert "1 done, 0 failed, 1 skipped" in capsys.readouterr().out
    assert {"a.png", "b.png"} <= {p.name for p in (place / "outbox").iterdir()}


@pytest.mark.usefixtures("place")
def test_the_graph_needs_no_finemask() -> None:
    code = BLOCKS[2] + "\nimport sys\nprint(mask.shape, 'finemask' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(128, 192) False"


def needed() -> set[str]:
    """Distributions that the script installs, with all that they require themselves."""
    (names,) = re.findall(r'^needed="(.*)"$', SCRIPT, re.M)
    waiting, found = [*names.split(), "onnxruntime", "openvino"], set[str]()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_the_container_installs_all_that_prediction_imports(backend: str) -> None:
    words = ["predict", "exported", "scan.png", "--out", "out", "--backend", backend, "--probs"]
    code = (
        f"import sys; sys.argv = ['finemask', *{words!r}]\n"
        "from finemask.cli import main\ntry: main()\n"
        "finally: print('LOADED', *{m.split('.')[0] for m in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    homes = importlib.metadata.packages_distributions()
    loaded = {
        re.sub(r"[-_.]+", "-", home).lower()
        for module in done.stdout.rpartition("LOADED")[2].split()
        for home in homes.get(module, ())
    }
    assert loaded - needed() <= {"finemask", "setuptools", "pip"}
    assert "torch" not in needed()


def test_the_container_copies_what_is_there_and_runs_the_script() -> None:
    for sources in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.M):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    assert "RUN sh tools/install_runtime.sh" in DOCKERFILE
    subprocess.run(["sh", "-n", str(ROOT / "tools" / "install_runtime.sh")], check=True)
    assert "-c constraints.txt" in SCRIPT


def test_the_script_tells_pip_what_to_install(tmp_path: Path) -> None:
    """With a stand-in for Python that writes down how it is called."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    python.chmod(0o755)
    further = ["--no-index", "--find-links", "wheels"]
    script = ["sh", "tools/install_runtime.sh", str(python), *further]
    subprocess.run(script, cwd=ROOT, check=True)
    dependencies, package, version = (tmp_path / "calls").read_text().splitlines()
    assert " ".join(further) in dependencies
    assert {"onnxruntime", "openvino", "numpy"} <= set(dependencies.split())
    assert "torch" not in dependencies.split()
    assert package.split()[-1] == "."
    assert "--no-deps" in package.split()
    assert version == "-m finemask --version"
