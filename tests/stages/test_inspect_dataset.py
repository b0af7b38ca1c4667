"""``nakt inspect`` of a packed dataset: its findings by split, and a sheet of its images."""

import csv
from pathlib import Path

import pytest
from PIL import Image

from nakt_dist.cli import main
from nakt_dist.config import InspectConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.shards.findings import COUNTED
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import inspect
from nakt_dist.transfer.exclusion import ExclusionRule
from tests.datasets import make_packed_dataset
from tests.labelled import labels_of, make_labelled_dataset


def test_findings_are_counted_by_split_as_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_labelled_dataset(tmp_path)
    images = IndexedShards(folder)
    splits = images.index["split"].to_pylist()
    capsys.readouterr()

    assert main(["inspect", str(folder), f"--output={tmp_path / 'out'}", "--images=2"]) == 0

    words = {"1": "positive", "0": "negative", "-1": "uncertain", "": "blank"}
    expected = {
        (name, split): dict.fromkeys(COUNTED, 0)
        for name in images.manifest.findings
        for split in images.manifest.splits
    }
    for key, split in zip(images.keys, splits, strict=True):
        for name, cell in zip(images.manifest.findings, labels_of(int(key[-3:])), strict=True):
            expected[name, split][words[cell]] += 1
    with (tmp_path / "out" / "findings.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {(r["finding"], r["split"]): {each: int(r[each]) for each in COUNTED} for r in rows}
    assert found == expected
    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    for (name, split), numbers in expected.items():
        assert [name, split, *map(str, numbers.values())] in printed
    for split, count in images.manifest.splits.items():
        assert [split, str(count), str(count // 2), "0"] in printed  # two images a patient
    with Image.open(tmp_path / "out" / "images.png") as sheet:
        assert sheet.width > 100


def test_a_dataset_without_findings_has_its_splits_counted_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_packed_dataset(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    record = inspect.run(InspectConfig(str(folder)))
    assert record.counts == {"images": len(IndexedShards(folder))}
    assert record.details["findings"] == {}
    assert "finding" not in capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    "settings", [{"dataset": "d"}, {"exclusion": ExclusionRule(alpha=1, beta=None)}]
)
def test_settings_of_pseudo_labels_are_refused(tmp_path: Path, settings: dict) -> None:
    folder = make_labelled_dataset(tmp_path)
    with pytest.raises(ConfigurationError, match=r"is a packed dataset.*leave out dataset and ex"):
        inspect.run(InspectConfig(str(folder), **settings))
