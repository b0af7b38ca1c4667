from dataclasses import replace

import pytest
import torch
from torch import nn

from nakt_dist.config import PreprocessingConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.models.input_images import prepare_image
from nakt_dist.models.network_file import TrainedNetwork, open_network
from nakt_dist.models.preprocessing import NetworkInput
from nakt_dist.models.spec import IMAGENET_MEAN, IMAGENET_STD, ModelSpec
from nakt_dist.transfer.ensemble import Teacher, ensemble_probability
from tests.datasets import make_weights


class Constant(nn.Module):
    """Gives the same logits, (1, 1, h, w), for every image, and remembers what it saw."""

    def __init__(self, probability):
        super().__init__()
        self.logits = torch.as_tensor(probability, dtype=torch.float32).logit()[None, None]
        self.seen = []

    def forward(self, image):
        self.seen.append(image.clone())
        return self.logits.expand(len(image), -1, -1, -1)


def seen(height=None, width=None, mean=0.0, std=1.0):
    return PreprocessingConfig(height, width, mean, std)


def teacher(network, in_channels=1, weight=1.0, output="soft", **settings):
    spec = ModelSpec(in_channels=in_channels)
    trained = TrainedNetwork("teacher", network, spec, NetworkInput(seen(**settings)), {}, "0" * 64)
    return Teacher(trained, weight, output)


def constant(*rows, **settings):
    return teacher(Constant(rows), **settings)


IMAGE = torch.full((2, 1, 2, 2), 0.5)


def test_the_mean_is_weighted_and_its_weights_need_not_sum_to_one():
    teachers = [
        constant([0.9, 0.1], [0.5, 0.2], weight=1.0),
        constant([0.5, 0.3], [0.1, 0.2], weight=3.0),
    ]
    mean, _ = ensemble_probability(teachers, IMAGE)
    expected = torch.tensor([[0.6, 0.25], [0.2, 0.2]])
    assert mean.shape == (2, 1, 2, 2)
    assert mean.dtype == torch.float32
    assert torch.allclose(mean, expected.expand(2, 1, -1, -1), atol=1e-6)


def test_disagreement_is_the_weighted_spread_between_teachers_by_hand():
    teachers = [
        constant([0.9, 0.1], [0.5, 0.2], weight=1.0),
        constant([0.5, 0.3], [0.1, 0.2], weight=3.0),
    ]
    _, disagreement = ensemble_probability(teachers, IMAGE)
    # Two values with weights 1/4 and 3/4 spread by |difference| · sqrt(3) / 4.
    expected = (0.4 + 0.2 + 0.4 + 0.0) / 4 * 3**0.5 / 4
    assert disagreement.tolist() == pytest.approx([expected] * 2, abs=1e-6)


def test_one_teacher_does_not_disagree_and_equal_ones_hardly():
    one = constant([0.9, 0.1], [0.5, 0.2])
    mean, disagreement = ensemble_probability([one], IMAGE)
    assert torch.allclose(mean[0, 0], torch.tensor([[0.9, 0.1], [0.5, 0.2]]), atol=1e-6)
    assert disagreement.tolist() == [0.0, 0.0]
    _, disagreement = ensemble_probability([one] * 3, IMAGE)
    assert disagreement.max() < 1e-3


def test_a_binary_teacher_says_target_above_one_half():
    mean, _ = ensemble_probability([constant([0.51, 0.5], [0.49, 0.99], output="binary")], IMAGE)
    assert mean[0, 0].tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_what_is_no_number_does_not_become_a_vote():
    broken = constant([torch.nan, 0.9], [0.2, 0.5], output="binary")
    mean, _ = ensemble_probability([broken], IMAGE[:1])
    torch.testing.assert_close(mean[0, 0], torch.tensor([[torch.nan, 1], [0, 0]]), equal_nan=True)
    classes = ("background", "a", "b")
    broken.trained.network.logits = torch.tensor([0.0, torch.nan, 2.0]).view(1, 3, 1, 1)
    mean, _ = ensemble_probability([replace(broken, masks=classes, classes=classes)], IMAGE[:1])
    assert mean.isnan().all()


def test_binary_and_soft_teachers_are_averaged_as_they_are():
    teachers = [
        constant([0.51, 0.4], [0.9, 0.1], output="binary"),
        constant([0.2, 0.6], [0.9, 0.1]),
    ]
    mean, _ = ensemble_probability(teachers, IMAGE)
    assert torch.allclose(mean[0, 0], torch.tensor([[0.6, 0.3], [0.95, 0.05]]), atol=1e-6)


def test_a_teacher_sees_its_own_size_and_normalisation_and_answers_at_the_images():
    network = Constant([[0.1, 0.9]])
    image = torch.full((3, 1, 4, 6), 0.75)
    one = teacher(network, height=8, width=10, mean=0.5, std=0.125)
    mean, _ = ensemble_probability([one], image)
    assert network.seen[0].shape == (3, 1, 8, 10)
    assert torch.allclose(network.seen[0], torch.full((), 2.0), atol=1e-6)
    assert mean.shape == (3, 1, 4, 6)
    # Logits, not probabilities, are interpolated; beyond the outermost centres they stay.
    low, high = torch.tensor([0.1, 0.9]).logit()
    shares = ((torch.arange(6) + 0.5) / 3 - 0.5).clamp(0, 1)
    expected = (low + (high - low) * shares).sigmoid()
    assert torch.allclose(mean, expected.expand(3, 1, 4, 6), atol=1e-6)


