"""``nakt attention``: two networks' attention side by side, and how alike it is per finding."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from nakt_dist.cli import main
from nakt_dist.config import AttentionConfig, ShownNetworkConfig, TapConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.evaluation.image_choice import choose_other_images
from nakt_dist.models.network_file import open_network
from nakt_dist.models.spec import ModelSpec
from nakt_dist.records.run_record import read_record
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import attention
from tests.datasets import (
    make_blob,
    make_chest_dataset,
    make_classifier,
    make_packed_dataset,
    make_weights,
)
from tests.recipes import file_hashes

LABELS = ("Nodule", "Pleural Effusion", "Hernia", "No Finding")
FILES = ["attention-similarity.png", "attention.parquet", "attention.png"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chest_dataset(tmp_path_factory.mktemp("dataset"), images=16)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("networks")
    student = make_classifier(folder / "student.safetensors", LABELS, seed=0)
    return student, make_classifier(folder / "teacher.safetensors", LABELS[:2], seed=1)


def attention_config(
    output: Path, dataset: Path, networks: tuple[Path, Path], **changes: Any
) -> AttentionConfig:
    config = AttentionConfig(
        student=ShownNetworkConfig(str(networks[0])),
        teacher=ShownNetworkConfig(str(networks[1])),
        dataset=str(dataset),
        output=str(output),
        splits=None,
        images=2,
        device="cpu",
        threads=1,
    )
    return replace(config, **changes)


@torch.no_grad()
def squeezed_maps(weights: Path, dataset: Path) -> np.ndarray:
    """The attention of a ``densenet40`` on every image, without any of the stage's code."""
    network, images, kept = open_network(weights).network, IndexedShards(dataset), []
    network.features.squeeze.register_forward_hook(lambda *call: kept.append(call[2].clone()))
    files = [io.BytesIO(images.image_bytes(number)) for number in range(len(images))]
    pixels = np.stack([np.asarray(Image.open(file)) for file in files]) / 255
    network(torch.tensor(pixels, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1))
    return kept[0].square().mean(1).flatten(1).numpy()


def test_similarity_is_measured_on_every_image_and_averaged_per_finding(
    dataset: Path, networks: tuple[Path, Path], tmp_path: Path
) -> None:
    record = attention.run(attention_config(tmp_path / "out", dataset, networks, batch_size=7))

    student, teacher = (squeezed_maps(weights, dataset) for weights in networks)
    expected = [np.corrcoef(s, t)[0, 1] for s, t in zip(student, teacher, strict=True)]
    rows = pq.read_table(tmp_path / "out" / "attention.parquet").to_pylist()
    images = IndexedShards(dataset)
    assert [row["key"] for row in rows] == images.keys
    assert [row["similarity"] for row in rows] == pytest.approx(expected, abs=1e-3)
    assert record.metrics["similarity_mean"] == pytest.approx(np.mean(expected), abs=1e-3)
    patients = IndexedShards(dataset).patients
    chosen = choose_other_images(patients, ["frontal"] * 16, 0)
    assert all(patients[other] != patients[row] for row, other in enumerate(chosen))
    others = [np.corrcoef(student[row], teacher[other])[0, 1] for row, other in enumerate(chosen)]
    assert [row["similarity_to_other_image"] for row in rows] == pytest.approx(others, abs=1e-3)
    measured = record.metrics["similarity_to_other_image_mean"]
    assert measured == pytest.approx(np.mean(others), abs=1e-3)

    found = {label["name"]: label for label in record.details["labels"]}
    with_nodule = [each.get("Nodule") == 1 for each in images.findings()]
    assert found["Nodule"]["images"] == sum(with_nodule) > 0
    values = np.asarray(expected)[with_nodule]
    assert found["Nodule"]["similarity_mean"] == pytest.approx(values.mean(), abs=1e-3)
    assert found["Nodule"]["similarity_std"] == pytest.approx(values.std(), abs=1e-3)
    assert found["Hernia"]["images"] == 0
    assert found["Hernia"]["similarity_mean"] is None


def test_the_record_says_what_was_compared_and_the_files_repeat(
    dataset: Path, networks: tuple[Path, Path], tmp_path: Path
) -> None:
    config = attention_config(tmp_path / "out", dataset, networks)
    record = attention.run(config)
    assert record == read_record(tmp_path / "out" / "record.json")
    assert (record.stage, record.counts) == ("attention", {"images": 16, "images_shown": 2})
    assert record.details["sheet"] == "attention.png"
    assert record.details["class_activation"] == "exact"
    layer = "features.squeeze"
    assert record.details["taps"] == [{"student": layer, "teacher": layer}]
    assert record.details["teacher"]["taught_this_student"] is None

    text = (tmp_path / "out" / "record.json").read_text()
    assert not any(key in text for key in IndexedShards(dataset).keys)

    first = file_hashes(tmp_path / "out")
    assert sorted(first) == sorted([*FILES, "config.yaml", "record.json"])
    attention.run(config)
    again = file_hashes(tmp_path / "out")
    assert {name: again[name] for name in FILES} == {name: first[name] for name in FILES}
    sheet = Image.open(tmp_path / "out" / "attention.png")
    assert sheet.width > sheet.height > 100


