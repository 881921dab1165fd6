"""Damaged files of every format: one line or the same volume, never a traceback, a hang or a lie.

In the suite a few damages of each file, the same every time. A longer search,
with other seeds, is this file called by hand:

    FINEMASK_FUZZ_MINUTES=5 python -m pytest tests/faults/test_fuzzing.py

What cannot be known: where no checksum covers a byte (plain NIfTI, MetaImage,
NRRD, BMP, TIFF and DICOM values, every text header, JPEG and JPEG 2000 streams
that still decode), a changed value reads as another value. There the promise is
the shape that the header states, and no more.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from builders import samples

from finemask.errors import FinemaskError
from finemask.io import is_image, read_header, read_image, read_labels, read_probs

MINUTES = float(os.environ.get("FINEMASK_FUZZ_MINUTES", "0"))
DAMAGES = 30
SECONDS = 10


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail instead of hanging."""

    def ring(*_: object) -> None:
        pytest.fail(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def outcome(path: Path, name: str) -> tuple[np.ndarray, object] | None:
    """What is read, or nothing where the file is refused in one line that names it."""
    read = read_image
    if "seg" in name:
        read = read_labels if name.startswith("binary") else read_probs
    assert is_image(path) or path.suffix == ".dcm"  # which never stops the listing of a folder
    try:
        header = read_header(path)
        array, geometry = read(path)
    except FinemaskError as error:
        refusal = error
    else:
        refusal = None
    if refusal is not None:
        assert refusal.subject.startswith(str(path)), refusal
        assert "\n" not in str(refusal)
        assert len(str(refusal)) < 1000
        return None
    assert array.shape[-geometry.ndim :] == geometry.shape == header.shape
    assert np.isfinite(array).all()
    return array, geometry


def seeds() -> Iterator[int]:
    """The same few numbers in the suite; others, until the time is over, on request."""
    yield from range(DAMAGES)
    number, end = time.time_ns() % 10**9, time.monotonic() + 60 * MINUTES / len(samples.SAMPLES)
    while time.monotonic() < end:
        number += 1
        yield number


@pytest.mark.parametrize("name", samples.SAMPLES)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.fault("F14", "F15", "F17", "F18", "F46", "F48")
def test_damage_is_told_or_harmless(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINEMASK_MAX_VOXELS", "2000000")
    samples.without_pydicom_log()
    path = samples.make(tmp_path, name)
    truth = outcome(path, name)
    assert truth is not None, "the sample itself must be sound"
    files = {file: file.read_bytes() for file in samples.files_of(path)}
    count = 0
    for seed in seeds():
        count += 1
        rng = np.random.default_rng([seed, len(name)])
        file = sorted(files)[int(rng.integers(0, len(files)))]
        file.write_bytes(samples.damaged(files[file], rng))
        with within(SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = outcome(path, name)
            except Exception as error:
                kept = Path(os.environ.get("FINEMASK_FUZZ_KEEP", tmp_path)) / f"{seed}-{file.name}"
                kept.write_bytes(file.read_bytes())
                pytest.fail(f"seed {seed}, {kept}: {type(error).__name__}: {error}")
        file.write_bytes(files[file])
        if found is None:
            continue
        if name in samples.WHOLLY_CHECKED:
            assert found[1] == truth[1], f"seed {seed}: another grid"
            np.testing.assert_array_equal(found[0], truth[0], err_msg=f"seed {seed}")
        elif name in samples.VALUES_CHECKED and found[0].shape == truth[0].shape:
            assert_same_or_retyped(found[0], truth[0], seed)
    if MINUTES:
        print(f"{name}: {count:,} damages")


def assert_same_or_retyped(found: np.ndarray, truth: np.ndarray, seed: int) -> None:
    """Equal values, unless the text header now names another type or byte order."""
    retyped = [
        truth.astype(np.int16).view(kind).astype(np.float32)
        for kind in (">i2", "<u2", ">u2")
    ]  # fmt: skip
    assert any(np.array_equal(found, values) for values in (truth, *retyped)), f"seed {seed}"
