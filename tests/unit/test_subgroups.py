import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from nakt_dist.evaluation.subgroups import age_band, compare_subgroups

SEXES = ["F", "M", None] * 40


def make_case(labels: int = 3) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(2)
    targets = (random.random((120, labels)) < 0.4).astype(np.float32)
    probabilities = 0.6 * random.random((120, labels)) + 0.4 * targets * random.random((120, 1))
    return probabilities, targets, [str(number // 2) for number in range(120)]


@pytest.mark.parametrize(
    ("age", "band"),
    [(0, "0-40"), (39, "0-40"), (40, "40-60"), (59.9, "40-60"), (60, "60-80"), (79, "60-80"),
     (80, "80+"), (104, "80+"), (None, None), (-1, None)],
)  # fmt: skip
def test_ages_fall_into_bands(age, band):
    assert age_band(age) == band


def test_groups_have_their_own_auroc_and_the_gap_is_between_the_extremes():
    probabilities, targets, patients = make_case()
    found = compare_subgroups("sex", SEXES, probabilities, targets, patients)
    expected = [
        100 * roc_auc_score(targets[first::3], probabilities[first::3], average="macro")
        for first in (0, 1)
    ]
    assert [group.group for group in found.groups] == ["F", "M", "unknown"]
    assert [group.images for group in found.groups] == [40, 40, 40]
    assert [group.auroc_mean for group in found.groups[:2]] == pytest.approx(expected)
    assert found.gap == pytest.approx(abs(expected[0] - expected[1]))
    assert [group.labels_counted for group in found.groups] == [3, 3, 0]
    assert found.groups[0].patients == len({patients[row] for row in range(0, 120, 3)})


def test_a_label_that_one_group_lacks_counts_in_no_group():
    probabilities, targets, patients = make_case()
    targets[1::3, 1] = 0  # no man has it
    found = compare_subgroups("sex", SEXES, probabilities, targets, patients)
    chosen = np.ix_(range(0, 120, 3), [0, 2])
    expected = 100 * roc_auc_score(targets[chosen], probabilities[chosen], average="macro")
    assert found.labels == (0, 2)
    assert found.groups[0].auroc_mean == pytest.approx(expected)
    assert [group.labels_counted for group in found.groups[:2]] == [2, 2]


def test_a_group_with_few_images_is_counted_and_takes_no_label_from_the_others():
    probabilities, targets, patients = make_case()
    sexes = ["X" if row < 3 else sex or "M" for row, sex in enumerate(SEXES)]
    targets[:3] = 0
    found = compare_subgroups("sex", sexes, probabilities, targets, patients)
    few = next(group for group in found.groups if group.group == "X")
    assert (few.images, few.auroc_mean, few.labels_counted) == (3, None, 0)
    assert found.labels == (0, 1, 2)
    assert found.gap is not None


@pytest.mark.parametrize("values", [["F"] * 120, [None] * 120, ["F", "M"] + [None] * 118])
def test_one_group_alone_has_no_gap(values):
    probabilities, targets, patients = make_case()
    found = compare_subgroups("sex", values, probabilities, targets, patients)
    assert found.gap is None
    assert sum(group.images for group in found.groups) == 120


def test_without_a_common_label_nothing_is_compared():
    probabilities, targets, patients = make_case(labels=1)
    targets[0::3] = 1
    found = compare_subgroups("sex", SEXES, probabilities, targets, patients)
    assert (found.labels, found.gap) == ((), None)
    assert [group.auroc_mean for group in found.groups] == [None, None, None]


def test_unknown_patients_are_not_counted_as_patients():
    probabilities, targets, _ = make_case()
    found = compare_subgroups("sex", SEXES, probabilities, targets, [None] * 120)
    assert {group.patients for group in found.groups} == {0}
