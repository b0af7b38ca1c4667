import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist.errors import ConfigurationError
from nakt_dist.transfer.attention import attention_loss, attention_map, match_size, weighted

REDUCTIONS = ("eq2", "batch_frobenius", "zagoruyko")
seeds = st.integers(0, 2**32 - 1)


def activations(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planes(*rows):
    """One image whose planes have one row of pixels each: (1, C, 1, P)."""
    return torch.tensor(rows)[None, :, None, :]


# The formulas once more, loop by loop, with no line in common with the package.


def equation_2(student, teacher):
    per_image = []
    for image_s, image_t in zip(student, teacher, strict=True):
        distances = []
        for s, t in zip(image_s, image_t, strict=True):
            s, t = s.ravel() / np.linalg.norm(s), t.ravel() / np.linalg.norm(t)
            distances.append(np.linalg.norm(s - t))
        per_image.append(np.mean(distances))
    return np.mean(per_image)


def authors_formula(student, teacher):
    differences = []
    for image_s, image_t in zip(student, teacher, strict=True):
        for s, t in zip(image_s, image_t, strict=True):
            differences.append(s / np.linalg.norm(s) - t / np.linalg.norm(t))
    return np.linalg.norm(np.stack(differences).ravel())


def original_attention_transfer(student, teacher):
    maps = []
    for activation in (student, teacher):
        q = (activation**2).mean(1).reshape(len(activation), -1)
        maps.append(q / np.linalg.norm(q, axis=1)[:, None])
    return np.mean((maps[0] - maps[1]) ** 2)


INDEPENDENT = {
    "eq2": equation_2,
    "batch_frobenius": authors_formula,
    "zagoruyko": original_attention_transfer,
}


def test_equation_2_by_hand():
    # (3, 4) / 5 and (4, 3) / 5 are sqrt(0.2² + 0.2²) apart, opposite planes 2.
    student = planes([3.0, 4.0, 0.0], [1.0, 0.0, 0.0])
    teacher = planes([4.0, 3.0, 0.0], [-7.0, 0.0, 0.0])
    expected = (math.sqrt(0.08) + 2) / 2
    assert attention_loss(student, teacher).item() == pytest.approx(expected, abs=1e-6)
    assert expected == pytest.approx(1.1414214, abs=1e-7)


def test_the_authors_formula_by_hand():
    student = planes([3.0, 4.0, 0.0], [1.0, 0.0, 0.0])
    teacher = planes([4.0, 3.0, 0.0], [-7.0, 0.0, 0.0])
    loss = attention_loss(student, teacher, "batch_frobenius").item()
    assert loss == pytest.approx(math.sqrt(0.04 + 0.04 + 4), abs=1e-6)
    assert loss == pytest.approx(2.0199010, abs=1e-6)


def test_the_original_attention_transfer_by_hand():
    # Means of squares: (1 + 9) / 2 = 5 and 4 / 2 = 2; the teacher's single channel gives (4, 0).
    student, teacher = planes([1.0, 2.0], [3.0, 0.0]), planes([2.0, 0.0])
    first, second = 5 / math.sqrt(29) - 1, 2 / math.sqrt(29)
    loss = attention_loss(student, teacher, "zagoruyko").item()
    assert loss == pytest.approx((first**2 + second**2) / 2, abs=1e-7)
    assert loss == pytest.approx(0.0715233, abs=1e-6)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_independent_code_gives_the_same_to_six_decimals(reduction):
    student, teacher = activations(0, 5, 32, 8, 8), activations(1, 5, 32, 8, 8)
    expected = INDEPENDENT[reduction](student.double().numpy(), teacher.double().numpy())
    loss = attention_loss(student, teacher, reduction).item()
    assert loss == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(seeds, st.floats(-3, 3))
@settings(max_examples=40, deadline=None)
def test_equation_2_lies_between_0_and_2_for_any_scale(seed, exponent):
    student, teacher = activations(seed, 3, 4, 3, 5), activations(seed + 1, 3, 4, 3, 5)
    loss = attention_loss(student, teacher).item()
    assert 0 <= loss <= 2 + 1e-6
    scaled = attention_loss(student * 10**exponent, teacher / 10**exponent).item()
    assert scaled == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_scale_of_either_network_does_not_matter(reduction):
    student, teacher = activations(0, 2, 3, 4, 4), activations(1, 2, 3, 4, 4)
    loss = attention_loss(student, teacher, reduction).item()
    assert attention_loss(1000 * student, 0.01 * teacher, reduction).item() == pytest.approx(
        loss, rel=1e-5
    )


def test_opposite_planes_are_2_apart_and_equal_ones_0():
    student = activations(0, 2, 3, 4, 4)
    assert attention_loss(student, -3 * student).item() == pytest.approx(2, abs=1e-6)
    assert attention_loss(student, student).item() == 0


def test_only_the_authors_formula_grows_with_the_batch():
    student, teacher = activations(0, 2, 3, 4, 4), activations(1, 2, 3, 4, 4)
    for reduction, growth in (("eq2", 1), ("zagoruyko", 1), ("batch_frobenius", 2)):
        once = attention_loss(student, teacher, reduction).item()
        four_times = attention_loss(
            student.repeat(4, 1, 1, 1), teacher.repeat(4, 1, 1, 1), reduction
        ).item()
        assert four_times == pytest.approx(growth * once, rel=1e-5)


@pytest.mark.parametrize("zero", ["student", "teacher", "both"])
def test_an_all_zero_plane_contributes_nothing_and_has_no_gradient(zero):
    student, teacher = activations(0, 2, 3, 4, 4), activations(1, 2, 3, 4, 4)
    if zero != "teacher":
        student[0, 1] = 0
    if zero != "student":
        teacher[0, 1] = 0
    student.requires_grad_(True)
    loss = attention_loss(student, teacher)
    loss.backward()
    rest = [(i, c) for i in range(2) for c in range(3) if (i, c) != (0, 1)]
    expected = sum(
        equation_2(
            student.detach().numpy()[i : i + 1, c : c + 1], teacher.numpy()[i : i + 1, c : c + 1]
        )
        for i, c in rest
    )
    assert loss.item() == pytest.approx(expected / 6, rel=1e-5)
    assert (student.grad[0, 1] == 0).all()
    assert all((student.grad[i, c] != 0).any() for i, c in rest)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("value", [0.0, 1e-30, 1e-12])
def test_everything_all_but_zero_gives_0_with_zero_gradient(reduction, value):
    student = torch.full((2, 3, 4, 4), value, requires_grad=True)
    loss = attention_loss(student, activations(1, 2, 3, 4, 4), reduction)
    loss.backward()
    assert loss.item() == 0
    assert (student.grad == 0).all()


@given(seeds, st.integers(-12, 3))
@settings(max_examples=60, deadline=None)
def test_gradients_are_finite_and_never_enormous(seed, exponent):
    teacher = activations(seed, 2, 3, 4, 4)
    for reduction in REDUCTIONS:
        student = (activations(seed + 1, 2, 3, 4, 4) * 10.0**exponent).requires_grad_(True)
        attention_loss(student, teacher, reduction).backward()
        assert torch.isfinite(student.grad).all()
        assert student.grad.abs().max() < 1e7


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_equal_maps_have_zero_gradient(reduction):
    student = activations(0, 2, 3, 4, 4).requires_grad_(True)
    attention_loss(student, student.detach().clone(), reduction).backward()
    assert (student.grad == 0).all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("matching", ["adaptive_pool", "interpolate"])
def test_the_gradient_is_that_of_finite_differences(reduction, matching):
    student = activations(0, 2, 3, 3, 4).double().requires_grad_(True)
    teacher = activations(1, 2, 3, 6, 4).double()
    assert torch.autograd.gradcheck(
        lambda tensor: attention_loss(tensor, teacher, reduction, matching), (student,)
    )


def test_no_gradient_flows_into_the_teacher():
    teacher = activations(1, 2, 3, 4, 4).requires_grad_(True)
    student = activations(0, 2, 3, 4, 4).requires_grad_(True)
    attention_loss(student, teacher).backward()
    assert teacher.grad is None


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_loss_is_float32_under_autocast_and_for_half_precision(reduction):
    student, teacher = activations(0, 2, 8, 8, 8), activations(1, 2, 8, 8, 8)
    expected = attention_loss(student, teacher, reduction)
    with torch.autocast("cpu", torch.bfloat16):
        inside = attention_loss(student, teacher, reduction)
    assert inside.dtype == torch.float32
    assert inside.item() == expected.item()
    coarse = attention_loss(student.bfloat16(), teacher.bfloat16(), reduction)
    assert coarse.dtype == torch.float32
    assert coarse.item() == pytest.approx(expected.item(), rel=1e-2)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_compiled_and_eager_agree(reduction):
    student, teacher = activations(0, 2, 4, 4, 4), activations(1, 2, 4, 8, 8)
    student[0, 1] = 0
    results = []
    # Tracing is what may break; the compiler behind it would cost this test half a minute.
    compiled = torch.compile(attention_loss, backend="aot_eager", fullgraph=True)
    for function in (attention_loss, compiled):
        tensor = student.clone().requires_grad_(True)
        loss = function(tensor, teacher, reduction)
        loss.backward()
        results.append((loss.item(), tensor.grad))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-6)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-7)


