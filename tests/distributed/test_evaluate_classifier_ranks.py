"""Evaluating a classifier in several processes: the same bytes and metrics for any number."""

from pathlib import Path
from typing import Any

import pytest

from nakt_dist.config.evaluating import OperatingPointConfig
from nakt_dist.records.run_record import read_record
from nakt_dist.stages import evaluate
from tests.datasets import make_chest_dataset, make_classifier
from tests.launching import Death, DeathBesideASlowRank, finish, run_ranks
from tests.recipes import evaluate_config, file_hashes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two full pieces of work and a rest, and validation images."""
    return make_chest_dataset(tmp_path_factory.mktemp("dataset"), images=190)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    return make_classifier(path, ["Nodule", "Cardiomegaly"])


@pytest.fixture(scope="module")
def settings(
    dataset: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What is tested, at thresholds chosen on other images."""
    output = tmp_path_factory.mktemp("validation") / "out"
    evaluate.run(evaluate_config(output, dataset, weights, splits=["validation"]))
    return {"splits": ["train", "test"], "operating_points": OperatingPointConfig(str(output))}


@pytest.fixture(scope="module")
def one_process(
    dataset: Path,
    weights: Path,
    settings: dict[str, Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("one") / "out"
    evaluate.run(evaluate_config(output, dataset, weights, **settings))
    assert read_record(output / "record.json").details["operating_points"]["findings"]
    return found(output)


def found(output: Path) -> dict[str, Any]:
    """The predictions' bytes, the numbers, and which files there are."""
    files, record = file_hashes(output), read_record(output / "record.json")
    return {
        "files": sorted(files),
        "predictions": files["predictions.parquet"],
        "metrics": record.metrics,
        "details": record.details,
    }


@pytest.mark.parametrize("world_size", [2, 4])
def test_any_number_of_processes_gives_the_same_predictions_and_metrics(
    dataset: Path,
    weights: Path,
    settings: dict[str, Any],
    one_process: dict[str, Any],
    tmp_path: Path,
    world_size: int,
) -> None:
    finish(evaluate_config(tmp_path / "out", dataset, weights, **settings), world_size)

    assert found(tmp_path / "out") == one_process


def test_a_killed_rank_costs_nothing_but_a_second_start(
    dataset: Path,
    weights: Path,
    settings: dict[str, Any],
    one_process: dict[str, Any],
    tmp_path: Path,
) -> None:
    config = evaluate_config(tmp_path / "out", dataset, weights, **settings)

    outcomes = run_ranks(config, 2, death=DeathBesideASlowRank(Death(rename=1, rank=0)))
    assert [outcome.exitcode for outcome in outcomes] == [-9, 0]
    finish(config)

    assert found(tmp_path / "out") == one_process
