"""ISIC 2019, dermoscopy: ``ISIC_2019_Training_Input/`` and its table of diagnoses."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from nakt_dist.errors import DatasetError
from nakt_dist.sources.chest import Problem, label_of
from nakt_dist.sources.csv_tables import column_names, find_table, quoted, read_rows
from nakt_dist.sources.files import FoundFile, walk
from nakt_dist.sources.isic_archive import ISIC_NAME, compared_name, image_stem
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

IMAGE_FOLDER = "ISIC_2019_Training_Input"
TEST_FOLDER = "ISIC_2019_Test_Input"
LABEL_TABLE = "ISIC_2019_Training_GroundTruth.csv"
FACT_TABLE = "ISIC_2019_Training_Metadata.csv"
FACTS = ("age_approx", "sex", "anatom_site_general")


def scan(root: Path) -> SourceListing:
    """Lists the training images with their diagnosis; the dataset has no masks.

    Where the table of facts is there, the lesion takes the place of the patient, so that
    all images of one lesion stay in one split. ``_downsampled`` at the end of a name, a
    suffix, folders and letter case are left away when names are compared.

    Args:
        root: the folder that contains ``ISIC_2019_Training_Input`` and the tables.

    Raises:
        DatasetError: the images or the table of diagnoses are not there, or the table is
            not of the published form.
    """
    contents = walk(root)
    tables = [find_table(contents, name) for name in (LABEL_TABLE, FACT_TABLE)]
    if tables[0] is None:
        raise wrong_layout(root, "isic2019", f"the table '{LABEL_TABLE}'")
    found: Counter[str] = Counter()
    faults: dict[str, Problem] = {}
    rows = _read_rows(tables[0], found, faults)
    facts = _read_rows(tables[1], found, faults) if tables[1] else {}

    records, images, other_part = [], [], 0
    for file in contents.images:
        folders = file.folder.split("/")
        named = ISIC_NAME.fullmatch(file.stem) or compared_name(file.stem) in rows
        if IMAGE_FOLDER in folders and named and file.suffix in (".jpg", ".jpeg"):
            images.append(file)
        elif TEST_FOLDER in folders:
            other_part += 1
        else:
            records.append(unrecognised(file, f"'{IMAGE_FOLDER}/ISIC_NUMBER.jpg'"))
    if not images:
        raise wrong_layout(root, "isic2019", f"'ISIC_NUMBER.jpg' images in '{IMAGE_FOLDER}'")
    _require_a_row(rows, images, tables[0])
    if tables[1]:
        _require_a_row(facts, images, tables[1])
    records += [_record(image, rows, facts, faults) for image in images]
    there = {compared_name(image.stem) for image in images}
    found["images without a row of diagnoses"] = len(there - rows.keys())
    found["images without a row of facts, of no known lesion"] = (
        len(there - facts.keys()) if tables[1] else 0
    )
    for key in rows.keys() - there:
        name = f"{IMAGE_FOLDER}/{image_stem(rows[key]['image'])}.jpg"
        records.append(missing_image(name, root / name, f"'{LABEL_TABLE}'"))
    used = [table.name for table in tables if table]
    listing = finish_listing(contents, records, {f"folder {TEST_FOLDER}": other_part}, used)
    return replace(listing, found={words: n for words, n in sorted(found.items()) if n})


def _require_a_row(
    rows: Mapping[str, Mapping[str, str]], images: Sequence[FoundFile], table: FoundFile
) -> None:
    """Refuses a table of which no row names an image: all would be without what it says."""
    if rows and rows.keys().isdisjoint(compared_name(image.stem) for image in images):
        named = next(iter(rows.values()))["image"]
        raise DatasetError(
            f"'{table.name}' names none of the {len(images)} images; it names {quoted(named)}, and "
            f"an image is '{images[0].name}'. Take the table that belongs to these images"
        )


def _read_rows(
    table: FoundFile, found: Counter[str], faults: dict[str, Problem]
) -> dict[str, dict[str, str]]:
    """Reads a table whose column ``image`` names the images, keyed by the compared name.

    Args:
        faults: gets what is wrong with rows, such as a cell too many: theirs are not to be used.
    """
    rows: dict[str, dict[str, str]] = {}
    names = column_names(table, ("image",))
    if len(names) < 2:
        raise DatasetError(
            f"The header of '{table.name}' has no column but 'image'; expected one for each class "
            "or fact. Download the table again"
        )
    for row in read_rows(table, names, found=found):
        cells = dict(zip(names, row.cells, strict=True))
        key = compared_name(cells["image"])
        if key in rows:
            raise DatasetError(
                f"'{table.name}', line {row.line}: the image {quoted(cells['image'])} stands "
                "there for the second time; remove one of the two lines"
            )
        rows[key] = cells
        if row.fault:
            faults[key] = ("unreadable_row", f"'{table.name}', line {row.line}: {row.fault}")
    return rows


def _record(
    image: FoundFile,
    rows: Mapping[str, Mapping[str, str]],
    facts: Mapping[str, Mapping[str, str]],
    faults: Mapping[str, Problem],
) -> SourceRecord:
    key = compared_name(image.stem)
    diagnosis, problem = _diagnosis(rows[key]) if key in rows else (None, None)
    if key in faults:
        return image_record(image, problem=problem or faults[key])
    known = facts.get(key, {})
    lesion = (known.get("lesion_id") or "").strip()
    labels = {fact: known[fact] for fact in FACTS if known.get(fact)}
    return image_record(
        image,
        problem=problem,
        patient_id=f"lesion {lesion}" if lesion else None,
        stratum=diagnosis or "",
        labels={"class": diagnosis, **labels},
    )


def _diagnosis(row: Mapping[str, str]) -> tuple[str | None, tuple[str, str] | None]:
    """Returns the one class whose column holds 1, and what is wrong with the row if anything."""
    marked = []
    for column, value in row.items():
        if column == "image":
            continue
        label = _label(value)
        if label is None:
            detail = f"column {column!r} of '{LABEL_TABLE}' holds {value!r}; expected 0.0 or 1.0"
            return None, ("unreadable_label", detail)
        if label:
            marked.append(column)
    if len(marked) > 1:
        detail = f"'{LABEL_TABLE}' marks {' and '.join(marked)}; expected one class"
        return None, ("ambiguous_label", detail)
    return (marked[0] if marked else None), None


def _label(cell: str) -> bool | None:
    """Returns whether a cell says present, or absent; None for anything else."""
    try:
        label = label_of(cell)
    except KeyError:
        return None
    return bool(label) if label in (0, 1) else None


SOURCE = Source("isic2019", scan, card="isic2019")
