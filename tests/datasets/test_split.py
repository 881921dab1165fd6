from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finemask.datasets import Split, find_split, load_dataset, make_phantoms, make_split
from finemask.datasets.split import _draw, hash_place, part_sizes
from finemask.errors import DataError, UsageError
from finemask.io import DataWarning, write_json

SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}


def parts_of(split: Split) -> dict[str, str]:
    return {name: p for p in ("train", "val", "test") for name in getattr(split, p)}


@given(
    places=st.lists(st.floats(0, 1, exclude_max=True), max_size=300).map(sorted),
    shares=st.sampled_from([(0.7, 0.15, 0.15), (0.5, 0.5), (0.2,) * 5, (0.8, 0.2, 0.0), (1.0,)]),
)
def test_parts_are_complete_filled_and_near_their_share(
    places: list[float], shares: tuple[float, ...]
) -> None:
    sizes = part_sizes(places, shares)
    n = len(places)
    assert sum(sizes) == n
    assert min(sizes) >= 0
    assert all(size == 0 for size, share in zip(sizes, shares, strict=True) if share == 0)
    filled = sum(size > 0 for size in sizes)
    assert filled == min(n, sum(share > 0 for share in shares))
    for size, share in zip(sizes, shares, strict=True):
        assert abs(size - n * share) <= n * share / 4 + 1


@given(st.sets(st.text("abcdefgh", min_size=1, max_size=6), min_size=2, max_size=60), st.data())
def test_a_new_patient_never_moves_another_between_train_and_test(
    names: set[str], data: st.DataObject
) -> None:
    new = data.draw(st.sampled_from(sorted(names)))
    after = _draw({name: name for name in names}, SHARES, "0")
    before = _draw({name: name for name in names - {new}}, SHARES, "0")
    moved = [name for name in before if before[name] != after[name]]
    assert len(moved) <= 2
    if len(names) > 8:
        assert not any({before[name], after[name]} == {"train", "test"} for name in moved)


def test_in_a_large_set_a_new_patient_moves_nobody() -> None:
    names = {f"p{i}": f"p{i}" for i in range(2000)}
    before = _draw(names, SHARES, "0")
    after = _draw(names | {"new": "new"}, SHARES, "0")
    assert {name: after[name] for name in before} == before


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert hash_place("0:patient") == pytest.approx(0.509939, abs=1e-6)


@pytest.mark.fault("F72")
def test_a_patient_stays_in_one_part_and_the_seed_matters(tree: Any) -> None:
    names = [f"c{i:02d}" for i in range(24)]
    tree.folder(*names)
    rows = "".join(f"{name},p{i // 3}\n" for i, name in enumerate(names))
    tree.text("groups.csv", "case,group\n" + rows)
    dataset = load_dataset(tree.root)
    splits = [make_split(dataset, seed=seed) for seed in range(4)]
    for split in splits:
        part_of = parts_of(split)
        assert set(part_of) == set(names)
        for i in range(0, 24, 3):
            assert len({part_of[name] for name in names[i : i + 3]}) == 1
        split.verify(dataset)
    assert len({split.test for split in splits}) > 1
    assert make_split(dataset, seed=2) == splits[2]


@pytest.mark.parametrize(
    ("count", "filled"), [(1, "train"), (2, "train val"), (3, "train val test")]
)
def test_few_cases_fill_train_first(tree: Any, count: int, filled: str) -> None:
    split = make_split(load_dataset(tree.folder(*"abc"[:count])))
    assert {p for p in ("train", "val", "test") if getattr(split, p)} == set(filled.split())


@pytest.mark.fault("F73")
def test_copies_of_an_image_are_kept_together(tree: Any) -> None:
    names = [f"c{i}" for i in range(10)]
    tree.folder(*names)
    copy = tree.root / "images" / "c7.bmp"
    from finemask.io import read_image, write_image

    write_image(copy, *read_image(tree.root / "images" / "c0.png"))  # other bytes, same pixels
    (tree.root / "images" / "c7.png").unlink()
    dataset = load_dataset(tree.root)
    for seed in range(8):
        split = make_split(dataset, seed=seed)
        assert parts_of(split)["c0"] == parts_of(split)["c7"]
        assert any("c0, c7" in note for note in split.notes)


