"""What a start of training reads: every byte of a volume once, a picture once more to decode it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from finemask.datasets import Dataset, load_dataset, make_split
from finemask.pairs.cache import fingerprint_files

_opened: list[str] | None = None


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and _opened is not None and isinstance(arguments[0], str):
        _opened.append(arguments[0])


sys.addaudithook(_listen)


@contextmanager
def opens_below(root: Path) -> Iterator[Counter[str]]:
    """Counts how often each file below a folder is opened inside the block."""
    global _opened
    _opened, counts = [], Counter[str]()
    try:
        yield counts
    finally:
        found, _opened = _opened, None
        counts.update(Path(f).name for f in found if str(root) in f)


def start(dataset: Dataset) -> None:
    """What training does before the first case is prepared."""
    dataset.fingerprint()
    make_split(dataset)
    for entry in dataset.entries:
        fingerprint_files(entry.files, entry.group)


@pytest.mark.parametrize(("suffix", "image_opens"), [(".nii.gz", 1), (".png", 2)])
def test_a_start_hashes_every_file_once(tree, suffix: str, image_opens: int) -> None:
    dataset = load_dataset(tree.folder(*"abcdef", suffix=suffix))
    with opens_below(tree.root) as counts:
        start(dataset)
    images = [entry.images[0].name for entry in dataset.entries]
    # A mask has its image's name and is hashed once; a picture is opened again for its pixels.
    assert {name: counts[name] - 1 for name in images} == dict.fromkeys(images, image_opens)
    with opens_below(tree.root) as counts:
        start(dataset)
    assert not counts


def test_a_changed_file_is_another_data_set(tree) -> None:
    dataset = load_dataset(tree.folder("a", "b", suffix=".nii.gz"))
    before = dataset.fingerprint()
    tree.image("images/a.nii.gz", seed=99)
    assert dataset.fingerprint() != before