def test_adaptive_pooling_averages_the_teachers_cells():
    teacher = torch.arange(16.0).view(1, 1, 4, 4)
    assert match_size(teacher, (2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert match_size(teacher, (4, 4)) is teacher


@pytest.mark.parametrize("matching", ["adaptive_pool", "interpolate"])
@pytest.mark.parametrize("size", [(2, 3), (5, 4), (9, 1)])
def test_either_matching_reaches_the_students_size_and_keeps_the_mean_of_a_flat_map(matching, size):
    flat = torch.full((2, 3, 5, 4), 0.25)
    matched = match_size(flat, size, matching)
    assert matched.shape == (2, 3, *size)
    assert torch.allclose(matched, torch.full(matched.shape, 0.25))
    loss = attention_loss(activations(0, 2, 3, *size), flat, "eq2", matching)
    assert torch.isfinite(loss)


def test_maps_and_not_signed_planes_are_pooled_for_the_original_attention_transfer():
    # Pooled before they are squared, these two pixels would cancel to an empty map.
    teacher = planes([1.0, -1.0, 0.0, 0.0])
    student = planes([1.0, 0.0])
    assert attention_loss(student, teacher, "zagoruyko").item() == 0


def test_attention_map_is_the_mean_of_squares_over_channels():
    assert attention_map(planes([1.0, 2.0], [3.0, 0.0])).flatten().tolist() == [5.0, 2.0]
    assert attention_map(activations(0, 2, 3, 4, 4).bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("reduction", ["eq2", "batch_frobenius"])
def test_planes_that_differ_in_number_are_refused_by_both_counts(reduction):
    with pytest.raises(ConfigurationError, match=r"32 planes and the teacher's 16.*zagoruyko"):
        attention_loss(torch.ones(2, 32, 4, 4), torch.ones(2, 16, 4, 4), reduction)


def test_a_tap_without_pixels_or_with_another_batch_is_refused():
    with pytest.raises(ConfigurationError, match=r"teacher's tap gives a tensor of shape \(2, 4\)"):
        attention_loss(torch.ones(2, 4, 2, 2), torch.ones(2, 4))
    with pytest.raises(ConfigurationError, match="2 images and the teacher's 3"):
        attention_loss(torch.ones(2, 4, 2, 2), torch.ones(3, 4, 2, 2))


def test_beta_divides_as_in_the_papers_text_or_multiplies_as_in_its_equation():
    attention = torch.tensor(0.5)
    assert weighted(attention, 20.0).item() == pytest.approx(0.025)
    assert weighted(attention, 20.0, "multiply").item() == pytest.approx(10.0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_planes_of_one_number_have_no_direction_to_compare(reduction):
    large, small = activations(0, 2, 3, 4, 4), activations(1, 2, 3, 1, 1)
    with pytest.raises(ConfigurationError, match=r"student's tap gives planes of 1 × 1 .*larger"):
        attention_loss(small, large, reduction)
    with pytest.raises(ConfigurationError, match=r"teacher's tap gives planes of 1 × 1 .*earlier"):
        attention_loss(large, small, reduction)
    assert attention_loss(activations(1, 2, 3, 1, 2), large, reduction).isfinite()