@pytest.mark.fault("F73")
def test_a_repacked_volume_is_a_copy(tree: Any) -> None:
    tree.folder(*"abcdef", suffix=".nii.gz")
    packed = tree.root / "images" / "a.nii.gz"
    with gzip.open(packed) as file:
        content = file.read()
    (tree.root / "images" / "f.nii.gz").write_bytes(gzip.compress(content, 1, mtime=1))
    assert packed.read_bytes() != (tree.root / "images" / "f.nii.gz").read_bytes()
    for seed in range(8):
        part_of = parts_of(make_split(load_dataset(tree.root), seed=seed))
        assert part_of["a"] == part_of["f"]


def test_a_declared_split_wins_and_lacks_only_val(tree: Any) -> None:
    rows = {f"c{i}": {"split": "test" if i < 3 else "train"} for i in range(10)}
    split = make_split(load_dataset(tree.manifest(rows)))
    assert (split.method, split.test) == ("declared", ("c0", "c1", "c2"))
    assert len(split.val) in (1, 2)
    rows["c3"] = {"split": "val"}
    split = make_split(load_dataset(tree.manifest(rows)))
    assert split.val == ("c3",)


@pytest.mark.fault("F72", "F73")
def test_a_declared_split_may_not_tear_a_patient_or_an_image(tree: Any) -> None:
    rows = {
        "a": {"split": "train", "group": "p1"},
        "b": {"split": "test", "group": "p1"},
        "c": {"split": "val", "group": "p2"},
    }
    tree.manifest(rows)
    with pytest.raises(DataError, match=r"one patient into several parts: a \(train\), b \(test\)"):
        make_split(load_dataset(tree.root))
    rows["b"]["group"] = "p3"
    tree.manifest(rows)
    make_split(load_dataset(tree.root))
    shutil.copy(tree.root / "images" / "a.png", tree.root / "images" / "c.png")
    with pytest.raises(DataError, match=r"one image into several parts: a \(train\), c \(val\)"):
        make_split(load_dataset(tree.root))


def test_folds_test_every_case_once(tree: Any) -> None:
    names = [f"c{i}" for i in range(13)]
    dataset = load_dataset(tree.folder(*names))
    folds = [make_split(dataset, fold=(k, 5)) for k in range(1, 6)]
    assert sorted(name for fold in folds for name in fold.test) == sorted(names)
    for fold in folds:
        assert set(parts_of(fold)) == set(names)
        assert fold.train
        assert fold.val


def test_folds_leave_a_declared_test_part_alone(tree: Any) -> None:
    rows = {f"c{i}": {"split": "test" if i < 3 else "train"} for i in range(12)}
    dataset = load_dataset(tree.manifest(rows))
    folds = [make_split(dataset, fold=(k, 3)) for k in (1, 2, 3)]
    assert {fold.test for fold in folds} == {("c0", "c1", "c2")}
    held_out = [name for fold in folds for name in fold.val]
    assert sorted(held_out) == sorted(set(rows) - {"c0", "c1", "c2"})


def test_impossible_requests_are_refused(tree: Any) -> None:
    dataset = load_dataset(tree.folder("a", "b"))
    with pytest.raises(UsageError, match="needs 3 patients, there are 2"):
        make_split(dataset, fold=(1, 3))
    with pytest.raises(UsageError, match="is 0/5"):
        make_split(dataset, fold=(0, 5))
    with pytest.raises(UsageError, match="add up to 1"):
        make_split(dataset, fractions=(0.7, 0.2, 0.2))


def test_unlabelled_cases_are_in_no_part(tree: Any) -> None:
    tree.folder(*"abcd")
    (tree.root / "masks" / "c.png").unlink()
    assert "c" not in parts_of(make_split(load_dataset(tree.root)))
    shutil.rmtree(tree.root / "masks")
    with pytest.raises(DataError, match="no labelled case"):
        make_split(load_dataset(tree.root))


