"""What the layouts of chest X-rays share: facts in one form, and tables joined with files.

A chest dataset is a tree of images and tables that name them. Tables and tree disagree in every
copy: images are missing, were never labelled, or lie there twice. ``join`` makes one record of
each image that either side knows and says how many there were of each kind.
"""

import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError, valid_unicode
from nakt_dist.limits import OLDEST_AGE
from nakt_dist.sources.csv_tables import TableRow, quoted, row_record
from nakt_dist.sources.files import FolderContents, FoundFile
from nakt_dist.sources.listing import (
    SourceListing,
    SourceRecord,
    check_choices,
    finish_listing,
    image_record,
    links_told,
)
from nakt_dist.sources.named_files import why_apart

VIEWS = ("frontal", "lateral", "unknown")
MOST_REFUSED_ROWS = 5000
"""So many rows of a table are set aside by themselves, more where its file has room for them."""

_LEAST_ROW_BYTES = 4

_AGE = re.compile(r"(\d{1,4})(?:\.0+)?([YMWD]?)", re.IGNORECASE)
_PER_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}
_SEXES = {"F": "F", "FEMALE": "F", "M": "M", "MALE": "M"}
_UNKNOWN_SEXES = ("", "NAN", "NA", "N/A", "U", "UNKNOWN", "O", "OTHER")
_PRESENT = ("true", "yes", "y", "positive", "present")
_ABSENT = ("false", "no", "n", "negative", "absent")
_LABELS = {"": None, "1": 1, "0": 0, "-1": -1}
_LABELS |= dict.fromkeys(_PRESENT, 1) | dict.fromkeys(_ABSENT, 0)
_ZEROS_AFTER = re.compile(r"(?<=\d)\.0*")
_MISSING = ("missing_image", "a table of the dataset names this image and no such file is there")
_ALL_BLANK = "images of which every label is blank"
_UNNAMED = "no row of the dataset's tables names this file"

Problem = tuple[str, str]


