"""DeepSpeed's ZeRO 1, 2 and 3 over gloo: DDP's losses, and checkpoints that any of them resumes."""

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nakt_dist.config import (
    AttentionTransferConfig,
    HintsConfig,
    LabelConfig,
    OptimiserConfig,
    TapConfig,
    TrainConfig,
    TrainingTeacherConfig,
    ValidationConfig,
)
from nakt_dist.models.spec import ModelSpec
from tests.datasets import make_chest_dataset, make_packed_dataset
from tests.launching import (
    accelerate_launch,
    finish,
    program,
    run_ranks,
)
from tests.mishaps import Signalled
from tests.recipes import file_hashes, logged_losses, read_lines, train_config

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.timeout(280),
    pytest.mark.skipif(
        importlib.util.find_spec("deepspeed") is None,
        reason="DeepSpeed is not installed: pip install 'nakt_dist[deepspeed]'",
    ),
]

ZERO3_FILE = Path(__file__).parents[2] / "configs" / "accelerate" / "deepspeed_zero3.yaml"
WITH_BATCHNORM = ModelSpec("unet", options={"base_channels": 4, "normalisation": "batch"})
PLAIN = ModelSpec("unet", options={"base_channels": 4, "normalisation": "none"})
STUDENT = ModelSpec("timm:test_resnet", in_channels=1)