def test_the_command_line_runs_it(
    dataset: Path, networks: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["attention", f"--student.weights={networks[0]}", f"--teacher.weights={networks[1]}"]
    words += [f"--dataset={dataset}", f"--output={tmp_path / 'out'}", "--similarity_images=3"]
    assert main([*words, "--images=1", "--labels=[Hernia]", "--threads=1", "--device=cpu"]) == 0
    assert "similarity" in capsys.readouterr().err
    rows = pq.read_table(tmp_path / "out" / "attention.parquet").to_pylist()
    keys = IndexedShards(dataset, ["test"]).keys
    assert len(rows) == 3
    assert [row["key"] for row in rows] == [key for key in keys if key in {r["key"] for r in rows}]


def test_samples_are_shown_by_key_and_a_foreign_network_is_told_its_labels(
    dataset: Path, networks: tuple[Path, Path], tmp_path: Path
) -> None:
    keys = IndexedShards(dataset).keys
    foreign = make_classifier(tmp_path / "foreign.safetensors", None, outputs=4)
    student = ShownNetworkConfig(str(foreign), model=ModelSpec("densenet40", in_channels=3))
    config = attention_config(
        tmp_path / "out", dataset, networks, student=student, samples=[keys[3], keys[1], keys[0]]
    )
    record = attention.run(config)
    assert record.counts["images_shown"] == 3
    assert record.details["class_activation"] is None  # nobody says what its outputs are
    with pytest.raises(ConfigurationError, match="does not say what it answers"):
        attention.run(replace(config, labels=["Nodule"]))
    published = ["Nodule", "Effusion", "Hernia", "No Finding"]
    named = replace(config, student=replace(student, labels=published), labels=["Effusion"])
    assert attention.run(named).details["class_activation"] == "exact"


def test_a_foreign_teacher_of_any_number_of_outputs_may_be_looked_at(
    dataset: Path, networks: tuple[Path, Path], tmp_path: Path
) -> None:
    torch.save(ModelSpec("densenet121", 3, 1000).build().state_dict(), tmp_path / "imagenet.pth")
    teacher = ShownNetworkConfig(str(tmp_path / "imagenet.pth"), model=ModelSpec("densenet121", 3))
    config = attention_config(tmp_path / "out", dataset, networks, teacher=teacher)
    with pytest.raises(ConfigurationError, match="teacher's tap gives planes of 1 × 1"):
        attention.run(config)
    assert not (tmp_path / "out").exists()
    record = attention.run(
        replace(config, taps=[TapConfig("features.squeeze", "features.denseblock2")])
    )
    assert record.metrics["similarity_mean"] is not None


@pytest.mark.parametrize("classes", [(), ("background", "target"), ("target", "background")])
def test_segmentation_networks_are_shown_with_outlines_and_without_class_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classes: tuple[str, ...]
) -> None:
    dataset = make_packed_dataset(tmp_path)
    networks = tuple(
        make_weights(
            tmp_path / f"{seed}.safetensors", base_channels=4 * seed, seed=seed, classes=classes
        )
        for seed in (1, 2)
    )
    student = open_network(networks[0])
    layers = [name for name, _ in open_network(networks[0]).network.named_modules()]
    layer = next(name for name in layers if name.count(".") == 1)
    config = attention_config(tmp_path / "out", dataset, networks, taps=[TapConfig(layer, layer)])
    sheets = []
    monkeypatch.setattr(
        attention, "draw_attention_sheet", lambda *each: sheets.append(each) or b"a sheet"
    )
    record = attention.run(config)
    assert record.details["class_activation"] is None
    ((title, _, findings, rows),) = sheets
    assert title == "Attention of the student “1” and of the network “2” on squares"
    assert findings == []
    images = {}
    for number in range(12):
        image, target = make_blob(number)
        images[image.tobytes()] = target
    for row in rows:
        annotation, prediction = row.outlines
        assert (annotation.mask == images[row.image.tobytes()]).all()
        with torch.no_grad():
            seen = torch.tensor(row.image / 255, dtype=torch.float32)[None, None]
            planes = dict(zip(classes or ["target"], student.probability(seen)[0], strict=True))
        assert (prediction.mask == (planes["target"] > 0.5).numpy()).all()
    assert record.details["labels"] == []
    assert record.details["figure"] is None
    assert record.metrics["similarity_mean"] is not None
    assert record.metrics["plane_similarity_mean"] is None  # they have not equally many planes
    with pytest.raises(ConfigurationError, match="no tap for the network 'unet'"):
        attention.run(replace(config, taps=None))


def test_what_cannot_be_is_refused_before_anything_is_written(
    dataset: Path, networks: tuple[Path, Path], tmp_path: Path
) -> None:
    config = attention_config(tmp_path / "out", dataset, networks)
    refused = {
        "samples has 'nobody'": {"samples": ["nobody"]},
        "did you mean 'Nodule'": {"labels": ["Noduls"]},
        "labels has 'Pleural Effusion' twice": {"labels": ["Effusion", "Pleural Effusion"]},
        "there is no layer 'features.squeze', did you mean 'features.squeeze'": {
            "taps": [TapConfig("features.squeeze", "features.squeze")]
        },
        "student.labels gives 1 names": {
            "student": ShownNetworkConfig(str(networks[0]), labels=["Nodule"])
        },
    }
    for message, change in refused.items():
        with pytest.raises(ConfigurationError, match=message.replace(".", r"\.")):
            attention.run(replace(config, **change))
    assert not (tmp_path / "out").exists()


def test_another_stages_folder_is_left_alone(
    dataset: Path, networks: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions.parquet").write_bytes(b"")
    with pytest.raises(DatasetError, match="what evaluate has written"):
        attention.run(attention_config(tmp_path / "out", dataset, networks))
