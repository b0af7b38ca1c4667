"""``nakt evaluate`` of a classifier: which outputs answer which labels, and what comes out."""

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from nakt_dist.config import (
    AttentionConfig,
    ImageConfig,
    LabelConfig,
    PackConfig,
    PreprocessingConfig,
    ShownNetworkConfig,
)
from nakt_dist.config.evaluating import OperatingPointConfig
from nakt_dist.errors import CheckpointError, ConfigurationError, DatasetError
from nakt_dist.evaluation import classification_scores
from nakt_dist.models.network_file import open_network
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import save_weights
from nakt_dist.records.finding_results import ClassificationResult
from nakt_dist.records.run_record import read_record
from nakt_dist.runtime.files import file_sha256, value_sha256
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.tables import INDEX_SCHEMA, write_table
from nakt_dist.sources.findings import CHEXPERT_FINDINGS
from nakt_dist.stages import attention, evaluate, pack
from tests.datasets import (
    make_chest_dataset,
    make_classifier,
    make_packed_dataset,
    make_weights,
)
from tests.recipes import evaluate_config, file_hashes

FINDINGS = ("Nodule", "Pleural Effusion", "Cardiomegaly")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 ChestX-ray14 images of 40 patients, with three findings."""
    return make_chest_dataset(tmp_path_factory.mktemp("dataset"), images=80)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_classifier(tmp_path_factory.mktemp("weights") / "first.safetensors", FINDINGS)


@pytest.fixture(scope="module")
def other_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = ("Fracture", *reversed(FINDINGS))
    return make_classifier(tmp_path_factory.mktemp("weights") / "second.safetensors", labels, 5)


@pytest.fixture(scope="module")
def evaluated(
    dataset: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    output = tmp_path_factory.mktemp("evaluated") / "first"
    return output, evaluate.run(evaluate_config(output, dataset, weights))


def columns(output: Path) -> dict[str, list[Any]]:
    return pq.read_table(output / "predictions.parquet").to_pydict()


@torch.no_grad()
def answers_the_plain_way(weights: Path, dataset: Path) -> np.ndarray:
    network, images = open_network(weights).network, IndexedShards(dataset)
    pixels = np.stack(
        [np.asarray(Image.open(io.BytesIO(images.image_bytes(n)))) for n in range(len(images))]
    )
    grey = torch.tensor(pixels / 255, dtype=torch.float32)[:, None]
    return network(grey.repeat(1, 3, 1, 1)).sigmoid().double().numpy()


# ------------------------------------------------------------------------ what comes out


def test_every_image_is_answered_once_as_the_network_alone_answers(
    dataset: Path, weights: Path, evaluated: tuple[Path, Any]
) -> None:
    found, images = columns(evaluated[0]), IndexedShards(dataset)

    assert found["key"] == images.keys
    assert found["patient_id"] == images.patients
    answers = answers_the_plain_way(weights, dataset)
    for number, name in enumerate(FINDINGS):
        assert found[f"probability {name}"] == pytest.approx(answers[:, number], abs=1e-5)
        assert found[f"target {name}"] == [each[name] for each in images.findings()]
    labels = [json.loads(text) for text in images.index["labels"].to_pylist()]
    assert found["sex"] == [each["sex"] for each in labels]
    assert found["age"] == [each["age"] for each in labels]
    assert set(found["view"]) == {"frontal"}


def test_the_numbers_are_scikit_learns(evaluated: tuple[Path, Any]) -> None:
    output, record = evaluated
    found, metrics = columns(output), record.metrics

    for name, label in zip(FINDINGS, record.details["labels"], strict=True):
        target, probability = found[f"target {name}"], found[f"probability {name}"]
        precision = average_precision_score(target, probability)
        assert label["name"] == name
        assert label["auroc"] == pytest.approx(100 * roc_auc_score(target, probability))
        assert label["average_precision"] == pytest.approx(100 * precision)
        assert (label["positives"], label["ignored"]) == (sum(target), 0)
        assert label["negatives"] == 80 - sum(target)
        assert 0 <= label["calibration_error"] <= 1
    for name in ("auroc", "average_precision", "calibration_error"):
        values = [label[name] for label in record.details["labels"]]
        assert metrics[f"{name}_mean"] == pytest.approx(np.mean(values))
    lower, upper = metrics["auroc_interval_95"]
    assert lower < metrics["auroc_mean"] < upper
    assert (metrics["task"], metrics["images"], metrics["patients"]) == ("classification", 80, 40)
    assert (metrics["labels_counted"], metrics["labels_left_out"]) == (3, 0)
    assert record == read_record(output / "record.json")
    assert set(file_hashes(output)) == {"config.yaml", "predictions.parquet", "record.json"}


def test_women_and_men_are_compared_on_the_same_labels(
    dataset: Path, evaluated: tuple[Path, Any]
) -> None:
    output, record = evaluated
    found = columns(output)

    women, men = (row for row in record.details["subgroups"] if row["attribute"] == "sex")
    for row, sex in ((women, "F"), (men, "M")):
        chosen = [number for number, each in enumerate(found["sex"]) if each == sex]
        values = [
            roc_auc_score(
                *(np.take(found[f"{kind} {name}"], chosen) for kind in ("target", "probability"))
            )
            for name in FINDINGS
        ]
        assert (row["group"], row["images"], row["labels_counted"]) == (sex, len(chosen), 3)
        assert row["auroc_mean"] == pytest.approx(100 * np.mean(values))
    assert found["projection"] == [
        json.loads(text)["projection"]
        for text in IndexedShards(dataset).index["labels"].to_pylist()
    ]
    groups = {
        row["group"] for row in record.details["subgroups"] if row["attribute"] == "projection"
    }
    assert groups == {"AP", "PA"}
    assert record.details["gaps"]["projection"] > 0
    gap = abs(women["auroc_mean"] - men["auroc_mean"])
    assert record.details["gaps"]["sex"] == pytest.approx(gap)
    assert record.details["gaps"]["view"] is None  # all are frontal
    assert sum(row["images"] for row in record.details["subgroups"]) == 4 * 80


def test_a_label_of_one_class_is_left_out_and_counted(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = make_classifier(tmp_path / "w.safetensors", ("Hernia", *FINDINGS))

    record = evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))

    hernia, *others = record.details["labels"]
    assert (hernia["auroc"], hernia["auroc_interval_95"], hernia["positives"]) == (None, None, 0)
    assert hernia["average_precision"] is None
    assert hernia["resamples_left_out"] == 100
    assert (record.metrics["labels_counted"], record.metrics["labels_left_out"]) == (3, 1)
    mean = np.mean([label["auroc"] for label in others])
    assert record.metrics["auroc_mean"] == pytest.approx(mean)
    assert "over 3 of 4 (1 lack a class) labels" in capsys.readouterr().err
    # NaN is no JSON: other programs must be able to read the record.
    json.loads((tmp_path / "out" / "record.json").read_text(), parse_constant=pytest.fail)


def test_without_a_label_of_both_classes_the_record_says_so(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = make_classifier(tmp_path / "w.safetensors", ["Hernia"])

    metrics = evaluate.run(evaluate_config(tmp_path / "out", dataset, weights)).metrics

    assert metrics["auroc_mean"] is metrics["auroc_interval_95"] is None
    assert (metrics["labels_counted"], metrics["labels_left_out"]) == (0, 1)
    assert "no label with both classes" in capsys.readouterr().err


def test_answers_that_are_not_numbers_are_no_result(
    dataset: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = classification_scores.predict
    monkeypatch.setattr(classification_scores, "predict", lambda *each: plain(*each) * float("nan"))

    with pytest.raises(CheckpointError, match="diverged"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))


# ------------------------------------------------------------------- what the lineage says


def with_lineage(weights: Path, path: Path, **lineage: Any) -> Path:
    """Saves the same network with a further lineage."""
    loaded = open_network(weights)
    lineage = {**loaded.lineage, **lineage}
    save_weights(path, loaded.network.state_dict(), loaded.spec, {"lineage": json.dumps(lineage)})
    return path


@pytest.mark.parametrize("kind", ["training", "teacher"])
def test_a_network_tested_on_what_it_learnt_from_is_called_out(
    dataset: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    manifest = IndexedShards(dataset).manifest
    learnt = {"dataset": "chest", "fingerprint": manifest.fingerprint, "splits": ["train"]}
    elsewhere = learnt | {"fingerprint": "f", "dataset": "elsewhere"}
    changes = {
        "training": {"trained_on": learnt},
        "teacher": {
            "trained_on": elsewhere,
            "transfer": {"teacher": learnt | {"trained_on": "chest"}},
        },
    }
    path = with_lineage(weights, tmp_path / "w.safetensors", parent=None, **changes[kind])

    record = evaluate.run(evaluate_config(tmp_path / "all", dataset, path))

    expected = dict.fromkeys(("training", "validation", "parents", "teacher"), False)
    copied = {"training": None} if kind == "teacher" else {}  # elsewhere, without its pictures
    assert record.details["met_test_images"] == expected | copied | {kind: True}
    said = capsys.readouterr().err
    assert said.count("evaluate: warning: 'w' ") == 1
    assert "images that it is tested on (chest, all splits): the result is too high" in said
    again = evaluate.run(evaluate_config(tmp_path / "test", dataset, path, splits=["test"]))
    assert again.details["met_test_images"] == expected | copied
    assert "tested on (" not in capsys.readouterr().err


def test_a_policy_other_than_that_of_training_is_said(
    dataset: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt = {"uncertain": "one", "blank": "zero"}
    path = with_lineage(weights, tmp_path / "w.safetensors", label_policy=learnt)

    record = evaluate.run(evaluate_config(tmp_path / "out", dataset, path))

    tested = {"uncertain": "zero", "blank": "zero"}
    assert record.details["other_label_policy"] == {"trained": learnt, "tested": tested}
    said = capsys.readouterr().err
    assert "learnt with labels read as uncertain: one, blank: zero, and is tested with" in said
    as_learnt = evaluate_config(
        tmp_path / "same", dataset, path, labels=LabelConfig(uncertain="one")
    )
    assert evaluate.run(as_learnt).details["other_label_policy"] is None
    assert "learnt with" not in capsys.readouterr().err


def test_a_lineage_of_another_task_is_refused(dataset: Path, weights: Path, tmp_path: Path) -> None:
    path = with_lineage(weights, tmp_path / "w.safetensors", task="segmentation")

    with pytest.raises(CheckpointError, match="one of classification"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, path))


# ----------------------------------------------------------------------------- damaged facts


@pytest.mark.parametrize(
    "text", ["[1]", "null", "text", "[" * 100_000, '{"age": 99999999999}', '{"age": -1}']
)
@pytest.mark.parametrize("stage", ["evaluate", "attention"])
def test_facts_that_are_none_are_damage_of_the_index(
    weights: Path, tmp_path: Path, text: str, stage: str
) -> None:
    dataset = make_chest_dataset(tmp_path, images=4, splits={"test": 1})
    path = dataset / INDEX_NAME
    rows = pq.read_table(path).to_pylist()
    rows[1]["labels"] = text
    write_table(path, INDEX_SCHEMA, [rows], None)
    content = json.loads((dataset / MANIFEST_NAME).read_text())
    content["files"][INDEX_NAME] = file_sha256(path)
    del content["fingerprint"]
    content["fingerprint"] = value_sha256(content)
    (dataset / MANIFEST_NAME).write_text(json.dumps(content))

    with pytest.raises(DatasetError, match="Run nakt verify") as refusal:
        if stage == "evaluate":
            evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))
        else:
            shown = ShownNetworkConfig(str(weights))
            config = AttentionConfig(shown, shown, str(dataset), str(tmp_path / "out"))
            attention.run(replace(config, images=1, device="cpu", threads=1))
    assert str(path) in str(refusal.value)
    assert rows[1]["key"] in str(refusal.value)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------- intervals that say little


def test_an_interval_from_few_patients_is_called_out(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_chest_dataset(tmp_path, images=12, splits={"test": 1})
    config = evaluate_config(tmp_path / "out", dataset, weights)

    record = evaluate.run(config)

    interval = record.details["interval"]
    assert (interval["patients_drawn"], interval["images_without_patient"]) == (6, 0)
    assert interval["resamples"] == 100
    assert "the interval rests on 6 patients; from fewer than 20" in interval["cautions"][0]
    said = capsys.readouterr().err
    assert "12 images of 6 patients, 95 % interval" in said
    assert "evaluate out: warning: the interval rests on 6 patients" in said
    evaluate.run(config)
    assert "warning: the interval rests on 6 patients" in capsys.readouterr().err


def test_an_interval_from_enough_patients_is_not(
    evaluated: tuple[Path, Any],
) -> None:
    interval = evaluated[1].details["interval"]
    assert (interval["patients_drawn"], interval["resamples_without_a_label"]) == (40, 0)
    assert interval["cautions"] == []


# ------------------------------------------------------------- outputs and labels that match


def test_shared_labels_are_tested_in_the_networks_order_and_the_rest_is_named(
    dataset: Path, other_weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = evaluate.run(evaluate_config(tmp_path / "out", dataset, other_weights))

    order = list(reversed(FINDINGS))
    assert [label["name"] for label in record.details["labels"]] == order
    answers = answers_the_plain_way(other_weights, dataset)
    for number, name in enumerate(order, 1):
        found = columns(tmp_path / "out")[f"probability {name}"]
        assert found == pytest.approx(answers[:, number], abs=1e-5)
    assert record.details["outputs_not_used"] == ["Fracture"]
    assert len(record.details["labels_not_used"]) == 12
    assert "Hernia" in record.details["labels_not_used"]
    said = capsys.readouterr().err
    assert "3 labels shared; outputs without a label here: Fracture; labels without an" in said


def test_some_of_the_labels_may_be_asked_for(dataset: Path, weights: Path, tmp_path: Path) -> None:
    labels = LabelConfig(names=["Cardiomegaly", "Hernia", "Nodule"])

    record = evaluate.run(evaluate_config(tmp_path / "out", dataset, weights, labels=labels))

    assert [label["name"] for label in record.details["labels"]] == ["Nodule", "Cardiomegaly"]
    assert record.details["outputs_not_used"] == ["Pleural Effusion"]
    assert record.details["labels_not_used"] == ["Hernia"]


def test_a_network_without_any_label_of_the_test_set_is_refused(
    dataset: Path, tmp_path: Path
) -> None:
    weights = make_classifier(tmp_path / "w.safetensors", ["Fracture", "Support Devices"])

    with pytest.raises(ConfigurationError, match=r"share no label.*Fracture, Support Devices"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))
    assert not (tmp_path / "out").exists()


def test_a_dataset_without_findings_is_refused(weights: Path, tmp_path: Path) -> None:
    dataset = make_packed_dataset(tmp_path)

    with pytest.raises(ConfigurationError, match="no findings to classify"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))


def test_lineage_with_other_outputs_than_the_network_is_refused(
    dataset: Path, tmp_path: Path
) -> None:
    weights = make_classifier(tmp_path / "w.safetensors", ["Nodule", "Nodule"])

    with pytest.raises(CheckpointError, match="expected 2 different names"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, weights))


# -------------------------------------------------------------------------- foreign files


def foreign(output: Path, dataset: Path, folder: Path, names: Any, outputs: int = 3) -> Any:
    weights = folder / "foreign.safetensors"
    if not weights.exists():
        make_classifier(weights, None, outputs=outputs)
    model = ModelSpec("densenet40", in_channels=3)  # the file's head has so many outputs
    labels = None if names is None else LabelConfig(names=names)
    plain = PreprocessingConfig(mean=0.0, std=1.0)
    return evaluate_config(
        output, dataset, weights, model=model, labels=labels, preprocessing=plain
    )


def test_the_outputs_of_foreign_weights_are_named_by_the_configuration(
    dataset: Path, evaluated: tuple[Path, Any], tmp_path: Path
) -> None:
    names = ["Nodule", "Effusion", "Something Else"]

    record = evaluate.run(foreign(tmp_path / "out", dataset, tmp_path, names))

    assert [label["name"] for label in record.details["labels"]] == ["Nodule", "Pleural Effusion"]
    assert record.details["outputs_not_used"] == ["Something Else"]
    found, expected = columns(tmp_path / "out"), columns(evaluated[0])
    for name in FINDINGS[:2]:  # the same network, under its own names
        column = f"probability {name}"
        assert found[column] == pytest.approx(expected[column], abs=1e-6)


def test_other_names_for_the_outputs_are_another_evaluation(
    dataset: Path, evaluated: tuple[Path, Any], tmp_path: Path
) -> None:
    names = ["Nodule", "Something Else", "Effusion"]
    evaluate.run(foreign(tmp_path / "out", dataset, tmp_path, names))

    with pytest.raises(DatasetError, match="already holds another evaluation"):
        evaluate.run(foreign(tmp_path / "out", dataset, tmp_path, [names[0], *names[:0:-1]]))


def test_a_file_in_the_style_of_chexnet_is_evaluated(
    dataset: Path, weights: Path, evaluated: tuple[Path, Any], tmp_path: Path
) -> None:
    """Old names, a network inside another inside DataParallel, a head of two, no counters."""
    state = {
        "module.densenet40."
        + re.sub(r"(norm|conv)([12])[.]", r"\1.\2.", name).replace(
            "classifier.", "classifier.0."
        ): value
        for name, value in open_network(weights).network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    path = tmp_path / "m-chexnet.pth.tar"
    torch.save({"epoch": 3, "state_dict": state, "best_loss": 0.2}, path)
    config = replace(
        foreign(tmp_path / "out", dataset, tmp_path, list(FINDINGS)), weights=str(path)
    )

    evaluate.run(config)

    found, expected = columns(tmp_path / "out"), columns(evaluated[0])
    for name in FINDINGS:
        column = f"probability {name}"
        assert found[column] == pytest.approx(expected[column], abs=1e-6)


def test_a_label_set_names_the_outputs(dataset: Path, tmp_path: Path) -> None:
    record = evaluate.run(foreign(tmp_path / "out", dataset, tmp_path, "chexpert", outputs=14))

    names = [label["name"] for label in record.details["labels"]]
    assert names == [name for name in CHEXPERT_FINDINGS if name in names]
    assert len(names) == 8
    assert len(record.details["outputs_not_used"]) == 6


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (None, "does not say what its 3 outputs mean"),
        (["Nodule"], "gives 1 names"),
        ("chexpert", "gives 14 names"),
        ("chexprt", "did you mean 'chexpert'?"),
        (["Nodule", "Effusion", "Pleural Effusion"], "'Pleural Effusion' is there twice"),
        (["One", "Two", "Three"], "share no label"),
    ],
)
def test_outputs_without_proper_names_are_refused(
    dataset: Path, tmp_path: Path, names: Any, said: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        evaluate.run(foreign(tmp_path / "out", dataset, tmp_path, names))

    assert said in str(refusal.value)


# --------------------------------------------------------------------------- unsure labels


def make_chexpert(folder: Path) -> Path:
    """Twelve images; Edema is 1, 0, -1 and blank three times each."""
    heads = ["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS]
    lines = [",".join(heads)]
    for number in range(12):
        place = f"train/patient{number:05d}/study1"
        (folder / "published" / place).mkdir(parents=True)
        random = np.random.default_rng(number)
        pixels = random.integers(0, 255, (32, 32)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "published" / place / "view1_frontal.jpg")
        edema = ("1.0", "0.0", "-1.0", "")[number % 4]
        values = [edema if name == "Edema" else "" for name in CHEXPERT_FINDINGS]
        path = f"CheXpert-v1.0-small/{place}/view1_frontal.jpg"
        lines.append(",".join([path, "Female", "60", "Frontal", "AP", *values]))
    (folder / "published" / "train.csv").write_text("\n".join(lines) + "\n")
    settings = {"image": ImageConfig(height=32, width=32), "workers": 1}
    pack.run(PackConfig("chexpert", str(folder / "published"), str(folder / "packed"), **settings))
    return folder / "packed"


@pytest.mark.parametrize(
    ("labels", "positives", "negatives", "ignored"),
    [
        (None, 3, 9, 0),
        (LabelConfig(uncertain="one"), 6, 6, 0),
        (LabelConfig(uncertain="ignore"), 3, 6, 3),
        (LabelConfig(uncertain="ignore", blank="ignore"), 3, 3, 6),
    ],
)
def test_unsure_labels_count_as_asked(
    tmp_path: Path, labels: Any, positives: int, negatives: int, ignored: int
) -> None:
    dataset = make_chexpert(tmp_path)
    weights = make_classifier(tmp_path / "w.safetensors", ["Edema"])
    config = evaluate_config(tmp_path / "out", dataset, weights, labels=labels)

    (label,) = evaluate.run(config).details["labels"]

    found = (label["positives"], label["negatives"], label["ignored"])
    assert found == (positives, negatives, ignored)
    assert columns(tmp_path / "out")["target Edema"].count(None) == ignored
    other = replace(config, labels=LabelConfig(blank="one"))
    with pytest.raises(DatasetError, match="label_policy"):
        evaluate.run(other)


# ------------------------------------------------------------------------------ comparisons


def test_two_networks_are_compared_over_the_labels_both_have(
    dataset: Path,
    other_weights: Path,
    evaluated: tuple[Path, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, first_record = evaluated
    config = evaluate_config(tmp_path / "out", dataset, other_weights, compare_with=str(first))

    record = evaluate.run(config)

    found = record.metrics["paired_difference"]
    expected = record.metrics["auroc_mean"] - first_record.metrics["auroc_mean"]
    assert found["difference"] == pytest.approx(expected)
    assert found["interval_95"][0] < expected < found["interval_95"][1]
    assert 0 < found["p_value"] <= 1
    assert found["labels_counted"] == 3
    assert found["compared_with"] == "first"
    assert found["weights_sha256"] == first_record.inputs["weights_sha256"]
    assert found["auroc_mean"] == pytest.approx(record.metrics["auroc_mean"])
    assert found["compared_auroc_mean"] == pytest.approx(first_record.metrics["auroc_mean"])
    assert "; against first, over the 3 labels that count for both" in capsys.readouterr().err


def test_the_difference_goes_with_the_means_that_are_printed_beside_it(
    dataset: Path,
    other_weights: Path,
    evaluated: tuple[Path, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    only = LabelConfig(names=["Nodule", "Cardiomegaly"])
    config = evaluate_config(
        tmp_path / "out", dataset, other_weights, labels=only, compare_with=str(evaluated[0])
    )

    found = evaluate.run(config).metrics["paired_difference"]

    theirs = {label["name"]: label["auroc"] for label in evaluated[1].details["labels"]}
    expected = np.mean([theirs["Nodule"], theirs["Cardiomegaly"]])
    assert found["compared_auroc_mean"] == pytest.approx(expected)
    assert found["labels_counted"] == 2
    said = capsys.readouterr().err
    match = re.search(r"over the 2 labels.*?, ([\d.]+) and ([\d.]+) %: difference ([-+.\d]+)", said)
    ours, others, difference = map(float, match.groups())
    assert difference == pytest.approx(ours - others, abs=0.011)


def test_the_comparison_may_be_asked_for_later(
    dataset: Path, weights: Path, evaluated: tuple[Path, Any], tmp_path: Path
) -> None:
    config = evaluate_config(tmp_path / "out", dataset, weights)
    first = evaluate.run(config)
    before = file_hashes(tmp_path / "out")["predictions.parquet"]

    record = evaluate.run(replace(config, compare_with=str(evaluated[0])))

    assert record.metrics["paired_difference"]["difference"] == 0
    each = record.metrics["paired_difference"]["findings"]
    assert [(one["name"], one["p_holm"]) for one in each] == [(name, 1) for name in FINDINGS]
    assert record.metrics["paired_difference"]["p_value"] == 1
    assert record.metrics["auroc_interval_95"] == first.metrics["auroc_interval_95"]
    assert file_hashes(tmp_path / "out")["predictions.parquet"] == before
    assert record == read_record(tmp_path / "out" / "record.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"splits": ["test"]}, "splits: found None"),
        ({"labels": LabelConfig(blank="ignore")}, "label_policy.blank: found 'zero'"),
        ({"labels": LabelConfig(names=["Hernia"])}, "shares no label"),
        ({"compare_with": "nowhere"}, "no run record here"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_work(
    dataset: Path,
    evaluated: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    said: str,
) -> None:
    weights = make_classifier(tmp_path / "w.safetensors", ["Hernia", *FINDINGS])
    monkeypatch.setattr(classification_scores, "predict", lambda *_: pytest.fail("it went on"))
    config = evaluate_config(tmp_path / "out", dataset, weights, compare_with=str(evaluated[0]))

    with pytest.raises(DatasetError) as refusal:
        evaluate.run(replace(config, **change))

    assert said in str(refusal.value)


def test_a_segmentation_is_no_match_for_a_classifier(
    dataset: Path, weights: Path, tmp_path: Path
) -> None:
    masked = make_packed_dataset(tmp_path)
    segmenter = make_weights(tmp_path / "unet.safetensors")
    evaluate.run(evaluate_config(tmp_path / "segmented", masked, segmenter))
    config = evaluate_config(
        tmp_path / "out", dataset, weights, compare_with=str(tmp_path / "segmented")
    )

    with pytest.raises(DatasetError, match="task: found None, expected 'classification'"):
        evaluate.run(config)


# ------------------------------------------------------------------------ operating points


@pytest.fixture(scope="module")
def validated(
    dataset: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """An evaluation on the training split, which is the largest."""
    output = tmp_path_factory.mktemp("validated") / "train"
    return output, evaluate.run(evaluate_config(output, dataset, weights, splits=["train"]))


def test_thresholds_of_other_images_are_applied_and_may_be_asked_for_later(
    dataset: Path,
    weights: Path,
    validated: tuple[Path, Any],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    config = evaluate_config(tmp_path / "out", dataset, weights, splits=["test"])
    first = evaluate.run(config)
    before = file_hashes(tmp_path / "out")["predictions.parquet"]
    points = OperatingPointConfig(str(validated[0]), sensitivity=[0.8], specificity=[])

    record = evaluate.run(replace(config, operating_points=points))

    assert "by Youden's J, mean over 3 labels: sensitivity " in capfd.readouterr().err
    assert file_hashes(tmp_path / "out")["predictions.parquet"] == before
    assert record.metrics == first.metrics
    found = ClassificationResult.from_record(read_record(tmp_path / "out" / "record.json"))
    chosen, tested = columns(validated[0]), columns(tmp_path / "out")
    assert found.operating_points.validation["splits"] == ["train"]
    assert found.operating_points.validation["images"] == len(chosen["key"])
    for each in found.operating_points.findings:
        assert [point.rule for point in each.points] == ["youden", "sensitivity 0.8"]
        for point in each.points:
            for table, rate in (
                (chosen, point.validation_sensitivity), (tested, point.rates["sensitivity"]),
            ):  # fmt: skip
                answers = np.array(table[f"probability {each.name}"]) >= point.threshold
                shown = np.array(table[f"target {each.name}"]) == 1
                assert rate == pytest.approx(100 * answers[shown].mean())
        assert each.points[1].validation_sensitivity >= 80
    written = read_record(tmp_path / "out" / "record.json")
    assert evaluate.run(replace(config, operating_points=points)) == written  # nothing is to do


def test_thresholds_chosen_on_images_that_were_learnt_from_are_warned_of(
    dataset: Path, weights: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    fingerprint = IndexedShards(dataset).manifest.fingerprint
    learnt = {"dataset": "chest", "fingerprint": fingerprint, "splits": ["train"]}
    path = with_lineage(weights, tmp_path / "w.safetensors", trained_on=learnt)
    evaluate.run(evaluate_config(tmp_path / "train", dataset, path, splits=["train"]))
    config = evaluate_config(tmp_path / "out", dataset, path, splits=["test"])
    points = OperatingPointConfig(str(tmp_path / "train"))
    record = evaluate.run(replace(config, operating_points=points))
    assert record.details["operating_points"]["validation"]["learnt_from"] is True
    told = "warning: thresholds and temperatures were chosen on images that the network learnt from"
    assert told in capfd.readouterr().err


def refused_points(config: Any, folder: Path) -> str:
    with pytest.raises(DatasetError) as refusal:
        evaluate.run(replace(config, operating_points=OperatingPointConfig(str(folder))))
    return str(refusal.value)


def test_thresholds_are_not_chosen_on_what_is_tested_nor_of_another_network(
    dataset: Path,
    weights: Path,
    other_weights: Path,
    validated: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    again = make_chest_dataset(tmp_path, images=80, name="again")
    monkeypatch.setattr(classification_scores, "predict", lambda *_: pytest.fail("it went on"))
    output = tmp_path / "out"
    both = evaluate_config(output, dataset, weights, splits=["train", "test"])
    number = validated[1].counts["images"]
    assert f"shares {number} images with the test set" in refused_points(both, validated[0])
    packed = evaluate_config(output, again, weights)
    assert f"shares {number} images with the test set" in refused_points(packed, validated[0])
    foreign = evaluate_config(output, dataset, other_weights, splits=["test"])
    assert "weights_sha256: differs" in refused_points(foreign, validated[0])
    assert not output.exists()


# -------------------------------------------------------------- settings of the other task


@pytest.mark.parametrize(
    "setting", [{"overlays": 2}, {"teacher_record": "teacher"}, {"surface_distances": True}]
)
def test_settings_of_segmentation_are_refused_for_a_classifier(
    dataset: Path, weights: Path, tmp_path: Path, setting: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(setting))} is for segmentation"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, weights, **setting))


@pytest.mark.parametrize(
    "setting",
    [
        {"labels": LabelConfig()},
        {"compare_with": "other"},
        {"operating_points": OperatingPointConfig("validation")},
    ],
)
def test_settings_of_classification_are_refused_for_a_segmenter(
    tmp_path: Path, setting: dict[str, Any]
) -> None:
    dataset = make_packed_dataset(tmp_path)
    weights = make_weights(tmp_path / "unet.safetensors")

    with pytest.raises(ConfigurationError, match=f"{next(iter(setting))} is for classifiers"):
        evaluate.run(evaluate_config(tmp_path / "out", dataset, weights, **setting))
