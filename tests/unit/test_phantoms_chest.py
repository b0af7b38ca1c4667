"""The chest phantoms: layouts, labels, patients, and what the films show."""

import csv
import gzip
import hashlib
import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nakt_dist.phantoms import PHANTOM_KINDS, write_phantom_dataset
from nakt_dist.phantoms.chest import draw_chest, frontal
from nakt_dist.phantoms.chest.devices import curve
from nakt_dist.phantoms.chest.film import HOSPITALS
from nakt_dist.phantoms.chest.findings import SIGNS, Sign, study_signs
from nakt_dist.phantoms.chest.frame import Frame
from nakt_dist.phantoms.chest.patients import BLOCK_IMAGES, BLOCK_PATIENTS, draw_body, find_visit
from nakt_dist.phantoms.chest.reports import (
    CHESTXRAY14_LABELS,
    CHEXPERT_LABELS,
    agreed_labels,
    listed_findings,
    reported_labels,
)
from nakt_dist.phantoms.chest.signs import cast_shadows
from nakt_dist.phantoms.fields import keyed_generator
from nakt_dist.sources import findings as source_findings
from nakt_dist.sources import scan_source

KINDS = tuple(HOSPITALS)
COUNT = 240
SIZE = 32
DICOM = re.compile(r"([0-9a-f]{8}-){4}[0-9a-f]{8}")


