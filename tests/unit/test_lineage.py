"""What is written into a lineage is what is read from it."""

import json

import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.exporting.card_origin import origin_blocks
from nakt_dist.records.lineage import PSEUDO_FINDINGS, Following, Network, TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.report.document import Bullets
from nakt_dist.signals.kind import Kind
from tests.classifier_records import classifier
from tests.records import annotations, lineage, sha

TEACHER = Network(
    sha("teacher"), "teacher", stored=lineage(annotations("busi", 80)), seen={"mean": 0.5}
)


def test_images_and_who_wrote_their_masks_come_back():
    plain = TrainingSet("thyroid", sha("images"), ("train",), phantom=True, samples=160)
    taught = TrainingSet(
        "thyroid", sha("images"), ("train",), samples=150, teachers=(TEACHER,),
        before_exclusion=160, pseudo_labels_fingerprint=sha("masks"),
    )  # fmt: skip
    for images in (plain, taught):
        stored = images.to_json() | {"splits": ["train"], "exclusion": None}
        found = read_lineage(json.loads(json.dumps(lineage(stored))))
        assert found.trained_on == images
        assert [each.learnt.dataset for each in found.teachers] == ["busi"] * len(images.teachers)
        assert [each.seen for each in found.teachers] == [{"mean": 0.5}] * len(images.teachers)


def test_what_was_taken_from_a_teacher_comes_back():
    taken = {"attention": {"beta": 2, "taps": None}, "distillation": {"weight": 0.5}}
    written = Following(TEACHER, taken, "unet")
    stored = json.loads(json.dumps(written.to_json()))
    assert (stored["teacher"]["model"], stored["teacher"]["trained_on"]) == ("unet", "busi")
    found = read_lineage(lineage(annotations()) | {"transfer": stored}).following
    assert found == written
    assert found is not None and found.kind == Kind(("attention", "distillation"))
    assert found.settings == (
        '{"attention.beta": 2.0, "attention.taps": null, "distillation.weight": 0.5}'
    )
    alone = Following(TEACHER, {"distillation": {}}).to_json()
    assert (alone["attention"], alone["distillation"]) == (None, {})


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (None, "no exclusion"),
        ({"positive": 0.9, "negative": 0.1, "largest_disagreement": None, "targets": "hard"},
         "findings of 0.1 < p < 0.9, others as 0 or 1"),
        ({"positive": None, "negative": None, "largest_disagreement": 0.2, "targets": "soft"},
         "findings of disagreement > 0.2"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("lenient", [False, True])
def test_a_card_says_which_pseudo_findings_were_learnt(rule, told, lenient):
    images = TrainingSet(
        "chexpert", sha("images"), ("train",), samples=350, teachers=(TEACHER,),
        taught=PSEUDO_FINDINGS, before_exclusion=400, pseudo_labels_fingerprint=sha("findings"),
    )  # fmt: skip
    stored = images.to_json() | {"splits": ["train"], "exclusion": None, "confidence": rule}
    found = read_lineage(json.loads(json.dumps(classifier(stored))), lenient=lenient)
    assert found.learnt.taught == PSEUDO_FINDINGS
    (table,) = (each for each in origin_blocks(found) if getattr(each, "title", "")[:6] == "Images")
    row = dict(zip(table.header, (cell.text for cell in table.rows[0]), strict=True))
    assert (row["Images"], row["Exclusion"]) == ("350 of 400", told)


def test_a_card_says_how_a_source_was_read_that_has_labels_of_its_own():
    policy = {"uncertain": {"default": "zero", "Edema": "one"}, "blank": "ignore"}
    images = classifier()["trained_on"]
    (bullets,) = (
        each
        for each in origin_blocks(read_lineage(classifier(images | {"label_policy": policy})))
        if isinstance(each, Bullets)
    )
    told = "uncertain labels as zero, of Edema as one; blank labels ignored"
    assert f"Label policy of the images of chexpert (phantom): {told}." in bullets.items


def test_a_rule_of_confidence_that_cannot_be_is_refused():
    stored = classifier()["trained_on"] | {"labels": PSEUDO_FINDINGS, "confidence": {"positive": 2}}
    with pytest.raises(
        DatasetError, match=r"field .confidence. is .*confidence.positive must be in \[0, 1\]"
    ):
        read_lineage(classifier(stored), lenient=True)
