"""CheXpert: ``train.csv`` beside ``train/patient00001/study1/view1_frontal.jpg``."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nakt_dist.sources.chest import VIEWS, ChestTables, join, read_findings, view_of
from nakt_dist.sources.csv_tables import TableRow, find_table, quoted, read_rows
from nakt_dist.sources.files import FoundFile, walk
from nakt_dist.sources.findings import CHEXPERT_FINDINGS
from nakt_dist.sources.listing import SourceListing, grouped, wrong_layout
from nakt_dist.sources.registry import Source

TABLES = {
    "train": ("train.csv", "train.csv.gz"),
    "valid": ("valid.csv", "valid.csv.gz", "val_labels.csv"),
    "test": ("test.csv", "test.csv.gz", "test_labels.csv"),
}
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
FACTS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_PATH = re.compile(
    r"(?:.*?/)??(?:(?P<part>train|valid|test)/)?"
    r"(?P<tail>(?P<patient>patient\d{1,9})/(?P<study>study\d{1,6})/[\w.-]{1,60}\.(?:jpe?g|png))",
    re.ASCII,
)


def scan(root: Path, views: Sequence[str] = VIEWS) -> SourceListing:
    """Lists CheXpert, full size or small, with its findings as published: 1, 0, -1 or blank.

    Images are found by part, patient, study and name, whatever stands before these in the
    tables (``CheXpert-v1.0/``, ``CheXpert-v1.0-small/``, nothing) or on disk: ``root`` may be
    the dataset's folder or one above it, and the folders of the four download batches
    (``CheXpert-v1.0 batch 2 (train 1)``) may stand side by side.

    Args:
        root: the folder that holds the tables and the images, at any depth.
        views: which of ``frontal``, ``lateral`` and ``unknown`` to list.

    Raises:
        ConfigurationError: a view is unknown.
        DatasetError: there is neither ``train.csv`` nor ``valid.csv`` nor ``test.csv``, or one
            is not of the published form, or no named image is there.
    """
    contents = walk(root)
    found = {part: find_table(contents, *names) for part, names in TABLES.items()}
    if not any(found.values()):
        raise wrong_layout(root, "chexpert", "'train.csv' or 'valid.csv'")
    tables = ChestTables(root)
    for part, table in found.items():
        if table is not None:
            _read(tables, table, part)
    by_tail = grouped(contents.images, lambda file: "/".join(file.name.split("/")[-3:]))
    used = [table.name for table in found.values() if table]
    return join(contents, tables, lambda key: _files(by_tail, key), views, CHEXPERT_FINDINGS, used)


def _read(tables: ChestTables, table: FoundFile, part: str) -> None:
    for row in read_rows(table, ("Path", *CHEXPERT_FINDINGS), FACTS, found=tables.found):
        tables.found[f"rows in {table.file_name}"] += 1
        path = row.cells[0]
        match = _PATH.fullmatch(path) if ".." not in path.split("/") else None
        if row.fault:
            tables.refuse(table, row, "unreadable_row", row.fault)
        elif match is None:
            detail = f"'Path' is {quoted(path)}; expected '…/patientNUMBER/studyNUMBER/NAME.jpg'"
            tables.refuse(table, row, "unsafe_path", detail)
        else:
            place = f"{match['part'] or part}/{match['tail']}"
            _add(tables, table, row, match, place, SPLITS[part])


def _add(
    tables: ChestTables,
    table: FoundFile,
    row: TableRow,
    path: re.Match[str],
    place: str,
    split: str,
) -> None:
    labels = len(CHEXPERT_FINDINGS) + 1
    sex, age, side, projection = row.cells[labels:]
    findings, problem = read_findings(CHEXPERT_FINDINGS, row.cells[1:labels])
    side = side.lower()
    tables.add(
        place,
        name=f"{table.folder}/{place}" if table.folder else place,
        patient_id=path["patient"],
        official_split=split,
        labels={
            "sex": tables.sex(sex),
            "age": tables.age(age),
            "view": side if side in VIEWS[:2] else _view_in_name(place) or view_of(projection),
            "projection": projection.upper(),
            "study": f"{path['patient']}/{path['study']}",
        },
        findings=findings,
        problem=problem,
    )


def _view_in_name(place: str) -> str | None:
    """Returns the view that a name such as ``view1_frontal.jpg`` ends with, or None."""
    stem = place.rpartition(".")[0].lower()
    return next((view for view in VIEWS[:2] if stem.endswith(f"_{view}")), None)


def _files(by_tail: Mapping[str, list[FoundFile]], place: str) -> list[FoundFile]:
    """Returns the files of an image: those in the folder of its part, and those in none."""
    part, _, tail = place.partition("/")
    return [file for file in by_tail.get(tail, ()) if _part(file) in (part, None)]


def _part(file: FoundFile) -> str | None:
    """Returns the part whose folder holds the patient's, None in a folder of another name."""
    folders = file.name.split("/")[-4:-3]
    return folders[0] if folders and folders[0] in SPLITS else None


SOURCE = Source("chexpert", scan, card="chexpert")
