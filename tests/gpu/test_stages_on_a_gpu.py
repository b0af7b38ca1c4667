"""``teach``, ``evaluate`` and ``attention`` on a GPU give what they give on the CPU."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from nakt_dist.config import AttentionConfig, ShownNetworkConfig, TapConfig, TeachConfig
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.stages import attention, evaluate, teach
from tests.datasets import (
    make_chest_dataset,
    make_classifier,
    make_packed_dataset,
    make_weights,
)
from tests.recipes import evaluate_config, teach_config

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(180),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FINDINGS = ("Nodule", "Pleural Effusion", "Cardiomegaly")
DEVICES = ({"device": "cpu"}, {"device": "auto", "threads": None})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("dataset"), splits={"test": 1.0})


@pytest.fixture(scope="module")
def weights(dataset: Path) -> list[Path]:
    return [make_weights(dataset.parent / f"{seed}.safetensors", seed=seed) for seed in (0, 1)]


@pytest.fixture(autouse=True)
def plain_float32() -> Iterator[None]:
    """Without TF32, so that what is left are other orders of the same sums."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def masks_of(config: TeachConfig) -> np.ndarray:
    images = IndexedShards(config.dataset)
    pseudo = PseudoLabels(config.output, images)
    masks = [decode_pixels(pseudo.soft_mask_bytes(n), (32, 32)) for n in range(len(images))]
    return np.stack(masks).astype(int)


@pytest.mark.parametrize(("precision", "levels"), [("float32", 1), ("bfloat16", 25)])
def test_pseudo_masks_are_those_of_the_cpu(
    precision: str, levels: int, dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    masks, tables = [], []
    for number, device in enumerate(DEVICES):
        chosen = "float32" if device["device"] == "cpu" else precision
        config = teach_config(tmp_path / str(number), dataset, *weights, precision=chosen, **device)
        teach.run(config)
        masks.append(masks_of(config))
        tables.append(pq.read_table(tmp_path / str(number) / "index.parquet"))
    assert masks[0].std() > 1
    assert np.abs(masks[1] - masks[0]).max() <= levels
    if precision == "float32":
        for column in ("entropy", "mean_confidence", "teacher_disagreement"):
            ours, theirs = (table[column].to_numpy() for table in tables)
            np.testing.assert_allclose(ours, theirs, atol=0.1 if column == "entropy" else 1e-4)


def test_a_segmentation_network_scores_as_on_the_cpu(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    tables = []
    for number, device in enumerate(DEVICES):
        evaluate.run(evaluate_config(tmp_path / str(number), dataset, weights[0], **device))
        tables.append(pq.read_table(tmp_path / str(number) / "predictions.parquet"))
    dice = [table["dice"].to_numpy() for table in tables]
    np.testing.assert_allclose(dice[1], dice[0], atol=5e-3)
    assert tables[0]["key"] == tables[1]["key"]


def test_a_classifier_answers_as_on_the_cpu(tmp_path: Path) -> None:
    chest = make_chest_dataset(tmp_path)
    weights = make_classifier(tmp_path / "classifier.safetensors", FINDINGS)
    tables = []
    for number, device in enumerate(DEVICES):
        config = evaluate_config(tmp_path / str(number), chest, weights, **device, splits=["test"])
        evaluate.run(config)
        tables.append(pq.read_table(tmp_path / str(number) / "predictions.parquet"))
    answers = [name for name in tables[0].column_names if name.startswith("probability")]
    assert len(answers) == len(FINDINGS)
    for name in answers:
        ours, theirs = (table[name].to_numpy() for table in tables)
        assert theirs.std() > 0
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_maps_are_as_alike_as_on_the_cpu(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    student, teacher = (ShownNetworkConfig(weights=str(each)) for each in weights)
    metrics = []
    for number, device in enumerate(("cpu", "auto")):
        config = AttentionConfig(
            student, teacher, str(dataset), str(tmp_path / str(number)),
            taps=[TapConfig("encoder.2", "encoder.2")], splits=["test"], device=device,
        )  # fmt: skip
        metrics.append(attention.run(config).metrics)
    assert metrics[1] == pytest.approx(metrics[0], abs=1e-4)
