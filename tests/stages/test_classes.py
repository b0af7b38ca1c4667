"""Masks of several classes through every command: pack, train, teach, train, evaluate, report."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from nakt_dist.config import (
    AugmentationConfig,
    CheckpointConfig,
    DistillationConfig,
    InspectConfig,
    PackConfig,
    ReportConfig,
    SourceConfig,
    SplitConfig,
    TeacherConfig,
    TrainingTeacherConfig,
    ValidationConfig,
    VerifyConfig,
    WeighConfig,
)
from nakt_dist.config.packing import ImageConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.imaging.mask_settings import MaskValues
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.loading.samples import select_samples
from nakt_dist.models.network_file import open_network
from nakt_dist.models.spec import ModelSpec
from nakt_dist.records.pseudo_sets import read_pseudo_set
from nakt_dist.shards.manifest import PseudoLabelManifest, ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.tables import PSEUDO_INDEX_SCHEMA
from nakt_dist.sources.voc2012 import CLASS_NAMES
from nakt_dist.stages import evaluate, inspect, pack, report, teach, train, verify, weigh
from nakt_dist.transfer.classes import ClassMap
from nakt_dist.transfer.exclusion import ExclusionRule
from tests.datasets import (
    CLASSES,
    make_class_dataset,
    make_class_image,
    make_packed_dataset,
    make_weights,
)
from tests.recipes import TINY_UNET, evaluate_config, teach_config, train_config

LEARNER = ModelSpec("unet", options={"base_channels": 4})
ONE_STEP = {"steps": 1, "global_batch_size": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of one site, the pseudo masks of another, a student of them, both scored."""
    folder = tmp_path_factory.mktemp("classes")
    first = make_class_dataset(folder, name="first", images=16)
    second = make_class_dataset(folder, name="second", seed=1, samples_per_shard=5)
    recipe = {"steps": 60, "global_batch_size": 4, "learning_rate": 0.01}
    how = {
        "model": LEARNER,
        "augmentation": AugmentationConfig(enabled=False),
        "checkpoint": CheckpointConfig(every_epochs=10),
    }
    validation = ValidationConfig(str(first), splits=["validation"])
    train.run(train_config(folder / "teacher", first, recipe, validation=validation, **how))
    teach.run(teach_config(folder / "pseudo", second, folder / "teacher"))
    student = {"pseudo_labels": str(folder / "pseudo")}
    validation = ValidationConfig(str(second), splits=["validation"])
    config = train_config(folder / "student", second, recipe, student, validation=validation, **how)
    train.run(config)
    for name in ("teacher", "student"):
        config = evaluate_config(
            folder / f"{name}-eval", second, folder / name, splits=["test"], both_empty="nan",
            teacher_record=str(folder / "teacher-eval") if name == "student" else None,
        )  # fmt: skip
        evaluate.run(config)
    return folder


def masks_of(dataset: Path, *selection: Any) -> np.ndarray:
    images = MaskedImages(select_samples(str(dataset), *selection))
    return np.stack([images[number]["target"].numpy() for number in range(len(images))])


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


def test_masks_are_packed_with_the_names_of_their_classes(folder: Path) -> None:
    manifest = ShardManifest.read(folder / "first")
    assert (manifest.mask_kind, manifest.classes) == ("classes", CLASSES)
    keys = IndexedShards(folder / "first").keys
    for key, planes in zip(keys, masks_of(folder / "first", None), strict=True):
        _, mask = make_class_image(int(key[-3:]))
        assert np.array_equal(planes, np.stack([mask == 1, mask == 2, mask == 255]) * 255)
    verify.run(VerifyConfig(str(folder / "first")))  # refuses what is damaged


def test_a_teacher_learns_the_classes_and_says_so(folder: Path) -> None:
    trained = open_network(folder / "teacher")
    assert trained.spec == replace(LEARNER, num_outputs=3)
    assert trained.lineage["classes"] == list(CLASSES) and trained.lineage["labels"] is None
    scores = [json.loads(line) for line in (folder / "teacher/metrics.jsonl").open()]
    last = [each for each in scores if "validation_dice" in each][-1]
    by_class = [last[f"validation_dice_{name}"] for name in CLASSES[1:]]
    assert last["validation_dice"] == pytest.approx(np.mean(by_class))
    assert min(by_class) > 0.6


