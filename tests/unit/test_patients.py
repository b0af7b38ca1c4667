"""Names of patients that may be one patient's, in every layout."""

from pathlib import Path

import pytest

from nakt_dist.sources import scan_source
from nakt_dist.sources.listing import SourceRecord
from nakt_dist.sources.patients import SPELT_APART, SPLIT_APART, patient_identity, spelt_apart
from tests.unit.source_trees import write_tree

ALIKE = [
    ("p01", "P01", "p1", "P001", " p1 ", "p\u200b1", "p\u00a01", "\ufeffp1", "p 01"),
    ("patient1", "patient001", "Patient 1", "PATIENT1"),
    ("0", "00", "000", "0.0"),
    ("1", "01", "1.0", "\uff11"),
    ("Jose\u0301", "Jos\u00e9", "JOS\u00c9"),
    ("P1-07", "p01\u20137", "P1\u20117"),
    ("STRASSE", "stra\u00dfe"),
]
DIFFERENT = [
    ("1 11", "11 1", "111"),
    ("p1", "p10", "p11", "p100"),
    ("1.5", "1.05", "1.50"),
    ("p1_2", "p12", "p1-2"),
    ("a0b", "ab"),
]


@pytest.mark.parametrize("names", ALIKE)
def test_spellings_of_one_patient_have_one_form(names: tuple[str, ...]) -> None:
    assert len({patient_identity(name) for name in names}) == 1


@pytest.mark.parametrize("names", DIFFERENT)
def test_different_patients_have_different_forms(names: tuple[str, ...]) -> None:
    assert len({patient_identity(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", [name for names in (*ALIKE, *DIFFERENT) for name in names])
def test_the_form_of_a_form_is_itself(name: str) -> None:
    assert patient_identity(patient_identity(name)) == patient_identity(name)


def test_names_of_files_that_are_not_there_do_not_count() -> None:
    def record(patient: str | None, problem: tuple[str, str] | None = None) -> SourceRecord:
        return SourceRecord("a", Path("a"), patient_id=patient, problem=problem)

    missing = record("P1", ("missing_image", ""))
    assert spelt_apart([record("p1"), missing, record(None), record("p2")]) == []
    records = [record("p1"), record("P1", ("missing_mask", "")), record("p01"), record("q")]
    assert spelt_apart(records) == [("P1", "p01", "p1")]


def test_a_folder_of_images_tells_patients_spelt_apart(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path, "pat0_1.png", "pat00_2.png", "pat1_3.png", "PAT1_4.png", "pat2_5.png"
    )
    options = {"patient_regex": "(?i)^(?P<patient>pat[0-9]+)_"}
    listing = scan_source("image_folder", root, options)
    assert listing.found[SPELT_APART] == 2
    assert f"{SPELT_APART} (such as 'PAT1' and 'pat1')" in listing.told()


def test_patients_spelt_apart_over_official_splits_are_told(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path, "train/p1_1.png", "train/p2_1.png", "test/P1_2.png", "test/p3_1.png"
    )
    listing = scan_source("image_folder", root, {"patient_regex": "/(?P<patient>[^/_]+)_"})
    assert (listing.found[SPELT_APART], listing.found[SPLIT_APART]) == (1, 1)
    assert listing.examples[SPLIT_APART] == "'P1' and 'p1'"


def test_no_example_names_a_patient_in_what_is_found(tmp_path: Path) -> None:
    root = write_tree(tmp_path, "smith_1.png", "SMITH_2.png")
    listing = scan_source("image_folder", root, {"patient_regex": "^(?P<patient>[^_]+)_"})
    assert "smith" not in str(dict(listing.found)).lower()
    assert "smith" in str(listing.told()).lower()
