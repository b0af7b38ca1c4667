"""Whether a network has met its test images, and how it read labels: from its lineage."""

import itertools
import json

import numpy as np
import pyarrow as pa
import pytest
from torch import nn

from nakt_dist.config import PreprocessingConfig
from nakt_dist.errors import CheckpointError
from nakt_dist.evaluation.network_lineage import lineage_of, other_policy, task_of
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.preprocessing import NetworkInput
from nakt_dist.models.spec import ModelSpec
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import (
    Exposure,
    describe_exposure,
    describe_unknown,
    judge,
    warn,
)
from nakt_dist.records.told_once import told_once
from nakt_dist.shards.pictures import NOTHING_KEPT, PicturesMet, read_pictures, write_pictures

TESTED = np.array([3, 5, 8])
"""Numbers of the test set's pictures."""

POLICY = {"uncertain": "zero", "blank": "zero"}


def trained(lineage, name="densenet40"):
    spec = ModelSpec(name)
    return TrainedNetwork(
        "net",
        nn.Identity(),
        spec,
        NetworkInput(PreprocessingConfig(mean=0.0, std=1.0)),
        lineage,
        "s",
    )


def images(dataset="chest", fingerprint="f", splits=("train",)):
    return {
        "dataset": dataset,
        "fingerprint": fingerprint,
        "splits": None if splits is None else list(splits),
    }


def set_tested(splits):
    return EvaluationSet("chest", "f", splits and tuple(splits), False, 32, 32)


def judged(lineage, splits=("test",), met=None):
    """Judges a network as ``nakt evaluate`` does, by the pictures that it is known to have met."""
    met = met or PicturesMet({})
    index = pa.table({"pixels": TESTED})
    tested = set_tested(splits)
    return judge(lineage_of(trained(lineage)), tested, met.roles_with(index["pixels"]), met.unknown)


def stored(verdicts):
    return {role: each.exposure.as_stored for role, each in verdicts.items()}


def found(lineage, splits=("test",)):
    return stored(judged(lineage, splits))


def met_by_pictures(lineage, **numbers):
    met = PicturesMet({role: np.array(each) for role, each in numbers.items()})
    return stored(judged(lineage, met=met))


def test_the_same_pictures_are_met_under_any_name_size_and_fit():
    other = {"trained_on": images("elsewhere", "g")}
    assert met_by_pictures(other, training=[1, 2], teacher=[], parents=[4]) == NOTHING
    for role in NOTHING:
        assert met_by_pictures(other, **{role: [1, 5]}) == NOTHING | {role: True}


NOTHING = {"training": False, "validation": False, "parents": False, "teacher": False}


@pytest.mark.parametrize(
    ("splits", "tested", "met"),
    [
        (("train",), ("test",), False),
        (("train", "test"), ("test",), True),
        (None, ("test",), True),
        (("train",), None, True),
        (None, None, True),
    ],
)
def test_equal_packings_meet_where_their_splits_overlap(splits, tested, met):
    assert found({"trained_on": images(splits=splits)}, tested) == NOTHING | {"training": met}
    chosen = {"trained_on": images("else", "g"), "validated_on": images(splits=splits)}
    assert found(chosen, tested) == NOTHING | {"validation": met}


def test_all_ways_to_meet_are_told_apart():
    apart, met = images("else", "g"), images(splits=None)
    grandparent = {"lineage": {"trained_on": met, "parent": None}}
    parent = {"lineage": {"trained_on": apart, "parent": grandparent}}
    assert found({"trained_on": apart, "parent": parent}) == NOTHING | {"parents": True}
    teacher = {"trained_on": "chest", "fingerprint": "f", "splits": ["test"]}
    followed = {"trained_on": apart, "transfer": {"teacher": teacher}}
    assert found(followed) == NOTHING | {"teacher": True}
    started = {"trained_on": apart, "parent": {"lineage": followed}}
    assert found(started) == NOTHING | {"teacher": True}


def test_what_the_lineage_cannot_tell_is_neither_true_nor_false():
    assert found({}) == dict.fromkeys(NOTHING)
    other_packing = {"trained_on": images(fingerprint="g")}
    assert found(other_packing) == NOTHING | {"training": None}
    by_name = {"trained_on": images(), "transfer": {"teacher": {"trained_on": "chest"}}}
    assert found(by_name) == NOTHING | {"teacher": None}
    foreign = {"trained_on": images(), "parent": {"name": "imagenet", "lineage": {}}}
    assert found(foreign) == NOTHING | {"parents": None, "teacher": None}