def test_soft_masks_hold_a_plane_for_each_class_and_their_statistics(folder: Path) -> None:
    manifest = PseudoLabelManifest.read(folder / "pseudo")
    assert manifest.classes == CLASSES and manifest.planes == 2
    assert manifest.teachers[0]["classes"] == list(CLASSES)
    images = IndexedShards(folder / "second")
    stored = masks_of(folder / "second", None, str(folder / "pseudo"))
    trained = open_network(folder / "teacher")
    pixels = MaskedImages(select_samples(str(folder / "second"), None)).batch(range(len(images)))
    with torch.no_grad():
        expected = trained.probability(pixels["image"].float() / 255)[:, 1:].numpy()
    assert np.abs(stored - 255 * expected).max() <= 0.51
    statistics = pq.read_table(folder / "pseudo" / "index.parquet").to_pydict()
    whole = np.concatenate([(255 - stored.sum(1, keepdims=True, dtype=int)).clip(0), stored], 1)
    for number, name in enumerate(CLASSES[1:]):
        winners = (whole.argmax(1) == number + 1).sum((1, 2))
        assert statistics[f"target_pixels:{name}"] == winners.tolist()
        entropy = [entropy_of(mask) for mask in stored[:, number]]
        assert statistics[f"entropy:{name}"] == pytest.approx(entropy)
    assert statistics["target_pixels"] == (whole.argmax(1) > 0).sum((1, 2)).tolist()
    halves = [statistics[f"entropy:{name}"] for name in CLASSES[1:]]
    assert statistics["entropy"] == pytest.approx(np.mean(halves, axis=0).tolist())
    verify.run(VerifyConfig(str(folder / "pseudo")))  # refuses what is damaged


def entropy_of(mask: np.ndarray) -> float:
    shares = np.bincount(mask.ravel()) / mask.size
    return float(-(shares[shares > 0] * np.log2(shares[shares > 0])).sum())


def test_a_student_of_pseudo_masks_is_scored_by_class(folder: Path) -> None:
    table = pq.read_table(folder / "student-eval" / "predictions.parquet").to_pydict()
    target = masks_of(folder / "second", ["test"])
    images = MaskedImages(select_samples(str(folder / "second"), ["test"]))
    pixels = images.batch(range(len(images)))["image"].float() / 255
    with torch.no_grad():
        predicted = open_network(folder / "student").logits(pixels).argmax(1).numpy()
    counts, scores = target[:, 2] == 0, []
    for number, name in enumerate(CLASSES[1:]):
        p, t = (predicted == number + 1) & counts, (target[:, number] > 0) & counts
        total = (p.sum((1, 2)) + t.sum((1, 2))).astype(float)
        scores.append(2 * (p & t).sum((1, 2)) / np.where(total > 0, total, np.nan))
        assert table[f"dice:{name}"] == pytest.approx(scores[-1], nan_ok=True)
        assert table[f"target_pixels:{name}"] == t.sum((1, 2)).tolist()
    assert table["dice"] == pytest.approx(np.nanmean(scores, axis=0))
    record = record_of(folder / "student-eval")
    assert [each["name"] for each in record["details"]["classes"]] == list(CLASSES[1:])
    means = [each["dice_mean"] for each in record["details"]["classes"]]
    assert means == pytest.approx(100 * np.nanmean(scores, axis=1))
    assert record["metrics"]["dice_mean"] == pytest.approx(100 * np.mean(table["dice"]))
    assert record["metrics"]["dice_mean"] > 50
    assert record["metrics"]["knowledge_transfer_capability"] > 50
    assert open_network(folder / "student").lineage["trained_on"]["labels"] == "pseudo masks"


