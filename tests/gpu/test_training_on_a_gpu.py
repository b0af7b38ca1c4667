"""Training on a GPU: as on the CPU, in every precision, with a full memory, in a process group."""

import json
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from nakt_dist.config import (
    AttentionTransferConfig,
    PreprocessingConfig,
    ProfileConfig,
    TapConfig,
    TeacherConfig,
    TrackingConfig,
    TrainConfig,
    TrainingTeacherConfig,
)
from nakt_dist.loading.batches import indexed_batches
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.loading.sampler import GlobalBatches, Share
from nakt_dist.loading.samples import select_samples
from nakt_dist.models.spec import ModelSpec
from nakt_dist.runtime.distributed import make_accelerator
from nakt_dist.runtime.rank_textfile import RankTextfile
from nakt_dist.stages import train
from nakt_dist.training.learner import Learner
from tests.datasets import make_chest_dataset, make_packed_dataset, make_weights
from tests.launching import finish, free_port, run_ranks
from tests.prometheus_format import read_metrics
from tests.recipes import logged_losses, read_lines, teach_config, train_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GIB = 2**30


@dataclass(frozen=True)
class LittleMemory:
    """Torch may take so many bytes of the GPU, and really runs out of them."""

    limit: int
    rank: int = 0

    def arm(self) -> None:
        """Limits this process."""
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(self.limit / total)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=24, splits={"train": 1.0})


@pytest.fixture
def plain_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TF32, so that what is left are other orders of the same sums."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def on_gpu(output: Path, dataset: Path, recipe: dict[str, Any] | None = None, **changes: Any):
    return train_config(output, dataset, recipe, device="auto", threads=None, **changes)


def losses_of(config: TrainConfig) -> list[float]:
    return [loss for _, loss in logged_losses(Path(config.output))]


@pytest.mark.usefixtures("plain_float32")
def test_losses_are_those_of_the_cpu(dataset: Path, tmp_path: Path) -> None:
    configs = [train_config(tmp_path / "cpu", dataset), on_gpu(tmp_path / "gpu", dataset)]
    for config in configs:
        train.run(config)
    assert losses_of(configs[1]) == pytest.approx(losses_of(configs[0]), rel=1e-3)


@pytest.mark.parametrize(
    "recipe",
    [
        {"precision": "bf16"},
        {"precision": "fp16"},
        {"precision": "bf16", "channels_last": True, "micro_batch_size": 2},
        {"channels_last": True, "largest_gradient_norm": 0.5},
    ],
)
def test_every_precision_learns_alike_and_goes_on(
    recipe: dict[str, Any], dataset: Path, tmp_path: Path
) -> None:
    plain = {key: value for key, value in recipe.items() if key == "largest_gradient_norm"}
    expected = on_gpu(tmp_path / "plain", dataset, plain)
    train.run(expected)
    for steps in (3, 6):
        train.run(on_gpu(tmp_path / "out", dataset, {**recipe, "steps": steps}))
    found = losses_of(on_gpu(tmp_path / "out", dataset))
    assert found == pytest.approx(losses_of(expected), rel=0.05)
    (progress,) = (tmp_path / "out" / "checkpoints").glob("step-000000006/progress.json")
    scaler = json.loads(progress.read_text())["scaler"]
    assert (scaler is not None) == (recipe.get("precision") == "fp16")


def test_after_a_checkpoint_adam_does_not_wait_for_the_gpu_at_every_parameter(
    dataset: Path, tmp_path: Path
) -> None:
    places: list[set[str]] = []
    end_step = Learner.end_step

    def noted(learner: Learner, done: int) -> None:
        end_step(learner, done)
        moments = learner._optimiser.optimizer.state.values()
        places.append({kind + each[kind].device.type for each in moments for kind in each})

    with mock.patch.object(Learner, "end_step", noted):
        for steps in (1, 2):
            train.run(on_gpu(tmp_path / "out", dataset, {"steps": steps}))
    assert places == [{"stepcpu", "exp_avgcuda", "exp_avg_sqcuda"}] * 2


def test_batches_are_pinned_in_this_process_and_in_loader_processes(dataset: Path) -> None:
    images = MaskedImages(select_samples(str(dataset), ["train"]))
    order, share = GlobalBatches([len(images)], 8, 0), Share.of(8, 1, None)
    for workers in (0, 1):
        (batch,) = indexed_batches(images, order, share, 0, 0, 1, workers, pinned=True)
        assert batch["image"].is_pinned() and batch["target"].is_pinned()


def test_a_profile_and_the_record_tell_what_the_gpu_did(dataset: Path, tmp_path: Path) -> None:
    profile = ProfileConfig(steps=4, after=1)
    record = train.run(on_gpu(tmp_path / "out", dataset, profile=profile))

    page = (tmp_path / "out" / "profile" / "page.html").read_text()
    assert f"after 1 of warm-up, on {torch.cuda.get_device_name()}" in page
    assert "A phase&#39;s time is that in which the GPU computes for it" in page
    shares = dict(re.findall(r">([a-z ]+)</th><td class=\"short\">([\d.]+) %</td>", page))
    assert sum(map(float, shares.values())) == pytest.approx(100, abs=0.6)
    assert min(float(shares[name]) for name in ("forward", "backward", "optimiser")) > 0
    assert record.speed["joules"] > 0


