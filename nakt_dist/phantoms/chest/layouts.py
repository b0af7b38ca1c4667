"""Writers of the three chest layouts, each exactly as its dataset is published.

A writer takes the drawings in order, stores them under the root and returns how many of
them show a finding other than support devices. Rows are in the order of the images, so
that the tables of a small dataset are the beginning of those of a larger one.
"""

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from nakt_dist.phantoms.chest.drawing import ChestPhantom
from nakt_dist.phantoms.chest.reports import (
    CHEXPERT_LABELS,
    agreed_labels,
    listed_findings,
    reported_labels,
)
from nakt_dist.phantoms.fields import keyed_generator
from nakt_dist.phantoms.layouts import Row, as_csv, as_lines, save_jpeg, save_png

CHEXPERT_FOLDER = "CheXpert-v1.0-small"
MIMIC_FOLDER = "files"
MIMIC_TABLES = tuple(f"mimic-cxr-2.0.0-{name}.csv.gz" for name in ("chexpert", "metadata", "split"))
CHESTXRAY14_TABLE = "Data_Entry_2017_v2020.csv"
CHESTXRAY14_LISTS = ("train_val_list.txt", "test_list.txt")
CHESTXRAY14_FOLDERS = tuple(f"images_{number:03d}" for number in range(1, 13))

# of every 100 images: how many lack a file, belong to a study without a label row, lack
# their ViewPosition (MIMIC-CXR-JPG), or are stored as RGBA (ChestX-ray14)
HUNDRED = 100
MISSING_FILES = 1
MISSING_LABEL_ROWS = 1
MISSING_VIEWS = 4
RGBA_FILES = 1
CHEXPERT_VALID_EVERY = 12  # one patient of so many
MIMIC_HELD_OUT_EVERY = 20  # one patient of so many is for validation, and two are for testing
CHESTXRAY14_TEST_EVERY = 5
FILES_PER_FOLDER = 40  # of ChestX-ray14, after which the next folder follows

_SPREAD = 6180339  # has no factor in common with 10**7, so that no identifier repeats


def write_chexpert(root: Path, drawings: Iterable[ChestPhantom]) -> int:
    """Writes `CheXpert-v1.0-small/{train,valid}/patientNNNNN/studyN/viewN_VIEW.jpg` and tables.

    Labels of `valid.csv` are those of a panel: 0 or 1, none blank or uncertain.
    """
    header: Row = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_LABELS]
    tables = {"train": [header], "valid": [header]}
    with_finding = 0
    (root / CHEXPERT_FOLDER).mkdir(parents=True)
    for drawing in drawings:
        visit, body = drawing.visit, drawing.body
        split = "valid" if visit.patient % CHEXPERT_VALID_EVERY == 2 else "train"
        view = "lateral" if visit.is_lateral else "frontal"
        path = (
            f"{CHEXPERT_FOLDER}/{split}/patient{visit.patient + 1:05d}/study{visit.study + 1}/"
            f"view{visit.view + 1}_{view}.jpg"
        )
        save_jpeg(drawing.grey, root / path)
        labels: Mapping[str, int | None] = (
            agreed_labels(drawing.signs) if split == "valid" else reported_labels(drawing)
        )
        projection = "" if visit.is_lateral else "AP" if visit.is_portable else "PA"
        sex = "Female" if body.is_female else "Male"
        values = [_decimal(labels[name]) for name in CHEXPERT_LABELS]
        tables[split].append([path, sex, body.age, view.capitalize(), projection, *values])
        with_finding += shows_finding(drawing)
    for split, rows in tables.items():
        (root / CHEXPERT_FOLDER / f"{split}.csv").write_text(as_csv(rows), encoding="utf-8")
    return with_finding


def write_mimic(root: Path, drawings: Iterable[ChestPhantom]) -> int:
    """Writes `files/pNN/pSUBJECT/sSTUDY/DICOM.jpg` and the label, metadata and split tables.

    Of every 100 images one lacks its file, one belongs to a study without a row of labels
    and four lack their ViewPosition.
    """
    names = sorted(CHEXPERT_LABELS)
    labels: list[Row] = [["subject_id", "study_id", *names]]
    metadata: list[Row] = [list(_MIMIC_METADATA)]
    splits: list[Row] = [["dicom_id", "study_id", "subject_id", "split"]]
    with_finding = 0
    (root / MIMIC_FOLDER).mkdir(parents=True)
    for drawing in drawings:
        visit = drawing.visit
        subject = 10_000_000 + (32 + visit.patient * _SPREAD) % 10_000_000
        study = 50_000_000 + (4321 + visit.first_image * _SPREAD) % 10_000_000
        numbers = keyed_generator(drawing.seed, f"{drawing.kind}/names", drawing.index)
        dicom = "-".join(f"{part:08x}" for part in numbers.integers(0, 2**32, 5).tolist())
        folder = root / MIMIC_FOLDER / f"p{subject // 10**6}" / f"p{subject}" / f"s{study}"
        if not _is_chosen(drawing, "missing files", drawing.index, MISSING_FILES):
            save_jpeg(drawing.grey, folder / f"{dicom}.jpg")
        if visit.view == 0 and not _lacks_labels(drawing):
            values = reported_labels(drawing)
            labels.append([subject, study, *(_decimal(values[name]) for name in names)])
        metadata.append(_mimic_metadata(drawing, dicom, subject, study))
        split = {7: "validate", 3: "test", 13: "test"}.get(
            visit.patient % MIMIC_HELD_OUT_EVERY, "train"
        )
        splits.append([dicom, study, subject, split])
        with_finding += shows_finding(drawing)
    for name, rows in zip(MIMIC_TABLES, (labels, metadata, splits), strict=True):
        (root / name).write_bytes(gzip.compress(as_csv(rows).encode(), mtime=0))
    return with_finding


