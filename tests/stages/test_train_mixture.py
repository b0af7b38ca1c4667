"""``nakt train`` on several sources: labelled, pseudo-labelled, of several sites."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nakt_dist.cli import main, parse_config
from nakt_dist.config import (
    ImageConfig,
    LabelConfig,
    PackConfig,
    RecipeConfig,
    SourceConfig,
    TrainConfig,
    ValidationConfig,
    save_config,
)
from nakt_dist.config.repeated import RepeatedReader
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.loading.images import MixedImages
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.loading.sampler import Share
from nakt_dist.loading.samples import select_samples
from nakt_dist.models.spec import ModelSpec
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import Exposure, judge
from nakt_dist.records.lineage import Network, TrainingSet, together
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.records.run_tags import run_tags
from nakt_dist.report.roles import Role, describe_lineage, describe_rules, role_of
from nakt_dist.shards.pictures import read_pictures
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.sources.findings import LabelPolicy
from nakt_dist.stages import pack, train
from nakt_dist.studies.paths import paths_of
from nakt_dist.training.inputs import TrainingInputs
from nakt_dist.transfer.exclusion import ExclusionRule
from nakt_dist.watch.facts import read_facts
from tests.datasets import make_chest_dataset, make_packed_dataset
from tests.labelled import make_labelled_dataset
from tests.mixtures import ALL, make_sources, mixed_config, sources_of
from tests.recipes import read_lines, train_config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve steps, three epochs of four, in one go."""
    output = tmp_path_factory.mktemp("trained") / "out"
    train.run(mixed_config(output, folder, 12))
    return output


def test_batches_have_their_shares_and_keys_name_their_source(trained: Path) -> None:
    keys = [line["keys"] for line in read_lines(trained / "batches.jsonl")]
    counts = [Counter(key.partition("/")[0] for key in batch) for batch in keys]
    assert counts == [Counter(squares=2, taught=4, site=2)] * 12
    squares = [key for batch in keys for key in batch if key.startswith("squares/")]
    for start in range(0, 24, 8):
        assert len(set(squares[start : start + 8])) == 8


def test_metrics_and_record_say_what_each_source_gave(trained: Path) -> None:
    lines = [line for line in read_lines(trained / "metrics.jsonl") if "loss" in line]
    names = [f"loss_by_source/{name}" for name in ("squares", "taught", "site")]
    for line in lines:
        mean = np.dot([line[name] for name in names], [2, 4, 2]) / 8
        assert line["loss"] == pytest.approx(mean, abs=1e-5)
    record = json.loads((trained / "record.json").read_text())
    sources = record["details"]["sources"]
    assert {name: each["drawn"] for name, each in sources.items()} == {
        "squares": 24, "taught": 48, "site": 24
    }  # fmt: skip
    last = {name: sources[name]["loss"] for name in ("squares", "taught", "site")}
    assert [*last.values()] == [lines[-1][name] for name in names]
    assert record["counts"] == {"images": 33, "before_exclusion": 34}  # then 5 of 6 of the site
    assert record["details"]["images_in_several_sources"] == 0


