"""What an interval over patients rests on."""

import numpy as np
import pytest

from nakt_dist.evaluation.classification_summary import summarise_classification


def interval_of(targets: np.ndarray, patients: list[str | None]) -> dict:
    random = np.random.default_rng(0)
    names = [f"finding {number}" for number in range(targets.shape[1])]
    answers = random.random(targets.shape)
    result = summarise_classification(names, answers, targets, patients, {}, 2000, 0)
    return result.to_json()[1]["interval"]


def test_resamples_without_a_rare_finding_are_counted_and_called_out():
    targets = np.zeros((40, 3))
    targets[::2, 0] = targets[0, 1] = 1  # the last has no positive in any resample: not counted
    patients: list[str | None] = [f"p{number}" for number in range(39)]
    found = interval_of(targets, [*patients, None])
    assert (found["patients_drawn"], found["images_without_patient"]) == (40, 1)
    # One patient of 40 is drawn nowhere in (39 / 40)^40 = 36 % of the resamples.
    assert found["resamples_without_a_label"] / 2000 == pytest.approx(0.363, abs=0.04)
    (caution,) = found["cautions"]
    assert "of the resamples lack a class of one label or more" in caution


@pytest.mark.parametrize(("patients", "cautions"), [(19, 1), (20, 0)])
def test_fewer_than_twenty_patients_are_called_out(patients: int, cautions: int):
    owners = [str(number % patients) for number in range(80)]
    targets = (np.arange(80)[:, None] // 20 % 2).astype(float)
    found = interval_of(targets, owners)
    assert found["patients_drawn"] == patients
    assert len([each for each in found["cautions"] if "patients" in each]) == cautions


def test_without_any_auroc_there_is_nothing_to_call_out():
    assert interval_of(np.zeros((4, 2)), [None] * 4)["cautions"] == []
