"""What a run starts from: here, an encoder's public weights."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finemask.datasets import make_phantoms
from finemask.errors import DataError, FinemaskError, UsageError
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import public_names
from finemask.runs import Run, load_run
from finemask.training.checkpoint import load_checkpoint
from finemask.training.loop import train

SETTINGS = (
    *("steps=1", "learning_rate=0", "warmup_steps=0", "batch_size=2", "crop=32x32"),
    *("config.width=4", "config.encoder=resnet18", "config.encoder_width=4"),
)
"""A run that leaves the encoder as it started."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    return make_phantoms(folder, kind="ultrasound", cases=5, seed=1, size=(64, 64))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like those of torchvision and timm, small."""
    torch.manual_seed(7)
    encoder = make_encoder("resnet18", 3, width=4)
    names = public_names(encoder)
    path = tmp_path_factory.mktemp("public") / "resnet18.safetensors"
    save_file({names[key]: value for key, value in encoder.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def run(data: Path, public: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained in the folder of the file, which is given by its bare name."""
    with pytest.MonkeyPatch.context() as here:
        here.chdir(public.parent)
        out = tmp_path_factory.mktemp("runs") / "run"
        return train(data, out, settings=SETTINGS, encoder_weights=public.name)


def encoder_of(run: Run) -> dict[str, Tensor]:
    """The weights of the encoder's stages, running statistics left out, by public name."""
    weights = load_file(run.path / "checkpoints/last/model.safetensors")
    encoder = run.method.public_encoder()
    return {
        name: weights[f"encoder.encoder.{key}"]
        for key, name in public_names(encoder).items()
        if name.startswith("layer") and "conv" in name
    }


def test_the_encoder_starts_from_the_file(run: Run, public: Path) -> None:
    given, found = load_file(public), encoder_of(run)
    assert found
    assert all(torch.equal(value, given[name]) for name, value in found.items())
    digest = hashlib.sha256(public.read_bytes()).hexdigest()
    assert run.meta["equipment"]["encoder"] == f"{public} (sha256 {digest})"


def test_the_recipe_repeats_the_run_from_any_folder(
    data: Path, run: Run, public: Path, tmp_path: Path
) -> None:
    assert run.recipe.train.encoder_weights == str(public)
    again = train(data, tmp_path / "again", recipe=run.path / "recipe.toml")
    assert again.recipe == run.recipe
    there = encoder_of(again)
    assert all(torch.equal(value, there[name]) for name, value in encoder_of(run).items())


def test_the_file_is_read_at_the_start_only(
    data: Path, run: Run, public: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(run.path, tmp_path / "run")
    hidden = public.rename(public.with_suffix(".hidden"))
    try:
        load_run(folder)
        train(data, folder, settings=["steps=2"], resume=True)
    finally:
        hidden.rename(public)
    last = load_checkpoint(folder / "checkpoints" / "last")
    assert last.step == 2
    assert last.meta["equipment"] == run.meta["equipment"]
    with pytest.raises(UsageError, match="keeps its recipe"):
        train(data, folder, encoder_weights=public, resume=True)


@pytest.mark.parametrize(
    ("encoder", "error", "said", "code"),
    [
        ("plain", UsageError, "unet as configured has no encoder with public weights", 2),
        ("resnet34", DataError, "does not fit the encoder", 3),
    ],
)
def test_a_file_that_does_not_suit_leaves_nothing(
    data: Path,
    public: Path,
    tmp_path: Path,
    encoder: str,
    error: type[FinemaskError],
    said: str,
    code: int,
) -> None:
    settings = [*SETTINGS, f"config.encoder={encoder}"]
    with pytest.raises(error, match=said) as caught:
        train(data, tmp_path / "run", settings=settings, encoder_weights=public)
    assert caught.value.exit_code == code
    assert not (tmp_path / "run").exists()