def test_a_mixture_goes_on_exactly(trained: Path, folder: Path, tmp_path: Path) -> None:
    for steps in (5, 12):
        train.run(mixed_config(tmp_path / "out", folder, steps))
    for name in ("last.safetensors", "batches.jsonl", "metrics.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (trained / name).read_bytes()


def test_the_lineage_names_all_sources_and_whether_each_was_met(
    trained: Path, folder: Path
) -> None:
    stored = json.loads((trained / "record.json").read_text())["details"]["lineage"]
    lineage = read_lineage(stored)
    assert role_of(lineage, "", ()) is Role.MIXED_STUDENT
    assert describe_lineage(lineage).startswith("8 annotations of squares and 20 pseudo masks of")
    learnt = lineage.learnt
    assert (learnt.dataset, learnt.samples) == ("squares + rings + site", 33)
    assert [each.samples for each in learnt.sources] == [8, 20, 5]
    assert len(learnt.teachers) == len(learnt.sources[1].teachers) == 1
    assert "method:pseudo masks" in run_tags(stored)
    site = IndexedShards(folder / "site").manifest
    for split, exposure in (("train", Exposure.SAME_SPLITS), ("test", Exposure.APART)):
        verdict = judge(lineage, EvaluationSet.of(site, [split]))["training"]
        assert verdict.exposure == exposure
    met = read_pictures(trained / "last.safetensors")
    assert len(met.numbers["training"]) == 33


def test_without_weights_every_image_comes_once_an_epoch(folder: Path, tmp_path: Path) -> None:
    recipe = RecipeConfig(epochs=2, global_batch_size=3, precision="no")
    data = sources_of(folder, None, None, None)
    record = train.run(mixed_config(tmp_path / "out", folder, data=data, recipe=recipe))
    keys = [key for line in read_lines(tmp_path / "out/batches.jsonl") for key in line["keys"]]
    assert len(keys) == 66
    assert len(set(keys[:33])) == len(set(keys[33:])) == 33
    drawn = [each["drawn"] for each in record.details["sources"].values()]
    assert drawn == [16, 40, 10]


def test_a_list_of_one_is_the_same_as_a_single_mapping(folder: Path, tmp_path: Path) -> None:
    train.run(train_config(tmp_path / "one", folder / "squares"))
    listed = [SourceConfig(str(folder / "squares"), weight=3.0)]
    train.run(mixed_config(tmp_path / "listed", folder, data=listed))
    for name in ("batches.jsonl", "metrics.jsonl", "last.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "listed" / name).read_bytes()


@pytest.mark.parametrize("megabytes", [0, 0.02, 8])
def test_images_are_read_and_augmented_alike_by_any_processes_with_any_memory(
    folder: Path, megabytes: float
) -> None:
    config = mixed_config(Path("unused"), folder, workers=0)
    samples = [
        select_samples(each.dataset, each.splits, each.pseudo_labels, count=each.count)
        for each in config.sources
    ]
    images = MixedImages([MaskedImages(each, megabytes) for each in samples], ["a", "b", "c"])
    by_launch = []
    for world_size, micro in ((1, 8), (2, 4), (4, 2), (2, 2)):
        share = Share.of(8, world_size, micro)
        ranks = [
            TrainingInputs(config, images, share, rank, torch.device("cpu"))
            for rank in range(world_size)
        ]
        for each in ranks:
            each.open(3, 6)
        seen = []
        for step in range(3, 6):
            parts = [[(e.image, e.target) for e in each.micro_batches(step)] for each in ranks]
            order = [part[number] for number in range(share.accumulation) for part in parts]
            seen += [torch.cat(each) for each in zip(*order, strict=True)]
        by_launch.append(seen)
    for seen in by_launch[1:]:
        assert all(torch.equal(*each) for each in zip(seen, by_launch[0], strict=True))


# ------------------------------------------------------------------------------- findings


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sites: ``findings`` knows Edema, Mass and Nodule, ``chest`` what ChestX-ray14 does."""
    folder = tmp_path_factory.mktemp("sites")
    make_labelled_dataset(folder, 12, splits=ALL)
    make_chest_dataset(folder, 16, splits=ALL)
    return folder


def classify(output: Path, sites: Path, names: list[str], **own: Any) -> TrainConfig:
    data = [
        SourceConfig(str(sites / "findings"), weight=1, **own),
        SourceConfig(str(sites / "chest"), weight=1),
    ]
    return replace(
        train_config(output, sites), data=data, task="classification",
        labels=LabelConfig(names=names), model=ModelSpec("timm:test_convnext", in_channels=1),
    )  # fmt: skip


def test_findings_that_a_site_does_not_know_are_ignored_there(sites: Path, tmp_path: Path) -> None:
    names = ["Edema", "Cardiomegaly", "Nodule"]
    config = classify(tmp_path / "out", sites, names)
    plan = train.make_plan(config, train.open_parts(config, train.Opening()))
    own, chest = (each.targets for each in plan.training.sources)
    assert np.isnan(own.values).all(0).tolist() == [False, True, False]
    assert not np.isnan(chest.values).any()
    told = "findings labels 2 of the 3 findings; the others are ignored there: Cardiomegaly"
    assert [each for each in plan.notices if "ignored" in each] == [f"data: {told}"]
    record = train.run(config)
    assert record.details["lineage"]["labels"] == names
    for line in read_lines(tmp_path / "out/metrics.jsonl"):
        # Of each batch 4 images are of either site, of which one knows two findings of three.
        mean = (8 * line["loss_by_source/findings"] + 12 * line["loss_by_source/chest"]) / 20
        assert line["loss"] == pytest.approx(mean, abs=1e-5)


def test_a_source_has_a_label_policy_of_its_own(sites: Path, tmp_path: Path) -> None:
    own = LabelConfig(uncertain="one")
    config = classify(tmp_path / "out", sites, ["Mass", "Nodule"], labels=own)
    plan = train.make_plan(config, train.open_parts(config, train.Opening()))
    uncertain = plan.training.sources[0].targets.values[:, 0]
    assert uncertain.sum() == 6  # 1 and -1 of four in turn
    assert plan.training.policy.uncertain == "zero"
    trained_on = train.lineage_of(plan, 1)["trained_on"]["sources"]
    assert trained_on[0]["label_policy"]["uncertain"] == "one"
    assert "label_policy" not in trained_on[1]


def test_a_policy_that_only_its_dataset_says_is_told_as_well(sites: Path, tmp_path: Path) -> None:
    make_labelled_dataset(tmp_path, 12, splits=ALL, name="ones", labels=LabelPolicy("one"))
    config = classify(tmp_path / "out", sites, ["Mass", "Nodule"])
    config = replace(config, data=[*config.data, SourceConfig(str(tmp_path / "ones"), weight=1)])
    plan = train.make_plan(config, train.open_parts(config, train.Opening()))
    learnt = [each.targets.values[:, 0].sum() for each in plan.training.sources]
    assert learnt[0] == 3 and learnt[2] == 6
    lineage = train.lineage_of(plan, 1)
    told = [each.get("label_policy") for each in lineage["trained_on"]["sources"]]
    assert lineage["label_policy"] == {"uncertain": "zero", "blank": "zero"}
    assert told == [None, None, {"uncertain": "one", "blank": "zero"}]


def test_a_weight_that_draws_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    config = mixed_config(tmp_path / "out", folder, data=sources_of(folder, 1000, 1, 1000))
    with pytest.raises(ConfigurationError, match=r"data: taught has a weight of 1 of 2001, .* 32 "):
        train.run(config)


def test_a_finding_that_no_site_knows_is_refused(sites: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no label 'Edemas', did you mean 'Edema'"):
        train.run(classify(tmp_path / "out", sites, ["Edemas"]))


# ------------------------------------------------------------------------------- refusals


def test_sources_that_were_fitted_otherwise_have_no_fit_in_common(
    folder: Path, tmp_path: Path
) -> None:
    source, output = str(folder / "site-published"), str(tmp_path / "padded")
    form = ImageConfig(32, 32, fit="pad", encoding="png")
    pack.run(PackConfig("image_folder", source, output, image=form, workers=1))
    data = [SourceConfig(str(folder / "squares")), SourceConfig(output)]
    train.run(mixed_config(tmp_path / "out", folder, 1, data=data))
    stored = json.loads((tmp_path / "out" / "record.json").read_text())["details"]["lineage"]
    assert stored["trained_on"]["fit"] is None
    assert [each["fit"] for each in stored["trained_on"]["sources"]] == ["stretch", "pad"]


def test_sources_of_other_sizes_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    other = make_packed_dataset(tmp_path, 4, height=16, width=16, splits=ALL, name="small")
    data = [*sources_of(folder), SourceConfig(str(other), weight=1)]
    with pytest.raises(ConfigurationError, match="taught 32×32×1, site 32×32×1, small 16×16×1"):
        train.run(mixed_config(tmp_path / "out", folder, data=data))


def test_images_of_two_sources_are_counted_and_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = [
        SourceConfig(str(folder / "squares"), weight=1),
        SourceConfig(str(folder / "squares"), weight=1, count=3),
    ]
    record = train.run(mixed_config(tmp_path / "out", folder, data=twice))
    assert record.details["images_in_several_sources"] == 3
    assert list(record.details["sources"]) == ["squares", "squares-2"]
    assert "3 of the 3 images of squares-2 are images of squares as well" in (
        capsys.readouterr().err
    )


def test_validation_is_apart_from_every_source(folder: Path, tmp_path: Path) -> None:
    validation = ValidationConfig(str(folder / "site"), splits=["train"])
    with pytest.raises(ConfigurationError, match="5 of its 6 images are learnt from as well"):
        train.run(mixed_config(tmp_path / "out", folder, validation=validation))


def test_other_weights_are_another_run(trained: Path, folder: Path) -> None:
    with pytest.raises(DatasetError, match="other settings or data"):
        train.run(mixed_config(trained, folder, 12, data=sources_of(folder, 2.0, 2.0, 1.0)))


def test_the_file_that_a_mixture_leaves_means_the_same_again(folder: Path, tmp_path: Path) -> None:
    save_config(mixed_config(tmp_path / "out", folder), tmp_path)
    words = [f"--config={tmp_path / 'config.yaml'}"]
    read = parse_config("train", words)
    assert [source.name for source in read.sources] == [None, "taught", None]
    assert read.weights == (1, 2, 1)
    save_config(read, tmp_path)
    assert parse_config("train", words) == read


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data=[]"], "a list of at least one source"),
        (["--data=[{dataset: a, weight: 1}, {dataset: b}]"], "b of 2 sources have no weight"),
        (["--data=[{dataset: a, streaming: true}, {dataset: b}]"], "data.streaming with 2"),
        (["--data=[{dataset: a, name: x}, {dataset: b, name: x}]"], "two sources are named 'x'"),
        (["--data=[{dataset: a, name: x/y}]"], "data.name must be of 1 to 60 letters"),
        (["--data=[{dataset: a, weight: 0}]"], "data.weight must be positive"),
        (["--data=[{dataset: a, labels: {names: [b]}}]"], "labels.names of a source"),
        (["--data=[{dataset: a, wieght: 1}]"], "did you mean 'weight'"),
        (["--data=[{dataset: a, labels: {uncertain: one}}]"], "unless task is classification"),
    ],
)
def test_a_wrong_list_is_refused(words: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_config("train", [f"--output={tmp_path}", "--recipe.steps=1", *words])
    assert told in str(caught.value)


def test_a_word_for_one_setting_of_a_list_is_refused(tmp_path: Path, folder: Path) -> None:
    save_config(mixed_config(tmp_path / "out", folder), tmp_path)
    with pytest.raises(
        ConfigurationError, match="changes one setting of data, and the file has a list of 3"
    ):
        parse_config("train", [f"--config={tmp_path / 'config.yaml'}", "--data.count=3"])


def test_a_study_fills_values_into_a_list(folder: Path) -> None:
    reader = RepeatedReader(lambda values: parse_config("train", [], values))
    for count, beta in ((3, 2.5), (4, 2.5), (4, 4)):
        values = {
            "output": "out", "recipe": {"steps": 1}, "data": [
                {"dataset": "a", "count": count, "weight": 1},
                {"dataset": "b", "pseudo_labels": "c", "exclusion": {"beta": beta}, "weight": 2},
            ],
        }  # fmt: skip
        config = reader.read(values)
        assert config == parse_config("train", [], values)
        assert config.sources[0].count == count
        assert config.sources[1].exclusion.beta == beta
        assert paths_of(config).reads[-1].endswith("/c")


def test_the_doctor_says_what_a_mixture_makes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_config(mixed_config(tmp_path / "out", folder), tmp_path)
    assert main(["doctor", "train", f"--config={tmp_path / 'config.yaml'}"]) == 0
    told = capsys.readouterr().out
    assert "squares: 25.0% of each batch, 8 draws of 8 images an epoch" in told
    assert "site: 25.0% of each batch, 8 draws of 5 images an epoch" in told
    assert "source 2" in told


def test_who_follows_a_mixture_reads_its_sources(trained: Path) -> None:
    facts = read_facts(trained)
    assert facts.axes["dataset"] == "squares + taught + site"
    assert (facts.axes["method"], facts.axes["size"]) == ("pseudo masks", "33")


def test_rules_of_several_transferal_sets_are_told_by_source() -> None:
    teacher = (Network("0" * 64),)
    strict = ExclusionRule(alpha=None, beta=2.5)
    sets = [
        TrainingSet("ddti", "1", samples=7, teachers=teacher, exclusion=strict),
        TrainingSet("photographs", "2", samples=5, teachers=teacher),
        TrainingSet("busi", "3", samples=3),
    ]
    assert describe_rules(together(sets)) == "ddti: E > 2.5 bits; photographs: no exclusion"
    assert describe_rules(together([sets[0], sets[2]])) == describe_rules(sets[0]) == "E > 2.5 bits"
    assert together(sets).with_annotations and not together(sets[:2]).with_annotations
