"""An exported folder as a model: predicted as a run is, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from finemask.deploy.runtimes import PACKAGES, GraphNetwork, installed, open_network
from finemask.deploy.spec import FILE, GRAPH, Spec, make_guide, read_spec
from finemask.errors import UsageError
from finemask.inference.model import Machine, Model
from finemask.inference.probe import fastest
from finemask.pairs.guidance import Guide
from finemask.recipe import Recipe

HOLDS = 0.002
"""Dice that reduced precision may have cost when it was checked, to be chosen unasked."""


@dataclass(frozen=True, repr=False)
class Exported(Model):
    """A folder that ``finemask export`` wrote, ready to predict.

    Args:
        path: The folder.
        spec: What it says of itself.
        recipe: Task and preparation.
        threshold: Probability from which a voxel is foreground.
        meta: ``lr_spacing_mm``.
    """

    path: Path
    spec: Spec
    recipe: Recipe
    threshold: float
    meta: Mapping[str, Any]
    _networks: dict[tuple[str, str], GraphNetwork] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Exported {self.path}: {self.spec.method}, {self.spec.kind} {self.spec.numbers}>"

    @property
    def guide(self) -> Guide | None:
        return make_guide(self.spec.guide)

    @property
    def window_lr(self) -> tuple[int, ...]:
        grids = zip(self.spec.window, self.spec.task.scale, self.spec.network_scale, strict=False)
        return tuple(side * own // factor for side, factor, own in grids)

    @property
    def reads_hr(self) -> bool:
        return self.spec.reads == "hr"

    def find_device(self, name: str) -> str:
        if name not in ("auto", "cpu"):
            what = f"is {name!r}, an exported network runs on the CPU"
            raise UsageError("--device", what, "leave it out, or predict with the run itself")
        return "cpu"

    def choose(self, machine: Machine) -> Machine:
        choices = [
            replace(machine, backend=backend, precision=precision)
            for backend in self._backends(machine.backend)
            for precision in self._precisions(backend, machine.precision)
        ]
        if not choices:
            raise UsageError(
                "--precision",
                f"is {machine.precision}, in which {self.path} cannot be run by "
                f"{' or '.join(self._backends(machine.backend))}",
                "choose 32-true, or export to openvino",
            )
        return fastest(self, choices)

    def _backends(self, wanted: str) -> list[str]:
        """Libraries that open this graph and are here, the wanted one or all."""
        able = ["onnx", "openvino"] if self.spec.kind == "onnx" else ["openvino"]
        if wanted != "auto":
            if wanted not in able:
                raise UsageError(
                    "--backend",
                    f"is {wanted}, {self.path} is run by {' or '.join(able)}",
                    "choose one of these, or leave it out",
                )
            return [wanted]
        here = [backend for backend in able if installed(PACKAGES[backend])]
        if not here:
            wanted_packages = " or ".join(PACKAGES[backend] for backend in able)
            raise UsageError(
                self.path,
                f"needs the package {wanted_packages}, which is not installed",
                f"pip install finemask[{self.spec.kind}]",
            )
        return here

    def _precisions(self, backend: str, wanted: str) -> list[str]:
        if wanted == "auto":
            held = any(
                (check.backend, check.precision) == (backend, "bf16-mixed") and check.loss <= HOLDS
                for check in self.spec.checks
            )
            return ["32-true", *(["bf16-mixed"] if held else [])]
        able = ("32-true", "bf16-mixed") if backend == "openvino" else ("32-true",)
        return [wanted] if wanted in able else []

    def network(self, machine: Machine) -> GraphNetwork:
        key = machine.backend, machine.precision
        if key not in self._networks:
            self._networks[key] = open_network(self.path, self.spec, *key)
        return self._networks[key]

    def sha256(self, whole: bool = False) -> str:
        same = self.spec.numbers == "float32"  # computes what the run computes
        return self.spec.training.weights_sha256 if same else self.spec.files[GRAPH[self.spec.kind]]


def is_exported(folder: Path) -> bool:
    """Whether a folder claims to be an export."""
    return (folder / FILE).is_file()


def load_exported(path: str | Path) -> Exported:
    """Load an exported folder whole and verified; torch is not needed, nor imported.

    `finemask.predict` takes it as it takes a run.

    Args:
        path: What ``finemask export`` wrote.

    Raises:
        DataError: When the folder is no export, or damaged.
    """
    folder = Path(path)
    spec = read_spec(folder)
    meta = {"lr_spacing_mm": spec.training.lr_spacing_mm}
    return Exported(folder, spec, spec.recipe, spec.threshold, meta)
