import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist.errors import ConfigurationError
from nakt_dist.signals.distillation import distillation_loss

seeds = st.integers(0, 2**32 - 1)


def logits(seed, *shape):
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def test_two_labels_by_hand():
    # At T = 2 the student says 1/2 and σ(1), the teacher σ(1) and σ(1).
    q = sigmoid(1.0)
    entropy = -q * math.log(q) - (1 - q) * math.log(1 - q)
    expected = 4 * ((math.log(2) - entropy) + 0) / 2
    loss = distillation_loss(torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0, 2.0]]), 2.0)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert loss.item() == pytest.approx(0.2218880, abs=1e-6)


@given(seeds, st.floats(0.5, 8))
@settings(max_examples=40, deadline=None)
def test_it_is_never_negative_and_0_only_for_equal_logits(seed, temperature):
    student, teacher = logits(seed, 3, 5), logits(seed + 1, 3, 5)
    assert distillation_loss(student, teacher, temperature) > 0
    assert distillation_loss(student, student, temperature) == 0


def test_torchs_divergence_of_two_bernoullis_gives_the_same():
    student, teacher = logits(0, 4, 6).double(), logits(1, 4, 6).double()
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(logits=teacher / 3),
        torch.distributions.Bernoulli(logits=student / 3),
    )
    expected = 9 * divergence.mean()
    assert distillation_loss(student, teacher, 3.0).item() == pytest.approx(expected.item())


def test_the_gradient_is_t_times_the_difference_of_probabilities():
    student, teacher = logits(0, 4, 6).requires_grad_(True), logits(1, 4, 6)
    distillation_loss(student, teacher, 2.0).backward()
    expected = 2 * ((student / 2).sigmoid() - (teacher / 2).sigmoid()) / 24
    assert torch.allclose(student.grad, expected.detach(), atol=1e-7)
    assert torch.autograd.gradcheck(
        lambda tensor: distillation_loss(tensor, teacher.double(), 2.0),
        (student.detach().double().requires_grad_(True),),
    )


def test_segmentation_logits_are_distilled_pixel_by_pixel():
    student, teacher = logits(0, 2, 1, 4, 3), logits(1, 2, 1, 4, 3)
    pixels = distillation_loss(student.flatten()[:, None], teacher.flatten()[:, None], 2.0)
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(pixels.item())


@pytest.mark.parametrize("size", [-1e4, 0.0, 1e4])
def test_loss_and_gradient_are_finite_for_any_logit(size):
    student = torch.full((2, 3), -size, requires_grad=True)
    loss = distillation_loss(student, torch.full((2, 3), size))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_it_is_float32_under_autocast_and_leaves_the_teacher_alone():
    student = logits(0, 2, 3).bfloat16()
    teacher = logits(1, 2, 3).requires_grad_(True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = distillation_loss(student.requires_grad_(True), teacher)
    loss.backward()
    assert loss.dtype == torch.float32
    assert teacher.grad is None


def test_compiled_and_eager_agree():
    student, teacher = logits(0, 2, 3), logits(1, 2, 3)
    compiled = torch.compile(distillation_loss, backend="aot_eager", fullgraph=True)
    assert compiled(student, teacher, 2.0).item() == pytest.approx(
        distillation_loss(student, teacher, 2.0).item(), rel=1e-6
    )


def test_outputs_that_differ_in_number_are_refused():
    with pytest.raises(ConfigurationError, match=r"\(2, 14\) and the teacher \(2, 15\)"):
        distillation_loss(torch.zeros(2, 14), torch.zeros(2, 15))
