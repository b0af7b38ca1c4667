"""Mean teacher: the average of a student's weights teaches it, on images without labels as well."""

import json
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nakt_dist.config import (
    AugmentationConfig,
    LabelConfig,
    MeanTeacherConfig,
    SourceConfig,
    TrainConfig,
)
from nakt_dist.errors import ConfigurationError
from nakt_dist.loading.sampler import Share
from nakt_dist.models.spec import ModelSpec
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.report.roles import describe_lineage
from nakt_dist.stages import train
from nakt_dist.training.inputs import TrainingInputs
from nakt_dist.training.mean_teacher import Consistency, batch_statistics, weight_at
from tests.datasets import make_chest_dataset, make_packed_dataset
from tests.labelled import make_labelled_dataset
from tests.mixtures import ALL
from tests.recipes import read_lines, train_config

NAMES = ["Edema", "Nodule"]


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``findings`` has labels, and ``chest``, which are not read; ``masks`` has no findings."""
    folder = tmp_path_factory.mktemp("sites")
    make_labelled_dataset(folder, 12, splits=ALL)
    make_chest_dataset(folder, 16, splits=ALL)
    make_packed_dataset(folder, name="masks", images=16, splits=ALL)
    return folder


def semi_supervised(
    output: Path, sites: Path, unlabelled: str = "chest", network: str = "timm:test_convnext",
    recipe: dict[str, Any] | None = None,
) -> TrainConfig:  # fmt: skip
    data = [
        SourceConfig(str(sites / "findings"), weight=1),
        SourceConfig(str(sites / unlabelled), weight=1, unlabelled=True),
    ]
    config = train_config(output, sites)
    own = {"ema_decay": 0.9, "mean_teacher": MeanTeacherConfig(5.0), "learning_rate": 0.01}
    return replace(
        config, data=data, task="classification", labels=LabelConfig(names=NAMES),
        model=ModelSpec(network, in_channels=1),
        recipe=replace(config.recipe, **own, **recipe or {}),
    )  # fmt: skip


def test_the_loss_is_the_mean_squared_difference_of_probabilities() -> None:
    student = torch.tensor([[0.0, 2.0]], requires_grad=True)
    agreed = Consistency(torch.tensor([[0.0, -2.0]]), 5.0)
    loss = agreed.loss(student)
    difference = 1 / (1 + 2.718281828**-2) - 1 / (1 + 2.718281828**2)
    assert loss.item() == pytest.approx(difference**2 / 2, rel=1e-6)
    loss.backward()
    assert student.grad[0, 0] == 0 and student.grad[0, 1] > 0  # down to what the average says


def test_its_weight_rises_as_in_the_papers() -> None:
    config = MeanTeacherConfig(8.0, ramp_up_steps=4)
    found = [weight_at(config, step) for step in (0, 2, 4, 9)]
    assert found == pytest.approx([8 * 2.718281828**-5, 8 * 2.718281828**-1.25, 8, 8])
    assert weight_at(MeanTeacherConfig(8.0), 0) == 8


def test_batch_norms_use_the_batch_and_learn_nothing() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.9)).eval()
    images = torch.rand(4, 1, 3, 3) * 7
    before = {name: value.clone() for name, value in network.state_dict().items()}
    student = deepcopy(network).train()
    with batch_statistics(network, student):
        found = network(images)
    assert found.mean((0, 2, 3)).abs().max() < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(module.training for module in network.modules())
    assert not torch.allclose(network(images), found)
    student[1].eval()  # as with frozen_bn_eval
    with batch_statistics(network, student):
        assert torch.equal(network(images), network.eval()(images))


@pytest.mark.parametrize("frozen_bn_eval", [True, False])
def test_an_average_that_is_the_student_agrees_with_it(
    sites: Path, tmp_path: Path, frozen_bn_eval: bool
) -> None:
    """Before the first step, of the same view, whatever BatchNorms are frozen."""
    config = semi_supervised(
        tmp_path / "out", sites, network="timm:test_resnet", recipe={"epochs": None, "steps": 1}
    )
    train.run(
        replace(
            config, trainable=["layer4", "fc"], frozen_bn_eval=frozen_bn_eval,
            augmentation=AugmentationConfig(enabled=False),
        )
    )  # fmt: skip
    (first,) = [line for line in read_lines(tmp_path / "out/metrics.jsonl") if "loss" in line]
    assert first["consistency"] == pytest.approx(0, abs=1e-12)


@pytest.fixture(scope="module")
def trained(sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "out"
    train.run(semi_supervised(output, sites))
    return output


def test_images_without_labels_teach_by_consistency_alone(sites: Path, trained: Path) -> None:
    lines = read_lines(trained / "metrics.jsonl")
    assert all(line["consistency"] > 0 for line in lines if "loss" in line)
    for line in lines:
        if "loss" in line:
            whole = line["cross_entropy"] + 5 * line["consistency"]
            assert line["loss"] == pytest.approx(whole, abs=1e-5)
            assert "loss_by_source/chest" not in line
    lineage = json.loads((trained / "record.json").read_text())["details"]["lineage"]
    images = [each["labels"] for each in lineage["trained_on"]["sources"]]
    assert images == ["annotations", "no labels"]
    read = read_lineage(lineage)
    assert "images without labels of chest" in describe_lineage(read)
    assert read.method.parts == (
        "all layers, mean teacher (weight 5, decay 0.9), besides 16 images of chest without labels"
    )
    assert (read.labelled.dataset, read.labelled.samples) == ("findings", 12)
    assert [each.dataset for each in read.learnt.parts] == ["findings", "chest"]


def test_it_does_not_depend_on_how_a_batch_is_divided(
    sites: Path, trained: Path, tmp_path: Path
) -> None:
    train.run(semi_supervised(tmp_path / "out", sites, recipe={"micro_batch_size": 2}))
    losses = [
        [line["loss"] for line in read_lines(folder / "metrics.jsonl") if "loss" in line]
        for folder in (trained, tmp_path / "out")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_both_views_are_alike_for_any_processes_and_unlike_each_other(sites: Path) -> None:
    config = semi_supervised(Path("unused"), sites)
    images = train.make_plan(config, train.open_parts(config, train.Opening())).training.images(0)
    by_launch = []
    for world_size, micro in ((1, 8), (2, 4), (2, 2)):
        share = Share.of(8, world_size, micro)
        ranks = [
            TrainingInputs(replace(config, workers=0), images, share, rank, torch.device("cpu"))
            for rank in range(world_size)
        ]
        for each in ranks:
            each.open(1, 3)
        parts = [[seen for step in (1, 2) for seen in each.micro_batches(step)] for each in ranks]
        order = [seen for together in zip(*parts, strict=True) for seen in together]
        by_launch.append(
            [torch.cat([getattr(e, n) for e in order]) for n in ("image", "other_view")]
        )
    for seen in by_launch[1:]:
        assert all(torch.equal(*each) for each in zip(seen, by_launch[0], strict=True))
    first, second = by_launch[0]
    assert not any(torch.equal(*each) for each in zip(first, second, strict=True))


@pytest.mark.parametrize("network", ["timm:test_convnext", "timm:test_resnet"])
def test_an_interrupted_run_ends_as_one_in_one_go(
    sites: Path, network: str, tmp_path: Path
) -> None:
    for name, lengths in {"once": [6], "again": [3, 6]}.items():
        for steps in lengths:
            recipe = {"epochs": None, "steps": steps}
            output = tmp_path / name
            train.run(semi_supervised(output, sites, network=network, recipe=recipe))
    losses = [read_lines(tmp_path / name / "metrics.jsonl")[-1] for name in ("once", "again")]
    assert losses[0] == losses[1]
    weights = [(tmp_path / name / "last.safetensors").read_bytes() for name in ("once", "again")]
    assert weights[0] == weights[1]


def test_a_dataset_that_has_no_findings_may_be_the_one_without_labels(
    sites: Path, tmp_path: Path
) -> None:
    record = train.run(semi_supervised(tmp_path / "out", sites, "masks"))
    assert record.details["lineage"]["labels"] == NAMES


def test_what_would_teach_nothing_is_refused(sites: Path, tmp_path: Path) -> None:
    config = semi_supervised(tmp_path / "out", sites)
    with pytest.raises(ConfigurationError, match=r"recipe\.ema_decay is not"):
        replace(config.recipe, ema_decay=None)
    with pytest.raises(ConfigurationError, match="nothing would be learnt from it"):
        replace(config, recipe=replace(config.recipe, mean_teacher=None))
    with pytest.raises(ConfigurationError, match="comes first"):
        replace(config, data=list(reversed(config.data)))
    with pytest.raises(ConfigurationError, match="unless task is classification"):
        replace(config, task="segmentation", labels=None)
    with pytest.raises(ConfigurationError, match="no label of it is learnt"):
        replace(config.data[1], labels=LabelConfig(uncertain="one"))
