"""Prepared cases, kept in memory or as memory-mapped files.

An entry on disk is named by a hash of everything that decides its content, so
an entry can be missing but never stale. It is complete or absent: written
beside its place and moved there whole. One that does not verify is made anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

import finemask
from finemask.case import Case
from finemask.geometry import Geometry
from finemask.io.files import digests
from finemask.preparation import prepare
from finemask.recipe import PrepareSettings

ARRAYS = ("image", "truth", "soft", "readers")


class PreparedCases(Sequence[Case]):
    """A sequence of prepared cases, each read and prepared when first asked for.

    Args:
        names: Cases in order.
        read: Reads a case by name.
        settings: How the cases are prepared.
        cache_dir: Folder of the entries; ``None`` keeps the cases in memory.
        fingerprint: Hash of everything that ``read`` depends on, by name (see
            `fingerprint_files`), which saves reading a case that is cached.
            Without it the case is read and its content hashed.

    Example:
        >>> case = Case("a", np.array([[[0.0, 2.0]]], np.float32), Geometry.regular((1, 2)))
        >>> PreparedCases(["a"], {"a": case}.__getitem__, PrepareSettings())[0].image.tolist()
        [[[-1.0, 1.0]]]
    """

    def __init__(
        self,
        names: Iterable[str],
        read: Callable[[str], Case],
        settings: PrepareSettings,
        *,
        cache_dir: Path | None = None,
        fingerprint: Callable[[str], str] | None = None,
    ) -> None:
        self.names = tuple(names)
        self._read, self._settings = read, settings
        self._cache_dir, self._fingerprint = cache_dir, fingerprint
        self._ready: dict[str, Case] = {}

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Case: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Case]: ...
    def __getitem__(self, index: int | slice) -> Case | Sequence[Case]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        name = self.names[index]
        if name not in self._ready:
            self._ready[name] = _guarded(self._prepared(name))
        return self._ready[name]

    def _prepared(self, name: str) -> Case:
        if self._cache_dir is None:
            return prepare(self._read(name), self._settings)
        case = None if self._fingerprint else self._read(name)
        content = fingerprint_case(case) if case else self._fingerprint(name)  # type: ignore[misc]  # one is set
        entry = self._cache_dir / entry_key(name, content, self._settings)
        if entry.exists():
            try:
                return load_entry(entry)
            except Exception as error:  # a broken file can fail in any way
                warnings.warn(
                    f"cache entry {entry} of case {name} cannot be used ({error}); made anew",
                    stacklevel=3,
                )
                shutil.rmtree(entry, ignore_errors=True)
        prepared = prepare(case or self._read(name), self._settings)
        try:
            save_entry(entry, prepared)
            return load_entry(entry)
        except OSError as error:
            warnings.warn(
                f"case {name} cannot be cached in {self._cache_dir} ({error}); kept in memory",
                stacklevel=3,
            )
            return prepared


def fingerprint_files(paths: Iterable[Path], *details: Any) -> str:
    """Hash of the content of files (folders: of all files in them) and of further details.

    Args:
        paths: Their content counts, and so do their suffixes; not where they lie.
        details: Whatever else decides how they are read, such as a spacing
            given by a manifest or the names of labels; each by its ``repr``.
    """
    digest = hashlib.sha256()
    for path in paths:
        files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
        for file in files:
            digest.update(f"{''.join(file.suffixes)}:{digests(file).stored};".encode())
        digest.update(b"|")
    digest.update(repr(details).encode())
    return digest.hexdigest()


def fingerprint_case(case: Case) -> str:
    """Hash of every array of a case and of its geometry."""
    digest = hashlib.sha256(repr((case.geometry, case.group)).encode())
    for field in ARRAYS:
        array = getattr(case, field)
        if array is not None:
            digest.update(f"{field}{array.shape}{array.dtype.str}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def entry_key(name: str, content: str, settings: PrepareSettings) -> str:
    """Folder name of an entry: a hash of case, content, settings and finemask's version."""
    parts = [name, content, dataclasses.asdict(settings), finemask.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def save_entry(entry: Path, case: Case) -> None:
    """Write a case as ``.npy`` files and ``case.json``, whole or not at all."""
    entry.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=entry.parent))
    try:
        checksums = {}
        for field in ARRAYS:
            array = getattr(case, field)
            if array is None:
                continue
            array = np.ascontiguousarray(array)
            checksums[field] = _checksum(array)
            with open(draft / f"{field}.npy", "wb") as file:
                np.save(file, array, allow_pickle=False)
                _flush(file)
        with open(draft / "case.json", "w", encoding="utf-8") as file:
            json.dump(_description(case, checksums), file)
            _flush(file)
        try:
            os.replace(draft, entry)
        except OSError:
            # Another process finished the same entry first; the two are equal.
            if not entry.exists():
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def load_entry(entry: Path) -> Case:
    """Map a cached case into memory, read only, after verifying its content.

    Raises:
        OSError: When a file is missing or cannot be read.
        ValueError: When a file is damaged.
    """
    about = json.loads((entry / "case.json").read_text(encoding="utf-8"))
    arrays = {}
    for field, checksum in about["checksums"].items():
        array = np.load(entry / f"{field}.npy", mmap_mode="r", allow_pickle=False)
        if _checksum(array) != checksum:
            raise ValueError(f"{field}.npy is damaged")
        arrays[field] = array
    geometry = about["geometry"]
    return Case(
        name=about["name"],
        group=about["group"],
        source=None if about["source"] is None else Path(about["source"]),
        geometry=Geometry(
            shape=tuple(geometry["shape"]),
            spacing=tuple(geometry["spacing"]),
            origin=tuple(geometry["origin"]),
            direction=tuple(tuple(row) for row in geometry["direction"]),
            unit=geometry["unit"],
        ),
        **arrays,
    )


def _description(case: Case, checksums: dict[str, int]) -> dict[str, Any]:
    return {
        "name": case.name,
        "group": case.group,
        "source": None if case.source is None else str(case.source),
        "geometry": dataclasses.asdict(case.geometry),
        "checksums": checksums,
    }


def _checksum(array: NDArray[Any]) -> int:
    return zlib.crc32(array.data)


def _flush(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _guarded(case: Case) -> Case:
    """The case with arrays that refuse to be written, without touching anybody else's arrays."""

    def locked(array: NDArray[Any] | None) -> NDArray[Any] | None:
        if array is not None:
            array = array.view()
            array.flags.writeable = False
        return array

    arrays: dict[str, Any] = {field: locked(getattr(case, field)) for field in ARRAYS}
    return dataclasses.replace(case, **arrays)
