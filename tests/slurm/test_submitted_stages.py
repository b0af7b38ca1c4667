"""Stages submitted with ``nakt submit`` to two nodes of a real SLURM."""

from pathlib import Path

import pytest

from nakt_dist.cli import main
from nakt_dist.config import CheckpointConfig
from tests.datasets import make_packed_dataset, make_weights, publish_images
from tests.launching import finish
from tests.recipes import file_hashes, logged_losses, teach_config, train_config
from tests.slurm_jobs import ROOT, call, nakt_submits, require_local_cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(420)]

TWO_NODES = ("--nodes=2", "--time=30")
STEPS = {"cpu": 120, "deepspeed_zero2": 40}
"""So many that training is still at it when it is warned."""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> None:
    require_local_cluster()


@pytest.fixture(scope="module")
def dataset(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=24, splits={"train": 1.0})


def undisturbed(output: Path, dataset: Path, steps: int, channels_last: bool) -> Path:
    """What two processes, copies of each other, make of it that nobody warns."""
    recipe = {"steps": steps, "channels_last": channels_last}
    checkpoints = CheckpointConfig(every_steps=10)
    finish(train_config(output, dataset, recipe, checkpoint=checkpoints), 2, timeout=240)
    return output


def test_teach_over_two_nodes_gives_the_bytes_of_one_process(dataset: Path, tmp_path: Path) -> None:
    weights = make_weights(tmp_path / "teacher.safetensors")
    finish(teach_config(tmp_path / "one", dataset, weights))
    output = tmp_path / "with a space" / "two"

    words = (
        "teach", *TWO_NODES, "--", f'--teachers=[{{"weights": "{weights}"}}]',
        f"--dataset={dataset}", f"--output={output}", "--device=cpu", "--threads=1",
    )  # fmt: skip
    with nakt_submits(*words, folder=tmp_path) as job:
        job.succeed()

    assert job.log.parent == output.parent
    assert file_hashes(output) == file_hashes(tmp_path / "one")


def test_pack_over_two_nodes_gives_the_bytes_of_one_process(tmp_path: Path) -> None:
    source = publish_images(tmp_path / "published", images=48)
    settings = (
        "--layout=image_folder", f"--source={source}", "--image.height=32", "--image.width=32",
        "--samples_per_shard=4", "--workers=1",
    )  # fmt: skip
    assert main(["pack", *settings, f"--output={tmp_path / 'one'}"]) == 0

    words = ("pack", *TWO_NODES, "--", *settings, f"--output={tmp_path / 'two'}")
    with nakt_submits(*words, folder=tmp_path) as job:
        job.succeed()

    assert file_hashes(tmp_path / "two") == file_hashes(tmp_path / "one")


@pytest.mark.parametrize(("settings", "steps"), STEPS.items())
def test_train_warned_in_the_middle_is_queued_again_and_ends_as_if_undisturbed(
    settings: str, steps: int, dataset: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"

    def reached() -> int:
        pointer = output / "checkpoints" / "latest"
        return int(pointer.read_text().split("-")[1]) if pointer.exists() else 0

    words = (
        "train", *TWO_NODES, f"--accelerate-config={ROOT}/configs/accelerate/{settings}.yaml", "--",
        f"--output={output}", f"--data.dataset={dataset}", f"--recipe.steps={steps}",
        "--recipe.global_batch_size=8", "--recipe.learning_rate=0.01", "--model.name=unet",
        '--model.options={"base_channels": 4, "normalisation": "none"}',
        "--checkpoint.every_steps=10", "--device=cpu", "--threads=1", "--log_keys=true",
    )  # fmt: skip
    with nakt_submits(*words, folder=tmp_path) as job:
        job.wait_until(lambda: reached() >= 10)
        call("scancel", "--signal=USR1", job.number)
        job.wait_until_queued_again()
        assert 10 <= reached() < steps
        job.succeed()
        assert job.restarts == 1

    zero = settings.startswith("deepspeed")  # which does not take channels_last by itself
    alone = undisturbed(tmp_path / "undisturbed", dataset, steps, channels_last=not zero)
    found, expected = logged_losses(output), logged_losses(alone)
    tolerance = 1e-5 if zero else 0
    assert [step for step, _ in found] == [step for step, _ in expected]
    losses, expected_losses = ([loss for _, loss in each] for each in (found, expected))
    assert losses == pytest.approx(expected_losses, rel=0, abs=tolerance)
    batches = [(each / "batches.jsonl").read_bytes() for each in (output, alone)]
    assert batches[0] == batches[1]


def test_a_stage_that_fails_is_not_queued_again(dataset: Path, tmp_path: Path) -> None:
    damaged = make_packed_dataset(tmp_path, images=4, splits={"train": 1.0})
    shard = damaged / "train-000000.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)

    with nakt_submits("verify", "--time=30", "--", damaged, folder=tmp_path) as job:
        assert job.wait() == "FAILED"
        assert job.facts()["ExitCode"] == "1:0"
        assert job.restarts == 0

    assert "nakt: error:" in job.output
    assert "train-000000.tar" in job.output
