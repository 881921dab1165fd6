"""Which layout a folder is in, and what its cases have in common."""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finemask.datasets.dataset import Dataset, Entry
from finemask.datasets.folder import list_folder, list_images
from finemask.datasets.listing import Listing, few
from finemask.datasets.manifest import is_manifest, list_manifest
from finemask.datasets.nnunet import list_nnunet
from finemask.errors import DataError

VOXELS_LOOKED_AT = 30_000_000
"""Undeclared labels are collected from masks of about this many voxels in all, or from all."""
MOST_CLASSES = 64
"""More distinct values than this make an image, not a mask."""
VIEWER_WHITE = 255
GOLDEN = (math.sqrt(5) - 1) / 2


def load_dataset(path: str | Path) -> Dataset:
    """Load a data set: its cases, labels, dimension and channels, but no images yet.

    A ``manifest.csv`` (named, or in the folder with at least the columns
    ``case,image``) comes first, then ``imagesTr/`` (nnU-Net raw), ``images/``
    (with ``masks/``, ``masks_<reader>/``, ``soft/``, ``images_lr/``), and last
    a folder of images or DICOM series without masks.

    Where no ``dataset.json`` declares the labels, they are the values that the
    masks hold: one value besides 0 whatever it is, or 1 to n without a gap.

    Args:
        path: Folder or manifest.

    Raises:
        DataError: On the first thing that must be mended; ``check_dataset`` lists all.
    """
    dataset, problems = survey(Path(path))
    if len(problems) == 1:
        raise problems[0]
    if problems or dataset is None:
        first = problems[0]
        raise DataError(
            first.subject,
            f"{first.what} (and {len(problems) - 1} more problems)",
            f"{first.fix}; finemask check lists every problem",
        )
    return dataset


def survey(path: Path) -> tuple[Dataset | None, list[DataError]]:
    """A data set without its faulty cases, and what is wrong; ``None`` when nothing is left."""
    try:
        listing = list_cases(path)
    except DataError as error:
        return None, [error]
    entries = _with_sound_names(listing)
    if not entries and not listing.problems:
        listing.refuse(path, "holds no image", "give images/ and masks/, see finemask --help")
    form = _common_form(path, entries, listing)
    if form is None:
        return None, listing.problems
    labels = listing.labels
    if labels is None:
        try:
            labels = _labels_in_use(path, form.entries)
        except DataError as error:
            listing.problems.append(error)
            return None, listing.problems
    dataset = Dataset(
        root=path,
        layout=listing.layout,
        entries=tuple(form.entries),
        labels=labels,
        dims=form.dims,
        channels=form.channels,
        notes=tuple(listing.notes),
    )
    return dataset, listing.problems


def list_cases(path: Path) -> Listing:
    """List the cases with the reader of the layout that ``path`` is in."""
    if not path.exists():
        raise DataError(path, "does not exist", "check the path")
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise DataError(path, "is a file", "give a folder or a manifest.csv")
        return list_manifest(path)
    if (path / "manifest.csv").is_file() and is_manifest(path / "manifest.csv"):
        return list_manifest(path / "manifest.csv")
    if (path / "imagesTr").is_dir() or (path / "imagesTs").is_dir():
        return list_nnunet(path)
    if (path / "images").is_dir():
        return list_folder(path)
    if (path / "manifest.csv").is_file():
        return list_manifest(path / "manifest.csv")
    return list_images(path)


def _with_sound_names(listing: Listing) -> list[Entry]:
    """Entries whose names can be file names and differ in more than case."""
    from finemask.io import check_name

    sound: dict[str, Entry] = {}
    for entry in sorted(listing.entries, key=lambda e: e.name):
        try:
            check_name(entry.name)
        except DataError as error:
            listing.refuse(entry.images[0], f"{error.subject} {error.what}", error.fix)
            continue
        if (twin := sound.get(entry.name.casefold())) is not None:
            listing.refuse(
                entry.images[0],
                f"gives case {entry.name}, and {twin.images[0].name} gives case {twin.name}",
                "case names must differ in more than upper and lower case",
            )
            continue
        sound[entry.name.casefold()] = entry
    return list(sound.values())