def test_it_is_said_in_words():
    result = judged({"trained_on": images(splits=None)})
    counts = dict.fromkeys(NOTHING)
    (sentence,) = describe_exposure(result, "net", "chest, split test", counts, 60)
    assert sentence == (
        "'net' learnt from images that it is tested on (chest, split test): the result is too high"
    )
    counts["training"] = 31
    (counted,) = describe_exposure(result, "net", "chest, split test", counts, 60)
    assert counted == f"{sentence}; they are 31 of its 60 images"
    result = judged({"trained_on": images(fingerprint="g")})
    (sentence,) = describe_exposure(result, "net", "chest, split test", counts, 60)
    assert "patients may be shared" in sentence
    assert describe_exposure(judged({}, None), "net", "chest", counts, 60) == []


def without_pictures(lineage, met=NOTHING_KEPT):
    """Returns what is found, and what is said of it, where pictures are not known."""
    result = judged(lineage, met=met)
    return stored(result), describe_unknown(lineage_of(trained(lineage)), "f", result, met)


def test_without_pictures_another_packing_is_unknown_as_far_as_it_exists():
    other = images("elsewhere", "g")
    line = [
        "pictures.parquet is not beside the weights: whether test images were met in another "
        "packing cannot be known"
    ]
    teacher = {"teacher": {"trained_on": "elsewhere", "fingerprint": "g", "splits": ["train"]}}
    parent = {"lineage": {"trained_on": other, "parent": None}}
    assert without_pictures({"trained_on": other}) == (NOTHING | {"training": None}, line)
    for role, more in (
        ("validation", {"validated_on": other}),
        ("parents", {"parent": parent}),
        ("teacher", {"transfer": teacher}),
    ):
        found = without_pictures({"trained_on": images(), **more})
        assert found == (NOTHING | {role: None}, line)
    whole = {"trained_on": other, "validated_on": other, "parent": parent, "transfer": teacher}
    assert without_pictures(whole) == (dict.fromkeys(NOTHING), line)


def test_what_the_lineage_decides_or_nobody_says_needs_no_pictures():
    assert without_pictures({"trained_on": images()}) == (NOTHING, [])
    met = {"trained_on": images(splits=["test"])}
    assert without_pictures(met) == (NOTHING | {"training": True}, [])
    assert without_pictures({}) == (dict.fromkeys(NOTHING), [])
    foreign = {"trained_on": images(), "parent": {"name": "imagenet", "lineage": {}}}
    assert without_pictures(foreign)[1] == []


def test_what_a_parent_s_lost_pictures_leave_unknown_is_remembered(tmp_path):
    numbers = {"training": np.array([1]), "parents": np.array([3]), "teacher": np.array([], int)}
    write_pictures(tmp_path, PicturesMet(numbers, frozenset({"parents"})))
    met = read_pictures(tmp_path / "best.safetensors")
    assert met.unknown == {"parents"} and met.are_kept
    assert {role: each.tolist() for role, each in met.numbers.items()} == {
        "training": [1], "parents": [3],
    }  # fmt: skip
    other = images("elsewhere", "g")
    child = {"trained_on": other, "parent": {"lineage": {"trained_on": other, "parent": None}}}
    found, said = without_pictures(child, PicturesMet({}, met.unknown))
    assert found == NOTHING | {"parents": None}
    assert said == [
        "pictures.parquet does not hold all that its parents met: whether test images were met "
        "in another packing cannot be known"
    ]
    assert without_pictures(child, met) == (NOTHING | {"parents": True}, [])
    index = pa.table({"pixels": pa.array([3, 3, 5, None], pa.int64())})
    counts = {"training": 0, "validation": 0, "parents": 2, "teacher": 0}
    assert met.count(index["pixels"]) == counts
    assert met.count(index["pixels"][2:]) == counts | {"parents": None}
    assert NOTHING_KEPT.count(index["pixels"]) == dict.fromkeys(counts)


