"""Runs that are alike but for their fold or seed become one row of the report."""

import json
import shutil

import numpy as np
import pytest

from nakt_dist.report.content import make_document
from nakt_dist.report.markdown import to_markdown
from nakt_dist.report.pooled import pool
from nakt_dist.report.pooled_tables import pairs, pooled_differences, pooled_table
from nakt_dist.report.runs import collect
from tests.records import (
    RULE,
    annotations,
    lineage,
    pseudo_masks,
    scores,
    sha,
    write_evaluation,
    write_pseudo_set,
    write_training,
)

FOLDS = (1, 2, 3)


def found_rule(beta):
    found = {"percentile": 75, "splits": ["validation"], "pseudo_labels": None}
    return {**RULE, "beta": beta, "calibration": found}


def write_run(root, name, trained, dice, fold, network="unet", epochs=6, dataset="breast"):
    where = {"splits": (f"part-{fold}",), "first_key": 8 * fold, "dataset": dataset}
    write_training(root / "runs" / name, trained, epochs=epochs)
    write_evaluation(root / "tests" / name, trained, dice, network=network, **where)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("folds")
    few = annotations(samples=50, split="finetune")
    for fold in FOLDS:
        teacher = lineage(annotations(split=f"without-{fold}"))
        write_run(root, f"teacher-{fold}", teacher, scores(0.80 + fold / 100), fold)
        write_run(root, f"short-{fold}", teacher, scores(0.40), fold, epochs=1)
        pseudo = write_pseudo_set(
            root / "pseudo" / str(fold), [("train", 300, 1.0)] * 9, teachers=(f"teacher-{fold}",)
        )
        for name, rule, mean in (
            ("none", None, 0.60),
            ("printed", RULE, 0.50),
            ("found", found_rule(4 + fold / 10), 0.70),
        ):
            masks = pseudo_masks(
                "thyroid", [f"teacher-{fold}"], 9 - fold, 9, rule, fingerprint=pseudo.fingerprint
            )
            student = lineage(masks)
            write_run(root, f"student-{name}-{fold}", student, scores(mean), fold)
        tuned = lineage(few, f"student-none-{fold}", lineage(pseudo_masks("thyroid", ["teacher"])))
        write_run(root, f"tuned-{fold}", tuned, scores(0.75), fold)
        write_run(root, f"scratch-{fold}", lineage(few), scores(0.55), fold)
        both = pseudo_masks("thyroid", [f"teacher-{fold}", f"short-{fold}"])
        write_run(root, f"several-{fold}", lineage(both), scores(0.85), fold)
    return root


@pytest.fixture(scope="module")
def pooled(root):
    left_out = []
    found = pool(collect([root]), left_out)
    assert not left_out
    return {each.name: each for each in found}


def test_runs_that_differ_in_their_fold_alone_are_one_and_every_image_counts_once(pooled):
    assert set(pooled) == {
        "teacher-*", "short-*", "student-none-*", "student-printed-*", "student-found-*",
        "tuned-*", "scratch-*", "several-*",
    }  # fmt: skip
    teacher = pooled["teacher-*"]
    assert (teacher.folds, len(teacher.runs), len(teacher.keys)) == (3, 3, 24)
    assert teacher.mean == pytest.approx(82)
    assert pooled["student-found-*"].dice.std() == pytest.approx(10)


def test_capability_and_its_interval_are_those_of_all_images(pooled):
    table = pooled_table(list(pooled.values()))
    rows = {row[1].text: row for row in table.rows}
    found = rows["student-found-*"][table.header.index("KTC %")]
    assert found.text == f"{100 * 70 / 82:.1f}"
    low, high = map(float, found.notes[0].split(" to "))
    assert low < 100 * 70 / 82 < high
    assert high - low < 3  # the images' scatter is the teacher's own, and falls out of the ratio
    assert rows["several-*"][table.header.index("KTC %")].text == ""
    exclusion = [row[table.header.index("Exclusion")].text for row in table.rows]
    assert any("E > 4.10 to 4.30 bits (75 % of" in text for text in exclusion)


def test_differences_are_those_of_alike_students_tuned_ones_and_several_teachers(pooled):
    table = pooled_differences(list(pooled.values()))
    told = {(row[1].text, row[2].text): (row[0].text, row[3].text) for row in table.rows}
    assert told == {
        ("student-printed-*", "student-none-*"): ("exclusion", "−10.00"),
        ("student-found-*", "student-none-*"): ("exclusion", "+10.00"),
        ("student-printed-*", "student-found-*"): ("exclusion", "−20.00"),
        ("tuned-*", "scratch-*"): ("fine-tuning", "+20.00"),
        ("several-*", "teacher-*"): ("several teachers", "+3.00"),
    }
    assert all(row[4].text.count(" to ") == 1 for row in table.rows)


