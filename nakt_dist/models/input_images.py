"""Images as a network wants to see them, and its logits as the images want them."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch.nn import functional

from nakt_dist.errors import ConfigurationError
from nakt_dist.models.spec import PreprocessingConfig

GREY_OF_RGB = (0.299, 0.587, 0.114)
"""ITU-R BT.601 luma, what Pillow's conversion to grey uses."""


def check_channels(in_channels: int, whose: str) -> None:
    """Refuses a network for images of other channels than grey or RGB ones can be brought to.

    Args:
        whose: the network as the user knows it, for the message.

    Raises:
        ConfigurationError: it has neither 1 nor 3.
    """
    if in_channels not in (1, 3):
        raise ConfigurationError(
            f"{whose}: the network wants {in_channels} channels, and images are grey or RGB, which "
            "can be brought to 1 or 3"
        )


def prepare_image(image: torch.Tensor, in_channels: int, seen: PreprocessingConfig) -> torch.Tensor:
    """Brings images in [0, 1] to a network's channels, size and normalisation.

    Args:
        image: float32 (N, C, H, W), C 1 or 3. Grey images are repeated, RGB ones reduced to luma.
        in_channels: of the network; 1 or 3, or C itself.
        seen: its input, with mean and deviation; a height or width of None keeps the image's.

    Returns:
        float32 (N, in_channels, height, width).

    Raises:
        ConfigurationError: mean or deviation has another number of channels.
    """
    if image.shape[1] == 3 and in_channels == 1:
        luma = _constant(GREY_OF_RGB, torch.float32, image.device)
        image = (image * luma).sum(1, keepdim=True)
    elif image.shape[1] == 1 and in_channels > 1:
        image = image.expand(-1, in_channels, -1, -1)
    size = (seen.height or image.shape[-2], seen.width or image.shape[-1])
    if size != image.shape[-2:]:
        image = functional.interpolate(
            image, size, mode="bilinear", align_corners=False, antialias=True
        )
    mean = _per_channel("mean", seen.mean, image)
    return (image - mean) / _per_channel("std", seen.std, image)


def at_size(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Brings logits (N, K, h, w) to ``size`` (H, W) as float32, bilinearly where they differ."""
    logits = logits.float()
    if logits.shape[-2:] == tuple(size):
        return logits
    return functional.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def _per_channel(name: str, value: Any, image: torch.Tensor) -> Any:
    """Returns a number as it is, and one number per channel as a tensor (C, 1, 1)."""
    if isinstance(value, int | float):
        return value
    if len(value) != image.shape[1]:
        raise ConfigurationError(
            f"preprocessing.{name} has {len(value)} numbers, but the network's input "
            f"{image.shape[1]} channels; give one number for all, or one per channel"
        )
    return _constant(tuple(value), image.dtype, image.device)


@lru_cache
def _constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Returns numbers by channel, (C, 1, 1); on a device once, since copying waits for it."""
    with torch.inference_mode(False):  # else no training in this process could use them later
        return torch.tensor(values, dtype=dtype, device=device).view(-1, 1, 1)
