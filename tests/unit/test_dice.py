import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.evaluation.dice import dice_per_image


def masks(*rows):
    return torch.tensor(rows, dtype=torch.bool)[:, None, None, :]


def test_dice_by_hand():
    prediction = masks([1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0])
    target = masks([1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0], [1, 1, 1, 0], [1, 0, 0, 0])
    expected = [1.0, 2 / 5, 0.0, 2 / 4, 0.0]
    assert dice_per_image(prediction, target).tolist() == pytest.approx(expected)


def test_two_empty_masks_count_as_agreement_unless_left_out():
    empty, full = masks([0, 0]), masks([1, 1])
    assert dice_per_image(empty, empty).item() == 1.0
    assert math.isnan(dice_per_image(empty, empty, float("nan")).item())
    one_side = torch.cat([dice_per_image(empty, full), dice_per_image(full, empty)])
    assert one_side.tolist() == [0.0, 0.0]
    mixed = dice_per_image(torch.cat([empty, full]), torch.cat([empty, full]), float("nan"))
    assert [math.isnan(mixed[0]), mixed[1].item()] == [True, 1.0]


@given(st.integers(0, 2**32 - 1))
def test_dice_is_that_of_an_independent_count(seed):
    random = np.random.default_rng(seed)
    prediction, target = random.random((2, 5, 1, 6, 7)) < random.random()
    found = dice_per_image(torch.from_numpy(prediction), torch.from_numpy(target))
    for number in range(5):
        one = {tuple(point) for point in np.argwhere(prediction[number])}
        other = {tuple(point) for point in np.argwhere(target[number])}
        expected = 2 * len(one & other) / (len(one) + len(other)) if one | other else 1.0
        assert found[number].item() == pytest.approx(expected)


def test_large_masks_are_counted_exactly():
    prediction = torch.ones(1, 1, 5000, 5000, dtype=torch.bool)
    target = prediction.clone()
    target[..., 0, 0] = False
    count = 5000 * 5000
    assert dice_per_image(prediction, target).item() == 2 * (count - 1) / (2 * count - 1)
