"""Finds the file that a cell of a table means, and says why names and files do not meet."""

import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from nakt_dist.sources.csv_tables import quoted
from nakt_dist.sources.files import FoundFile

LOOSELY_SPELT = "names of the table matched in another letter case or Unicode form"
OTHER_FOLDERS = "names of the table matched without the folders before them"

_DRIVE = re.compile(r"[A-Za-z]:(?=/)")
_MOST_COMPARED = 2000
_DEEPEST = 32


class Match(NamedTuple):
    """The files that a name means.

    Attributes:
        files: several where the name is not unique.
        how: in words, how another name than the one written was matched; None for the same.
        before: the folders left away before the name.
    """

    files: list[FoundFile]
    how: str | None = None
    before: str = ""


class NamedFiles:
    """Finds images by what a table calls them.

    A name is a path below the folder of images, or a file name that stands once anywhere below
    it; the suffix may be left out. Where no file is called so, letter case and Unicode form (NFC
    or NFD) do not matter. Where still none is, folders before the path are left away, as of
    ``/data/images/a.png`` or ``C:/images/a.png``, as long as the rest is the whole path of a
    file below the folder of images or below the root: a file in another folder is never taken.

    Args:
        images: the files below the folder of images.
        folder: its path below the root.
    """

    def __init__(self, images: Sequence[FoundFile], folder: str) -> None:
        self._folder = folder
        # by path and by file name, each with and without suffix; the first that fits holds
        self._indices: tuple[dict[str, list[FoundFile]], ...] = _indices(4)
        self._loose: tuple[dict[str, list[FoundFile]], ...] = _indices(4)
        self._whole: tuple[dict[str, list[FoundFile]], ...] = _indices(2)
        for file in images:
            below = file.name[len(folder) :].lstrip("/")
            stem_below = file.path_below(folder)
            names = (below, stem_below, file.file_name, file.stem)
            for exact, loose, name in zip(self._indices, self._loose, names, strict=True):
                exact[name].append(file)
                loose[loosely_spelt(name)].append(file)
            for whole, paths in zip(
                self._whole, ({below, file.name}, {stem_below, file.path_below("")}), strict=True
            ):
                for path in paths:
                    whole[loosely_spelt(path)].append(file)

    def find(self, path: str) -> Match:
        """Returns the files of this path or name, none where there is no such file.

        Args:
            path: with ``/`` between its parts.
        """
        files = _first(self._indices, path)
        if files:
            return Match(files)
        loose = loosely_spelt(path)
        files = _first(self._loose, loose)
        if files:
            return Match(files, LOOSELY_SPELT)
        parts = path.split("/")
        if ".." in parts:
            return Match([])
        for start in range(max(1, len(parts) - _DEEPEST), len(parts)):
            files = _first(self._whole, loosely_spelt("/".join(parts[start:])))
            if files:
                return Match(files, OTHER_FOLDERS, "/".join(parts[:start]) + "/")
        return Match([])

    def place(self, path: str, files: Sequence[FoundFile]) -> str:
        """Returns where below the root the image lies, or should lie."""
        if files:
            return files[0].name
        return f"{self._folder}/{path}" if self._folder else path


def loosely_spelt(name: str) -> str:
    """Returns the form that spellings of one file name in letter case and Unicode form share."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def is_absolute(path: str) -> bool:
    """Says whether a path with ``/`` begins at the root of a disk, of Windows too."""
    return path.startswith("/") or _DRIVE.match(path) is not None


def why_apart(names: Iterable[str], images: Sequence[FoundFile]) -> str:
    """Returns the likely cause of names that are those of no file, as a sentence; or nothing.

    Args:
        names: paths where the images are looked for; some are compared.
    """
    compared = list(itertools.islice(names, _MOST_COMPARED))
    by_name = {loosely_spelt(file.file_name): file for file in reversed(images)}
    by_stem = {loosely_spelt(file.stem): file for file in reversed(images)}
    causes: Counter[str] = Counter()
    cases: dict[str, tuple[str, FoundFile]] = {}
    for name in compared:
        file_name = name.rpartition("/")[2]
        stem = file_name.rpartition(".")[0] or file_name
        loose_name, loose_stem = loosely_spelt(file_name), loosely_spelt(stem)
        if loose_name in by_name:
            file = by_name[loose_name]
            cause = "the folders before the name"
            if file.file_name != file_name:
                cause = "letter case or Unicode form (NFC or NFD)"
        elif loose_stem in by_stem:
            file, cause = by_stem[loose_stem], "the suffix"
        else:
            continue
        causes[cause] += 1
        cases.setdefault(cause, (name, file))
    if not causes:
        return ""
    cause, count = causes.most_common(1)[0]
    name, file = cases[cause]
    return (
        f" {count} of {len(compared)} names differ from those of files in {cause}: looked for "
        f"{quoted(name)}, and the file is {quoted(file.name)}."
    )


def _indices(count: int) -> tuple[dict[str, list[FoundFile]], ...]:
    return tuple(defaultdict(list) for _ in range(count))


def _first(indices: Sequence[dict[str, list[FoundFile]]], name: str) -> list[FoundFile]:
    return next((index[name] for index in indices if name in index), [])
