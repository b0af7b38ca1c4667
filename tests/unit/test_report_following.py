"""Segmentation students that follow a teacher, and rows that met their test images."""

from pathlib import Path

import pytest

from nakt_dist.report.content import make_document
from nakt_dist.report.markdown import to_markdown
from nakt_dist.report.runs import collect
from nakt_dist.report.tables import main_table
from tests.records import annotations, lineage, pseudo_masks, scores, sha, write_evaluation


def following(name: str = "teacher", split: str = "train", **taken: dict) -> dict:
    """Returns the transfer of a lineage; ``taken`` names what is taken from the teacher."""
    images = annotations("thyroid", split=split)
    teacher = {
        "name": name,
        "weights_sha256": sha(name),
        "model": "unet",
        "trained_on": "thyroid",
        "phantom": True,
        "fingerprint": images["fingerprint"],
        "splits": images["splits"],
    }
    return {"transfer": {"teacher": teacher, "attention": None, "distillation": None, **taken}}


@pytest.mark.parametrize(
    ("taken", "role"),
    [
        ({"attention": {"beta": 1.0}}, "student, attention transfer"),
        ({"distillation": {"weight": 1.0}}, "student, distillation"),
        (
            {"attention": {"beta": 1.0}, "distillation": {"weight": 1.0}},
            "student, attention transfer and distillation",
        ),
    ],
)
def test_a_network_that_follows_a_teacher_is_its_student(tmp_path: Path, taken: dict, role: str):
    write_evaluation(tmp_path / "teacher", lineage(annotations("thyroid")), scores(0.8))
    write_evaluation(tmp_path / "student", lineage(annotations()) | following(**taken), scores(0.7))
    write_evaluation(tmp_path / "scratch", lineage(annotations()), scores(0.6))
    collection = collect([tmp_path])
    roles = {run.name: run.role for run in collection.evaluations}
    assert roles == {"teacher": "teacher", "student": role, "scratch": "from scratch"}
    text = to_markdown(make_document(collection, "Title"))
    assert "from “teacher” of thyroid (phantom)" in text
    assert "reaches 70.00 ± 10.00 %; from scratch on them, 60.00 ± 10.00 % (“scratch”)." in text


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        (lineage(annotations(split="test")), "learnt from annotations of the very splits"),
        (
            lineage(annotations()) | {"validated_on": annotations(split="test")},
            "has its best epoch chosen on the very splits",
        ),
        (
            lineage(annotations("x")) | following(split="test", attention={"beta": 1.0}),
            "followed a teacher that learnt from the very splits",
        ),
    ],
)
def test_a_row_that_met_its_test_images_is_marked(tmp_path: Path, trained: dict, words: str):
    dataset = "thyroid" if "transfer" in trained else "breast"
    write_evaluation(tmp_path / "run", trained, scores(0.7), dataset=dataset)
    table = main_table(collect([tmp_path]).evaluations)
    assert table.rows[0][3].text == "70.00 ± 10.00 ⚠"
    assert any(each.startswith(f"⚠ run: {words}") for each in table.remarks)


def test_splits_apart_raise_no_warning(tmp_path: Path):
    trained = lineage(annotations("x")) | following(attention={"beta": 1.0})
    trained |= {"validated_on": annotations("thyroid", split="validation")}
    write_evaluation(tmp_path / "run", trained, scores(0.7), dataset="thyroid")
    assert main_table(collect([tmp_path]).evaluations).rows[0][3].text == "70.00 ± 10.00"


def test_what_is_bold_is_told(tmp_path: Path):
    write_evaluation(tmp_path / "teacher", lineage(annotations()), scores(0.8))
    write_evaluation(tmp_path / "s", lineage(pseudo_masks("photos", ["teacher"])), scores(0.7))
    table = main_table(collect([tmp_path]).evaluations)
    assert [row[3].strong for row in table.rows] == [False, True]
    assert any("that student, whose Dice is in bold" in each for each in table.remarks)


def test_a_warning_stands_beside_the_number_in_the_brief(tmp_path: Path):
    write_evaluation(tmp_path / "teacher", lineage(annotations(split="test")), scores(0.8))
    write_evaluation(tmp_path / "s", lineage(pseudo_masks("photos", ["teacher"])), scores(0.7))
    (first, *_) = make_document(collect([tmp_path]), "Title").sections[0].blocks[-1].items
    assert first.startswith("Teacher “teacher”, U-Net: Dice 80.00 ± 10.00 %. ⚠ teacher: learnt")