def test_each_channel_is_normalised_by_its_own_mean_and_deviation():
    image = torch.rand(2, 3, 4, 4)
    mean, std = IMAGENET_MEAN, list(IMAGENET_STD)
    found = prepare_image(image, 3, seen(mean=mean, std=std))
    for channel in range(3):
        expected = (image[:, channel] - mean[channel]) / std[channel]
        assert torch.allclose(found[:, channel], expected, atol=1e-6)
    grey = prepare_image(image[:, :1], 3, seen(8, 8, mean, 0.5))
    assert grey.shape == (2, 3, 8, 8)
    assert torch.allclose(grey[:, 0] - grey[:, 2], torch.tensor((0.406 - 0.485) / 0.5), atol=1e-5)
    assert torch.equal(
        prepare_image(image, 1, seen(mean=[0.5], std=[0.25])),
        prepare_image(image, 1, seen(mean=0.5, std=0.25)),
    )


def test_as_many_means_as_channels_are_expected():
    with pytest.raises(ConfigurationError, match=r"preprocessing\.mean has 3 numbers.* 1 channels"):
        prepare_image(IMAGE, 1, seen(mean=IMAGENET_MEAN))
    with pytest.raises(ConfigurationError, match=r"preprocessing\.std has 2 numbers.* 3 channels"):
        prepare_image(IMAGE, 3, seen(std=[1.0, 1.0]))


def test_a_grey_image_is_repeated_for_a_teacher_of_three_channels():
    network = Constant([[0.5, 0.5], [0.5, 0.5]])
    image = torch.rand(2, 1, 2, 2)
    ensemble_probability([teacher(network, in_channels=3)], image)
    assert torch.equal(network.seen[0], image.repeat(1, 3, 1, 1))


def test_a_colour_image_becomes_luma_for_a_teacher_of_one_channel():
    network = Constant([[0.5, 0.5], [0.5, 0.5]])
    image = torch.rand(2, 3, 2, 2)
    ensemble_probability([teacher(network)], image)
    expected = 0.299 * image[:, 0] + 0.587 * image[:, 1] + 0.114 * image[:, 2]
    assert torch.allclose(network.seen[0][:, 0], expected, atol=1e-6)


def test_teachers_of_different_kinds_work_together_without_changing_the_image():
    image = torch.rand(2, 1, 4, 6)
    before = image.clone()
    teachers = [
        constant([0.9, 0.9], in_channels=3, height=2, width=2, mean=0.5, std=0.5),
        constant([0.1, 0.1], [0.1, 0.1], height=16, width=16, weight=3.0),
    ]
    mean, _ = ensemble_probability(teachers, image)
    assert torch.allclose(mean, torch.full((2, 1, 4, 6), 0.3), atol=1e-6)
    assert torch.equal(image, before)


def test_the_mean_stays_float32_under_autocast(tmp_path):
    trained = open_network(make_weights(tmp_path / "weights.safetensors"))
    image = torch.rand(1, 1, 32, 32)
    exact, _ = ensemble_probability([teacher(trained.network)], image)
    rough, _ = ensemble_probability([teacher(trained.network)], image, torch.bfloat16)
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert torch.allclose(exact, rough, atol=0.02)


def test_a_probability_is_as_fine_as_float32_though_the_logits_are_not():
    class Rough(Constant):
        def forward(self, image):
            return super().forward(image).bfloat16()

    network = Rough([[0.9, 0.1], [0.501, 0.003]])
    mean, _ = ensemble_probability([teacher(network)], IMAGE)
    expected = network.logits[0, 0].bfloat16().float().sigmoid()
    assert torch.allclose(mean, expected.expand(2, 1, -1, -1), atol=1e-6)


def test_a_teacher_stays_frozen_and_without_gradient(tmp_path):
    trained = open_network(make_weights(tmp_path / "weights.safetensors"))
    before = {name: value.clone() for name, value in trained.network.state_dict().items()}
    mean, disagreement = ensemble_probability(
        [teacher(trained.network)] * 2, torch.rand(2, 1, 32, 32, requires_grad=True)
    )
    assert not trained.network.training
    assert not mean.requires_grad
    assert not disagreement.requires_grad
    for name, parameter in trained.network.named_parameters():
        assert not parameter.requires_grad
        assert parameter.grad is None
        assert torch.equal(parameter, before[name])


class Position(nn.Module):
    """Gives the pixel of the input as logit: what is mirrored stays visible."""

    def forward(self, image):
        return image


def test_views_are_turned_back_and_averaged():
    image = torch.rand(2, 1, 6, 8)
    plain = teacher(Position())
    mirrored = replace(plain, flips=("horizontal", "vertical"))
    assert mirrored.views == 4
    once, four = (ensemble_probability([each], image) for each in (plain, mirrored))
    assert torch.allclose(once[0], four[0], atol=1e-6)
    assert four[1].max() < 1e-3
    larger = replace(plain, scales=(16.0, 0.1))
    sizes = [each.shape for each in larger.probabilities(image)]
    assert sizes == [(2, 1, 6, 8)] * 3


class LeftHalf(nn.Module):
    """Sees a target in the left half, whatever the image."""

    def forward(self, image):
        logits = torch.full_like(image, -20.0)
        logits[..., : image.shape[-1] // 2] = 20.0
        return logits


def test_views_that_differ_are_disagreement():
    both = replace(teacher(LeftHalf()), flips=("horizontal",))
    mean, disagreement = ensemble_probability([both], IMAGE)
    assert torch.allclose(mean, torch.full((2, 2, 2), 0.5), atol=1e-6)
    assert disagreement.tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    assert both.provenance["flips"] == ["horizontal"]
    assert "scales" not in both.provenance