@dataclass(frozen=True)
class _Form:
    """Dimension and channels that all ``entries`` share."""

    entries: list[Entry]
    dims: int
    channels: int


def _common_form(path: Path, entries: list[Entry], listing: Listing) -> _Form | None:
    """Compare dimension and channels from the headers; an unreadable one is met on reading."""
    from finemask.io import read_header

    forms: dict[str, tuple[int, int]] = {}
    unreadable: list[DataError] = []
    for entry in entries:
        try:
            headers = [read_header(image) for image in entry.images]
        except DataError as error:
            unreadable.append(error)
            continue
        forms[entry.name] = (headers[0].geometry.ndim, sum(h.channels for h in headers))
    if not forms:
        listing.problems.extend(unreadable)
        return None
    by_dims = defaultdict(list)
    for name, (dims, _) in forms.items():
        by_dims[dims].append(name)
    if len(by_dims) > 1:
        parts = [f"{len(names)} in {dims}-D ({few(names)})" for dims, names in by_dims.items()]
        listing.refuse(path, f"mixes cases {' and '.join(parts)}", "make two data sets of them")
    counts = Counter(channels for _, channels in forms.values())
    usual = counts.most_common(1)[0][0]
    if set(counts) == {1, 3} and set(by_dims) == {2}:
        usual = 3
        listing.notes.append(
            f"{counts[1]} grey and {counts[3]} colour cases: grey is read as three equal channels"
        )
    elif len(counts) > 1:
        odd = [f"{name} ({c})" for name, (_, c) in forms.items() if c != usual]
        kind = "channels or time points" if 3 in by_dims else "channels"
        listing.refuse(
            path, f"has {usual} {kind} a case, but not in {few(odd)}", "mend these cases"
        )
    dims = max(by_dims, key=lambda d: len(by_dims[d]))
    agreeing = [e for e in entries if forms.get(e.name, (dims, 0))[0] == dims]
    return _Form(agreeing, dims, usual)


def _labels_in_use(path: Path, entries: list[Entry]) -> Mapping[str, int]:
    """The labels that the masks themselves hold, where nobody declares them."""
    files = [f for entry in entries for f in ((entry.mask,) if entry.mask else entry.readers)]
    if not files:
        return {"lesion": 1} if any(entry.soft for entry in entries) else {}
    seen = set[frozenset[int]]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # whoever reads the case is told
        for file in _spread(files):
            try:
                seen.add(_values_in(file))
            except DataError:
                continue  # met again, with its case, on reading
    foreground = sorted(frozenset().union(*seen))
    if len(foreground) == 1:
        return {"lesion": foreground[0]}
    if foreground == [1, VIEWER_WHITE] and frozenset(foreground) not in seen:
        return {"lesion": 1}
    if foreground == list(range(1, len(foreground) + 1)):
        return {f"class_{value}": value for value in foreground} or {"lesion": 1}
    raise DataError(
        path,
        f"has masks with the values {few(map(str, foreground), 8)}, which may mean anything",
        'declare them in dataset.json: {"labels": {"background": 0, "lesion": 255}}',
    )


def _spread(files: Sequence[Path]) -> Iterator[Path]:
    """Files evenly over the set, as sites and classes come in runs, up to a budget of voxels."""
    from finemask.io import read_header

    order = sorted(range(len(files)), key=lambda i: (i * GOLDEN) % 1)
    left = VOXELS_LOOKED_AT
    for index in order:
        try:
            left -= math.prod(read_header(files[index]).shape)
        except DataError:
            continue
        yield files[index]
        if left < 0:
            return


def _values_in(file: Path) -> frozenset[int]:
    """Foreground values of one mask; black and white blurred by compression is still two values."""
    from finemask.io import label_values, read_labels

    values = label_values(file)
    if len(values) > 2 and values[-1] > VIEWER_WHITE // 2:
        try:
            read_labels(file, {"lesion": VIEWER_WHITE})
        except DataError:
            if len(values) > MOST_CLASSES:
                raise
        else:
            return frozenset({VIEWER_WHITE})
    return frozenset(values) - {0}
