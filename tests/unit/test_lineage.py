"""What is written into a lineage is what is read from it."""

import json

from nakt_dist.records.lineage import Following, Network, TrainingSet
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.signals.kind import Kind
from tests.records import annotations, lineage, sha

TEACHER = Network(sha("teacher"), "teacher", stored=lineage(annotations("busi", 80)))


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
