"""A teacher that comes as an ONNX file teaches, is followed and is evaluated as its checkpoint."""

import json
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nakt_dist.config import (
    AttentionConfig,
    AttentionTransferConfig,
    AugmentationConfig,
    ExportConfig,
    LabelConfig,
    PreprocessingConfig,
    ShownNetworkConfig,
    TapConfig,
    TeacherConfig,
    TrainingTeacherConfig,
)
from nakt_dist.errors import ConfigurationError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.runtime.files import file_sha256
from nakt_dist.shards.manifest import PseudoLabelManifest
from nakt_dist.shards.pseudo_findings import PseudoFindings
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import attention, evaluate, export, teach, train
from tests.datasets import make_chest_dataset, make_packed_dataset, make_weights
from tests.onnx_files import export_onnx, make_small_classifier
from tests.recipes import evaluate_config, teach_config, train_config

FINDINGS = ["Nodule", "Cardiomegaly"]
TAP = TapConfig("layer3", "layer3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx_teachers")
    masked, chest = make_packed_dataset(folder), make_chest_dataset(folder, name="films")
    manifest = IndexedShards(masked).manifest
    learnt = {
        "dataset": manifest.dataset, "fingerprint": manifest.fingerprint, "phantom": False,
        "samples": 6, "splits": ["train"], "labels": "annotations",
    }  # fmt: skip
    make_weights(folder / "mask.safetensors", lineage=json.dumps({"trained_on": learnt}))
    make_weights(folder / "classes.safetensors", seed=1, classes=("background", "a", "b"))
    make_small_classifier(folder / "findings.safetensors", FINDINGS)
    side = IndexedShards(chest).manifest.height
    for name, taps, pixels in (
        ("mask", [], 32),
        ("classes", [], 32),
        ("findings", ["layer3"], side),
    ):
        export_onnx(folder / f"{name}.safetensors", folder / f"{name}.onnx", pixels, taps)
    return folder


def soft_masks(folder: Path) -> np.ndarray:
    masks = []
    for path in sorted(folder.glob("pseudo-*.tar")):
        with tarfile.open(path) as archive:
            masks += [np.asarray(Image.open(archive.extractfile(each))) for each in archive]
    return np.stack(masks).astype(int)


@pytest.mark.parametrize("name", ["mask", "classes"])
def test_its_pseudo_masks_are_those_of_the_checkpoint(
    folder: Path, tmp_path: Path, name: str
) -> None:
    for suffix in ("safetensors", "onnx"):
        config = teach_config(tmp_path / suffix, folder / "squares", folder / f"{name}.{suffix}")
        teach.run(config)
    teach.run(replace(config, output=str(tmp_path / "in fives"), batch_size=5))
    plain, onnx, fives = (
        soft_masks(tmp_path / each) for each in ("safetensors", "onnx", "in fives")
    )
    for other in (onnx, fives):
        assert np.abs(plain - other).max() <= 1 and (plain != other).mean() <= 1e-3
    (told,) = PseudoLabelManifest.read(tmp_path / "onnx").teachers
    (known,) = PseudoLabelManifest.read(tmp_path / "safetensors").teachers
    assert told["weights_sha256"] == file_sha256(folder / f"{name}.onnx")
    assert told["exported_from"] == known["weights_sha256"] and "exported_from" not in known
    assert told["lineage"] == known["lineage"] and told["architecture"] == known["architecture"]


def test_its_pseudo_findings_are_those_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    found = []
    for suffix in ("safetensors", "onnx"):
        config = teach_config(tmp_path / suffix, folder / "films", folder / f"findings.{suffix}")
        teach.run(config)
        taught = PseudoFindings.read(tmp_path / suffix)
        assert list(taught.manifest.findings) == FINDINGS
        found.append(np.asarray(taught.probability))
    assert np.abs(found[0] - found[1]).max() <= 2 / 65535