def test_the_report_has_a_table_of_classes(folder: Path, undrawn: None, tmp_path: Path) -> None:
    evaluations = [str(folder / name) for name in ("teacher-eval", "student-eval")]
    report.run(ReportConfig(evaluations, str(tmp_path)))
    text = (tmp_path / "report.md").read_text()
    lines = text[text.index("Dice by class") :].splitlines()
    assert [line.split("|")[1].strip() for line in lines if "| disc" in line] == ["disc"]
    assert any(line.startswith("| square") for line in lines)


def test_inspect_and_training_leave_the_same_images_by_class(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pseudo = read_pseudo_set(folder / "pseudo").statistics.to_pydict()
    alpha = sorted(pseudo["target_pixels:square"])[6]
    rule = ExclusionRule(alpha=alpha, beta=None, judged="every_class", classes=("square",))
    config = InspectConfig(
        str(folder / "pseudo"), str(folder / "second"), str(tmp_path / "seen"), rule, images=2
    )
    record = inspect.run(config)
    kept = [n >= alpha for n in pseudo["target_pixels:square"]]
    assert 0 < sum(kept) < len(kept)
    samples = select_samples(str(folder / "second"), None, str(folder / "pseudo"), rule)
    assert len(samples) == record.counts["after"] == sum(kept)
    counts = record.details["classes"]["square"]
    assert counts["before"] == sum(n > 0 for n in pseudo["target_pixels:square"])
    assert counts["after"] == sum(kept)
    assert "images with the class" in capsys.readouterr().out
    some = ExclusionRule(alpha=alpha, beta=None, judged="any_class")
    left = select_samples(str(folder / "second"), None, str(folder / "pseudo"), some)
    either = np.maximum(pseudo["target_pixels:square"], pseudo["target_pixels:disc"]) >= alpha
    assert len(left) == either.sum()


def test_classes_are_renamed_joined_or_refused(folder: Path, tmp_path: Path) -> None:
    second, teacher = folder / "second", str(folder / "teacher")
    one = TeacherConfig(teacher, class_map=ClassMap({"square": "disc"}))
    joined = teach_config(tmp_path / "joined", second, one)
    teach.run(joined)
    assert PseudoLabelManifest.read(tmp_path / "joined").classes == ()
    planes = masks_of(second, None, str(folder / "pseudo")).astype(int).sum(1)
    assert np.abs(masks_of(second, None, str(tmp_path / "joined"))[:, 0] - planes).max() <= 1
    wanted = replace(joined, output=str(tmp_path / "x"), classes=["background", "disc"])
    unknown = TeacherConfig(teacher, class_map=ClassMap(unknown="background"))
    with pytest.raises(ConfigurationError, match="class 'square' is none of background, disc"):
        teach.run(replace(wanted, teachers=[TeacherConfig(teacher)]))
    teach.run(replace(wanted, teachers=[unknown]))
    expected = masks_of(second, None, str(folder / "pseudo"))[:, 0]
    assert np.array_equal(masks_of(second, None, str(tmp_path / "x"))[:, 0], expected)
    data = {"pseudo_labels": str(tmp_path / "joined")}
    whole = ClassMap({"disc": "target", "square": "target"})
    validation = ValidationConfig(str(second), splits=["validation"], class_map=whole)
    student = train_config(tmp_path / "binary", second, ONE_STEP, data, validation=validation)
    with pytest.raises(ConfigurationError, match="'disc' is none of background, target"):
        train.run(replace(student, validation=replace(validation, class_map=ClassMap())))
    train.run(student)
    assert open_network(tmp_path / "binary").spec == TINY_UNET
    scores = evaluate_config(tmp_path / "scores", second, tmp_path / "binary", class_map=whole)
    evaluate.run(scores)
    assert "classes" not in record_of(tmp_path / "scores")["details"]


def test_a_softmax_of_two_teaches_as_one_logit_does(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, images=4, splits={"train": 1.0})
    one = load_file(make_weights(tmp_path / "one.safetensors"))
    two = dict(one)  # the background's logit is 0
    for name in ("head.weight", "head.bias"):
        two[name] = torch.cat([torch.zeros_like(one[name]), one[name]])
    save_file(two, tmp_path / "two.safetensors")
    names = [None, ["target", "background"], ["background", "lesion"]]
    teachers = [tmp_path / "one.safetensors"]
    teachers += [
        TeacherConfig(str(tmp_path / "two.safetensors"), model=TINY_UNET, classes=each)
        for each in names
    ]
    for number, teacher in enumerate(teachers):
        teach.run(teach_config(tmp_path / f"pseudo-{number}", dataset, teacher))
    of_one, *of_two = (
        masks_of(dataset, None, str(tmp_path / f"pseudo-{number}")).astype(int)
        for number in range(len(teachers))
    )
    assert np.abs(of_one - of_two[0]).max() <= 1 and np.array_equal(of_two[0], of_two[2])
    assert np.abs(255 - of_one - of_two[1]).max() <= 1
    table = pq.read_table(tmp_path / "pseudo-1" / "index.parquet")
    assert table.schema.names == PSEUDO_INDEX_SCHEMA.names
    assert PseudoLabelManifest.read(tmp_path / "pseudo-1").classes == ()


def test_one_target_leaves_no_trace_of_classes(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path, images=4, splits={"train": 1.0})
    teach.run(teach_config(tmp_path / "pseudo", dataset, make_weights(tmp_path / "w.safetensors")))
    data = {"pseudo_labels": str(tmp_path / "pseudo"), "exclusion": ExclusionRule(1, None)}
    train.run(train_config(tmp_path / "run", dataset, ONE_STEP, data))
    for name in (dataset, tmp_path / "pseudo"):
        assert "classes" not in (name / "manifest.json").read_text()
    lineage = json.dumps(open_network(tmp_path / "run").lineage)
    assert "classes" not in lineage and "judged" not in lineage


def test_a_student_of_two_outputs_is_asked_for(tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path)
    asked = replace(TINY_UNET, num_outputs=2)
    config = train_config(tmp_path / "two", dataset, ONE_STEP, model=asked)
    train.run(config)
    assert open_network(tmp_path / "two").lineage["classes"] == ["background", "target"]
    train.run(replace(config, output=str(tmp_path / "on"), model=None, init=str(tmp_path / "two")))
    assert open_network(tmp_path / "on").spec == asked
    evaluate.run(evaluate_config(tmp_path / "eval", dataset, tmp_path / "two"))
    assert "classes" not in record_of(tmp_path / "eval")["details"]
    distillation = TrainingTeacherConfig(str(tmp_path / "two"), distillation=DistillationConfig())
    with pytest.raises(ConfigurationError, match="outputs that do not exclude each other"):
        train.run(replace(config, output=str(tmp_path / "x"), teacher=distillation))


def test_other_classes_get_a_new_head_and_the_same_keep_theirs(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    first, still = folder / "first", {**ONE_STEP, "learning_rate": 1e-30}
    binary = make_weights(tmp_path / "one.safetensors")
    config = train_config(tmp_path / "new", first, still, init=str(binary), model=None)
    train.run(config)
    assert "new head: head" in capsys.readouterr().err
    assert open_network(tmp_path / "new").spec == replace(TINY_UNET, num_outputs=3)
    train.run(replace(config, output=str(tmp_path / "on"), init=str(folder / "teacher")))
    found, before = (open_network(each).network for each in (tmp_path / "on", folder / "teacher"))
    assert torch.allclose(found.head.weight, before.head.weight)
    wrong = replace(config, output=str(tmp_path / "x"), model=replace(TINY_UNET, num_outputs=5))
    with pytest.raises(ConfigurationError, match="the masks have 3 classes"):
        train.run(replace(wrong, init=None))


def test_annotated_and_pseudo_masks_are_learnt_together(folder: Path, tmp_path: Path) -> None:
    annotated = SourceConfig(str(folder / "first"))
    taught = SourceConfig(str(folder / "second"), pseudo_labels=str(folder / "pseudo"))
    config = train_config(tmp_path / "run", folder / "first", ONE_STEP)
    train.run(replace(config, data=[annotated, taught]))
    assert open_network(tmp_path / "run").lineage["classes"] == list(CLASSES)
    other = replace(taught, class_map=ClassMap({"square": "cube"}))
    with pytest.raises(ConfigurationError, match="class 'cube' is none of background, disc"):
        train.run(replace(config, output=str(tmp_path / "x"), data=[annotated, other]))


def test_teachers_of_classes_are_weighed_and_not_asked_for_votes(
    folder: Path, tmp_path: Path
) -> None:
    untaught = make_weights(tmp_path / "untaught.safetensors", classes=CLASSES)
    teachers = [TeacherConfig(str(each)) for each in (folder / "teacher", untaught)]
    config = WeighConfig(str(folder / "second"), str(tmp_path / "weighed"), teachers, threads=1)
    found = weigh.run(config).details["teachers"]
    assert found[0]["weight"] > 0.8 and found[0]["squared_error"] < found[1]["squared_error"]
    three = teach_config(tmp_path / "x", folder / "second", *teachers, untaught)
    with pytest.raises(ConfigurationError, match="the masks have 3 classes; set it to mean"):
        teach.run(replace(three, combination="staple"))


def test_a_stream_sees_what_an_index_does(folder: Path, tmp_path: Path) -> None:
    data = {"pseudo_labels": str(folder / "pseudo"), "streaming": True, "shuffle_buffer": 4}
    train.run(train_config(tmp_path / "soft", folder / "second", ONE_STEP, data))
    train.run(train_config(tmp_path / "own", folder / "second", ONE_STEP, {"streaming": True}))
    assert open_network(tmp_path / "own").lineage["classes"] == list(CLASSES)


def test_all_classes_of_voc_pack_train_and_teach(tmp_path: Path) -> None:
    source = tmp_path / "VOC2012"
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (source / name).mkdir(parents=True)
    random = np.random.default_rng(0)
    masks = {f"2007_{number:06d}": np.zeros((40, 48), np.uint8) for number in range(6)}
    for number, (name, mask) in enumerate(masks.items()):
        mask[5:30, 8:30], mask[10:25, 12:28] = 255, number + 15
        picture = random.integers(0, 255, (40, 48, 3)).astype(np.uint8)
        Image.fromarray(picture).save(source / "JPEGImages" / f"{name}.jpg")
        palette = Image.fromarray(mask).convert("P")
        palette.putpalette(bytes(3) + random.integers(0, 255, 765).astype(np.uint8).tobytes())
        palette.save(source / "SegmentationClass" / f"{name}.png")
    image = ImageConfig(height=32, width=32, colour="rgb", encoding="png")
    splits = SplitConfig(fractions={"train": 1.0})
    packed = tmp_path / "voc"
    config = PackConfig("voc2012", str(source), str(packed), image=image, splits=splits, workers=1)
    pack.run(config)
    assert ShardManifest.read(packed).classes == CLASS_NAMES
    planes = masks_of(packed, None)
    assert planes.shape[1] == 21 and planes[:, 20].any() and planes[:, 14:20].any((0, 2, 3)).all()
    some = MaskValues(classes={"person": [15], "rest": list(range(16, 21))}, void=[255])
    pack.run(replace(config, output=str(tmp_path / "some"), mask_values=some))
    united = [planes[:, 14], planes[:, 15:20].max(1), planes[:, 20]]
    assert np.array_equal(masks_of(tmp_path / "some", None), np.stack(united, axis=1))
    colour = ModelSpec("unet", in_channels=3, options=TINY_UNET.options)
    train.run(train_config(tmp_path / "run", packed, ONE_STEP, model=colour))
    assert open_network(tmp_path / "run").spec.num_outputs == 21
    teach.run(teach_config(tmp_path / "pseudo", packed, tmp_path / "run"))
    assert masks_of(packed, None, str(tmp_path / "pseudo")).shape == (6, 20, 32, 32)
