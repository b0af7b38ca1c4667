import json
import platform

import pytest
import torch

from nakt_dist import __version__
from nakt_dist.errors import DatasetError
from nakt_dist.records.run_record import (
    RECORD_NAME,
    RunRecord,
    Stopwatch,
    package_versions,
    read_record,
)

RECORD = RunRecord(
    stage="evaluate",
    name="épreuve",
    config={"seed": 0, "splits": ["test"], "nested": {"threshold": 0.5, "count": None}},
    inputs={"dataset_fingerprint": "ab" * 32},
    counts={"images": 3},
    metrics={"dice_mean": 87.04, "dice_interval_95": [80.0, 91.5]},
    details={"network": "student"},
    seconds=1.25,
    versions={"python": "3.12.1"},
)


def test_a_record_comes_back_equal(tmp_path):
    path = RECORD.write(tmp_path)
    assert path == tmp_path / RECORD_NAME
    assert read_record(path) == RECORD


def test_equal_records_give_equal_bytes(tmp_path):
    (tmp_path / "again").mkdir()
    first, second = RECORD.write(tmp_path), RECORD.write(tmp_path / "again")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other/1"}, "not a run record of format"),
        ({"format": None}, "not a run record of format"),
        ({"mood": "good"}, "mood"),
        ({"stage": ...}, "stage"),
    ],
    ids=["another_format", "no_format", "unknown_field", "missing_field"],
)
def test_what_is_not_a_record_is_refused_by_name(tmp_path, change, words):
    path = RECORD.write(tmp_path)
    value = json.loads(path.read_text()) | change
    path.write_text(json.dumps({name: item for name, item in value.items() if item is not ...}))
    with pytest.raises(DatasetError, match=words) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


def test_an_absent_record_is_refused_by_name(tmp_path):
    with pytest.raises(DatasetError, match="no run record here"):
        read_record(tmp_path / RECORD_NAME)


def test_versions_name_what_a_result_depends_on():
    versions = package_versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == torch.__version__.split("+")[0]
    assert versions["nakt_dist"] == __version__


def test_a_stopwatch_only_goes_forward():
    stopwatch = Stopwatch()
    first = stopwatch.seconds
    assert 0 <= first <= stopwatch.seconds
