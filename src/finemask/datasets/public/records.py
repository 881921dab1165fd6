"""What the reader of a public data set hands over: cases that are linked or computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from finemask.datasets.dataset import Part
from finemask.datasets.public.layout import Raw
from finemask.datasets.split import Split
from finemask.geometry import Geometry

Picture = tuple[NDArray[Any], Geometry]
"""Image ``(C, *S)`` or ``(*S)``, or class numbers ``(*S)``, with its grid."""


@dataclass(frozen=True)
class Computed:
    """A file that is made from others.

    Args:
        make: Computes it when its case is written.
        inputs: What it reads; a change of these makes it again.
        ending: Suffix of the file.
    """

    make: Callable[[], Picture]
    inputs: tuple[Path, ...]
    ending: str = ".png"


Source = Path | Computed
"""A file or DICOM folder that is linked byte for byte, or one that is computed."""


@dataclass(frozen=True)
class Item:
    """One case of the new data set.

    Args:
        name: Case name.
        images: One source, or one a channel.
        mask: Class numbers, 0 is the background; ``None`` where nobody marked anything.
        readers: One source a reader who was asked.
        group: The patient; the case's own name where the set does not tell patients.
        split: Part in the set's own division.
        spacing_mm: Pixel size along rows and columns, of pictures that are cut from volumes.
        diameter_mm: Diameter of the lesion, where it is told.
        about: Whatever else decides the result, for ``--resume``.
    """

    name: str
    images: tuple[Source, ...]
    mask: Source | None = None
    readers: tuple[Source, ...] = ()
    group: str = ""
    split: Part | None = None
    spacing_mm: tuple[float, ...] = ()
    diameter_mm: float | None = None
    about: tuple[Any, ...] = ()

    @property
    def sources(self) -> tuple[Source, ...]:
        """Everything that is written, images first."""
        masks = (self.mask,) if self.mask is not None else ()
        return (*self.images, *masks, *self.readers)


@dataclass(frozen=True)
class Draft:
    """A data set that is to be written.

    Args:
        items: Its cases.
        labels: Name and number of each foreground class, from 1.
        splits: Named divisions, written to ``splits/``.
        tables: Further text files by name, such as ``recist.csv``.
        notes: What was assumed or left out.
    """

    items: tuple[Item, ...]
    labels: Mapping[str, int]
    splits: Mapping[str, Split] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PublicSet:
    """A public data set and the one function that reads its official layout.

    Args:
        title: Its name.
        task: What is segmented.
        modality: How it was imaged.
        dims: 2 or 3, of what is written.
        classes: Foreground classes.
        readers: How many people marked each case, and whether their masks are kept.
        terms: Terms of use, as far as known; the owner's page decides.
        home: Where to get it, in words.
        layout: What the folder RAW must hold.
        splits: Named splits, and what each is.
        variants: Forms that a paper uses, besides ``original``.
        read: From the raw folder to what is written.
        default: The variant that is taken if none is named.
    """

    title: str
    task: str
    modality: str
    dims: int
    classes: Sequence[str]
    readers: str
    terms: str
    home: str
    layout: str
    read: Callable[[Raw], Draft]
    splits: Mapping[str, str] = field(default_factory=dict)
    variants: Mapping[str, str] = field(default_factory=dict)
    default: str = "original"
