"""Pseudo-findings: taught by classifiers, judged by confidence, learnt by a student."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from nakt_dist.config import (
    AugmentationConfig,
    InspectConfig,
    LabelConfig,
    PrivacyConfig,
    SourceConfig,
    TeacherConfig,
    ValidationConfig,
    VerifyConfig,
)
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.loading.batches import as_float
from nakt_dist.loading.samples import ImagesAlone, SelectedSamples, select_samples
from nakt_dist.models.network_file import open_network
from nakt_dist.models.spec import ModelSpec
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.shards.manifest import PseudoFindingsManifest
from nakt_dist.shards.pseudo_findings import UNITS, PseudoFindings
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import inspect, teach, train, verify
from nakt_dist.stages.opening import Opening
from nakt_dist.transfer.confidence import ConfidenceRule
from nakt_dist.transfer.private_votes import Spending, VotingRule, epsilon_of
from tests.datasets import make_chest_dataset, make_classifier, make_weights
from tests.recipes import file_hashes, logged_losses, teach_config, train_config

FIRST, SECOND = ["Nodule", "Cardiomegaly"], ["Pleural Effusion", "Nodule"]
JOINED = ("Nodule", "Cardiomegaly", "Pleural Effusion")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_chest_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> list[TeacherConfig]:
    """Two of different vocabularies: one is ours, and of the other nobody says what it knows."""
    folder = tmp_path_factory.mktemp("weights")
    first = make_classifier(folder / "first.safetensors", FIRST)
    second = make_classifier(folder / "second.safetensors", None, seed=1, outputs=2)
    spec = ModelSpec("densenet40", in_channels=3)
    return [
        TeacherConfig(str(first), weight=3.0),
        TeacherConfig(str(second), model=spec, labels=["Effusion", "Nodule"]),
    ]


@pytest.fixture(scope="module")
def taught(
    dataset: Path, teachers: list[TeacherConfig], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    output = tmp_path_factory.mktemp("taught") / "out"
    teach.run(teach_config(output, dataset, *teachers))
    return output


def probabilities(config: TeacherConfig, dataset: Path) -> np.ndarray:
    """What one teacher says, computed the plain way, float64 (N, K)."""
    images = ImagesAlone(SelectedSamples(IndexedShards(dataset), None, 48))
    trained = open_network(config.weights, config.model)
    pixels, _ = as_float(images.batch(range(len(images))), torch.device("cpu"))
    return trained.logits(pixels).sigmoid().double().numpy()


def test_each_finding_is_the_mean_of_the_teachers_that_know_it(
    dataset: Path, teachers: list[TeacherConfig], taught: Path
) -> None:
    manifest = PseudoFindingsManifest.read(taught)
    assert manifest.findings == JOINED
    assert [each["findings"] for each in manifest.teachers] == [FIRST, SECOND]
    assert not manifest.files
    tables = [pq.read_table(taught / each.name, partitioning=None) for each in manifest.shards]
    assert [key for each in tables for key in each["key"].to_pylist()] == IndexedShards(
        dataset
    ).keys
    stored, spread = (
        np.concatenate([each[name].to_pylist() for each in tables]) / 65535
        for name in ("probability", "disagreement")
    )
    first, second = (probabilities(each, dataset) for each in teachers)
    nodule = (3 * first[:, 0] + second[:, 1]) / 4
    expected = np.stack([nodule, first[:, 1], second[:, 0]], axis=1)
    np.testing.assert_allclose(stored, expected, atol=2e-5)
    # Of two with weights 3 and 1: sqrt(3/4 · 1/4) |p - q|.
    np.testing.assert_allclose(
        spread[:, 0], 3**0.5 / 4 * abs(first[:, 0] - second[:, 1]), atol=1e-4
    )
    assert not spread[:, 1:].any()
    assert stored.std(axis=0).min() > 1e-3  # images are told apart


def test_they_are_read_for_the_samples_selected(dataset: Path, taught: Path) -> None:
    everything = PseudoFindings.read(taught)
    some = IndexedShards(dataset, ["test"]).select([2, 0])
    found = PseudoFindings.open(taught, some)

    assert found.keys.to_pylist() == some.keys
    rows = [everything.keys.to_pylist().index(key) for key in some.keys]
    np.testing.assert_array_equal(found.probability, everything.probability[rows])
    assert found.probability.dtype == np.float32


def test_taught_again_nothing_is_done_and_damage_is_mended(
    dataset: Path, teachers: list[TeacherConfig], tmp_path: Path
) -> None:
    config = teach_config(tmp_path / "out", dataset, *teachers)
    teach.run(config)
    before = file_hashes(tmp_path / "out")
    assert teach.run(config).counts == {"taught_by_this_process": 0, "pseudo_labels": 48}
    verify.run(VerifyConfig(str(tmp_path / "out")))
    name = PseudoFindingsManifest.read(tmp_path / "out").shards[1].name
    shard = tmp_path / "out" / name
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DatasetError, match="1 damage"):
        verify.run(VerifyConfig(str(tmp_path / "out")))
    with pytest.raises(DatasetError, match=f"{name}.*not the file the manifest names"):
        PseudoFindings.read(tmp_path / "out")

    teach.run(config)

    assert file_hashes(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "does not say what its 2 outputs mean"),
        ({"labels": ["Nodule"]}, "gives 1 names"),
    ],
)
def test_outputs_without_a_name_are_refused(
    dataset: Path, teachers: list[TeacherConfig], tmp_path: Path, change: Any, message: str
) -> None:
    foreign = TeacherConfig(**{**vars(teachers[1]), **change})
    with pytest.raises(ConfigurationError, match=message):
        teach.run(teach_config(tmp_path / "out", dataset, foreign))


def test_masks_and_findings_are_not_taught_together(
    dataset: Path, teachers: list[TeacherConfig], tmp_path: Path
) -> None:
    unet = make_weights(tmp_path / "unet.safetensors")
    with pytest.raises(ConfigurationError, match=r"gives masks, and first .* findings"):
        teach.run(teach_config(tmp_path / "out", dataset, TeacherConfig(str(unet)), teachers[0]))
    named = TeacherConfig(str(unet), labels=["Nodule"])
    with pytest.raises(ConfigurationError, match="names the findings of a classifier"):
        teach.run(teach_config(tmp_path / "out", dataset, named))


# ------------------------------------------------------------------------------ confidence


def test_what_is_not_sure_is_ignored_by_hand() -> None:
    probability = np.array([[0.9, 0.5], [0.1, 0.8], [0.3, np.nan]], np.float32)
    disagreement = np.array([[0.0, 0.0], [0.3, 0.1], [0.0, np.nan]], np.float32)
    nan = np.nan

    rule = ConfidenceRule(positive=0.8, negative=0.2)
    np.testing.assert_array_equal(
        rule.judge(probability, disagreement),
        np.array([[0.9, nan], [0.1, 0.8], [nan, nan]], np.float32),
    )
    rule = ConfidenceRule(largest_disagreement=0.2, targets="hard")
    np.testing.assert_array_equal(
        rule.judge(probability, disagreement), [[1, 1], [nan, 1], [0, nan]]
    )
    np.testing.assert_array_equal(ConfidenceRule().judge(probability, disagreement), probability)


@pytest.mark.parametrize("limit", [0.55, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99])
def test_an_answer_at_a_limit_counts_however_it_was_rounded(limit: float) -> None:
    said = np.array([[limit, 1 - limit], [limit / 2, limit / 2]])
    units = np.rint(said * UNITS)
    beside = units + np.array([[-2, 2], [2, 2]])  # those that no rounding of these gives
    rules = ConfidenceRule(limit, 1 - limit), ConfidenceRule(largest_disagreement=limit / 2)
    for stored, counts in ((units, True), (beside, False)):
        probability, disagreement = (stored / UNITS).astype(np.float32)[:, None]
        for rule in rules:
            kept = ~np.isnan(rule.judge(probability, disagreement))
            assert kept.tolist() == [[counts, counts]]


@pytest.mark.parametrize(
    "settings",
    [
        {"positive": 0.8},
        {"positive": 0.2, "negative": 0.2},
        {"positive": 1.2, "negative": 0.1},
        {"largest_disagreement": 0.6},
    ],
)
def test_rules_that_make_no_sense_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="confidence"):
        ConfidenceRule(**settings)


def test_inspect_says_what_a_rule_leaves_and_how_right_it_is(
    dataset: Path, taught: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pseudo = PseudoFindings.read(taught)
    limit = float(np.median(pseudo.probability[:, 0]))
    rule = ConfidenceRule(positive=limit, negative=0.0)
    record = inspect.run(
        InspectConfig(str(taught), str(dataset), str(tmp_path / "out"), confidence=rule)
    )

    counts = json.loads((tmp_path / "out" / "counts.json").read_text())
    nodule = counts["findings"]["Nodule"]
    kept = pseudo.probability[:, 0] >= limit
    assert nodule["kept"] == kept.sum()
    present = [(each or {}).get("Nodule") == 1 for each in IndexedShards(dataset).findings()]
    said = pseudo.probability[:, 0] >= 0.5
    assert nodule["kept_right"] == pytest.approx((said == present)[kept].mean())
    assert record.counts == {
        "before": 48,
        "after": int((pseudo.probability >= limit).any(axis=1).sum()),
    }
    assert "Pleural Effusion" in capsys.readouterr().out
    assert (tmp_path / "out" / "probabilities.png").read_bytes().startswith(b"\x89PNG")


# -------------------------------------------------------------------------------- learning


def student(output: Path, dataset: Path, taught: Path, **changes: Any) -> Any:
    data = {"pseudo_labels": str(taught), **changes.pop("data", {})}
    settings = {
        "task": "classification",
        "model": ModelSpec("timm:test_convnext", in_channels=1),
        "validation": ValidationConfig(str(dataset)),
        "recipe": {"steps": 3},
        **changes,
    }
    return train_config(output, dataset, data=data, **settings)


def test_a_student_learns_what_teachers_say_and_its_weights_tell_by_whom(
    dataset: Path, taught: Path, tmp_path: Path
) -> None:
    record = train.run(student(tmp_path / "out", dataset, taught))

    lineage = record.details["lineage"]
    assert lineage["labels"] == list(JOINED)
    assert lineage["trained_on"]["labels"] == "pseudo-findings"
    assert [each["name"] for each in lineage["trained_on"]["teachers"]] == ["first", "second"]
    assert open_network(tmp_path / "out").spec.num_outputs == 3
    assert len(logged_losses(tmp_path / "out")) == 3


def test_the_loss_is_the_cross_entropy_with_the_probabilities(
    dataset: Path, taught: Path, tmp_path: Path
) -> None:
    """Before anything is learnt: the mean over the batch, computed from what is stored."""
    config = student(
        tmp_path / "out",
        dataset,
        taught,
        labels=LabelConfig(names=["Nodule"]),
        data={"count": 8},
        recipe={"steps": 1, "learning_rate": 1e-12},
        augmentation=AugmentationConfig(enabled=False),
        validation=None,
    )
    train.run(config)
    everything = lambda pseudo: np.ones(len(pseudo), bool)  # noqa: E731
    samples = select_samples(str(dataset), ["train"], str(taught), None, 8, taught=everything)
    trained = open_network(tmp_path / "out")
    pixels, _ = as_float(ImagesAlone(samples).batch(range(8)), torch.device("cpu"))
    p = samples.pseudo_findings.probability[:, 0].astype(np.float64)
    logits = trained.logits(pixels).double().numpy()[:, 0]
    entropy = np.logaddexp(0, logits) - p * logits
    assert logged_losses(tmp_path / "out")[0][1] == pytest.approx(entropy.mean(), rel=1e-4)


def test_images_without_a_sure_finding_are_excluded(
    dataset: Path, taught: Path, tmp_path: Path
) -> None:
    train_rows = PseudoFindings.open(taught, IndexedShards(dataset, ["train"]))
    limit = float(np.quantile(train_rows.probability[:, 1], 0.5))
    rule = ConfidenceRule(positive=limit, negative=0.0)
    config = student(
        tmp_path / "out", dataset, taught,
        labels=LabelConfig(names=["Cardiomegaly"]), data={"confidence": rule},
    )  # fmt: skip

    record = train.run(config)

    expected = int((train_rows.probability[:, 1] >= limit).sum())
    assert record.counts == {"images": expected, "before_exclusion": len(train_rows)}
    assert 0 < expected < len(train_rows)
    assert record.details["lineage"]["trained_on"]["confidence"]["positive"] == limit


def test_findings_that_no_teacher_knows_are_refused(
    dataset: Path, taught: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="no label 'Hernia'"):
        train.run(student(tmp_path / "out", dataset, taught, labels=LabelConfig(names=["Hernia"])))


def test_findings_are_no_masks(dataset: Path, taught: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"pseudo-findings \(Nodule, .* masks are wanted"):
        train.run(train_config(tmp_path / "out", dataset, data={"pseudo_labels": str(taught)}))


# --------------------------------------------------------------------------- private votes


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> list[TeacherConfig]:
    """Three of one vocabulary, in an order of their own each."""
    folder = tmp_path_factory.mktemp("hospitals")
    orders = [["Nodule", "Edema"], ["Edema", "Nodule"], ["Nodule", "Edema"]]
    return [
        TeacherConfig(str(make_classifier(folder / f"{seed}.safetensors", names, seed=seed)))
        for seed, names in enumerate(orders)
    ]


def privacy(folder: Path, **changes: Any) -> PrivacyConfig:
    settings = {"noise": 1e-6, "epsilon": 1e20, **changes}
    return PrivacyConfig(key=str(folder / "key"), **settings)


def test_private_votes_without_noise_are_the_plain_majority(
    dataset: Path, hospitals: list[TeacherConfig], tmp_path: Path
) -> None:
    config = teach_config(tmp_path / "private", dataset, *hospitals, privacy=privacy(tmp_path))
    teach.run(config)
    binary = [TeacherConfig(each.weights, output="binary") for each in hospitals]
    teach.run(teach_config(tmp_path / "plain", dataset, *binary))

    private, plain = (PseudoFindings.read(tmp_path / name) for name in ("private", "plain"))
    np.testing.assert_array_equal(private.probability, plain.probability > 0.5)
    assert not private.disagreement.any()  # it would tell the votes
    told = private.manifest.privacy
    assert (told["asked"], told["answered"], told["voters"]) == (96, 96, 3)


def test_noise_is_the_same_after_a_kill_and_unanswered_queries_are_ignored(
    dataset: Path, hospitals: list[TeacherConfig], tmp_path: Path
) -> None:
    rule = privacy(
        tmp_path, noise=2.0, epsilon=300.0, threshold=2.5, threshold_noise=0.5, images=40
    )
    first = teach_config(tmp_path / "first", dataset, *hospitals, privacy=rule)
    teach.run(first)
    found = PseudoFindings.read(tmp_path / "first")
    assert np.isnan(found.probability).all(axis=1).sum() >= 8
    told = found.manifest.privacy
    assert told["asked"] == 80
    assert told["answered"] == np.isfinite(found.probability).sum() < 80
    spent = json.loads((tmp_path / "key.spent.json").read_text())
    assert [each["answered"] for each in spent.values()] == [told["answered"]]

    teach.run(replace(first, output=str(tmp_path / "again")))  # as after a kill: no query is new
    assert file_hashes(tmp_path / "again") == file_hashes(tmp_path / "first")
    assert len(json.loads((tmp_path / "key.spent.json").read_text())) == 1
    with warnings.catch_warnings(action="error"):  # panels without room
        inspect.run(InspectConfig(str(tmp_path / "first"), str(dataset), str(tmp_path / "shown")))
    counts = json.loads((tmp_path / "shown" / "counts.json").read_text())
    answered = sum(each["answered"] for each in counts["findings"].values())
    assert answered == told["answered"]


def test_queries_beyond_the_budget_are_refused(
    dataset: Path, hospitals: list[TeacherConfig], tmp_path: Path
) -> None:
    small = privacy(tmp_path, noise=5.0, epsilon=5.0)
    with pytest.raises(ConfigurationError, match=r"96 queries .* the budget is 5; it allows") as e:
        teach.run(teach_config(tmp_path / "out", dataset, *hospitals, privacy=small))
    allowed = int(str(e.value).partition("allows ")[2].split()[0])
    assert 0 < allowed < 48
    assert not (tmp_path / "key.spent.json").exists()
    fits = replace(small, images=allowed)
    teach.run(teach_config(tmp_path / "fits", dataset, *hospitals, privacy=fits))
    # The same teachers again, asked otherwise: what they answered counts.
    with pytest.raises(ConfigurationError, match="with what was asked before"):
        teach.run(teach_config(tmp_path / "more", dataset, *hospitals[1:], privacy=fits))


def test_under_a_new_key_the_same_queries_are_counted_again(
    dataset: Path, hospitals: list[TeacherConfig], tmp_path: Path
) -> None:
    """Its noise is new: with the old answers it tells more of the votes."""
    once = privacy(tmp_path, noise=5.0, epsilon=1.2 * epsilon_of_two(5.0, 1), images=2)
    first = teach_config(tmp_path / "out", dataset, *hospitals, privacy=once)
    teach.run(first)
    shard = next((tmp_path / "out").glob("*.parquet"))
    (tmp_path / "key").rename(tmp_path / "old")
    (tmp_path / "link").symlink_to(tmp_path / "key")  # another path is no other ledger
    for path in ("key", "link"):
        again = replace(once, key=str(tmp_path / path))
        with pytest.raises(ConfigurationError, match="with what was asked before"):
            teach.run(replace(first, output=str(tmp_path / "again"), privacy=again))
    damage = shard.read_bytes()[:-1]
    shard.write_bytes(damage)
    with pytest.raises(DatasetError, match="does not count these queries under this key"):
        teach.run(first)
    assert shard.read_bytes() == damage  # no answer with new noise
    (tmp_path / "old").rename(tmp_path / "key")
    teach.run(first)
    assert len(shard.read_bytes()) > len(damage)


def epsilon_of_two(noise: float, times: int) -> float:
    """Of two images with two findings each."""
    return epsilon_of([Spending(VotingRule(noise), 4 * times, 4 * times)], 1e-5)


@pytest.mark.parametrize("field", ["answered", "asked", "rule", "teachers"])
def test_a_ledger_that_is_damaged_counts_nothing_less(
    dataset: Path, hospitals: list[TeacherConfig], tmp_path: Path, field: str
) -> None:
    wrong = {"answered": -9, "asked": "4", "rule": {"noise": float("inf")}, "teachers": []}
    entry = {"teachers": ["a"], "rule": {"noise": 1.0}, "asked": 4, "answered": 4}
    ledger = tmp_path / "key.spent.json"
    ledger.write_text(json.dumps({"b": {**entry, field: wrong[field]}}))
    config = teach_config(tmp_path / "out", dataset, *hospitals, privacy=privacy(tmp_path))
    with pytest.raises(DatasetError, match="is no ledger of queries"):
        teach.run(config)
    with pytest.raises(DatasetError, match="is no ledger of queries"):
        teach.plan(replace(config, device="auto"), Opening()).check()  # as nakt doctor does
    assert not list(tmp_path.glob("out/*.parquet"))


@pytest.mark.parametrize("case", ["masks", "vocabularies", "twice", "weights"])
def test_votes_that_cannot_be_private_are_refused(
    dataset: Path,
    hospitals: list[TeacherConfig],
    teachers: list[TeacherConfig],
    tmp_path: Path,
    case: str,
) -> None:
    asked, message = {
        "masks": ([TeacherConfig(str(make_weights(tmp_path / "unet.safetensors")))], "each pixel"),
        "vocabularies": ([hospitals[0], teachers[0]], "know different findings"),
        "twice": ([hospitals[0]] * 2, "a teacher is there twice"),
        "weights": ([hospitals[0], replace(hospitals[1], weight=2.0)], "each has one vote"),
    }[case]
    with pytest.raises(ConfigurationError, match=message):
        teach.run(teach_config(tmp_path / "out", dataset, *asked, privacy=privacy(tmp_path)))


def test_the_median_of_those_that_know_a_finding(
    dataset: Path, teachers: list[TeacherConfig], hospitals: list[TeacherConfig], tmp_path: Path
) -> None:
    asked = [replace(each, weight=1.0) for each in (*teachers, *hospitals)]
    teach.run(teach_config(tmp_path / "out", dataset, *asked, combination="median"))
    found = PseudoFindings.read(tmp_path / "out")
    nodule = found.manifest.findings.index("Nodule")
    columns = [0, 1, 0, 1, 0]
    said = [probabilities(e, dataset)[:, c] for e, c in zip(asked, columns, strict=True)]
    np.testing.assert_allclose(found.probability[:, nodule], np.median(said, axis=0), atol=2e-5)
    with pytest.raises(ConfigurationError, match="combination is staple"):
        teach.run(teach_config(tmp_path / "no", dataset, *asked, combination="staple"))


def test_few_labels_besides_in_one_training(dataset: Path, taught: Path, tmp_path: Path) -> None:
    """A finding that teachers do not know is learnt from labels alone, and the other way round."""
    names = ["Nodule", "Hernia", "Pleural Effusion"]
    sources = [
        SourceConfig(str(dataset), count=4, name="labels", weight=1.0),
        SourceConfig(str(dataset), pseudo_labels=str(taught), name="pseudo", weight=3.0),
    ]
    config = student(tmp_path / "out", dataset, taught, labels=LabelConfig(names=names))

    record = train.run(replace(config, data=sources))

    lineage = record.details["lineage"]
    assert lineage["labels"] == names
    assert [each["labels"] for each in lineage["trained_on"]["sources"]] == [
        "annotations",
        "pseudo-findings",
    ]
    told = read_lineage(lineage)
    assert told.method.parts == "all layers, labels and findings of first + second"
