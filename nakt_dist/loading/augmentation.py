"""The paper's five augmentations, on whole batches, with parameters per sample.

Crop, flip and rotation are one affine resampling; gamma and contrast follow on the pixels.
A sample's parameters depend on (seed, epoch, sample) alone, not on the batch or the process
it lands in (promise 3). What the settings leave as it is costs nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.nn import functional

from nakt_dist.config import AugmentationConfig
from nakt_dist.loading.counted_random import uniform_rows

# What a thread works on at a time: its coordinates and pixels stay in a core's cache.
_VALUES_IN_CACHE = 2**16


@dataclass(frozen=True)
class AugmentationParameters:
    """What is done to each image of a batch, and which stages the settings call for.

    Attributes:
        values: float32 (N, 8), the attributes below in one tensor: one copy to a device.
        movement: ``affine`` resamples, ``flip`` at most mirrors, ``none`` leaves all in place.
        has_gamma: whether any image can have an exponent other than 1.
        has_contrast: whether any image can have a factor other than 1.
    """

    values: torch.Tensor
    movement: Literal["affine", "flip", "none"]
    has_gamma: bool
    has_contrast: bool

    @property
    def affine(self) -> torch.Tensor:
        """float32 (N, 2, 3), from output to input coordinates.

        Both are in [-1, 1], with the aspect of the image taken into account.
        """
        return self.values[:, :6].unflatten(1, (2, 3))

    @property
    def gamma(self) -> torch.Tensor:
        """float32 (N,), exponents."""
        return self.values[:, 6]

    @property
    def contrast(self) -> torch.Tensor:
        """float32 (N,), factors."""
        return self.values[:, 7]

    def part(self, piece: slice) -> "AugmentationParameters":
        """Returns those of some of the images."""
        return replace(self, values=self.values[piece])

    def to(self, device: torch.device) -> "AugmentationParameters":
        """Moves the parameters to a device; a GPU is not waited for."""
        values = self.values.pin_memory() if device.type == "cuda" else self.values
        return replace(self, values=values.to(device, non_blocking=True))


def draw_parameters(
    config: AugmentationConfig, numbers: np.ndarray, seed: int, epoch: int | np.ndarray,
    height: int, width: int,
) -> AugmentationParameters:  # fmt: skip
    """Draws the parameters of a batch.

    Args:
        numbers: int (N,), sample numbers.
        epoch: of the visits, one for all or int (N,); every epoch augments anew.
    """
    uniform = uniform_rows(seed, epoch, numbers, 8)
    rows = config.smallest_crop + (1 - config.smallest_crop) * uniform[:, 0]
    columns = config.smallest_crop + (1 - config.smallest_crop) * uniform[:, 1]
    flip = np.where(uniform[:, 2] < config.flip_probability, -1.0, 1.0)
    angle = np.radians(config.largest_rotation) * (2 * uniform[:, 3] - 1)
    gamma = _between(config.gamma, uniform[:, 4])
    contrast = _between(config.contrast, uniform[:, 5])
    centre_x = (2 * uniform[:, 6] - 1) * (1 - columns)
    centre_y = (2 * uniform[:, 7] - 1) * (1 - rows)
    affine = _crop_of_rotated(columns, rows, centre_x, centre_y, angle, flip, height / width)
    values = np.column_stack([affine.reshape(-1, 6), gamma, contrast]).astype(np.float32)
    return AugmentationParameters(
        torch.from_numpy(values),
        _movement(config),
        has_gamma=tuple(config.gamma) != (1, 1),
        has_contrast=tuple(config.contrast) != (1, 1),
    )


def _movement(config: AugmentationConfig) -> Literal["affine", "flip", "none"]:
    if config.smallest_crop < 1 or config.largest_rotation > 0:
        return "affine"
    return "flip" if config.flip_probability > 0 else "none"


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

    On a CPU a few images at a time go through all stages, while they are in its cache: that
    takes half as long as each stage on the whole batch.

    Args:
        image: uint8 (N, C, H, W), or float32 in [0, 1].
        target: masks (N, 1, H, W), likewise, resampled bilinearly, so that soft masks stay soft
            and borders of binary ones become so by less than a pixel; or findings float32 (N, K),
            which stay as they are.
        parameters: on the same device.

    Returns:
        Image and target float32 of the same shapes, pixels in [0, 1]; neither argument changes.
    """
    masked = target.ndim == image.ndim
    found = torch.empty(image.shape, device=image.device)
    found_target = torch.empty(target.shape, device=image.device) if masked else target
    lines = _coordinates(parameters.affine, *image.shape[-2:])
    for piece in _pieces(image):
        here, result = parameters.part(piece), found[piece]
        grid = None
        if parameters.movement == "affine":
            across, down = (each[piece] for each in lines)
            grid = (across + down).permute(0, 2, 3, 1)
        _move_into(result, image[piece], here, grid)
        _change_grey_levels(result, here)
        result.clamp_(0, 1)
        if masked:
            # Bilinear weights add up to 1 but for rounding.
            result = found_target[piece]
            _move_into(result, target[piece], here, grid)
            result.clamp_(0, 1)
    return found, found_target


def _pieces(image: torch.Tensor) -> Iterator[slice]:
    """Yields which images go through the stages together: on a GPU, all."""
    count, step = len(image), len(image)
    if image.device.type == "cpu":
        step = torch.get_num_threads() * max(1, _VALUES_IN_CACHE // image[0].numel())
    for first in range(0, count, max(1, step)):
        yield slice(first, first + step)


def _coordinates(affine: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Where pixels come from, as two summands: (N, 2, 1, W) of the columns, (N, 2, H, 1) of rows.

    Their sum is what ``functional.affine_grid`` makes with a matrix product, in a twentieth of
    the time.
    """
    x, y = (
        torch.linspace(1 / count - 1, 1 - 1 / count, count, device=affine.device)
        for count in (width, height)
    )
    by_x, by_y, shift = affine[..., None, None].unbind(2)
    return by_x * x, by_y * y[:, None] + shift


def _move_into(
    result: torch.Tensor,
    pixels: torch.Tensor,
    parameters: AugmentationParameters,
    grid: torch.Tensor | None,
) -> None:
    """Crops, flips and rotates pixels, uint8 or in [0, 1], to about [0, 1]."""
    if grid is not None:
        moved = functional.grid_sample(pixels.float(), grid, align_corners=False)
    elif parameters.movement == "flip":
        mirrored = parameters.affine[:, 0, 0, None, None, None] < 0
        moved = torch.where(mirrored, pixels.flip(-1), pixels)
    else:
        moved = pixels
    torch.div(moved, 1 if pixels.is_floating_point() else 255, out=result)


def _change_grey_levels(image: torch.Tensor, parameters: AugmentationParameters) -> None:
    """Applies gamma, then contrast around each image's own mean, in place."""
    if parameters.has_gamma:
        gamma = parameters.gamma[:, None, None, None]
        # As image ** gamma, in a third of the time; the logarithm of zeros takes ten times as long.
        image.clamp_(min=1e-6).log_().mul_(gamma).exp_()
    if parameters.has_contrast:
        contrast = parameters.contrast[:, None, None, None]
        mean = image.mean(dim=(1, 2, 3), keepdim=True)
        image.mul_(contrast).add_(mean * (1 - contrast))
