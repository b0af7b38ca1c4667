"""Run records become the numbers, roles and warnings of a report."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.summary import summarise_metric
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.records.mask_results import SegmentationResult
from nakt_dist.records.pseudo_sets import apply_rule, count_by_split, read_pseudo_set
from nakt_dist.report import paper
from nakt_dist.report.cautions import cautions
from nakt_dist.report.content import make_document
from nakt_dist.report.document import (
    Bar,
    Bullets,
    Cell,
    Column,
    Document,
    Figure,
    Notice,
    Paragraph,
    Section,
    Table,
    tabulate,
)
from nakt_dist.report.evaluations import SegmentationRun
from nakt_dist.report.markdown import to_markdown
from nakt_dist.report.mask_tables import masks_table
from nakt_dist.report.page import to_html
from nakt_dist.report.paper_differences import differences_from_paper
from nakt_dist.report.roles import Role, describe_lineage, describe_rule, role_of
from nakt_dist.report.runs import Collection, collect
from nakt_dist.report.segmentation import tables_beside_the_paper
from nakt_dist.report.tables import capabilities, exclusion_table, main_table
from nakt_dist.transfer.exclusion import ExclusionRule
from tests.records import (
    RULE,
    annotations,
    lineage,
    pseudo_masks,
    scores,
    sha,
    write_evaluation,
    write_experiment,
    write_pseudo_set,
    write_training,
)

NO_THRESHOLD = RULE | {"alpha": None, "beta": None}


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_experiment(tmp_path_factory.mktemp("experiment"))


@pytest.fixture(scope="module")
def collection(experiment: Path) -> Collection:
    return collect([experiment])


@pytest.fixture(scope="module")
def document(collection: Collection) -> Document:
    return make_document(collection, "Title")


def named(collection: Collection, name: str) -> SegmentationRun:
    return next(run for run in collection.evaluations if run.name == name)


def table_titled(collection: Collection, beginning: str) -> Table:
    tables = tables_beside_the_paper(collection)
    return next(table for table in tables if table.title.startswith(beginning))


def rows_by_name(table: Table) -> dict[str, list[str]]:
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}


def test_roles_follow_from_the_lineage(collection: Collection):
    assert {run.name: run.role for run in collection.evaluations} == {
        "teacher": Role.TEACHER,
        "teacher-2": Role.TEACHER,
        "student": Role.STUDENT,
        "student-chosen": Role.STUDENT,
        "student-u": Role.STUDENT,
        "student-photographs": Role.STUDENT,
        "student-of-both": Role.STUDENT,
        "scratch": Role.FROM_SCRATCH,
        "fine-tuned-student": Role.FINE_TUNED_STUDENT,
        "fine-tuned-teacher": Role.FINE_TUNED_TEACHER,
    }


def test_runs_come_in_the_order_of_their_roles(collection: Collection):
    roles = [list(Role).index(run.role) for run in collection.evaluations]
    assert roles == sorted(roles)


def test_a_run_says_what_it_learnt_from_and_how_well(collection: Collection):
    run = named(collection, "fine-tuned-student")
    assert describe_lineage(run.lineage) == (
        "5 pseudo masks of thyroid (phantom), then 50 annotations of breast (phantom)"
    )
    assert run.transfer.label == "thyroid (phantom)" and run.excluded
    assert run.network.label == "SDU-Net"
    assert (run.mean, run.std) == (pytest.approx(78), pytest.approx(10))
    assert run.dice == "78.00 ± 10.00" and run.images == 8
    assert run.interval[0] < 78 < run.interval[1]
    assert run.place.endswith("evaluate/fine-tuned-student") and run.seconds == 1.5


@pytest.mark.parametrize(
    ("trained", "teachers", "role"),
    [
        ({}, set(), Role.FOREIGN),
        ({}, {sha("me")}, Role.TEACHER),
        (lineage(annotations()), set(), Role.FROM_SCRATCH),
        (lineage(annotations()), {sha("me")}, Role.TEACHER),
        (lineage(pseudo_masks("a", ["t"])), {sha("me")}, Role.STUDENT),
        (lineage(annotations(), "x", lineage(annotations())), set(), Role.FINE_TUNED),
        (lineage(annotations(), "x", {}), {sha("x")}, Role.FINE_TUNED_TEACHER),
        (lineage(pseudo_masks("a", ["t"]), "x", lineage(annotations())), set(), Role.OTHER),
        (
            lineage(
                annotations(), "y", lineage(annotations(), "x", lineage(pseudo_masks("a", ["t"])))
            ),
            set(),
            Role.FINE_TUNED_STUDENT,
        ),
    ],
)
def test_role(trained: dict, teachers: set[str], role: Role):
    assert role_of(read_lineage(trained), sha("me"), teachers) == role


def test_an_unusual_lineage_is_described_in_words():
    trained = lineage(pseudo_masks("a", ["t"], 7), "x", {})
    assert describe_lineage(read_lineage(trained)) == (
        "weights of unknown origin, then 7 pseudo masks of a (phantom)"
    )


def test_a_rule_without_thresholds_is_no_exclusion():
    trained = read_lineage(lineage(pseudo_masks("a", ["t"], exclusion=NO_THRESHOLD)))
    assert trained.transfer.exclusion is None
    assert describe_rule(None) == "no exclusion"
    assert describe_rule(ExclusionRule()) == "N < 256 or E > 2.5 bits"
    assert describe_rule(ExclusionRule(beta=None, scale_alpha=True)).startswith(
        "N < 256 at 384 × 384"
    )
    assert describe_rule(ExclusionRule(combine="both")) == "N < 256 and E > 2.5 bits"


def test_capability_is_the_best_student_over_its_teacher(collection: Collection):
    found = capabilities(collection.evaluations)
    by_name = {(key.dataset, len(key.teachers)): value for key, value in found.items()}
    thyroid = by_name["thyroid (phantom)", 1]
    assert thyroid.percent == pytest.approx(100 * 76 / 80)
    assert thyroid.best.name == "student-chosen" and thyroid.students == 3
    assert thyroid.teacher.name == "teacher"
    assert by_name["photographs (phantom)", 1].percent == pytest.approx(100 * 50 / 80)
    several = by_name["thyroid (phantom)", 2]
    assert several.percent is None and "2 teachers" in several.reason


def test_capability_without_the_teachers_record_says_why(tmp_path: Path):
    trained = lineage(pseudo_masks("thyroid", ["teacher"]))
    write_evaluation(tmp_path / "student", trained, scores(0.7))
    # The teacher was tested, but on another split.
    write_evaluation(tmp_path / "teacher", lineage(annotations()), scores(0.8), splits=["other"])
    (capability,) = capabilities(collect([tmp_path]).evaluations).values()
    assert capability.percent is None and capability.teacher is None
    assert "no evaluation of the teacher “teacher”" in capability.reason
    row = rows_by_name(table_titled(collect([tmp_path]), "Tables 2 and 3"))["thyroid (phantom)"]
    assert row == ["70.00 ± 10.00", "–"]


def test_capability_takes_the_teacher_as_it_saw_images_when_it_taught(tmp_path: Path):
    masks = pseudo_masks("thyroid", ["teacher"])
    masks["teachers"][0]["preprocessing"] = {"height": 64, "width": None, "mean": [0.5], "std": 1.0}
    write_evaluation(tmp_path / "student", lineage(masks), scores(0.6))
    other = write_evaluation(tmp_path / "other" / "teacher", lineage(annotations()), scores(0.5))
    for folder, dice, mean in ((other, 0.5, 0.0), (tmp_path / "teacher", 0.75, 0.5)):
        if mean:
            (capability,) = capabilities(collect([tmp_path]).evaluations).values()
            assert capability.percent is None
            assert "when it taught (preprocessing.mean [0.5], and 0.0 in the" in capability.reason
            write_evaluation(folder, lineage(annotations()), scores(dice))
        record = json.loads((folder / "record.json").read_text())
        seen = {"height": None, "width": None, "mean": mean, "std": 1.0}
        record["inputs"] |= {"preprocessing": seen}
        (folder / "record.json").write_text(json.dumps(record))
    (capability,) = capabilities(collect([tmp_path]).evaluations).values()
    assert capability.percent == pytest.approx(100 * 60 / 75)


def test_capability_of_a_teacher_without_any_overlap(tmp_path: Path):
    write_evaluation(tmp_path / "teacher", lineage(annotations()), [0.0, 0.0])
    write_evaluation(tmp_path / "student", lineage(pseudo_masks("a", ["teacher"])), [0.5, 0.5])
    (capability,) = capabilities(collect([tmp_path]).evaluations).values()
    assert capability.percent is None and capability.reason == "the teacher's Dice is 0"


def test_the_main_table_holds_every_run_once(collection: Collection):
    table = main_table(collection.evaluations)
    assert table.title == "Tested on breast (phantom), split test"
    runs = [row[1].text for row in table.rows]
    assert len(runs) == len(set(runs)) == 10
    column = table.header.index("KTC %")
    capability = {row[1].text: row[column].text for row in table.rows if row[column].text}
    assert capability == {
        "student-chosen": "95.00",
        "student-photographs": "62.50",
        "student-of-both": "–",
    }
    assert any("No KTC for thyroid (phantom): 2 teachers" in remark for remark in table.remarks)


def test_other_metrics_of_masks_stand_below_dice_with_what_they_leave_out(tmp_path: Path):
    dice = summarise_metric("dice", scores(0.8), 100, seed=0)
    apart = summarise_metric("hd95_pixels", [3.0, 5.0, float("nan")], 100, seed=0)
    unknown = summarise_metric("iou", [0.5], 100, seed=0)
    write_evaluation(tmp_path / "plain", lineage(annotations()), scores(0.7))
    metrics = SegmentationResult(dice, (apart, unknown)).to_json()
    write_evaluation(tmp_path / "more", lineage(annotations()), scores(0.8), metrics=metrics)
    table = masks_table(collect([tmp_path]).evaluations)
    assert table.header == ("Run", "HD95, pixels")
    ((name, cell),) = table.rows
    assert (name.text, cell.text) == ("more", "4.00")
    assert cell.notes == ("3.00 to 5.00", "1 image left out")
    assert masks_table(collect([tmp_path / "plain"]).evaluations) is None


def test_tables_2_and_3_have_the_papers_shape_and_figures(collection: Collection):
    table = table_titled(collection, "Tables 2 and 3")
    assert table.header == ("Transferal dataset", "U-Net", "SDU-Net", "KTC %")
    assert rows_by_name(table) == {
        "photographs (phantom)*": ["–", "50.00 ± 10.00", "62.50"],
        "thyroid (phantom)": ["65.00 ± 10.00", "70.00 ± 10.00", "95.00"],
        "thyroid (phantom)*": ["–", "76.00 ± 10.00", ""],
    }
    starred = next(row for row in table.rows if row[0].text == "thyroid (phantom)*")
    assert "5 images" in starred[0].notes and "N < 256 or E > 2.5 bits" in starred[0].notes
    notes = starred[2].notes
    assert "8 images" in notes and notes[0].startswith("95 %: ")
    assert "paper: 84.39 ± 17.01 (table 2)" in notes
    assert "paper: 68.50 ± 30.00 (table 3)" in notes
    unstarred = next(row for row in table.rows if row[0].text == "thyroid (phantom)")
    assert "paper: 98.94 (table 2)" in unstarred[3].notes
    assert any("Teacher “teacher”, U-Net: 80.00 ± 10.00 %" in remark for remark in table.remarks)
    assert any("87.04 ± 16.01 (section 5.1, Breast Lesion-2)" in remark for remark in table.remarks)


def test_table_4_shows_fine_tuning_beside_training_from_scratch(collection: Collection):
    table = table_titled(collection, "Table 4")
    assert "fine-tuned on 50 annotated images of breast (phantom)" in table.title
    assert rows_by_name(table) == {
        "Trained from scratch": ["–", "40.00 ± 10.00"],
        "thyroid (phantom)*": ["–", "78.00 ± 10.00"],
        "Teacher, fine-tuned": ["82.00 ± 10.00", "–"],
    }
    scratch = table.rows[0][2].notes
    assert "paper: 46.88 ± 28.87 (table 4)" in scratch


def test_table_6_shows_each_teacher_and_their_student(collection: Collection):
    table = table_titled(collection, "Table 6")
    assert table.header[1:] == (
        "Teacher “teacher”",
        "Teacher “teacher-2”",
        "Student DeepLabv3+ (resnet18), thyroid (phantom)",
    )
    row = rows_by_name(table)["breast (phantom), split test"]
    assert row == ["80.00 ± 10.00", "60.00 ± 10.00", "83.00 ± 10.00"]
    assert "paper: 73.63 ± 18.65 (table 6, Breast Lesion-2)" in table.rows[0][2].notes
    assert any("3.00 points above" in remark for remark in table.remarks)


def test_there_is_no_table_6_without_several_teachers(tmp_path: Path):
    write_evaluation(tmp_path / "student", lineage(pseudo_masks("a", ["t"])), scores(0.5))
    titles = [table.title for table in tables_beside_the_paper(collect([tmp_path]))]
    assert not any(title.startswith("Table 6") for title in titles)


def test_table_7_counts_by_hand(collection: Collection):
    rows = rows_by_name(table_titled(collection, "Table 7"))
    # Of 9 images 8 are of the split the student used; 2 have few targets, 1 much entropy.
    rule = "N < 256 or E > 2.5 bits"
    theirs = ["3,830 → 2,790", "17,125 → 5,503"]
    assert rows["thyroid (phantom)"] == [rule, "8", "5", "62.5", "2", "1", "0", theirs[0]]
    assert rows["photographs (phantom)"] == [rule, "120", "43", "35.8", "–", "–", "–", theirs[1]]


def test_table_7_takes_the_papers_rule_where_no_student_used_one(collection: Collection):
    (pseudo,) = collection.pseudo_sets
    (row,) = exclusion_table([], [pseudo]).rows
    assert row[1].text == "N < 256 at 384 × 384 or E > 2.5 bits"  # the images here are smaller
    assert [cell.text for cell in row[2:7]] == ["9", "7", "77.8", "0", "1"] and row[7].text == "1"
    assert any("the paper's thresholds" in note for note in row[0].notes)
    assert exclusion_table([], []) is None


def test_several_runs_in_one_cell_are_all_shown(tmp_path: Path):
    for seed, mean in ((1, 0.5), (2, 0.6)):
        trained = lineage(pseudo_masks("thyroid", ["teacher"]))
        write_evaluation(tmp_path / f"seed-{seed}", trained, scores(mean))
    (row,) = table_titled(collect([tmp_path]), "Tables 2 and 3").rows
    assert row[1].text == "60.00 ± 10.00"
    assert row[1].notes[0] == "the best of 2: seed-2" and "seed-1: 50.00 ± 10.00" in row[1].notes


def test_ways_of_scoring_are_never_mixed(tmp_path: Path):
    trained = lineage(pseudo_masks("thyroid", ["teacher"]))
    write_evaluation(tmp_path / "teacher", lineage(annotations()), scores(0.8))
    write_evaluation(tmp_path / "student", trained, scores(0.4))
    high = write_evaluation(tmp_path / "other-threshold", trained, scores(0.8))
    record = json.loads((high / "record.json").read_text())
    record["inputs"]["threshold"] = 0.9
    (high / "record.json").write_text(json.dumps(record))
    collection = collect([tmp_path])
    found = {
        value.best.name: value.percent for value in capabilities(collection.evaluations).values()
    }
    assert found == {"student": pytest.approx(50), "other-threshold": None}
    assert "Test set" in main_table(collection.evaluations).header
    assert any("2 test sets or ways of scoring" in each for each in cautions(collection))


def test_a_network_tested_on_two_sets_keeps_one_name(tmp_path: Path):
    def evaluate_as(name: str, network: str, **options: object) -> None:
        folder = write_evaluation(tmp_path / name / network, lineage(annotations()), **options)
        record = json.loads((folder / "record.json").read_text())
        (folder / "record.json").write_text(json.dumps(record | {"name": name}))

    evaluate_as("teacher-on-breast", "teacher", dice=scores(0.8))
    evaluate_as("teacher-on-thyroid", "teacher", dice=scores(0.7), dataset="thyroid")
    evaluate_as("last", "twin", dice=scores(0.6))
    record = json.loads((tmp_path / "last" / "twin" / "record.json").read_text())
    record["inputs"]["weights_sha256"] = sha("other weights")
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "record.json").write_text(json.dumps(record | {"name": "best"}))
    names = sorted(run.name for run in collect([tmp_path]).evaluations)
    assert names == ["best", "last", "teacher", "teacher"]  # different weights keep theirs
    assert "3 networks on 2 test sets" in make_document(collect([tmp_path]), "Title").subtitle


def test_damaged_records_are_listed_with_their_reason(tmp_path: Path):
    good = write_evaluation(tmp_path / "good", lineage(annotations()), scores(0.5))
    changes = {
        "no-lineage": {"details": {"model": {"name": "unet", "options": {}}}},
        "no-score": {"metrics": {"images": 0}},
        "impossible": {
            "metrics": json.loads((good / "record.json").read_text())["metrics"]
            | {"dice_mean": 170.0}
        },
        "no-seconds": {"seconds": "long"},
    }
    for name, change in changes.items():
        write_evaluation(tmp_path / name, lineage(annotations()), scores(0.5), **change)
    for name, text in (("cut", '{"format": "nakt-rec'), ("foreign", '{"format": "other/1"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(text)
    collection = collect([tmp_path])
    assert [run.name for run in collection.evaluations] == ["good"]
    reasons = {Path(each.place).name: each.reason for each in collection.left_out}
    assert set(reasons) == {*changes, "cut", "foreign"}
    assert "details.test_set.dataset" in reasons["no-lineage"] or "lineage" in reasons["no-lineage"]
    assert reasons["no-score"] == "no image has a defined Dice"
    assert "dice_mean" in reasons["impossible"] and "170" in reasons["impossible"]
    assert "seconds" in reasons["no-seconds"] and "expected int or float" in reasons["no-seconds"]
    assert "cannot be read" in reasons["cut"] and "nakt-record/1" in reasons["foreign"]
    assert str(tmp_path.parent) not in "".join(reasons.values())
    page = to_html(make_document(collection, "Title"))
    assert all(name in page for name in reasons) and "cannot be read" in page


def test_records_of_odd_values_are_left_out_or_shown_without_a_traceback(tmp_path: Path):
    good = write_evaluation(tmp_path / "good", lineage(annotations()), scores(0.5))
    write_evaluation(tmp_path / "empty-config", lineage(annotations()), scores(0.5), config={})
    write_evaluation(tmp_path / "listed-config", lineage(annotations()), scores(0.5), config=[])
    write_evaluation(tmp_path / "endless", lineage(annotations()), scores(0.5), seconds=10**400)
    rule = RULE | {"alpha": float("nan")}
    trained = lineage(pseudo_masks("thyroid", ["teacher"], exclusion=rule))
    write_evaluation(tmp_path / "no-alpha", trained, scores(0.5))
    deep = (good / "record.json").read_text().replace('"patient"', '"deep": DEEP, "patient"')
    (tmp_path / "deep").mkdir()
    nested = "[" * 100_000 + "]" * 100_000
    (tmp_path / "deep" / "record.json").write_text(deep.replace("DEEP", nested))
    collection = collect([tmp_path])
    to_html(make_document(collection, "Title"))
    assert {run.name for run in collection.evaluations} == {"good", "empty-config"}
    reasons = {Path(each.place).name: each.reason for each in collection.left_out}
    assert "config" in reasons["listed-config"] and "seconds" in reasons["endless"]
    assert "alpha is nan" in reasons["no-alpha"] and "cannot be read" in reasons["deep"]


def test_a_repeated_record_counts_once_and_says_so(tmp_path: Path):
    write_evaluation(tmp_path / "a" / "run", lineage(annotations()), scores(0.5))
    copy = tmp_path / "b" / "run"
    copy.mkdir(parents=True)
    for name in ("record.json", "predictions.parquet"):
        (copy / name).write_bytes((tmp_path / "a" / "run" / name).read_bytes())
    again = tmp_path / "c" / "run"
    write_evaluation(again, lineage(annotations()), scores(0.5), seconds=9.0)
    collection = collect([tmp_path, tmp_path / "a"])  # overlapping folders are no repetition
    assert len(collection.evaluations) == 1
    reasons = {each.place: each.reason for each in collection.left_out}
    assert len(reasons) == 2
    assert "a copy of" in reasons[f"{tmp_path.name}/b/run"]
    assert "the same network on the same images" in reasons[f"{tmp_path.name}/c/run"]


def test_a_damaged_record_does_not_hide_a_good_one_of_the_same_network(tmp_path: Path):
    write_evaluation(tmp_path / "a" / "run", lineage(annotations()), scores(0.5), metrics={})
    write_evaluation(tmp_path / "b" / "run", lineage(annotations()), scores(0.5))
    collection = collect([tmp_path])
    assert [run.place for run in collection.evaluations] == [f"{tmp_path.name}/b/run"]


def test_folders_without_an_evaluation_are_refused(tmp_path: Path):
    with pytest.raises(DatasetError, match=r"found no record\.json of a finished evaluation"):
        collect([tmp_path])
    write_training(tmp_path / "train", lineage(annotations()))
    with pytest.raises(DatasetError, match="Run nakt evaluate"):
        collect([tmp_path])
    with pytest.raises(DatasetError, match="no such folder"):
        collect([tmp_path / "absent"])


def test_teachers_are_known_from_pseudo_labels_and_training_records_too(tmp_path: Path):
    write_evaluation(tmp_path / "first", lineage(annotations()), scores(0.5))
    write_evaluation(tmp_path / "second", lineage(annotations()), scores(0.5))
    write_evaluation(tmp_path / "third", {}, scores(0.5))
    write_pseudo_set(tmp_path / "pseudo", [("train", 300, 1.0)], teachers=["first"])
    write_training(tmp_path / "train", lineage(pseudo_masks("thyroid", ["third"])))
    roles = {run.name: run.role for run in collect([tmp_path]).evaluations}
    assert roles == {"first": Role.TEACHER, "second": Role.FROM_SCRATCH, "third": Role.TEACHER}


def test_damaged_pseudo_labels_are_listed(tmp_path: Path):
    write_evaluation(tmp_path / "run", lineage(annotations()), scores(0.5))
    write_pseudo_set(tmp_path / "pseudo", [("train", 300, 1.0)])
    (tmp_path / "pseudo" / "index.parquet").write_bytes(b"damage")
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "manifest.json").write_text('{"format": "nakt-shards/1"}')
    collection = collect([tmp_path])
    assert not collection.pseudo_sets
    (left_out,) = collection.left_out
    assert (
        left_out.place.endswith("/pseudo") and "not the file the manifest names" in left_out.reason
    )


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        (lineage(annotations()), None),
        (lineage(annotations("thyroid", split="test")), None),
        (lineage(annotations(split="test")), "annotations of the very splits"),
        (lineage(annotations() | {"splits": None}), "annotations of the very splits"),
        (lineage(annotations() | {"fingerprint": sha("x")}), "annotations of another packing"),
        (
            lineage(pseudo_masks("breast", ["t"]) | {"splits": ["test"]}),
            "without their annotations",
        ),
        (
            lineage(annotations("thyroid"), "parent", lineage(annotations(split="test"))),
            "annotations of the very splits",
        ),
    ],
)
def test_a_network_that_met_its_test_images_is_named(
    tmp_path: Path, trained: dict, words: str | None
):
    write_evaluation(tmp_path / "run", trained, scores(0.5))
    collection = collect([tmp_path])
    verdict = collection.evaluations[0].warning
    assert verdict is None if words is None else words in verdict
    assert any("run:" in each for each in cautions(collection)) == (words is not None)


ROLES = ("training", "validation", "parents", "teacher")


def say_met(folder: Path, *roles: str, unknown: tuple[str, ...] = ()) -> None:
    """Lets the record of an evaluation say in which roles test images were met."""
    record = json.loads((folder / "record.json").read_text())
    said = {role: None if role in unknown else role in roles for role in ROLES}
    record["details"]["met_test_images"] = said
    (folder / "record.json").write_text(json.dumps(record))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("training", "learnt from images that it was tested on: its Dice is too high"),
        ("validation", "has its best epoch chosen on images that it was tested on"),
        ("parents", "started from weights that learnt from images that it was tested on"),
        ("teacher", "followed a teacher that learnt from images that it was tested on"),
    ],
)
def test_test_images_met_in_another_packing_are_marked_by_the_record(
    tmp_path: Path, role: str, words: str
):
    trained = lineage(annotations("elsewhere"))
    write_evaluation(tmp_path / "teacher", trained, scores(0.5))
    write_pseudo_set(tmp_path / "pseudo", [("train", 300, 1.0)])
    say_met(tmp_path / "teacher", role)
    document = make_document(collect([tmp_path]), "Title")
    (brief,) = (block for block in document.sections[0].blocks if isinstance(block, Bullets))
    assert any(f"⚠ teacher: {words}" in each for each in brief.items)
    page = to_markdown(document)
    assert "50.00 ± 10.00 ⚠" in page and page.count(words) >= 3
    say_met(tmp_path / "teacher", unknown=ROLES)
    assert "⚠" not in to_markdown(make_document(collect([tmp_path]), "Title"))


def test_pseudo_masks_of_test_images_stay_told_from_their_annotations(tmp_path: Path):
    write_evaluation(tmp_path / "run", lineage(pseudo_masks("elsewhere", ["t"])), scores(0.5))
    say_met(tmp_path / "run", "training")
    (run,) = collect([tmp_path]).evaluations
    assert "with pseudo masks, without their annotations" in run.warning


def test_a_copy_of_weights_hides_nothing_that_another_record_knows(tmp_path: Path):
    for name in ("a", "b"):
        write_evaluation(tmp_path / name / "run", lineage(annotations("elsewhere")), scores(0.5))
    say_met(tmp_path / "a" / "run", unknown=ROLES)
    say_met(tmp_path / "b" / "run", "parents")
    (run,) = collect([tmp_path]).evaluations
    assert {role for role, each in run.exposure.items() if each.exposure.is_met} == {"parents"}


@pytest.mark.parametrize("said", [5, {"training": "yes"}])
def test_a_record_that_says_nonsense_of_met_images_is_left_out(tmp_path: Path, said: object):
    for name in ("right", "wrong"):
        write_evaluation(tmp_path / name, lineage(annotations()), scores(0.5))
    record = json.loads((tmp_path / "wrong" / "record.json").read_text())
    record["details"]["met_test_images"] = said
    (tmp_path / "wrong" / "record.json").write_text(json.dumps(record))
    (left_out,) = collect([tmp_path]).left_out
    assert "met_test_images" in left_out.reason


def test_rows_that_differ_in_preprocessing_say_so(tmp_path: Path):
    for name, mean in (("a", 0.0), ("b", 0.5), ("c", 0.0)):
        folder = write_evaluation(tmp_path / name, lineage(annotations()), scores(0.5))
        record = json.loads((folder / "record.json").read_text())
        weights = "other" if name == "c" else "same"
        shown = {"height": None, "width": None, "mean": mean, "std": 1.0}
        record["inputs"] |= {"weights_sha256": sha(weights), "preprocessing": shown}
        (folder / "record.json").write_text(json.dumps(record))
    found = [each for each in cautions(collect([tmp_path])) if "preprocessing" in each]
    assert found == [
        "a and b are one network on one test set with other preprocessing: mean 0.0 and 0.5."
    ]


def test_what_is_not_comparable_is_said(collection: Collection):
    text = " ".join(differences_from_paper(collection))
    for words in (
        "procedural images, not real data",
        "thyroid (phantom) beside Thyroid Nodule",
        "64 × 64 pixels, the paper's 384 × 384",
        "Encoder resnet18",
        "8 images here; in the paper Breast Lesion-2 148 and Baheya Breast Lesion 697",
        "8 to 160 images of thyroid (phantom)",
        "6 epochs here",
    ):
        assert words in text


@pytest.mark.usefixtures("undrawn")
def test_fewer_steps_under_exclusion_are_said(collection: Collection):
    assert any("took fewer steps" in each for each in cautions(collection))
    without = replace(collection, trainings=())
    assert not any("took fewer steps" in each for each in cautions(without))


@pytest.mark.parametrize("left_out", [0, 2])
def test_a_capability_of_dice_over_unlike_images_is_told(tmp_path: Path, left_out: int):
    write_evaluation(tmp_path / "teacher", lineage(annotations()), scores(0.8))
    few = [float("nan")] * left_out + list(scores(0.4))[left_out:]
    write_evaluation(tmp_path / "student", lineage(pseudo_masks("thyroid", ["teacher"])), few)
    remarks = " ".join(main_table(collect([tmp_path]).evaluations).remarks)
    told = "The KTC of student is of Dice over 6 images by Dice over 8"
    assert (told in remarks) == bool(left_out)


@pytest.mark.parametrize("epochs", [6, 12])
def test_students_that_also_differ_in_their_recipe_are_named(tmp_path: Path, epochs: int):
    for name, rule, length in (("all", None, 6), ("chosen", RULE, epochs)):
        student = lineage(pseudo_masks("thyroid", ["teacher"], exclusion=rule))
        write_evaluation(tmp_path / "tests" / name, student, scores(0.5))
        write_training(tmp_path / "runs" / name, student, epochs=length)
    told = [each for each in cautions(collect([tmp_path])) if "trained differently" in each]
    expected = "Students of thyroid (phantom), U-Net, were trained differently: recipe.epochs."
    assert told == ([expected] if epochs == 12 else [])


def test_every_name_of_a_phantom_says_so(document: Document):
    page = to_html(document)
    for dataset in ("thyroid", "photographs"):
        label = f" of {dataset}"
        assert page.count(label) == page.count(f"{label} (phantom)") > 0


def test_hostile_names_are_shown_and_do_nothing(tmp_path: Path):
    name = "<script>alert(1)</script> | [x](http://x.invalid) `y` \x1b[31m"
    trained = lineage(annotations(dataset="<b>bold</b>"))
    options = {"encoder_name": "<img src=http://x.invalid>"}
    write_evaluation(tmp_path / "run", trained, scores(0.5), name=name, options=options)
    document = make_document(collect([tmp_path]), "<i>Title</i>")
    page, text = to_html(document), to_markdown(document)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;i&gt;Title&lt;/i&gt;" in page
    for tag in ("<script", "<img src=http", "<b>", "<i>", "\x1b"):
        assert tag not in page and tag not in text
    row = next(line for line in text.splitlines() if "alert(1)" in line and line.startswith("|"))
    assert row.replace(r"\|", "").count("|") == 10  # nine columns and no more
    assert r"\[x\](http" in row


def test_every_text_of_every_block_is_escaped():
    tag = "<x y='&amp;'>"
    cell = Cell(tag, (tag,), strong=True)
    table = Table(tag, (tag, tag), ((cell, cell),), (tag,))
    blocks = (Paragraph(tag), Notice(tag), Bullets((tag,)), table, Figure("a.png", b"", tag, tag))
    blocks = (*blocks, Bar(tag, ((tag, 1.0),)))
    document = Document(tag, tag, (Section("id", tag, blocks),))
    for text in (to_html(document), to_markdown(document)):
        assert "<x" not in text and "'&amp;'" not in text
        assert text.count("&amp;amp;") == text.count("&lt;x") >= 16


def test_a_table_has_the_columns_that_are_shown_and_a_row_for_each_item():
    columns = (
        Column("Name", lambda item: item),
        Column("Nowhere", lambda item: item[99], shown=False),
        Column("Length", lambda item: Cell(str(len(item)), strong=True), minor=True),
    )
    table = tabulate("Title", columns, ("a", "bc"), ("remark",))
    assert table.header == ("Name", "Length") and table.remarks == ("remark",)
    assert table.rows[1] == (Cell("bc"), Cell("2", strong=True, minor=True))


def test_no_patient_and_no_path_reaches_the_report(experiment: Path, document: Document):
    for text in (to_html(document), to_markdown(document)):
        assert "patient-0" not in text
        assert str(experiment.parent) not in text and "/home/" not in text


def test_the_appendix_lists_every_record(document: Document):
    (table,) = (block for block in document.sections[-1].blocks if isinstance(block, Table))
    assert table.title == "Every record found" and len(table.rows) == 15
    row = next(row for row in table.rows if row[0].text == "scratch")
    texts = [cell.text for cell in row[1:]]
    assert texts[:3] == ["evaluate", "images 8", "1.5"]
    assert texts[4] == sha("scratch")[:12] and texts[6] == "A"
    assert "Versions A: python 3.11.7, torch 2.15.0" in to_markdown(document)


def test_equal_records_give_equal_reports(document: Document, experiment: Path):
    assert to_html(make_document(collect([experiment]), "Title")) == to_html(document)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("busi", "Baheya Breast Lesion"),
        ("breast", "Baheya Breast Lesion"),
        ("breast_lesion_2", "Breast Lesion-2"),
        ("breast_lesion_1", None),
        ("breast_lesion", "Breast Lesion-2"),
        ("Baheya breast lesion", "Baheya Breast Lesion"),
        ("DDTI", "Thyroid Nodule"),
        ("tn3k-small", "Thyroid Nodule"),
        ("kaggle_nerve", "Nerve Structure"),
        ("isic2019", "Skin Lesion"),
        ("voc2012", "PASCAL VOC2012"),
        ("invoice", None),
        ("squares", None),
    ],
)
def test_datasets_stand_beside_the_papers_by_name(ours: str, theirs: str | None):
    assert paper.dataset_name(ours) == theirs


def test_the_papers_figures_are_as_printed():
    (score,) = paper.find_dice("breast_lesion_2", "student", "SDU-Net", "busi")
    assert (score.where, score.mean, score.std) == ("table 2", 85.00, 14.48)
    (score,) = paper.find_dice("ddti", "fine-tuned student", "Panoptic-FPN", "voc2012", True)
    assert (score.where, score.mean, score.std) == ("table 5", 64.63, 28.35)
    assert paper.find_dice("squares", "student", "SDU-Net", "busi") == []
    assert paper.find_dice("busi", "student", "SDU-Net", "squares") == []
    assert paper.find_capability("busi", "busi") == [
        "97.66 (table 2)",
        "105.66 (table 3, printed as 106.66)",
    ]
    assert paper.find_exclusion("isic2019") == (25331, 6960)


def test_the_papers_capabilities_follow_from_its_own_dice():
    """Its best student over its teacher gives every printed capability but the misprint."""
    teachers = {s.test_set: s.mean for s in paper.find_dice("busi", "teacher", "DeepLabv3+")}
    for ours in ("busi", "ddti", "kaggle_nerve", "isic2019", "voc2012"):
        scores_of = [
            score
            for network in paper.NETWORKS.values()
            for excluded in (False, True)
            for score in paper.find_dice("busi", "student", network, ours, excluded)
        ]
        for printed in paper.find_capability("busi", ours):
            where = printed.split("(")[1][:7]
            best = max((s for s in scores_of if s.where == where), key=lambda score: score.mean)
            assert float(printed.split()[0]) == pytest.approx(
                100 * best.mean / teachers[best.test_set], abs=0.01
            )


def test_exclusion_is_counted_by_rule_and_split(tmp_path: Path):
    rows = [("train", 255, 2.6), ("train", 256, 2.5), ("train", 255, 2.5), ("test", 999, 2.6)]
    write_pseudo_set(tmp_path / "pseudo", rows)
    pseudo = read_pseudo_set(tmp_path / "pseudo")
    counts = count_by_split(pseudo, apply_rule(pseudo, ExclusionRule()))
    names = ("before", "after", "excluded", "below_alpha_alone", "above_beta_alone")
    assert [counts["all"][name] for name in names] == [4, 1, 3, 1, 1]
    assert counts["all"]["below_alpha_and_above_beta"] == 1
    assert [counts["split train"][name] for name in names] == [3, 1, 2, 1, 0]
    assert [counts["split test"][name] for name in names] == [1, 0, 1, 0, 1]
    both = apply_rule(pseudo, ExclusionRule(combine="both"))
    assert both.kept.tolist() == [False, True, True, True]
    assert [bool(reason) for reason in both.reasons] == [True, False, False, False]
    hard = replace(pseudo, manifest=replace(pseudo.manifest, soft=False))
    assert apply_rule(hard, ExclusionRule()).kept.tolist() == [False, True, False, True]
