"""BatchNorm in several processes: on request its statistics are those of all their images."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from nakt_dist.config import (
    AttentionTransferConfig,
    LabelConfig,
    TapConfig,
    TrainConfig,
    TrainingTeacherConfig,
    ValidationConfig,
)
from nakt_dist.errors import ConfigurationError
from nakt_dist.models.building import build_configured
from nakt_dist.models.spec import ModelSpec
from nakt_dist.training.batch_norm import synchronise_batch_norm
from tests.datasets import make_chest_dataset, make_packed_dataset
from tests.launching import errors_of, finish, fork
from tests.recipes import logged_losses, read_lines, train_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(180)]

WITH_BATCHNORM = ModelSpec("unet", options={"base_channels": 4, "normalisation": "batch"})


# ----------------------------------------------------------------------------- the layer


def activated() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 3, 3), BatchNormAct2d(3), nn.Conv2d(3, 1, 1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 3),
        nn.BatchNorm2d(2, affine=False, momentum=None),
    ),
    "activated": activated,
    "not followed": lambda: nn.Sequential(
        nn.BatchNorm2d(1, track_running_stats=False), nn.Conv2d(1, 1, 3)
    ),
    "unet": lambda: build_configured(WITH_BATCHNORM),
    "residual": lambda: timm.create_model("test_resnet", in_chans=1, num_classes=3),
}  # fmt: skip


def make_network(kind: str) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS[kind]().double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network


def learn(network: nn.Module, parts: Sequence[Tensor]) -> tuple[list[float], dict[str, Tensor]]:
    """Two forward and backward passes; losses are sums, so that uneven parts add up."""
    losses = []
    for part in parts:
        output = network(part)
        weights = torch.linspace(-1, 2, output[0].numel(), dtype=output.dtype)
        loss = (output * weights.view(output[0].shape)).square().sum()
        loss.backward()
        losses.append(loss.item())
    found = {name: each.grad for name, each in network.named_parameters() if each.grad is not None}
    return losses, {**found, **dict(network.named_buffers())}


def images() -> list[Tensor]:
    """Two batches of 8, of unlike means."""
    generator = torch.Generator().manual_seed(5)
    scale = torch.arange(1.0, 9.0, dtype=torch.float64).view(8, 1, 1, 1)
    shape = (8, 1, 32, 32)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64) * scale + 3 * scale
        for _ in range(2)
    ]


def rank(number: int, folder: str, kind: str, sizes: Sequence[int]) -> None:
    """Learns from one part of each batch; leaves what came of it."""
    place = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", place, rank=number, world_size=len(sizes))
    network = make_network(kind)
    names = list(network.state_dict())
    synchronise_batch_norm(network)
    assert list(network.state_dict()) == names
    parts = [torch.split(batch, list(sizes))[number] for batch in images()]
    losses, found = learn(DistributedDataParallel(network), parts)
    found = {name.removeprefix("module."): each for name, each in found.items()}
    torch.save((losses, found), f"{folder}/{number}.pt")
    distributed.destroy_process_group()


def run_both(folder: Path, kind: str, sizes: Sequence[int]) -> list[Any]:
    processes = [fork(rank, number, str(folder), kind, sizes) for number in range(len(sizes))]
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0] * len(sizes)
    return [torch.load(folder / f"{number}.pt") for number in range(len(sizes))]


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("sizes", [(4, 4), (7, 1)], ids=str)
def test_two_parts_give_the_losses_statistics_and_gradients_of_one(
    kind: str, sizes: Sequence[int], tmp_path: Path
) -> None:
    losses, expected = learn(make_network(kind), images())

    outcomes = run_both(tmp_path, kind, sizes)

    together = [sum(each) for each in zip(*(found for found, _ in outcomes), strict=True)]
    assert together == pytest.approx(losses, rel=1e-10)
    assert any(name.endswith("weight") for name in expected)
    for _, found in outcomes:
        assert found.keys() == expected.keys()
        for name, wanted in expected.items():
            mean = not name.rpartition(".")[2].startswith(("running", "num_batches"))
            mine = found[name] * len(sizes) if mean else found[name]  # DDP averages gradients
            assert torch.allclose(mine.double(), wanted.double(), rtol=1e-7, atol=1e-7), name


def test_alone_and_in_evaluation_a_network_computes_what_it_did() -> None:
    for train in (True, False):
        plain = make_network("activated").train(train)
        mine = copy.deepcopy(plain)
        assert synchronise_batch_norm(mine) == 1
        mine = copy.deepcopy(mine)
        assert torch.equal(mine(images()[0]), plain(images()[0]))
        assert mine.state_dict().keys() == plain.state_dict().keys()
        for name, value in plain.state_dict().items():
            assert torch.equal(mine.state_dict()[name], value)


def test_a_batchnorm_with_a_way_of_its_own_is_refused_by_name() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, values: Tensor) -> Tensor:
            return 2 * super().forward(values)

    with pytest.raises(
        ConfigurationError, match="'1' is a Own, which computes in a way of its own"
    ):
        synchronise_batch_norm(nn.Sequential(nn.BatchNorm2d(1), Own(1)))


# ----------------------------------------------------------------------------- the stage


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    return make_packed_dataset(folder, images=24, splits={"train": 2 / 3, "validation": 1 / 3})


def together(output: Path, dataset: Path, **changes: Any) -> TrainConfig:
    recipe = {"synchronised_batch_norm": True, **changes.pop("recipe", {})}
    return train_config(output, dataset, model=WITH_BATCHNORM, recipe=recipe, **changes)


def test_two_by_four_trains_like_one_by_eight_with_batchnorm(dataset: Path, tmp_path: Path) -> None:
    """At the papers' rate: a bias before BatchNorm has no gradient but rounding, which Adam makes
    steps of that size from.
    """
    changes = {
        "validation": ValidationConfig(str(dataset), splits=["validation"]),
        "recipe": {"learning_rate": 1e-4},
    }
    for world_size in (1, 2):
        finish(together(tmp_path / str(world_size), dataset, **changes), world_size)

    one, two = (logged_losses(tmp_path / name) for name in ("1", "2"))
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], abs=1e-4)
    scores = [
        [line["validation_dice"] for line in read_lines(tmp_path / name / "metrics.jsonl")
         if "validation_dice" in line]
        for name in ("1", "2")
    ]  # fmt: skip
    assert scores[0]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


@pytest.mark.parametrize("micro", [None, 2])
def test_the_statistics_of_one_step_are_those_of_one_process(
    dataset: Path, tmp_path: Path, micro: int | None
) -> None:
    """Micro-batches are accumulated, and each has statistics of its own, over all processes."""
    for world_size in (1, 2):
        size = micro and micro * 2 // world_size
        recipe = {"steps": 1, "micro_batch_size": size}
        finish(together(tmp_path / str(world_size), dataset, recipe=recipe), world_size)

    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("1", "2"))
    statistics = [name for name in one if ".running_" in name]
    assert one.keys() == two.keys()
    assert len(statistics) > 10
    for name in statistics:
        assert torch.allclose(two[name], one[name], rtol=1e-4, atol=1e-5), name


def test_without_the_setting_the_statistics_are_those_of_each_process(
    dataset: Path, tmp_path: Path
) -> None:
    for together_ in (True, False):
        recipe = {"synchronised_batch_norm": together_}
        finish(together(tmp_path / str(together_), dataset, recipe=recipe), 2)

    with_, without = (logged_losses(tmp_path / name) for name in ("True", "False"))
    assert [loss for _, loss in with_] != pytest.approx([loss for _, loss in without], abs=1e-4)


def test_a_student_with_batchnorm_follows_its_teacher_as_one_process_does(tmp_path: Path) -> None:
    """The teacher is frozen, whole on each process, and no part of what is synchronised."""
    chest = make_chest_dataset(tmp_path)
    common = {
        "task": "classification",
        "model": ModelSpec("timm:test_resnet", in_channels=1),
        "labels": LabelConfig(names=["Nodule", "Pleural Effusion", "Cardiomegaly"]),
    }
    finish(train_config(tmp_path / "teacher", chest, seed=7, **common))
    attention = AttentionTransferConfig(taps=[TapConfig("layer2", "layer2")], beta=0.5)
    common["teacher"] = TrainingTeacherConfig(str(tmp_path / "teacher"), attention=attention)
    for world_size in (1, 2):
        recipe = {"steps": 4, "synchronised_batch_norm": True, "learning_rate": 1e-4}
        finish(train_config(tmp_path / str(world_size), chest, recipe, **common), world_size)

    one, two = (read_lines(tmp_path / name / "metrics.jsonl") for name in ("1", "2"))
    assert one[0]["attention_loss"] > 0
    for mine, other in zip(two, one, strict=True):
        assert mine == pytest.approx(other, abs=1e-4)


def test_a_run_does_not_go_on_with_other_statistics(dataset: Path, tmp_path: Path) -> None:
    finish(together(tmp_path / "out", dataset, recipe={"steps": 2}))
    recipe = {"steps": 4, "synchronised_batch_norm": False}

    (message,) = errors_of(together(tmp_path / "out", dataset, recipe=recipe), 1)

    assert "recipe.synchronised_batch_norm: found True, expected False" in message
