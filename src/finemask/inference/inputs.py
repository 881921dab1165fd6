"""What a user names on the command line becomes a list of images to work on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from finemask.case import Case
from finemask.datasets.dataset import Entry
from finemask.datasets.load import list_cases
from finemask.datasets.split import Split
from finemask.errors import DataError, FinemaskError, UsageError
from finemask.io import Header, check_name, read_case, read_header, stem
from finemask.io.outputs import error_within, path_within
from finemask.pseudonyms import Pseudonyms


@dataclass(frozen=True)
class Source:
    """One image of the user, not read yet.

    Args:
        name: Case identifier, the stem of what is written.
        path: What an error message names.
        root: Folder that the user named it in; shared files tell paths below it.
        files: Everything that is read, for checksums.
        read: Reads the image whole.
        header: Reads what the file says of its size, if that is known before reading.
        read_lr: Reads the data set's own LR image of the case, if it has one.
        spacing_mm: Declared voxel spacing, which overrides the file's; empty for none.
        sound: Whether it has a name to write files under; else ``read`` raises.
        hide: Makes a text one that shared files may hold.
    """

    name: str
    path: Path
    root: Path
    files: tuple[Path, ...]
    read: Callable[[], Case]
    header: Callable[[], Header | None] = lambda: None
    read_lr: Callable[[], Case | None] = lambda: None
    spacing_mm: tuple[float, ...] = ()
    sound: bool = True
    hide: Callable[[str], str] = str

    def pseudonymised(self, names: Pseudonyms) -> Source:
        """The same image under a pseudonym, in whatever is written."""
        alias, read, read_lr = names(self.name), self.read, self.read_lr
        names.remember_files(self.files or (self.path,), self.root, alias)
        names.remember_files([self.path], self.root, alias)

        def read_lr_named() -> Case | None:
            case = read_lr()
            return None if case is None else replace(case, name=alias, group=alias)

        return replace(
            self,
            name=alias,
            read=lambda: replace(read(), name=alias, group=alias),
            read_lr=read_lr_named,
            hide=names.hide,
        )

    def told(self, error: FinemaskError) -> tuple[str, str]:
        """File and line of an error as a shared file may tell them."""
        file, line = path_within(self.root, self.path), error_within(self.root, error)
        return self.hide(file), self.hide(line)


def find_sources(
    inputs: Iterable[str | Path], pseudonyms: Pseudonyms | None = None
) -> tuple[Source, ...]:
    """Expand files, folders, data sets and DICOM series into images, in a stable order.

    An input that is missing or damaged becomes a source whose ``read`` raises,
    so that it is counted and reported beside the others.

    Raises:
        UsageError: When two images would have one name, or an input is what finemask wrote.
    """
    sources = [source for path in inputs for source in _expand(Path(path))]
    folded = Counter(source.name.casefold() for source in sources if source.sound)
    for source in sources:
        if source.sound and folded[source.name.casefold()] > 1:
            name = source.name.casefold()
            twins = [s.path for s in sources if s.sound and s.name.casefold() == name]
            raise UsageError(
                twins[1],
                f"would be written under the same name as {twins[0]} ({source.name})",
                "rename one, or predict them into different folders",
            )
    found = _told_apart(sources)
    return tuple(s.pseudonymised(pseudonyms) for s in found) if pseudonyms else found


def _told_apart(sources: Iterable[Source]) -> tuple[Source, ...]:
    """The same sources, those that only fail under names that no other has."""
    sources = list(sources)
    taken = {source.name.casefold() for source in sources if source.sound}
    for i, source in enumerate(sources):
        if source.sound:
            continue
        name, number = source.name, 1
        while name.casefold() in taken:
            number += 1
            name = f"{source.name} ({number})"
        taken.add(name.casefold())
        sources[i] = replace(source, name=name)
    return tuple(sources)


def _expand(path: Path) -> list[Source]:
    root = path if path.is_dir() else path.parent
    _refuse_own_output(path)
    try:
        if path.is_file() and path.suffix.lower() != ".csv":
            return [_of_image(path)]
        listing = list_cases(path)
    except FinemaskError as error:
        return [_broken(path, root, error)]
    sources = [_of_entry(entry, root) for entry in listing.entries]
    # What is wrong with a folder as a whole (a mask without an image, say) spoils no image.
    problems = [p for p in listing.problems if not _is_folder(p.subject)]
    sources += [_broken(Path(p.subject), root, p) for p in problems]
    if not sources:
        fix = "give an image, a folder of images, a data set or a DICOM series"
        return [_broken(path, root, DataError(path, "holds no image", fix))]
    return sources


def _refuse_own_output(folder: Path) -> None:
    """The pictures in a folder that finemask wrote are curves, examples and masks: no input."""
    found = None
    if (folder / "recipe.toml").is_file() and (folder / "checkpoints").is_dir():
        found = "is a run, which holds no image to predict"
    elif (folder / "summary.json").is_file() and (folder / "cases.csv").is_file():
        found = "is what finemask evaluate wrote, which holds no image to predict"
    elif _is_prediction(folder):
        found = "is what finemask predict wrote: masks, and no images"
    if found:
        raise UsageError(folder, found, "give an image, a folder of images or a data set")


def _is_prediction(folder: Path) -> bool:
    """Whether a manifest, or the journal of a call that is at work or was stopped, says so."""
    if any(folder.glob("manifest*.jsonl")):
        return True
    for manifest in folder.glob("manifest*.json"):
        try:
            value = json.loads(manifest.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(value, dict) and {"finemask", "cases"} <= set(value):
            return True
    return False


def _is_folder(subject: str) -> bool:
    return Path(subject).is_dir()


def _of_entry(entry: Entry, root: Path) -> Source:
    """A case of a data set; only its image is read, so nothing else can spoil it."""
    try:
        check_name(entry.name)
    except FinemaskError as error:
        return _broken(entry.images[0], root, error, entry.name)

    def read(images: tuple[Path, ...]) -> Case:
        return read_case(
            images if len(images) > 1 else images[0],
            name=entry.name,
            spacing_mm=entry.spacing_mm or None,
        )

    own_lr = (entry.image_lr,) if entry.image_lr and entry.image_lr.exists() else ()
    return Source(
        name=entry.name,
        path=entry.images[0],
        root=root,
        files=_files((*entry.images, *own_lr)),
        spacing_mm=entry.spacing_mm,
        read=lambda: read(entry.images),
        header=lambda: _header(entry.images, entry.spacing_mm),
        read_lr=lambda: read_case(entry.image_lr, name=entry.name) if entry.image_lr else None,
    )


def _of_image(path: Path) -> Source:
    name = stem(path)
    try:
        check_name(name)
    except FinemaskError as error:
        return _broken(path, path.parent, error, name)
    return Source(
        name,
        path,
        path.parent,
        _files((path,)),
        partial(read_case, path, name=name),
        lambda: _header((path,)),
    )


def _header(paths: Sequence[Path], spacing_mm: tuple[float, ...] = ()) -> Header | None:
    """Of an image, one file a channel; nothing of one that is not sound, which reading tells."""
    try:
        header = read_header(paths[0])
    except FinemaskError:
        return None
    grid = header.geometry
    if spacing_mm and len(spacing_mm) == grid.ndim:
        grid = replace(grid, spacing=spacing_mm, unit="mm")
    return replace(header, geometry=grid, channels=header.channels * len(paths))


def _broken(path: Path, root: Path, error: FinemaskError, name: str | None = None) -> Source:
    def fail() -> Case:
        raise error

    files = _files((path,)) if path.exists() and name else ()
    name = name or stem(path.absolute()) or "input"
    return Source(name, path, root, files, fail, sound=False)


def _files(paths: Sequence[Path]) -> tuple[Path, ...]:
    """Every file behind some images; a DICOM series is all files of its folder."""
    return tuple(
        file
        for path in paths
        for file in (sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path])
    )


def of_part(
    sources: tuple[Source, ...],
    run: Path,
    part: str | None,
    pseudonyms: Pseudonyms | None = None,
) -> tuple[Source, ...]:
    """Only the cases of one part of a run's split; all of them when none is named.

    The split of the run may have their names or their pseudonyms.

    Raises:
        DataError: When some of that part are not among the sources.
    """
    if part is None:
        return sources
    names = set(map(pseudonyms or str, Split.load(run / "splits.json").part(part)))
    chosen = tuple(source for source in sources if source.name in names)
    if missing := sorted(names - {source.name for source in chosen}):
        raise DataError(
            run / "splits.json",
            f"names {len(names)} cases for {part}, {len(missing)} of them are not among the "
            f"inputs (such as {missing[0]})",
            "give the data set that the run was trained on",
        )
    return chosen
