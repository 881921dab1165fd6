"""Layout: ``images/`` and ``masks/`` with the same stems, or images alone.

Optional beside them: ``masks_<reader>/``, ``soft/``, ``images_lr/``, named ``splits/``,
``groups.csv`` (``case,group``) and a ``dataset.json`` with ``labels`` and ``groups``.
"""

from __future__ import annotations

from pathlib import Path

from finemask.datasets.dataset import Entry
from finemask.datasets.listing import (
    Listing,
    declared_labels,
    few,
    inside,
    read_groups,
    read_table,
)
from finemask.errors import DataError

OWN_TABLES = ("groups.csv", "recist.csv")
"""Tables of finemask beside images/; the marks in ``recist.csv`` are for ``soften``."""
PATIENT_COLUMNS = ("group", "patient", "patient_id", "patientid", "subject", "subject_id")
PAYLOADS = (".raw", ".zraw", ".raw.gz")
"""Files that belong to a header beside them (MHD, NHDR)."""


def list_folder(root: Path) -> Listing:
    """List a folder with ``images/``."""
    listing = Listing(root, "folder")
    images = _by_stem(root / "images", listing)
    others = {
        name: _by_stem(root / name, listing)
        for name in ("masks", "soft", "images_lr")
        if (root / name).is_dir()
    }
    readers = {
        folder.name: _by_stem(folder, listing)
        for folder in sorted(root.glob("masks_*"))
        if folder.is_dir()
    }
    for name, files in (others | readers).items():
        _compare_stems(root, name, images, files, listing)
    listing.labels = declared_labels(root)
    groups = read_groups(root, listing)
    if strangers := sorted(set(groups) - set(images)):
        listing.notes.append(f"groups are given for unknown cases: {few(strangers)}")
    for name, image in images.items():
        listing.entries.append(
            Entry(
                name=name,
                images=(image,),
                mask=others.get("masks", {}).get(name),
                readers=tuple(files[name] for files in readers.values() if name in files),
                reader_names=tuple(
                    folder.removeprefix("masks_")
                    for folder, files in readers.items()
                    if name in files
                ),
                soft=others.get("soft", {}).get(name),
                image_lr=others.get("images_lr", {}).get(name),
                group=groups.get(name, ""),
            )
        )
    if not readers and not others.keys() & {"masks", "soft"}:
        listing.notes.append("no masks: they are looked for in masks/ and masks_<reader>/")
    known = {"images", "splits", *others, *readers}
    if strange := [f.name for f in sorted(root.iterdir()) if f.is_dir() and f.name not in known]:
        listing.notes.append(f"folders of other names are ignored: {few(strange)}")
    for table in sorted(root.glob("*.csv")):
        if table.name not in OWN_TABLES:
            listing.notes.append(_on_foreign_table(table, bool(groups)))
    return listing


def _on_foreign_table(table: Path, grouped: bool) -> str:
    """What is said of a CSV that is not ours; a column of patients is worth a hint."""
    note = f"{table.name} is not finemask's manifest and is ignored"
    try:
        columns = read_table(table)[0]
    except DataError:
        return note
    patients = [column for column in columns if column.lower() in PATIENT_COLUMNS]
    if patients and not grouped:
        note += f"; write its column {patients[0]} as groups.csv (case,group) to split by patient"
    return note


def list_images(root: Path) -> Listing:
    """List a folder of images without masks, for prediction: files, DICOM series or one series."""
    from finemask.io import is_image

    listing = Listing(root, "folder")
    if is_image(root):
        listing.entries.append(Entry(name=root.resolve().name, images=(root,)))
        return listing
    images = _by_stem(root, listing)
    listing.entries = [Entry(name=name, images=(path,)) for name, path in images.items()]
    return listing


def _by_stem(folder: Path, listing: Listing) -> dict[str, Path]:
    """Images of a folder by case name; two files of one name are a problem."""
    from finemask.io import is_image, stem

    found: dict[str, Path] = {}
    seen: dict[str, Path] = {}
    ignored = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not is_image(path):
            if not path.name.lower().endswith(PAYLOADS):
                ignored.append(path.name + ("/" if path.is_dir() else ""))
            continue
        name = stem(path)
        if not inside(listing.root, path):
            listing.refuse(path, "is a link that leaves the data set", "copy the file into it")
        elif (twin := seen.get(name.casefold())) is not None:
            listing.refuse(
                path, f"has the same case name as {twin.name}", "remove or rename one of them"
            )
        else:
            found[name] = seen[name.casefold()] = path
    if ignored and found:
        listing.notes.append(f"{folder.name}/: not an image and ignored: {few(ignored)}")
    return found


def _compare_stems(
    root: Path, name: str, images: dict[str, Path], files: dict[str, Path], listing: Listing
) -> None:
    """A mask needs its image; an image without a mask can still be predicted."""
    if lone := sorted(set(files) - set(images)):
        without = sorted(set(images) - set(files))
        hint = f"; images without one: {few(without)}" if without else ""
        listing.problems.append(
            DataError(
                root / name,
                f"has {len(lone)} files without an image of that name: {few(lone)}{hint}",
                "give image and mask the same name",
            )
        )
    elif files and (missing := sorted(set(images) - set(files))):
        listing.notes.append(f"{name}/ lacks {len(missing)} of {len(images)} cases: {few(missing)}")
