"""Losses of yes-or-no answers against formulas written out here."""

import pytest
import torch
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from nakt_dist.config import PreprocessingConfig, RecipeConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.training.tasks import SegmentationTask
from nakt_dist.transfer.binary_loss import BinaryLoss
from nakt_dist.transfer.classification import classification_loss
from nakt_dist.transfer.losses import segmentation_loss


def drawn(soft=False):
    """Logits and targets, float64 (40, 6)."""
    generator = torch.Generator().manual_seed(3)
    logits = 4 * torch.randn(40, 6, generator=generator, dtype=torch.float64)
    target = torch.rand(40, 6, generator=generator, dtype=torch.float64)
    return logits, target if soft else target.round()


@pytest.mark.parametrize(
    "loss",
    [
        BinaryLoss("focal", gamma=0.0),
        BinaryLoss("asymmetric", gamma_positive=0.0, gamma_negative=0.0, margin=0.0),
    ],
)
def test_without_focus_each_is_cross_entropy(loss):
    logits, target = drawn(soft=True)
    logits.requires_grad_(True)
    found, expected = loss.mean(logits, target), BinaryLoss().mean(logits, target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    gradients = [torch.autograd.grad(each, logits)[0] for each in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-12)


@pytest.mark.parametrize(("gamma", "alpha"), [(2.0, 0.25), (2.0, None), (0.5, 0.7)])
def test_focal_loss_is_torchvisions(gamma, alpha):
    logits, target = drawn()
    expected = sigmoid_focal_loss(logits, target, alpha=-1 if alpha is None else alpha, gamma=gamma)
    assert torch.allclose(BinaryLoss("focal", gamma, alpha).entries(logits, target), expected)


def test_the_defaults_are_those_of_the_papers():
    logits, target = drawn()
    expected = sigmoid_focal_loss(logits, target, alpha=-1, gamma=2)
    assert torch.allclose(BinaryLoss("focal").entries(logits, target), expected)
    written_out = BinaryLoss("asymmetric", gamma_positive=0.0, gamma_negative=4.0, margin=0.05)
    expected = written_out.entries(logits, target)
    assert torch.equal(BinaryLoss("asymmetric").entries(logits, target), expected)


@pytest.mark.parametrize(
    ("positive", "negative", "margin"), [(0.0, 4.0, 0.05), (1.0, 4.0, 0.2), (1.0, 0.5, 0.0)]
)
def test_asymmetric_loss_is_that_of_its_formula(positive, negative, margin):
    logits, target = drawn()
    p = 1 / (1 + torch.exp(-logits))
    shifted = torch.maximum(p - margin, torch.zeros_like(p))
    expected = torch.where(
        target == 1,
        -((1 - p) ** positive) * torch.log(p),
        -(shifted**negative) * torch.log(1 - shifted),
    )
    loss = BinaryLoss("asymmetric", gamma_positive=positive, gamma_negative=negative, margin=margin)
    assert torch.allclose(loss.entries(logits, target), expected, atol=1e-9)
    assert (expected[target == 0] == 0).any() == (margin > 0)  # an easy negative costs nothing


LOSSES = [
    BinaryLoss("focal"), BinaryLoss("focal", gamma=0.5, alpha=0.25), BinaryLoss("asymmetric"),
    BinaryLoss("asymmetric", gamma_positive=0.5, gamma_negative=0.5),
    BinaryLoss("asymmetric", margin=0.0),
]  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [-1e4, -80.0, 0.0, 80.0, 1e4])
def test_loss_and_gradient_are_finite_for_any_logit(loss, size):
    logits = torch.full((2, 3), size, requires_grad=True)
    found = loss.mean(logits, torch.tensor([[1.0, 0.0, 0.3]] * 2))
    found.backward()
    assert torch.isfinite(found) and found >= 0
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_findings_keep_their_weights_their_divisor_and_their_gaps(loss):
    logits, target = drawn()
    target[::3, 1] = float("nan")
    weight = torch.tensor([1.0, 3.0, 1.0, 0.5, 1.0, 2.0], dtype=torch.float64)
    entries = [
        loss.entries(logit, answer) * (weight[number % 6] if answer == 1 else 1)
        for number, (logit, answer) in enumerate(
            zip(logits.flatten(), target.flatten(), strict=True)
        )
        if not answer.isnan()
    ]
    found = classification_loss(logits, target, weight, 50.0, loss=loss)
    assert found["loss"] is found[loss.name]
    assert found["loss"].item() == pytest.approx(torch.stack(entries).sum().item() / 50)


def test_pixels_may_have_another_loss_beside_dice():
    logits, target = torch.randn(2, 1, 4, 4), torch.rand(2, 1, 4, 4)
    loss = BinaryLoss("focal")
    found = segmentation_loss(logits, target, 1.0, 0.5, loss=loss)
    plain = segmentation_loss(logits, target)
    assert found.keys() == {"loss", "dice_loss", "focal"}
    assert found["loss"].item() == pytest.approx(
        plain["dice_loss"].item() + 0.5 * loss.entries(logits, target).mean().item()
    )
    sure = segmentation_loss(logits, target, weighting="pixel", loss=loss)["focal"]
    by_hand = ((2 * target - 1).abs() * loss.entries(logits, target)).mean()
    assert sure.item() == pytest.approx(by_hand.item(), rel=1e-6)
    assert plain["cross_entropy"] == functional.binary_cross_entropy_with_logits(logits, target)


def test_masks_of_several_classes_have_no_such_loss():
    recipe = RecipeConfig(steps=1, loss=BinaryLoss("focal"))
    task = SegmentationTask(1, PreprocessingConfig(mean=0.0, std=1.0), recipe)
    with pytest.raises(ConfigurationError, match="which is for masks of one target"):
        task.loss(torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4))
