"""Names of patients replaced by keyed hashes: the same everywhere, and guessed by nobody."""

from __future__ import annotations

import hmac
import os
import sys
from pathlib import Path

import pytest

from finemask.errors import UsageError
from finemask.io.notices import DataWarning
from finemask.pseudonyms import Pseudonyms

KEY = b"sixteen bytes of"


def test_a_pseudonym_is_a_keyed_hash() -> None:
    names = Pseudonyms(KEY)
    assert names("doe") == "id-" + hmac.new(KEY, b"doe", "sha256").hexdigest()[:16]
    assert names("doe") == Pseudonyms(KEY)("doe") != Pseudonyms(KEY + b"f")("doe")
    assert names(names("doe")) == names("doe")
    assert names("Doe") != names("doe")


def test_a_key_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    with pytest.warns(DataWarning, match="is a new key"):
        first = Pseudonyms.load(tmp_path / "key")
    assert len((tmp_path / "key").read_text().strip()) == 64
    assert os.name != "posix" or (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert Pseudonyms.load(tmp_path / "key")("doe") == first("doe")


def test_keys_that_protect_nobody_are_refused(tmp_path: Path) -> None:
    (tmp_path / "short").write_text("secret\n")
    with pytest.raises(UsageError, match="6 bytes"):
        Pseudonyms.load(tmp_path / "short")
    (tmp_path / "out").mkdir()
    for inside in (tmp_path / "out" / "key", tmp_path / "out" / ".." / "out" / "key"):
        with pytest.raises(UsageError, match="may be shared"):
            Pseudonyms.load(inside, apart_from=[tmp_path / "out"])
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(UsageError, match="cannot be read or made"):
        Pseudonyms.load(tmp_path / "none" / "key")


def test_texts_are_told_with_pseudonyms(tmp_path: Path) -> None:
    names = Pseudonyms(KEY)
    doe, bee = names("doe"), names("doe_bee")
    names.remember_files([tmp_path / "ward" / "X.Doe.nii.gz"], tmp_path, doe)
    series = [tmp_path / "jane" / f"jane_{k}.dcm" for k in (1, 2)]
    names.remember_files(series, tmp_path, bee)
    told = names.hide(
        f"{tmp_path}/ward/X.Doe.nii.gz: and ward/X.Doe.nii.gz, of doe; not doer; {series[1]}; "
        "jane/jane_1.dcm; in jane: doe_bee_1"
    )
    assert told == (
        f"{doe}.nii.gz: and {doe}.nii.gz, of {doe}; not doer; {bee}/2.dcm; "
        f"{bee}/1.dcm; in {bee}: {bee}_1"
    )


def test_numbers_too_short_to_be_anybodys_stay() -> None:
    names = Pseudonyms(KEY)
    one, patient = names("12"), names("1234567")
    assert names.hide("12 done, 1234567 failed") == f"12 done, {patient} failed"
    assert one != "12"


def test_what_is_printed_is_hidden_and_the_terminal_given_back(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names, before = Pseudonyms(KEY), sys.stderr
    with names.on_terminal():
        alias = names("doe")
        print("error: /data/doe.png: is empty", file=sys.stderr)
        assert sys.stderr.isatty() == before.isatty()
    assert sys.stderr is before
    assert capsys.readouterr().err == f"error: /data/{alias}.png: is empty\n"


def test_the_mapping_grows_and_is_its_owners(tmp_path: Path) -> None:
    for name in ("doe", "bee"):
        names = Pseudonyms(KEY)
        names(name)
        names.write_mapping(tmp_path / "m.csv")
    names = Pseudonyms(KEY)
    rows = sorted(f"{names(n)},{n}" for n in ("doe", "bee"))
    assert (tmp_path / "m.csv").read_text().splitlines() == ["pseudonym,name", *rows]
    assert os.name != "posix" or (tmp_path / "m.csv").stat().st_mode & 0o777 == 0o600
