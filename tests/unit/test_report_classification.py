"""Records of classifiers become paper B's table 2, differences, curves and warnings."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.many_comparisons import holm
from nakt_dist.evaluation.resampling import paired_difference
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.report.auroc_curves import (
    collect_curves,
    draw_auroc_curves,
    mean_curve,
    read_auroc_curve,
)
from nakt_dist.report.cautions import classifier_cautions
from nakt_dist.report.classification_tables import main_table, others_table, show_millions
from nakt_dist.report.content import make_document, terminal_tables
from nakt_dist.report.differences import Difference, differences_table, find_differences
from nakt_dist.report.document import Bullets, Figure, Table
from nakt_dist.report.finding_differences import finding_differences_table
from nakt_dist.report.finding_tables import findings_table, subgroups_table
from nakt_dist.report.markdown import to_markdown
from nakt_dist.report.operating_tables import operating_tables
from nakt_dist.report.paper import all_auroc, chest_dataset_name, find_auroc
from nakt_dist.report.reliability_figures import draw_reliability
from nakt_dist.report.runs import LeftOut, collect
from nakt_dist.report.studies import Study, make_studies
from nakt_dist.signals.kind import ATTENTION_TRANSFER
from tests.classifier_records import (
    ATTENTION,
    DISTILLATION,
    FINDINGS,
    classifier,
    followed,
    images_of,
    labelled,
    predictions,
    start,
    write_attention,
    write_classified,
    write_classifier_training,
    write_study,
)
from tests.records import annotations, lineage, scores, sha, write_evaluation


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


def only_study(folder: Path) -> Study:
    (study,), left_out = make_studies(collect([folder]).classified)
    assert not left_out
    return study


def column(table: Table, beginning: str) -> list[str]:
    (place,) = (n for n, name in enumerate(table.header) if name.startswith(beginning))
    return [row[place].text for row in table.rows]


def one_difference(folder: Path, left_out: list[LeftOut] | None = None) -> Difference:
    left_out = [] if left_out is None else left_out
    (difference,) = find_differences(only_study(folder), left_out)
    return difference


def test_a_cell_is_the_mean_over_seeds_with_the_papers_interval(tmp_path: Path):
    found = [
        write_classified(tmp_path / f"run-{seed}", classifier(seed=seed), 1.0) for seed in range(3)
    ]
    spread = math.sqrt(sum((value - np.mean(found)) ** 2 for value in found) / 2)
    table = main_table(only_study(tmp_path))
    expected = f"{np.mean(found):.2f} ± {1.96 * spread / math.sqrt(3):.2f}"
    assert [cell.text for cell in table.rows[0]] == ["DenseNet-121", "100", "random", expected]
    assert table.header == ("Network", "Training images", "First weights", "Transfer learning")
    assert any("over 3 seeds" in remark for remark in table.remarks)
    assert any("from scratch" in remark for remark in table.remarks)
    assert "(phantom)" in table.title


def test_one_seed_has_no_interval_and_unlike_numbers_are_shown(tmp_path: Path):
    one = write_classified(tmp_path / "one", classifier(), 1.0)
    two = [
        write_classified(tmp_path / f"two-{seed}", classifier(seed=seed, transfer=followed()), 2.0)
        for seed in (0, 1)
    ]
    row = main_table(only_study(tmp_path)).rows[0]
    assert row[3].text == f"{one:.2f} (n=1)" and not row[3].strong
    assert row[4].text.startswith(f"{np.mean(two):.2f} ± ") and row[4].text.endswith(" (n=2)")
    assert row[4].strong


def test_table_2_has_a_row_for_each_network_size_and_start(study_folder: Path):
    study = make_studies(collect([study_folder]).classified)[0][0]
    table = main_table(study)
    assert table.header[3:] == (
        "Transfer learning, all layers",
        "Transfer learning, last 34 layers",
        "Attention transfer, teacher “teacher” of mimic (phantom)",
    )
    rows = [tuple(cell.text for cell in row[:3]) for row in table.rows]
    assert rows == [
        (network, size, "imagenet")
        for network in ("DenseNet-121", "DenseNet-40")
        for size in ("100", "400")
    ]
    assert column(table, "Transfer learning, last")[2:] == ["–", "–"]
    assert (
        "Trainable parameters: DenseNet-121 7.0 M (all layers), 2.7 M (last 34 layers); "
        "DenseNet-40 1.4 M (all layers)."
    ) in table.remarks
    assert show_millions(1000) == "1.0 k"


def test_the_teacher_is_no_row_but_stands_in_a_table_of_its_own(study_folder: Path):
    studies, _ = make_studies(collect([study_folder]).classified)
    assert [bool(study.cells) for study in studies] == [True, False]
    (row,) = others_table(studies).rows
    assert [cell.text for cell in row[:4]] == [
        "teacher", "DenseNet-121", "1,200 images of mimic (phantom)", "mimic (phantom), split test",
    ]  # fmt: skip


def test_rows_of_one_table_share_images_findings_and_policy(tmp_path: Path):
    write_classified(tmp_path / "a", classifier())
    write_classified(tmp_path / "b", classifier(), dataset="nih")
    write_classified(tmp_path / "c", classifier(findings=(*FINDINGS, "Hernia")))
    other = {"labels": list(FINDINGS), "label_policy": {"uncertain": "one", "blank": "zero"}}
    write_classified(tmp_path / "d", classifier())
    path = tmp_path / "d" / "record.json"
    record = json.loads(path.read_text())
    record["inputs"] |= other
    path.write_text(json.dumps(record))
    assert len(make_studies(collect([tmp_path]).classified)[0]) == 4
    assert len(terminal_tables(collect([tmp_path]))) == 4


def test_a_repeated_seed_does_not_narrow_an_interval(tmp_path: Path):
    for name in ("a", "b"):
        write_classified(tmp_path / name, classifier(seed=3))
    (study,), left_out = make_studies(collect([tmp_path]).classified)
    assert len(study.runs) == 1
    assert left_out == [
        (f"{tmp_path.name}/b", f"repeats seed 3 of {tmp_path.name}/a, which is counted")
    ]


@pytest.mark.parametrize(
    ("transfers", "names"),
    [
        (
            [followed(attention={**ATTENTION, "beta": beta}) for beta in (1, 500)],
            ["Attention transfer, teacher “teacher” of mimic, β 1",
             "Attention transfer, teacher “teacher” of mimic, β 500"],
        ),
        (
            [followed("mimic-teacher"), followed("mimic-teacher", distillation=DISTILLATION),
             followed("mimic-teacher", attention=ATTENTION, distillation=DISTILLATION)],
            ["Distillation, teacher “mimic-teacher”", "Attention transfer, teacher “mimic-teacher”",
             "Attention transfer and distillation, teacher “mimic-teacher”"],
        ),
        ([followed("x", None)], ["Attention transfer, teacher “x”"]),
    ],
)  # fmt: skip
def test_methods_are_named_by_what_tells_them_apart(
    tmp_path: Path, transfers: list[dict[str, Any]], names: list[str]
):
    for number, transfer in enumerate(transfers):
        write_classified(tmp_path / str(number), classifier(transfer=transfer))
    study = only_study(tmp_path)
    assert [study.name(method) for method in study.methods] == names


def test_teachers_of_one_name_are_told_apart_by_their_weights(tmp_path: Path):
    for name in ("a", "b"):
        transfer = followed()
        transfer["teacher"]["weights_sha256"] = sha(f"{name} weights")
        write_classified(tmp_path / name, classifier(transfer=transfer))
    study = only_study(tmp_path)
    names = [study.name(method) for method in study.methods]
    assert len(set(names)) == 2 and all(name.endswith(("612077", "622077")) for name in names)


@pytest.mark.parametrize(
    ("options", "parent", "label"),
    [
        ({}, None, "random"),
        ({"pretrained": True}, None, "the library's weights"),
        ({}, start("imagenet"), "imagenet"),
        ({}, start("x", classifier(images_of("nih", 30))), "nih (phantom)"),
        ({}, start("x", lineage(annotations("nih", phantom=False))), "nih"),
    ],
)
def test_first_weights_are_named_by_what_they_learnt_from(options, parent, label: str):
    parsed = read_lineage(classifier(options=options, parent=parent))
    assert parsed.start.label == label


def test_pairs_of_equal_seeds_are_compared(tmp_path: Path):
    """Seeds 0 and 1 pair; seed 2 is there once only and does not count."""
    auroc = {
        (seed, signal): write_classified(
            tmp_path / f"{seed}-{signal}",
            classifier(seed=seed, transfer=followed() if signal > 1 else None),
            signal,
        )
        for seed, signal in ((0, 1), (1, 1), (2, 1), (0, 1.4), (1, 1.4))
    }
    differences = [auroc[seed, 1.4] - auroc[seed, 1] for seed in (0, 1)]
    found = one_difference(tmp_path)
    assert found.values == pytest.approx(differences)
    half_width = 1.96 * abs(differences[0] - differences[1]) / 2  # s = |a - b| / √2, n = 2
    assert found.over_seeds == pytest.approx((found.mean - half_width, found.mean + half_width))
    assert found.method.kind == ATTENTION_TRANSFER and found.verdict in ("better", "undecided")
    table = differences_table(only_study(tmp_path), [found])
    assert column(table, "Seeds") == ["2"] and column(table, "Difference") == [f"{found.mean:+.2f}"]
    assert any("too narrow" in remark for remark in table.remarks)


def resample_slowly(signals: tuple[float, float], seeds: tuple[int, ...]) -> np.ndarray:
    """Bootstraps patients and compares every pair; returns the mean difference of each resample."""
    tables = {(signal, seed): predictions(signal, seed) for signal in signals for seed in seeds}
    generator = np.random.default_rng(1)
    patients = np.array(tables[signals[0], seeds[0]]["patient_id"])
    names = np.unique(patients)
    means = []
    for _ in range(1000):
        drawn = generator.choice(names, len(names))
        rows = np.concatenate([np.flatnonzero(patients == patient) for patient in drawn])
        auroc = {
            key: np.mean([share_of_pairs(table, name, rows) for name in FINDINGS])
            for key, table in tables.items()
        }
        means.append(np.mean([auroc[signals[1], seed] - auroc[signals[0], seed] for seed in seeds]))
    return 100 * np.array(means)


def share_of_pairs(table: dict[str, Any], name: str, rows: np.ndarray) -> float:
    """Returns the share of pairs of a positive and a negative image that are ranked rightly."""
    score, truth = table[f"probability {name}"][rows], table[f"target {name}"][rows] == 1
    return float((score[truth][:, None] > score[~truth]).mean())


def test_the_interval_over_patients_is_that_of_an_independent_bootstrap(tmp_path: Path):
    for seed in (0, 1):
        write_classified(tmp_path / f"a-{seed}", classifier(seed=seed), 1.0)
        trained = classifier(seed=seed, transfer=followed())
        write_classified(tmp_path / f"b-{seed}", trained, 1.4)
    found = one_difference(tmp_path)
    expected = np.quantile(resample_slowly((1.0, 1.4), (0, 1)), (0.025, 0.975))
    assert found.over_patients == pytest.approx(expected, abs=0.4)
    assert found.over_patients[0] < found.mean < found.over_patients[1]


@pytest.mark.parametrize("damage", ["absent", "damaged", "of-another-run", "column"])
def test_predictions_must_be_what_the_record_sums_up(tmp_path: Path, damage: str):
    write_classified(tmp_path / "runs" / "a", classifier(), 1.0)
    write_classified(tmp_path / "runs" / "b", classifier(transfer=followed()), 1.4)
    write_classified(tmp_path / "x", classifier(findings=FINDINGS[:3]), 0.5)
    path = tmp_path / "runs" / "b" / "predictions.parquet"
    match damage:
        case "absent":
            path.unlink()
        case "damaged":
            path.write_bytes(b"PAR1")
        case "of-another-run":
            path.write_bytes((tmp_path / "runs" / "a" / "predictions.parquet").read_bytes())
        case "column":
            path.write_bytes((tmp_path / "x" / "predictions.parquet").read_bytes())
    left_out: list[LeftOut] = []
    found = one_difference(tmp_path / "runs", left_out)
    assert found.over_patients is None and found.verdict == "undecided: only one seed"
    assert [each.place for each in left_out] == ["runs/b"]
    assert "no interval over patients" in left_out[0].reason
    assert str(tmp_path) not in left_out[0].reason


def test_other_images_are_not_resampled_together(tmp_path: Path):
    write_classified(tmp_path / "a", classifier(), 1.0)
    write_classified(tmp_path / "b", classifier(transfer=followed()), 1.4, images=78)
    left_out: list[LeftOut] = []
    assert one_difference(tmp_path, left_out).over_patients is None and not left_out


@pytest.mark.parametrize(
    ("values", "over_patients", "verdict"),
    [
        ((1.0, 1.2, 1.1), (0.1, 2.0), "better"),
        ((1.0, 1.2, 1.1), (-0.1, 2.0), "undecided"),
        ((3.0, -1.0, 1.0), (0.1, 2.0), "undecided"),
        ((-1.0, -1.2, -1.1), (-2.0, -0.1), "worse"),
        ((1.0,), (0.1, 2.0), "undecided: only one seed"),
        ((1.0,), None, "undecided: only one seed"),
        ((1.0, 1.2), None, "undecided: no interval over patients"),
    ],
)
def test_better_and_worse_need_both_intervals(values, over_patients, verdict: str):
    assert Difference(None, None, None, values, over_patients, 100).verdict == verdict


def test_the_papers_numbers_stand_beside_real_images_of_its_size_only(tmp_path: Path):
    for phantom in (False, True):
        for samples in (1000, 3000):
            folder = tmp_path / str(phantom) / str(samples)
            trained_on = images_of("chexpert", samples, phantom=phantom)
            first = start("densenet121-imagenet")
            lineages = {
                "all": classifier(trained_on, parent=first),
                "last34": classifier(trained_on, parent=first, parts="last34"),
                "attention": classifier(trained_on, parent=first, transfer=followed("t")),
                "both": classifier(
                    trained_on, parent=first, transfer=followed("t", distillation=DISTILLATION)
                ),
            }
            for name, trained in lineages.items():
                write_classified(folder / f"{name}-{samples}", trained, phantom=phantom)
    real = main_table(only_study(tmp_path / "False"))
    notes = [[cell.notes for cell in row[3:]] for row in real.rows]
    assert notes == [
        [("paper 68.06 ± 0.14 (table 2)",), ("paper 67.50 ± 0.24 (table 2)",), (),
         ("paper 72.33 ± 0.12 (table 2)",)],
        [(), (), (), ()],
    ]  # fmt: skip
    phantoms = main_table(only_study(tmp_path / "True"))
    assert not any(cell.notes for row in phantoms.rows for cell in row)
    text = to_markdown(make_document(collect([tmp_path / "True"]), "Title"))
    assert "The paper's own table 2, for orientation only" in text
    assert "Not comparable with any number above" in text
    assert "for orientation" not in to_markdown(
        make_document(collect([tmp_path / "False"]), "Title")
    )


def test_the_papers_numbers_are_all_there():
    assert len(all_auroc()) == 63
    assert {each.table for each in all_auroc()} == {2, 3, 5}
    (found,) = find_auroc("CheXpert-small", 1005, "NIH", "DenseNet-40", 1_364_142, "mimic_cxr")
    assert found.text == "69.31 ± 0.02" and found.table == 2
    (found,) = find_auroc("chestxray14_sample", 4490, "ImageNet", "DenseNet-40", 1_364_142, "mimic")
    assert found.text == "75.79 ± 1.17" and found.table == 5
    assert chest_dataset_name("chest_x-ray_14") == "ChestX-ray14"
    assert chest_dataset_name("covid") is None


def test_findings_without_a_class_are_named_and_counted(tmp_path: Path):
    names = (*FINDINGS, "Hernia")
    auroc = write_classified(tmp_path / "run", classifier(findings=names), 1.0)
    study = only_study(tmp_path)
    table = findings_table(study)
    assert [row[0].text for row in table.rows] == [*names, "Mean"]
    assert table.rows[4][2].text == "–" and table.rows[4][1].text == "0 of 80"
    assert table.rows[5][2].text == f"{auroc:.1f}" and table.rows[5][1].text == "4 findings"
    (run,) = study.runs
    shown = run.result.findings[0]
    assert table.rows[0][2].notes == (
        f"AP {shown.average_precision:.1f} · ECE {shown.calibration_points:.1f} points",
        f"pAUROC {shown.partial_auroc:.1f}",
    )
    assert 1 < shown.calibration_points < 100  # percentage points, where the record has a share
    assert any(
        "over 4 findings; 1 left out" in remark and "Hernia" in remark
        for remark in main_table(study).remarks
    )


def test_groups_of_patients_and_their_gap(tmp_path: Path):
    write_classified(tmp_path / "run", classifier(), 1.0)
    study = only_study(tmp_path)
    (run,) = study.runs
    rows = {row[0].text: row[2].text for row in subgroups_table(study).rows}
    by_name = {group.group: group.auroc_mean for group in run.result.groups}
    gap = abs(by_name["F"] - by_name["M"])
    assert rows == {
        "sex: F": f"{by_name['F']:.1f}", "sex: M": f"{by_name['M']:.1f}", "sex: gap": f"{gap:.1f}",
    }  # fmt: skip


def test_a_curve_holds_the_training_loss_between_validations(tmp_path: Path):
    rows = [
        {"step": 1, "cross_entropy": 4.0}, {"step": 2, "cross_entropy": 2.0},
        {"step": 2, "validation_auroc": 0.5, "validation_loss": 1.0},
        {"step": 3, "cross_entropy": 1.0}, {"step": 3, "loss": 9.0},
        {"step": 4, "validation_auroc": 0.75, "validation_loss": 2.0},
        {"step": 6, "validation_auroc": 0.5, "validation_loss": 3.0},
    ]  # fmt: skip
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step"')
    curve = read_auroc_curve(path, steps_per_epoch=2)
    assert curve.places.tolist() == [1, 2, 3] and curve.auroc.tolist() == [50, 75, 50]
    assert curve.training_loss[:2].tolist() == [3, 1] and np.isnan(curve.training_loss[2])


def test_the_mean_curve_covers_what_all_seeds_have(tmp_path: Path):
    curves = []
    for seed, auroc in enumerate(([0.5, 0.6, 0.7], [0.7, 0.8])):
        folder = write_classifier_training(
            tmp_path / str(seed), classifier(seed=seed), auroc, [1.0] * len(auroc)
        )
        curves.append(read_auroc_curve(folder / "metrics.jsonl", 2))
    places, (auroc, *_) = mean_curve(curves)
    assert places.tolist() == [1, 2] and auroc.tolist() == pytest.approx([60, 70])


def test_curves_are_grouped_by_network_size_and_method(study_folder: Path):
    left_out: list[LeftOut] = []
    curves = collect_curves(collect([study_folder]).classifier_trainings, left_out)
    assert not left_out
    assert [(panel.network.label, panel.trained_on.samples) for panel in curves] == [
        (network, size) for network in ("DenseNet-121", "DenseNet-40") for size in (100, 400)
    ]
    assert [len(methods) for methods in curves.values()] == [3, 3, 2, 2]
    assert all(len(repeats) == 3 for methods in curves.values() for repeats in methods.values())
    (figure,), (again,) = draw_auroc_curves(curves), draw_auroc_curves(curves)
    assert figure.png == again.png and figure.png.startswith(b"\x89PNG")
    assert figure.title.endswith("chexpert (phantom)")


def test_a_training_loss_that_weighs_labels_is_said_not_to_compare(tmp_path: Path):
    write_classified(tmp_path / "test", classifier())
    write_classifier_training(tmp_path / "plain", classifier())

    def caption() -> str:
        curves = collect_curves(collect([tmp_path]).classifier_trainings, [])
        return draw_auroc_curves(curves)[0].caption

    assert "do not compare" not in caption()
    balanced = {"positive_weighting": "balanced", "certainty_weighting": "none"}
    write_classifier_training(tmp_path / "balanced", classifier(seed=1), recipe=balanced)
    assert caption().endswith("its level and that on the validation images do not compare.")


@pytest.mark.parametrize(
    "text",
    [
        "", "damage\n", '{"step": 1, "validation_auroc": null}\n', "[1]\n",
        f'{{"step": 1{400 * "0"}, "validation_auroc": 0.5, "validation_loss": 1}}\n',
        f'{{"step": 1, "cross_entropy": 1{400 * "0"}}}\n',
    ],
)  # fmt: skip
def test_a_training_without_validations_is_named(tmp_path: Path, text: str):
    write_classified(tmp_path / "test", classifier())
    folder = write_classifier_training(tmp_path / "run", classifier())
    (folder / "metrics.jsonl").write_text(text)
    left_out: list[LeftOut] = []
    curves = collect_curves(collect([tmp_path]).classifier_trainings, left_out)
    assert not draw_auroc_curves(curves)
    assert left_out[0].place.endswith("run") and "no learning curve" in left_out[0].reason


def cautions_of(folder: Path) -> str:
    collection = collect([folder])
    studies, _ = make_studies(collection.classified)
    return "\n".join(classifier_cautions(studies, collection.classifier_trainings))


@pytest.mark.parametrize(
    ("trained", "words"),
    [
        (classifier(images_of(split="test")), "run on chexpert (phantom), split test: learnt from "
         "the very splits it was tested on"),
        (classifier(parent=start("x", classifier(images_of(split="test")))),
         "started from weights that learnt from the very splits"),
        (classifier() | {"validated_on": images_of(split="test")}, "has its best epoch chosen on"),
        (classifier(images_of() | {"fingerprint": "0"}), "another packing of the test set"),
        (classifier() | {"validated_on": None}, "No validation set chose the epoch of run"),
        (classifier(transfer=followed("t", "chexpert")), "whether from its test patients, no"),
        (classifier(images_of("mimic")), "Intervals over seeds"),
    ],
)  # fmt: skip
def test_a_network_that_may_have_met_its_test_images_is_named(tmp_path: Path, trained, words: str):
    write_classified(tmp_path / "run", trained)
    assert words in cautions_of(tmp_path)


def test_an_interval_over_few_patients_is_told_once_for_each_test_set(tmp_path: Path):
    for seed in (0, 1):
        write_classified(tmp_path / f"run-{seed}", classifier(seed=seed), images=20)
    told = cautions_of(tmp_path)
    assert told.count("On chexpert (phantom), split test the interval rests on ") == 1
    assert "from fewer than 20 it is not to be relied on." in told


def test_a_teacher_that_learnt_from_the_test_images_is_named(tmp_path: Path):
    write_classified(tmp_path / "teacher", classifier(images_of(split="test")))
    write_classified(tmp_path / "student", classifier(transfer=followed("teacher", "chexpert")))
    assert (
        "⚠ The teacher “teacher” of chexpert (phantom) of students tested on chexpert (phantom), "
        "split test learnt from the very splits"
    ) in cautions_of(tmp_path)


def test_unlike_recipes_and_starts_are_named(tmp_path: Path):
    for name, seed, transfer, recipe, weights in (
        ("a", 0, None, {}, "x"),
        ("b", 1, None, {"learning_rate": 1.0}, "y"),
        ("c", 0, followed(), {"global_batch_size": 8}, "x"),
    ):
        parent = start("imagenet") | {"weights_sha256": sha(weights)}
        trained = classifier(seed=seed, transfer=transfer, parent=parent)
        write_classified(tmp_path / "tests" / name, trained)
        write_classifier_training(
            tmp_path / "runs" / name, trained, recipe=recipe, frozen_bn_eval=name == "b"
        )
    text = cautions_of(tmp_path)
    assert "the first weights called imagenet are 2 different files" in text
    assert "differ in more than the seed: frozen_bn_eval, recipe.learning_rate." in text
    assert "were also trained differently: recipe.global_batch_size." in text


def test_a_repeated_seed_of_another_recipe_is_told_in_tables_and_curves(tmp_path: Path):
    for name, recipe in (("a", {}), ("b", {"learning_rate": 1.0}), ("c", {})):
        trained = classifier(seed=0)
        write_classified(tmp_path / "tests" / name, trained)
        write_classifier_training(tmp_path / "runs" / name, trained, recipe=recipe)
    collection, left_out = collect([tmp_path]), []
    reasons = {Path(each.place).name: each.reason for each in collection.studies[1]}
    assert reasons["b"].endswith("is counted, though trained with other settings: "
                                 "recipe.learning_rate")  # fmt: skip
    assert reasons["c"].endswith("which is counted")
    collect_curves(collection.classifier_trainings, left_out)
    assert [Path(each.place).name for each in left_out] == ["b"]
    assert "which is drawn, though trained with other settings" in left_out[0].reason


def test_whether_runs_differ_is_not_known_without_the_records_of_their_trainings(tmp_path: Path):
    for seed in (0, 1):
        write_classified(tmp_path / "tests" / f"net-{seed}", classifier(seed=seed))
    write_classified(tmp_path / "tests" / "last-2", classifier(seed=2))
    write_classifier_training(tmp_path / "runs" / "net-0", classifier(seed=0))
    path = write_classifier_training(tmp_path / "runs" / "net-2", classifier(seed=2))
    record = json.loads((path / "record.json").read_text())
    record["details"]["last_weights_sha256"] = sha("last-2")
    (path / "record.json").write_text(json.dumps(record))
    assert (
        "The records of the trainings of net-1 are not here: whether they differ" in
        cautions_of(tmp_path)
    )  # fmt: skip


def test_a_study_alike_in_all_but_seeds_and_teacher_raises_no_such_caution(study_folder: Path):
    text = cautions_of(study_folder)
    assert "differ" not in text and "very splits" not in text and "validation set" not in text


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("metrics.auroc_mean", None, "no finding has both classes"),
        ("metrics.auroc_mean", 101, "from 0 to 100"),
        ("metrics.auroc_interval_95", [1], "expected 2 limits"),
        ("details.labels", [{"name": "x"}], "the field 'positives' is missing"),
        ("details.lineage.seed", "0", "the field 'seed' is '0', expected int"),
        ("details.lineage.trainable", {}, "the field 'trainable.parts' is missing"),
        ("details.lineage.labels", [1], "expected a list of texts"),
        ("details.lineage.transfer", {"attention": None, "distillation": None}, "neither"),
        ("details.model", {"options": {}}, "the field 'name' is missing"),
        ("details.subgroups", 5, "damaged: TypeError"),
        ("details.interval.cautions", -1, "the field 'interval.cautions' is -1, expected list"),
        ("details.interval.resamples", "", "the field 'interval.resamples' is '', expected int"),
        ("details.subgroup_labels", {"sex": 5}, "'subgroup_labels.sex' is 5, expected a list"),
    ],
)
def test_a_wrong_record_is_left_out_with_its_reason(tmp_path: Path, path, value, reason: str):
    write_classified(tmp_path / "right", classifier())
    write_classified(tmp_path / "wrong", classifier(seed=1))
    file = tmp_path / "wrong" / "record.json"
    record = json.loads(file.read_text())
    *parts, last = path.split(".")
    place = record
    for part in parts:
        place = place[part]
    place[last] = value
    file.write_text(json.dumps(record))
    collection = collect([tmp_path])
    assert len(collection.classified) == 1
    (left_out,) = collection.left_out
    assert left_out.place.endswith("wrong") and reason in left_out.reason


def test_foreign_weights_are_listed_apart(tmp_path: Path):
    write_classified(tmp_path / "chexnet", {}, network="densenet121")
    studies, _ = make_studies(collect([tmp_path]).classified)
    assert not studies[0].cells
    assert [cell.text for cell in others_table(studies).rows[0][:3]] == [
        "chexnet", "DenseNet-121", "unknown",
    ]  # fmt: skip
    (table,) = terminal_tables(collect([tmp_path]))
    assert table.title.startswith("Teachers")
    brief = make_document(collect([tmp_path]), "Title").sections[0]
    assert "“chexnet”, DenseNet-121, reaches a mean AUROC" in brief.blocks[-1].items[0]


def figures_of(folder: Path) -> dict[str, Figure]:
    return {figure.name: figure for figure in make_document(collect([folder]), "Title").figures}


def test_attention_is_shown_by_finding_and_as_sheets(tmp_path: Path):
    write_classified(tmp_path / "test", classifier())
    write_attention(tmp_path / "attention" / "a", "student", sheet=b"\x89PNG\r\n\x1a\nrest")
    alone = figures_of(tmp_path)
    assert alone["attention-sheet-1.png"].png.endswith(b"rest")
    assert (
        "Attention of student and of teacher, its teacher" in alone["attention-sheet-1.png"].title
    )
    assert "student" in alone["attention-similarity-1.png"].title
    write_attention(tmp_path / "attention" / "b", "other", (0.1, None, None, 0.3), b"GIF89a")
    both = make_document(collect([tmp_path]), "Title")
    names = [figure.name for figure in both.figures]
    assert names == ["attention-similarity-1.png", "attention-sheet-1.png"]
    assert "attention/b" in to_markdown(both) and "is not a PNG" in to_markdown(both)


@pytest.mark.timeout(60)
def test_a_pipe_in_the_place_of_a_sheet_is_named_and_not_waited_for(tmp_path: Path):
    write_classified(tmp_path / "test", classifier())
    write_attention(tmp_path / "attention", "student")
    os.mkfifo(tmp_path / "attention" / "attention.png")
    assert "it is not a regular file" in to_markdown(make_document(collect([tmp_path]), "Title"))


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": [{"name": "x", "images": 1}]},
        {"labels": [{"name": "x", "images": 1, "similarity_mean": None, "similarity_std": None,
                     "similarity_to_other_image_mean": None}]},
        {"teacher": None},
        {"test_set": {"dataset": 1, "phantom": True}},
    ],
)  # fmt: skip
def test_a_wrong_attention_record_is_left_out(tmp_path: Path, changes: dict[str, Any]):
    write_classified(tmp_path / "test", classifier())
    write_attention(tmp_path / "attention", "student", **changes)
    document = make_document(collect([tmp_path]), "Title")
    assert not document.figures and f"{tmp_path.name}/attention" in to_markdown(document)


def test_the_document_of_a_study_holds_every_part(study_folder: Path):
    document = make_document(collect([study_folder]), "Title")
    assert [section.identifier for section in document.sections] == [
        "brief", "auroc", "teacher-gives", "curves", "by-finding", "groups", "auroc-comparable",
        "left-out", "runs",
    ]  # fmt: skip
    assert [figure.name for figure in document.figures] == [
        "auroc-by-size-1.png", "learning-curves-auroc-1.png", "auroc-by-finding-1.png",
    ]  # fmt: skip
    brief = document.sections[0].blocks
    assert isinstance(brief[-1], Bullets) and len(brief[-1].items) == 5  # against the best only
    assert brief[-1].items[0] == (
        "Tested on chexpert (phantom), split test, 80 images of 40 patients, mean AUROC:"
    )
    first = (
        "DenseNet-121, 100 images, from imagenet: Attention transfer, teacher “teacher” of mimic"
    )
    assert brief[-1].items[1].startswith(f"{first} (phantom), reaches ")
    assert "Nothing: every record" in to_markdown(document)


def test_both_kinds_in_one_folder_give_both(tmp_path: Path):
    write_evaluation(tmp_path / "a", lineage(annotations()), scores(0.5))
    write_classified(tmp_path / "b", classifier())
    collection = collect([tmp_path])
    document = make_document(collection, "Title")
    identifiers = [section.identifier for section in document.sections]
    assert identifiers[:2] == ["brief", "results"] and "auroc" in identifiers
    assert len(set(identifiers)) == len(identifiers)
    assert document.subtitle.startswith("2 evaluations of 2 networks on 2 test sets")
    titles = [table.title for table in terminal_tables(collection)]
    assert titles[0].startswith("Tested on breast")
    assert titles[1].startswith("Mean AUROC % on chexpert")


def test_a_folder_without_any_evaluation_is_refused(tmp_path: Path):
    write_classifier_training(tmp_path / "run", classifier())
    with pytest.raises(DatasetError, match=r"no record\.json of a finished evaluation"):
        collect([tmp_path])


@pytest.mark.parametrize("policy", [[None], {"blank": {}}, {"blank": 1}, "one"])
@pytest.mark.parametrize("where", ["inputs", "lineage"])
def test_a_policy_of_labels_that_is_none_leaves_its_record_out(tmp_path: Path, where: str, policy):
    write_classified(tmp_path / "whole", classifier(images_of()))
    write_classified(tmp_path / "run", classifier(images_of()))
    path = tmp_path / "run" / "record.json"
    record = json.loads(path.read_text())
    holder = record["inputs"] if where == "inputs" else record["details"]["lineage"]
    holder["label_policy"] = policy
    path.write_text(json.dumps(record))
    page = to_markdown(make_document(collect([tmp_path]), "Title"))
    assert "label_policy' is" in page


# ------------------------------------------------------------------------ operating points


def test_operating_points_of_each_methods_first_seed_stand_in_a_table_of_its_own(tmp_path: Path):
    for seed in range(2):
        write_classified(tmp_path / f"run-{seed}", classifier(seed=seed), operating=True)
    study = only_study(tmp_path)
    (table,) = operating_tables(study)
    assert table.title.startswith("Operating points of run-0 on chexpert (phantom)")
    rules = ("Youden's J", "Sensitivity 90 %", "Specificity 90 %")
    assert table.header == ("Finding", "Calibration", *rules)
    assert [row[0].text for row in table.rows] == [*FINDINGS, "Mean"]
    result = study.runs[0].result
    point = result.operating_points.findings[0].points[0]
    cell = table.rows[0][2]
    assert cell.text == f"{point.rates['sensitivity']:.1f} / {point.rates['specificity']:.1f}"
    assert cell.notes[1].startswith(f"PPV {point.rates['ppv']:.1f} (")
    assert cell.notes[3] == f"from {point.threshold:.3g} on"
    scaled = [100 * each.calibration_error_scaled for each in result.operating_points.findings]
    plain = f"{result.calibration_points:.1f}"
    assert table.rows[-1][1].text == f"ECE {plain} → {np.mean(scaled):.1f}"
    assert "Chosen on 80 images of chexpert (phantom), split validation." in table.remarks
    assert "The first of 2 seeds." in table.remarks
    assert draw_reliability(study, 1).name == "reliability-1.png"


@pytest.mark.parametrize("learnt", [True, False, None])
def test_thresholds_chosen_on_what_was_learnt_are_warned_of(tmp_path: Path, learnt: bool | None):
    write_classified(tmp_path / "run", classifier(), operating=True)
    path = tmp_path / "run" / "record.json"
    record = json.loads(path.read_text())
    record["details"]["operating_points"]["validation"]["learnt_from"] = learnt
    path.write_text(json.dumps(record))
    (table,) = operating_tables(only_study(tmp_path))
    assert any("chosen on images that the network learnt" in it for it in table.remarks) is (
        learnt is True
    )


def test_records_without_operating_points_or_of_earlier_versions_are_shown(tmp_path: Path):
    write_classified(tmp_path / "run", classifier())
    study = only_study(tmp_path)
    assert (operating_tables(study), draw_reliability(study, 1)) == ([], None)
    assert "pAUROC" in findings_table(study).rows[0][2].notes[1]
    path = tmp_path / "run" / "record.json"
    record = json.loads(path.read_text())
    for each in record["details"]["labels"]:
        del each["reliability"], each["partial_auroc"]  # as in records of earlier versions
    del record["metrics"]["partial_auroc_mean"]
    path.write_text(json.dumps(record))
    table = findings_table(only_study(tmp_path))
    assert all("pAUROC" not in note for row in table.rows for note in row[2].notes)


@pytest.mark.parametrize(
    "damage", [{"points": {}}, {"temperature": -1}, {"reliability_scaled": [0]}]
)
def test_damaged_operating_points_leave_their_record_out(tmp_path: Path, damage: dict[str, Any]):
    write_classified(tmp_path / "whole", classifier())
    write_classified(tmp_path / "run", classifier(), operating=True)
    path = tmp_path / "run" / "record.json"
    record = json.loads(path.read_text())
    record["details"]["operating_points"]["findings"][0] |= damage
    path.write_text(json.dumps(record))
    page = to_markdown(make_document(collect([tmp_path]), "Title"))
    assert f"the field '{next(iter(damage))}' is" in page


def test_p_values_are_corrected_for_the_comparisons_of_their_table(study_folder: Path):
    study = make_studies(collect([study_folder]).classified)[0][0]
    differences = find_differences(study, [])
    table = differences_table(study, differences)
    expected = holm([each.p_value for each in differences])
    assert column(table, "p, Holm") == [f"{value:.2g}" for value in expected]
    assert min(expected) > min(each.p_value for each in differences)


def test_what_a_teacher_gives_by_finding_is_the_paired_bootstrap_corrected_for_all(tmp_path: Path):
    names = (*FINDINGS, "Hernia")
    lineages = [
        classifier(findings=names, transfer=transfer) for transfer in (followed(), None)
    ]  # fmt: skip
    for number, (each, signal) in enumerate(zip(lineages, (1.5, 0.5), strict=True)):
        write_classified(tmp_path / f"run-{number}", each, signal)
    study = only_study(tmp_path)
    (difference,) = find_differences(study, [])
    ours, theirs = (labelled(predictions(signal, findings=names), names) for signal in (1.5, 0.5))
    owners = predictions(1.0)["patient_id"]
    found = paired_difference(
        ours.probabilities, theirs.probabilities, ours.targets, owners, difference.samples, seed=0
    )
    assert difference.over_patients == pytest.approx([100 * limit for limit in found.interval])
    expected = [each.p_value for each in found.labels[:4]]
    assert [each.p_value for each in difference.findings[:4]] == expected
    table = finding_differences_table(study, [difference])
    assert [row[1].notes[-1] for row in table.rows[:4]] == [f"p {p:.2g}" for p in holm(expected)]
    signs = [f"{100 * each.difference:+.2f}".replace("-", "−") for each in found.labels[:4]]
    assert [row[1].text for row in table.rows] == [*signs, "–"]
    assert "for 4 comparisons" in table.remarks[0]


def test_an_evaluation_that_thresholds_were_chosen_on_is_no_test(tmp_path: Path):
    write_classified(tmp_path / "tested" / "net", classifier(), operating=True)
    for folder, weights in (("validation", "net"), ("other", "others")):
        write_classified(tmp_path / folder / weights, classifier(seed=len(weights)))
        path = tmp_path / folder / weights / "record.json"
        record = json.loads(path.read_text())
        record["inputs"]["splits"] = record["details"]["test_set"]["splits"] = ["validation"]
        path.write_text(json.dumps(record))
    collection = collect([tmp_path])
    places = [f"{tmp_path.name}/{place}/net" for place in ("tested", "validation")]
    assert [run.place for run in collection.classified if run.weights_sha256 == sha("net")] == [
        places[0]
    ]
    assert len(collection.classified) == 2
    (left_out,) = collection.left_out
    words = f"no test: the thresholds of {places[0]} were chosen on it"
    assert left_out == LeftOut(places[1], words)
