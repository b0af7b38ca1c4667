"""The losses of signals, against their papers' formulas in NumPy on fixed tensors."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nakt_dist.errors import ConfigurationError
from nakt_dist.signals import (
    DistConfig,
    DistillationConfig,
    HintsConfig,
    MultiLabelConfig,
    Seen,
    SimilarityConfig,
    TapConfig,
)
from nakt_dist.signals.dist import dist_loss
from nakt_dist.signals.distillation import distillation_loss, standardised
from nakt_dist.signals.hints import hint_loss
from nakt_dist.signals.multi_label import relation_loss
from nakt_dist.signals.similarity import similarity_loss

RANDOM = np.random.default_rng(0)
STUDENT, TEACHER = RANDOM.normal(0, 2, (2, 5, 4))
PIXELS, OTHER_PIXELS = RANDOM.normal(0, 2, (2, 2, 3, 4, 5))
MAPS, LARGER_MAPS = RANDOM.normal(0, 1, (4, 3, 2, 2)), RANDOM.normal(0, 1, (4, 3, 4, 4))
TAPS = [TapConfig("layer3", "layer3")]


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(each.copy()) for each in arrays]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def divergence(teacher: np.ndarray, student: np.ndarray) -> np.ndarray:
    """Of Bernoulli(p) from Bernoulli(q), element by element."""
    q, p = teacher, student
    return q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))


def pearson(first: np.ndarray, second: np.ndarray) -> float:
    return np.corrcoef(first, second)[0, 1]


def test_dist_is_that_of_the_paper_with_sigmoids() -> None:
    student, teacher = sigmoid(STUDENT / 2), sigmoid(TEACHER / 2)
    inter = 1 - np.mean([pearson(*rows) for rows in zip(student, teacher, strict=True)])
    intra = 1 - np.mean([pearson(*rows) for rows in zip(student.T, teacher.T, strict=True)])
    found = dist_loss(*tensors(STUDENT, TEACHER), 1.5, 0.5, temperature=2.0)
    assert found.item() == pytest.approx(4 * (1.5 * inter + 0.5 * intra), abs=1e-6)
    for weights, expected in (((1, 0), inter), ((0, 1), intra)):
        found = dist_loss(*tensors(STUDENT, TEACHER), *weights, temperature=2.0)
        assert found.item() == pytest.approx(4 * expected, abs=1e-6)


def test_dist_counts_pixels_as_images() -> None:
    rows = [each.transpose(0, 2, 3, 1).reshape(-1, 3) for each in (PIXELS, OTHER_PIXELS)]
    found = dist_loss(*tensors(PIXELS, OTHER_PIXELS))
    assert found.item() == pytest.approx(dist_loss(*tensors(*rows)).item(), abs=1e-12)


def test_dist_takes_any_scale_of_probabilities_and_no_gradient_where_a_side_is_constant() -> None:
    student = torch.zeros(5, 4, requires_grad=True)
    loss = dist_loss(student, torch.from_numpy(TEACHER).float())
    loss.backward()
    assert loss.item() == pytest.approx(2)
    assert not student.grad.any()
    with torch.no_grad():
        same = torch.from_numpy(TEACHER)
        halved = torch.logit(same.sigmoid() / 2 + 0.1)
        assert dist_loss(halved, same).item() == pytest.approx(0, abs=1e-6)


def test_standardised_logits_are_the_z_scores_of_each_image() -> None:
    def z_scores(logits: np.ndarray) -> np.ndarray:
        return (logits - logits.mean(1, keepdims=True)) / logits.std(1, keepdims=True)

    (logits,) = tensors(STUDENT)
    assert np.allclose(standardised(logits), z_scores(STUDENT), atol=1e-6)
    pixels = z_scores(PIXELS)
    assert np.allclose(standardised(torch.from_numpy(PIXELS)), pixels, atol=1e-6)
    student, teacher = sigmoid(z_scores(STUDENT) / 3), sigmoid(z_scores(TEACHER) / 3)
    config = DistillationConfig(temperature=3.0, weight=2.0, standardise=True)
    loss, added = config.loss(Seen(*tensors(STUDENT, TEACHER), [], 5))
    assert loss.item() == pytest.approx(9 * divergence(teacher, student).mean(), abs=1e-6)
    assert added.item() == pytest.approx(2 * loss.item())
    shifted = torch.from_numpy(3 * STUDENT + 1)
    assert config.loss(Seen(shifted, torch.from_numpy(STUDENT), [], 5))[0] < 1e-12


def test_standardising_equal_logits_gives_zeros_and_a_finite_gradient() -> None:
    logits = torch.ones(2, 3, requires_grad=True)
    scores = standardised(logits)
    assert not scores.any()
    scores.square().sum().backward()
    assert logits.grad.isfinite().all()


def test_multi_label_distillation_sums_over_findings() -> None:
    each = divergence(sigmoid(TEACHER), sigmoid(STUDENT))
    loss, added = MultiLabelConfig().loss(Seen(*tensors(STUDENT, TEACHER), [], 5))
    assert loss.item() == added.item() == pytest.approx(10 * each.sum() / len(each), abs=1e-6)


def test_distillation_at_temperature_1_is_the_multi_label_loss_up_to_its_reduction() -> None:
    plain, _ = DistillationConfig(temperature=1.0).loss(Seen(*tensors(STUDENT, TEACHER), [], 5))
    summed, _ = MultiLabelConfig(weight=1.0).loss(Seen(*tensors(STUDENT, TEACHER), [], 5))
    assert summed.item() == pytest.approx(STUDENT.shape[1] * plain.item(), rel=1e-12)


def relations(embeddings: np.ndarray) -> np.ndarray:
    """Distances (n, n) of embeddings (n, D), divided by their mean."""
    distances = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
    return distances / distances[distances > 0].mean()


def group_loss(student: np.ndarray, teacher: np.ndarray) -> float:
    """What the paper compares in one group of embeddings, (n, D) and (n, d)."""
    if len(student) < 2:
        return 0.0
    far = np.abs(relations(student) - relations(teacher))
    return float(np.where(far < 1, far**2 / 2, far - 0.5).sum() / len(student))


def test_label_embeddings_relate_as_in_the_paper() -> None:
    """Over the images with a finding, and over the findings of an image."""
    student, teacher = RANDOM.normal(0, 1, (5, 4, 3)), RANDOM.normal(0, 1, (5, 4, 6))
    labels = np.array([[1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 0, 1], [0, 0, 1, 0], [np.nan, 1, 0, 1]])
    of_class = [(labels[:, k] == 1, np.s_[:, k]) for k in range(4)]
    class_aware = sum(group_loss(student[at][m], teacher[at][m]) for m, at in of_class)
    instance_aware = sum(
        group_loss(student[i][m], teacher[i][m]) for i, m in enumerate(labels == 1)
    )
    assert class_aware > 0.1 and instance_aware > 0.1
    both = tuple(tensors(student, teacher))
    signal = MultiLabelConfig(embeddings=TAPS[0], class_aware_weight=2.0, instance_aware_weight=3.0)
    seen = Seen(*tensors(STUDENT, STUDENT), [both], 10, torch.from_numpy(labels))
    # Of a step of 10 images the other 5 bring as much again.
    expected = 2 * class_aware + 3 * 2 * instance_aware
    assert signal.loss(seen)[0].item() == pytest.approx(expected, abs=1e-6)


def test_hints_are_mean_squares_with_larger_planes_of_the_teacher_averaged() -> None:
    pooled = LARGER_MAPS.reshape(4, 3, 2, 2, 2, 2).mean((3, 5))
    pairs = [tuple(tensors(MAPS, LARGER_MAPS)), tuple(tensors(MAPS, MAPS))]
    loss, added = HintsConfig(TAPS, weight=3.0).loss(Seen(*tensors(STUDENT), None, pairs, 4))
    assert loss.item() == pytest.approx(np.square(MAPS - pooled).mean() / 2, abs=1e-6)
    assert added.item() == pytest.approx(3 * loss.item())


def test_similarities_are_those_of_the_paper() -> None:
    def similarities(maps: np.ndarray) -> np.ndarray:
        rows = maps.reshape(len(maps), -1)
        gram = rows @ rows.T
        return gram / np.linalg.norm(gram, axis=1, keepdims=True)

    expected = np.linalg.norm(similarities(MAPS) - similarities(LARGER_MAPS)) ** 2 / 4**2
    loss, added = SimilarityConfig(TAPS).loss(
        Seen(*tensors(STUDENT), None, [tuple(tensors(MAPS, LARGER_MAPS))], 4)
    )
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert added.item() == pytest.approx(3000 * loss.item())


LOSSES = {
    "dist": (dist_loss, STUDENT, TEACHER),
    "standardised": (
        lambda s, t: distillation_loss(standardised(s), standardised(t)), STUDENT, TEACHER
    ),
    "hints": (hint_loss, MAPS, LARGER_MAPS),
    "similarity": (similarity_loss, MAPS, LARGER_MAPS),
    "relations": (
        lambda s, t: relation_loss(s.flatten(2), t.flatten(2), torch.ones(4, 3) > 0), MAPS,
        LARGER_MAPS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_right_and_flow_to_the_student_alone(name: str) -> None:
    loss, *arrays = LOSSES[name]
    student, teacher = (each.requires_grad_(True) for each in tensors(*arrays))
    loss(student, teacher).backward()
    assert student.grad.any()
    assert teacher.grad is None
    assert torch.autograd.gradcheck(lambda each: loss(each, teacher.detach()), (student,))


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_float32_under_autocast(name: str) -> None:
    loss, *arrays = LOSSES[name]
    student, teacher = (each.bfloat16() for each in tensors(*arrays))
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(student, teacher)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(loss(*tensors(*arrays)).item(), rel=0.05)


ONE_IMAGE, ONE_FINDING = torch.zeros(1, 4), torch.zeros(5, 1)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda: dist_loss(ONE_IMAGE, ONE_IMAGE), "dist correlates over the images"),
        (lambda: dist_loss(ONE_FINDING, ONE_FINDING), "set dist.inter_weight to 0"),
        (lambda: standardised(ONE_FINDING), "distillation.standardise"),
        (lambda: similarity_loss(ONE_IMAGE, ONE_IMAGE), "there is one; set recipe.micro"),
        (lambda: HintsConfig([]), "hints.taps must be a list with at least one pair"),
        (lambda: SimilarityConfig([]), "similarity.taps must be .*, such as \\[{student: layer3"),
        (lambda: DistConfig(0, 0), "not both 0"),
        (
            lambda: MultiLabelConfig(embeddings=TAPS[0]).loss(
                Seen(*tensors(STUDENT, TEACHER), [tuple(tensors(MAPS, MAPS))], 5)
            ),
            "multi_label.embeddings: .* shape \\(4, 3, 2, 2\\)",
        ),
    ],
)
def test_what_cannot_work_is_refused(compute: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        compute()


def test_what_can_work_with_one_is_done() -> None:
    assert dist_loss(ONE_IMAGE, ONE_IMAGE, intra_weight=0).item() == pytest.approx(1)
    assert dist_loss(ONE_FINDING, ONE_FINDING, inter_weight=0).item() == pytest.approx(1)
