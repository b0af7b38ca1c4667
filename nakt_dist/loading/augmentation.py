"""The paper's five augmentations, on whole batches, with parameters per sample.

Crop, flip and rotation are one affine resampling; gamma and contrast follow on the pixels.
A sample's parameters depend on (seed, epoch, sample) alone, not on the batch or the process
it lands in (promise 3).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from nakt_dist.config import AugmentationConfig


@dataclass(frozen=True)
class AugmentationParameters:
    """What is done to each image of a batch.

    Attributes:
        affine: float32 (N, 2, 3), from output to input coordinates, both in [-1, 1] with the
            aspect of the image taken into account.
        gamma: float32 (N,), exponents.
        contrast: float32 (N,), factors.
    """

    affine: torch.Tensor
    gamma: torch.Tensor
    contrast: torch.Tensor

    def to(self, device: torch.device) -> "AugmentationParameters":
        """Moves the parameters to a device."""
        return AugmentationParameters(
            self.affine.to(device), self.gamma.to(device), self.contrast.to(device)
        )


def draw_parameters(
    config: AugmentationConfig, numbers: np.ndarray, seed: int, epoch: int, height: int, width: int
) -> AugmentationParameters:
    """Draws the parameters of a batch.

    Args:
        numbers: int (N,), sample numbers.
        epoch: of each visit; every epoch augments anew.
    """
    uniform = np.stack([_uniform(seed, epoch, int(number)) for number in numbers])
    rows = config.smallest_crop + (1 - config.smallest_crop) * uniform[:, 0]
    columns = config.smallest_crop + (1 - config.smallest_crop) * uniform[:, 1]
    flip = np.where(uniform[:, 2] < config.flip_probability, -1.0, 1.0)
    angle = np.radians(config.largest_rotation) * (2 * uniform[:, 3] - 1)
    gamma = _between(config.gamma, uniform[:, 4])
    contrast = _between(config.contrast, uniform[:, 5])
    centre_x = (2 * uniform[:, 6] - 1) * (1 - columns)
    centre_y = (2 * uniform[:, 7] - 1) * (1 - rows)
    affine = _crop_of_rotated(columns, rows, centre_x, centre_y, angle, flip, height / width)
    return AugmentationParameters(
        affine=torch.from_numpy(affine.astype(np.float32)),
        gamma=torch.from_numpy(gamma.astype(np.float32)),
        contrast=torch.from_numpy(contrast.astype(np.float32)),
    )


def _uniform(seed: int, epoch: int, number: int) -> np.ndarray:
    """Eight numbers in [0, 1) that belong to this visit of this sample."""
    bits = np.random.Philox(key=[seed, epoch], counter=[0, 0, 1, number])
    return np.random.Generator(bits).random(8)


def _between(limits: tuple[float, float], share: np.ndarray) -> np.ndarray:
    return limits[0] + (limits[1] - limits[0]) * share


def _crop_of_rotated(
    columns: np.ndarray,
    rows: np.ndarray,
    centre_x: np.ndarray,
    centre_y: np.ndarray,
    angle: np.ndarray,
    flip: np.ndarray,
    aspect: float,
) -> np.ndarray:
    """Composes rotation about the centre, crop and flip: float64 (N, 2, 3).

    A point of the output is first placed in the crop (scaled by its size, moved to its
    centre), then rotated. ``aspect`` (height / width) keeps the rotation rigid in pixels
    although both coordinates run over [-1, 1].
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    across = cosine * centre_x - sine * centre_y * aspect
    down = sine * centre_x / aspect + cosine * centre_y
    to_x = np.stack([cosine * columns * flip, -sine * rows * aspect, across], axis=1)
    to_y = np.stack([sine * columns * flip / aspect, cosine * rows, down], axis=1)
    return np.stack([to_x, to_y], axis=1)


def augment(
    image: torch.Tensor, target: torch.Tensor, parameters: AugmentationParameters
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augments a batch on its device; outside the image is black and not target.

    Args:
        image: float32 (N, C, H, W) in [0, 1].
        target: masks float32 (N, 1, H, W) in [0, 1], resampled bilinearly, so that soft masks
            stay soft and borders of binary ones become so by less than a pixel; or findings
            (N, K), which stay as they are.
        parameters: on the same device.

    Returns:
        Image and target of the same shapes and ranges.
    """
    is_mask = target.ndim == image.ndim
    both = torch.cat([image, target], dim=1) if is_mask else image
    grid = functional.affine_grid(parameters.affine, list(both.shape), align_corners=False)
    both = functional.grid_sample(both, grid, padding_mode="zeros", align_corners=False)
    if is_mask:
        image, target = both.split([image.shape[1], target.shape[1]], dim=1)
    else:
        image = both
    image = image.clamp(min=1e-6) ** parameters.gamma[:, None, None, None]
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    image = mean + (image - mean) * parameters.contrast[:, None, None, None]
    return image.clamp(0, 1), target.clamp(0, 1)
