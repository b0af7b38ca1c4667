"""`docs/reproduction.md`: what is committed is anonymous, and every number stands in it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from benchmarks.reproduction import __main__ as reproduction
from benchmarks.reproduction.claims import Claim, Row, Verdict
from benchmarks.reproduction.claims_a import claims_of_a
from benchmarks.reproduction.claims_b import claims_of_b
from benchmarks.reproduction.collecting import collect_study
from benchmarks.reproduction.contrasts import (
    Estimate,
    capability,
    difference_of_dice,
    gain_over_best,
)
from benchmarks.reproduction.figures import draw_dice
from benchmarks.reproduction.joining import join
from benchmarks.reproduction.mask_quality import judge_measures
from benchmarks.reproduction.page import fill, loose_numbers
from benchmarks.reproduction.per_image import in_no_order, mean_auroc_percent
from benchmarks.reproduction.records import Records, Run, Values, read_records
from benchmarks.reproduction.repetitions import by_student_t
from benchmarks.reproduction.tables import all_tables, verdict_of
from nakt_dist.config import InspectConfig
from nakt_dist.errors import DatasetError
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.records.pseudo_sets import read_pseudo_set
from nakt_dist.report.differences import find_differences
from nakt_dist.report.runs import collect
from nakt_dist.shards.manifest import PseudoLabelManifest
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.stages import inspect
from nakt_dist.studies.folder import Plan, PlannedRun
from nakt_dist.transfer.exclusion import ExclusionRule
from tests.classifier_records import FINDINGS, classifier, images_of, write_classified, write_study
from tests.datasets import make_packed_dataset, make_pseudo_labels
from tests.records import RULE, annotations, lineage, pseudo_masks, write_evaluation

NOT_RUN = "tests/never-run"


def plan(root: Path) -> Plan:
    """Returns the plan of a study: what lies below it, and one evaluation that does not."""
    names = sorted(f"tests/{path.name}" for path in (root / "tests").iterdir())
    runs = [
        PlannedRun(name, "evaluate", 1, "evaluate 1", {"seed": "0"}) for name in [*names, NOT_RUN]
    ]
    return Plan("open", str(root), tuple(runs))


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory):
    root = write_study(
        tmp_path_factory.mktemp("study"), seeds=2, sizes=(64, 256), networks=("densenet40",)
    )
    kept = tmp_path_factory.mktemp("committed")
    collect_study(root, plan(root), "abc1234").write(kept)
    return root, kept, read_records(kept)


def fold(folder: Path, number: int, dice: float, trained: dict, **options: object) -> None:
    """Writes an evaluation of 20 images that no other fold has."""
    values = np.clip(dice + np.linspace(-0.1, 0.1, 20), 0, 1)
    write_evaluation(
        folder, trained, values.tolist(), dataset="busi", splits=(f"fold{number}",), **options
    )
    table = pq.read_table(folder / "predictions.parquet").to_pydict()
    table["key"] = [f"fold-{number}-{key}" for key in table["key"]]
    pq.write_table(pa.table(table), folder / "predictions.parquet")


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """Two folds: a teacher of 80, students of 70 without and 76 with exclusion, 60 from scratch."""
    root = tmp_path_factory.mktemp("masks")
    for number in range(2):
        tests, teacher = root / "tests", f"teacher-{number}"
        fold(tests / teacher, number, 0.8, lineage(annotations("busi")), network="deeplabv3plus")
        for name, rule, dice in (("all", None, 0.7), ("chosen", RULE, 0.76)):
            images = pseudo_masks("isic", [teacher], exclusion=rule)
            fold(tests / f"{name}-{number}", number, dice, lineage(images))
        fold(tests / f"scratch-{number}", number, 0.6, lineage(annotations("busi", 50)))
    kept = tmp_path_factory.mktemp("committed-masks")
    collect_study(root, plan(root), "abc1234").write(kept)
    return root, read_records(kept)


def claim(claims: tuple[Claim, ...], key: str) -> Claim:
    return next(each for each in claims if each.key == key)


def row(claims: tuple[Claim, ...], key: str, of: str) -> Row:
    return next(each for each in claim(claims, of).rows if each.key == key)


def test_auroc_follows_exactly_from_what_is_committed(classifiers):
    _, _, records = classifiers
    assert records.images is not None
    for run in records.runs:
        told = records.values[run.name]
        auroc = mean_auroc_percent(told.values, records.images.targets[told.rows])
        assert auroc == pytest.approx(run.mean, abs=5e-5)  # the table has four decimals


def test_a_run_of_fewer_findings_is_kept_beside_the_others(tmp_path):
    for number, findings in enumerate((FINDINGS[:3], FINDINGS)):
        trained = classifier(images_of(samples=number + 1), findings=findings)
        write_classified(tmp_path / "tests" / f"{number}", trained)
    collect_study(tmp_path, plan(tmp_path), "abc1234").write(tmp_path / "kept")
    records = read_records(tmp_path / "kept")
    fewer, whole = (records.values[run.name].values for run in records.runs)
    assert np.isnan(fewer[:, 3]).all() and not np.isnan(whole).any()
    assert not np.isnan(fewer[:, :3]).any()
    assert records.images is not None and not np.isnan(records.images.targets).any()
    found = {"a": None, "b": records}
    rows = all_tables(reproduction.judge(found), found)["classifiers"].splitlines()
    assert {line.split(" | ")[-1] for line in rows[4:6]} == {"3 |", "4 |"}


def test_a_difference_is_that_of_the_report(classifiers):
    root, _, records = classifiers
    (study,) = [each for each in collect([root]).studies[0] if each.cells]
    by_size = {e.setting.trained_on.samples: e for e in find_differences(study, [])}
    estimate = row(claims_of_b(records), "fewest", "few").estimate
    assert estimate is not None and estimate.repeats == 2 and estimate.images == 80
    assert estimate.value == pytest.approx(by_size[64].mean, abs=1e-3)
    assert estimate.over_repeats == pytest.approx(by_size[64].over_seeds, abs=1e-3)
    assert estimate.drawn == pytest.approx(by_size[64].over_patients, abs=0.3)  # other resamples


def test_attention_that_peaks_later_delays_overfitting(classifiers):
    later = claim(claims_of_b(classifiers[2]), "later")
    assert later.verdict == Verdict.SUPPORTED
    assert all(each.estimate and each.estimate.value > 0 for each in later.rows)


def test_no_name_of_an_image_or_patient_and_no_path_is_committed(classifiers):
    root, kept, records = classifiers
    for path in kept.iterdir():
        data = path.read_bytes()
        for word in (b"image-0", b"patient-0", str(root.parent).encode(), b"/home"):
            assert word not in data, (path.name, word)
    assert records.images is not None
    order = [int(each) for each in records.images.patients]
    assert order != sorted(order) and set(order) == set(range(40))


def test_what_is_not_run_yet_is_listed(classifiers):
    about = classifiers[2].about
    assert (about["planned"], about["done"]) == (10, 9)
    assert about["not_run_yet"] == {NOT_RUN: {"seed": "0"}} and about["commit"] == "abc1234"


def test_an_evaluation_that_the_study_does_not_plan_is_left_out_and_said(classifiers):
    root = classifiers[0]
    planned = plan(root)
    first, *rest = planned.runs
    records = collect_study(root, replace(planned, runs=tuple(rest)), "abc1234")
    assert first.name not in {run.name for run in records.runs}
    assert [line for line in records.about["left_out"] if first.name in line]
    assert records.about["done"] == len(records.runs) == len(rest) - 1


def test_folds_are_put_together_image_by_image(masks):
    claims = claims_of_a(masks[1])
    exclusion = row(claims, "differ", "exclusion").estimate
    assert exclusion is not None and exclusion.images == 40
    assert exclusion.value == pytest.approx(6, abs=1e-4)
    assert exclusion.drawn == pytest.approx((6, 6), abs=1e-4)
    assert claim(claims, "exclusion").verdict == Verdict.SUPPORTED


def test_capability_is_of_the_best_student(masks):
    claims = claims_of_a(masks[1])
    found = row(claims, "isic-random", "close")
    assert found.estimate is not None and found.estimate.value == pytest.approx(95, abs=0.01)
    assert not found.decides  # dermoscopy, which the paper excepts
    assert claim(claims, "close").judge(found) == Verdict.UNDECIDED


def test_claims_without_runs_say_so(masks):
    claims = claims_of_a(masks[1])  # of the capability there is dermoscopy alone, which is excepted
    assert {claim(claims, key).verdict for key in ("close", "calibrated", "tuned", "weak")} == {
        Verdict.NOT_RUN
    }
    assert {each.verdict for each in (*claims_of_a(None), *claims_of_b(None))} == {Verdict.NOT_RUN}


def of_folds(masks, differences: dict[str, float]) -> tuple[Records, list[tuple[Run, Run]]]:
    """Returns records, and pairs named "fold seed", that differ by so many points in each image."""
    records = masks[1]
    pairs, values = [], dict(records.values)
    for name, points in differences.items():
        fold, seed = name.split()
        theirs = next(run for run in records.runs if run.name == f"tests/all-{fold}")
        ours = replace(theirs, name=f"tests/{name}", seed=int(seed))
        told = values[theirs.name]
        values[ours.name] = Values(told.rows, told.values + points)
        pairs.append((ours, theirs))
    runs = (*records.runs, *(ours for ours, _ in pairs))
    return replace(records, runs=runs, values=values), pairs


def test_seeds_of_one_fold_are_no_repetitions_of_their_own(masks):
    given = {"0 1": 1.0, "0 2": 2.0, "0 3": 3.0, "1 1": 5.0, "1 2": 6.0, "1 3": 7.0}
    found = difference_of_dice(*of_folds(masks, given))
    assert found is not None and (found.value, found.repeats) == (pytest.approx(4), 2)
    half_width = 1.96 * np.std([2, 6], ddof=1) / np.sqrt(2)
    assert found.over_repeats == pytest.approx((4 - half_width, 4 + half_width))


def test_folds_left_out_one_at_a_time_give_what_their_differences_do(masks):
    records, pairs = of_folds(masks, {"0 1": 1.0, "1 1": 5.0})
    difference = difference_of_dice(records, pairs)
    ours, theirs = zip(*pairs, strict=True)
    assert difference is not None
    gain = gain_over_best(records, ours, [theirs])
    assert gain is not None and gain.repeats == difference.repeats == 2
    assert gain.value == pytest.approx(difference.value)
    assert gain.over_repeats == pytest.approx(difference.over_repeats)
    ratio = capability(records, [ours], theirs)
    assert ratio is not None and ratio.over_repeats is not None
    assert sum(ratio.over_repeats) / 2 == pytest.approx(ratio.value)


def test_a_mean_is_of_settings_that_have_the_same_repetitions(classifiers):
    records = classifiers[2]
    students = [run for run in records.runs if run.role == "student"]
    gone = next(run for run in students if run.samples == 256 and run.seed == 1)
    kept = tuple(run for run in records.runs if run.name != gone.name)
    estimate = claim(claims_of_b(replace(records, runs=kept)), "small").rows[0].estimate
    assert estimate is not None and estimate.over_repeats is not None
    assert (estimate.runs, estimate.waiting, estimate.repeats) == (4, 2, 2)
    assert sum(estimate.over_repeats) / 2 == pytest.approx(estimate.value)


def test_students_t_reads_few_repetitions_more_carefully():
    for repeats in range(2, 7):
        told = by_student_t((1 - 1.96, 1 + 1.96), repeats)
        assert told[1] - 1 == pytest.approx(stats.t.ppf(0.975, repeats - 1), abs=5e-4)
    rows = (Row("a", "a", Estimate(2.0, (1, 3), (0.5, 3.5), 9, 6, 3)),)
    told = Claim("key", "A", "", "", "", "", 0.0, rows)
    assert told.verdict == Verdict.SUPPORTED and told.verdict_by_student_t == Verdict.UNDECIDED
    assert verdict_of(told, {"a": None}) == "supported so far (by Student's t undecided)"


def test_a_claim_says_where_test_images_were_met(masks):
    records = masks[1]
    met = tuple(
        replace(run, met="learnt from images of the test") if "chosen" in run.name else run
        for run in records.runs
    )
    found = {"a": replace(records, runs=met), "b": None}
    shown = all_tables(reproduction.judge(found), found)["claim-exclusion"]
    assert "| isic ⚠ |" in shown and "- ⚠ learnt from images of the test." in shown


def test_a_rule_that_no_student_is_trained_with_says_how_much_it_leaves(masks):
    records = masks[1]
    plain = tuple(run for run in records.runs if not run.rule)
    kept = [{"rule": "as printed", "transferal": "isic", "before": 100, "after": 80, "name": "x",
             "entropy_by_size": None}]  # fmt: skip
    about = {**records.about, "kept": kept}
    exclusion = claim(claims_of_a(replace(records, about=about, runs=plain)), "exclusion")
    assert exclusion.verdict == Verdict.NOT_TESTABLE
    assert "on the 80 of 100 images that are left in 1 set of" in exclusion.rows[0].obstacle


def test_what_a_rule_leaves_is_read_from_what_inspect_wrote(tmp_path):
    root = tmp_path / "study"
    fold(root / "tests" / "teacher", 0, 0.8, lineage(annotations("busi")))
    pseudo = make_pseudo_labels(root, make_packed_dataset(tmp_path, images=4))
    output, rule = root / "counts" / "printed", ExclusionRule(**RULE)
    left = inspect.run(InspectConfig(str(pseudo), output=str(output), exclusion=rule)).counts
    looked = PlannedRun("counts/printed", "inspect", 2, "inspect 2", needs=("pseudo",))
    not_yet = PlannedRun("counts/not-yet", "inspect", 2, "inspect 2", needs=("pseudo",))
    both = replace(plan(root), runs=(*plan(root).runs, looked, not_yet))
    (told,) = collect_study(root, both, "abc1234").about["kept"]
    masks = read_pseudo_set(pseudo)
    rank = stats.spearmanr(masks.entropy, masks.target_pixels).statistic
    assert told.pop("entropy_by_size") == pytest.approx(rank, abs=1e-4)
    assert told == {
        "name": "counts/printed", "transferal": "squares",
        "rule": "as printed", "before": 4, "after": left["after"],
    }  # fmt: skip


def test_measures_are_judged_by_annotations_of_the_same_pictures_that_no_teacher_learnt(tmp_path):
    shards, pseudo = tmp_path / "shards", tmp_path / "pseudo"
    shards.mkdir()
    pseudo.mkdir()
    annotated = make_packed_dataset(shards, images=8)
    bare = make_packed_dataset(shards, images=8, with_masks=False, name="bare", seed=0)
    written = make_pseudo_labels(pseudo, bare, seeds=(0,))
    (told,) = judge_measures(tmp_path)
    masks, truth = (IndexedShards(each) for each in (bare, annotated))
    labels = PseudoLabels(written, masks)
    soft = {key: decode_pixels(labels.soft_mask_bytes(i))[0] for i, key in enumerate(masks.keys)}
    true = {key: decode_pixels(truth.mask_bytes(i))[0] for i, key in enumerate(truth.keys)}
    dice = [100 * f1_score(true[key].ravel() > 0, soft[key].ravel() >= 128) for key in masks.keys]
    assert (told["name"], told["dataset"], told["images"]) == ("pseudo/pseudo", "bare", 8)
    assert told["dice"] == pytest.approx(np.mean(dice), abs=1e-4)
    for name in ("entropy", "expected_dice"):
        rank = stats.spearmanr(labels.statistics[name].to_numpy(), dice).statistic
        assert told[name] == pytest.approx(rank, abs=1e-4)

    manifest = PseudoLabelManifest.read(written)
    learnt = annotations("bare") | {"fingerprint": masks.manifest.fingerprint}
    lineage_of = {"trained_on": learnt, "parent": None}
    taught = tuple({**each, "lineage": lineage_of} for each in manifest.teachers)
    replace(manifest, teachers=taught).write(written)
    (told,) = judge_measures(tmp_path)
    assert told["images"] == 8 - masks.column("split").to_pylist().count("train") < 8


def test_images_of_a_later_dataset_do_not_move_the_numbers_of_one():
    one = [("busi", f"{number}") for number in range(20)]
    numbers = in_no_order(one)
    both = in_no_order([*one, *(("ddti", f"{number}") for number in range(30))])
    assert {key: both[key] for key in one} == numbers
    assert set(numbers.values()) == set(range(20))
    assert [numbers[key] for key in one] != list(range(20))


def test_two_collections_stand_side_by_side_and_no_pair_mixes_them(masks):
    records = masks[1]
    better = {
        name: replace(each, values=each.values + (2.0 if "chosen" in name else 1.0))
        for name, each in records.values.items()
    }
    both = join(records, replace(records, values=better))
    assert {run.collection for run in both.runs} == {"", "2"}
    assert (both.about["done"], both.about["collections"]) == (records.about["done"], 2)
    assert both.about["not_run_yet"].keys() == {NOT_RUN}
    one, two = (row(claims_of_a(each), "isic", "exclusion") for each in (records, both))
    assert one.estimate is not None and two.estimate is not None
    assert two.estimate.value == pytest.approx(one.estimate.value + 0.5)  # the mean of + 0 and + 1
    assert (two.estimate.images, two.estimate.repeats) == (one.estimate.images, 2)
    assert two.estimate.runs == 2 * one.estimate.runs
    close = [claim(claims_of_a(each), "close").rows[0].estimate for each in (records, both)]
    assert close[0] is not None and close[0] == close[1]  # of the first of equals alone


def test_what_was_written_is_read_and_not_what_was_there_before(masks, tmp_path):
    records = masks[1]
    records.write(tmp_path)
    before = read_records(tmp_path)
    join(before, records).write(tmp_path)
    assert len(read_records(tmp_path).runs) == 2 * len(before.runs)


def test_collections_that_do_not_belong_together_are_refused(masks):
    records = masks[1]
    newer = replace(records, about={**records.about, "versions": {"torch": "9"}})
    with pytest.raises(DatasetError, match=r"versions is .* not set side by side"):
        join(records, newer)
    other = {name: replace(each, rows=each.rows + 1) for name, each in records.values.items()}
    with pytest.raises(DatasetError, match="was tested on other images than before"):
        join(records, replace(records, values=other))


def test_runs_that_nothing_tells_apart_are_refused(masks):
    records = masks[1]
    twin = replace(next(run for run in records.runs if "all-0" in run.name), name="tests/twin")
    values = {**records.values, twin.name: records.values["tests/all-0"]}
    with pytest.raises(DatasetError, match="tells them apart by nothing"):
        claims_of_a(Records(records.about, (*records.runs, twin), values))


def test_runs_of_several_versions_are_refused(tmp_path):
    for number in range(2):
        folder = tmp_path / "tests" / str(number)
        trained = lineage(annotations(samples=number + 1))
        write_evaluation(folder, trained, [0.5], versions={"torch": f"2.{number}"})
    with pytest.raises(DatasetError, match="different versions of torch"):
        collect_study(tmp_path, plan(tmp_path), "abc1234")


def test_a_changed_file_is_refused(classifiers, tmp_path):
    for path in classifiers[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with (tmp_path / "runs.csv").open("a") as stream:
        stream.write("\n")
    with pytest.raises(DatasetError, match=r"runs\.csv: not the file that about\.json names"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("drawn", "over_repeats", "verdict"),
    [
        ((0.1, 2), None, Verdict.SUPPORTED),
        ((0.1, 2), (-0.1, 2), Verdict.UNDECIDED),
        ((-2, -0.1), (-1, -0.5), Verdict.NOT_SUPPORTED),
        ((-1, 1), None, Verdict.UNDECIDED),
    ],
)
def test_the_rule(drawn, over_repeats, verdict):
    rows = (Row("a", "a", Estimate(0.0, drawn, over_repeats, 1, 2, 1)),)
    told = Claim("key", "A", "", "", "", "", 0.0, rows)
    assert told.verdict == verdict
    waiting = Claim("key", "A", "", "", "", "", 0.0, (*rows, Row("b", "b", None)))
    spoilt = Verdict.NOT_SUPPORTED if verdict == Verdict.NOT_SUPPORTED else Verdict.UNDECIDED
    assert waiting.verdict == spoilt


def test_a_page_is_its_own_template():
    text = "KTC <!--ktc-->?<!--/-->\n\n<!-- table t -->\n<!-- end -->\n"
    once = fill(text, {"t": "| a |"}, {"ktc": "97.1"})
    assert "<!--ktc-->97.1<!--/-->" in once and "| a |" in once
    assert fill(once, {"t": "| a |"}, {"ktc": "97.1"}) == once
    with pytest.raises(DatasetError, match="asks for ktc"):
        fill(text, {"t": ""}, {})
    with pytest.raises(DatasetError, match="no place for u"):
        fill(text, {"t": "", "u": ""}, {"ktc": ""})


def test_a_number_of_the_prose_needs_a_record():
    assert loose_numbers("DenseNet-121 reached <!--a-->97.1<!--/--> in table 2 of `x 1`.") == []
    assert loose_numbers("It reached 97.1 %.") == ["It reached 97.1 %."]


def test_figures_are_drawn_of_every_kind(classifiers, masks):
    found = {"a": masks[1], "b": classifiers[2]}
    drawn = reproduction.draw_figures(found)
    assert {f"{name}.svg" for name in reproduction.TITLES} == set(drawn)
    assert drawn["reproduction-a-dice.svg"] == draw_dice(masks[1], masks[1].digest)
    text = reproduction.PAGE.read_text(encoding="utf-8")
    tables = re.sub(r"<!--[\w./-]+-->.*?<!--/-->", "", text, flags=re.DOTALL)  # of other records
    page = reproduction.make_page(tables, found, drawn)
    assert "Not drawn yet" not in page and "![" in page
    assert "| supported so far |" in page  # both have an evaluation that is not run yet


def test_the_page_is_that_of_the_committed_records():
    found = reproduction.read_all()
    text = reproduction.PAGE.read_text(encoding="utf-8")
    figures = {path.name: path for path in (reproduction.PAGE.parent / "figures").glob("*.svg")}
    ours = {name for name in figures if name.startswith("reproduction-")}
    assert reproduction.make_page(text, found, ours) == text, (
        "run python -m benchmarks.reproduction"
    )
    assert loose_numbers(text) == []
    for name in ours:
        records = found[name.split("-")[1]]
        assert records is not None and records.digest in figures[name].read_text(encoding="utf-8")
    for records in filter(None, found.values()):
        assert not records.about["phantom"]
