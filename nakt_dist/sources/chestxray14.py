"""ChestX-ray14 (NIH): ``Data_Entry_2017.csv`` and ``images_001/images/00000001_000.png``."""

import functools
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from nakt_dist.errors import DatasetError
from nakt_dist.sources.chest import VIEWS, ChestTables, Problem, join, view_of
from nakt_dist.sources.csv_tables import TableRow, find_table, quoted, read_list, read_rows
from nakt_dist.sources.files import FolderContents, FoundFile, walk
from nakt_dist.sources.findings import LABEL_SETS, NO_FINDING, canonical_finding
from nakt_dist.sources.listing import SourceListing, grouped, wrong_layout
from nakt_dist.sources.registry import Source

FINDINGS = LABEL_SETS["chestxray14_with_no_finding"]
LISTS = {"train": "train_val_list.txt", "test": "test_list.txt"}
COLUMNS = ("Image Index", "Finding Labels", "Patient ID")
FACTS = ("Follow-up #", "Patient Age", "Patient Gender", "Patient Sex", "View Position")
_TABLE = re.compile(r"(?:Data_Entry_2017\w*|sample_labels)\.csv(?:\.gz)?", re.ASCII)
_NAME = re.compile(r"[\w-]{1,80}\.(?:png|jpe?g)", re.ASCII | re.IGNORECASE)
_PATIENT = re.compile(r"[\w-]{1,40}", re.ASCII)


def scan(root: Path, table: str | None = None, views: Sequence[str] = VIEWS) -> SourceListing:
    """Lists ChestX-ray14 or its 5 % sample; each image has all 15 findings as 1 or 0.

    Images are found by their name in any folder; where one lies there several times, those in
    folders whose name begins with ``images`` go first. ``train_val_list.txt`` and
    ``test_list.txt`` give the official splits ``train`` and ``test`` where they are there.

    Args:
        root: the folder that holds the table and the images, at any depth.
        table: file name of the table, needed where several versions of it are there.
        views: which of ``frontal``, ``lateral`` and ``unknown`` to list; the dataset is frontal.

    Raises:
        ConfigurationError: a view is unknown.
        DatasetError: there is no table, there are several and none was chosen, or one is not
            of the published form, or no named image is there.
    """
    contents = walk(root)
    entries = _entry_table(root, contents, table)
    tables = ChestTables(root)
    lists = {split: find_table(contents, name) for split, name in LISTS.items()}
    splits = _read_lists(lists)
    for row in read_rows(entries, COLUMNS, FACTS, wide_rows=True, found=tables.found):
        tables.found["rows in the table"] += 1
        _add(tables, entries, row, splits)
    if any(lists.values()):
        images = tables.images
        without_split = sum(image.official_split is None for image in images.values())
        tables.found["images without an official split"] = without_split
        tables.found["listed names without a row"] = len(splits.keys() - images.keys())
    by_name = grouped(
        contents.images,
        key=lambda file: file.file_name,
        first=lambda file: (not _in_images(file), file.name.count("/"), file.name),
    )
    used = [file.name for file in (entries, *lists.values()) if file]
    return join(contents, tables, lambda name: by_name.get(name, ()), views, FINDINGS, used)


def _entry_table(root: Path, contents: FolderContents, name: str | None) -> FoundFile:
    known = {file.file_name for file in contents.others if _TABLE.fullmatch(file.file_name)}
    if name is None and len(known) > 1:
        raise DatasetError(
            f"There are several tables ({', '.join(sorted(known))}); choose one with the option "
            "'table', such as table: 'Data_Entry_2017_v2020.csv'"
        )
    found = find_table(contents, *([name] if name else known))
    if found is None:
        expected = f"the table '{name}'" if name else "'Data_Entry_2017.csv' or 'sample_labels.csv'"
        raise wrong_layout(root, "chestxray14", expected)
    return found


def _read_lists(lists: Mapping[str, FoundFile | None]) -> dict[str, set[str]]:
    """Returns the splits of each listed name; more than one is a contradiction."""
    splits: dict[str, set[str]] = defaultdict(set)
    for split, file in lists.items():
        for name in read_list(file) if file else ():
            splits[name].add(split)
    return splits


def _add(
    tables: ChestTables, table: FoundFile, row: TableRow, splits: Mapping[str, set[str]]
) -> None:
    name, words, patient, follow_up, age, gender, sex, projection = row.cells
    if row.fault:
        tables.refuse(table, row, "unreadable_row", row.fault)
        return
    if not _NAME.fullmatch(name):
        detail = f"'Image Index' is {quoted(name)}; expected a file name such as 00000001_000.png"
        tables.refuse(table, row, "unsafe_path", detail)
        return
    findings, problem = _read_words(words)
    official = splits.get(name, set())
    if len(official) > 1:
        problem = ("conflicting_split", f"{' and '.join(LISTS.values())} both name this image")
    elif not _PATIENT.fullmatch(patient):
        problem = ("unreadable_patient", f"'Patient ID' is {quoted(patient)}; expected a number")
    known_patient = patient if _PATIENT.fullmatch(patient) else None
    tables.add(
        name,
        name=f"{table.folder}/images/{name}" if table.folder else f"images/{name}",
        patient_id=known_patient,
        official_split=next(iter(official)) if len(official) == 1 else None,
        labels={
            "sex": tables.sex(gender or sex),
            "age": tables.age(age),
            "view": view_of(projection),
            "projection": projection.upper(),
            "study": f"{patient}/{follow_up}" if known_patient and follow_up else None,
        },
        findings=findings,
        problem=problem,
    )


@functools.lru_cache(maxsize=10_000)
def _read_words(words: str) -> tuple[Mapping[str, int] | None, Problem | None]:
    """Reads ``Cardiomegaly|Effusion``; rows with the same words share one mapping."""
    present = {canonical_finding(word.strip()) for word in words.split("|")}
    unknown = present - set(FINDINGS)
    if not words:
        return None, ("missing_label", "'Finding Labels' is empty; expected 'No Finding' or names")
    if unknown:
        wrong = ", ".join(quoted(word) for word in sorted(unknown)[:3])
        detail = f"'Finding Labels' names {wrong}; expected {', '.join(FINDINGS)}"
        return None, ("unreadable_label", detail)
    if NO_FINDING in present and len(present) > 1:
        return None, ("ambiguous_label", f"'Finding Labels' is {quoted(words)}: none and some")
    return {name: int(name in present) for name in FINDINGS}, None


def _in_images(file: FoundFile) -> bool:
    return file.folder.rpartition("/")[2].lower().startswith("images")


SOURCE = Source(
    "chestxray14",
    scan,
    card="chestxray14",
    split_files=tuple(LISTS.values()),
    path_options=("table",),
)