def test_the_page_warns_of_what_the_console_warns_of():
    choices = itertools.product(
        ("chest", "else"), ("f", "g"), (("train",), ("train", "test"), None), (("test",), None)
    )
    said: dict[Exposure, set[tuple[str, ...]]] = {}
    for dataset, fingerprint, splits, tested in choices:
        verdicts = judged({"trained_on": images(dataset, fingerprint, splits)}, tested)
        said.setdefault(verdicts["training"].exposure, set()).add(warn(verdicts, "AUROC"))
    assert said.keys() == {Exposure.SAME_SPLITS, Exposure.OTHER_PACKING, Exposure.APART}
    assert said[Exposure.APART] == {()}
    assert len(said[Exposure.SAME_SPLITS] | said[Exposure.OTHER_PACKING]) == 2


CLEAN, TAINTED = {"trained_on": images()}, {"trained_on": images(splits=["train", "test"])}


def of_weights(lineage):
    """Returns a lineage with what tells its weights from others."""
    return {"weights_sha256": json.dumps(lineage), "lineage": lineage}


def child(lineage):
    return CLEAN | {"parent": of_weights(lineage)}


def follower(lineage):
    said = {"trained_on": lineage["trained_on"]["dataset"], "fingerprint": "f", "splits": ["train"]}
    return CLEAN | {"transfer": {"teacher": said | of_weights(lineage)}}


def student(*lineages):
    masks = images("transferal", "g", None) | {"labels": "pseudo masks"}
    return {"trained_on": masks | {"teachers": [of_weights(each) for each in lineages]}}


@pytest.mark.parametrize(
    ("role", "lineage"),
    [
        ("parents", lambda tainted: child(child(tainted))),
        ("parents", lambda tainted: child(child(child(child(tainted))))),
        ("teacher", lambda tainted: follower(child(tainted))),
        ("teacher", lambda tainted: follower(follower(tainted))),
        ("teacher", lambda tainted: follower(CLEAN | {"validated_on": tainted["trained_on"]})),
        ("teacher", lambda tainted: student(CLEAN, tainted, CLEAN)),
        ("teacher", lambda tainted: student(student(tainted))),
        ("teacher", lambda tainted: child(student(CLEAN, child(tainted)))),
        ("teacher", lambda tainted: student(child(follower(tainted)))),
    ],
)
def test_exposure_is_found_over_any_number_of_generations(role, lineage):
    assert found(lineage(TAINTED)) == NOTHING | {role: True}
    assert found(lineage(CLEAN)) == NOTHING


def of_round(first, number):
    """Returns the lineage of a student of annotated and pseudo-labelled images, as it is stored."""
    lineage = first
    for each in range(number):
        teachers = [{"weights_sha256": f"{each}", "lineage": lineage}]
        masks = images("transferal", "g", None) | {"labels": "pseudo masks", "teachers": teachers}
        lineage = {
            "trained_on": {**masks, "sources": [images(), masks]},
            "parent": teachers[0],
        }
        lineage = told_once(json.loads(json.dumps(lineage)))
    return lineage


def test_a_leak_is_found_through_fifty_rounds():
    """And a round adds no more to what is stored than the one before."""
    for first, met in ((TAINTED, True), (CLEAN, False)):
        assert found(of_round(first, 50)) == NOTHING | {"teacher": met, "parents": met}
    lengths = [len(json.dumps(of_round(CLEAN, number))) for number in (10, 20, 50)]
    assert lengths[2] - lengths[1] < 3.5 * (lengths[1] - lengths[0])


def test_a_lineage_told_once_says_what_it_says_told_again():
    twice = child(student(follower(TAINTED), child(follower(TAINTED)), follower(TAINTED)))
    once = told_once(twice)
    assert len(json.dumps(once)) < len(json.dumps(twice))
    assert told_once(once) == once
    for splits in (["test"], ["validation"]):
        assert judged(once, splits) == judged(twice, splits)


def test_a_lineage_that_is_damaged_to_be_its_own_teacher_is_read():
    itself = {"weights_sha256": "a", "lineage": {}}
    lineage = {"trained_on": images() | {"teachers": [itself]}}
    assert found(lineage | {"parent": {"weights_sha256": "a", "lineage": lineage}})


def test_a_student_of_unknown_teachers_is_not_called_clean():
    assert found(student({})) == NOTHING | {"teacher": None}
    assert found(student(CLEAN, student({}))) == NOTHING | {"teacher": None}


