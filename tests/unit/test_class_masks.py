"""Masks of several classes: names, planes, statistics, exclusion, loss and Dice, by NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from nakt_dist.config import AugmentationConfig, PreprocessingConfig, RecipeConfig
from nakt_dist.errors import ConfigurationError, UnusableSample
from nakt_dist.evaluation.dice import class_areas, class_masks, predicted_classes
from nakt_dist.imaging.mask_levels import MaskLevels
from nakt_dist.imaging.mask_settings import MaskValues
from nakt_dist.imaging.mask_values import judge
from nakt_dist.loading.augmentation import augment, draw_parameters
from nakt_dist.loading.mask_planes import MaskPlanes
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.preprocessing import NetworkInput
from nakt_dist.models.spec import ModelSpec
from nakt_dist.training.tasks import SegmentationTask
from nakt_dist.transfer.classes import ClassMap, check_classes
from nakt_dist.transfer.ensemble import Teacher, ensemble_probability, in_places
from nakt_dist.transfer.exclusion import ExclusionRule
from nakt_dist.transfer.losses import class_segmentation_loss, segmentation_loss
from nakt_dist.transfer.statistics import (
    class_of_pixels,
    class_pixels,
    expected_dice,
    target_pixels,
)

OWN = ("background", "liver", "tumour")


def random_planes(planes: int, size: int = 8, images: int = 3, seed: int = 0) -> torch.Tensor:
    """Shares of classes, and what is left is background."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(images, planes + 1, size, size, generator=generator)
    return (shares / shares.sum(1, keepdim=True))[:, 1:]


def task(classes: tuple[str, ...]) -> SegmentationTask:
    return SegmentationTask(1, PreprocessingConfig(), RecipeConfig(steps=1), None, classes)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def test_classes_are_found_by_name_whatever_their_order() -> None:
    assert ClassMap().places(OWN, ("background", "tumour", "liver"), "x") == (0, 2, 1)
    renamed = ClassMap({"tumour": "lesion", "liver": "background"})
    assert renamed.places(OWN, ("background", "lesion"), "x") == (0, 0, 1)
    joined = ClassMap({"tumour": "lesion", "liver": "lesion"})
    assert joined.places(OWN, ("background", "lesion"), "x") == (0, 1, 1)
    assert ClassMap(unknown="background").places(OWN, ("background", "liver"), "x") == (0, 1, 0)


