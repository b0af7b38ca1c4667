"""Evaluating in several processes: every image once, the same predictions for any number."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from nakt_dist.records.run_record import read_record
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import evaluate
from tests.datasets import make_packed_dataset, make_weights
from tests.faults.chaos_launches import ForkedLaunch
from tests.launching import Death, DeathBesideASlowRank, finish, run_ranks
from tests.recipes import evaluate_config, file_hashes

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three full pieces of work and a rest."""
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=200, samples_per_shard=50)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", seed=7)


@pytest.fixture(scope="module")
def one_process(
    dataset: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("one") / "out"
    evaluate.run(evaluate_config(output, dataset, weights, surface_distances=True))
    assert pq.read_table(output / "predictions.parquet").num_rows == 200
    return found(output)


def found(output: Path) -> dict[str, Any]:
    """The predictions' bytes, the metrics, and which files there are."""
    files = file_hashes(output)
    return {
        "files": sorted(files),
        "predictions": files["predictions.parquet"],
        "metrics": read_record(output / "record.json").metrics,
    }


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_any_number_of_processes_gives_the_same_predictions(
    dataset: Path, weights: Path, one_process: dict[str, Any], tmp_path: Path, world_size: int
) -> None:
    finish(evaluate_config(tmp_path / "out", dataset, weights, surface_distances=True), world_size)

    assert found(tmp_path / "out") == one_process
    keys = pq.read_table(tmp_path / "out" / "predictions.parquet")["key"].to_pylist()
    assert keys == IndexedShards(dataset).keys


@pytest.mark.parametrize(("rename", "rank"), [(1, 0), (2, 1)])
def test_one_rank_killed_alone_costs_nothing_but_a_second_start(
    dataset: Path,
    weights: Path,
    one_process: dict[str, Any],
    tmp_path: Path,
    rename: int,
    rank: int,
) -> None:
    config = evaluate_config(tmp_path / "out", dataset, weights, surface_distances=True)

    outcomes = run_ranks(config, 2, death=DeathBesideASlowRank(Death(rename, rank)))
    assert (outcomes[rank].exitcode, outcomes[1 - rank].exitcode) == (-9, 0)
    finish(config)

    assert found(tmp_path / "out") == one_process


def test_ranks_that_never_start_are_not_waited_for(
    dataset: Path, weights: Path, one_process: dict[str, Any], tmp_path: Path
) -> None:
    run_ranks(
        evaluate_config(tmp_path / "out", dataset, weights, surface_distances=True), 4, only=[2]
    )

    assert found(tmp_path / "out") == one_process


def test_the_result_is_printed_once(
    dataset: Path, weights: Path, one_process: dict[str, Any], tmp_path: Path
) -> None:
    words = (
        "evaluate", f"--weights={weights}", f"--dataset={dataset}", "--splits=null",
        f"--output={tmp_path / 'out'}", "--bootstrap_samples=100", "--device=cpu", "--threads=1",
        "--surface_distances=true",
    )  # fmt: skip
    with ForkedLaunch(words, 2, tmp_path / "log", stop_together=False) as evaluation:
        evaluation.finish(90)
    evaluation.check()

    results = [line for line in evaluation.printed.splitlines() if "over 200 images" in line]
    # A rank that starts late may find all done and say so.
    assert len([line for line in results if "was complete already" not in line]) == 1
    assert found(tmp_path / "out") == one_process