def write_chestxray14(root: Path, drawings: Iterable[ChestPhantom]) -> int:
    """Writes `images_001/images/PATIENT_FOLLOWUP.png` to `images_012`, the table and two lists.

    Of every 100 images one is stored as RGBA. All twelve folders are filled from 441 images.
    """
    table: list[Row] = [list(_CHESTXRAY14_COLUMNS)]
    lists: dict[str, list[str]] = {name: [] for name in CHESTXRAY14_LISTS}
    with_finding = 0
    for folder in CHESTXRAY14_FOLDERS:
        (root / folder / "images").mkdir(parents=True)
    for drawing in drawings:
        visit, body = drawing.visit, drawing.body
        name = f"{visit.patient + 1:08d}_{visit.follow_up:03d}.png"
        place = drawing.index // FILES_PER_FOLDER % len(CHESTXRAY14_FOLDERS)
        image = Image.fromarray(drawing.grey)
        if _is_chosen(drawing, "RGBA", drawing.index, RGBA_FILES):
            image = image.convert("RGBA")
        path = root / CHESTXRAY14_FOLDERS[place] / "images" / name
        save_png(image, path)
        numbers = keyed_generator(drawing.seed, f"{drawing.kind}/detectors", visit.first_image)
        detector = _DETECTORS[int(numbers.integers(len(_DETECTORS)))]
        person = (visit.patient + 1, body.age + visit.study // 3, "F" if body.is_female else "M")
        view = "AP" if visit.is_portable else "PA"
        table.append([name, listed_findings(drawing), visit.follow_up, *person, view, *detector])
        is_test = visit.patient % CHESTXRAY14_TEST_EVERY == 1
        lists[CHESTXRAY14_LISTS[is_test]].append(name)
        with_finding += listed_findings(drawing) != "No Finding"
    # not as CSV: the header has commas within its names, unquoted
    rows = as_lines(",".join(map(str, row)) for row in table)
    (root / CHESTXRAY14_TABLE).write_text(rows, encoding="utf-8")
    for list_name, listed in lists.items():
        (root / list_name).write_text(as_lines(listed), encoding="utf-8")
    return with_finding


def shows_finding(drawing: ChestPhantom) -> bool:
    """Returns whether a CheXpert or MIMIC study shows a labelled finding but devices."""
    return agreed_labels(drawing.signs)["No Finding"] == 0


_CHESTXRAY14_COLUMNS = (
    "Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender",
    "View Position", "OriginalImage[Width", "Height]", "OriginalImagePixelSpacing[x", "y]",
)  # fmt: skip
_DETECTORS = (
    (2500, 2048, 0.171, 0.171),
    (2048, 2500, 0.171, 0.171),
    (2992, 2991, 0.143, 0.143),
    (3056, 2544, 0.139, 0.139),
)
_MIMIC_METADATA = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition",
    "Rows", "Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip


def _mimic_metadata(drawing: ChestPhantom, dicom: str, subject: int, study: int) -> Row:
    """Returns an image's row of the metadata table."""
    visit = drawing.visit
    of_patient = keyed_generator(drawing.seed, f"{drawing.kind}/dates", visit.patient)
    of_study = keyed_generator(drawing.seed, f"{drawing.kind}/times", visit.first_image)
    year = 2110 + int(of_patient.integers(90)) + visit.study
    month, day = int(of_study.integers(1, 13)), int(of_study.integers(1, 29))
    hour, minute, second = (int(of_study.integers(limit)) for limit in (24, 60, 60))
    thousandth = int(of_study.integers(1000))
    procedure = "CHEST (PORTABLE AP)" if visit.is_portable else "CHEST (PA AND LAT)"
    view, meaning = ("AP", "antero-posterior") if visit.is_portable else ("PA", "postero-anterior")
    if visit.is_lateral:
        view = "LL" if drawing.index % 2 else "LATERAL"
        meaning = "left lateral" if drawing.index % 2 else "lateral"
    if _is_chosen(drawing, "missing views", drawing.index, MISSING_VIEWS):
        view, meaning = "", ""
    time = f"{10000 * hour + 100 * minute + second}.{thousandth:03d}"
    return [
        *(dicom, subject, study, procedure, view, *drawing.grey.shape),
        *(f"{year}{month:02d}{day:02d}", time, procedure, meaning),
        "Recumbent" if visit.is_portable else "Erect",
    ]


def _is_chosen(drawing: ChestPhantom, what: str, index: int, share: int) -> bool:
    """Returns whether an image is among the `share` of its 100 neighbours drawn for something."""
    generator = keyed_generator(drawing.seed, f"{drawing.kind}/{what}", index // HUNDRED)
    return index % HUNDRED in generator.choice(HUNDRED, share, replace=False)


def _lacks_labels(drawing: ChestPhantom) -> bool:
    """Returns whether the study of an image has no row of labels, whichever image it is."""
    visit = drawing.visit
    images = range(visit.first_image, visit.first_image + visit.images_in_study)
    return any(_is_chosen(drawing, "labels", index, MISSING_LABEL_ROWS) for index in images)


def _decimal(value: int | None) -> str:
    return "" if value is None else f"{value}.0"