def test_teachers_that_differ_in_their_seed_alone_are_several(tmp_path):
    for fold in (1, 2):
        names = [f"weak-{seed}-{fold}" for seed in (1, 2)]
        for name in names:
            teacher = lineage(annotations(split=f"without-{fold}"))
            write_run(tmp_path, name, teacher, scores(0.4), fold)
        student = lineage(pseudo_masks("thyroid", names))
        write_run(tmp_path, f"student-{fold}", student, scores(0.5), fold)
    found = pool(collect([tmp_path]), [])
    assert {each.name: len(each.runs) for each in found} == {"weak-*": 4, "student-*": 2}
    table = pooled_differences(found)
    assert [cell.text for cell in table.rows[0][:4]] == [
        "several teachers", "student-*", "weak-*", "+10.00",
    ]  # fmt: skip


def test_folds_that_are_done_are_compared_where_others_are_still_to_do(root, tmp_path):
    for kind in ("runs", "tests"):
        for path in (root / kind).glob("*"):
            if (kind, path.name) not in {("tests", "student-none-3"), ("tests", "scratch-1")}:
                (tmp_path / kind).mkdir(exist_ok=True)
                (tmp_path / kind / path.name).symlink_to(path)
    shutil.copytree(root / "pseudo", tmp_path / "pseudo")
    found = pool(
        collect(
            [*(tmp_path / "runs").glob("*"), *(tmp_path / "tests").glob("*"), tmp_path / "pseudo"]
        ),
        [],
    )
    rows = {row[1].text: row for row in pooled_table(found).rows}
    assert rows["student-none-*"][6].text == f"{100 * 60 / 81.5:.1f}"  # two of three folds
    images = {
        tuple(cell.text for cell in row[1:3]): row[6].text for row in pooled_differences(found).rows
    }
    assert images["tuned-*", "scratch-*"] == images["student-found-*", "student-none-*"] == "16"


def test_seeds_of_one_test_set_are_pooled_image_by_image(tmp_path):
    for seed, dice in enumerate((0.4, 0.6)):
        trained = {**lineage(annotations()), "seed": seed}
        write_run(tmp_path, f"net-{seed}", trained, scores(dice), 1)
    (found,) = pool(collect([tmp_path]), [])
    assert (found.name, found.folds, len(found.keys)) == ("net-*", 1, 8)
    assert np.allclose(found.dice, 100 * scores(0.5))


def test_seeds_of_students_are_held_against_the_one_run_of_their_teacher(tmp_path):
    write_run(tmp_path, "teacher", lineage(annotations()), scores(0.8), 1)
    write_run(tmp_path, "other", lineage(annotations()), scores(0.9), 1, epochs=1)
    for seed, dice in enumerate((0.4, 0.6)):
        for name, teachers in (("one", ["teacher"]), ("two", ["teacher", "other"])):
            trained = {**lineage(pseudo_masks("thyroid", teachers)), "seed": seed}
            write_run(tmp_path, f"{name}-{seed}", trained, scores(dice), 1)
    found = pool(collect([tmp_path]), [])
    table = pooled_table(found)
    place = table.header.index("KTC %")
    assert {row[1].text: row[place].text for row in table.rows} == {"one-*": "62.5", "two-*": ""}
    told = [[cell.text for cell in row[:4]] for row in pooled_differences(found).rows]
    assert told == [["several teachers", "two-*", "other", "−40.00"]]


@pytest.mark.parametrize("chosen", [False, True])
def test_test_sets_of_the_same_weights_are_no_folds_and_seeds_are_pooled_on_each(tmp_path, chosen):
    trained = lineage(annotations())
    if chosen:  # the best epoch, on the very images of the second test set
        trained["validated_on"] = annotations(split="part-2")
    for name in ("one-1", "one-2"):
        write_run(tmp_path, name, {**trained, "seed": int(name[-1])}, scores(0.5), 1)
        if name == "one-1":
            write_second_test(tmp_path, name, trained, "part-2")
    (found,) = pool(collect([tmp_path]), [])
    assert (found.folds, len(found.runs), len(found.keys)) == (1, 2, 8)
    write_second_test(tmp_path, "one-2", trained, "part-2")
    found = pool(collect([tmp_path]), [])
    assert [(each.folds, len(each.runs), len(each.keys)) for each in found] == [(1, 2, 8)] * 2
    assert list(pairs(found)) == []


