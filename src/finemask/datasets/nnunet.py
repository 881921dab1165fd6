"""Layout: nnU-Net raw, ``imagesTr/CASE_0000.ext``, ``labelsTr/CASE.ext`` and ``dataset.json``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from finemask.datasets.dataset import Entry, Part
from finemask.datasets.listing import (
    Listing,
    few,
    inside,
    parse_labels,
    read_groups,
    read_json,
)
from finemask.errors import DataError

CHANNEL_SUFFIX = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


@dataclass(frozen=True)
class _Form:
    """What dataset.json says about the files."""

    channels: int
    ending: str


def list_nnunet(root: Path) -> Listing:
    """List an nnU-Net raw folder; labelled ``imagesTs`` become the declared test part.

    Images without any ``_0000`` suffix, as the Medical Segmentation Decathlon
    ships them, are read with all their channels in one file.
    """
    listing = Listing(root, "nnunet")
    description = root / "dataset.json"
    if not description.is_file():
        raise DataError(
            root,
            "is in nnU-Net's layout but has no dataset.json",
            "add it: labels and channels cannot be guessed",
        )
    declared = read_json(description)
    listing.labels = parse_labels(description, declared.get("labels"))
    names = declared.get("channel_names", declared.get("modality"))
    if not isinstance(names, dict) or not names:
        raise DataError(description, "has no channel_names", 'write {"channel_names": {"0": "CT"}}')
    ending = declared.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataError(description, f"has file_ending {ending!r}", 'write for example ".nii.gz"')
    form = _Form(len(names), ending)
    groups = read_groups(root, listing)

    training = _list_part(root, "Tr", form, listing)
    testing = _list_part(root, "Ts", form, listing)
    scored = any(mask for _, mask in testing.values())
    for part, cases in (("train", training), ("test", testing)):
        for name, (images, mask) in cases.items():
            split: Part | None = part if scored else None  # type: ignore[assignment]  # literals
            listing.entries.append(
                Entry(name, images, mask, group=groups.get(name, ""), split=split)
            )
    if both := sorted(set(training) & set(testing)):
        listing.refuse(root / "imagesTs", f"repeats cases of imagesTr: {few(both)}", "rename them")
    return listing


def _list_part(
    root: Path, part: str, form: _Form, listing: Listing
) -> dict[str, tuple[tuple[Path, ...], Path | None]]:
    """Images by channel, and mask, of each case of one part."""
    folder, labels = root / f"images{part}", root / f"labels{part}"
    if not folder.is_dir():
        return {}
    stems = _with_ending(folder, form.ending, listing)
    masks = _with_ending(labels, form.ending, listing) if labels.is_dir() else {}
    channels: dict[str, dict[int, Path]] = {}
    suffixed = {stem: CHANNEL_SUFFIX.fullmatch(stem) for stem in stems}
    if stems and not any(suffixed.values()):
        listing.notes.append(f"{folder.name}/ has no _0000 suffixes: a file holds all channels")
        channels = {stem: {0: path} for stem, path in stems.items()}
        expected = 1
    else:
        expected = form.channels
        for stem, match in suffixed.items():
            if match is None:
                listing.refuse(stems[stem], "has no channel suffix", "name it CASE_0000")
            else:
                channels.setdefault(match["case"], {})[int(match["channel"])] = stems[stem]
    for name, files in list(channels.items()):
        if missing := sorted(set(range(expected)) - set(files)):
            listing.refuse(
                folder,
                f"case {name} lacks channel {few(f'_{c:04d}' for c in missing)}",
                "add the file or correct channel_names",
            )
            del channels[name]
        elif extra := sorted(set(files) - set(range(expected))):
            listing.refuse(
                folder,
                f"case {name} has channel {few(f'_{c:04d}' for c in extra)}, "
                f"dataset.json names {expected}",
                "remove the file or name the channel",
            )
            del channels[name]
    if lone := sorted(set(masks) - set(channels)):
        listing.refuse(labels, f"has masks without an image: {few(lone)}", "add or remove files")
    if masks and (bare := sorted(set(channels) - set(masks))):
        listing.notes.append(f"{labels.name}/ lacks {len(bare)} cases: {few(bare)}")
    return {
        name: (tuple(files[c] for c in range(expected)), masks.get(name))
        for name, files in channels.items()
    }


def _with_ending(folder: Path, ending: str, listing: Listing) -> dict[str, Path]:
    found, ignored = {}, []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if not path.name.endswith(ending):
            ignored.append(path.name)
        elif not inside(listing.root, path):
            listing.refuse(path, "is a link that leaves the data set", "copy the file into it")
        else:
            found[path.name.removesuffix(ending)] = path
    if ignored:
        listing.notes.append(f"{folder.name}/: not {ending} and ignored: {few(ignored)}")
    return found
