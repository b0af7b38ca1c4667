import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist.transfer.classification import classification_loss, positive_weights

NAN = float("nan")


def logit(probability):
    return math.log(probability / (1 - probability))


def cross_entropy(logits, target, weight=None):
    return classification_loss(torch.tensor(logits), torch.tensor(target), weight)["loss"].item()


def test_cross_entropy_by_hand():
    expected = -(math.log(0.9) + math.log(1 - 0.2)) / 2
    assert cross_entropy([[logit(0.9), logit(0.2)]], [[1.0, 0.0]]) == pytest.approx(expected)
    assert expected == pytest.approx(0.1642520, abs=1e-7)


def test_ignored_labels_leave_sum_and_count():
    expected = -(math.log(0.9) + math.log(0.8) + math.log(0.3)) / 3
    logits = [[logit(0.9), logit(0.2)], [logit(0.6), logit(0.3)]]
    assert cross_entropy(logits, [[1.0, 0.0], [NAN, 1.0]]) == pytest.approx(expected)


def test_positive_weights_multiply_the_positive_term_of_their_label():
    expected = -(3 * math.log(0.9) + math.log(0.8) + math.log(0.4) + 5 * math.log(0.3)) / 4
    logits = [[logit(0.9), logit(0.2)], [logit(0.6), logit(0.3)]]
    weight = torch.tensor([3.0, 5.0])
    assert cross_entropy(logits, [[1.0, 0.0], [0.0, 1.0]], weight) == pytest.approx(expected)


def test_a_batch_with_everything_ignored_gives_0_with_zero_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    loss = classification_loss(logits, torch.full((3, 4), NAN))["loss"]
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_what_the_network_says_of_an_ignored_label_changes_nothing(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 5, generator=generator)
    target = torch.randint(0, 2, (4, 5), generator=generator).float()
    ignored = torch.rand(4, 5, generator=generator) < 0.4
    target[ignored] = NAN
    results = []
    for shift in (0.0, 50.0):
        shifted = torch.where(ignored, logits + shift, logits).requires_grad_(True)
        loss = classification_loss(shifted, target)["loss"]
        loss.backward()
        assert (shifted.grad[ignored] == 0).all()
        results.append(loss.item())
    assert results[0] == results[1]


def test_without_ignored_labels_it_is_torchs_own():
    logits, target = torch.randn(4, 5), torch.rand(4, 5).round()
    weight = torch.rand(5) + 0.5
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, target, pos_weight=weight
    )
    losses = classification_loss(logits, target, weight)
    assert losses["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert losses["cross_entropy"] is losses["loss"]


@pytest.mark.parametrize("size", [-1e4, 0.0, 1e4])
def test_loss_and_gradient_are_finite_for_any_logit(size):
    logits = torch.full((2, 3), size, requires_grad=True)
    loss = classification_loss(logits, torch.tensor([[1.0, 0.0, NAN]] * 2))["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_it_is_float32_whatever_the_network_gives():
    target = torch.tensor([[1.0, 0.0, NAN]])
    with torch.autocast("cpu", torch.bfloat16):
        loss = classification_loss(torch.zeros(1, 3).bfloat16(), target)["loss"]
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)


def test_compiled_and_eager_agree():
    logits, target = torch.randn(2, 3), torch.tensor([[1.0, 0.0, NAN], [NAN, 1.0, 0.0]])
    compiled = torch.compile(classification_loss, backend="aot_eager", fullgraph=True)
    assert compiled(logits, target)["loss"].item() == pytest.approx(
        classification_loss(logits, target)["loss"].item(), rel=1e-6
    )


def test_weights_are_negatives_over_positives_of_the_labels_that_count():
    targets = np.array([[1, 0, NAN], [0, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=np.float32)
    assert positive_weights(targets).tolist() == [3.0, 1.0, 2.0]
    assert positive_weights(targets).dtype == torch.float32


def test_weights_are_clipped_and_labels_of_one_class_weigh_1():
    targets = np.zeros((1001, 4), dtype=np.float32)
    targets[0, 0] = 1
    targets[1:, 1] = 1
    targets[:, 2] = 1
    targets[:, 3] = NAN
    assert positive_weights(targets, 10).tolist() == pytest.approx([10.0, 0.1, 1.0, 1.0])
    assert positive_weights(targets)[0].item() == 100


def test_probabilities_count_in_part_however_few_they_make_together():
    targets = np.full((20, 1), 0.0125, dtype=np.float32)  # 0.25 positives, 19.75 negatives
    assert positive_weights(targets).item() == pytest.approx(79)


def test_a_common_divisor_makes_the_mean_over_parts_that_of_the_batch() -> None:
    logits = torch.tensor([[1.0], [2.0], [-1.0], [0.5]])
    target = torch.tensor([[1.0], [float("nan")], [float("nan")], [float("nan")]])
    whole = classification_loss(logits, target)["loss"]
    parts = [
        classification_loss(logits[rows], target[rows], divisor=0.25)["loss"]
        for rows in ([0], [1], [2], [3])
    ]
    assert torch.stack(parts).mean().item() == pytest.approx(whole.item())
    nothing = classification_loss(logits, torch.full((4, 1), float("nan")), divisor=0.0)["loss"]
    assert nothing.item() == 0
