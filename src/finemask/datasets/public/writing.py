"""A draft on disk: linked or copied images, clean masks, a manifest and named splits."""

from __future__ import annotations

import csv
import io
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from finemask.datasets.public.records import Computed, Draft, Item, Source
from finemask.datasets.split import PARTS, Split
from finemask.errors import DataError
from finemask.io.files import atomic_write, check_name, sha256, write_json, write_text
from finemask.io.formats import suffix
from finemask.io.images import write_image
from finemask.io.labels import write_labels
from finemask.io.metaimage import detached


class Writer:
    """Writes items below a folder.

    Args:
        out: The folder.
        labels: Name and number of each class.
        copy: Copy files instead of linking them.
    """

    def __init__(self, out: Path, labels: Mapping[str, int], copy: bool) -> None:
        self.out, self.labels, self.copy = out, labels, copy

    def write(self, item: Item) -> list[dict[str, Any]]:
        """Write the files of a case; masks come last.

        Returns:
            For each file its path, and what verifies it later.

        Raises:
            DataError: When a file cannot be read or written.
        """
        check_name(item.name)
        written = []
        for role, source in roles(item):
            target = self.out / folder_of(role) / file_name(item, source)
            paths = self._compute(source, target, role) if isinstance(source, Computed) else (
                self._bring(source, target)
            )  # fmt: skip
            written += [self._told(path, isinstance(source, Computed)) for path in paths]
        return written

    def _compute(self, source: Computed, target: Path, role: str) -> list[Path]:
        array, geometry = source.make()
        if role.startswith("image"):
            write_image(target, array, geometry, overwrite=True)
        else:
            write_labels(target, np.asarray(array), geometry, labels=self.labels, overwrite=True)
        return [target]

    def _bring(self, source: Path, target: Path) -> list[Path]:
        """Link or copy a file with those that belong to it, or the files of a series."""
        files: dict[Path, Path]
        if source.is_dir():
            files = {p: target / p.name for p in sorted(source.iterdir()) if p.is_file()}
        else:
            files = {source: target}
            if (data := sibling_of(source)) is not None:
                files = {data: target.with_name(data.name), **files}
        for origin, place in files.items():
            self._bring_file(origin, place)
        return list(files.values())

    def _bring_file(self, origin: Path, place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True)
        if not self.copy:
            with suppress(OSError):  # another file system, or one without links
                place.unlink(missing_ok=True)
                os.link(origin.resolve(), place)
                return
        with atomic_write(place, overwrite=True) as temporary:
            shutil.copyfile(origin, temporary)

    def _told(self, path: Path, computed: bool) -> dict[str, Any]:
        told: dict[str, Any] = {"path": path.relative_to(self.out).as_posix()}
        # Images that were linked are those of the download; hashing them would take hours.
        return told | ({"sha256": sha256(path)} if computed else {"bytes": path.stat().st_size})


def sibling_of(source: Path) -> Path | None:
    """The data file that belongs to a header (MHD), if there is one."""
    return detached(source) if suffix(source) == ".mhd" else None


def roles(item: Item) -> list[tuple[str, Source]]:
    """What each source is, under the names of the manifest's columns."""
    images = [("image" if k == 1 else f"image_{k}", s) for k, s in enumerate(item.images, 1)]
    readers = [(f"rater_{k}", source) for k, source in enumerate(item.readers, 1)]
    masks = [("mask", item.mask)] if item.mask is not None else []
    return [*images, *readers, *masks]


def folder_of(role: str) -> str:
    """Folder of a role in the new data set."""
    if role.startswith("rater"):
        return f"masks_reader{role.rpartition('_')[2]}"
    return {"image": "images", "mask": "masks"}.get(role, role.replace("image", "images"))


def files_of(item: Item) -> dict[str, str]:
    """Path of every file of a case in the new data set, by its role."""
    return {role: f"{folder_of(role)}/{file_name(item, source)}" for role, source in roles(item)}


def file_name(item: Item, source: Source) -> str:
    """Name of a file in the new data set."""
    if isinstance(source, Computed):
        return f"{item.name}{source.ending}"
    if source.is_dir():
        return item.name
    if sibling_of(source) is not None:
        return source.name  # its data file is named inside
    return f"{item.name}{suffix(source) or source.suffix}"


def is_whole(out: Path, line: Mapping[str, Any]) -> bool:
    """Whether every file that a line of the journal tells of is there and unchanged."""
    for told in line["outputs"]:
        path = out / told["path"]
        try:
            same = (
                sha256(path) == told["sha256"]
                if "sha256" in told
                else path.stat().st_size == told["bytes"]
            )
        except OSError:
            return False
        if not same:
            return False
    return True


def write_tables(out: Path, draft: Draft, done: Sequence[Item], about: Mapping[str, Any]) -> None:
    """Write what makes a data set of the files: labels, splits, tables, and last the manifest."""
    write_json(out / "dataset.json", dict(about), overwrite=True)
    kept = {item.name for item in done}
    for name, split in draft.splits.items():
        _restricted(split, kept).save(out / "splits" / f"{name}.json", overwrite=True)
    for name, text in draft.tables.items():
        write_text(out / name, text, overwrite=True)
    write_text(out / "manifest.csv", _manifest(done), overwrite=True)


def _restricted(split: Split, kept: set[str]) -> Split:
    """A split without the cases that could not be written."""
    train, val, test = (tuple(n for n in split.part(p) if n in kept) for p in PARTS)
    lost = sum(len(split.part(p)) for p in PARTS) - len(train) - len(val) - len(test)
    note = (f"{lost} cases of it could not be written",) if lost else ()
    return replace(split, train=train, val=val, test=test, notes=(*split.notes, *note))


def _manifest(items: Sequence[Item]) -> str:
    rows = [_row(item) for item in items]
    used = {column for row in rows for column in row if row[column]}
    order = {column: None for row in rows for column in row}
    columns = [column for column in order if column in used]
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def _row(item: Item) -> dict[str, str]:
    files = files_of(item)
    images = {role: path for role, path in files.items() if role.startswith("image")}
    readers = {role: path for role, path in files.items() if role.startswith("rater")}
    diameter = "" if item.diameter_mm is None else f"{item.diameter_mm:.4g}"
    return {
        "case": item.name,
        **images,
        "mask": files.get("mask", ""),
        **readers,
        "group": item.group,
        "split": item.split or "",
        "spacing_mm": "x".join(f"{s:.6g}" for s in item.spacing_mm),
        "diameter_mm": diameter,
    }


def check_items(draft: Draft, root: Path) -> None:
    """Refuse a draft whose cases would overwrite each other.

    Raises:
        DataError: When two cases share a name.
    """
    seen = dict[str, str]()
    for item in draft.items:
        if (twin := seen.get(item.name.casefold())) is not None:
            raise DataError(
                root, f"has two cases {item.name} (and {twin})", "remove or rename one of them"
            )
        seen[item.name.casefold()] = item.name
    if not draft.items:
        raise DataError(root, "holds no case", "point to the folder of the official download")
