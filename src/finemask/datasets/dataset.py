"""What a data set is: a list of cases on disk, and how one of them is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np

from finemask.case import Case
from finemask.datasets.content import file_hash
from finemask.errors import UsageError
from finemask.pseudonyms import Pseudonyms

Part = Literal["train", "val", "test"]
LayoutName = Literal["folder", "nnunet", "manifest"]


@dataclass(frozen=True)
class Entry:
    """Where the files of one case lie, and what is declared about it.

    Args:
        name: Case identifier, unique in the data set.
        images: One file or DICOM folder, or one a channel.
        mask: Label map; ``None`` for a case to predict only.
        readers: One label map a reader.
        reader_names: What the layout calls these readers; empty when it does not say.
        soft: Soft Mask in [0, 1].
        image_lr: The same anatomy truly acquired at low resolution.
        group: The patient; the case's own name where nobody says otherwise.
        split: Declared part.
        spacing_mm: Declared voxel spacing, slowest array axis first; empty trusts the file.
        diameter_mm: Declared lesion diameter.
    """

    name: str
    images: tuple[Path, ...]
    mask: Path | None = None
    readers: tuple[Path, ...] = ()
    reader_names: tuple[str, ...] = ()
    soft: Path | None = None
    image_lr: Path | None = None
    group: str = ""
    split: Part | None = None
    spacing_mm: tuple[float, ...] = ()
    diameter_mm: float | None = None

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.name)

    def pseudonymised(self, names: Pseudonyms, root: Path) -> Entry:
        """The same files under pseudonyms of the case and its patient."""
        alias = names(self.name)
        names.remember_files(self.images, root, alias)
        for path in self.files[len(self.images) :]:
            names.remember_files([path], root, alias)
        return replace(self, name=alias, group=names(self.group))

    @property
    def labelled(self) -> bool:
        """Whether anybody said where the lesion is."""
        return bool(self.mask or self.readers or self.soft)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the case, images first."""
        others = (self.mask, *self.readers, self.soft, self.image_lr)
        return (*self.images, *(path for path in others if path is not None))


@dataclass(frozen=True)
class Dataset:
    """Cases on disk with one dimension, one number of channels and one set of labels.

    Args:
        root: The folder or manifest, as the user gave it.
        layout: Which of the layouts it is in.
        entries: The cases, by name.
        labels: Value *in the files* of each foreground class, ascending: class ``k``
            of ``Case.truth`` is the ``k``-th of them. Empty when no case is labelled.
        dims: 2 for pictures, 3 for volumes.
        channels: Image channels.
        notes: What was assumed or ignored on loading, a sentence each.
        aliases: Names that the cases had before they got pseudonyms.
    """

    root: Path
    layout: LayoutName
    entries: tuple[Entry, ...]
    labels: Mapping[str, int]
    dims: int
    channels: int
    notes: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict, repr=False)

    def pseudonymised(self, names: Pseudonyms) -> Dataset:
        """The same cases and patients under pseudonyms, with ``aliases`` from the names before."""
        return replace(
            self,
            entries=tuple(entry.pseudonymised(names, self.root) for entry in self.entries),
            notes=tuple(map(names.hide, self.notes)),
            aliases={entry.name: names(entry.name) for entry in self.entries},
        )

    def __len__(self) -> int:
        return len(self.entries)

    def entry(self, name: str) -> Entry:
        """The case of that name.

        Raises:
            UsageError: When there is none.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise UsageError(self.root, f"has no case {name}", "correct the name")

    def read(self, entry: Entry) -> Case:
        """Read one case whole: image, truth, soft mask and readers on one grid.

        A grey picture among colour ones becomes colour with equal channels.

        Raises:
            DataError: When a file is damaged, or does not lie on the image's grid.
        """
        from finemask.io import read_case

        case = read_case(
            entry.images if len(entry.images) > 1 else entry.images[0],
            name=entry.name,
            truth=entry.mask,
            readers=entry.readers,
            soft=entry.soft,
            group=entry.group,
            spacing_mm=entry.spacing_mm or None,
            labels=self.labels or None,
        )
        return self._in_colour(case)

    def read_lr(self, entry: Entry) -> Case | None:
        """The case's own low-resolution image, if it has one; it carries no truth."""
        from finemask.io import read_case

        if entry.image_lr is None:
            return None
        case = read_case(entry.image_lr, name=entry.name, group=entry.group)
        return self._in_colour(case)

    def _in_colour(self, case: Case) -> Case:
        if case.image.shape[0] == 1 and self.channels == 3 and self.dims == 2:
            return replace(case, image=np.repeat(case.image, 3, axis=0))
        return case

    def fingerprint(self) -> str:
        """SHA-256 over the names, groups, labels and file contents of all cases.

        It stays when the folder is moved, and changes with any byte of any file.
        """
        digest = sha256(repr(sorted(self.labels.items())).encode())
        for entry in sorted(self.entries, key=lambda e: e.name):
            digest.update(repr((entry.name, entry.group, entry.split, entry.spacing_mm)).encode())
            for role in ("images", "mask", "readers", "soft", "image_lr"):
                value = getattr(entry, role)
                paths = value if isinstance(value, tuple) else (value,) if value else ()
                # A split compares the content of volumes, which costs one reading with this.
                unpack = role == "images" and self.dims == 3
                hashes = [file_hash(path, unpack=unpack) for path in paths]
                digest.update(repr((role, hashes)).encode())
        return digest.hexdigest()
