"""Which images a path means: those of a folder, of a list, or one alone."""

import errno
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from nakt_dist.errors import ConfigurationError, DatasetError, valid_unicode
from nakt_dist.predicting.naming import ListedImage, Names, name_images
from nakt_dist.runtime.files import read_regular_file, value_sha256
from nakt_dist.sources.csv_tables import read_rows
from nakt_dist.sources.deidentification import without_names
from nakt_dist.sources.files import FoundFile, walk
from nakt_dist.sources.mask_search import likely_masks

_TABLES = (".csv", ".tsv", ".gz")
_TEXTS = (".txt", ".lst")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class ImageListing:
    """The images that there are.

    Attributes:
        images: those to be read, in order; see ``name_images``.
        refused: those that are set aside unread.
        ignored: files that are no images, by suffix, unusual suffixes summed up.
        left_out: images that the settings leave out.
        likely_masks: images that look like masks of others, by a pattern of their paths.
    """

    images: Sequence[ListedImage]
    refused: Sequence[ListedImage]
    ignored: Mapping[str, int] = field(default_factory=dict)
    left_out: int = 0
    likely_masks: Mapping[str, int] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all names, and of sizes and times of the files that are read."""
        read = [(each.source, each.name, *_size_and_time(each.path)) for each in self.images]
        return value_sha256([read, [(each.source, each.problem) for each in self.refused]])


def list_images(
    images: str,
    names: Names,
    column: str = "path",
    leave_out: Sequence[str] = (),
    image_folder: str | None = None,
) -> ImageListing:
    """Lists the images that a path means.

    Args:
        images: a folder, an image, or a list: a text with a path on each line, or a table.
        names: what outputs are called.
        column: of a table, the one that holds paths.
        leave_out: patterns of paths that are not meant.
        image_folder: where relative paths of a list begin, as seen from its folder.

    Raises:
        DatasetError: there is nothing, or no image; or a folder or list cannot be read, or nothing
            is where a list says.
        ConfigurationError: there are DICOM files, and what reads them is not installed; or
            ``image_folder`` is said of something else than a list.
    """
    root, ignored = Path(images), Counter[str]()
    is_list = root.suffix.lower() in _TABLES + _TEXTS and not root.is_dir()
    if image_folder is not None and not is_list:
        raise ConfigurationError(
            f"image_folder is for a list of paths, and images is {images}; leave it out"
        )
    if root.is_dir():
        contents = walk(root)
        files = [*contents.images, *contents.refused_links]
        listed = [ListedImage(file.name, file.path, file.problem) for file in files]
        ignored = contents.ignored + Counter(each.suffix or "no suffix" for each in contents.others)
    elif not root.exists():
        raise DatasetError(
            f"{images}: nothing is there; expected a folder of images, one, or a list"
        )
    elif is_list:
        listed = list(_of_list(root, column, image_folder or ""))
    else:
        listed = [ListedImage(valid_unicode(root.name), root)]
    meant = [each for each in listed if not any(fnmatchcase(each.source, p) for p in leave_out)]
    if not meant:
        told = without_names(ignored) | {"left out": len(listed)}
        found = ", ".join(f"{count} {what}" for what, count in told.items() if count)
        raise DatasetError(f"{images}: names no image (found: {found or 'nothing'})")
    named = name_images(meant, names)
    usable = [each for each in named if each.problem is None]
    refused = [each for each in named if each.problem is not None]
    claims = likely_masks([FoundFile(each.source, each.path) for each in usable])
    patterns = dict(sorted(Counter(claim.pattern for claim in claims).items()))
    left_out = len(listed) - len(meant)
    return ImageListing(usable, refused, without_names(ignored), left_out, patterns)


def _of_list(path: Path, column: str, image_folder: str) -> Iterator[ListedImage]:
    """Yields the images of a list; relative paths begin at a folder as seen from its own.

    They are called as seen from that folder, or from the nearest one that holds all of them.
    """
    folder = Path(os.path.normpath(path.absolute().parent / image_folder))
    # without following links: the names are those of the list
    said = _paths(path, column)
    paths = [Path(os.path.normpath(folder / each)) for each in said]
    if paths and not any(map(os.path.lexists, paths)):
        raise DatasetError(_told_of_absent(path, folder, said))
    if paths and not all(each.is_relative_to(folder) for each in paths):
        folder = Path(os.path.commonpath([each.parent for each in paths]))
    for each in paths:
        found = _what_is_at(each)
        told = ("missing_image", f"the list names this file, and {found} is there")
        problem = told if found else None
        yield ListedImage(valid_unicode(each.relative_to(folder).as_posix()), each, problem)


def _what_is_at(path: Path) -> str:
    """Says what is at a path that a list names and is no file; empty where it is one."""
    try:
        if path.is_file():
            return ""
        return "something else" if path.exists() else "nothing"
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise  # a fault of the machine
        return "a name too long for any file"


def _told_of_absent(path: Path, folder: Path, said: Sequence[str]) -> str:
    beside = sorted(each.name for each in path.absolute().parent.iterdir() if each.is_dir())
    fitting = [each for each in beside if not _what_is_at(path.absolute().parent / each / said[0])]
    advice = f"; the first is in {fitting[0]}: set --image_folder {fitting[0]}" if fitting else ""
    return (
        f"{path}: none of the {len(said):,} files that it names is there; its relative paths begin "
        f"at {folder}{advice or '. Set image_folder to where they begin, as seen from the list'}"
    )


def _paths(path: Path, column: str) -> list[str]:
    if path.suffix.lower() in _TABLES:
        return list(_cells(path, column))
    try:
        content = read_regular_file(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: the list cannot be read: {error}") from None
    if b"\0" in content:
        raise DatasetError(f"{path}: is no text; expected a path on each line")
    lines = os.fsdecode(content.removeprefix(_BYTE_ORDER_MARK)).splitlines()
    return [line.strip() for line in lines if line.strip()]


def _cells(path: Path, column: str) -> Iterator[str]:
    """Yields the paths in a table; a row that names none would lack an answer without a word."""
    for row in read_rows(FoundFile(valid_unicode(path.name), path), [column]):
        if row.fault or not row.cells[0]:
            told = row.fault or f"the column '{column}' is empty; expected the path of an image"
            raise DatasetError(f"{path}, line {row.line}: {told}. Mend the row, or remove it")
        yield row.cells[0]


def _size_and_time(path: Path) -> tuple[int, int]:
    """Returns what tells whether a file is as it was."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
