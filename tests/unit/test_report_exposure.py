"""A page says of each network how it has met its test images, over any number of generations."""

import json
from pathlib import Path
from typing import Any

import pytest

from nakt_dist.records.exposure import describe_exposure
from nakt_dist.report.content import make_document
from nakt_dist.report.markdown import to_markdown
from nakt_dist.report.runs import collect
from nakt_dist.runtime.files import value_sha256
from nakt_dist.shards.pictures import ROLES
from tests.classifier_records import classifier, followed, images_of, write_classified
from tests.records import annotations, lineage, pseudo_masks, scores, write_evaluation

pytestmark = pytest.mark.usefixtures("undrawn")

TESTED = annotations(split="test")


def weights_of(of: dict[str, Any]) -> str:
    """Returns other weights for each lineage."""
    return value_sha256(of)


def child(of: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Returns the lineage of a network that went on from another on other images."""
    return lineage(annotations("thyroid"), "parent", of) | more


def follower(of: dict[str, Any]) -> dict[str, Any]:
    transfer = followed("teacher", "thyroid")
    transfer["teacher"] |= {"weights_sha256": weights_of(of), "lineage": of}
    return lineage(annotations("thyroid")) | {"transfer": transfer}


def student(*of: dict[str, Any]) -> dict[str, Any]:
    """Returns the lineage of a student of several teachers that wrote pseudo masks."""
    masks = pseudo_masks("photographs", ["teacher" for _ in of])
    for teacher, its_lineage in zip(masks["teachers"], of, strict=True):
        teacher |= {"weights_sha256": weights_of(its_lineage), "lineage": its_lineage}
    return lineage(masks)


CHAINS = {
    "grandparent": (
        lambda first: child(child(first)),
        "started from weights that learnt from annotations of the very splits it was tested on: "
        "its Dice is too high",
    ),
    "teacher's parent": (
        lambda first: follower(child(first)),
        "followed a teacher that learnt from the very splits it was tested on: Dice may be too",
    ),
    "ensemble": (
        lambda first: student(lineage(annotations("thyroid")), first),
        "followed a teacher that learnt from the very splits it was tested on: Dice may be too",
    ),
    "student of a student": (
        lambda first: student(student(first)),
        "followed a teacher that learnt from the very splits it was tested on: Dice may be too",
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_segmentation_network_is_warned_of(tmp_path: Path, chain: str):
    make, words = CHAINS[chain]
    write_evaluation(tmp_path / "clean", make(lineage(annotations())), scores(0.6))
    write_evaluation(tmp_path / "tainted", make(lineage(TESTED)), scores(0.7))
    page = to_markdown(make_document(collect([tmp_path]), "Title"))
    assert "70.00 ± 10.00 ⚠" in page and "60.00 ± 10.00 ⚠" not in page
    assert f"⚠ tainted: {words}" in page and "⚠ clean" not in page


CHOSEN = {
    "parent's validation": (child, "started from weights whose best epoch was chosen on"),
    "grandparent's validation": (
        lambda first: child(child(first)),
        "started from weights whose best epoch was chosen on",
    ),
    "teacher's validation": (follower, "followed a teacher whose best epoch was chosen on"),
    "teacher's parent's validation": (
        lambda first: student(child(first)),
        "followed a teacher whose best epoch was chosen on",
    ),
}


@pytest.mark.parametrize("chain", CHOSEN)
def test_a_best_epoch_chosen_on_the_test_split_is_told_over_generations(tmp_path: Path, chain: str):
    make, how = CHOSEN[chain]
    for name, validated in (("clean", annotations(split="validation")), ("tainted", TESTED)):
        write_evaluation(
            tmp_path / name, make(lineage(annotations()) | {"validated_on": validated}), scores(0.7)
        )
    page = to_markdown(make_document(collect([tmp_path]), "Title"))
    assert f"⚠ tainted: {how} the very splits it was tested on: Dice may be too high" in page
    assert "⚠ clean" not in page
    runs = {run.name: run for run in collect([tmp_path]).evaluations}
    counts = dict.fromkeys(ROLES, 0)
    (said,) = describe_exposure(runs["tainted"].exposure, "net", "the test set", counts, 8)
    assert said.startswith(f"'net' {how} images that it is tested on (the test set)")
    assert said.endswith("the result may be too high")
    assert not describe_exposure(runs["clean"].exposure, "net", "the test set", counts, 8)


@pytest.mark.parametrize("met", [None, False])
def test_what_a_record_calls_unknown_is_unknown_on_the_page(tmp_path: Path, met: bool | None):
    elsewhere = annotations("elsewhere")
    write_evaluation(tmp_path / "run", follower(lineage(elsewhere)), scores(0.7))
    path = tmp_path / "run" / "record.json"
    record = json.loads(path.read_text())
    record["details"]["met_test_images"] = dict.fromkeys(ROLES, False) | {"teacher": met}
    path.write_text(json.dumps(record))
    page = to_markdown(make_document(collect([tmp_path]), "Title"))
    said = "themselves or through parents or teachers, is not known: run (teacher)."
    assert (said in page) == (met is None)


def test_a_run_unknown_on_one_test_set_and_clear_on_another_stays_named(tmp_path: Path):
    of = follower(lineage(annotations("elsewhere")))
    for dataset, met in (("breast", None), ("other", False)):
        write_evaluation(tmp_path / dataset / "run", of, scores(0.7), dataset=dataset)
        path = tmp_path / dataset / "run" / "record.json"
        record = json.loads(path.read_text())
        record["details"]["met_test_images"] = dict.fromkeys(ROLES, False) | {"teacher": met}
        path.write_text(json.dumps(record))
    page = to_markdown(make_document(collect([tmp_path]), "Title"))
    assert "is not known: run (teacher)." in page


@pytest.mark.parametrize("known", ["lineage", "records"])
def test_what_only_another_record_tells_of_a_teacher_counts(tmp_path: Path, known: str):
    """Older lineages name the teachers that wrote pseudo masks by their weights alone."""
    masks = pseudo_masks("photographs", ["teacher"])
    write_evaluation(tmp_path / "student", lineage(masks), scores(0.6))
    if known == "records":
        write_evaluation(tmp_path / "teacher", lineage(TESTED), scores(0.7))
    runs = {run.name: run for run in collect([tmp_path]).evaluations}
    seen = runs["student"].warning
    assert (seen or "").startswith("followed a teacher that learnt") == (known == "records")


def start_of(of: dict[str, Any]) -> dict[str, Any]:
    return {"name": "start", "weights_sha256": weights_of(of), "lineage": of}


def taught_by(of: dict[str, Any]) -> dict[str, Any]:
    transfer = followed("t", "mimic")
    transfer["teacher"] |= start_of(of)
    return classifier(images_of("mimic"), transfer=transfer)


def continued(of: dict[str, Any]) -> dict[str, Any]:
    return classifier(images_of("mimic"), parent=start_of(of))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda first: continued(continued(first)), "started from weights that learnt from"),
        (lambda first: taught_by(continued(first)), "followed a teacher that learnt from"),
        (lambda first: taught_by(taught_by(first)), "followed a teacher that learnt from"),
        (lambda first: continued(taught_by(first)), "followed a teacher that learnt from"),
    ],
    ids=["grandparent", "teacher's parent", "student of a student", "parent's teacher"],
)
def test_a_classifier_is_warned_of(tmp_path: Path, make, words: str):
    write_classified(tmp_path / "clean", make(classifier(images_of())))
    tainted = make(classifier(images_of(split="test"))) | {"seed": 1}
    write_classified(tmp_path / "tainted", tainted)
    runs = {run.name: run for run in collect([tmp_path]).classified}
    assert runs["clean"].warnings == ()
    (warning,) = runs["tainted"].warnings
    assert warning.startswith(f"{words} the very splits it was tested on: ")
    page = to_markdown(make_document(collect([tmp_path]), "Title"))
    assert "the very splits" in page and "⚠" in page
