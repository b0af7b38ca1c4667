import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.config import PreprocessingConfig, RecipeConfig
from nakt_dist.training.tasks import SegmentationTask
from nakt_dist.transfer.classification import classification_loss
from nakt_dist.transfer.losses import class_segmentation_loss, dice_loss, segmentation_loss


def images(*rows):
    """A batch of images of one row of pixels each."""
    return torch.tensor(rows)[:, None, None, :]


def logit(probability):
    return math.log(probability / (1 - probability))


def test_dice_loss_on_soft_targets_by_hand():
    probability = images([0.9, 0.2, 0.0, 0.5], [1.0, 1.0, 0.0, 0.0])
    target = images([1.0, 0.5, 0.0, 0.25], [0.0, 0.0, 1.0, 1.0])
    first = 1 - (2 * (0.9 + 0.1 + 0.0 + 0.125) + 1) / (1.6 + 1.75 + 1)
    second = 1 - 1 / 5
    assert dice_loss(probability, target).tolist() == pytest.approx([first, second], abs=1e-6)


def test_dice_loss_is_taken_per_image_and_not_over_the_batch():
    probability, target = torch.rand(3, 1, 4, 5), torch.rand(3, 1, 4, 5)
    alone = [dice_loss(p[None], t[None]).item() for p, t in zip(probability, target, strict=True)]
    assert dice_loss(probability, target).tolist() == pytest.approx(alone, abs=1e-6)


def test_two_empty_masks_agree():
    empty = torch.zeros(2, 1, 4, 4)
    assert dice_loss(empty, empty).tolist() == [0.0, 0.0]


def test_the_constant_decides_what_a_miss_in_an_empty_mask_costs():
    probability, target = images([0.5, 0.5]), images([0.0, 0.0])
    assert dice_loss(probability, target, 1.0).item() == pytest.approx(0.5)
    assert dice_loss(probability, target, 4.0).item() == pytest.approx(0.2)


@given(st.integers(0, 2**32 - 1))
def test_dice_loss_stays_in_the_unit_interval(seed):
    generator = torch.Generator().manual_seed(seed)
    probability, target = torch.rand(2, 4, 1, 3, 3, generator=generator)
    losses = dice_loss(probability, target.round())
    assert (losses >= 0).all()
    assert (losses < 1).all()


