"""Images from the ISIC archive: ``ISIC_0000000.jpg`` with a json each, or one metadata.csv."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from nakt_dist.errors import valid_unicode
from nakt_dist.sources.chest import ChestTables, label_of
from nakt_dist.sources.csv_tables import column_names, quoted, read_rows
from nakt_dist.sources.files import FolderContents, FoundFile, walk
from nakt_dist.sources.listing import (
    SourceListing,
    SourceRecord,
    finish_listing,
    image_record,
    missing_image,
    unrecognised,
    wrong_layout,
)
from nakt_dist.sources.registry import Source

FACTS = (
    "benign_malignant", "diagnosis", *(f"diagnosis_{level}" for level in range(1, 6)),
    "melanocytic", "age_approx", "sex", "anatom_site_general",
)  # fmt: skip
ISIC_NAME = re.compile(r"ISIC_\d+(_downsampled)?", re.IGNORECASE)
MAX_JSON_CHARACTERS = 2**20
_TABLE = re.compile(r"(.*[_-])?metadata\.csv(\.gz)?", re.IGNORECASE)
_NAME_COLUMN = "isic_id"
_PATIENT_COLUMNS = ("patient_id", "lesion_id")
_OUTCOMES = ("benign", "malignant", "indeterminate")

Metadata = dict[str, Any]


def scan(root: Path) -> SourceListing:
    """Lists archive images at any depth; the archive's originals have no masks.

    What is known of an image stands in its json (the archive's downloads of old) or in a row of
    ``metadata.csv`` (``isic image download``); the json goes first and the table fills what it
    lacks. The patient is the ``patient_id``, or else the ``lesion_id``, so that images of one
    lesion stay together. An image of which neither can be read is listed all the same and its
    labels say ``{"metadata": "missing"}`` or ``"unreadable"``.

    Raises:
        DatasetError: there is no archive image below ``root``, or a table cannot be read.
    """
    contents = walk(root)
    jsons = {
        (file.folder, file.stem): file
        for file in contents.others
        if file.name.endswith(".json") and ISIC_NAME.fullmatch(file.stem)
    }
    table = _Table(root, contents)
    records, images = list(table.wrong.records), []
    for image in contents.images:
        if image.suffix not in (".jpg", ".jpeg") or not ISIC_NAME.fullmatch(image.stem):
            records.append(unrecognised(image, "'ISIC_NUMBER.jpg'"))
        else:
            images.append(image)
    if not images:
        raise wrong_layout(root, "isic_archive", "'ISIC_NUMBER.jpg' images")
    known = [table.metadata_of(image, jsons.get((image.folder, image.stem))) for image in images]
    records += _records(images, known, table)
    for key in jsons.keys() - {(image.folder, image.stem) for image in images}:
        name = jsons[key].name.removesuffix(".json") + ".jpg"
        records.append(missing_image(name, jsons[key].path.with_suffix(".jpg"), "a json"))
    records += table.rows_without(images)
    used = [file.name for file in (*jsons.values(), *table.files)]
    listing = finish_listing(contents, records, used_files=used)
    found = {words: count for words, count in sorted(table.wrong.found.items()) if count}
    return replace(listing, found=found)


class _Table:
    """The rows of ``metadata.csv``, wherever such tables lie.

    Attributes:
        files: the tables that were read.
        wrong: rows that name no image, and counts worth saying.
    """

    def __init__(self, root: Path, contents: FolderContents) -> None:
        self.files: list[FoundFile] = []
        self.wrong = ChestTables(root)
        self._rows: dict[str, tuple[FoundFile, Metadata]] = {}
        self.conflicts: set[str] = set()
        for file in contents.others:
            if _TABLE.fullmatch(file.file_name) and _NAME_COLUMN in column_names(file, ()):
                self.files.append(file)
                self._read(file)

    def _read(self, file: FoundFile) -> None:
        columns = (_NAME_COLUMN, *_PATIENT_COLUMNS, *FACTS)
        found = self.wrong.found
        for row in read_rows(file, columns[:1], columns[1:], found=found):
            name = without_suffix(row.cells[0])
            found["rows in metadata.csv"] += 1
            if row.fault:
                self.wrong.refuse(file, row, "unreadable_row", row.fault)
            elif not ISIC_NAME.fullmatch(name):
                detail = f"'{_NAME_COLUMN}' is {quoted(name)}; expected such as ISIC_0000000"
                self.wrong.refuse(file, row, "unsafe_path", detail)
            else:
                cells = zip(columns[1:], row.cells[1:], strict=True)
                metadata = {column: _value(column, cell) for column, cell in cells if cell}
                known = self._rows.setdefault(compared_name(name), (file, metadata))[1]
                if known != metadata:
                    found["rows that contradict another"] += 1
                    self.conflicts.add(compared_name(name))

    def metadata_of(self, image: FoundFile, description: FoundFile | None) -> Metadata | str:
        """Returns what is known of an image, or why nothing is."""
        said = _read_metadata(description.path) if description else None
        _, row = self._rows.get(compared_name(image.stem), (None, None))
        if said is None and row is None:
            return "unreadable" if description else "missing"
        if said is not None and row is not None:
            found = self.wrong.found
            found["images with a json and a row of metadata.csv, json first"] += 1
            differ = any(said[name] != row[name] for name in said.keys() & row.keys())
            found["images whose json and row of metadata.csv differ"] += differ
        return {**(row or {}), **(said or {})}

    def rows_without(self, images: Sequence[FoundFile]) -> Iterator[SourceRecord]:
        """Yields a record for each row whose image is not there."""
        there = {compared_name(image.stem) for image in images}
        for key in self._rows.keys() - there:
            file = self._rows[key][0]
            name = f"{file.folder}/{key}.jpg" if file.folder else f"{key}.jpg"
            yield missing_image(name, self.wrong.root / name, f"'{file.name}'")


def _records(
    images: Sequence[FoundFile], known: Sequence[Metadata | str], table: _Table
) -> Iterator[SourceRecord]:
    patients = {
        metadata["lesion_id"]: metadata["patient_id"]
        for metadata in known
        if not isinstance(metadata, str)
        and metadata.get("lesion_id")
        and metadata.get("patient_id")
    }
    for image, metadata in zip(images, known, strict=True):
        if isinstance(metadata, str):
            table.wrong.found[f"images whose metadata is {metadata}"] += 1
            yield image_record(image, labels={"metadata": metadata})
            continue
        lesion = metadata.get("lesion_id")
        patient = metadata.get("patient_id") or patients.get(lesion)
        problem = None
        if compared_name(image.stem) in table.conflicts:
            detail = "several rows of 'metadata.csv' name this image and differ"
            problem = ("conflicting_rows", detail)
        yield image_record(
            image,
            problem=problem,
            patient_id=str(patient) if patient else f"lesion {lesion}" if lesion else None,
            stratum=_outcome(metadata),
            labels={name: metadata[name] for name in FACTS if name in metadata},
        )


def _outcome(metadata: Mapping[str, Any]) -> str:
    """Returns whether a lesion is benign, which the archive now says as the first diagnosis."""
    said = str(metadata.get("benign_malignant") or "")
    first = str(metadata.get("diagnosis_1") or "").lower()
    return said or (first if first in _OUTCOMES else "")


def _value(column: str, cell: str) -> str | int | bool:
    """Returns the value of a cell in the type that the archive's json has for it."""
    if column == "age_approx" and re.fullmatch(r"\d{1,3}(\.0+)?", cell, re.ASCII):
        return int(cell.partition(".")[0])
    if column == "melanocytic":
        try:
            return bool(label_of(cell))
        except KeyError:
            return cell
    return cell


def _read_metadata(path: Path) -> Metadata | None:
    """Returns the plain values of the archive's json; None where it cannot be read.

    The archive has written the same metadata under ``meta.clinical`` and, since, under
    ``metadata.clinical``; identifiers have stood beside ``clinical`` as well as in it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            # NaN is no JSON and would not survive being written again
            document = json.loads(file.read(MAX_JSON_CHARACTERS), parse_constant=lambda _: None)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, Mapping):
        return None
    metadata: Metadata = {}
    outer = document.get("metadata") or document.get("meta")
    clinical = outer.get("clinical") if isinstance(outer, Mapping) else None
    for level in (document, outer, clinical):
        if isinstance(level, Mapping):
            metadata |= {k: valid_unicode(v) if isinstance(v, str) else v for k, v in _plain(level)}
    return metadata


def _plain(level: Mapping[str, Any]) -> Iterator[tuple[str, str | int | float]]:
    """Yields texts and numbers; what is too large for a number is infinite, and none."""
    for name, value in level.items():
        if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
            yield name, value


def image_stem(name: str) -> str:
    """Returns the name of an image without folders and suffix, with which some tables write it."""
    return without_suffix(name.replace("\\", "/").rpartition("/")[2])


def without_suffix(name: str) -> str:
    """Returns a name without the suffix of an image."""
    return re.sub(r"\.(jpe?g|png)\Z", "", name, flags=re.IGNORECASE)


def compared_name(name: str) -> str:
    """Returns the form in which the names of one image are the same wherever they stand."""
    return image_stem(name).upper().removesuffix("_DOWNSAMPLED")


SOURCE = Source("isic_archive", scan, card="isic_archive")
