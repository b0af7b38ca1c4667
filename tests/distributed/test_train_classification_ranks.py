"""Classifiers and attention transfer in several processes: the same batches, losses and AUROC."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nakt_dist.config import (
    AttentionTransferConfig,
    DistConfig,
    DistillationConfig,
    HintsConfig,
    LabelConfig,
    MultiLabelConfig,
    SimilarityConfig,
    TapConfig,
    TrainConfig,
    TrainingTeacherConfig,
    ValidationConfig,
)
from nakt_dist.models.spec import ModelSpec
from nakt_dist.runtime.files import file_sha256
from tests.datasets import make_chest_dataset
from tests.launching import Death, finish, run_ranks
from tests.recipes import file_hashes, logged_losses, read_lines, train_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

LABELS = LabelConfig(names=["Nodule", "Pleural Effusion", "Cardiomegaly"])
# Layer normalisation: what a process computes does not depend on who else is in its batch.
TINY = ModelSpec("timm:test_convnext", in_channels=1)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    return make_chest_dataset(folder, images=50, splits={"train": 0.7, "validation": 0.3})


def classify(output: Path, dataset: Path, **changes: object) -> TrainConfig:
    validation = ValidationConfig(str(dataset), splits=["validation"])
    settings = {"task": "classification", "model": TINY, "labels": LABELS, "validation": validation}
    return train_config(output, dataset, **{**settings, **changes})


@pytest.fixture(scope="module")
def teacher(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("teacher") / "teacher"
    finish(classify(output, dataset, seed=7))
    return output


@pytest.fixture(scope="module")
def followed(teacher: Path) -> TrainingTeacherConfig:
    attention = AttentionTransferConfig(taps=[TapConfig("stages.1", "stages.1")])
    return TrainingTeacherConfig(
        weights=str(teacher), attention=attention, distillation=DistillationConfig()
    )


def validation_scores(output: Path) -> list[tuple[float, float]]:
    lines = [line for line in read_lines(output / "metrics.jsonl") if "validation_auroc" in line]
    assert lines
    return [(line["validation_auroc"], line["validation_loss"]) for line in lines]


@pytest.mark.parametrize("world_size", [2, 4])
def test_attention_transfer_in_several_processes_trains_like_one(
    dataset: Path, followed: TrainingTeacherConfig, tmp_path: Path, world_size: int
) -> None:
    for processes in (1, world_size):
        finish(classify(tmp_path / str(processes), dataset, teacher=followed), processes)

    one, several = tmp_path / "1", tmp_path / str(world_size)
    assert (one / "batches.jsonl").read_bytes() == (several / "batches.jsonl").read_bytes()
    losses = [[loss for _, loss in logged_losses(output)] for output in (one, several)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
    for found, expected in zip(validation_scores(several), validation_scores(one), strict=True):
        assert found == pytest.approx(expected, abs=1e-2)


def test_all_other_signals_in_two_processes_go_on_bit_for_bit_after_a_kill(
    dataset: Path, teacher: Path, tmp_path: Path
) -> None:
    """With a regressor, whose gradients meet and which only checkpoints hold."""
    unlike = [TapConfig("stages.1", "stages.2")]
    taken = TrainingTeacherConfig(
        str(teacher), distillation=DistillationConfig(standardise=True), dist=DistConfig(),
        multi_label=MultiLabelConfig(embeddings=TapConfig("head.fc", "head.fc")),
        hints=HintsConfig(unlike),
        similarity=SimilarityConfig(unlike),
    )  # fmt: skip
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    finish(classify(undisturbed, dataset, teacher=taken), 2)
    outcomes = run_ranks(classify(killed, dataset, teacher=taken), 2, death=Death(20))
    assert outcomes[0].exitcode == -9 and not (killed / "record.json").exists()
    (record, _) = finish(classify(killed, dataset, teacher=taken), 2)

    assert 0 < record.metrics["steps_now"] < 6
    last = "checkpoints/step-000000006/optimiser.safetensors"
    for name in ("last.safetensors", "metrics.jsonl", last):
        assert file_sha256(killed / name) == file_sha256(undisturbed / name), name
    beside = {name for name in load_file(killed / last) if name.startswith("beside/")}
    parts = ("value", "step", "exp_avg", "exp_avg_sq")
    kinds = {f"adapters.1.{each}:{part}" for each in ("weight", "bias") for part in parts}
    assert beside == {f"beside/{each}" for each in kinds}
    of_teacher = load_file(teacher / "last.safetensors")
    assert load_file(killed / "last.safetensors").keys() == of_teacher.keys()


def test_every_process_has_the_same_auroc_of_all_images(dataset: Path, tmp_path: Path) -> None:
    """Of 14 validation images 4 processes have 4, 4, 3 and 3: none is lost, none counted twice."""
    frozen = {"recipe": {"steps": 1, "learning_rate": 1e-12}}
    for processes in (1, 4):
        finish(classify(tmp_path / str(processes), dataset, **frozen), processes)
    one, four = (validation_scores(tmp_path / name) for name in ("1", "4"))
    assert four[-1] == pytest.approx(one[-1], abs=1e-6)


def test_the_teacher_is_bit_identical_afterwards_in_two_processes(
    dataset: Path, tmp_path: Path
) -> None:
    """BatchNorm would give it away: every rank compares parameters, buffers and modes."""
    network = ModelSpec("timm:test_resnet", in_channels=1)
    finish(classify(tmp_path / "teacher", dataset, model=network))
    before = file_hashes(tmp_path / "teacher")
    attention = AttentionTransferConfig(taps=[TapConfig("layer3", "layer3")], beta=0.1)
    settings = {
        "teacher": TrainingTeacherConfig(str(tmp_path / "teacher"), attention=attention),
        "model": network,
        "seed": 1,
    }
    finish(classify(tmp_path / "student", dataset, **settings), 2)
    assert file_hashes(tmp_path / "teacher") == before
    student = load_file(tmp_path / "student" / "last.safetensors")
    teacher = load_file(tmp_path / "teacher" / "best.safetensors")
    assert not all(torch.equal(student[name], teacher[name]) for name in teacher)


def test_frozen_parts_train_in_two_processes(dataset: Path, tmp_path: Path) -> None:
    network = ModelSpec("timm:test_resnet", in_channels=1)
    settings = {"model": network, "trainable": ["fc"], "frozen_bn_eval": True}
    finish(classify(tmp_path / "start", dataset, model=network, recipe={"steps": 1}))
    start = {"init": str(tmp_path / "start"), **settings, "model": None}
    finish(classify(tmp_path / "out", dataset, **start), 2)
    before = load_file(tmp_path / "start" / "best.safetensors")
    after = load_file(tmp_path / "out" / "last.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"fc.weight", "fc.bias"}
