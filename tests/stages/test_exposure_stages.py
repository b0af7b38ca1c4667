"""That test images were met is said on the console, in the record and on the page alike."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nakt_dist.config import StudyConfig
from nakt_dist.report.content import make_document
from nakt_dist.report.markdown import to_markdown
from nakt_dist.report.runs import collect
from nakt_dist.shards.pictures import PicturesMet, read_pictures, write_pictures
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import evaluate, teach, train
from nakt_dist.stages.study import read_study
from tests.datasets import make_packed_dataset, make_weights
from tests.recipes import evaluate_config, teach_config, train_config

ONE_STEP = {"steps": 1, "global_batch_size": 2}
NOWHERE = {"training": False, "validation": False, "parents": False, "teacher": False}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("dataset"))


def learnt(dataset: Path, split: str, parent: dict[str, Any] | None = None) -> dict[str, Any]:
    """Returns the lineage of a network that learnt from a split."""
    manifest = IndexedShards(dataset).manifest
    trained_on = {
        "dataset": manifest.dataset, "fingerprint": manifest.fingerprint, "phantom": False,
        "samples": 6, "splits": [split], "labels": "annotations",
    }  # fmt: skip
    start = parent and {"name": "start", "weights_sha256": "0", "lineage": parent}
    return {"trained_on": trained_on, "parent": start}


def is_told(dataset: Path, weights: Path, output: Path, console: pytest.CaptureFixture) -> dict:
    """Tests a network; returns the roles of the record, after a look at console and page."""
    capture = console.readouterr
    capture()
    record = evaluate.run(evaluate_config(output, dataset, weights, splits=["test"]))
    told = record.details["met_test_images"]
    page = to_markdown(make_document(collect([output]), "Title"))
    is_met = True in told.values()
    assert ("images that it is tested on" in capture().err) == ("⚠" in page) == is_met
    return told


def test_a_tainted_grandparent_is_told_everywhere(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, met in (("test", True), ("train", False)):
        lineage = learnt(dataset, "train", learnt(dataset, "train", learnt(dataset, split)))
        weights = make_weights(tmp_path / f"{split}.safetensors", lineage=json.dumps(lineage))
        told = is_told(dataset, weights, tmp_path / split, capsys)
        assert told == NOWHERE | {"parents": met}


def test_what_a_parent_met_stays_known_where_its_weights_were_moved_before_a_run_goes_on(
    dataset: Path, tmp_path: Path
) -> None:
    weights = make_weights(tmp_path / "parent.safetensors", lineage=json.dumps({}))
    write_pictures(tmp_path, PicturesMet({"training": np.array([3, 5])}))
    config = train_config(tmp_path / "out", dataset, ONE_STEP, model=None, init=str(weights))
    train.run(config)
    (tmp_path / "elsewhere").mkdir()
    moved = weights.rename(tmp_path / "elsewhere" / "parent.safetensors")
    longer = replace(config.recipe, steps=2)
    train.run(replace(config, recipe=longer, init=str(moved)))
    met = read_pictures(tmp_path / "out" / "best.safetensors")
    assert met.numbers["parents"].tolist() == [3, 5] and not met.unknown


def test_what_the_first_teacher_met_is_told_of_the_student_of_the_third_round(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transferal = make_packed_dataset(tmp_path, name="others", seed=1, splits={"train": 1.0})
    for split in ("train", "test"):
        lineage = json.dumps(learnt(dataset, split))
        (tmp_path / split).mkdir()
        make_weights(tmp_path / split / "teacher.safetensors", lineage=lineage)
    path = "${root}/${first}/"
    axes = {
        "rounds": {
            "count": 3, "first": f"{path}teacher.safetensors", "next": f"{path}student-${{round}}",
        },
        "matrix": {"first": ["train", "test"]},
    }  # fmt: skip
    teach_step = {
        "dataset": str(transferal), "output": f"{path}pseudo-${{round}}", "threads": 1,
        "teachers": [{"weights": "${previous}"}], "device": "cpu",
    }  # fmt: skip
    train_step = {
        "output": f"{path}student-${{round}}", "device": "cpu", "threads": 1, "seed": "${round}",
        "data": [
            {"dataset": str(dataset)},
            {"dataset": str(transferal), "pseudo_labels": f"{path}pseudo-${{round}}"},
        ],
        "model": {"name": "unet", "options": {"base_channels": 4, "dropout": 0.5}},
        "recipe": {"steps": 1, "global_batch_size": 2},
    }  # fmt: skip
    steps = [
        {"stage": "teach", **axes, "config": teach_step},
        {"stage": "train", **axes, "config": train_step},
    ]
    for run in read_study(StudyConfig(steps=steps, root=str(tmp_path))).runs:
        {"teach": teach, "train": train}[run.planned.stage].run(run.config)
    # Pseudo-labels hold no pictures, so that another packing may hold those of the test set.
    for split, met in (("test", True), ("train", None)):
        student = tmp_path / split / "student-3"
        told = is_told(dataset, student, tmp_path / f"test-{split}", capsys)
        assert told == NOWHERE | {"teacher": met}


def test_one_tainted_teacher_of_several_is_told_everywhere(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the student of their pseudo masks, and of the student that follows that student."""
    for split, met in (("test", True), ("train", False)):
        folder = tmp_path / split
        folder.mkdir()
        teachers = [
            make_weights(folder / f"{n}.safetensors", seed=n, lineage=json.dumps(lineage))
            for n, lineage in enumerate((learnt(dataset, "train"), learnt(dataset, split)))
        ]
        teach.run(teach_config(folder / "pseudo", dataset, *teachers))
        data = {"splits": ["train"], "pseudo_labels": str(folder / "pseudo")}
        train.run(train_config(folder / "student", dataset, ONE_STEP, data))
        teach.run(teach_config(folder / "again", dataset, folder / "student"))
        data["pseudo_labels"] = str(folder / "again")
        train.run(train_config(folder / "second", dataset, ONE_STEP, data))
        for student in ("student", "second"):
            told = is_told(dataset, folder / student, folder / f"test-{student}", capsys)
            assert told == NOWHERE | {"teacher": met}
