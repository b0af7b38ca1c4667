"""Foundation networks as teachers of ``nakt train``: what students take, and what is known of them.

The networks are tiny, and their weights random: what is tested is how they are read and followed.
"""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from safetensors.torch import save_file

from nakt_dist.cli import parse_config
from nakt_dist.config import (
    AttentionTransferConfig,
    DistillationConfig,
    HintsConfig,
    LabelConfig,
    LearntImagesConfig,
    NetworkCardConfig,
    PreprocessingConfig,
    SimilarityConfig,
    TapConfig,
    TeacherConfig,
    TrainConfig,
    TrainingTeacherConfig,
)
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.models.network_file import open_network
from nakt_dist.models.preprocessing import ImageForm
from nakt_dist.models.spec import ModelSpec
from nakt_dist.shards.picture_lists import name_numbers
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import evaluate, teach, train
from nakt_dist.stages.opening import Opening
from nakt_dist.stages.train_identity import pictures_met
from nakt_dist.stages.train_plan import make_plan, open_parts
from nakt_dist.studies.paths import paths_of
from tests.datasets import make_chest_dataset, make_packed_dataset
from tests.recipes import evaluate_config, file_hashes, read_lines, teach_config, train_config

DINO = ModelSpec(
    "timm:vit_small_patch14_dinov2", 3,
    options={"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": 56},
)  # fmt: skip
LABELS = LabelConfig(names=["Nodule", "Pleural Effusion", "Cardiomegaly"])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chest_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "dino.safetensors"
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch14_dinov2", **DINO.options)
    save_file(network.state_dict(), path)
    return path


def follow(weights: Path, tap: str = "stages.1", **changes: Any) -> TrainingTeacherConfig:
    attention = AttentionTransferConfig(taps=[TapConfig(tap, "blocks.1")], reduction="zagoruyko")
    config = TrainingTeacherConfig(str(weights), model=DINO, attention=attention)
    return replace(config, **changes)


def student(output: Path, dataset: Path, teacher: TrainingTeacherConfig, **changes: Any):
    settings = {
        "task": "classification",
        "model": ModelSpec("timm:test_convnext", in_channels=1),
        "labels": LABELS,
        "teacher": teacher,
        **changes,
    }
    return train_config(output, dataset, **settings)


@pytest.mark.parametrize("size", [None, (28, 84)])
def test_a_student_follows_tokens_and_goes_on_exactly(
    dataset: Path, weights: Path, tmp_path: Path, size: tuple[int, int] | None
) -> None:
    before = file_hashes(weights.parent)
    seen = PreprocessingConfig(*size) if size else None
    teacher = follow(weights, preprocessing=seen)
    train.run(student(tmp_path / "at_once", dataset, teacher))
    train.run(student(tmp_path / "in_parts", dataset, teacher, recipe={"steps": 3}))
    train.run(student(tmp_path / "in_parts", dataset, teacher))

    last = [tmp_path / name / "last.safetensors" for name in ("at_once", "in_parts")]
    assert last[0].read_bytes() == last[1].read_bytes()
    assert file_hashes(weights.parent) == before
    losses = [line["attention_loss"] for line in read_lines(tmp_path / "at_once/metrics.jsonl")]
    assert len(losses) == 6 and min(losses) > 0