@pytest.mark.parametrize(
    ("settings", "wanted", "message"),
    [
        ({}, ("background", "liver"), "class 'tumour' is none of background, liver.*class_map"),
        ({}, (*OWN, "spleen"), "has no class 'spleen'"),
        ({"names": {"tumor": "x"}}, OWN, r"has 'tumor', which is none.*did you mean 'tumour'"),
        ({"names": {"liver": "lever"}, "unknown": "background"}, OWN, "class 'lever' is none of"),
    ],
)
def test_a_class_is_nowhere_lost_silently(settings, wanted, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ClassMap(**settings).places(OWN, wanted, "x")


def test_the_class_of_binary_masks_is_any_that_is_alone() -> None:
    binary, named = ("background", "target"), ("background", "lesion")
    assert ClassMap().places(binary, named, "x") == ClassMap().places(named, binary, "x") == (0, 1)
    assert ClassMap().places(("lesion", "background"), binary, "x") == (1, 0)
    with pytest.raises(ConfigurationError, match="'cyst' is none of"):
        ClassMap().places(("background", "cyst"), named, "x")
    with pytest.raises(ConfigurationError, match="one of them background"):
        check_classes(["liver", "tumour"], "classes")


def test_planes_of_classes_that_become_one_are_summed() -> None:
    values = random_planes(2)
    assert in_places(values, (0, 1)) is values
    swapped = in_places(values, (1, 0))
    assert torch.equal(swapped[:, 0], values[:, 1]) and torch.equal(swapped[:, 1], values[:, 0])
    assert torch.equal(in_places(values, (0, 0))[:, 0], values.sum(1))


class Says(nn.Module):
    """Gives the same probabilities for each pixel of every image, as logits."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = torch.tensor(probabilities).log()[None, :, None, None]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(image), -1, *image.shape[-2:])


def said_by(*answers: tuple[float, ...], combination: str = "mean", **settings: str) -> list[float]:
    """What an ensemble of teachers says of a pixel, each of which gives these probabilities."""
    seen = NetworkInput(PreprocessingConfig(None, None, 0.0, 1.0))
    networks = [
        TrainedNetwork("t", Says(*each), ModelSpec(num_outputs=3), seen, {}, "") for each in answers
    ]
    teachers = [
        Teacher(each, 1.0, settings.get("output", "soft"), masks=OWN, classes=OWN)
        for each in networks
    ]
    planes, _ = ensemble_probability(teachers, torch.zeros(1, 1, 2, 2), None, combination)
    return planes[0, :, 0, 0].tolist()


def test_teachers_of_classes_are_joined_class_by_class() -> None:
    answers = (0.2, 0.4, 0.4), (0.4, 0.2, 0.4), (0.4, 0.4, 0.2)
    assert said_by(*answers) == pytest.approx([1 / 3, 1 / 3])
    assert said_by(answers[0], output="binary") in ([1, 0], [0, 1])
    assert said_by((0.5, 0.3, 0.2), output="binary") == [0, 0]
    assert said_by(*answers, combination="median") == pytest.approx([0.4, 0.4])
    high = (0.0, 0.7, 0.3), (0.0, 0.3, 0.7), (0.0, 0.6, 0.4)
    assert sum(said_by(*high, combination="median")) == pytest.approx(1)


def test_class_indices_become_planes_and_void_a_plane_of_its_own() -> None:
    stored = np.array([[[0, 1, 2], [255, 2, 7]]], np.uint8)
    planes = MaskPlanes(("background", "b", "a"), (0, 2, 1), indexed=True, has_void=True)
    found = np.empty((planes.count, 2, 3), np.uint8)
    planes.spread(stored, found)
    expected = [stored[0] == 2, stored[0] == 1, np.isin(stored[0], (255, 7))]
    assert planes.stored == 1 and np.array_equal(found, 255 * np.array(expected, np.uint8))


def test_soft_planes_that_join_are_summed_up_to_the_whole() -> None:
    stored = np.array([[[200, 10]], [[100, 20]], [[3, 4]]], np.uint8)
    planes = MaskPlanes(("background", "a"), (0, 1, 1, 0))
    found = np.empty((1, 1, 2), np.uint8)
    planes.spread(stored, found)
    assert found.tolist() == [[[255, 30]]]
    assert MaskPlanes(OWN, (0, 1, 2)).is_plain and not planes.is_plain


def test_values_and_colours_of_masks_become_indices() -> None:
    settings = MaskValues(classes={"a": [3], "b": [7, "#ff0000"]}, void=[9])
    assert settings.class_names == ("background", "a", "b")
    rule, told = judge([], settings)
    summary = {"name": "m.png", "kind": "numbers", "lossy": False, "carrier": "colour"}
    levels = MaskLevels(np.array([[0, 3, 7, 9, 5]]), "numbers")
    indices, counts = rule.find_classes(levels, summary, 255)
    assert indices.tolist() == [[0, 1, 2, 255, 0]] and counts == {"other": 1} and told == {}
    red = MaskLevels(np.array([[0xFF0000, 0]]), "colours")
    assert rule.find_classes(red, {**summary, "kind": "colours"}, 255)[0].tolist() == [[2, 0]]
    lossy = {**summary, "lossy": True, "values": None, "distinct": 9, "low": 0, "high": 9}
    with pytest.raises(UnusableSample, match="save the masks as PNG"):
        rule.find_classes(levels, lossy, 255)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": {"a": [1]}, "target": [1]}, "one says what the values mean"),
        ({"classes": {"a": [1], "b": [1]}}, "classes.a and mask_values.classes.b both hold 1"),
        ({"classes": {"a": [1]}, "void": [1]}, "both hold 1"),
        ({"classes": {"background": [0]}}, "names 0 classes besides the background"),
        ({"classes": {"a": []}}, "classes.a is empty"),
        ({"classes": {"a": ["red"]}}, "classes.a holds 'red'"),
    ],
)
def test_settings_of_classes_that_contradict_themselves_are_refused(settings, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        MaskValues(**settings)


def test_the_class_of_a_pixel_is_the_most_probable_and_background_what_is_left() -> None:
    levels = torch.randint(0, 128, (3, 2, 8, 8), generator=torch.Generator().manual_seed(1))
    planes = levels.to(torch.uint8)
    whole = np.concatenate([255 - levels.sum(1, keepdim=True).numpy(), levels.numpy()], axis=1)
    assert np.array_equal(class_of_pixels(planes).numpy(), whole.argmax(1))
    expected = [[int((one.argmax(0) == number).sum()) for number in (1, 2)] for one in whole]
    assert class_pixels(planes).tolist() == expected
    one = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert class_pixels(one).tolist() == [target_pixels(one).tolist()] == [[128]]
    assert (class_of_pixels(one) > 0).sum().item() == 128


def test_the_expected_dice_of_classes_is_the_mean_over_those_that_are_there() -> None:
    planes = torch.zeros(3, 2, 1, 4, dtype=torch.uint8)
    planes[:2, 0, 0] = torch.tensor([0, 100, 200, 255], dtype=torch.uint8)
    planes[1, 1, 0] = torch.tensor([150, 101, 0, 0], dtype=torch.uint8)  # 105 and 54 of background
    first = 2 * 455 / (555 + 2 * 255)
    among_two = [2 * 455 / (555 + 2 * 255), 2 * 251 / (251 + 2 * 255)]
    expected = [first, sum(among_two) / 2, 0]
    assert expected_dice(planes).tolist() == pytest.approx(expected, abs=1e-12)


def test_the_loss_of_classes_is_that_of_numpy() -> None:
    logits, planes = torch.randn(3, 3, 8, 8), random_planes(2)
    found = class_segmentation_loss(logits, planes, 0.5, 2.0)
    p, t = softmax(logits.double().numpy()), planes.double().numpy()
    target = np.concatenate([1 - t.sum(1, keepdims=True), t], axis=1)
    cross_entropy = -(target * np.log(p)).sum(1).mean()
    shared, both = (p[:, 1:] * t).sum((2, 3)), p[:, 1:].sum((2, 3)) + t.sum((2, 3))
    dice = (1 - (2 * shared + 1) / (both + 1)).mean()
    assert found["cross_entropy"].item() == pytest.approx(cross_entropy, abs=1e-6)
    assert found["dice_loss"].item() == pytest.approx(dice, abs=1e-6)
    assert found["loss"].item() == pytest.approx(0.5 * dice + 2 * cross_entropy, abs=1e-5)


def test_two_outputs_lose_as_one_does() -> None:
    logits, planes = torch.randn(3, 2, 8, 8), random_planes(1)
    one = segmentation_loss(logits[:, 1:] - logits[:, :1], planes)
    two = class_segmentation_loss(logits, planes)
    for name, value in one.items():
        assert two[name].item() == pytest.approx(value.item(), abs=1e-6)


def test_void_pixels_teach_nothing() -> None:
    logits, planes = torch.randn(2, 3, 4, 4, requires_grad=True), random_planes(2, 4, 2)
    void = torch.zeros(2, 1, 4, 4)
    void[:, :, 0] = 1
    known = torch.cat([planes * (1 - void), void], dim=1)
    found = class_segmentation_loss(logits, known)
    found["loss"].backward()
    assert (logits.grad[:, :, 0] == 0).all() and (logits.grad[:, :, 1:] != 0).all()
    inside = class_segmentation_loss(logits[:, :, 1:], planes[:, :, 1:])
    # The mean is over all pixels, a quarter of which are void.
    assert found["cross_entropy"].item() == pytest.approx(inside["cross_entropy"].item() * 0.75)
    assert found["dice_loss"].item() == pytest.approx(inside["dice_loss"].item())


def test_void_pixels_make_no_image_less_sure() -> None:
    """Annotations count fully, whatever part of them is void."""
    logits, planes = torch.randn(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    planes[:, 0, :2], planes[0, 2, 2:] = 1, 1
    plain = class_segmentation_loss(logits, planes)
    for weighting in ("image", "pixel"):
        found = class_segmentation_loss(logits, planes, weighting=weighting)
        for name, value in plain.items():
            assert found[name].item() == pytest.approx(value.item(), rel=1e-6)
    everything = torch.zeros(1, 3, 4, 4)
    everything[:, 2] = 1
    assert class_segmentation_loss(logits[:1], everything, weighting="image")["loss"] == 0


def test_dice_by_class_is_that_of_numpy_and_void_is_in_neither_mask() -> None:
    random = np.random.default_rng(2)
    predicted, annotated = random.integers(0, 3, (2, 4, 8, 8))
    void = random.random((4, 8, 8)) < 0.2
    one_hot = [(annotated == number) & ~void for number in (1, 2)]
    target = torch.from_numpy(np.stack([*one_hot, void], axis=1)).float()
    shared, both = class_areas(torch.from_numpy(predicted), target, 3)
    for number in (1, 2):
        p, t = (predicted == number) & ~void, one_hot[number - 1]
        assert shared[:, number - 1].tolist() == (p & t).sum((1, 2)).tolist()
        assert both[:, number - 1].tolist() == (p.sum((1, 2)) + t.sum((1, 2))).tolist()
    rows = torch.cat([shared, both], dim=1).numpy()
    metrics = task(OWN).validation_metrics(rows)
    expected = (2 * rows[:, :2] / rows[:, 2:]).mean(0)
    assert [metrics["dice_liver"], metrics["dice_tumour"]] == pytest.approx(expected)
    assert metrics["dice"] == pytest.approx(expected.mean())


def test_one_class_is_where_it_is_the_more_probable() -> None:
    levels = torch.arange(256).reshape(1, 1, 16, 16) / 255
    predicted = torch.randint(0, 2, (1, 16, 16))
    void = torch.rand(1, 1, 16, 16).round()
    masks = class_masks(predicted, torch.cat([levels, void], dim=1), 2)
    winners = torch.cat([1 - levels, levels], dim=1).argmax(1)[:, None]
    for found, numbers in zip(masks, (predicted[:, None], winners), strict=True):
        assert torch.equal(found, (numbers == 1) & (void == 0))


def test_an_image_without_a_class_does_not_count_for_it_in_validation() -> None:
    rows = np.array([[5, 0, 10, 0], [0, 0, 10, 4], [0, 0, 0, 0]], float)
    metrics = task(OWN).validation_metrics(rows)
    assert metrics == {"dice": 0.25, "dice_liver": 0.5, "dice_tumour": 0.0}
    assert task(OWN).validation_metrics(rows[2:]) == {"dice": 1.0}
    two = task(("background", "target")).validation_metrics(np.array([[0, 0], [1, 4]], float))
    assert two["dice"] == 0.75  # as of one output


def test_one_output_learns_and_is_judged_beside_void() -> None:
    logits, planes = torch.randn(2, 1, 4, 4), random_planes(1, 4, 2).round()
    void = torch.zeros_like(planes)
    learner = task(("background", "target"))
    plain = learner.loss(logits, planes)
    for name, value in learner.loss(logits, torch.cat([planes, void], dim=1)).items():
        assert value.item() == pytest.approx(plain[name].item(), abs=1e-6)
    rows = learner.validation_rows(logits, planes)
    assert torch.equal(rows, learner.validation_rows(logits, torch.cat([planes, void], dim=1)))


def test_two_outputs_predict_by_the_threshold_and_more_the_most_probable() -> None:
    probability = torch.tensor([0.1, 0.6, 0.8]).reshape(1, 1, 1, 3)
    two = torch.cat([1 - probability, probability], dim=1)
    assert torch.equal(predicted_classes(two, 0.7), predicted_classes(probability, 0.7))
    three = torch.tensor([0.3, 0.3, 0.4]).reshape(1, 3, 1, 1)
    assert predicted_classes(three, 0.5).item() == 2
    masks = class_masks(predicted_classes(three, 0.5), torch.zeros(1, 2, 1, 1), 3)
    assert [each.flatten().tolist() for each in masks] == [[False, True], [False, False]]


def test_planes_move_with_their_image() -> None:
    """What is drawn on the image alike stays on it, to 1e-6 and bilinearly."""
    random = np.random.default_rng(3)
    pixels = torch.from_numpy(random.integers(0, 256, (5, 3, 24, 24)).astype(np.uint8))
    settings = AugmentationConfig(gamma=(1, 1), contrast=(1, 1))
    parameters = draw_parameters(settings, np.arange(5), 7, 0, 24, 24)
    image, target = augment(pixels, pixels.clone(), parameters)
    assert torch.allclose(image, target, atol=1e-6) and not torch.allclose(image, pixels / 255)
    indices = torch.from_numpy(random.integers(0, 3, (5, 1, 24, 24)))
    planes = torch.cat([indices == number for number in (1, 2)], dim=1).to(torch.uint8) * 255
    _, moved = augment(pixels, planes, parameters)
    assert (moved.sum(1) <= 1 + 1e-6).all()  # what is left, outside too, is background


@pytest.mark.parametrize(
    ("judged", "classes", "kept"),
    [
        ("image", None, [True, False, True]),
        ("any_class", None, [True, False, False]),
        ("every_class", None, [False, False, False]),
        ("every_class", ("liver",), [True, False, False]),
    ],
)
def test_classes_are_judged_each_or_all_together(judged, classes, kept) -> None:
    pixels, entropy = np.array([[9, 0], [1, 2], [9, 1]]), np.array([[1.0, 0.0], [1, 1], [9, 0.5]])
    rule = ExclusionRule(alpha=4, beta=5, judged=judged, classes=classes)
    of = [OWN[1:].index(name) for name in rule.judged_classes(OWN)]
    n, e = (
        each[:, of] if of else each.sum(1) / scale for each, scale in ((pixels, 1), (entropy, 2))
    )
    assert rule.kept(n, e, 8, 8, soft=True).tolist() == kept


def test_rules_by_class_are_refused_where_there_is_none() -> None:
    rule = ExclusionRule(judged="any_class", classes=["spleen"])
    assert hash(rule) and "judged" not in ExclusionRule().to_json()
    with pytest.raises(ConfigurationError, match="'spleen', which is none of the masks' classes"):
        rule.judged_classes(OWN)
    with pytest.raises(ConfigurationError, match="these masks have one target"):
        replace(rule, classes=None).judged_classes(())
    with pytest.raises(ConfigurationError, match=r"left out unless exclusion\.judged"):
        ExclusionRule(classes=("liver",))
