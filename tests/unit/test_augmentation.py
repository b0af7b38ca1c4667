import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from torch.nn import functional

from nakt_dist.config import AugmentationConfig
from nakt_dist.loading.augmentation import augment, draw_parameters

PAPER = AugmentationConfig()
STILL = AugmentationConfig(
    smallest_crop=1.0,
    flip_probability=0.0,
    largest_rotation=0.0,
    gamma=(1.0, 1.0),
    contrast=(1.0, 1.0),
)
SIZES = [(24, 24), (16, 40), (40, 12)]


def only(**settings):
    return dataclasses.replace(STILL, **settings)


def batch(count, height, width, channels=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(count, channels, height, width, generator=generator)
    return image, (torch.rand(count, 1, height, width, generator=generator) > 0.5).float()


def stored(count, height, width, channels=1):
    """Pixels and masks as they come from shards: uint8."""
    image, target = batch(count, height, width, channels)
    return (image * 255).round().to(torch.uint8), (target * 255).to(torch.uint8)


def drawn(config, numbers, height, width, seed=0, epoch=0):
    return draw_parameters(config, np.asarray(numbers), seed, epoch, height, width)


def in_pixels(parameters, height, width):
    """The linear part of each affine map in pixels instead of [-1, 1], float64 (N, 2, 2)."""
    scale = np.array([width / 2, height / 2])
    return parameters.affine[:, :, :2].double().numpy() * scale[:, None] / scale[None, :]


def resampled(pixels, affine):
    """An independent affine resampling of one plane: bilinear, black outside."""
    height, width = pixels.shape
    rows, columns = np.mgrid[:height, :width]
    x, y = (2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1
    source_x = affine[0, 0] * x + affine[0, 1] * y + affine[0, 2]
    source_y = affine[1, 0] * x + affine[1, 1] * y + affine[1, 2]
    positions = [((source_y + 1) * height - 1) / 2, ((source_x + 1) * width - 1) / 2]
    return ndimage.map_coordinates(pixels, positions, order=1, mode="grid-constant")


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_settings_that_change_nothing_give_every_value_back(height, width):
    pixels, mask = stored(3, height, width)
    found_image, found_target = augment(pixels, mask, drawn(STILL, range(3), height, width))
    assert torch.equal(found_image, pixels / 255)
    assert torch.equal(found_target, mask / 255)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_flip_mirrors_the_columns_and_mixes_no_pixels(height, width):
    pixels, mask = stored(8, height, width, channels=3)
    parameters = drawn(only(flip_probability=0.5), range(8), height, width)
    flipped = parameters.affine[:, 0, 0] < 0
    assert 0 < flipped.sum() < 8
    for found, given_ in zip(augment(pixels, mask, parameters), (pixels, mask), strict=True):
        assert torch.equal(found[flipped], given_[flipped].flip(-1) / 255)
        assert torch.equal(found[~flipped], given_[~flipped] / 255)


def in_plain_torch(image, target, parameters):
    """All stages on the whole batch, as torch's own functions have them."""
    grid = functional.affine_grid(parameters.affine.contiguous(), list(image.shape), False)
    image, target = (
        functional.grid_sample(each, grid, align_corners=False) for each in (image, target)
    )
    image = image.clamp(min=1e-6) ** parameters.gamma[:, None, None, None]
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * parameters.contrast[:, None, None, None]
    return image.clamp(0, 1), target.clamp(0, 1)


@pytest.mark.parametrize("changed", [{}, {"gamma": (1.0, 1.0)}, {"contrast": (1.0, 1.0)}])
@pytest.mark.parametrize("size", [*SIZES, (256, 256)])
def test_all_stages_are_those_of_plain_torch_to_a_fiftieth_of_a_grey_level(changed, size):
    pixels, mask = stored(4, *size)
    parameters = drawn(dataclasses.replace(PAPER, **changed), range(4), *size)
    expected = in_plain_torch(pixels / 255, mask / 255, parameters)
    for found, plain in zip(augment(pixels, mask, parameters), expected, strict=True):
        assert (found - plain).abs().max() <= 0.02 / 255


def test_stored_pixels_and_floating_point_ones_give_the_same_and_stay_as_they_are():
    pixels, mask = stored(5, 24, 24)
    image, target = pixels / 255, mask / 255
    before = [each.clone() for each in (pixels, mask, image, target)]
    parameters = drawn(PAPER, range(5), 24, 24)
    of_stored, of_floats = augment(pixels, mask, parameters), augment(image, target, parameters)
    for one, other in zip(of_stored, of_floats, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    for each, once in zip((pixels, mask, image, target), before, strict=True):
        assert torch.equal(each, once)


def test_findings_stay_as_they_are():
    pixels, _ = stored(3, 24, 24)
    findings = torch.tensor([[0.0, 1.0], [float("nan"), 1.0], [1.0, 0.0]])
    _, found = augment(pixels, findings, drawn(PAPER, range(3), 24, 24))
    assert torch.equal(found.nan_to_num(0.5), torch.tensor([[0.0, 1.0], [0.5, 1.0], [1.0, 0.0]]))


@pytest.mark.parametrize("values_in_cache", [1, 2 * 24 * 24, 2**30])
def test_how_many_images_go_through_together_changes_nothing(values_in_cache, monkeypatch):
    pixels, mask = stored(7, 24, 24)
    parameters = drawn(PAPER, range(7), 24, 24)
    expected = in_plain_torch(pixels / 255, mask / 255, parameters)
    monkeypatch.setattr("nakt_dist.loading.augmentation._VALUES_IN_CACHE", values_in_cache)
    for found, plain in zip(augment(pixels, mask, parameters), expected, strict=True):
        assert torch.allclose(found, plain, atol=1e-5)


def test_images_are_flipped_as_often_as_asked_for():
    linear = in_pixels(drawn(only(flip_probability=0.3), range(2000), 24, 24), 24, 24)
    flipped = np.linalg.det(linear) < 0
    assert flipped.mean() == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_turn_is_a_rigid_rotation_in_pixels(height, width):
    parameters = drawn(only(largest_rotation=45.0), range(50), height, width)
    linear = in_pixels(parameters, height, width)
    identity = np.broadcast_to(np.eye(2), linear.shape)
    assert np.allclose(linear @ linear.transpose(0, 2, 1), identity, atol=1e-6)
    assert np.allclose(np.linalg.det(linear), 1, atol=1e-6)
    assert torch.equal(parameters.affine[:, :, 2], torch.zeros(50, 2))


@pytest.fixture
def quarter_turns(monkeypatch):
    """Makes every drawn rotation one by exactly +90 degrees; the crop stays in the middle."""
    uniform = np.array([1.0, 1.0, 0.5, 1.0, 0.5, 0.5, 0.5, 0.5])
    monkeypatch.setattr(
        "nakt_dist.loading.augmentation.uniform_rows",
        lambda seed, epoch, numbers, count: np.tile(uniform, (len(numbers), 1)),
    )
    return only(largest_rotation=90.0)


def test_a_quarter_turn_is_that_of_torch(quarter_turns):
    image, target = batch(2, 9, 9)
    found, found_target = augment(image, target, drawn(quarter_turns, range(2), 9, 9))
    assert torch.allclose(found, torch.rot90(image, 1, (-2, -1)), atol=1e-5)
    assert torch.allclose(found_target, torch.rot90(target, 1, (-2, -1)), atol=1e-5)


def test_a_quarter_turn_of_an_oblong_image_keeps_the_middle_and_blackens_the_rest(quarter_turns):
    image, target = batch(1, 6, 14)
    found, _ = augment(image, target, drawn(quarter_turns, range(1), 6, 14))
    expected = torch.zeros_like(image)
    expected[..., 4:10] = torch.rot90(image[..., 4:10], 1, (-2, -1))
    assert torch.allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_pixels_are_those_of_an_independent_resampling(height, width):
    image, target = batch(6, height, width)
    still = dataclasses.replace(PAPER, gamma=(1.0, 1.0), contrast=(1.0, 1.0))
    parameters = drawn(still, range(6), height, width)
    found_image, found_target = augment(image, target, parameters)
    for number, affine in enumerate(parameters.affine.double().numpy()):
        for found, given_ in ((found_image, image), (found_target, target)):
            expected = resampled(given_[number, 0].double().numpy(), affine)
            assert np.allclose(found[number, 0].numpy(), expected, atol=1e-4)


@given(st.integers(0, 2**31), st.sampled_from(SIZES))
def test_a_crop_keeps_its_share_and_never_reaches_outside_the_image(seed, size):
    parameters = drawn(only(smallest_crop=0.7), range(20), *size, seed=seed)
    affine = parameters.affine.double().numpy()
    sides = affine[:, [0, 1], [0, 1]]
    assert (sides >= 0.7 - 1e-6).all()
    assert (sides <= 1).all()
    assert (affine[:, [0, 1], [1, 0]] == 0).all()
    assert (np.abs(affine[:, :, 2]) + sides <= 1 + 1e-6).all()


@given(st.integers(0, 2**31), st.sampled_from(SIZES))
def test_a_turned_crop_is_the_crop_turned_about_the_middle_of_the_image(seed, size):
    height, width = size
    half = np.array([width / 2, height / 2])
    turned = drawn(PAPER, range(10), *size, seed=seed)
    still = dataclasses.replace(PAPER, largest_rotation=0.0)
    crop = drawn(still, range(10), *size, seed=seed)
    crop_linear, linear = in_pixels(crop, *size), in_pixels(turned, *size)
    angle = np.arctan2(-linear[:, 0, 1], linear[:, 1, 1])
    turns = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    turns = turns.transpose(2, 0, 1)
    crop_centre, centre = (
        parameters.affine[:, :, 2].double().numpy() * half for parameters in (crop, turned)
    )
    assert np.allclose(turns @ crop_linear, linear, atol=1e-5)
    assert np.allclose((turns @ crop_centre[:, :, None])[:, :, 0], centre, atol=1e-4)


@given(st.integers(0, 2**31), st.integers(0, 500), st.sampled_from(SIZES))
def test_every_parameter_is_in_the_papers_range(seed, epoch, size):
    parameters = drawn(PAPER, range(20), *size, seed=seed, epoch=epoch)
    assert ((parameters.gamma >= 0.7) & (parameters.gamma <= 1.3)).all()
    assert ((parameters.contrast >= 0.7) & (parameters.contrast <= 1.3)).all()
    linear = in_pixels(parameters, *size)
    columns, rows = np.linalg.norm(linear, axis=1).T
    assert ((columns > 0.7 - 1e-6) & (columns < 1 + 1e-6)).all()
    assert ((rows > 0.7 - 1e-6) & (rows < 1 + 1e-6)).all()
    # Columns of a rotated crop stay perpendicular in pixels: nothing is sheared.
    assert np.allclose((linear[:, :, 0] * linear[:, :, 1]).sum(1), 0, atol=1e-6)
    degrees = np.degrees(np.arctan2(-linear[:, 0, 1], linear[:, 1, 1]))
    assert (np.abs(degrees) <= 45 + 1e-4).all()


def test_the_paper_ranges_are_used_up_to_their_ends():
    parameters = drawn(PAPER, range(3000), 24, 24)
    linear = in_pixels(parameters, 24, 24)
    degrees = np.degrees(np.arctan2(-linear[:, 0, 1], linear[:, 1, 1]))
    for values, lowest, highest in (
        (parameters.gamma.numpy(), 0.7, 1.3),
        (parameters.contrast.numpy(), 0.7, 1.3),
        (degrees, -45, 45),
        (np.linalg.norm(linear, axis=1)[:, 0], 0.7, 1.0),
        (np.linalg.norm(linear, axis=1)[:, 1], 0.7, 1.0),
    ):
        near = 0.01 * (highest - lowest)
        assert values.min() < lowest + near
        assert values.max() > highest - near
        assert values.mean() == pytest.approx((lowest + highest) / 2, abs=3 * near)


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=8, unique=True), st.integers(0, 99))
def test_parameters_belong_to_seed_epoch_and_sample_whatever_the_batch(numbers, epoch):
    together = drawn(PAPER, numbers, 24, 24, seed=5, epoch=epoch)
    backwards = drawn(PAPER, numbers[::-1], 24, 24, seed=5, epoch=epoch)
    for name in ("affine", "gamma", "contrast"):
        values = getattr(together, name)
        assert torch.equal(values, getattr(backwards, name).flip(0))
        for position, number in enumerate(numbers):
            alone = drawn(PAPER, [number], 24, 24, seed=5, epoch=epoch)
            assert torch.equal(values[position], getattr(alone, name)[0])


def test_another_seed_epoch_or_sample_is_augmented_otherwise():
    first = drawn(PAPER, [3], 24, 24)
    others = [
        drawn(PAPER, [3], 24, 24, seed=1),
        drawn(PAPER, [3], 24, 24, epoch=1),
        drawn(PAPER, [4], 24, 24),
    ]
    values = {tuple(each.affine.flatten().tolist()) for each in (first, *others)}
    assert len(values) == 4


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_batch_is_augmented_like_each_of_its_images_alone(height, width):
    image, target = batch(5, height, width, channels=3)
    together = augment(image, target, drawn(PAPER, range(10, 15), height, width))
    for number in range(5):
        one = slice(number, number + 1)
        alone = augment(image[one], target[one], drawn(PAPER, [10 + number], height, width))
        for whole, single in zip(together, alone, strict=True):
            assert torch.allclose(whole[one], single, atol=1e-6)


@given(st.integers(0, 2**31), st.sampled_from(SIZES))
def test_image_and_mask_move_together(seed, size):
    still = dataclasses.replace(PAPER, gamma=(1.0, 1.0), contrast=(1.0, 1.0))
    _, target = batch(4, *size)
    found_image, found_target = augment(target, target, drawn(still, range(4), *size, seed=seed))
    assert torch.equal(found_image, found_target)


@given(st.integers(0, 2**31), st.sampled_from(SIZES))
def test_augmented_values_stay_in_the_unit_interval(seed, size):
    image, target = batch(4, *size, channels=3, seed=seed)
    for values in augment(image.round(), target, drawn(PAPER, range(4), *size, seed=seed)):
        assert values.isfinite().all()
        assert ((values >= 0) & (values <= 1)).all()


def test_gamma_is_an_exponent_and_leaves_the_mask_alone():
    image, target = batch(2, 8, 8)
    parameters = drawn(only(gamma=(1.3, 1.3)), range(2), 8, 8)
    found_image, found_target = augment(image, target, parameters)
    assert torch.allclose(found_image, image**1.3, atol=1e-5)
    assert torch.allclose(found_target, target, atol=1e-5)


def test_contrast_stretches_around_each_images_own_mean_and_leaves_the_mask_alone():
    image, target = batch(2, 8, 8)
    image = 0.3 + 0.3 * image * torch.tensor([0.5, 1.0])[:, None, None, None]
    parameters = drawn(only(contrast=(0.7, 0.7)), range(2), 8, 8)
    found_image, found_target = augment(image, target, parameters)
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    assert torch.allclose(found_image, mean + 0.7 * (image - mean), atol=1e-5)
    assert torch.allclose(found_target, target, atol=1e-5)


def test_outside_the_image_is_black_and_not_target(quarter_turns):
    ones = torch.ones(1, 1, 6, 14)
    for values in augment(ones, ones, drawn(quarter_turns, range(1), 6, 14)):
        assert values[..., :3].max() <= 1e-5
        assert values[..., 4:10].min() >= 1 - 1e-5
