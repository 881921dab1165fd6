"""What a user names on the command line becomes a list of images to work on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finemask.case import Case
from finemask.datasets.dataset import Entry
from finemask.datasets.load import list_cases
from finemask.errors import DataError, FinemaskError, UsageError
from finemask.io import check_name, read_case, stem


@dataclass(frozen=True)
class Source:
    """One image of the user, not read yet.

    Args:
        name: Case identifier, the stem of what is written.
        path: What an error message names.
        files: Everything that is read, for checksums.
        read: Reads the image whole.
        read_lr: Reads the data set's own LR image of the case, if it has one.
    """

    name: str
    path: Path
    files: tuple[Path, ...]
    read: Callable[[], Case]
    read_lr: Callable[[], Case | None] = lambda: None


def find_sources(inputs: Iterable[str | Path]) -> tuple[Source, ...]:
    """Expand files, folders, data sets and DICOM series into images, in a stable order.

    An input that is missing or damaged becomes a source whose ``read`` raises,
    so that it is counted and reported beside the others.

    Raises:
        UsageError: When two images would have one name.
    """
    sources = [source for path in inputs for source in _expand(Path(path))]
    folded = Counter(source.name.casefold() for source in sources)
    for source in sources:
        if folded[source.name.casefold()] > 1:
            twins = [s.path for s in sources if s.name.casefold() == source.name.casefold()]
            raise UsageError(
                twins[1],
                f"would be written under the same name as {twins[0]} ({source.name})",
                "rename one, or predict them into different folders",
            )
    return tuple(sources)


def _expand(path: Path) -> list[Source]:
    try:
        if path.is_file() and path.suffix.lower() != ".csv":
            return [_of_image(path)]
        listing = list_cases(path)
    except FinemaskError as error:
        return [_broken(path, error)]
    sources = [_of_entry(entry) for entry in listing.entries]
    # What is wrong with a folder as a whole (a mask without an image, say) spoils no image.
    sources += [_broken(Path(p.subject), p) for p in listing.problems if not _is_folder(p.subject)]
    if not sources:
        fix = "give an image, a folder of images, a data set or a DICOM series"
        return [_broken(path, DataError(path, "holds no image", fix))]
    return sources


def _is_folder(subject: str) -> bool:
    return Path(subject).is_dir()


def _of_entry(entry: Entry) -> Source:
    """A case of a data set; only its image is read, so nothing else can spoil it."""
    try:
        check_name(entry.name)
    except FinemaskError as error:
        return _broken(entry.images[0], error, entry.name)

    def read(images: tuple[Path, ...]) -> Case:
        return read_case(
            images if len(images) > 1 else images[0],
            name=entry.name,
            spacing_mm=entry.spacing_mm or None,
        )

    return Source(
        name=entry.name,
        path=entry.images[0],
        files=_files(entry.images),
        read=lambda: read(entry.images),
        read_lr=lambda: read_case(entry.image_lr, name=entry.name) if entry.image_lr else None,
    )


def _of_image(path: Path) -> Source:
    name = stem(path)
    try:
        check_name(name)
    except FinemaskError as error:
        return _broken(path, error, name)
    return Source(name, path, _files((path,)), partial(read_case, path, name=name))


def _broken(path: Path, error: FinemaskError, name: str | None = None) -> Source:
    def fail() -> Case:
        raise error

    files = _files((path,)) if path.exists() and name else ()
    return Source(name or str(path), path, files, fail)


def _files(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Every file behind some images; a DICOM series is all files of its folder."""
    return tuple(
        file
        for path in paths
        for file in (sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path])
    )
