"""Weights from files of other people: tensors only, and nothing in them is run."""

from __future__ import annotations

import pickle
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from finemask.errors import DataError

SAFE_TORCH = (2, 10)
MOST_MEMBERS, LARGEST_PICKLE = 100_000, 64 * 2**20
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
    except zipfile.BadZipFile as error:
        raise DataError(path, "is a damaged archive", "copy or download it again") from error
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
    """What ``torch.save`` wrote, as tensors and plain values of PyTorch's own list of types.

    Its reader is trusted from version 2.10 on: before, a made-up file could damage memory in
    spite of ``weights_only``.
    """
    if tuple(int(n) for n in torch.__version__.split(".")[:2]) < SAFE_TORCH:
        raise DataError(
            path,
            f"is a file of torch.save, which PyTorch {torch.__version__} does not read safely",
            "use PyTorch 2.10 or later, or save it as .safetensors",
        )
    if zipfile.is_zipfile(path):
        _check_members(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the file's pickle protocol
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_members(path: Path) -> None:
    """Look at each member of an archive before any is read; none is unpacked to disk, ever.

    Raises:
        DataError: On a name that leads outside or comes twice, a link, packed bytes (PyTorch
            packs nothing, so a small file cannot become a large one) or an endless list.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename for member in members]
    odd = [
        member.filename
        for member in members
        if member.compress_type != zipfile.ZIP_STORED
        or member.filename.startswith(("/", "\\"))
        or ".." in re.split(r"[/\\]", member.filename)
        or stat.S_ISLNK(member.external_attr >> 16)
        or (member.filename.endswith(".pkl") and member.file_size > LARGEST_PICKLE)
    ]
    total = sum(member.file_size for member in members)
    if (
        odd
        or len(set(names)) < len(names)
        or len(names) > MOST_MEMBERS
        or (total > path.stat().st_size)
    ):
        told = f" (such as {odd[0]!r})" if odd else ""
        raise DataError(
            path,
            f"is an archive with members that torch.save does not make{told}",
            "save its state dict alone, best as .safetensors",
        )


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
