import pytest

from nakt_dist.records.run_tags import run_tags

TRAINED_ON = {"dataset": "ddti", "fingerprint": "f", "phantom": False, "samples": 350,
              "labels": "annotations", "splits": ["train"]}  # fmt: skip
LINEAGE = {"task": "segmentation", "model": {"name": "unet"}, "seed": 3, "trained_on": TRAINED_ON}
TEACHER = {"name": "teacher", "weights_sha256": "a" * 64, "trained_on": "busi"}
CLASSIFIER = {"task": "classification", "parent": TEACHER | {"lineage": {}}}


@pytest.mark.parametrize(
    ("changes", "method"),
    [
        ({}, "from scratch"),
        ({"parent": TEACHER | {"lineage": {}}}, "fine-tuning"),
        (CLASSIFIER, "transfer learning"),
        ({"trained_on": TRAINED_ON | {"labels": "pseudo masks", "teachers": [TEACHER]}},
         "pseudo masks"),
        (CLASSIFIER | {"trained_on": TRAINED_ON | {"labels": "pseudo-findings",
                                                   "teachers": [TEACHER]}}, "pseudo-findings"),
        (CLASSIFIER | {"transfer": {"teacher": TEACHER, "attention": {"beta": 1000}}},
         "attention transfer"),
    ],
)  # fmt: skip
def test_tags_say_on_what_with_what_and_how(changes, method):
    assert run_tags(LINEAGE | changes, ["mine", "seed:3"]) == (
        "dataset:ddti", "network:unet", f"method:{method}", "images:350", "seed:3", "mine",
    )  # fmt: skip


def test_what_nobody_says_has_no_tag_and_a_long_one_is_cut():
    assert run_tags({}, ["x" * 80]) == ("x" * 64,)
    assert run_tags({"seed": 0}) == ("method:from scratch", "seed:0")