def test_each_stage_of_a_process_computes_where_it_was_told() -> None:
    devices = [make_accelerator("no", device).device.type for device in ("cpu", "auto", "cpu")]
    assert devices == ["cpu", "cuda", "cpu"]


@pytest.mark.usefixtures("plain_float32")
def test_a_student_follows_its_teacher_as_on_the_cpu(tmp_path: Path) -> None:
    chest = make_chest_dataset(tmp_path)
    student = {
        "task": "classification",
        "model": ModelSpec("timm:test_resnet", in_channels=1),
    }
    train.run(train_config(tmp_path / "teacher", chest, {"steps": 2}, seed=7, **student))
    attention = AttentionTransferConfig(taps=[TapConfig("layer2", "layer2")], beta=0.5)
    teacher = TrainingTeacherConfig(weights=str(tmp_path / "teacher"), attention=attention)
    lines = []
    for name, make in (("cpu", train_config), ("gpu", on_gpu)):
        recipe = {"steps": 1}
        train.run(make(tmp_path / name, chest, recipe, teacher=teacher, **student))
        lines.append(read_lines(tmp_path / name / "metrics.jsonl")[0])
    assert lines[1]["attention_loss"] > 0
    assert lines[1] == pytest.approx(lines[0], rel=1e-3)


def test_a_group_of_one_process_over_nccl_learns_like_a_plain_one(
    dataset: Path, tmp_path: Path
) -> None:
    recipe = {"micro_batch_size": 4}
    launched = {
        "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    configs = [on_gpu(tmp_path / name, dataset, recipe) for name in ("plain", "grouped")]
    finish(configs[0], timeout=120)
    finish(configs[1], timeout=120, environment=launched)
    assert losses_of(configs[1]) == pytest.approx(losses_of(configs[0]), rel=1e-2)


def large_images(output: Path, dataset: Path) -> TrainConfig:
    """About 2 GiB of activations for a batch of 16."""
    recipe = {"steps": 2, "global_batch_size": 16, "halve_when_out_of_memory": True}
    config = on_gpu(output, dataset, recipe)
    return replace(config, preprocessing=PreprocessingConfig(height=512, width=512))


def test_a_memory_that_is_really_full_halves_the_micro_batches_alone(
    dataset: Path, tmp_path: Path
) -> None:
    finish(large_images(tmp_path / "enough", dataset), timeout=120)
    config = large_images(tmp_path / "out", dataset)

    (outcome,) = run_ranks(config, timeout=120, death=LittleMemory(GIB))

    assert outcome.record is not None, outcome.error
    assert outcome.record.config["recipe"]["micro_batch_size"] in (1, 2, 4, 8)
    batches = [(tmp_path / name / "batches.jsonl").read_text() for name in ("out", "enough")]
    assert batches[0] == batches[1]
    enough = losses_of(large_images(tmp_path / "enough", dataset))
    assert losses_of(config) == pytest.approx(enough, rel=2e-2)


def test_teaching_with_a_full_memory_is_one_line_that_says_what_to_lower(
    dataset: Path, tmp_path: Path
) -> None:
    teacher = TeacherConfig(
        weights=str(make_weights(tmp_path / "teacher.safetensors")),
        preprocessing=PreprocessingConfig(height=1024, width=1024),
    )
    config = teach_config(
        tmp_path / "pseudo", dataset, teacher, device="auto", threads=None, batch_size=8
    )

    (outcome,) = run_ranks(config, timeout=120, death=LittleMemory(GIB // 4))

    assert "the GPU's memory is full" in str(outcome.error)
    assert "Lower batch_size (now 8)" in str(outcome.error)


def test_a_process_names_its_gpu_and_the_memory_that_it_holds(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    close = RankTextfile.close

    def kept(self: RankTextfile) -> None:
        (path,) = (tmp_path / "node").iterdir()
        seen.append(read_metrics(path.read_bytes()))
        close(self)

    monkeypatch.setattr(RankTextfile, "close", kept)
    tracking = TrackingConfig(prometheus_folder=str(tmp_path / "node"))
    train.run(replace(on_gpu(tmp_path / "out", dataset, {"steps": 2}), tracking=tracking))
    (found,) = seen
    uuids = subprocess.run(
        ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"],
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout.split()  # fmt: skip
    ((_, labels),) = found["nakt_rank_info"].samples
    assert dict(labels)["gpu_uuid"] in uuids
    peak = found["nakt_rank_gpu_memory_peak_bytes"].value()
    assert peak >= found["nakt_rank_gpu_memory_bytes"].value() > 0
    assert read_lines(tmp_path / "out" / "pace.jsonl")[-1]["gpu_memory_bytes"] == peak
