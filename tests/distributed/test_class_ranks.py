"""Masks of several classes in several processes: the same bytes, whoever dies."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from nakt_dist.models.network_file import open_network
from nakt_dist.stages import evaluate, teach
from tests.datasets import CLASSES, make_class_dataset, make_weights
from tests.launching import Death, finish, run_ranks
from tests.recipes import evaluate_config, file_hashes, teach_config, train_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    make_class_dataset(folder, images=12, samples_per_shard=4)
    for seed in (0, 1):
        make_weights(folder / f"{seed}.safetensors", seed=seed, classes=CLASSES)
    return folder


def config_of(folder: Path, output: Path):
    weights = (folder / f"{seed}.safetensors" for seed in (0, 1))
    return teach_config(output, folder / "shapes", *weights)


def test_teaching_classes_gives_the_same_bytes_in_two_processes_and_after_a_kill(
    folder: Path, tmp_path: Path
) -> None:
    teach.run(config_of(folder, tmp_path / "one"))
    expected = file_hashes(tmp_path / "one")
    finish(config_of(folder, tmp_path / "two"), 2)
    assert file_hashes(tmp_path / "two") == expected
    config = config_of(folder, tmp_path / "killed")
    (outcome,) = run_ranks(config, death=Death(5))
    assert outcome.exitcode == -9
    finish(config, 2)
    assert file_hashes(tmp_path / "killed") == expected


def test_two_processes_train_a_student_of_classes_and_score_it_as_one_does(
    folder: Path, tmp_path: Path
) -> None:
    teach.run(config_of(folder, tmp_path / "pseudo"))
    data = {"pseudo_labels": str(tmp_path / "pseudo")}
    finish(
        train_config(
            tmp_path / "run", folder / "shapes", {"steps": 2, "global_batch_size": 4}, data
        ),
        2,
    )
    assert open_network(tmp_path / "run").lineage["classes"] == list(CLASSES)
    config = evaluate_config(tmp_path / "one", folder / "shapes", tmp_path / "run")
    evaluate.run(config)
    finish(evaluate_config(tmp_path / "two", folder / "shapes", tmp_path / "run"), 2)
    one, two = (pq.read_table(tmp_path / n / "predictions.parquet") for n in ("one", "two"))
    assert str(one.to_pydict()) == str(two.to_pydict())  # NaN is no number that equals itself
    assert "dice:square" in one.schema.names
