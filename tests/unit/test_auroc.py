"""AUROC, average precision, their resampling over patients, and comparisons."""

import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from nakt_dist.errors import NaktError
from nakt_dist.evaluation.auroc import RankedScores, auroc, average_precision, mean_auroc
from nakt_dist.evaluation.resampling import (
    number_patients,
    paired_difference,
    percentile_interval,
    resample_auroc,
    resampled_weights,
)

NAN = float("nan")


def make_case(
    images: int = 240, labels: int = 3, patients: int = 60, seed: int = 0, skill: float = 1.0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores with ties, targets, and the patient of each image."""
    random = np.random.default_rng(seed)
    targets = (random.random((images, labels)) < 0.3).astype(np.float32)
    scores = np.round(random.normal(size=(images, labels)) + skill * targets, 1)
    owners = [f"patient{number:02d}" for number in random.integers(0, patients, images)]
    return scores, targets, owners


# ------------------------------------------------------------------------- one label


def test_pairs_counted_by_hand():
    scores = np.array([0.1, 0.4, 0.4, 0.8])
    # (0.4, 0.1) won, (0.4, 0.4) tied, (0.8, 0.1) and (0.8, 0.4) won: 3.5 of 4.
    assert auroc(scores, np.array([0.0, 1.0, 0.0, 1.0])) == 3.5 / 4


@given(
    st.lists(
        st.tuples(st.integers(-5, 5), st.booleans(), st.integers(0, 4)), min_size=2, max_size=40
    )
)
def test_it_is_scikit_learns_whatever_the_ties_and_weights(cases):
    scores, targets, weights = (
        np.asarray(column, dtype=float) for column in zip(*cases, strict=True)
    )
    if len(set(targets)) == 2:
        assert auroc(scores, targets) == pytest.approx(roc_auc_score(targets, scores), abs=1e-12)
        expected = average_precision_score(targets, scores)
        assert average_precision(scores, targets) == pytest.approx(expected, abs=1e-12)
    else:
        assert math.isnan(auroc(scores, targets))
        assert math.isnan(average_precision(scores, targets))
    weighted = auroc(scores, targets, weights)
    if len(set(targets[weights > 0])) == 2:
        expected = roc_auc_score(targets, scores, sample_weight=weights)
        assert weighted == pytest.approx(expected, abs=1e-12)
    else:
        assert math.isnan(weighted)


@given(st.lists(st.tuples(st.integers(-9, 9), st.booleans()), min_size=2, max_size=30))
def test_weights_count_images_as_often_as_copies_would(cases):
    scores, targets = (np.asarray(column, dtype=float) for column in zip(*cases, strict=True))
    weights = np.arange(len(scores)) % 3
    copied = auroc(np.repeat(scores, weights), np.repeat(targets, weights))
    assert auroc(scores, targets, weights) == pytest.approx(copied, nan_ok=True, abs=1e-15)


def test_turning_the_scores_round_mirrors_it_and_stretching_them_changes_nothing():
    scores, targets, _ = make_case()
    found = auroc(scores[:, 0], targets[:, 0])
    assert auroc(-scores[:, 0], targets[:, 0]) == pytest.approx(1 - found, abs=1e-15)
    assert auroc(np.exp(scores[:, 0]), targets[:, 0]) == found


@pytest.mark.parametrize("score", [0.0, 1.0, float("inf")])
def test_equal_scores_know_nothing(score):
    scores, targets = np.full(10, score), np.arange(10) % 5 == 0
    assert auroc(scores, targets.astype(float)) == 0.5
    assert average_precision(scores, targets.astype(float)) == pytest.approx(0.2)


def test_ignored_images_change_nothing_whatever_their_score():
    scores, targets, _ = make_case(labels=1)
    more = np.concatenate([scores[:, 0], [99.0, -99.0, NAN]])
    ignored = np.concatenate([targets[:, 0], [NAN] * 3])
    assert auroc(more, ignored) == auroc(scores[:, 0], targets[:, 0])
    assert average_precision(more, ignored) == average_precision(scores[:, 0], targets[:, 0])


def test_a_score_that_is_not_a_number_is_no_result():
    with pytest.raises(NaktError, match="not a number"):
        auroc(np.array([0.1, NAN]), np.array([0.0, 1.0]))


# ----------------------------------------------------------------------- over labels


def test_a_label_of_one_class_is_left_out_and_counted():
    scores, targets, _ = make_case(labels=5)
    targets[:, 1] = 1
    targets[:, 2] = 0
    targets[:, 4] = NAN
    found = mean_auroc(scores, targets)
    expected = [roc_auc_score(targets[:, label], scores[:, label]) for label in (0, 3)]
    assert found.labels[[0, 3]] == pytest.approx(expected)
    assert np.isnan(found.labels[[1, 2, 4]]).all()
    assert (found.left_out, found.counted) == ((1, 2, 4), 2)
    assert found.mean == pytest.approx(np.mean(expected))  # not 0 for the others


def test_without_any_label_of_both_classes_there_is_no_mean():
    found = mean_auroc(np.zeros((4, 2)), np.ones((4, 2)))
    assert (found.mean, found.left_out, found.counted) == (None, (0, 1), 0)


@pytest.mark.realdata
def test_the_published_values_of_a_real_network_come_out(real_data: Path):
    folder = real_data / "chexnet_golden"
    if not folder.is_dir():
        pytest.skip("chexnet_golden is absent")
    with (folder / "aucs.csv").open() as stream:
        published = {row["label"]: float(row["auc"]) for row in csv.DictReader(stream)}
    with gzip.open(folder / "Data_Entry_2017_v2020.csv.gz", "rt") as stream:
        entries = csv.DictReader(stream)
        findings = {each["Image Index"]: each["Finding Labels"].split("|") for each in entries}
    with gzip.open(folder / "preds.csv.gz", "rt") as stream:
        rows = list(csv.DictReader(stream))
    scores = np.array([[float(row[f"prob_{name}"]) for name in published] for row in rows])
    targets = np.array(
        [[float(name in findings[row["Image Index"]]) for name in published] for row in rows]
    )
    found = mean_auroc(scores, targets)
    assert len(rows) == 22_433
    assert found.labels == pytest.approx(list(published.values()), abs=5e-7)
    assert (len(published), found.left_out) == (14, ())


# ------------------------------------------------------------------------ resampling


def test_unknown_patients_are_patients_of_their_own():
    numbers = number_patients(["b", None, "a", "b", None])
    assert numbers.tolist() == [0, 1, 2, 0, 3]


def test_patients_are_drawn_whole_and_as_many_as_there_are():
    owners = ["a", "b", None, "a", "c", None]
    weights = np.concatenate(list(resampled_weights(owners, 500, seed=3)), axis=1)
    assert weights.shape == (6, 500)
    assert (weights[0] == weights[3]).all()
    assert (weights[[0, 1, 2, 4, 5]].sum(0) == 5).all()
    assert weights.mean(1) == pytest.approx(np.ones(6), abs=0.15)


def test_resamples_do_not_depend_on_how_many_are_drawn_at_once(monkeypatch):
    scores, targets, owners = make_case()
    expected = resample_auroc(scores, targets, owners, 101, seed=1)
    monkeypatch.setattr("nakt_dist.evaluation.resampling._WEIGHTS_AT_ONCE", 7 * len(scores))
    found = resample_auroc(scores, targets, owners, 101, seed=1)
    assert (found.labels == expected.labels).all()
    assert (found.mean == expected.mean).all()


def test_each_resample_has_scikit_learns_auroc():
    scores, targets, owners = make_case()
    found = resample_auroc(scores, targets, owners, 40, seed=5)
    weights = np.concatenate(list(resampled_weights(owners, 40, seed=5)), axis=1)
    for sample in range(40):
        drawn = np.repeat(np.arange(len(scores)), weights[:, sample].astype(int))
        expected = roc_auc_score(targets[drawn], scores[drawn], average=None)
        assert found.labels[sample] == pytest.approx(expected, abs=1e-12)
        assert found.mean[sample] == pytest.approx(expected.mean(), abs=1e-12)


def test_the_interval_agrees_with_scikit_learn_on_resampled_patients():
    """Another generator, another way to draw: patients by name, their images put together."""
    scores, targets, owners = make_case(images=600, labels=1, patients=400, skill=2.5)
    random = np.random.default_rng(99)
    rows_of = {name: [row for row, each in enumerate(owners) if each == name] for name in owners}
    names, samples = list(rows_of), 1500
    means = []
    for _ in range(samples):
        drawn = np.concatenate(
            [rows_of[names[n]] for n in random.integers(0, len(names), len(names))]
        )
        means.append(roc_auc_score(targets[drawn, 0], scores[drawn, 0]))
    found = resample_auroc(scores, targets, owners, 10_000, seed=0)
    assert percentile_interval(found.mean) == pytest.approx(
        np.quantile(means, [0.025, 0.975]), abs=0.002
    )


def test_a_resample_without_a_class_leaves_that_label_out_of_its_mean():
    scores, targets, owners = make_case(images=40, labels=2, patients=20)
    targets[:, 1] = 0
    targets[0, 1] = 1  # drawn in some resamples only
    found = resample_auroc(scores, targets, owners, 300, seed=0)
    missing = np.isnan(found.labels[:, 1])
    assert 0 < missing.sum() < 300
    assert (found.mean[missing] == found.labels[missing, 0]).all()
    assert found.mean[~missing] == pytest.approx(found.labels[~missing].mean(1))


def test_without_a_defined_label_there_is_no_interval():
    found = resample_auroc(np.zeros((4, 2)), np.ones((4, 2)), [None] * 4, 10, seed=0)
    assert np.isnan(found.mean).all()
    assert percentile_interval(found.mean) is None


def test_images_of_one_patient_widen_the_interval():
    """Ten copies of each image are no ten times more knowledge."""
    scores, targets, _ = make_case(images=100, labels=1)
    copies = [np.repeat(each, 10, axis=0) for each in (scores, targets)]
    owners = [str(number) for number in np.repeat(np.arange(100), 10)]
    lower, upper = percentile_interval(resample_auroc(*copies, owners, 1000, seed=0).mean)
    single = percentile_interval(resample_auroc(scores, targets, owners[::10], 1000, seed=0).mean)
    assert (lower, upper) == pytest.approx(single)


# ------------------------------------------------------------------------ comparisons


def test_a_network_does_not_differ_from_itself():
    scores, targets, owners = make_case()
    found = paired_difference(scores, np.exp(scores), targets, owners, 200, seed=0)
    assert (found.difference, found.interval, found.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert found.labels_counted == 3


def test_a_better_network_differs_and_the_order_only_turns_the_sign():
    scores, targets, owners = make_case(images=600, skill=1.0)
    better = scores + targets
    forth = paired_difference(better, scores, targets, owners, 500, seed=0)
    back = paired_difference(scores, better, targets, owners, 500, seed=0)
    expected = mean_auroc(better, targets).mean - mean_auroc(scores, targets).mean
    assert forth.difference == pytest.approx(expected)
    assert 0 < forth.interval[0] < expected < forth.interval[1]
    assert forth.p_value == pytest.approx(2 / 501)
    assert back.difference == -forth.difference
    assert back.interval == pytest.approx((-forth.interval[1], -forth.interval[0]))
    assert back.p_value == forth.p_value


def test_the_same_patients_for_both_make_the_comparison_sharper():
    scores, targets, owners = make_case()
    other = scores + np.random.default_rng(1).normal(size=scores.shape) * 0.2
    paired = paired_difference(scores, other, targets, owners, 1000, seed=0).interval
    apart = [
        resample_auroc(each, targets, owners, 1000, seed=seed).mean
        for seed, each in enumerate((scores, other))
    ]
    unpaired = percentile_interval(apart[0] - apart[1])
    assert paired[1] - paired[0] < 0.5 * (unpaired[1] - unpaired[0])


def test_each_label_is_compared_in_the_same_resamples():
    scores, targets, owners = make_case()
    targets[:, 2] = 0
    other = scores + np.random.default_rng(1).normal(size=scores.shape)
    found = paired_difference(scores, other, targets, owners, 100, seed=0)
    weights = np.concatenate(list(resampled_weights(owners, 100, seed=0)), axis=1)
    for number in (0, 1):
        label, pair = found.labels[number], (scores[:, number], other[:, number])
        truth = targets[:, number]
        draws = [
            np.subtract(*(roc_auc_score(truth, each, sample_weight=times) for each in pair))
            for times in weights.T
        ]
        assert label.difference == pytest.approx(
            np.subtract(*(roc_auc_score(truth, each) for each in pair))
        )
        assert label.interval == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=1e-9)
        below = np.count_nonzero(np.array(draws) <= 0)
        assert label.p_value == 2 * (min(below, 100 - below) + 1) / 101
    assert found.labels[2] is None


def test_without_a_defined_label_nothing_is_compared():
    nothing = paired_difference(
        np.zeros((4, 1)), np.ones((4, 1)), np.ones((4, 1)), [None] * 4, 9, 0
    )
    assert nothing is None


def test_ranked_scores_count_both_classes():
    ranked = RankedScores(np.arange(5.0), np.array([0, 1, NAN, 1, 1]))
    assert (ranked.positives, ranked.negatives, ranked.is_defined) == (3, 1, True)