def zero(stage: int) -> dict[str, str]:
    """What accelerate launch sets for ``configs/accelerate/deepspeed_zeroN.yaml``."""
    return {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": str(stage)}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=24, splits={"train": 2 / 3, "validation": 1 / 3})


FOUR_STEPS = {"steps": 4, "channels_last": False}
"""In ZeRO's memory format: another rounds otherwise, which tips pixels of so young a network."""

DECAYING = OptimiserConfig("adamw", weight_decay=0.5)
"""With two groups of parameters, of which one does not decay."""


def segment(
    output: Path, dataset: Path, recipe: dict[str, Any] | None = None, **changes: Any
) -> TrainConfig:
    """Two epochs of two steps; a network whose BatchNorm keeps statistics."""
    validation = ValidationConfig(str(dataset), splits=["validation"])
    settings = {"model": WITH_BATCHNORM, "validation": validation, **changes}
    return train_config(output, dataset, {**FOUR_STEPS, **(recipe or {})}, **settings)


@pytest.fixture(scope="module")
def ddp(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The segmentation network trained by two processes with DDP."""
    output = tmp_path_factory.mktemp("ddp") / "out"
    finish(segment(output, dataset), 2)
    return output


def assert_same_run(output: Path, expected: Path, tolerance: float = 1e-5) -> None:
    """Batches exactly; losses, validation, weights and statistics to a tolerance."""
    assert (output / "batches.jsonl").read_bytes() == (expected / "batches.jsonl").read_bytes()
    found, wanted = (read_lines(folder / "metrics.jsonl") for folder in (output, expected))
    assert [line["step"] for line in found] == [line["step"] for line in wanted]
    for mine, other in zip(found, wanted, strict=True):
        assert mine == pytest.approx(other, abs=tolerance)
    for name in ("last.safetensors", "best.safetensors"):
        mine, other = load_file(output / name), load_file(expected / name)
        assert mine.keys() == other.keys()
        for key, value in other.items():
            assert torch.allclose(mine[key].float(), value.float(), atol=tolerance), key


@pytest.fixture(scope="module")
def undisturbed(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The same trained with a stage of ZeRO, each once."""

    @cache
    def train(stage: int) -> Path:
        output = tmp_path_factory.mktemp("zero") / "out"
        (record, *_) = finish(segment(output, dataset), 2, 120, zero(stage))
        assert record.details["processes"] == 2
        return output

    return train


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_segments_like_ddp(ddp: Path, undisturbed: Callable[[int], Path], stage: int) -> None:
    assert_same_run(undisturbed(stage), ddp)


def clipped(output: Path, dataset: Path) -> TrainConfig:
    """Without BatchNorm: a bias before it has no gradient but rounding, which Adam blows up."""
    recipe = {
        "micro_batch_size": 2, "largest_gradient_norm": 0.5, "learning_rate": 1e-3,
        "optimiser": DECAYING,
    }  # fmt: skip
    return segment(output, dataset, model=PLAIN, recipe=recipe)


@pytest.fixture(scope="module")
def ddp_clipped(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("clipped") / "out"
    finish(clipped(output, dataset), 2)
    return output


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_accumulates_and_clips_gradients_like_ddp(
    dataset: Path, ddp_clipped: Path, tmp_path: Path, stage: int
) -> None:
    finish(clipped(tmp_path / "zero", dataset), 2, 120, zero(stage))

    assert_same_run(tmp_path / "zero", ddp_clipped)


def synchronised(output: Path, dataset: Path) -> TrainConfig:
    """One step, since a bias before BatchNorm has no gradient but rounding."""
    return segment(output, dataset, recipe={"steps": 1, "synchronised_batch_norm": True})


@pytest.fixture(scope="module")
def ddp_synchronised(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("synchronised") / "out"
    finish(synchronised(output, dataset), 2)
    return output


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_synchronises_batchnorm_like_ddp(
    dataset: Path, ddp_synchronised: Path, tmp_path: Path, stage: int
) -> None:
    finish(synchronised(tmp_path / "zero", dataset), 2, 120, zero(stage))

    folders = (ddp_synchronised, tmp_path / "zero")
    losses = [read_lines(folder / "metrics.jsonl")[0] for folder in folders]
    assert losses[1] == pytest.approx(losses[0], abs=1e-6)
    ddp, zeroed = (load_file(folder / "last.safetensors") for folder in folders)
    for name, value in ddp.items():
        if ".running_" in name:
            assert torch.allclose(zeroed[name], value, atol=1e-6), name


@pytest.fixture(scope="module")
def chest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chest_dataset(tmp_path_factory.mktemp("chest"))


def classify(output: Path, chest: Path) -> TrainConfig:
    return train_config(
        output,
        chest,
        recipe=FOUR_STEPS,
        task="classification",
        model=STUDENT,
        labels=LabelConfig(names=["Nodule", "Pleural Effusion", "Cardiomegaly"]),
        validation=ValidationConfig(str(chest), splits=["validation"]),
    )


@pytest.fixture(scope="module")
def teacher(chest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("teacher") / "teacher"
    finish(replace(classify(output, chest), seed=7))
    return output


def follow(output: Path, chest: Path, teacher: Path) -> TrainConfig:
    """The classifier follows a teacher's maps, a regressor before one, with a part of it frozen."""
    attention = AttentionTransferConfig(taps=[TapConfig("layer2", "layer2")], beta=0.5)
    hints = HintsConfig([TapConfig("layer2", "layer3")])
    return replace(
        classify(output, chest),
        teacher=TrainingTeacherConfig(weights=str(teacher), attention=attention, hints=hints),
        trainable=["layer2", "layer3", "layer4", "fc"],
    )


@pytest.fixture(scope="module")
def ddp_student(chest: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("student") / "out"
    finish(follow(output, chest, teacher), 2)
    return output


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_follows_a_teacher_like_ddp(
    chest: Path, teacher: Path, ddp_student: Path, tmp_path: Path, stage: int
) -> None:
    finish(follow(tmp_path / "out", chest, teacher), 2, 120, zero(stage))

    assert {"attention_loss", "hints_loss"} <= read_lines(tmp_path / "out/metrics.jsonl")[0].keys()
    assert_same_run(tmp_path / "out", ddp_student)


# ------------------------------------------------------------------------------------ going on


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_zero_goes_on_bit_for_bit_after_it_was_asked_to_leave(
    dataset: Path, undisturbed: Callable[[int], Path], tmp_path: Path, stage: int
) -> None:
    config = segment(tmp_path / "out", dataset)

    left = run_ranks(config, 2, 120, Signalled(step=3, rank=1), environment=zero(stage))
    assert all("saved at step 3" in str(outcome.error) for outcome in left)
    finish(config, 2, 120, zero(stage))

    found, expected = file_hashes(tmp_path / "out"), file_hashes(undisturbed(stage))
    for name in ("last.safetensors", "metrics.jsonl", "batches.jsonl"):
        assert found[name] == expected[name], name


def in_single_images(output: Path, dataset: Path) -> TrainConfig:
    return segment(
        output, dataset, model=PLAIN, recipe={"micro_batch_size": 1, "optimiser": DECAYING}
    )


@pytest.fixture(scope="module")
def one_process(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("one") / "out"
    finish(in_single_images(output, dataset))
    return output


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 3), (4, 2)), ((2, 2), (1, 0)), ((1, 0), (2, 3)), ((4, 1), (2, 1))],
)
def test_a_checkpoint_goes_on_in_another_world_and_another_stage(
    dataset: Path,
    one_process: Path,
    tmp_path: Path,
    before: tuple[int, int],
    after: tuple[int, int],
) -> None:
    """Pairs of processes and stage, of which 0 is one process or DDP."""
    config = in_single_images(tmp_path / "out", dataset)

    settings = (120, Signalled(step=2))
    left = run_ranks(config, before[0], *settings, environment=_environment(before[1]))
    assert all("saved at step 2 of 4" in str(outcome.error) for outcome in left)
    (record, *_) = finish(config, after[0], 120, _environment(after[1]))

    assert record.metrics["steps_now"] == 2
    found, expected = logged_losses(tmp_path / "out"), logged_losses(one_process)
    assert [loss for _, loss in found] == pytest.approx([loss for _, loss in expected], abs=1e-4)


def _environment(stage: int) -> dict[str, str]:
    return zero(stage) if stage else {}


# ------------------------------------------------------------------------------ from the shell


def test_the_configuration_file_starts_zero_3(dataset: Path, ddp: Path, tmp_path: Path) -> None:
    words = (
        "train", f"--output={tmp_path / 'out'}", f"--data.dataset={dataset}",
        f"--validation.dataset={dataset}", "--validation.splits=[validation]",
        "--recipe.steps=4", "--recipe.global_batch_size=8", "--recipe.learning_rate=0.01",
        "--recipe.precision=no",
        "--model.name=unet",
        '--model.options={"base_channels": 4, "normalisation": "batch"}',
        "--checkpoint.every_steps=2", "--threads=1", "--log_keys=true",
    )  # fmt: skip
    launch = accelerate_launch(f"--config_file={ZERO3_FILE}", "--num_processes=2")
    with program(*launch, *words, log=tmp_path / "log") as training:
        training.succeed(150)

    assert_same_run(tmp_path / "out", ddp)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"precision": "fp16"}, "recipe.precision fp16 cannot be had with DeepSpeed"),
        ({"compile": True}, "recipe.compile cannot be had with DeepSpeed"),
        ({"not_finite": "skip"}, "recipe.not_finite skip cannot be had with DeepSpeed"),
    ],
)
def test_what_cannot_be_had_with_deepspeed_is_refused(
    dataset: Path, tmp_path: Path, recipe: dict[str, Any], message: str
) -> None:
    outcomes = run_ranks(
        segment(tmp_path / "out", dataset, recipe=recipe), 2, 60, environment=zero(2)
    )

    assert all(message in str(outcome.error) for outcome in outcomes)


def test_fsdp_is_refused(dataset: Path, tmp_path: Path) -> None:
    outcomes = run_ranks(
        segment(tmp_path / "out", dataset), 2, environment={"ACCELERATE_USE_FSDP": "true"}
    )

    assert all("deepspeed_zero3.yaml" in str(outcome.error) for outcome in outcomes)


def test_deepspeed_without_a_launcher_is_refused(dataset: Path, tmp_path: Path) -> None:
    (outcome,) = run_ranks(segment(tmp_path / "out", dataset), environment=zero(2))

    assert "no launcher started this process" in str(outcome.error)


def test_bf16_trains(dataset: Path, tmp_path: Path) -> None:
    config = segment(tmp_path / "out", dataset, recipe={"steps": 2, "precision": "bf16"})
    finish(config, 2, 120, zero(3))

    weights = load_file(tmp_path / "out" / "last.safetensors")
    assert {str(value.dtype) for value in weights.values()} <= {"torch.float32", "torch.int64"}
