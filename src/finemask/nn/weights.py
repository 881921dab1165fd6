"""Weights from files of other people: tensors only, and nothing in them is run."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finemask.errors import DataError

NESTS = ("state_dict", "model")
"""Where training scripts keep the weights within their checkpoints."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """Named tensors of a ``.safetensors`` file or of what ``torch.save`` wrote.

    A checkpoint's ``state_dict`` or ``model`` is taken out of it, and the
    ``module.`` that multi-device training puts before every name is removed.

    Raises:
        DataError: When the file is something else, or would have to run code.
    """
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else _load_pickled(path)
    except OSError as error:
        raise DataError(path, f"cannot be read ({error.strerror or error})", "check it") from error
    except SafetensorError as error:
        raise DataError(path, f"is no readable safetensors file ({error})", "check it") from error
    except pickle.UnpicklingError as error:
        raise DataError(
            path,
            "is damaged, or holds more than tensors and plain values, which is never run",
            "save its state dict alone, best as .safetensors",
        ) from error
    # Bytes that are no pickle at all fail inside PyTorch in any of these ways.
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError, EOFError) as error:
        raise DataError(
            path, "is neither safetensors nor a file of torch.save", "give a file of weights"
        ) from error
    return _tensors_of(loaded, path)


def _load_pickled(path: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the file's pickle protocol
        return torch.load(path, map_location="cpu", weights_only=True)


def _tensors_of(loaded: Any, path: Path) -> dict[str, Tensor]:
    for nest in NESTS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(nest), Mapping):
            loaded = loaded[nest]
    if (
        not isinstance(loaded, Mapping)
        or not loaded
        or not all(isinstance(v, Tensor) for v in loaded.values())
    ):
        raise DataError(
            path,
            f"holds no state dict (names and tensors, also under {' or '.join(NESTS)})",
            "give a file of weights",
        )
    return {str(name).removeprefix("module."): value for name, value in loaded.items()}