def test_folds_are_not_pooled_with_the_images_their_best_epochs_were_chosen_on(tmp_path):
    for fold in (1, 2):
        trained = lineage(annotations())
        trained["validated_on"] = annotations(split=f"validation-{fold}")
        write_run(tmp_path, f"net-{fold}", trained, scores(0.4 + fold / 10), fold)
        write_second_test(tmp_path, f"net-{fold}", trained, f"validation-{fold}")
    found = pool(collect([tmp_path]), [])
    told = [(each.folds, each.mean, any(run.warnings for run in each.runs)) for each in found]
    assert sorted(told) == [(2, pytest.approx(55), False), (2, pytest.approx(90), True)]


def write_second_test(root, name, trained, split):
    where = root / "tests" / f"{name}-{split}"
    write_evaluation(where, trained, scores(0.9), splits=(split,), first_key=100 * int(split[-1]))
    path = where / "record.json"
    record = json.loads(path.read_text())
    record["inputs"]["weights_sha256"] = sha(name)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize("changed", ["recipe", "splits", "dataset", "record"])
def test_what_is_not_alike_is_not_pooled(tmp_path, changed):
    for fold in (1, 2):
        samples = 80 + fold if changed == "dataset" else 80
        write_run(
            tmp_path, f"net-{fold}", lineage(annotations(samples=samples)), scores(0.5), fold,
            epochs=fold if changed == "recipe" else 6,
        )  # fmt: skip
    if changed == "splits":  # some images would count twice
        path = tmp_path / "tests" / "net-2" / "record.json"
        record = json.loads(path.read_text())
        record["inputs"]["splits"] = record["details"]["test_set"]["splits"] = ["part-1", "part-2"]
        path.write_text(json.dumps(record))
    if changed == "record":
        (tmp_path / "runs" / "net-2" / "record.json").unlink()
    assert pool(collect([tmp_path]), []) == []


@pytest.mark.parametrize(
    "unlike",
    [
        {"validation": {"dataset": "breast", "splits": ["validation"]}},
        {"data": [{"dataset": "breast", "weight": 2.0}, {"dataset": "skin", "weight": 1.0}]},
        {"data": {"dataset": "breast", "class_map": {"names": {"cyst": "lesion"}}}},
    ],
)
def test_runs_of_one_seed_whose_epoch_or_images_were_taken_otherwise_are_not_pooled(
    tmp_path, unlike
):
    for fold in (1, 2, 3):
        write_run(tmp_path, f"net-{fold}", lineage(annotations()), scores(0.5), fold)
        path = tmp_path / "runs" / f"net-{fold}" / "record.json"
        record = json.loads(path.read_text())
        record["config"] |= {"data": {"dataset": "breast", "splits": [f"without-{fold}"]}}
        record["config"] |= unlike if fold == 3 else {}
        path.write_text(json.dumps(record))
    (found,) = pool(collect([tmp_path]), [])
    assert [run.name for run in found.runs] == ["net-1", "net-2"]


def test_folds_that_were_repeated_unlike_often_are_counted_as_they_are(tmp_path):
    for name in ("net-1", "net-2", "net-2b", "net-2c"):
        trained = {**lineage(annotations()), "seed": len(name)}
        write_run(tmp_path, name, trained, scores(0.5), int(name[4]))
    (row,) = pooled_table(pool(collect([tmp_path]), [])).rows
    assert row[-1].text.startswith("4 runs of 2 folds: ")


def test_a_run_without_predictions_is_told_and_the_page_still_made(root, tmp_path):
    left_out = []
    for fold in (1, 2):
        write_run(tmp_path, f"net-{fold}", lineage(annotations()), scores(0.5), fold)
    (tmp_path / "tests" / "net-1" / "predictions.parquet").unlink()
    assert pool(collect([tmp_path]), left_out) == []
    assert "no pooling over folds" in left_out[0].reason
    text = to_markdown(make_document(collect([root]), "Title"))
    assert "Pooled over folds and seeds" in text
    assert "Pooled differences" in text


def test_nothing_pooled_makes_no_table():
    assert pooled_table([]) is None
    assert pooled_differences([]) is None
    assert list(pairs([])) == []
