"""A report of classifiers says what differs, what is a phantom, and what met its test images."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure as Canvas
from PIL import Image

from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.report.auroc_curves import collect_curves, draw_repeats, read_auroc_curve
from nakt_dist.report.cautions import classifier_cautions
from nakt_dist.report.classification_tables import main_table
from nakt_dist.report.content import make_document
from nakt_dist.report.document import Document, Figure, Table
from nakt_dist.report.finding_tables import findings_table
from nakt_dist.report.markdown import to_markdown
from nakt_dist.report.methods import name_methods
from nakt_dist.report.paper_differences import differences_from_paper_b
from nakt_dist.report.runs import collect
from nakt_dist.report.studies import Study, make_studies
from nakt_dist.report.weight_table import weight_table
from tests.classifier_records import (
    ATTENTION,
    DISTILLATION,
    FINDINGS,
    classifier,
    followed,
    images_of,
    start,
    write_attention,
    write_classified,
    write_classifier_training,
)

OTHER_POLICY = {"label_policy": {"uncertain": "ignore", "blank": "zero"}}


def only_study(folder: Path) -> Study:
    (study,), left_out = make_studies(collect([folder]).classified)
    assert not left_out
    return study


def document_of(folder: Path) -> Document:
    return make_document(collect([folder]), "Title")


def tables_of(document: Document) -> list[Table]:
    blocks = [block for section in document.sections for block in section.blocks]
    return [block for block in blocks if isinstance(block, Table)]


def column(table: Table, name: str) -> list[str]:
    return [row[table.header.index(name)].text for row in table.rows]


def cautions_of(folder: Path) -> str:
    collection = collect([folder])
    studies, _ = make_studies(collection.classified)
    return "\n".join(classifier_cautions(studies, collection.classifier_trainings))


def taught_by(images: dict[str, Any] | None, **changes: Any) -> dict[str, Any]:
    """Returns a transfer whose teacher says what it learnt from."""
    transfer = followed("t", "chexpert")
    if images is not None:
        said = {name: images[name] for name in ("phantom", "fingerprint", "splits")}
        transfer["teacher"] |= {"trained_on": images["dataset"], **said} | changes
    return transfer


@pytest.mark.parametrize(
    ("transfer", "warning", "caution"),
    [
        (taught_by(images_of(split="test")), "the very splits", "learnt from the very splits"),
        (taught_by(images_of(), splits=None), "the very splits", "learnt from the very splits"),
        (taught_by(images_of(), fingerprint="0"), "another packing", "another packing"),
        (taught_by(images_of()), None, "split train of the packing tested here, and met no image"),
        (taught_by(images_of("mimic")), None, "Intervals"),
        (taught_by(None), None, "whether from its test patients, no record here says"),
    ],
)
def test_what_a_lineage_says_of_a_teacher_decides_whether_it_met_the_test_images(
    tmp_path: Path, transfer, warning: str | None, caution: str
):
    write_classified(tmp_path / "run", classifier(transfer=transfer))
    (run,) = collect([tmp_path]).classified
    assert [warning in each for each in run.warnings] == ([] if warning is None else [True])
    assert caution in cautions_of(tmp_path)


def test_splits_of_a_teacher_that_are_absent_are_unknown(tmp_path: Path):
    transfer = taught_by(images_of())
    del transfer["teacher"]["splits"]
    write_classified(tmp_path / "run", classifier(transfer=transfer))
    (run,) = collect([tmp_path]).classified
    assert "from which splits is not known" in run.warnings[0]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("known", ["lineage", "record", "nowhere"])
def test_a_teacher_of_phantoms_is_marked_wherever_it_is_named(tmp_path: Path, known: str):
    transfer = followed("teacher", "mimic")
    if known == "lineage":
        transfer["teacher"] |= {"phantom": True, "fingerprint": "0", "splits": None}
    if known == "record":
        write_classifier_training(tmp_path / "runs" / "teacher", classifier(images_of("mimic")))
    real = images_of("covid", phantom=False)
    for name, taken in (("plain", None), ("taught", transfer)):
        trained = classifier(real, transfer=taken)
        write_classified(tmp_path / name, trained, dataset="covid", phantom=False)
    text = to_markdown(document_of(tmp_path))
    marked = text.count("“teacher” of mimic (phantom)")
    assert marked == (0 if known == "nowhere" else text.count("“teacher” of mimic"))
    assert ("drawn by a program" in text) == (known != "nowhere")
    assert text.count("“teacher” of mimic") >= 4


def test_a_row_tested_on_what_was_learnt_from_says_so_in_every_table(tmp_path: Path):
    cheat = classifier(images_of(split="test"))
    write_classified(tmp_path / "cheat", cheat, 1.0, operating=True)
    write_classified(tmp_path / "taught", cheat | {"transfer": followed()}, 1.4, operating=True)
    document = document_of(tmp_path)
    words = "learnt from the very splits it was tested on: its AUROC is too high"
    assert f"⚠ Both: {words}" in document.sections[0].blocks[-1].items[1]
    (row,) = main_table(only_study(tmp_path)).rows
    assert all(cell.text.endswith("⚠") and words in cell.notes for cell in row[3:])
    (appendix,) = (x for x in tables_of(document) if x.title == "Every evaluation of a classifier")
    assert all(each.endswith("⚠") for each in column(appendix, "AUROC %"))
    (gain,) = (x for x in tables_of(document) if x.title.startswith("What a teacher gives"))
    assert column(gain, "Difference")[0].endswith("⚠")
    (findings,) = (x for x in tables_of(document) if x.title.startswith("Findings"))
    assert all(name.endswith("⚠") for name in findings.header[2:])
    assert any(words in each for each in gain.remarks)
    (by_finding,) = (x for x in tables_of(document) if x.title.startswith("By finding: what"))
    operating = [x for x in tables_of(document) if x.title.startswith("Operating points of")]
    assert by_finding.header[1].endswith("⚠") and len(operating) == 2
    assert all(" ⚠ on " in each.title for each in operating)
    for table in (by_finding, *operating):
        assert any(words in each for each in table.remarks)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("role", "words"),
    [
        ("training", "learnt from images that it was tested on: its AUROC is too high"),
        ("validation", "has its best epoch chosen on images that it was tested on"),
        ("parents", "started from weights that learnt from images that it was tested on"),
        ("teacher", "followed a teacher that learnt from images that it was tested on"),
    ],
)
def test_test_images_met_in_another_packing_are_marked_by_the_record(
    tmp_path: Path, role: str, words: str
):
    met = {"training": False, "validation": None, "parents": False, "teacher": None}
    for name, transfer, signal in (("plain", None, 1.0), ("taught", taught_by(images_of()), 1.4)):
        write_classified(tmp_path / name, classifier(images_of("mimic"), transfer=transfer), signal)
        record = json.loads((tmp_path / name / "record.json").read_text())
        said = met | {role: True} if name == "taught" else met
        record["details"]["met_test_images"] = said
        (tmp_path / name / "record.json").write_text(json.dumps(record))
    plain, taught = sorted(collect([tmp_path]).classified, key=lambda run: run.name)
    assert plain.warnings == () and [words in each for each in taught.warnings] == [True]
    document = document_of(tmp_path)
    assert words in document.sections[0].blocks[-1].items[1]
    (appendix,) = (x for x in tables_of(document) if x.title == "Every evaluation of a classifier")
    assert [each.endswith("⚠") for each in column(appendix, "AUROC %")].count(True) == 1
    assert words in cautions_of(tmp_path)
    assert ("met no image" in cautions_of(tmp_path)) == (role != "teacher")


@pytest.mark.usefixtures("undrawn")
def test_a_classifier_of_unknown_lineage_is_marked_by_the_record(tmp_path: Path):
    write_classified(tmp_path / "run", {})
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    record["details"]["met_test_images"] = dict.fromkeys(("training", "teacher"), True)
    (tmp_path / "run" / "record.json").write_text(json.dumps(record))
    assert len(collect([tmp_path]).classified[0].warnings) == 2
    assert document_of(tmp_path).sections[0].blocks[-1].items[0].count("⚠") == 2


def test_warned_comparisons_are_never_cut_off_the_brief(tmp_path: Path):
    for number in range(15):
        split = "test" if number == 14 else "train"
        trained_on = images_of(samples=100 + number, split=split)
        for name, taken in (("plain", None), ("taught", followed())):
            trained = classifier(trained_on, transfer=taken)
            write_classified(tmp_path / f"{name}-{number}", trained)
    items = document_of(tmp_path).sections[0].blocks[-1].items
    assert len(items) == 14 and sum("⚠" in each for each in items) == 1
    assert items[-1] == "3 more comparisons stand in the tables below."


def test_test_sets_of_one_name_are_told_apart_by_what_differs(tmp_path: Path):
    write_classified(tmp_path / "a", classifier())
    write_classified(tmp_path / "b", classifier(findings=FINDINGS[:3]))
    write_classified(tmp_path / "c", classifier())
    path = tmp_path / "c" / "record.json"
    record = json.loads(path.read_text())
    uses = {"default": "one", "Edema": "zero", "Mass": "ignore"}
    record["inputs"]["label_policy"] = {"uncertain": uses, "blank": "zero"}
    path.write_text(json.dumps(record))
    write_classified(tmp_path / "d", classifier(), dataset="nih")
    studies, _ = make_studies(collect([tmp_path]).classified)
    name = "chexpert (phantom), split test, "
    assert {study.label for study in studies} == {
        f"{name}4 findings, uncertain labels as zero",
        f"{name}4 findings, uncertain labels as one, of Edema as zero, of Mass ignored",
        f"{name}3 findings, uncertain labels as zero",
        "nih (phantom), split test",
    }
    blocks = [block for section in document_of(tmp_path).sections for block in section.blocks]
    titles = [block.title for block in blocks if isinstance(block, Table | Figure)]
    assert len(set(titles)) == len(titles)
    assert "of Mass ignored, blank labels as zero, 64 × 64" in cautions_of(tmp_path)


def test_as_many_but_other_findings_are_named(tmp_path: Path):
    write_classified(tmp_path / "a", classifier())
    write_classified(tmp_path / "b", classifier(findings=(*FINDINGS[:3], "Fracture")))
    studies, _ = make_studies(collect([tmp_path]).classified)
    assert {study.label.rsplit(", ", 1)[1] for study in studies} == {
        "4 findings with Pleural Effusion", "4 findings with Fracture",
    }  # fmt: skip


def test_rows_of_one_name_are_told_apart_by_what_differs(tmp_path: Path):
    write_classified(tmp_path / "a", classifier())
    write_classified(tmp_path / "b", classifier() | OTHER_POLICY)
    assert set(column(main_table(only_study(tmp_path)), "Training images")) == {
        "100, uncertain labels as zero", "100, uncertain labels ignored",
    }  # fmt: skip


def test_the_dataset_learnt_from_is_a_column_where_it_is_not_the_one_tested(tmp_path: Path):
    write_classified(tmp_path / "a", classifier(images_of("mimic")))
    assert column(main_table(only_study(tmp_path)), "Learnt from") == ["mimic (phantom)"]


@pytest.mark.parametrize(
    ("network", "taken", "title"),
    [
        ("densenet40", followed(), "Table 2 (paper B): mean AUROC"),
        ("densenet40", followed(distillation=DISTILLATION), "Mean AUROC"),
        ("timm:resnet18", followed(), "Mean AUROC"),
    ],
)
def test_only_densenets_by_both_methods_make_a_table_2(tmp_path: Path, network, taken, title: str):
    write_classified(tmp_path / "a", classifier(network=network))
    write_classified(tmp_path / "b", classifier(network=network, transfer=taken))
    assert main_table(only_study(tmp_path)).title.startswith(title)


@pytest.mark.parametrize(
    ("dataset", "taught", "plain", "title"),
    [
        ("chexpert", ["mimic", "imagenet"], False, "Table 3 (paper B)"),
        ("chexpert", ["mimic", "imagenet"], True, "Tables 2 and 3 (paper B)"),
        ("chestxray14_sample", ["mimic"], True, "Table 5 (paper B)"),
        ("chexpert", ["mimic"], False, "Mean AUROC"),
    ],
)
def test_tables_are_numbered_as_the_papers(tmp_path: Path, dataset, taught, plain, title: str):
    students = {name: followed(name, name) for name in taught} | ({"plain": None} if plain else {})
    for name, taken in students.items():
        trained = classifier(images_of(dataset), "densenet40", transfer=taken)
        write_classified(tmp_path / f"by-{name}", trained, dataset=dataset)
    assert main_table(only_study(tmp_path)).title.startswith(title)


def test_other_findings_and_labels_than_the_papers_are_told_of_real_images(tmp_path: Path):
    real = classifier(images_of("chexpert", phantom=False))
    write_classified(tmp_path / "run", real, phantom=False)
    told = "\n".join(differences_from_paper_b([only_study(tmp_path)]))
    counted = only_study(tmp_path).runs[0].result.counted
    assert f"mean AUROC is over {counted} findings here, in the paper over 14." in told
    assert "takes all of them for absent" not in told
    path = tmp_path / "run" / "record.json"
    record = json.loads(path.read_text())
    record["inputs"]["label_policy"] = {"uncertain": "one", "blank": "zero"}
    path.write_text(json.dumps(record))
    told = "\n".join(differences_from_paper_b([only_study(tmp_path)]))
    assert "uncertain labels as one; blank labels as zero; the paper takes all of them" in told


def test_the_weights_of_attention_stand_side_by_side(tmp_path: Path):
    weighted = {1: (0.5, 0.6), 20: (0.7, 0.75), 400: (0.72,)}
    for beta, best in weighted.items():
        for seed, auroc in enumerate(best):
            taken = followed(attention={**ATTENTION, "beta": beta})
            trained = classifier(transfer=taken, seed=seed)
            write_classifier_training(tmp_path / f"{beta}-{seed}", trained, (0.4, auroc, 0.45))
    write_classifier_training(tmp_path / "plain", classifier())
    write_classified(tmp_path / "test", classifier())

    table = weight_table(collect_curves(collect([tmp_path]).classifier_trainings, []))

    assert table is not None
    assert column(table, "β") == ["1", "20", "400"] and column(table, "Seeds") == ["1"] * 3
    assert column(table, "Validation AUROC %") == ["50.00", "70.00", "72.00"]
    assert [any(cell.strong for cell in row) for row in table.rows] == [False, False, True]
    assert "β on the validation images" in to_markdown(document_of(tmp_path))
    assert "The best β (400) is the smallest or the largest tried" in table.remarks[-1]
    taken = followed(attention={**ATTENTION, "beta": 1000})
    write_classifier_training(tmp_path / "1000-0", classifier(transfer=taken), (0.4, 0.5, 0.45))
    table = weight_table(collect_curves(collect([tmp_path]).classifier_trainings, []))
    assert table is not None and not any("beyond" in each for each in table.remarks)


def test_weights_of_attention_that_were_validated_otherwise_are_warned_of(tmp_path: Path):
    for beta in (1, 20):
        trained = classifier(transfer=followed(attention={**ATTENTION, "beta": beta}))
        if beta == 20:
            trained = {**trained, "validated_on": {**trained["validated_on"], "splits": ["dev"]}}
        write_classifier_training(tmp_path / f"{beta}", trained)
    write_classified(tmp_path / "test", classifier())
    table = weight_table(collect_curves(collect([tmp_path]).classifier_trainings, []))
    assert table is not None
    assert "were validated on other images or findings, too" in table.remarks[0]


def test_weights_of_attention_are_compared_by_the_seeds_that_all_have(tmp_path: Path):
    weighted = {1: {0: 0.5, 1: 0.6}, 20: {0: 0.7, 1: 0.75}, 400: {1: 0.72}}
    for beta, best in weighted.items():
        for seed, auroc in best.items():
            taken = followed(attention={**ATTENTION, "beta": beta})
            trained = classifier(transfer=taken, seed=seed)
            write_classifier_training(tmp_path / f"{beta}-{seed}", trained, (0.4, auroc, 0.45))
    write_classified(tmp_path / "test", classifier())
    table = weight_table(collect_curves(collect([tmp_path]).classifier_trainings, []))
    assert table is not None and column(table, "Seeds") == ["1"] * 3
    assert column(table, "Validation AUROC %") == ["60.00", "75.00", "72.00"]
    assert [any(cell.strong for cell in row) for row in table.rows] == [False, True, False]


def test_one_column_of_one_seed_has_nothing_bold_and_no_note_on_intervals(tmp_path: Path):
    write_classified(tmp_path / "a", classifier())
    table = main_table(only_study(tmp_path))
    assert not any(cell.strong for row in table.rows for cell in row)
    assert not any("±" in remark or "Bold" in remark for remark in table.remarks)


def test_the_papers_table_beside_real_ones_speaks_of_phantoms_only(tmp_path: Path):
    write_classified(tmp_path / "a", classifier())
    real = classifier(images_of("covid", phantom=False))
    write_classified(tmp_path / "b", real, dataset="covid", phantom=False)
    text = to_markdown(document_of(tmp_path))
    assert "any number above that is marked (phantom)" in text
    assert "any number above:" not in text


def test_a_phantoms_teacher_or_start_keeps_the_papers_numbers_away(tmp_path: Path):
    real = images_of("chexpert", 1000, phantom=False)
    lineages = {
        "start": classifier(real, parent=start("x", classifier(images_of("chestxray14")))),
        "teacher": classifier(
            real, parent=start("imagenet"), transfer=taught_by(images_of("mimic"))
        ),
        "neither": classifier(real, parent=start("imagenet")),
    }
    for name, trained in lineages.items():
        write_classified(tmp_path / name, trained, phantom=False)
    rows = main_table(only_study(tmp_path)).rows
    notes = [note for row in rows for cell in row for note in cell.notes]
    assert notes == ["paper 68.06 ± 0.14 (table 2)"]


def test_findings_are_shown_for_the_setting_that_methods_share(tmp_path: Path):
    for name, size, taken, signal in (
        ("a", 100, None, 1.0), ("b", 100, followed(), 1.2), ("c", 400, None, 2.0),
    ):  # fmt: skip
        trained = classifier(images_of(samples=size), transfer=taken)
        write_classified(tmp_path / name, trained, signal)
    table = findings_table(only_study(tmp_path))
    assert "100 images, from random weights" in table.title
    assert table.header[2] == "Transfer learning"
    lonely = classifier(images_of(samples=900), transfer=followed(distillation=DISTILLATION))
    write_classified(tmp_path / "d", lonely)
    table = findings_table(only_study(tmp_path))
    assert ["100 images" in name for name in table.header[2:]] == [True, False, True]
    assert "900 images" in table.header[3]
    assert any("do not compare methods" in remark for remark in table.remarks)


@pytest.mark.parametrize("value", [1.5, -0.1, float("nan")])
def test_a_calibration_error_that_is_no_share_is_refused(tmp_path: Path, value: float):
    write_classified(tmp_path / "right", classifier(seed=1))
    write_classified(tmp_path / "wrong", classifier())
    record = json.loads((tmp_path / "wrong" / "record.json").read_text())
    record["metrics"]["calibration_error_mean"] = value
    (tmp_path / "wrong" / "record.json").write_text(json.dumps(record))
    (left_out,) = collect([tmp_path]).left_out
    assert "expected a share from 0 to 1" in left_out.reason


def test_names_of_methods_use_words_and_are_never_the_same():
    settings = [
        {"preset": "paper", "taps": None, "reduction": "eq2"},
        {"preset": None, "taps": [{"student": "a.b", "teacher": "c"}], "reduction": "zagoruyko"},
        {"preset": None, "taps": [{"student": "a.b", "teacher": "d"}], "reduction": "zagoruyko"},
    ]
    methods = [
        read_lineage(classifier(transfer=followed(attention=ATTENTION | each))).method
        for each in settings
    ]
    beginning = "Attention transfer, teacher “teacher” of mimic, "
    assert list(name_methods(methods).values()) == [
        f"{beginning}the paper's taps, equation 2",
        f"{beginning}taps a.b, mean of squares",
        f"{beginning}taps a.b, mean of squares (2)",
    ]


def test_one_setting_written_as_a_whole_number_is_the_same():
    methods = {
        read_lineage(classifier(transfer=followed(attention=ATTENTION | {"beta": beta}))).method
        for beta in (1, 1.0)
    }
    assert len(methods) == 1


def has_ink_at_the_right_edge(png: bytes) -> bool:
    with Image.open(io.BytesIO(png), formats=("PNG",)) as image:
        return bool((np.asarray(image.convert("L"))[:, -2:] < 200).any())


def test_figures_with_long_names_are_not_cut_off_at_the_right(tmp_path: Path):
    name = "a teacher whose name is very long, " * 5
    transfers = (None, followed(name), followed(name, distillation=DISTILLATION))
    for number, taken in enumerate(transfers):
        trained = classifier(transfer=taken)
        write_classified(tmp_path / "tests" / str(number), trained)
        write_classifier_training(tmp_path / "runs" / str(number), trained)
    figures = document_of(tmp_path).figures
    assert len(figures) == 3
    assert not any(has_ink_at_the_right_edge(figure.png) for figure in figures)


def test_curves_of_each_dataset_are_a_figure_that_names_it(tmp_path: Path):
    for dataset, phantom in (("covid", False), ("mimic", True)):
        for name, taken in (("plain", None), ("taught", followed())):
            trained = classifier(images_of(dataset, phantom=phantom), transfer=taken)
            write_classifier_training(tmp_path / dataset / name, trained)
    write_classified(tmp_path / "test", classifier())
    titles = [figure.title for figure in document_of(tmp_path).figures]
    assert [each.rsplit(" from ", 1)[1] for each in titles] == ["covid", "mimic (phantom)"]


def test_curves_of_another_reading_of_labels_are_a_panel_of_their_own(tmp_path: Path):
    for name, changes in (("a", {}), ("b", OTHER_POLICY)):
        write_classifier_training(tmp_path / "runs" / name, classifier() | changes)
    write_classified(tmp_path / "test", classifier())
    assert len(collect_curves(collect([tmp_path]).classifier_trainings, [])) == 2


def test_both_rings_mark_the_epoch_of_the_highest_auroc(tmp_path: Path):
    folder = write_classifier_training(
        tmp_path / "run", classifier(), auroc=(0.6, 0.7, 0.8), loss=(0.3, 0.5, 0.6)
    )
    curve = read_auroc_curve(folder / "metrics.jsonl", 2)
    panels = Canvas().subplots(2)
    draw_repeats(*panels, [curve], "black", "-")
    rings = [
        line.get_xdata().tolist()
        for axes in panels
        for line in axes.lines
        if line.get_marker() == "o"
    ]
    assert rings == [[3], [3]]


def test_a_teacher_of_phantoms_is_marked_beside_its_attention(tmp_path: Path):
    write_classified(tmp_path / "test", classifier())
    write_classifier_training(tmp_path / "teacher", classifier())
    write_attention(tmp_path / "a", "one")
    write_attention(tmp_path / "b", "two")
    titles = [figure.title for figure in document_of(tmp_path).figures]
    assert any("like that of teacher (phantom), by finding" in title for title in titles)
