"""``nakt train`` of classifiers, alone and after a teacher, in one process."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from nakt_dist.config import (
    AttentionTransferConfig,
    AugmentationConfig,
    CheckpointConfig,
    DistConfig,
    DistillationConfig,
    HintsConfig,
    ImageConfig,
    LabelConfig,
    MultiLabelConfig,
    PackConfig,
    PreprocessingConfig,
    ScheduleConfig,
    SimilarityConfig,
    SplitConfig,
    TapConfig,
    TrainConfig,
    TrainingTeacherConfig,
    ValidationConfig,
)
from nakt_dist.errors import CheckpointError, ConfigurationError, DatasetError
from nakt_dist.loading.targets import LabelledTargets
from nakt_dist.models.network_file import open_network
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import save_weights
from nakt_dist.sources.findings import LabelPolicy
from nakt_dist.stages import pack, train, train_sources
from tests.datasets import make_chest_dataset, make_packed_dataset
from tests.labelled import make_labelled_dataset
from tests.recipes import file_hashes, logged_losses, read_lines, train_config

TINY = ModelSpec("timm:test_convnext", in_channels=1)
TAPS = AttentionTransferConfig(taps=[TapConfig("stages.1", "stages.1")], beta=0.5)
LABELS = LabelConfig(names=["Nodule", "Pleural Effusion", "Cardiomegaly"])
GENTLE = AugmentationConfig(
    smallest_crop=1.0, largest_rotation=15.0, gamma=(1.0, 1.0), contrast=(1.0, 1.0)
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chest_dataset(tmp_path_factory.mktemp("dataset"))


def classify(output: Path, dataset: Path, **changes: Any) -> TrainConfig:
    changes = {
        "task": "classification",
        "model": TINY,
        "labels": LABELS,
        "augmentation": GENTLE,
        "validation": ValidationConfig(str(dataset), splits=["validation"]),
        **changes,
    }
    return train_config(output, dataset, **changes)


@pytest.fixture(scope="module")
def teacher(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("teacher") / "teacher"
    train.run(classify(output, dataset, seed=7))
    return output


def follow(teacher: Path, **taken: Any) -> TrainingTeacherConfig:
    return TrainingTeacherConfig(weights=str(teacher), **(taken or {"attention": TAPS}))


def test_a_classifier_learns_and_its_record_says_what(dataset: Path, tmp_path: Path) -> None:
    recipe = {"steps": None, "epochs": 15, "learning_rate": 3e-3}
    learner = ModelSpec("timm:test_resnet", in_channels=1)
    record = train.run(classify(tmp_path / "out", dataset, model=learner, recipe=recipe))

    losses = [loss for _, loss in logged_losses(tmp_path / "out")]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert record.metrics["best_validation_auroc"] > 0.75
    lineage = record.details["lineage"]
    assert lineage["task"] == "classification"
    assert lineage["labels"] == record.details["validated_findings"] == LABELS.names
    assert lineage["label_policy"] == {"uncertain": "zero", "blank": "zero"}
    assert lineage["trainable"] == {
        "parts": "all",
        "parameters": sum(p.numel() for p in open_network(tmp_path / "out").network.parameters()),
    }
    assert open_network(tmp_path / "out").spec == replace(learner, num_outputs=3)
    lines = read_lines(tmp_path / "out/metrics.jsonl")
    assert any({"validation_auroc", "validation_loss", "best_auroc"} <= set(each) for each in lines)


def test_all_findings_of_the_dataset_are_learnt_by_default(dataset: Path, tmp_path: Path) -> None:
    record = train.run(classify(tmp_path / "out", dataset, labels=None, recipe={"steps": 1}))
    assert len(record.details["lineage"]["labels"]) == 15
    assert open_network(tmp_path / "out").spec.num_outputs == 15


UNLIKE = [TapConfig("stages.1", "stages.2")]
"""Layers of 32 and of 64 planes."""


@pytest.mark.parametrize("taken", ["attention", "distillation", "both", "others"])
def test_following_a_teacher_goes_on_exactly(
    dataset: Path, teacher: Path, tmp_path: Path, taken: str
) -> None:
    each = {"attention": TAPS, "distillation": DistillationConfig()}
    others = {
        "multi_label": MultiLabelConfig(embeddings=TapConfig("head.fc", "head.fc")),
        "dist": DistConfig(),
        "hints": HintsConfig(UNLIKE),
        "similarity": SimilarityConfig(UNLIKE, weight=1.0),
    }
    chosen = {"both": each, "others": others}.get(taken) or {taken: each[taken]}
    before = file_hashes(teacher)
    settings = {"teacher": follow(teacher, **chosen)}
    train.run(classify(tmp_path / "at_once", dataset, **settings))
    train.run(classify(tmp_path / "in_parts", dataset, recipe={"steps": 3}, **settings))
    train.run(classify(tmp_path / "in_parts", dataset, **settings))

    for name in ("last.safetensors", "batches.jsonl"):
        assert (tmp_path / "in_parts" / name).read_bytes() == (
            tmp_path / "at_once" / name
        ).read_bytes()
    assert file_hashes(teacher) == before
    logged = read_lines(tmp_path / "at_once/metrics.jsonl")[0]
    assert {f"{name}_loss" for name in chosen} <= set(logged)
    expected = logged["cross_entropy"]
    for name in chosen:
        expected += logged[f"{name}_loss"] / (TAPS.beta if name == "attention" else 1)
    assert logged["loss"] == pytest.approx(expected, abs=1e-5)


def test_attention_brings_the_maps_together(dataset: Path, teacher: Path, tmp_path: Path) -> None:
    recipe = {"steps": 30, "learning_rate": 3e-3}
    strong = replace(TAPS, beta=0.05)
    train.run(
        classify(
            tmp_path / "out", dataset, recipe=recipe, teacher=follow(teacher, attention=strong)
        )
    )
    distances = [
        line["attention_loss"]
        for line in read_lines(tmp_path / "out/metrics.jsonl")
        if "attention_loss" in line
    ]
    assert sum(distances[-5:]) < 0.7 * sum(distances[:5])


def test_the_lineage_names_the_teacher(dataset: Path, teacher: Path, tmp_path: Path) -> None:
    train.run(classify(tmp_path / "out", dataset, teacher=follow(teacher), recipe={"steps": 1}))
    transfer = open_network(tmp_path / "out").lineage["transfer"]
    trained = open_network(teacher)
    assert transfer["teacher"] == {
        "name": "teacher",
        "weights_sha256": trained.weights_sha256,
        "model": TINY.name,
        "trained_on": "chest",
        "phantom": False,
        "fingerprint": trained.lineage["trained_on"]["fingerprint"],
        "splits": ["train"],
        "lineage": trained.lineage,
    }
    assert transfer["attention"]["taps"] == [{"student": "stages.1", "teacher": "stages.1"}]
    assert transfer["distillation"] is None
    assert str(tmp_path) not in json.dumps(open_network(tmp_path / "out").lineage)


def test_another_teacher_is_another_run(dataset: Path, teacher: Path, tmp_path: Path) -> None:
    train.run(classify(tmp_path / "out", dataset, teacher=follow(teacher), recipe={"steps": 2}))
    other = tmp_path / "other"
    train.run(classify(other, dataset, seed=8, recipe={"steps": 1}))
    with pytest.raises(DatasetError, match=r"transfer\.teacher\.weights_sha256: differs"):
        train.run(classify(tmp_path / "out", dataset, teacher=follow(other)))


def test_distillation_matches_the_findings_that_both_have(
    dataset: Path, teacher: Path, tmp_path: Path
) -> None:
    labels = LabelConfig(names=["Cardiomegaly", "Mass"])
    settings = {"labels": labels, "teacher": follow(teacher, distillation=DistillationConfig())}
    train.run(classify(tmp_path / "out", dataset, recipe={"steps": 1}, **settings))
    settings["labels"] = LabelConfig(names=["Mass", "Hernia"])
    with pytest.raises(ConfigurationError, match="share no finding"):
        train.run(
            classify(tmp_path / "none", dataset, validation=None, recipe={"steps": 1}, **settings)
        )


def test_a_signal_that_relates_images_refuses_one_at_a_time(
    dataset: Path, teacher: Path, tmp_path: Path
) -> None:
    recipe = {"steps": 1, "global_batch_size": 2, "micro_batch_size": 1}
    settings = {"recipe": recipe, "validation": None, "teacher": follow(teacher, dist=DistConfig())}
    with pytest.raises(ConfigurationError, match="images of a micro-batch, and there is one; set"):
        train.run(classify(tmp_path / "out", dataset, **settings))


def test_a_segmentation_student_follows_a_teacher(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, images=16, splits={"train": 1.0})
    train.run(train_config(tmp_path / "teacher", dataset))
    taken = TrainingTeacherConfig(
        weights=str(tmp_path / "teacher"),
        attention=AttentionTransferConfig(
            taps=[TapConfig("encoder.2", "encoder.2"), TapConfig("decoder.3", "encoder.0")],
            reduction="zagoruyko",
            weight_mode="multiply",
            beta=100.0,
        ),
        distillation=DistillationConfig(),
        dist=DistConfig(inter_weight=0),
        hints=HintsConfig([TapConfig("encoder.1", "encoder.2")]),
    )
    train.run(train_config(tmp_path / "student", dataset, seed=1, teacher=taken))
    logged = read_lines(tmp_path / "student/metrics.jsonl")[0]
    expected = logged["dice_loss"] + logged["cross_entropy"] + 100 * logged["attention_loss"]
    expected += sum(logged[f"{name}_loss"] for name in ("distillation", "dist", "hints"))
    assert logged["loss"] == pytest.approx(expected, abs=1e-5)


def test_only_what_is_trainable_changes(dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    train.run(classify(output, dataset, recipe={"steps": 1}))
    first = load_file(output / "last.safetensors")
    train.run(
        classify(tmp_path / "more", dataset, init=str(output), model=None, trainable=["head"])
    )
    second = load_file(tmp_path / "more/last.safetensors")
    changed = {name for name in first if not torch.equal(first[name], second[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)


def test_other_findings_get_a_new_head(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.run(classify(tmp_path / "first", dataset, recipe={"steps": 2}))
    settings = {"init": str(tmp_path / "first"), "model": None, "recipe": {"steps": 1}}
    same = replace(LABELS, names=list(reversed(LABELS.names)))
    train.run(classify(tmp_path / "reversed", dataset, labels=same, **settings))
    train.run(classify(tmp_path / "same", dataset, **settings))

    start = load_file(tmp_path / "first/best.safetensors")
    for name, moved_far in (("reversed", True), ("same", False)):
        end = load_file(tmp_path / name / "last.safetensors")
        distance = (end["head.fc.weight"] - start["head.fc.weight"]).abs().max()
        # Adam's first step moves no weight further than the learning rate, 0.01.
        assert bool(distance > 0.011) == moved_far, name
    parent = open_network(tmp_path / "reversed").lineage["parent"]
    assert parent["name"] == "first"
    assert parent["lineage"]["trained_on"]["dataset"] == "chest"
    assert "head" in capsys.readouterr().err


def test_a_foreign_file_starts_a_classifier(dataset: Path, tmp_path: Path) -> None:
    spec = ModelSpec("densenet40", in_channels=1, num_outputs=5)
    state = spec.build().state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "their.pth")
    asked = ModelSpec("densenet40", in_channels=1)
    record = train.run(
        classify(
            tmp_path / "out", dataset, model=asked, init=str(tmp_path / "their.pth"),
            recipe={"steps": 1}, validation=None,
        )
    )  # fmt: skip
    assert record.details["lineage"]["parent"] == {
        "name": "their",
        "weights_sha256": record.details["lineage"]["parent"]["weights_sha256"],
        "lineage": {},
    }
    with pytest.raises(CheckpointError, match="does not say which network"):
        train.run(classify(tmp_path / "b", dataset, model=None, init=str(tmp_path / "their.pth")))


def test_the_learning_rate_is_halved_by_epochs(dataset: Path, tmp_path: Path) -> None:
    schedule = ScheduleConfig("step", decay_every_epochs=1)
    recipe = {"steps": None, "epochs": 3, "schedule": schedule, "learning_rate": 1e-3}
    train.run(classify(tmp_path / "out", dataset, recipe=recipe))
    rates = {
        line["epoch"]: line["learning_rate"]
        for line in read_lines(tmp_path / "out/metrics.jsonl")
        if "loss" in line
    }
    assert rates == {0: 1e-3, 1: 5e-4, 2: 2.5e-4}


def test_balanced_positives_weigh_more(dataset: Path, tmp_path: Path) -> None:
    recipe = {"steps": 1, "positive_weighting": "balanced"}
    train.run(classify(tmp_path / "balanced", dataset, recipe=recipe))
    train.run(classify(tmp_path / "plain", dataset, recipe={"steps": 1}))
    assert logged_losses(tmp_path / "balanced") != logged_losses(tmp_path / "plain")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": ModelSpec("unet")}, "segments images"),
        ({"model": replace(TINY, num_outputs=4)}, "there are 3 findings"),
        ({"labels": LabelConfig(names=["Noodle"])}, "Nodule"),
        ({"trainable": "last43"}, "last34"),
        ({"validation": None, "task": "segmentation", "labels": None}, "classifies images"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(
    dataset: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        train.run(classify(tmp_path / "out", dataset, **changes))


def test_training_and_validation_that_share_patients_are_refused(tmp_path: Path) -> None:
    """Other images of the same patients, under one name."""
    first, second = (
        make_labelled_dataset(tmp_path / place, splits={"train": 1.0}, seed=seed)
        for seed, place in enumerate(("first", "second"))
    )
    validation = ValidationConfig(str(second), splits=["train"])
    settings = {"labels": LabelConfig(["Edema"]), "validation": validation}
    with pytest.raises(ConfigurationError, match="6 patients are in both"):
        train.run(classify(tmp_path / "out", first, **settings))


def test_a_validation_set_without_both_classes_is_refused(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no AUROC"):
        train.run(classify(tmp_path / "out", dataset, labels=LabelConfig(names=["Hernia"])))


def test_a_classifier_learns_from_a_stream(dataset: Path, tmp_path: Path) -> None:
    data = {"streaming": True, "shuffle_buffer": 16}
    settings = {"data": data, "checkpoint": CheckpointConfig(every_steps=3)}
    record = train.run(classify(tmp_path / "out", dataset, **settings))
    assert record.details["steps"] == 6


def test_a_classifier_sees_imagenet_s_statistics_unless_told_otherwise(
    dataset: Path, tmp_path: Path
) -> None:
    colour = ModelSpec("timm:test_convnext", in_channels=3)
    one_step = {"recipe": {"steps": 1}, "model": colour}
    train.run(classify(tmp_path / "default", dataset, **one_step))
    seen = open_network(tmp_path / "default").preprocessing
    assert (seen.mean, seen.std) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])

    own = PreprocessingConfig(mean=0.4, std=0.3)
    train.run(classify(tmp_path / "own", dataset, preprocessing=own, **one_step))
    start = {"init": str(tmp_path / "own"), "labels": None, "recipe": {"steps": 1}, "model": None}
    train.run(classify(tmp_path / "from_own", dataset, **start))
    assert open_network(tmp_path / "from_own").preprocessing == own


def with_blanks(folder: Path, name: str, **policy: str) -> Path:
    """ChestX-ray14 leaves nothing blank; a packed table of its own does."""
    source = folder / f"{name}-published"
    (source / "images").mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = ["file,patient,Edema,Mass"]
    for number in range(32):
        image = random.integers(0, 255, (32, 32), dtype=np.uint8)
        Image.fromarray(image).save(source / "images" / f"{number}.png")
        lines.append(f"{number}.png,{number},{number % 2},{'' if number % 4 else 1}")
    (source / "table.csv").write_text("\n".join(lines) + "\n")
    options = {
        "table": "table.csv", "image_column": "file", "patient_column": "patient",
        "finding_columns": {"Edema": "Edema", "Mass": "Mass"},
    }  # fmt: skip
    pack.run(
        PackConfig(
            layout="images_csv", source=str(source), output=str(folder / name), name=name,
            layout_options=options, image=ImageConfig(height=32, width=32, encoding="png"),
            splits=SplitConfig({"train": 0.5, "validation": 0.5}), workers=1,
            labels=LabelPolicy(**policy),
        )
    )  # fmt: skip
    return folder / name


def test_ignored_labels_do_not_make_the_loss_depend_on_micro_batches(tmp_path: Path) -> None:
    dataset = with_blanks(tmp_path, "blanks", blank="ignore")
    losses = {}
    for micro in (8, 2, 1):
        recipe = {"steps": 4, "global_batch_size": 8, "micro_batch_size": micro}
        settings = {"labels": None, "validation": None, "recipe": recipe}
        train.run(classify(tmp_path / str(micro), dataset, **settings))
        losses[micro] = [loss for _, loss in logged_losses(tmp_path / str(micro))]
    assert losses[2] == pytest.approx(losses[8], abs=1e-4)
    assert losses[1] == pytest.approx(losses[8], abs=1e-4)


def test_validation_reads_labels_by_the_training_s_policy(tmp_path: Path) -> None:
    """Two packings with other policies: were each read by its own, Mass would have one class."""
    training = with_blanks(tmp_path, "training", blank="zero")
    other = with_blanks(tmp_path, "other", blank="ignore")
    validation = ValidationConfig(str(other), splits=["validation"])
    settings = {"labels": LabelConfig(["Mass"]), "validation": validation, "recipe": {"steps": 1}}
    record = train.run(classify(tmp_path / "out", training, **settings))
    assert record.metrics["best_validation_auroc"] is not None
    with pytest.raises(ConfigurationError, match="no AUROC"):
        train.run(classify(tmp_path / "own", other, **settings))


def test_labels_that_are_all_ignored_are_refused(tmp_path: Path) -> None:
    dataset = with_blanks(tmp_path, "blanks")
    labels = LabelConfig(["Mass"], uncertain="ignore", blank="ignore")
    packed = make_chest_dataset(tmp_path, images=8, splits={"train": 1.0})
    settings = {"validation": None, "recipe": {"steps": 1, "global_batch_size": 2}}
    train.run(classify(tmp_path / "some", dataset, labels=labels, **settings))
    values = np.full((8, 1), np.nan, dtype=np.float32)
    nothing = LabelledTargets(("Mass",), LabelPolicy("ignore", "ignore"), values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_sources, "labelled_targets", lambda *_: nothing)
        with pytest.raises(ConfigurationError, match="nothing to learn"):
            train.run(classify(tmp_path / "none", packed, labels=labels, **settings))


def test_the_findings_of_a_foreign_head_can_be_named(dataset: Path, tmp_path: Path) -> None:
    spec = ModelSpec("densenet40", in_channels=1, num_outputs=3)
    torch.manual_seed(5)
    state = spec.build().state_dict()
    torch.save(state, tmp_path / "their.pth")
    settings = {
        "model": replace(spec, num_outputs=1), "init": str(tmp_path / "their.pth"),
        "recipe": {"steps": 1}, "validation": None,
    }  # fmt: skip
    names = ["Nodule", "Effusion", "Cardiomegaly"]  # as ChestX-ray14 calls the findings
    for output, said, kept in (("kept", names, True), ("fresh", names[::-1], False)):
        train.run(classify(tmp_path / output, dataset, init_labels=said, **settings))
        weight = load_file(tmp_path / output / "last.safetensors")["classifier.weight"]
        distance = (weight - state["classifier.weight"]).abs().max()
        assert bool(distance < 0.011) == kept, output


def test_a_file_cannot_make_a_new_network_download_weights(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModelSpec("timm:test_convnext.r160_in1k", 3, 2, {"pretrained": True})
    bare = replace(spec, options={}).build()
    lineage = json.dumps({"task": "classification", "labels": ["Edema", "Mass"]})
    save_weights(tmp_path / "x.safetensors", bare.state_dict(), spec, {"lineage": lineage})
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = {"init": str(tmp_path / "x.safetensors"), "model": None, "recipe": {"steps": 1}}
    train.run(classify(tmp_path / "out", dataset, **settings))
    assert open_network(tmp_path / "out").spec.options == {}


def test_one_image_whose_map_is_one_pixel_is_explained(dataset: Path, tmp_path: Path) -> None:
    network = ModelSpec("densenet121", in_channels=1)
    recipe = {"steps": 1, "global_batch_size": 1}
    with pytest.raises(ConfigurationError, match="one image whose map is one pixel"):
        train.run(classify(tmp_path / "out", dataset, model=network, recipe=recipe))


def test_forgetting_the_task_is_explained(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="set task: classification"):
        train.run(train_config(tmp_path / "out", dataset))
