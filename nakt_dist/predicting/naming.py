"""The order of images, and what their outputs are called: no two alike, no patient unasked."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from nakt_dist.imaging.dicom_place import DicomPlace, read_place
from nakt_dist.sources.files import split_suffix

Names = Literal["auto", "paths", "numbers", "uids"]
"""See ``PredictConfig.names``."""

_PICTURE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
)
"""Of files that are named as they are, whatever is in them."""
_MOST_NAME_BYTES = 200
"""Of a folder or file: while it is written its name is 30 longer, and 255 is the most."""


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image that is to be predicted.

    Attributes:
        source: its path as it is listed, valid Unicode; may name a patient.
        problem: reason and detail why it is set aside unread, else None.
        name: of its outputs, with folders and without a suffix.
        series: number of its DICOM series, from 1; None for other files.
        slice: its number in the series, from 1.
    """

    source: str
    path: Path
    problem: tuple[str, str] | None = None
    name: str = ""
    series: int | None = None
    slice: int | None = None


def name_images(listed: Iterable[ListedImage], names: Names) -> list[ListedImage]:
    """Puts images into order, by their paths, DICOM files behind by series; and names them.

    What would take another's outputs for its own gets that as its problem.

    Raises:
        ConfigurationError: there are DICOM files, and what reads them is not installed.
    """
    by_path = sorted(listed, key=lambda each: each.source)
    places = [_place_of(each) for each in by_path]
    both = list(zip(by_path, places, strict=True))
    ordered = [each for each, place in both if place is None]
    ordered += _in_series([(e, place) for e, place in both if place is not None], names == "uids")
    digits = max(6, len(str(len(ordered))))
    named = [
        replace(each, name=f"{number:0{digits}d}")
        if names == "numbers"
        else each
        if each.name and names != "paths"
        else replace(each, name=_path_as_name(each.source))
        for number, each in enumerate(ordered, start=1)
    ]
    return list(_each_alone(named))


def _place_of(each: ListedImage) -> DicomPlace | None:
    suffix = PurePosixPath(each.source).suffix.lower()
    if each.problem is not None or suffix in _PICTURE_SUFFIXES or not each.path.is_file():
        return None
    return read_place(each.path)


def _in_series(
    images: Sequence[tuple[ListedImage, DicomPlace]], by_uid: bool
) -> Iterator[ListedImage]:
    """Yields DICOM images series by series, each by its number there, and names them so."""
    series: dict[str, list[tuple[ListedImage, DicomPlace]]] = defaultdict(list)
    for each, place in images:
        series[place.series or each.source.rpartition("/")[0]].append((each, place))
    for number, members in enumerate(series.values(), start=1):
        members.sort(key=lambda member: (member[1].number is None, member[1].number or 0))
        for at, (each, place) in enumerate(members, start=1):
            name = f"series-{number:03d}/{at:04d}"
            if by_uid and place.series and place.instance:
                name = f"{place.series}/{place.instance}"
            yield replace(each, name=name, series=number, slice=at)


def _path_as_name(source: str) -> str:
    """Returns a path without its suffix, no part of it too long for a file with another one."""
    folder, slash, name = source.rpartition("/")
    parts = [*folder.split("/")] if slash else []
    return "/".join(map(_shortened, [*parts, split_suffix(name)[0]]))


def _shortened(part: str) -> str:
    encoded = part.encode()
    if len(encoded) <= _MOST_NAME_BYTES:
        return part
    digest = hashlib.sha256(encoded).hexdigest()[:8]
    return f"{encoded[:_MOST_NAME_BYTES].decode(errors='ignore')}-{digest}"


def _each_alone(named: Iterable[ListedImage]) -> Iterator[ListedImage]:
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for each in named:
        if each.problem is not None:
            yield each
            continue
        file = f"{each.name}.png"
        parents = [str(parent) for parent in PurePosixPath(file).parents][:-1]
        # a file may also be in the way of a folder that is called so
        taken = [files.get(file), folders.get(file), *map(files.get, parents)]
        other = next((source for source in taken if source is not None), None)
        if other is not None:
            detail = f"its outputs would take the place of those of '{other}'; rename one of them"
            yield replace(each, problem=("same_output_name", detail))
            continue
        files[file] = each.source
        folders |= dict.fromkeys(parents, each.source)
        yield each
