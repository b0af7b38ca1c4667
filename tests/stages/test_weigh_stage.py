"""``nakt weigh``: weights found on validation beat equal ones where a teacher is bad."""

import io
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from nakt_dist.cli import parse_config
from nakt_dist.config import AugmentationConfig, TeacherConfig, WeighConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.stages import teach, train, weigh
from tests.datasets import (
    make_chest_dataset,
    make_classifier,
    make_packed_dataset,
    make_weights,
)
from tests.recipes import teach_config, train_config


def config(output: Path, dataset: Path, *teachers: Path, **changes: object) -> WeighConfig:
    named = [TeacherConfig(str(each), name=each.stem) for each in teachers]
    settings = {"device": "cpu", "threads": 1, "splits": ["validation"], **changes}
    return WeighConfig(str(dataset), str(output), named, **settings)


def error_on_test(pseudo: Path, dataset: Path) -> float:
    """Mean squared error of the stored masks, images of the split test."""
    images = IndexedShards(dataset, ["test"])
    labels = PseudoLabels(pseudo, images)
    errors = []
    for number in range(len(images)):
        soft, mask = (
            np.asarray(Image.open(io.BytesIO(data))) / 255
            for data in (labels.soft_mask_bytes(number), images.mask_bytes(number))
        )
        errors.append(np.square(soft - mask).mean())
    return float(np.mean(errors))


def test_a_broken_teacher_gets_no_weight_and_its_pupils_are_spared(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, images=48)
    train.run(
        train_config(
            tmp_path / "good",
            dataset,
            {"steps": 60},
            augmentation=AugmentationConfig(enabled=False),
        )
    )
    good = tmp_path / "good" / "best.safetensors"
    broken = make_weights(tmp_path / "broken.safetensors", seed=3)

    record = weigh.run(config(tmp_path / "weights", dataset, good, broken))

    assert record.metrics["weighted_squared_error"] < record.metrics["equal_weights_squared_error"]
    weights = [each["weight"] for each in record.details["teachers"]]
    assert sum(weights) == pytest.approx(1)
    assert weights[0] > 0.9
    found = parse_config(
        "teach",
        [f"--config={tmp_path / 'weights/teachers.yaml'}", f"--dataset={dataset}",
         f"--output={tmp_path / 'weighted'}", "--device=cpu", "--threads=1"],
    )  # fmt: skip
    teach.run(found)
    teach.run(teach_config(tmp_path / "equal", dataset, good, broken))
    weighted, equal = (error_on_test(tmp_path / name, dataset) for name in ("weighted", "equal"))
    assert weighted < 0.7 * equal


def test_classifiers_are_weighed_by_the_findings_that_all_know(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_chest_dataset(tmp_path)
    first = make_classifier(tmp_path / "first.safetensors", ["Nodule", "Cardiomegaly"])
    second = make_classifier(tmp_path / "second.safetensors", ["Edema", "Nodule"], seed=1)

    record = weigh.run(config(tmp_path / "out", dataset, first, second))

    assert record.details["findings"] == ["Nodule"]
    assert f"{record.metrics['weighted_squared_error']:.5f}" in "".join(capsys.readouterr())
    assert len(yaml.safe_load((tmp_path / "out/teachers.yaml").read_text())["teachers"]) >= 1
    third = make_classifier(tmp_path / "third.safetensors", ["Edema"], seed=2)
    with pytest.raises(ConfigurationError, match="no finding is known to every teacher"):
        weigh.run(config(tmp_path / "none", dataset, first, third))


def test_a_teacher_that_knows_the_images_is_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_packed_dataset(tmp_path)
    train.run(train_config(tmp_path / "run", dataset, {"steps": 1, "global_batch_size": 4}))
    other = make_weights(tmp_path / "other.safetensors")
    best = tmp_path / "run" / "best.safetensors"
    weigh.run(config(tmp_path / "out", dataset, best, other, splits=["train"]))
    told = "".join(capsys.readouterr())
    assert "learnt from 6 of these 6 images" in told
    assert "whether other learnt from these images is not known" in told
    with pytest.raises(DatasetError, match="holds what train has written"):
        weigh.run(config(tmp_path / "run", dataset, best, other))


def test_one_teacher_has_nothing_to_be_weighed_against(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="teachers must be a list of 2 to 12 teachers"):
        config(tmp_path / "out", tmp_path, tmp_path / "alone.safetensors")
