"""Libraries that run an exported graph on a CPU; each is optional, none is torch."""

from __future__ import annotations

import importlib.util
import math
import os
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from finemask.deploy.spec import GRAPH, Spec
from finemask.errors import DataError, UsageError
from finemask.inference.model import Network

PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
"""What runs a graph of a kind; OpenVINO opens those of ONNX too."""

OPENVINO_PRECISION = {"32-true": "f32", "bf16-mixed": "bf16"}


class GraphNetwork(Network):
    """The foreground probabilities of an exported network.

    Args:
        spec: Of the folder.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__(
            spec.network_scale, spec.task.foreground, spec.stride, spec.window, spec.patches
        )
        self.memory, self.held = spec.memory, 0

    @abstractmethod
    def logits(self, *inputs: Float[ndarray, "..."]) -> Float[ndarray, " b l *hr"]:
        """The graph's output.

        Args:
            inputs: A batch of images, and of guidance where there is any.
        """

    def forward(
        self, tile: Float[ndarray, " c *t"], guidance: Float[ndarray, " g *p"] | None = None
    ) -> Float[ndarray, " f *hr"]:
        self.held = max(self.held, self.activation_bytes((1, *tile.shape))[0])
        arrays = [tile] if guidance is None else [tile, guidance]
        batch = [np.ascontiguousarray(array, np.float32)[None] for array in arrays]
        return foreground_probs(self.logits(*batch)[0])

    def activation_bytes(self, *shapes: Sequence[int]) -> tuple[int, int]:
        voxels = math.prod(shapes[0][2:])
        memory = self.memory
        return math.ceil(memory.bytes_per_voxel * voxels), math.ceil(
            memory.largest_per_voxel * voxels
        )

    def available_bytes(self) -> int:
        # What the library keeps of the largest tile so far is used again for the next.
        return super().available_bytes() + self.held


class OnnxNetwork(GraphNetwork):
    """A graph run by ONNX Runtime.

    Args:
        folder: What ``finemask export`` wrote.
        spec: Of the folder.
    """

    def __init__(self, folder: Path, spec: Spec) -> None:
        import onnxruntime

        super().__init__(spec)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                folder / GRAPH["onnx"], options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the library has a class of its own for each cause
            raise _unreadable(folder, "ONNX Runtime", error) from error
        self.names = [entry.name for entry in self.session.get_inputs()]

    def logits(self, *inputs: Float[ndarray, "..."]) -> Float[ndarray, " b l *hr"]:
        out: Float[ndarray, " b l *hr"]
        (out,) = self.session.run(None, dict(zip(self.names, inputs, strict=True)))
        return out


class OpenVINONetwork(GraphNetwork):
    """A graph run by OpenVINO.

    Args:
        folder: What ``finemask export`` wrote.
        spec: Of the folder.
        precision: ``32-true`` or ``bf16-mixed``.
    """

    def __init__(self, folder: Path, spec: Spec, precision: str = "32-true") -> None:
        import openvino

        super().__init__(spec)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": OPENVINO_PRECISION[precision],
            "INFERENCE_NUM_THREADS": threads(),
            "NUM_STREAMS": 1,
        }
        try:
            compiled = openvino.Core().compile_model(folder / GRAPH[spec.kind], "CPU", settings)
        except Exception as error:  # a RuntimeError, or one of its own
            raise _unreadable(folder, "OpenVINO", error) from error
        self.request = compiled.create_infer_request()

    def logits(self, *inputs: Float[ndarray, "..."]) -> Float[ndarray, " b l *hr"]:
        out: Float[ndarray, " b l *hr"] = self.request.infer(list(inputs), share_inputs=True)[0]
        return out


def _unreadable(folder: Path, library: str, error: Exception) -> DataError:
    text = " ".join(str(error).split())[:200]
    return DataError(folder, f"cannot be opened by {library} ({text})", "export the run again")


def threads() -> int:
    """Threads of a prediction, as torch counts them; 0 leaves it to the library."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() else 0


def installed(package: str) -> bool:
    """Whether a package is here; it is not imported."""
    return importlib.util.find_spec(package) is not None


def open_network(folder: Path, spec: Spec, backend: str, precision: str) -> GraphNetwork:
    """An exported network in a library.

    Raises:
        UsageError: When the library is not installed.
        DataError: When it does not open the graph.
    """
    if not installed(PACKAGES[backend]):
        raise UsageError(
            "--backend",
            f"{backend} needs the package {PACKAGES[backend]}, which is not installed",
            f"pip install finemask[{backend}]",
        )
    if backend == "onnx":
        return OnnxNetwork(folder, spec)
    return OpenVINONetwork(folder, spec, precision)


def foreground_probs(logits: Float[ndarray, " l *s"]) -> Float[ndarray, " f *s"]:
    """Probability of each foreground class, from one map (sigmoid) or one a class (softmax).

    Example:
        >>> foreground_probs(np.zeros((3, 1))).round(3).tolist()
        [[0.333], [0.333]]
        >>> foreground_probs(np.array([[-800.0, 0.0, 800.0]])).tolist()
        [[0.0, 0.5, 1.0]]
    """
    if len(logits) == 1:
        probs = np.negative(logits)
        with np.errstate(over="ignore"):  # 1 / inf is the 0 that is meant
            np.exp(probs, out=probs)
        probs += 1
        return np.reciprocal(probs, out=probs)
    shares = logits - logits.max(0)
    np.exp(shares, out=shares)
    shares /= shares.sum(0)
    return shares[1:]
