"""MIMIC-CXR-JPG: ``files/p10/p10000032/s50414267/DICOM.jpg`` and tables by study and image."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nakt_dist.sources.chest import VIEWS, ChestTables, Problem, join, read_findings, view_of
from nakt_dist.sources.csv_tables import TableRow, find_table, quoted, read_rows
from nakt_dist.sources.files import FolderContents, FoundFile, walk
from nakt_dist.sources.findings import CHEXPERT_FINDINGS
from nakt_dist.sources.listing import (
    SourceListing,
    SourceRecord,
    check_choices,
    grouped,
    wrong_layout,
)
from nakt_dist.sources.registry import Source

LABELERS = ("chexpert", "negbio")
SPLITS = {"train": "train", "validate": "validation", "test": "test"}
_TABLE = re.compile(
    r"mimic-cxr-\d+\.\d+\.\d+-(?P<kind>chexpert|negbio|metadata|split)\.csv(\.gz)?", re.ASCII
)
_DICOM = re.compile(r"[\w-]{1,100}", re.ASCII)
_SUFFIXES = (".jpg", ".dcm", ".dicom", "")
"""Of MIMIC-CXR-JPG, and of the DICOM files of MIMIC-CXR that it was made of."""
_NUMBER = re.compile(r"[0-9]{1,12}")
_StudyLabels = tuple[str, Mapping[str, int] | None, Problem | None]
_PATIENT_FACTS = ("gender", "anchor_age", "anchor_year")
_OLDEST_TOLD = 89
_NOT_TOLD = "ages before a year in which the patient was above 89, taken as unknown"


def scan(root: Path, labeler: str = "chexpert", views: Sequence[str] = VIEWS) -> SourceListing:
    """Lists MIMIC-CXR-JPG; each image has the findings of its study: 1, 0, -1 or blank.

    The tables are those of version 2.0.0 or 2.1.0, compressed or not. Images are found by
    their name, the DICOM identifier; their folders must be those of the study and the patient.
    They may be the DICOM files of MIMIC-CXR instead; of an image in both forms the JPEG is used.
    A study without a row of labels gives images with the problem ``missing_label``. Where
    MIMIC-IV's ``patients.csv`` lies beside the tables, it gives sex and age.

    Args:
        root: the folder that holds ``files`` and the tables, at any depth.
        labeler: whose labels: ``chexpert`` or ``negbio``.
        views: which of ``frontal``, ``lateral`` and ``unknown`` to list; an image without a
            ViewPosition, or with one that tells neither, is unknown.

    Raises:
        ConfigurationError: the labeler or a view is unknown.
        DatasetError: the tables of metadata or labels are not there, or a table is not of the
            published form, or no named image is there.
    """
    check_choices("labeler", [labeler], LABELERS)
    contents = walk(root)
    names = {kind: _table_names(contents, kind) for kind in (labeler, "metadata", "split")}
    names["patients"] = ["patients.csv", "patients.csv.gz"]
    files = {kind: find_table(contents, *of_kind) for kind, of_kind in names.items()}
    metadata, labels = files["metadata"], files[labeler]
    if metadata is None or labels is None:
        kind = labeler if metadata else "metadata"
        raise wrong_layout(root, "mimic_cxr", f"'mimic-cxr-2.0.0-{kind}.csv.gz'")
    tables = ChestTables(root)
    known = _Known(
        labels=_read_labels(tables, labels),
        splits=_read_splits(tables, files["split"]),
        patients=_read_patients(tables, files["patients"]),
    )
    _read_metadata(tables, metadata, known)
    _count_studies(tables, known)
    by_dicom = _files_by_dicom(tables, contents)
    used = [file.name for file in files.values() if file]
    return join(
        contents, tables, lambda dicom: by_dicom.get(dicom, ()), views, CHEXPERT_FINDINGS, used
    )


@dataclass(frozen=True)
class _Known:
    """What the tables beside the metadata say.

    Attributes:
        labels: patient, findings and problem by study.
        splits: the published word by DICOM identifier; None without the table.
        patients: sex, anchor age and anchor year by patient.
        studies: patient by study, as the metadata name them.
    """

    labels: Mapping[str, _StudyLabels]
    splits: Mapping[str, str] | None
    patients: Mapping[str, tuple[str, ...]]
    studies: dict[str, str] = field(default_factory=dict)


def _table_names(contents: FolderContents, kind: str) -> list[str]:
    matches = (_TABLE.fullmatch(file.file_name) for file in contents.others)
    return [match[0] for match in matches if match and match["kind"] == kind]


def _read_labels(tables: ChestTables, table: FoundFile) -> dict[str, _StudyLabels]:
    labels: dict[str, _StudyLabels] = {}
    for row in read_rows(table, ("subject_id", "study_id", *CHEXPERT_FINDINGS), found=tables.found):
        tables.found["rows of labels"] += 1
        patient, study = row.cells[:2]
        if row.fault or not (_NUMBER.fullmatch(patient) and _NUMBER.fullmatch(study)):
            _refuse(tables, table, row, f"subject_id {quoted(patient)}, study_id {quoted(study)}")
            continue
        said = (patient, *read_findings(CHEXPERT_FINDINGS, row.cells[2:]))
        if labels.setdefault(study, said) == said:
            continue
        tables.found["rows that contradict another"] += 1
        detail = f"several rows of '{table.name}' label this study, and they differ"
        labels[study] = (patient, None, ("conflicting_rows", detail))
    return labels


def _read_splits(tables: ChestTables, table: FoundFile | None) -> dict[str, str] | None:
    if table is None:
        return None
    splits: dict[str, str] = {}
    for row in read_rows(table, ("dicom_id", "split"), found=tables.found):
        dicom, split = row.cells
        if row.fault or not _DICOM.fullmatch(dicom):
            _refuse(tables, table, row, f"dicom_id {quoted(dicom)}")
        elif splits.setdefault(dicom, split) != split:
            splits[dicom] = f"{splits[dicom]} and {split}"[:60]
    return splits


def _read_patients(tables: ChestTables, table: FoundFile | None) -> dict[str, tuple[str, ...]]:
    if table is None:
        return {}
    rows = list(read_rows(table, ("subject_id", *_PATIENT_FACTS)))
    tables.found["rows of patients that cannot be read"] = sum(bool(row.fault) for row in rows)
    return {row.cells[0]: row.cells[1:] for row in rows if not row.fault}


def _read_metadata(tables: ChestTables, table: FoundFile, known: _Known) -> None:
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition")
    for row in read_rows(table, columns, ("StudyDate",), found=tables.found):
        tables.found["rows of metadata"] += 1
        dicom, patient, study, projection, date = row.cells
        numbers = _NUMBER.fullmatch(patient) and _NUMBER.fullmatch(study)
        if row.fault or not (_DICOM.fullmatch(dicom) and numbers):
            identifiers = ", ".join(quoted(cell) for cell in (dicom, patient, study))
            _refuse(tables, table, row, f"dicom_id, subject_id, study_id {identifiers}")
            continue
        known.studies.setdefault(study, patient)
        findings, problem = _labels_of(known, patient, study)
        split, split_problem = _split_of(known, dicom)
        tables.add(
            dicom,
            name=_place(table.folder, dicom, patient, study),
            patient_id=patient,
            official_split=split,
            labels={
                **_sex_and_age(tables, known.patients.get(patient), date),
                "view": view_of(projection),
                "projection": projection.upper(),
                "study": study,
            },
            findings=findings,
            problem=split_problem or problem,
        )


def _refuse(tables: ChestTables, table: FoundFile, row: TableRow, what: str) -> None:
    expected = f"it names {what}; expected numbers, and letters and digits with - for an image"
    tables.refuse(table, row, "unreadable_row", row.fault or expected)


def _place(folder: str, dicom: str, patient: str, study: str) -> str:
    place = f"files/p{patient[:2]}/p{patient}/s{study}/{dicom}.jpg"
    return f"{folder}/{place}" if folder else place


def _labels_of(
    known: _Known, patient: str, study: str
) -> tuple[Mapping[str, int] | None, Problem | None]:
    if study not in known.labels:
        return None, ("missing_label", f"the table of labels has no row for the study {study}")
    labelled_patient, findings, problem = known.labels[study]
    if labelled_patient != patient:
        detail = f"the labels of study {study} are patient {labelled_patient}'s, not {patient}'s"
        return None, ("conflicting_rows", detail)
    return findings, problem


def _split_of(known: _Known, dicom: str) -> tuple[str | None, Problem | None]:
    word = (known.splits or {}).get(dicom)
    if word is None or word in SPLITS:
        return SPLITS.get(word or ""), None
    expected = f"expected {', '.join(SPLITS)}"
    return None, ("unreadable_split", f"the table of splits says {quoted(word)}; {expected}")


def _sex_and_age(
    tables: ChestTables, patient: tuple[str, ...] | None, date: str
) -> dict[str, str | int | None]:
    """Returns a patient's sex, and age in the year of the study as MIMIC-IV shifts the years.

    Who is above 89 in the anchor year has one age in MIMIC-IV, whatever the true one: it stands
    for above 89 from then on, and of the years before nothing is known.
    """
    if patient is None:
        return {}
    sex, anchor_age, anchor_year = patient
    texts = (anchor_age, anchor_year, date[:4])
    age = None
    if all(re.fullmatch("[0-9]{1,4}", text) for text in texts):
        at_anchor, since = int(anchor_age), int(date[:4]) - int(anchor_year)
        if at_anchor <= _OLDEST_TOLD:
            age = tables.age(str(at_anchor + since))
        elif since >= 0:
            age = tables.age(anchor_age)
        else:
            tables.found[_NOT_TOLD] += 1
    return {"sex": tables.sex(sex), "age": age}


def _count_studies(tables: ChestTables, known: _Known) -> None:
    """Counts what one table knows and the other does not."""
    images = tables.images.values()
    without_split = sum(image.official_split is None for image in images)
    without_view = sum("projection" not in image.labels for image in images)
    tables.found["studies named by the metadata"] = len(known.studies)
    tables.found["studies without a label row"] = len(known.studies.keys() - known.labels.keys())
    tables.found["label rows of no study"] = len(known.labels.keys() - known.studies.keys())
    tables.found["images without an official split"] = without_split
    tables.found["images without a ViewPosition"] = without_view
    if known.splits:
        tables.found["split rows of no image"] = len(known.splits.keys() - tables.images.keys())


def _files_by_dicom(tables: ChestTables, contents: FolderContents) -> dict[str, list[FoundFile]]:
    """Returns the files of each image that lie in the folders of its patient and study."""
    known = (
        file
        for file in contents.images
        if file.suffix in _SUFFIXES
        and (image := tables.images.get(file.stem))
        and _in_its_folders(file, image)
    )
    return grouped(
        known,
        key=lambda file: file.stem,
        first=lambda file: (file.suffix != ".jpg", file.name.count("/")),
    )


def _in_its_folders(file: FoundFile, image: SourceRecord) -> bool:
    return file.folder.split("/")[-2:] == image.name.split("/")[-3:-1]


SOURCE = Source("mimic_cxr", scan, card="mimic_cxr")