def test_lineages_that_others_tell_fill_in_those_of_teachers():
    net = lineage_of(trained(student({})))
    for lineage, exposure in ((TAINTED, Exposure.SAME_SPLITS), (CLEAN, Exposure.APART)):
        known = {"{}": lineage_of(trained(child(lineage)))}
        verdicts = judge(net, set_tested(["test"]), known=known)
        assert verdicts["teacher"].exposure is exposure
    itself = {"{}": net}
    verdicts = judge(net, set_tested(["test"]), known=itself)
    assert verdicts["teacher"].exposure is Exposure.APART


def test_the_gravest_is_said_on_a_page_and_what_teachers_met():
    annotated = images(splits=["test"])
    masks = annotated | {"labels": "pseudo masks", "teachers": [of_weights(CLEAN)]}
    told = {"trained_on": masks, "parent": {"lineage": {"trained_on": annotated}}}
    assert warn(judged(told), "Dice", "annotations of ") == (
        "started from weights that learnt from annotations of the very splits it was tested on: "
        "its Dice is too high",
    )
    assert warn(judged({"trained_on": masks} | {"validated_on": annotated}), "Dice") == (
        "has its best epoch chosen on the very splits it was tested on: its Dice is too high",
    )
    assert warn(judged(TAINTED | {"transfer": student(TAINTED)}), "Dice") == (
        "learnt from the very splits it was tested on: its Dice is too high",
    )
    assert warn(judged(follower(TAINTED) | TAINTED), "Dice")[1:] == (
        "followed a teacher that learnt from the very splits it was tested on: Dice may be too "
        "high",
    )


@pytest.mark.parametrize(
    "lineage",
    [
        {"trained_on": 5},
        {"trained_on": {"dataset": 5}},
        {"trained_on": images() | {"splits": "test"}},
        {"trained_on": images() | {"splits": [1]}},
        {"trained_on": images(), "validated_on": []},
        {"parent": "p"},
        {"parent": {"lineage": [1]}},
        {"transfer": "x"},
        {"transfer": {"teacher": {"fingerprint": ["f"]}}},
    ],
)
def test_a_damaged_lineage_is_named(lineage):
    with pytest.raises(CheckpointError, match="the weights of 'net': their lineage has"):
        found(lineage)


def test_another_policy_is_found():
    same = {"label_policy": POLICY}
    assert other_policy(trained(same), POLICY) is None
    assert other_policy(trained({}), POLICY) is None
    other = {"label_policy": {"uncertain": "one", "blank": "zero"}}
    assert other_policy(trained(other), POLICY) == {
        "trained": {"uncertain": "one", "blank": "zero"},
        "tested": POLICY,
    }
    by_finding = {"uncertain": {"default": "one", "Edema": "zero"}, "blank": "zero"}
    assert other_policy(trained({"label_policy": by_finding}), POLICY, ["Edema"]) is None
    assert other_policy(trained({"label_policy": by_finding}), POLICY, ["Edema", "Mass"])
    mixed = {"label_policy": POLICY, "trained_on": {"sources": [{}, other]}}
    assert other_policy(trained(mixed), POLICY) == other_policy(trained(other), POLICY)
    mixed["trained_on"]["sources"] = [other, {"labels": "no labels"}]
    assert other_policy(trained(mixed), other["label_policy"]) is None
    alone = {"label_policy": POLICY, "trained_on": other}  # one source, with labels of its own
    assert other_policy(trained(alone), POLICY) == other_policy(trained(other), POLICY)
    for damaged in ({"label_policy": "zero"}, {"trained_on": {"sources": ["label_policy"]}}):
        with pytest.raises(CheckpointError, match=r"as (source\.)?label_policy"):
            other_policy(trained(damaged), POLICY)


def test_the_task_is_the_architectures():
    assert task_of(trained({})) == task_of(trained({"task": "classification"})) == "classification"
    assert task_of(trained({}, "unet")) == "segmentation"
    with pytest.raises(CheckpointError, match="the task is 'segmentation', but the network dense"):
        task_of(trained({"task": "segmentation"}))
    for task in ("classification", ["x"], 5):
        with pytest.raises(CheckpointError, match="the network unet is one of segmentation"):
            task_of(trained({"task": task}, "unet"))
