"""What a run starts from: here, an encoder's public weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finemask.datasets import make_phantoms
from finemask.errors import DataError, UsageError
from finemask.nn.encoders import make_encoder
from finemask.nn.encoders.released import public_names
from finemask.runs import load_run
from finemask.training.checkpoint import load_checkpoint
from finemask.training.loop import train

QUICK = (
    *("train.validate_every=1", "batch_size=2", "crop=32x32", "warmup_steps=0"),
    *("config.width=4", "config.encoder=resnet18", "config.encoder_width=4"),
)
FROZEN = (*QUICK, "learning_rate=0", "steps=1")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms") / "data"
    return make_phantoms(folder, kind="ultrasound", cases=5, seed=1, size=(64, 64))


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A file like those of torchvision and timm, small."""
    torch.manual_seed(7)
    encoder = make_encoder("resnet18", 3, width=4)
    names = public_names(encoder)
    path = tmp_path / "resnet18.safetensors"
    save_file({names[key]: value for key, value in encoder.state_dict().items()}, path)
    return path


def encoder_of(run: Path) -> dict[str, Tensor]:
    """The weights of the encoder, its running statistics left out."""
    weights = load_file(run / "checkpoints/last/model.safetensors")
    inside = {k.removeprefix("encoder.encoder."): v for k, v in weights.items()}
    return {k: v for k, v in inside.items() if k.startswith("stages") and "conv" in k}


def test_the_encoder_starts_from_the_file(data: Path, public: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", settings=FROZEN, encoder_weights=public)
    encoder = make_encoder("resnet18", 1, width=4)
    given, names = load_file(public), public_names(encoder)
    assert all(torch.equal(v, given[names[k]]) for k, v in encoder_of(run.path).items())
    digest = hashlib.sha256(public.read_bytes()).hexdigest()
    assert run.meta["equipment"]["encoder"] == f"{public} (sha256 {digest})"


def test_the_recipe_repeats_the_run_from_any_folder(
    data: Path, public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(public.parent)
    first = train(data, tmp_path / "a", settings=[*QUICK, "steps=2"], encoder_weights=public.name)
    assert first.recipe.train.encoder_weights == str(public)
    monkeypatch.chdir("/")
    second = train(data, tmp_path / "b", recipe=first.path / "recipe.toml")
    assert first.recipe == second.recipe
    there = encoder_of(second.path)
    assert all(torch.equal(value, there[key]) for key, value in encoder_of(first.path).items())


def test_the_file_is_read_at_the_start_only(data: Path, public: Path, tmp_path: Path) -> None:
    run = train(data, tmp_path / "run", settings=FROZEN, encoder_weights=public)
    public.unlink()
    load_run(run.path)
    resumed = train(data, run.path, settings=["steps=2"], resume=True)
    last = load_checkpoint(run.path / "checkpoints" / "last")
    assert last.step == 2
    assert last.meta["equipment"] == run.meta["equipment"] == resumed.meta["equipment"]
    with pytest.raises(UsageError, match="keeps its recipe"):
        train(data, run.path, encoder_weights=public, resume=True)


@pytest.mark.parametrize("settings", [["config.encoder=plain"], ["config.encoder=resnet34"]])
def test_a_file_that_does_not_suit_leaves_nothing(
    data: Path, public: Path, tmp_path: Path, settings: list[str]
) -> None:
    wanted = "plain" in settings[0]
    with pytest.raises(UsageError if wanted else DataError) as caught:
        train(data, tmp_path / "run", settings=[*QUICK, *settings], encoder_weights=public)
    assert ("has no encoder with public weights" if wanted else "does not fit") in str(caught.value)
    assert caught.value.exit_code == (2 if wanted else 3)
    assert not (tmp_path / "run").exists()
