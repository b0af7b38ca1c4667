"""Losses are looked at from time to time: what is logged does not depend on how often."""

import math
from pathlib import Path

import pytest
from accelerate import Accelerator

from nakt_dist.config import CheckpointConfig
from nakt_dist.errors import NaktError
from nakt_dist.stages import train
from nakt_dist.training import milestones
from tests.datasets import make_packed_dataset
from tests.recipes import read_lines, train_config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("looking"), images=24)


@pytest.fixture
def reduced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what processes average."""
    shapes = []
    plain = Accelerator.reduce

    def noted(self, tensor, *arguments, **named):
        shapes.append(tuple(tensor.shape))
        return plain(self, tensor, *arguments, **named)

    monkeypatch.setattr(Accelerator, "reduce", noted)
    return shapes


def test_looking_seldom_logs_the_same_with_fewer_exchanges(
    dataset: Path, tmp_path: Path, reduced: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged, exchanges = [], []
    for name, seconds in (("often", 0.0), ("seldom", math.inf)):
        monkeypatch.setattr(milestones, "_SECONDS_BETWEEN_LOOKS", seconds)
        reduced.clear()
        record = train.run(
            train_config(tmp_path / name, dataset, checkpoint=CheckpointConfig(every_epochs=2))
        )
        logged.append(read_lines(tmp_path / name / "metrics.jsonl"))
        exchanges.append([shape[0] for shape in reduced])

    assert logged[0] == logged[1]
    assert exchanges == [[1] * 6, [2, 2, 2]]  # a checkpoint every second step
    speed = record.speed
    assert 0 < speed["step_seconds_p50"] <= speed["step_seconds_p95"]
    assert 0 <= speed["data_wait"] <= 1 and speed["peak_memory_bytes"] > 2**20
    assert speed["images_per_second"] > 0


def test_a_late_look_names_the_first_bad_step_and_logs_those_before(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milestones, "_SECONDS_BETWEEN_LOOKS", math.inf)
    config = train_config(
        tmp_path / "out", dataset, {"steps": 9, "learning_rate": 1e25},
        checkpoint=CheckpointConfig(every_epochs=9),
    )  # fmt: skip
    with pytest.raises(NaktError, match="at step 2"):
        train.run(config)

    steps = [line["step"] for line in read_lines(tmp_path / "out" / "metrics.jsonl")]
    assert steps == [1]
    (noted,) = read_lines(tmp_path / "out" / "not_finite.jsonl")
    assert noted["step"] == 2
    assert not list((tmp_path / "out").rglob("step-*"))
