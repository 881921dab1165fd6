"""The cache: never stale, never half, and never in the way."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import finemask
from finemask.case import Case
from finemask.geometry import Geometry
from finemask.pairs import cache
from finemask.pairs.cache import PreparedCases, fingerprint_case, fingerprint_files
from finemask.preparation import prepare
from finemask.recipe import PrepareSettings

SETTINGS = PrepareSettings()
GRID = Geometry.regular((4, 6, 5), (3.0, 1.0, 1.0), (1.0, 2.0, 3.0)).flipped(1)


def make_case(name: str = "a", seed: int = 0, labels: bool = True) -> Case:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, GRID.shape).astype(np.uint8)
    return Case(
        name=name,
        image=rng.normal(size=(2, *GRID.shape)).astype(np.float32),
        geometry=GRID,
        truth=truth if labels else None,
        soft=rng.random((1, *GRID.shape), np.float32) if labels else None,
        readers=np.stack([truth, truth]) if labels else None,
        group="patient 1",
        source=Path("raw/a.nii.gz"),
    )


class Reader:
    """Reads from memory and counts how often."""

    def __init__(self, *cases: Case) -> None:
        self.cases, self.calls = {case.name: case for case in cases}, 0

    def __call__(self, name: str) -> Case:
        self.calls += 1
        return self.cases[name]


def assert_same(one: Case, two: Case) -> None:
    assert (one.name, one.group, one.source) == (two.name, two.group, two.source)
    assert one.geometry == two.geometry
    for field in cache.ARRAYS:
        expected = getattr(two, field)
        if expected is None:
            assert getattr(one, field) is None
        else:
            np.testing.assert_array_equal(getattr(one, field), expected)
            assert getattr(one, field).dtype == expected.dtype


@pytest.mark.parametrize("labels", [True, False])
@pytest.mark.parametrize("on_disk", [True, False])
def test_cases_come_back_as_they_were_prepared(tmp_path: Path, labels: bool, on_disk: bool) -> None:
    case = make_case(labels=labels)
    for _ in range(2):
        cases = PreparedCases(
            ["a"], Reader(case), SETTINGS, cache_dir=tmp_path / "c" if on_disk else None
        )
        assert_same(cases[0], prepare(case, SETTINGS))


@pytest.mark.parametrize("on_disk", [True, False])
def test_kept_cases_refuse_to_be_written(tmp_path: Path, on_disk: bool) -> None:
    case = make_case()
    raw = replace(SETTINGS, orient=False, normalise="none")
    kept = PreparedCases(["a"], Reader(case), raw, cache_dir=tmp_path if on_disk else None)[0]
    for array in (kept.image, kept.truth, kept.soft, kept.readers):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    case.image[0, 0, 0, 0] = 1  # the reader's own array is still its own


def test_memory_and_fingerprint_spare_the_reader(tmp_path: Path) -> None:
    reader = Reader(make_case("a"), make_case("b", seed=1))
    cases = PreparedCases(["b", "a"], reader, SETTINGS)
    assert [case.name for case in cases] == ["b", "a"]
    assert [case.name for case in cases[0:2]] == ["b", "a"]
    assert (len(cases), reader.calls) == (2, 2)
    for _ in range(2):
        PreparedCases(
            ["a"], reader, SETTINGS, cache_dir=tmp_path, fingerprint=lambda name: f"v1 {name}"
        )[0]
    assert reader.calls == 3


CHANGES: dict[str, Callable[[Case], Case]] = {
    "a voxel": lambda c: replace(c, image=np.where(np.arange(5) == 3, c.image + 1e-6, c.image)),
    "a label": lambda c: replace(c, truth=np.where(np.arange(5) == 3, 0, c.truth)),
    "a reader": lambda c: replace(c, readers=c.readers[:1]),
    "the spacing": lambda c: replace(c, geometry=replace(GRID, spacing=(3.0, 1.0, 1.1))),
    "the origin": lambda c: replace(c, geometry=replace(GRID, origin=(0.0, 0.0, 0.0))),
    "the patient": lambda c: replace(c, group="patient 2"),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.fault("F71")
def test_changed_content_under_the_same_name_is_never_stale(tmp_path: Path, what: str) -> None:
    before = make_case()
    after = CHANGES[what](before)
    for case in (before, after, before):
        found = PreparedCases(["a"], Reader(case), SETTINGS, cache_dir=tmp_path)[0]
        assert_same(found, prepare(case, SETTINGS))


def test_settings_version_and_name_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def entries() -> int:
        return len(list(tmp_path.iterdir()))

    def use(name: str, settings: PrepareSettings) -> None:
        found = PreparedCases([name], Reader(make_case(name)), settings, cache_dir=tmp_path)[0]
        assert_same(found, prepare(make_case(name), settings))

    use("a", SETTINGS)
    use("a", SETTINGS)
    assert entries() == 1
    use("a", replace(SETTINGS, normalise="minmax"))
    use("b", SETTINGS)
    assert entries() == 3
    monkeypatch.setattr(finemask, "__version__", "99")
    use("a", SETTINGS)
    assert entries() == 4


def damage_bytes(entry: Path) -> None:
    raw = bytearray((entry / "image.npy").read_bytes())
    raw[-5] ^= 1
    (entry / "image.npy").write_bytes(raw)


def cut_short(entry: Path) -> None:
    os.truncate(entry / "truth.npy", 150)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped bit": damage_bytes,
    "cut short": cut_short,
    "empty file": lambda e: os.truncate(e / "image.npy", 0),
    "missing file": lambda e: (e / "soft.npy").unlink(),
    "no description": lambda e: (e / "case.json").unlink(),
    "empty description": lambda e: (e / "case.json").write_text(""),
    "other description": lambda e: (e / "case.json").write_text('{"name": "a"}'),
    "list": lambda e: (e / "case.json").write_text("[]"),
    "pickle": lambda e: np.save(e / "image.npy", np.array([{}], object), allow_pickle=True),
}


@pytest.mark.parametrize("what", DAMAGES)
@pytest.mark.fault("F69")
def test_a_damaged_entry_is_made_anew_with_a_warning(tmp_path: Path, what: str) -> None:
    case, reader = make_case(), Reader(make_case())
    PreparedCases(["a"], reader, SETTINGS, cache_dir=tmp_path)[0]
    (entry,) = tmp_path.iterdir()
    DAMAGES[what](entry)
    with pytest.warns(UserWarning, match=r"case a cannot be used .* made anew"):
        found = PreparedCases(["a"], reader, SETTINGS, cache_dir=tmp_path)[0]
    assert_same(found, prepare(case, SETTINGS))
    assert_same(
        PreparedCases(["a"], reader, SETTINGS, cache_dir=tmp_path)[0], prepare(case, SETTINGS)
    )


@pytest.mark.fault("F69")
def test_an_abort_while_writing_leaves_no_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = np.save, []

    def stop(*arguments: object, **options: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(*arguments, **options)

    monkeypatch.setattr(np, "save", stop)
    with pytest.raises(KeyboardInterrupt):
        PreparedCases(["a"], Reader(make_case()), SETTINGS, cache_dir=tmp_path)[0]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_falls_back_to_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    case = make_case()
    with pytest.warns(UserWarning, match=r"cannot be cached .*No space left.* kept in memory"):
        found = PreparedCases(["a"], Reader(case), SETTINGS, cache_dir=tmp_path)[0]
    assert_same(found, prepare(case, SETTINGS))
    assert not list(tmp_path.iterdir())


def test_two_writers_of_one_entry_agree(tmp_path: Path) -> None:
    case = prepare(make_case())
    for _ in range(2):
        cache.save_entry(tmp_path / "entry", case)
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]
    assert_same(cache.load_entry(tmp_path / "entry"), case)


def test_file_fingerprints_see_content_order_and_details(tmp_path: Path) -> None:
    one, two, series = tmp_path / "x.nii.gz", tmp_path / "y.nii.gz", tmp_path / "series"
    series.mkdir()
    for path, text in ((one, "1"), (two, "2"), (series / "1.dcm", "3"), (series / "2.dcm", "4")):
        path.write_text(text)
    seen = {
        fingerprint_files([one, two]),
        fingerprint_files([two, one]),
        fingerprint_files([one]),
        fingerprint_files([one], (1.0, 1.0)),
        fingerprint_files([one], (1.0, 2.0)),
        fingerprint_files([series]),
    }
    (series / "2.dcm").write_text("5")
    seen.add(fingerprint_files([series]))
    one.write_text("9")
    seen.add(fingerprint_files([one]))
    assert len(seen) == 8
    copy = tmp_path / "copy.nii.gz"
    copy.write_text("9")
    assert fingerprint_files([copy]) == fingerprint_files([one])


def test_case_fingerprints_tell_arrays_apart() -> None:
    case = make_case()
    moved = replace(case, soft=None, readers=None)
    assert fingerprint_case(case) == fingerprint_case(make_case())
    assert fingerprint_case(case) != fingerprint_case(moved)