def tree(root: Path) -> dict[str, str]:
    """Maps each file under the root to a digest of its bytes."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def table(path: Path) -> list[list[str]]:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", newline="") as handle:
        return list(csv.reader(handle))


def rows(path: Path) -> list[dict[str, str]]:
    header, *body = table(path)
    return [dict(zip(header, row, strict=True)) for row in body]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """The root of one dataset of 240 images per kind."""
    root = tmp_path_factory.mktemp("chest")
    for kind in KINDS:
        write_phantom_dataset(kind, root / kind, COUNT, SIZE, seed=3)
    return {kind: root / kind for kind in KINDS}


@pytest.fixture(scope="module")
def drawings():
    """400 small drawings per kind, and what is known about them."""
    return {kind: [draw_chest(kind, 0, index, 32) for index in range(400)] for kind in KINDS}


def sign(finding: str, severity: float = 0.9, side: int = 1, form: float = 0.7) -> Sign:
    return Sign(finding, severity, side, lateral=0.5, height=0.5, depth=0.5, form=form)


def film(signs: dict[str, Sign]) -> tuple[np.ndarray, np.ndarray]:
    """Density and markings of a frontal film of 128 rows with the given signs."""
    body = draw_body(0, "test", 1)
    chest = frontal.frontal_chest(keyed_generator(0, "test", 0), body, {}, False)
    frame = Frame(128, 128)
    lungs = frontal.frontal_lungs(chest, frame)
    return lungs, cast_shadows(keyed_generator(0, "test", 1), lungs, signs)


# --- repeatability -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_same_settings_give_the_same_bytes_and_other_seeds_others(tmp_path, kind):
    same, again = (
        tree(write_phantom_dataset(kind, tmp_path / name, 24, SIZE, seed=3).root)
        for name in ("same", "again")
    )
    assert again == same
    other = tree(write_phantom_dataset(kind, tmp_path / "other", 5, SIZE, seed=4).root)
    assert not set(other.values()) - {hashlib.sha256(b"").hexdigest()} & set(same.values())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 71])
def test_a_small_dataset_is_the_beginning_of_a_larger_one(datasets, tmp_path, kind, count):
    small_root = write_phantom_dataset(kind, tmp_path, count, SIZE, seed=3).root
    small, large = tree(small_root), tree(datasets[kind])
    for name, digest in small.items():
        path, whole = small_root / name, datasets[kind] / name
        if path.suffix in {".jpg", ".png"}:
            assert large[name] == digest
        elif path.suffix in {".csv", ".txt", ".gz"}:
            read = gzip.decompress if path.suffix == ".gz" else bytes
            assert read(whole.read_bytes()).startswith(read(path.read_bytes()))


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_does_not_depend_on_those_before_it(drawings, kind):
    for index in (399, 17):
        assert np.array_equal(draw_chest(kind, 0, index, 32).grey, drawings[kind][index].grey)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("image_size", [32, 129, 300])
def test_every_size_is_drawn(kind, image_size):
    for index in range(4):
        grey = draw_chest(kind, 2**64 - 1, index, image_size).grey
        assert grey.dtype == np.uint8
        assert abs((grey.shape[0] * grey.shape[1]) ** 0.5 - image_size) < 0.01 * image_size + 1


# --- patients and studies ----------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**64 - 1), block=st.integers(0, 5000), kind=st.sampled_from(KINDS))
def test_every_block_holds_whole_patients_and_studies(seed, block, kind):
    places = range(block * BLOCK_IMAGES, (block + 1) * BLOCK_IMAGES)
    visits = {place: find_visit(seed, kind, HOSPITALS[kind].habits, place) for place in places}
    patients = [visit.patient for visit in visits.values()]
    first = block * BLOCK_PATIENTS
    assert patients == sorted(patients)
    assert set(patients) == set(range(first, first + BLOCK_PATIENTS))
    for place, visit in visits.items():
        assert visit.first_image + visit.view == place
        assert visit.view < visit.images_in_study
        assert not (visit.is_lateral and visit.is_portable)
    for patient in set(patients):
        of_patient = [visit for visit in visits.values() if visit.patient == patient]
        assert [visit.follow_up for visit in of_patient] == list(range(len(of_patient)))
        studies = [visit.study for visit in of_patient]
        assert studies == sorted(studies) and set(studies) == set(range(max(studies) + 1))


@pytest.mark.parametrize("kind", KINDS)
def test_patients_have_several_images_and_studies_share_their_signs(drawings, kind):
    of_patient, of_study = defaultdict(list), defaultdict(list)
    for drawing in drawings[kind]:
        of_patient[drawing.visit.patient].append(drawing)
        of_study[drawing.visit.first_image].append(drawing)
    assert sum(len(images) > 1 for images in of_patient.values()) > len(of_patient) / 3
    assert sum(images[-1].visit.study > 0 for images in of_patient.values()) > 20
    for images in of_patient.values():
        assert len({image.body for image in images}) == 1
    for images in of_study.values():
        assert all(image.signs == images[0].signs for image in images)
        assert len({tuple(reported_labels(image).items()) for image in images}) == 1


def test_hospitals_differ_in_views_and_bedside_films(drawings):
    lateral = {k: np.mean([d.visit.is_lateral for d in drawings[k]]) for k in KINDS}
    portable = {k: np.mean([d.visit.is_portable for d in drawings[k]]) for k in KINDS}
    devices = {k: np.mean(["Support Devices" in d.signs for d in drawings[k]]) for k in KINDS}
    assert lateral["chest_chestxray14"] == 0
    assert 0.08 < lateral["chest_chexpert"] < lateral["chest_mimic"] < 0.35
    assert portable["chest_chexpert"] > portable["chest_mimic"]
    assert portable["chest_chexpert"] > portable["chest_chestxray14"] > 0.2
    assert all(0.12 < share < 0.45 for share in devices.values())


# --- what the tables say -----------------------------------------------------------------


def test_vocabularies_are_those_of_the_readers():
    assert CHEXPERT_LABELS == source_findings.CHEXPERT_FINDINGS
    canonical = {"Effusion": "Pleural Effusion", "Pleural_Thickening": "Pleural Thickening"}
    mapped = tuple(canonical.get(label, label) for label in CHESTXRAY14_LABELS)
    assert mapped == source_findings.CHESTXRAY14_FINDINGS


def test_chexpert_layout(datasets):
    root = datasets["chest_chexpert"]
    tables = {split: root / "CheXpert-v1.0-small" / f"{split}.csv" for split in ("train", "valid")}
    header = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_LABELS]
    listed, patients = [], {}
    for split, path in tables.items():
        assert table(path)[0] == header
        for row in rows(path):
            wanted = (
                rf"CheXpert-v1.0-small/{split}/(patient\d{{5}})/study\d+/"
                rf"view\d_{row['Frontal/Lateral'].lower()}\.jpg"
            )
            patient = re.fullmatch(wanted, row["Path"])[1]
            facts = (split, row["Sex"], row["Age"])
            assert patients.setdefault(patient, facts) == facts
            assert row["AP/PA"] in (("",) if row["Frontal/Lateral"] == "Lateral" else ("AP", "PA"))
            allowed = {"0.0", "1.0"} if split == "valid" else {"", "-1.0", "0.0", "1.0"}
            assert {row[label] for label in CHEXPERT_LABELS} <= allowed
            listed.append(row["Path"])
    present = {path.relative_to(root).as_posix() for path in root.rglob("*.jpg")}
    assert len(listed) == COUNT and set(listed) == present
    assert {facts[0] for facts in patients.values()} == {"train", "valid"}
    assert {facts[1] for facts in patients.values()} == {"Female", "Male"}


def test_mimic_layout_and_its_oddities(datasets):
    root = datasets["chest_mimic"]
    names = {name: f"mimic-cxr-2.0.0-{name}.csv.gz" for name in ("chexpert", "metadata", "split")}
    labels, metadata, splits = (rows(root / name) for name in names.values())
    assert table(root / names["chexpert"])[0] == [
        "subject_id",
        "study_id",
        *sorted(CHEXPERT_LABELS),
    ]
    assert list(metadata[0]) == [
        *("dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription"),
        *("ViewPosition", "Rows", "Columns", "StudyDate", "StudyTime"),
        *("ProcedureCodeSequence_CodeMeaning", "ViewCodeSequence_CodeMeaning"),
        "PatientOrientationCodeSequence_CodeMeaning",
    ]
    assert list(splits[0]) == ["dicom_id", "study_id", "subject_id", "split"]
    assert len(metadata) == len(splits) == COUNT
    present = {path.stem: path for path in root.rglob("*.jpg")}
    assert len({row["dicom_id"] for row in metadata}) == COUNT
    for row in metadata:
        assert DICOM.fullmatch(row["dicom_id"])
        assert re.fullmatch(r"1\d{7}", row["subject_id"]) and re.fullmatch(
            r"5\d{7}", row["study_id"]
        )
        if row["dicom_id"] in present:
            path = present[row["dicom_id"]]
            folder = f"files/p{row['subject_id'][:2]}/p{row['subject_id']}/s{row['study_id']}"
            assert path.parent.relative_to(root).as_posix() == folder
            with Image.open(path) as image:
                assert (str(image.height), str(image.width)) == (row["Rows"], row["Columns"])
    studies = {row["study_id"] for row in metadata}
    labelled = [row["study_id"] for row in labels]
    assert len(labelled) == len(set(labelled)) and set(labelled) < studies
    assert 2 <= len(studies) - len(labelled) <= 4  # one of every hundred images
    assert 2 <= COUNT - len(present) <= 3
    assert 8 <= sum(row["ViewPosition"] == "" for row in metadata) <= 12
    assert {row["ViewPosition"] for row in metadata} == {"", "AP", "PA", "LATERAL", "LL"}


def test_gzip_tables_hold_no_time(datasets):
    for path in datasets["chest_mimic"].glob("*.gz"):
        assert path.read_bytes()[4:8] == bytes(4)


def test_chestxray14_layout(datasets):
    root = datasets["chest_chestxray14"]
    lines = (root / "Data_Entry_2017_v2020.csv").read_text().splitlines()
    assert lines[0] == (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    )
    lists = [(root / name).read_text().split() for name in ("train_val_list.txt", "test_list.txt")]
    folders = sorted(path.name for path in root.glob("images_*"))
    assert folders == [f"images_{number:03d}" for number in range(1, 13)]
    files = {path.name: path for path in root.glob("images_*/images/*.png")}
    entries = [line.split(",") for line in lines[1:]]
    assert all(len(entry) == 11 for entry in entries)
    assert {entry[0] for entry in entries} == set(files) == {*lists[0], *lists[1]}
    assert len(files) == COUNT == len(lists[0]) + len(lists[1])
    patients = [{name[:8] for name in listed} for listed in lists]
    assert patients[0] and patients[1] and not patients[0] & patients[1]
    for name, findings, follow_up, patient, age, sex, view, *detector in entries:
        assert name == f"{int(patient):08d}_{int(follow_up):03d}.png"
        named = findings.split("|")
        assert named == sorted(set(named))
        assert named == ["No Finding"] or set(named) <= set(CHESTXRAY14_LABELS)
        assert 0 < int(age) < 100 and sex in "FM" and view in ("PA", "AP") and len(detector) == 4
    modes = Counter(Image.open(path).mode for path in files.values())
    assert set(modes) == {"L", "RGBA"} and 2 <= modes["RGBA"] <= 3


@pytest.mark.parametrize("kind", KINDS)
def test_our_readers_take_them_as_published_and_split_by_patient(datasets, kind):
    listing = scan_source(PHANTOM_KINDS[kind].layout, datasets[kind], {})
    assert len(listing.records) == COUNT
    splits = defaultdict(set)
    for record in listing.records:
        splits[record.patient_id].add(record.official_split)
    assert all(len(of_patient) == 1 for of_patient in splits.values())
    problems = Counter(record.problem[0] for record in listing.records if record.problem)
    wanted = {"missing_image", "missing_label"} if kind == "chest_mimic" else set()
    assert set(problems) == wanted


# --- labels ------------------------------------------------------------------------------


def test_labels_agree_with_one_another(drawings):
    for drawing in drawings["chest_chexpert"] + drawings["chest_mimic"]:
        values = reported_labels(drawing)
        assert tuple(values) == CHEXPERT_LABELS
        assert set(values.values()) <= {1, 0, -1, None}
        kinds = ("Edema", "Consolidation", "Pneumonia", "Lung Lesion", "Atelectasis")
        if 1 in [values[kind] for kind in kinds]:
            assert values["Lung Opacity"] == 1
        if values["Cardiomegaly"] == 1:
            assert values["Enlarged Cardiomediastinum"] == 1
        found = [label for label in CHEXPERT_LABELS[1:-1] if values[label] in (1, -1)]
        assert values["No Finding"] == (None if found else 1)


def test_labels_follow_the_signs(drawings):
    clear, faint, absent = Counter(), Counter(), Counter()
    for drawing in drawings["chest_chexpert"] + drawings["chest_mimic"]:
        values = reported_labels(drawing)
        for label in ("Pleural Effusion", "Pneumothorax", "Fracture", "Edema"):
            shown = drawing.signs.get(label)
            counts = absent if shown is None else faint if shown.is_faint else clear
            counts[values[label]] += 1
    assert clear[1] > 0.9 * clear.total()
    assert faint[-1] > 0.4 * faint.total() and faint[None] > 0
    assert absent[1] == 0 and 0 < absent[-1] < 0.05 * absent.total()
    assert absent[None] > 0.5 * absent.total() and absent[0] > 0.05 * absent.total()


@pytest.mark.parametrize("kind", ["chest_chexpert", "chest_mimic"])
def test_main_findings_are_common_and_rare_ones_rare(kind):
    hospital = HOSPITALS[kind]
    counts, images = Counter(), 3000
    for index in range(images):
        visit = find_visit(0, kind, hospital.habits, index)
        signs = study_signs(0, kind, visit.patient, visit.first_image, visit.is_portable)
        assert set(signs) <= set(SIGNS)
        counts.update(label for label, value in agreed_labels(signs).items() if value)
    main = ("Cardiomegaly", "Edema", "Atelectasis", "Pleural Effusion", "Support Devices")
    main += ("Consolidation", "Pneumonia", "Pneumothorax", "Lung Lesion", "No Finding")
    assert all(0.09 < counts[label] / images < 0.36 for label in main), counts
    assert all(0.03 < counts[label] / images < 0.12 for label in ("Fracture", "Pleural Other"))


def test_panel_labels_by_hand():
    signs = {"Cardiomegaly": sign("Cardiomegaly"), "Edema": sign("Edema", severity=0.2)}
    positive = {label for label, value in agreed_labels(signs).items() if value}
    assert positive == {"Cardiomegaly", "Enlarged Cardiomediastinum"}
    devices = {"Support Devices": sign("Support Devices")}
    positive = {label for label, value in agreed_labels(devices).items() if value}
    assert positive == {"No Finding", "Support Devices"}


def test_nodules_are_small_and_masses_large(drawings):
    listed = [listed_findings(drawing).split("|") for drawing in drawings["chest_chestxray14"]]
    forms = {"Mass": [], "Nodule": []}
    for findings, drawing in zip(listed, drawings["chest_chestxray14"], strict=True):
        for label in {"Mass", "Nodule"} & set(findings):
            forms[label].append(drawing.signs["Lung Lesion"].form)
        assert not {"Mass", "Nodule"} <= set(findings)
    assert max(forms["Nodule"]) < min(forms["Mass"])


# --- what the films show -----------------------------------------------------------------


def test_an_effusion_has_a_level_on_its_side_alone():
    lungs, shadows = film({"Pleural Effusion": sign("Pleural Effusion", side=1)})
    inside = lungs.air > 0.5
    left, right = (side & inside for side in (lungs.frame.across > 0, lungs.frame.across < 0))
    assert not shadows.fluid[right].any()
    assert shadows.fluid[left & (lungs.base < 0.1)].min() > 0.9
    assert shadows.fluid[left & (lungs.frame.down < 0.3)].max() < 0.1
    surface = np.where(left & (shadows.fluid > 0.5), lungs.frame.down, np.inf).min(axis=0)
    columns = np.flatnonzero(np.isfinite(surface))
    assert surface[columns[-3]] < surface[columns[len(columns) // 2]] - 0.03  # it climbs outwards


def test_a_pneumothorax_is_dark_without_vessels_outside_its_line():
    lungs, shadows = film({"Pneumothorax": sign("Pneumothorax", side=-1)})
    right = (lungs.frame.across < 0) & (lungs.air > 0.9) & (lungs.frame.down < 0.5)
    free = right & (lungs.wall < 0.04)
    assert shadows.markings[free].max() < 0.1 and shadows.density[free].max() < 0
    assert shadows.markings[right & (lungs.wall > 0.2) & (lungs.frame.down > 0.3)].min() > 0.9
    assert shadows.density[right].max() > 0.1
    assert (shadows.markings[lungs.frame.across > 0.05] == 1).all()


@pytest.mark.parametrize(
    "finding", ["Lung Lesion", "Consolidation", "Pneumonia", "Lung Opacity", "Atelectasis"]
)
def test_opacities_are_local_and_grow_with_severity(finding):
    lungs, severe = film({finding: sign(finding)})
    _, faint = film({finding: sign(finding, severity=0.2)})
    assert severe.density.max() > 1.3 * faint.density.max() > 0.05
    shown = severe.density[lungs.air > 0.5] > 0.05
    assert 0.003 < shown.mean() < 0.35
    assert abs(severe.density[lungs.frame.across < -0.05]).max() < 0.02  # it is on the left


def test_edema_is_on_both_sides_of_the_hila():
    lungs, shadows = film({"Edema": sign("Edema")})
    for side in (lungs.frame.across > 0, lungs.frame.across < 0):
        near = side & (lungs.hilum < 0.15) & (lungs.air > 0.5)
        assert shadows.density[near].mean() > 0.08
        assert abs(shadows.density[side & (lungs.hilum > 0.45) & (lungs.wall > 0.1)]).mean() < 0.02


def test_the_heart_is_enlarged_beyond_half_the_chest():
    body = draw_body(0, "test", 0)
    for severity, least in ((0.2, 0.5), (1.0, 0.6)):
        large = {"Cardiomegaly": sign("Cardiomegaly", severity=severity)}
        chests = [
            frontal.frontal_chest(keyed_generator(0, "test", n), body, signs, False).heart
            for n, signs in enumerate(({}, large))
        ]
        assert chests[0] < 0.51 and chests[1] > max(least, chests[0])


def test_a_broken_rib_changes_the_bones_of_its_side_alone():
    body = draw_body(0, "test", 0)
    chest = frontal.frontal_chest(keyed_generator(0, "test", 0), body, {}, False)
    frame = Frame(128, 128)
    whole = frontal.bones(body, chest, frame, None)
    broken = frontal.bones(body, chest, frame, sign("Fracture", side=-1))
    changed = np.abs(whole - broken)
    assert changed[frame.across < 0].max() > 0.05
    assert changed[frame.across > 0.05].max() == 0


def test_hospitals_develop_differently():
    levels = {}
    for kind in KINDS:
        greys = [draw_chest(kind, 1, index, 48).grey for index in range(40)]
        middles = [g[len(g) // 4 : -len(g) // 4, g.shape[1] // 4 : -g.shape[1] // 4] for g in greys]
        levels[kind] = np.mean([middle.mean() for middle in middles])
    assert levels["chest_chexpert"] + 15 < levels["chest_mimic"]
    assert levels["chest_chexpert"] + 15 < levels["chest_chestxray14"]


def test_a_curve_passes_through_its_points():
    points = [(0.0, 0.0), (0.1, 0.5), (0.4, 0.6)]
    path = curve(points, steps=5)
    assert len(path) == 11
    assert np.allclose([path[0], path[5], path[10]], points)


def test_frame_coordinates_by_hand():
    frame = Frame(100, 80, lung_height=0.5, apex=0.2, middle=0.4)
    assert frame.down.shape == frame.across.shape == (100, 80)
    assert np.allclose(frame.points([(0.0, 0.0), (0.2, 1.0)]), [(40, 20), (50, 70)])
    assert frame.down[20, 0] == pytest.approx(0.01) and frame.across[0, 40] == pytest.approx(0.01)
    tilted = Frame(100, 80, lung_height=0.5, apex=0.2, middle=0.4, tilt=0.3)
    (x, y), *_ = tilted.points([(0.1, 0.4)])
    row, column = int(y), int(x)
    assert abs(tilted.down[row, column] - 0.4) < 0.02
    assert abs(tilted.across[row, column] - 0.1) < 0.02