def test_of_theirs_settings_say_what_the_file_does_not(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export_onnx(
        folder / "findings.safetensors", tmp_path / "theirs.onnx",
        IndexedShards(folder / "films").manifest.height, ours=False,
    )  # fmt: skip
    theirs = TeacherConfig(str(tmp_path / "theirs.onnx"))
    with pytest.raises(ConfigurationError, match="does not say what its 2 outputs mean"):
        teach.run(teach_config(tmp_path / "out", folder / "films", theirs))
    theirs = replace(
        theirs,
        model=ModelSpec("onnx", options={"output": "answer", "activation": "none"}),
        labels=FINDINGS,
        preprocessing=PreprocessingConfig(mean=0.0, std=1.0),
    )
    for name, teacher in (("theirs", theirs), ("ours", folder / "findings.onnx")):
        teach.run(teach_config(tmp_path / name, folder / "films", teacher))
    one, other = (PseudoFindings.read(tmp_path / each) for each in ("theirs", "ours"))
    assert np.array_equal(one.probability, other.probability)
    (told,) = one.manifest.teachers
    assert told["lineage"] == {} and told["architecture"]["name"] == "onnx:classification"
    assert "Taken" not in capsys.readouterr().err  # the settings said it all
    with pytest.raises(ConfigurationError, match="and would see"):
        bigger = replace(theirs, scales=[2.0])
        teach.run(teach_config(tmp_path / "bigger", folder / "films", bigger))


def test_it_is_evaluated_as_its_checkpoint_and_what_it_met_is_told(
    folder: Path, tmp_path: Path
) -> None:
    export_onnx(folder / "mask.safetensors", tmp_path / "theirs.onnx", ours=False)
    for split, met in (("train", True), ("test", False)):
        records = []
        for suffix in ("safetensors", "onnx"):
            output, path = tmp_path / f"{split}-{suffix}", folder / f"mask.{suffix}"
            config = evaluate_config(output, folder / "squares", path, splits=[split])
            records.append(evaluate.run(config))
            assert records[-1].details["met_test_images"]["training"] is met
        assert records[1].details["exported_from"] == records[0].inputs["weights_sha256"]
        dice = [record.metrics["dice_mean"] for record in records]
        assert dice[1] == pytest.approx(dice[0], abs=1e-3)
    config = evaluate_config(tmp_path / "their test", folder / "squares", tmp_path / "theirs.onnx")
    record = evaluate.run(config)
    assert record.details["met_test_images"]["training"] is None
    assert "exported_from" not in record.details


def test_attention_shows_where_it_looks_as_a_teacher_alone(folder: Path, tmp_path: Path) -> None:
    weights, onnx = (
        ShownNetworkConfig(str(folder / f"findings.{suffix}")) for suffix in ("safetensors", "onnx")
    )
    common = {"splits": None, "taps": [TAP], "images": 1, "device": "cpu", "threads": 1}
    records = [
        attention.run(
            AttentionConfig(weights, teacher, str(folder / "films"), str(tmp_path / name), **common)
        )
        for name, teacher in (("weights", weights), ("onnx", onnx))
    ]
    assert records[1].metrics == pytest.approx(records[0].metrics, abs=1e-4)
    with pytest.raises(ConfigurationError, match="neither layers nor gradients, and the student"):
        attention.run(
            AttentionConfig(onnx, weights, str(folder / "films"), str(tmp_path / "no"), **common)
        )


def test_what_needs_layers_refuses_it(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nakt export needs them"):
        export.run(ExportConfig(str(folder / "mask.onnx"), output=str(tmp_path / "out")))


def test_a_student_follows_it_and_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    def config(output: str, teacher: str, steps: int) -> object:
        followed = TrainingTeacherConfig(
            str(folder / teacher), attention=AttentionTransferConfig(taps=[TAP])
        )
        return train_config(
            tmp_path / output, folder / "films", {"steps": steps, "global_batch_size": 4},
            task="classification", model=ModelSpec("timm:test_resnet", 3), teacher=followed,
            labels=LabelConfig(names=FINDINGS), augmentation=AugmentationConfig(enabled=False),
        )  # fmt: skip

    def losses(output: str) -> list[float]:
        lines = map(json.loads, (tmp_path / output / "metrics.jsonl").open())
        return [each["attention_loss"] for each in lines if "attention_loss" in each]

    train.run(config("plain", "findings.safetensors", 3))
    whole = train.run(config("onnx", "findings.onnx", 3))
    assert losses("onnx") == pytest.approx(losses("plain"), abs=1e-4) and min(losses("onnx")) > 0
    for steps in (2, 3):
        train.run(config("in parts", "findings.onnx", steps))
    last = "last.safetensors"
    assert file_sha256(tmp_path / "in parts" / last) == file_sha256(tmp_path / "onnx" / last)
    followed = read_lineage(whole.details["lineage"]).following
    assert followed is not None
    assert followed.teacher.weights_sha256 == file_sha256(folder / "findings.onnx")