def test_cross_entropy_on_soft_targets_by_hand():
    logits, target = images([logit(0.9), logit(0.2)]), images([0.75, 0.0])
    expected = -(0.75 * math.log(0.9) + 0.25 * math.log(0.1) + math.log(0.8)) / 2
    losses = segmentation_loss(logits, target)
    assert losses["cross_entropy"].item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_is_the_weighted_sum_of_both():
    logits, target = torch.randn(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    equal = segmentation_loss(logits, target)
    assert equal["loss"].item() == pytest.approx(
        (equal["dice_loss"] + equal["cross_entropy"]).item(), rel=1e-6
    )
    weighted = segmentation_loss(logits, target, 3.0, 0.5)
    expected = 3 * equal["dice_loss"] + 0.5 * equal["cross_entropy"]
    assert weighted["loss"].item() == pytest.approx(expected.item(), rel=1e-6)
    assert equal["dice_loss"].item() == pytest.approx(
        dice_loss(logits.sigmoid(), target).mean().item()
    )


@pytest.mark.parametrize("level", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [-1e4, -80.0, 0.0, 80.0, 1e4])
def test_loss_and_gradient_are_finite_for_any_logit(level, size):
    logits = torch.full((2, 1, 4, 4), size, requires_grad=True)
    losses = segmentation_loss(logits, torch.full((2, 1, 4, 4), level))
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"])
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_the_loss_is_float32_whatever_the_network_gives(kind):
    logits = torch.zeros(1, 1, 300, 300, dtype=kind)
    losses = segmentation_loss(logits, torch.ones(1, 1, 300, 300, dtype=kind))
    assert all(value.dtype == torch.float32 for value in losses.values())
    # 90,000 pixels at one half overflow float16 and are too coarse for bfloat16.
    expected = 1 - (90_000 + 1) / (45_000 + 90_000 + 1)
    assert losses["dice_loss"].item() == pytest.approx(expected, rel=1e-5)


def test_the_task_trains_at_the_networks_input_and_scores_at_the_images_size():
    seen = []

    class Network(torch.nn.Module):
        def forward(self, image):
            seen.append(image)
            return image[:, :1] * 0 + 2.0

    task = SegmentationTask(
        3,
        PreprocessingConfig(height=8, width=10, mean=0.5, std=0.25),
        RecipeConfig(steps=1, dice_weight=2.0, cross_entropy_weight=0.0),
    )
    image, target = torch.full((2, 1, 6, 7), 0.75), torch.ones(2, 1, 6, 7)
    losses = task.forward(Network(), image, target)
    assert seen[0].shape == (2, 3, 8, 10)
    assert torch.allclose(seen[0], torch.ones(()))
    expected = segmentation_loss(torch.full((2, 1, 6, 7), 2.0), target, 2.0, 0.0)
    assert losses["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-6)


def test_what_teachers_are_not_sure_of_weighs_less_by_hand():
    logits = images([logit(0.8), logit(0.3)], [logit(0.6), logit(0.5)])
    target = images([1.0, 0.75], [0.5, 0.0])  # sure by 1, 0.5, 0 and 1
    entropies = [-math.log(0.8), -0.75 * math.log(0.3) - 0.25 * math.log(0.7), -math.log(0.5)]
    pixel = segmentation_loss(logits, target, weighting="pixel")
    expected = (entropies[0] + 0.5 * entropies[1] + entropies[2]) / 4
    assert pixel["cross_entropy"].item() == pytest.approx(expected, abs=1e-6)
    first = 1 - (2 * (0.8 + 0.5 * 0.3 * 0.75) + 1) / (1.8 + 0.5 * 1.05 + 1)
    second = 1 - 1 / (0.5 + 1)
    assert pixel["dice_loss"].item() == pytest.approx((first + second) / 2, abs=1e-6)

    image = segmentation_loss(logits, target, weighting="image")
    half = -0.5 * (math.log(0.6) + math.log(0.4))
    expected = (0.75 * (entropies[0] + entropies[1]) + 0.5 * (half + entropies[2])) / 4
    assert image["cross_entropy"].item() == pytest.approx(expected, abs=1e-6)
    plain = dice_loss(logits.sigmoid(), target)
    expected = (0.75 * plain[0] + 0.5 * plain[1]).item() / 2
    assert image["dice_loss"].item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weighting", ["pixel", "image"])
def test_annotations_weigh_fully_and_two_classes_as_one_target(weighting):
    logits, soft = torch.randn(2, 1, 4, 5), torch.rand(2, 1, 4, 5)
    for target in (soft, soft.round()):
        one = segmentation_loss(logits, target, weighting=weighting)
        both = torch.cat([torch.zeros_like(logits), logits], dim=1)
        classes = class_segmentation_loss(both, target, weighting=weighting)
        for name, value in one.items():
            assert classes[name].item() == pytest.approx(value.item(), abs=1e-5)
    plain = segmentation_loss(logits, soft.round())
    assert one["loss"].item() == pytest.approx(plain["loss"].item(), abs=1e-6)


def test_findings_are_weighed_alone_or_by_image():
    nan = float("nan")
    logits = torch.zeros(3, 2, requires_grad=True)
    target = torch.tensor([[1.0, 0.75], [0.25, nan], [nan, nan]])
    by_finding = classification_loss(logits, target, weighting="pixel")["loss"].item()
    assert by_finding == pytest.approx(math.log(2) * (1 + 0.5 + 0.5) / 3)
    by_image = classification_loss(logits, target, weighting="image")["loss"].item()
    assert by_image == pytest.approx(math.log(2) * (0.75 + 0.75 + 0.5) / 3)
    for weighting in (
        "pixel",
        "image",
    ):  # what is ignored has a gradient of 0, and not of no number
        classification_loss(logits, target, weighting=weighting)["loss"].backward()
        assert logits.grad.isfinite().all()
        assert not logits.grad[2].any()
