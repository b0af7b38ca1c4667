"""Whether a network has met its test images, and how it read labels: from its lineage."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
from torch import nn

from nakt_dist.config import PreprocessingConfig
from nakt_dist.errors import CheckpointError
from nakt_dist.evaluation.origin import (
    Meeting,
    describe_meetings,
    describe_unknown,
    meetings,
    other_policy,
    task_of,
)
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.spec import ModelSpec
from nakt_dist.report.classifier_runs import FindingSet, meeting
from nakt_dist.report.training_sets import TrainingSet
from nakt_dist.shards.pictures import NOTHING_KEPT, PicturesMet, read_pictures, write_pictures

TESTED = np.array([3, 5, 8])
"""Numbers of the test set's pictures."""

POLICY = {"uncertain": "zero", "blank": "zero"}


def trained(lineage, name="densenet40"):
    spec = ModelSpec(name)
    return TrainedNetwork(
        "net", nn.Identity(), spec, PreprocessingConfig(mean=0.0, std=1.0), lineage, "s"
    )


def images(dataset="chest", fingerprint="f", splits=("train",)):
    return {
        "dataset": dataset,
        "fingerprint": fingerprint,
        "splits": None if splits is None else list(splits),
    }


def found(lineage, splits=("test",)):
    result = meetings(
        trained(lineage), "chest", "f", splits and list(splits), TESTED, PicturesMet({})
    )
    return {kind: each.as_stored for kind, each in result.items()}


def met_by_pictures(lineage, **numbers):
    met = PicturesMet({role: np.array(each) for role, each in numbers.items()})
    result = meetings(trained(lineage), "chest", "f", ["test"], TESTED, met)
    return {kind: each.as_stored for kind, each in result.items()}


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
    result = meetings(
        trained({"trained_on": images(splits=None)}),
        "chest",
        "f",
        ["test"],
        TESTED,
        PicturesMet({}),
    )
    counts = dict.fromkeys(NOTHING)
    (sentence,) = describe_meetings(result, "net", "chest, split test", counts, 60)
    assert sentence == (
        "'net' learnt from images that it is tested on (chest, split test): the result is too high"
    )
    counts["training"] = 31
    (counted,) = describe_meetings(result, "net", "chest, split test", counts, 60)
    assert counted == f"{sentence}; they are 31 of its 60 images"
    net = trained({"trained_on": images(fingerprint="g")})
    result = meetings(net, "chest", "f", ["test"], TESTED, PicturesMet({}))
    (sentence,) = describe_meetings(result, "net", "chest, split test", counts, 60)
    assert "patients may be shared" in sentence
    unknown = meetings(trained({}), "chest", "f", None, TESTED, PicturesMet({}))
    assert describe_meetings(unknown, "net", "chest", counts, 60) == []


def without_pictures(lineage, met=NOTHING_KEPT):
    """Returns what is found, and what is said of it, where pictures are not known."""
    net = trained(lineage)
    result = meetings(net, "chest", "f", ["test"], TESTED, met)
    said = describe_unknown(net, "f", result, met)
    return {role: each.as_stored for role, each in result.items()}, said


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
    assert met.count(index) == counts
    assert met.count(index[2:]) == counts | {"parents": None}
    assert NOTHING_KEPT.count(index) == dict.fromkeys(counts)


def test_the_report_comes_to_the_same():
    choices = itertools.product(
        ("chest", "else"), ("f", "g"), (("train",), ("train", "test"), None), (("test",), None)
    )
    said: dict[Meeting, set[str | None]] = {}
    for dataset, fingerprint, splits, tested in choices:
        learnt = TrainingSet(dataset, fingerprint, False, splits, 10)
        theirs = FindingSet("chest", "f", tested, False, 32, 32, ("Edema",), "{}")
        lineage = {"trained_on": images(dataset, fingerprint, splits)}
        ours = meetings(trained(lineage), "chest", "f", tested, TESTED, PicturesMet({}))["training"]
        said.setdefault(ours, set()).add(meeting(learnt, theirs))
    assert said.keys() == {Meeting.MET, Meeting.SAME_NAME, Meeting.APART}
    assert said[Meeting.APART] == {None}
    assert len(said[Meeting.MET] | said[Meeting.SAME_NAME]) == 2


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
    with pytest.raises(CheckpointError, match="as label_policy"):
        other_policy(trained({"label_policy": "zero"}), POLICY)


def test_the_task_is_the_architectures():
    assert task_of(trained({})) == task_of(trained({"task": "classification"})) == "classification"
    assert task_of(trained({}, "unet")) == "segmentation"
    with pytest.raises(CheckpointError, match="the task is 'segmentation', but the network dense"):
        task_of(trained({"task": "segmentation"}))
    for task in ("classification", ["x"], 5):
        with pytest.raises(CheckpointError, match="the network unet is one of segmentation"):
            task_of(trained({"task": task}, "unet"))