def test_densenet_40_and_masks_follow_them_too(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    one = {"steps": 1, "global_batch_size": 4}
    taps = [TapConfig("features.squeeze", "blocks.1")]
    squeeze = follow(
        weights, "features.squeeze", hints=HintsConfig(taps), similarity=SimilarityConfig(taps)
    )
    model = ModelSpec("densenet40", in_channels=1)
    train.run(student(tmp_path / "out", dataset, squeeze, recipe=one, model=model))
    masks = make_packed_dataset(tmp_path, images=4, splits={"train": 1.0})
    config = train_config(tmp_path / "unet", masks, one, teacher=follow(weights, "encoder.2"))
    train.run(config)
    for output in ("out", "unet"):
        (logged, *_) = read_lines(tmp_path / output / "metrics.jsonl")
        for signal in ("attention", "hints", "similarity")[: 3 if output == "out" else 1]:
            assert logged[f"{signal}_loss"] > 0
        lineage = open_network(tmp_path / output).lineage
        assert lineage["transfer"]["teacher"]["model"] == DINO.name


def test_outputs_that_are_not_there_are_wanted_by_name(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    no_head = "dino.safetensors: timm:vit_small_patch14_dinov2 has no classifier head and gives "
    distilled = follow(weights, distillation=DistillationConfig(), labels=LABELS.names)
    with pytest.raises(ConfigurationError, match=f"{no_head}.*distillation needs outputs"):
        train.run(student(tmp_path / "out", dataset, distilled))
    with pytest.raises(ConfigurationError, match=f"{no_head}.*nakt evaluate needs outputs"):
        evaluate.run(evaluate_config(tmp_path / "test", dataset, weights, model=DINO))
    with pytest.raises(ConfigurationError, match=f"{no_head}.*nakt teach needs outputs"):
        teach.run(
            teach_config(tmp_path / "pseudo", dataset, TeacherConfig(str(weights), model=DINO))
        )
    with pytest.raises(ConfigurationError, match=r"model\.num_outputs is 0, and there are 3"):
        headless = ModelSpec("timm:test_convnext", 1, 0)
        train.run(student(tmp_path / "out", dataset, follow(weights), model=headless))


def test_a_student_of_one_size_sees_that(dataset: Path, weights: Path, tmp_path: Path) -> None:
    model = ModelSpec("timm:vit_tiny_patch16_224", 1, options={"depth": 1, "embed_dim": 12})
    follower = student(tmp_path / "out", dataset, follow(weights, "blocks.0"), model=model)
    with pytest.raises(ConfigurationError, match=r"takes images of 224 × 224 .*img_size: \[32, 32"):
        train.run(follower)
    one = replace(model, options={**model.options, "img_size": 32})
    train.run(replace(follower, model=one, recipe=replace(follower.recipe, steps=1)))
    with pytest.raises(ConfigurationError, match=r"out: takes images of 32 × 32 .* see 48 × 48"):
        open_network(tmp_path / "out").describe(ImageForm(48, 48))
    views = TeacherConfig(str(tmp_path / "out"), scales=[2.0])
    with pytest.raises(ConfigurationError, match=r"at 2 of teachers\.scales: takes images of 32"):
        teach.run(teach_config(tmp_path / "pseudo", dataset, views))


def card(*trained_on: LearntImagesConfig) -> NetworkCardConfig:
    return NetworkCardConfig("apache-2.0", list(trained_on))


def write_list(path: Path, dataset: Path, *columns: str) -> str:
    """Lists the pictures of a dataset as somebody else might publish them."""
    rows = IndexedShards(dataset).index.select(columns).to_pylist()
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def met_by(config: TrainConfig, dataset: Path) -> int | None:
    """How many images of a dataset the teacher is known to have met."""
    met = pictures_met(make_plan(config, open_parts(config, Opening())))
    images = IndexedShards(dataset)
    return met.count(images.column("pixels"), name_numbers(images))["teacher"]


def test_a_public_list_tells_what_a_teacher_met(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    images = len(IndexedShards(dataset))
    index, pixels = (
        str(dataset / "index.parquet"),
        write_list(tmp_path / "a.csv", dataset, "pixels"),
    )
    names = write_list(tmp_path / "b.csv", dataset, "source")
    (tmp_path / "c.csv").write_text("pixels\n7\n")
    other = str(tmp_path / "c.csv")
    for listed, name, complete, expected in (
        (index, "public", False, images),  # the same pictures, whatever they are called
        (pixels, "public", False, images),
        (names, "chest", False, images),
        (names, "public", True, None),  # names of another dataset decide nothing
        (other, "public", False, None),
        (other, "public", True, 0),
        (None, "public", False, None),
    ):
        carded = follow(weights, card=card(LearntImagesConfig(name, listed, complete)))
        assert met_by(student(tmp_path / "out", dataset, carded), dataset) == expected
    assert met_by(student(tmp_path / "out", dataset, follow(weights)), dataset) is None


def test_the_card_goes_with_the_student_to_its_test(
    dataset: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    listed = LearntImagesConfig("public", str(dataset / "index.parquet"), complete=True)
    known = card(listed, LearntImagesConfig("lvd142m"))
    config = student(tmp_path / "out", dataset, follow(weights, card=known), recipe={"steps": 1})
    train.run(config)
    said = capsys.readouterr().err
    assert (
        "licence apache-2.0; learnt from public, all pictures of which are listed; lvd142m" in said
    )
    record = evaluate.run(evaluate_config(tmp_path / "test", dataset, tmp_path / "out"))

    lineage = record.details["lineage"]["transfer"]["teacher"]["lineage"]
    assert lineage["licence"] == "apache-2.0"
    assert lineage["trained_on"]["dataset"] == "public"
    assert lineage["parent"]["lineage"]["trained_on"]["dataset"] == "lvd142m"
    assert record.details["met_test_images"]["teacher"] is True
    assert record.details["met_pictures"]["teacher"] == record.counts["images"]
    assert "followed a teacher that learnt from images that it is tested on" in (
        capsys.readouterr().err
    )


def test_cards_are_settings(weights: Path, tmp_path: Path) -> None:
    words = ["--teacher.card", "{licence: mit, trained_on: [{dataset: chexpert}]}"]
    common = [
        "--output=o", "--data.dataset=d", "--recipe.steps=1", f"--teacher.weights={weights}",
        "--teacher.attention.preset=paper",
    ]  # fmt: skip
    found = parse_config("train", [*common, *words])
    listed = LearntImagesConfig("chexpert", str(tmp_path / "shards" / "index.parquet"))
    told = replace(found, teacher=replace(found.teacher, card=card(listed)))
    assert listed.images in paths_of(told).reads  # a study packs it first
    assert found.teacher.card == NetworkCardConfig("mit", [LearntImagesConfig("chexpert")])
    with pytest.raises(ConfigurationError, match=r"complete must be false without images"):
        LearntImagesConfig("chexpert", complete=True)
    with pytest.raises(ConfigurationError, match=r"trained_on must be a list with at least one"):
        NetworkCardConfig("mit", [])


def test_lists_and_cards_that_cannot_be_used_are_refused(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    def plan(teacher: TrainingTeacherConfig) -> None:
        config = student(tmp_path / "out", dataset, teacher)
        make_plan(config, open_parts(config, Opening()))

    rounded = pa.table({"pixels": [1.0, 2.0**62]})
    pq.write_table(rounded, tmp_path / "rounded.parquet")
    for name, text, message in (
        ("none.csv", None, "cannot be read"),
        ("other.csv", "name\na\n", "neither of the columns pixels and source"),
        ("words.csv", "pixels\nmany\n", "cannot be read"),
        ("empty.csv", "pixels\n", "lists no picture"),
        ("not.parquet", "pixels", "cannot be read"),
        ("rounded.parquet", None, "pixels are no whole numbers"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        listed = LearntImagesConfig("public", str(tmp_path / name))
        with pytest.raises(DatasetError, match=f"{name}.*{message}"):
            plan(follow(weights, card=card(listed)))

    train.run(student(tmp_path / "ours", dataset, follow(weights), recipe={"steps": 1}))
    attention = AttentionTransferConfig(taps=[TapConfig("stages.1", "stages.1")])
    ours = TrainingTeacherConfig(
        str(tmp_path / "ours"), attention=attention, card=card(LearntImagesConfig("public"))
    )
    with pytest.raises(ConfigurationError, match="says itself what it learnt from"):
        plan(ours)
