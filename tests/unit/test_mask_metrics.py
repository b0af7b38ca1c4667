"""Sensitivity, precision and distances of outlines, against SciPy, scikit-learn and hand."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from sklearn.metrics import precision_score, recall_score

from nakt_dist.evaluation.pixel_rates import precision_per_image, sensitivity_per_image
from nakt_dist.evaluation.surface import surface_distances_per_image

NAN = float("nan")


def blobs(seed: int, share: float) -> torch.Tensor:
    """Three random masks, each of blocks and single pixels: bool (3, 1, 24, 33)."""
    random = np.random.default_rng(seed)
    blocks = np.kron(random.random((3, 6, 11)) < share, np.ones((4, 3))) > 0
    return torch.from_numpy(blocks ^ (random.random(blocks.shape) < 0.03))[:, None]


def outlines_by_scipy(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """HD95 and average symmetric surface distance from whole distance transforms."""
    edges = [mask & ~binary_erosion(mask) for mask in (prediction, target)]
    there = distance_transform_edt(~edges[1])[edges[0]]
    back = distance_transform_edt(~edges[0])[edges[1]]
    largest = max(np.percentile(there, 95), np.percentile(back, 95))
    return largest, (there.sum() + back.sum()) / (len(there) + len(back))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("shares", [(0.3, 0.3), (0.02, 0.9)])
def test_random_masks_are_measured_as_by_libraries(seed: int, shares: tuple[float, float]):
    prediction, target = blobs(seed, shares[0]), blobs(100 + seed, shares[1])
    found = (
        *surface_distances_per_image(prediction, target).T,
        sensitivity_per_image(prediction, target),
        precision_per_image(prediction, target),
    )
    for image, values in enumerate(zip(*found, strict=True)):
        masks = [each[image, 0].numpy() for each in (prediction, target)]
        flat = [mask.ravel() for mask in masks]
        expected = (
            *outlines_by_scipy(*masks),
            recall_score(flat[1], flat[0]),
            precision_score(flat[1], flat[0]),
        )
        assert [float(each) for each in values] == pytest.approx(expected, abs=1e-12)


def test_two_squares_by_hand():
    prediction, target = torch.zeros(2, 1, 1, 9, 9, dtype=torch.bool)
    prediction[..., 2:5, 2:5] = True
    target[..., 2:5, 5:8] = True  # three columns to the right
    # The eight pixels of each outline lie 3, 3, 3, 2, 2, 1, 1 and 1 from the other.
    found = surface_distances_per_image(prediction, target)
    assert found.tolist() == [[3.0, 16 / 8]]
    assert surface_distances_per_image(target, target).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("turned", [False, True])
def test_the_outline_of_a_mask_at_the_edge_of_the_image_is_closed(turned: bool):
    inner, whole = torch.zeros(2, 1, 1, 5, 5, dtype=torch.bool)
    inner[..., 2, 2], whole[:] = True, True
    pair = (whole, inner) if turned else (inner, whole)
    assert surface_distances_per_image(*pair)[0, 0] == pytest.approx(8**0.5)


def test_an_empty_mask_is_said_to_be_one():
    empty, target = torch.zeros(2, 2, 1, 6, 6, dtype=torch.bool)
    target[:, :, 1:3, 1:3] = True
    both, alone = torch.stack([empty[0], target[0]]), torch.stack([empty[0], empty[0]])
    # The second image's prediction is empty.
    assert sensitivity_per_image(alone, both).tolist() == [1.0, 0.0]
    assert precision_per_image(both, alone).tolist() == [1.0, 0.0]
    for found in (
        precision_per_image(alone, both, NAN),
        sensitivity_per_image(both, alone, NAN),
        *surface_distances_per_image(alone, both, NAN).T,
    ):
        assert np.isnan(np.asarray(found)).all()
    assert surface_distances_per_image(empty, empty).tolist() == [[0.0, 0.0]] * 2