@dataclass
class ChestTables:
    """Everything that the tables of a dataset say.

    Attributes:
        images: as the tables describe them, not yet with a file, by what identifies an image in
            this dataset.
        found: counts worth saying, by words.
        records: rows that name no image one could look for, each with its problem.
        unmet: some of the names in such rows that lead out of the dataset's folder.
    """

    root: Path
    images: dict[str, SourceRecord] = field(default_factory=dict)
    found: Counter[str] = field(default_factory=Counter)
    records: list[SourceRecord] = field(default_factory=list)
    unmet: list[str] = field(default_factory=list)
    _refused: Counter[str] = field(default_factory=Counter)

    def add(
        self,
        key: str,
        name: str,
        patient_id: str | None,
        official_split: str | None,
        labels: Mapping[str, Any],
        findings: Mapping[str, int] | None,
        problem: Problem | None = None,
    ) -> None:
        """Adds what a row says; a row that says the same again is counted.

        A row that contradicts an earlier one makes the image unusable, since it is open which
        of the two holds.

        Args:
            key: what identifies the image in this dataset.
            name: where the image should be, below the dataset's root.
            labels: ``sex``, ``age``, ``view``, ``projection`` and ``study``; those that are None
                or empty are not known and left away.
            findings: the labels by canonical name, or None without any.
        """
        image = SourceRecord(
            name,
            self.root,
            patient_id=patient_id,
            official_split=official_split,
            labels={label: value for label, value in labels.items() if value not in (None, "")},
            findings=findings,
            problem=problem,
        )
        known = self.images.setdefault(key, image)
        if known is image:
            return
        if known == image:
            self.found["rows that repeat another"] += 1
            return
        self.found["rows that contradict another"] += 1
        detail = f"several rows name this image and differ in {_difference(known, image)}"
        problem = known.problem if _conflicts(known) else ("conflicting_rows", detail)
        self.images[key] = replace(known, problem=problem)

    def refuse(self, table: FoundFile, row: TableRow, reason: str, detail: str) -> None:
        """Sets a row aside that names no image one could look for.

        Raises:
            DatasetError: there are more than ``MOST_REFUSED_ROWS``, and more than rows of their
                own would fit into the file: each takes memory, and a compressed file of a few
                bytes may hold millions.
        """
        self._refused[table.name] += 1
        refused, size = self._refused[table.name], table.path.stat().st_size
        if refused > max(MOST_REFUSED_ROWS, size // _LEAST_ROW_BYTES):
            raise DatasetError(
                f"'{table.name}': {refused} of the first {row.number} rows cannot be used, the "
                f"last of them in line {row.line} ({reason}), more than a file of {size} bytes "
                "holds of real rows. Download it again, or choose the layout and the columns that "
                "fit"
            )
        self.records.append(row_record(self.root, table, row.line, reason, detail))

    def sex(self, text: str) -> str | None:
        """Returns ``"F"``, ``"M"`` or None; words that mean neither, nor unknown, are counted."""
        word = text.upper()
        if word not in _SEXES and word not in _UNKNOWN_SEXES:
            self.found["sexes that cannot be read, taken as unknown"] += 1
        return _SEXES.get(word)

    def age(self, text: str) -> int | None:
        """Returns an age in whole years; those above ``OLDEST_AGE`` are counted and unknown.

        Reads ``60``, ``060Y``, ``018M`` and ``010D``.
        """
        if not text:
            return None
        match = _AGE.fullmatch(text)
        if match is None:
            self.found["ages that cannot be read, taken as unknown"] += 1
            return None
        years = int(match[1]) // _PER_YEAR[match[2].upper()]
        if years > OLDEST_AGE:
            self.found[f"ages above {OLDEST_AGE}, taken as unknown"] += 1
            return None
        return years


def view_of(projection: str) -> str | None:
    """Returns ``"frontal"`` or ``"lateral"`` for a projection, None where it tells neither.

    ``PA``, ``AP`` and what begins with them (``AP AXIAL``, ``PA LLD``) are frontal; ``LL``,
    ``RL`` and what speaks of lateral are lateral; oblique views are neither.
    """
    words = projection.upper().split()
    if words and words[0] in ("PA", "AP"):
        return "frontal"
    return "lateral" if {"LATERAL", "LL", "RL"} & set(words) else None


def label_of(cell: str) -> int | None:
    """Returns the label that a cell means: 1, 0, -1, or None for blank.

    Numbers may have zeros after a point, as programs write them (``1.0``); words are those of
    ``_PRESENT`` and ``_ABSENT`` in any letter case, as ``True`` and ``No``.

    Raises:
        KeyError: it means none of these.
    """
    word = cell.casefold()
    return _LABELS[word if word in _LABELS else _ZEROS_AFTER.sub("", word, count=1)]


@functools.lru_cache(maxsize=50_000)
def read_findings(
    names: tuple[str, ...], cells: tuple[str, ...]
) -> tuple[Mapping[str, int] | None, Problem | None]:
    """Reads the cells of one row: 1.0, 0.0, -1.0, nothing for blank, or a word of ``label_of``.

    Rows with the same labels share one mapping, which nobody may change.

    Returns:
        The labels that are not blank; or None, and what is wrong with the row.
    """
    findings = {}
    for name, cell in zip(names, cells, strict=True):
        try:
            value = label_of(cell)
        except KeyError:
            expected = "1, 0, -1, nothing, or a word such as True and False, yes and no"
            detail = f"'{name}' is {quoted(cell)}; expected {expected}"
            return None, ("unreadable_label", detail)
        if value is not None:
            findings[name] = value
    return findings, None


def join(
    contents: FolderContents,
    tables: ChestTables,
    files_of: Callable[[str], Sequence[FoundFile]],
    views: Sequence[str],
    findings: Sequence[str],
    used_files: Sequence[str],
) -> SourceListing:
    """Makes the listing of what the tables name and what the folder holds.

    Each named image has one record, with ``missing_image`` where no file is there; so has each
    file that no table names (``not_in_table``) and each further copy of an image
    (``duplicate_image``). Of several copies the least deep is used. ``found`` counts images,
    patients, studies and official splits before any view is left out.

    Args:
        files_of: gives the files of an image by its key, the least deep first.
        views: which of ``VIEWS`` to list; the others are counted in ``left_out``.

    Raises:
        ConfigurationError: a view is unknown.
        DatasetError: the tables have no row, or not one of the named images is there.
    """
    check_choices("views", views, VIEWS)
    if not tables.images and not tables.records:
        names = ", ".join(f"'{name}'" for name in used_files)
        raise DatasetError(f"{names}: has no row below the header; download the table again")
    _require_an_image(contents, tables, files_of)
    found = _counted(tables, files_of)
    left_out: Counter[str] = Counter()
    records, used = list(tables.records), set[str]()
    taken = {link.name for link in contents.refused_links}
    for key, image in tables.images.items():
        files = files_of(key)
        used.update(file.name for file in files)
        view = image.labels.get("view", "unknown")
        if view not in views and not _conflicts(image):
            left_out[f"view {view}"] += 1
        elif files:
            problem = files[0].problem or image.problem
            records.append(replace(image, name=files[0].name, image=files[0].path, problem=problem))
        elif image.name not in taken:
            place = tables.root / image.name
            records.append(replace(image, image=place, labels={}, findings=None, problem=_MISSING))
        for copy in files[1:]:
            found["further copies of images"] += 1
            detail = f"'{files[0].name}' is the same image by its name and is used instead"
            records.append(image_record(copy, problem=("duplicate_image", detail)))
    unnamed = [file for file in contents.images if file.name not in used]
    found["files that no table names"] += len(unnamed)
    records += [image_record(file, problem=("not_in_table", _UNNAMED)) for file in unnamed]
    listing = finish_listing(contents, records, left_out, tuple(used_files))
    told = {words: count for words, count in sorted(found.items()) if count}
    return replace(listing, findings=tuple(findings), found=told)


def _require_an_image(
    contents: FolderContents, tables: ChestTables, files_of: Callable[[str], Sequence[FoundFile]]
) -> None:
    """Refuses a folder without one of the images, which is the wrong one rather than empty."""
    where = f"The tables below '{valid_unicode(str(tables.root))}'"
    if not tables.images:
        first = tables.records[0]
        why = first.problem[1] if first.problem else ""
        cause = why_apart(tables.unmet, contents.images)
        raise DatasetError(
            f"{where} name no image in any of their {len(tables.records)} rows; the first, "
            f"'{first.name}': {why}.{cause}"
        )
    if not any(files_of(key) for key in tables.images):
        cause = why_apart((image.name for image in tables.images.values()), contents.images)
        raise DatasetError(
            f"{where} name {len(tables.images)} images and none of them is there "
            f"({len(contents.images)} other images are).{cause} Name the files in one way, or set "
            "the source, and the option of a folder of images where there is one, to those that "
            f"hold both{links_told(link.name for link in contents.refused_links)}"
        )


def _counted(tables: ChestTables, files_of: Callable[[str], Sequence[FoundFile]]) -> Counter[str]:
    """Counts named images by what they are, whatever a setting leaves out later."""
    there = [image for key, image in tables.images.items() if files_of(key)]
    found = Counter(tables.found)
    found["images named by the tables"] += len(tables.images)
    found["images named without a file"] += len(tables.images) - len(there)
    found["images"] += len(there)
    found[_ALL_BLANK] += sum(image.findings == {} for image in there)
    found.update(f"view {image.labels.get('view', 'unknown')}" for image in there)
    splits = (image.official_split for image in there if image.official_split)
    found.update(f"official split {split}" for split in splits)
    found["patients"] = len({image.patient_id for image in there if image.patient_id})
    studies = ((image.patient_id, image.labels.get("study")) for image in there)
    found["studies"] = len({study for study in studies if study[1] is not None})
    return found


def _conflicts(image: SourceRecord) -> bool:
    return image.problem is not None and image.problem[0] == "conflicting_rows"


def _difference(first: SourceRecord, second: SourceRecord) -> str:
    """Names what differs between two descriptions of one image."""
    if first.labels != second.labels:
        names = first.labels.keys() | second.labels.keys()
        return ", ".join(sorted(n for n in names if first.labels.get(n) != second.labels.get(n)))
    if first.findings != second.findings or first.problem != second.problem:
        return "findings"
    return "patient" if first.patient_id != second.patient_id else "split"
