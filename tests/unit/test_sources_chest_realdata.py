"""ChestX-ray14 as published: pixels, and the findings counted in two ways."""

import csv
import gzip
from collections import Counter
from pathlib import Path

import pytest

from nakt_dist.imaging.images import read_image
from nakt_dist.sources import scan_source
from nakt_dist.sources.findings import CHESTXRAY14_FINDINGS, LabelPolicy, targets
from nakt_dist.sources.splits import assign_splits, traits_of

pytestmark = pytest.mark.realdata
TABLE = "Data_Entry_2017_v2020.csv"


def published_counts(text: str) -> Counter[str]:
    words = Counter()
    for row in csv.DictReader(text.splitlines()):
        words.update(row["Finding Labels"].split("|"))
    return words


@pytest.mark.parametrize(("folder", "images"), [("nih", 16), ("nih320", 500)])
def test_images_facts_and_findings(real_data: Path, folder: str, images: int) -> None:
    listing = scan_source("chestxray14", real_data / folder, {})
    assert len(listing.records) == images
    assert [record.problem for record in listing.records if record.problem] == []
    assert (listing.left_out, listing.ignored_files) == ({}, {})
    assert listing.found["patients"] == listing.found["view frontal"] == images
    assert {record.labels["sex"] for record in listing.records} == {"F", "M"}
    assert all(0 < record.labels["age"] <= 120 for record in listing.records)

    values = targets([r.findings for r in listing.records], listing.findings, LabelPolicy())
    words = published_counts((real_data / folder / TABLE).read_text())
    spelling = {"Pleural Effusion": "Effusion", "Pleural Thickening": "Pleural_Thickening"}
    for name, count in zip(listing.findings, values.sum(0), strict=True):
        assert count == words[spelling.get(name, name)]
    assert sum(words.values()) == values.sum()
    no_finding = values[:, listing.findings.index("No Finding")]
    assert ((values[:, : len(CHESTXRAY14_FINDINGS)].sum(1) == 0) == (no_finding == 1)).all()


def test_rgba_and_grey_originals_read_alike(real_data: Path) -> None:
    modes = Counter()
    for record in scan_source("chestxray14", real_data / "nih", {}).records:
        image, info = read_image(record.image, "grey", 20_000_000, "min_max")
        assert image.shape == (1024, 1024)
        assert image.std() > 10
        modes[info["mode"]] += 1
    assert modes == {"L": 14, "RGBA": 2}


def test_the_whole_published_table(real_data: Path, tmp_path: Path) -> None:
    archive = real_data / "chexnet_golden" / f"{TABLE}.gz"
    (tmp_path / TABLE).write_bytes(gzip.decompress(archive.read_bytes()))
    (tmp_path / "00000001_000.png").touch()
    listing = scan_source("chestxray14", tmp_path, {})
    assert len(listing.records) == 112_120
    assert listing.found["images named without a file"] == 112_119
    assert len({record.patient_id for record in listing.records}) == 30_805
    assert {r.problem[0] for r in listing.records if r.problem} == {"missing_image"}


def test_two_published_parts_are_divided_by_patient_over_both(real_data: Path) -> None:
    """The division of configs/study/open_data_b.yaml."""
    listing = scan_source("chestxray14", real_data, {"table": f"{TABLE}.gz"})
    records = [record for record in listing.records if record.problem is None]
    patients = [record.patient_id for record in records]
    assert (len(records), len(set(patients))) == (1309, 1037)
    parts = {(record.patient_id, record.image.parts[-3]) for record in records}
    assert len(parts) > 1037  # some are in both
    fractions = {"teacher": 0.3, "train": 0.3, "validation": 0.1, "test": 0.3}
    traits = [traits_of(record) for record in records]
    splits = assign_splits([record.name for record in records], patients, traits, fractions, 0)
    assert len(set(zip(patients, splits, strict=True))) == 1037
    present = targets([r.findings for r in records], listing.findings, LabelPolicy())
    for split in ("teacher", "train", "test"):
        chosen = present[[each == split for each in splits]]
        assert abs(chosen.mean(0) - present.mean(0)).max() < 0.02