def test_a_split_survives_its_file(tree: Any, tmp_path: Path) -> None:
    dataset = load_dataset(tree.folder(*"abcdefgh"))
    split = make_split(dataset, seed=3, fold=(2, 4))
    split.save(tmp_path / "splits.json")
    assert Split.load(tmp_path / "splits.json") == split
    assert split.fingerprint == dataset.fingerprint()
    with pytest.raises(DataError, match="exists already"):
        split.save(tmp_path / "splits.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "no JSON object"),
        ('{"train": []}', "names no cases"),
        ('{"train": ["a"], "test": ["a"]}', "names cases twice: a"),
        ('{"train": "a"}', "train is no list"),
        ('{"train": ["a"], "seed": "x"}', "seed"),
        ('{"train": ["a"], "fold": [1]}', "fold"),
    ],
)
def test_a_damaged_split_file_is_named(tree: Any, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"s\.json: .*{message}"):
        Split.load(tree.text("s.json", text))


def test_a_foreign_split_is_verified(tree: Any) -> None:
    tree.folder("a", "b")
    tree.text("groups.csv", "case,group\na,p\nb,p\n")
    dataset = load_dataset(tree.root)
    with pytest.raises(DataError, match="lacks cases of the split: z"):
        Split(("a",), ("z",), ()).verify(dataset)
    with pytest.raises(DataError, match="one patient into several parts"):
        Split(("a",), ("b",), ()).verify(dataset)


def named_split(root: Path, name: str, **parts: Any) -> None:
    write_json(root / "splits" / f"{name}.json", {"train": [], "val": [], "test": [], **parts})


def test_a_split_of_the_data_set_is_found_by_its_name(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", cases=4, size=48)
    cases = [entry.name for entry in load_dataset(root).entries]
    named_split(root, "paper", train=cases[:3], test=cases[3:])
    found = find_split(load_dataset(root), "paper")
    assert (list(found.train), found.val, list(found.test)) == (cases[:3], (), cases[3:])
    assert found.fingerprint == load_dataset(root).fingerprint()
    assert not [note for note in load_dataset(root).notes if "splits" in note]
    with pytest.raises(UsageError, match=r"nor a split of the data set \(paper\)"):
        find_split(load_dataset(root), "papre")


def test_a_declared_leak_is_warned_of_and_an_undeclared_one_refused(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", cases=3, size=48)
    cases = [entry.name for entry in load_dataset(root).entries]
    lines = ["case,group", *(f"{case},one patient" for case in cases)]
    (root / "groups.csv").write_text("\n".join(lines))
    parts = {"train": cases[:2], "test": cases[2:]}
    named_split(root, "hidden", **parts)
    named_split(root, "told", **parts, leak="nodules of one patient are in several parts")
    with pytest.raises(DataError, match="one patient into several parts"):
        find_split(load_dataset(root), "hidden")
    with pytest.warns(DataWarning, match="the split leaks: nodules of one patient"):
        split = find_split(load_dataset(root), "told")
    split.save(tmp_path / "splits.json")
    assert Split.load(tmp_path / "splits.json") == split


def test_a_validation_part_is_drawn_by_patient_where_a_split_has_none(tmp_path: Path) -> None:
    root = make_phantoms(tmp_path / "set", cases=9, size=48)
    cases = [entry.name for entry in load_dataset(root).entries]
    lines = ["case,group", *(f"{case},p{i // 2}" for i, case in enumerate(cases))]
    (root / "groups.csv").write_text("\n".join(lines))
    dataset = load_dataset(root)
    named_split(root, "paper", train=cases[:8], test=cases[8:])
    split = find_split(dataset, "paper").with_validation(dataset)
    assert split.val
    assert sorted(split.train + split.val) == cases[:8]
    split.verify(dataset)
    assert split.with_validation(dataset) is split
    assert "drawn from train" in split.notes[-1]
