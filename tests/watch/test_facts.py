"""What is read of a run's folder, whatever lies there."""

from pathlib import Path

import pytest

from nakt_dist.records.run_record import RunRecord
from nakt_dist.watch.facts import read_facts, read_settings


@pytest.mark.timeout(20)
def test_settings_whose_aliases_multiply_are_told_and_not_unfolded(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    (tmp_path / "config.yaml").write_text("\n".join(lines))
    (tmp_path / "metrics.jsonl").touch()
    problem = read_facts(tmp_path).problem
    assert problem is not None and "alias" in problem
    assert read_settings(tmp_path) == {}


def test_of_a_training_that_went_on_the_seconds_are_of_all_its_steps(tmp_path: Path) -> None:
    for now, seconds in ((100, 50.0), (20, 250.0), (0, 50.0)):
        metrics, details = {"steps_now": now}, {"steps": 100}
        RunRecord("train", "r", {}, metrics=metrics, details=details, seconds=50.0).write(tmp_path)
        assert read_facts(tmp_path).seconds == seconds
