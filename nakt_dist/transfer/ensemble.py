"""Teachers, alone or together: from images to the mean of their outputs (algorithm 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from nakt_dist.errors import ConfigurationError

GREY_OF_RGB = (0.299, 0.587, 0.114)
"""ITU-R BT.601 luma, what Pillow's conversion to grey uses."""


@dataclass(frozen=True)
class Teacher:
    """One frozen network and what it wants to see.

    Attributes:
        network: in eval mode on its device; gives logits (N, 1, h, w).
        in_channels: 1 or 3; grey images are repeated, RGB ones reduced to luma.
        height: rows of its input; None for those of the image.
        width: columns of its input; None likewise.
        mean: subtracted from pixels in [0, 1]; a number, or one per channel of its input.
        std: divides them; likewise.
        weight: w in Σ w T(x) / Σ w.
        output: ``soft`` probabilities, or ``binary``: probability above 0.5.
        provenance: what a manifest says about it.
    """

    network: nn.Module
    in_channels: int
    height: int | None
    width: int | None
    mean: float | Sequence[float]
    std: float | Sequence[float]
    weight: float
    output: Literal["soft", "binary"]
    provenance: Mapping[str, Any]

    def probability(self, image: torch.Tensor, autocast: torch.dtype | None = None) -> torch.Tensor:
        """Runs the teacher on a batch.

        Args:
            image: float32 (N, C, H, W) in [0, 1], C 1 or 3.
            autocast: type of the forward pass; None for float32.

        Returns:
            float32 (N, 1, H, W): the probability at the image's own size, or 0 and 1 for a
            binary teacher.
        """
        with torch.autocast(image.device.type, autocast, enabled=autocast is not None):
            logits = logits_at_image_size(
                self.network, image, self.in_channels, self.height, self.width, self.mean, self.std
            )
        probability = logits.sigmoid()
        return (probability > 0.5).float() if self.output == "binary" else probability


def logits_at_image_size(
    network: nn.Module,
    image: torch.Tensor,
    in_channels: int,
    height: int | None,
    width: int | None,
    mean: float | Sequence[float],
    std: float | Sequence[float],
) -> torch.Tensor:
    """Runs a network on images prepared for it, and brings its logits back to their size.

    Args:
        network: from (N, in_channels, height, width) to logits (N, K, h, w).
        image: float32 (N, C, H, W) in [0, 1].
        in_channels: as for ``prepare_image``, like the rest.
        height: rows of the network's input; None for H.
        width: columns of the network's input; None for W.
        mean: subtracted from the pixels.
        std: divides them.

    Returns:
        float32 (N, K, H, W).
    """
    logits = network(prepare_image(image, in_channels, height, width, mean, std))
    return at_size(logits, image.shape[-2:])


def at_size(logits: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Brings logits (N, K, h, w) to ``size`` (H, W) as float32, bilinearly where they differ."""
    logits = logits.float()
    if logits.shape[-2:] == tuple(size):
        return logits
    return functional.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)


def prepare_image(
    image: torch.Tensor,
    in_channels: int,
    height: int | None,
    width: int | None,
    mean: float | Sequence[float],
    std: float | Sequence[float],
) -> torch.Tensor:
    """Brings images in [0, 1] to a network's channels, size and normalisation.

    Args:
        image: float32 (N, C, H, W), C 1 or 3.
        in_channels: of the network; 1 or 3, or C itself.
        height: rows wanted; None keeps them.
        width: columns wanted; None keeps them.
        mean: subtracted; a number, or one per channel of the network.
        std: divides; likewise.

    Returns:
        float32 (N, in_channels, height, width).

    Raises:
        ConfigurationError: ``mean`` or ``std`` has another number of channels.
    """
    if image.shape[1] == 3 and in_channels == 1:
        luma = torch.tensor(GREY_OF_RGB, device=image.device).view(1, 3, 1, 1)
        image = (image * luma).sum(1, keepdim=True)
    elif image.shape[1] == 1 and in_channels > 1:
        image = image.expand(-1, in_channels, -1, -1)
    size = (height or image.shape[-2], width or image.shape[-1])
    if size != image.shape[-2:]:
        image = functional.interpolate(
            image, size, mode="bilinear", align_corners=False, antialias=True
        )
    mean = _per_channel("mean", mean, image)
    return (image - mean) / _per_channel("std", std, image)


def _per_channel(
    name: str, value: float | Sequence[float], image: torch.Tensor
) -> float | torch.Tensor:
    """Returns a number as it is, and one number per channel as a tensor (C, 1, 1)."""
    if isinstance(value, int | float):
        return value
    if len(value) != image.shape[1]:
        raise ConfigurationError(
            f"preprocessing.{name} has {len(value)} numbers, but the network's input "
            f"{image.shape[1]} channels; give one number for all, or one per channel"
        )
    return torch.tensor(value, dtype=image.dtype, device=image.device).view(-1, 1, 1)


@torch.inference_mode()
def ensemble_probability(
    teachers: Sequence[Teacher], image: torch.Tensor, autocast: torch.dtype | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages teachers in float32 and measures how far apart they are.

    Args:
        teachers: at least one.
        image: float32 (N, C, H, W) in [0, 1].
        autocast: type of the forward passes.

    Returns:
        The mean y = Σ w T(x) / Σ w, float32 (N, H, W), and the disagreement, float32 (N,):
        the weighted standard deviation between teachers, averaged over pixels; 0 for one.
    """
    total = sum(teacher.weight for teacher in teachers)
    mean = torch.zeros_like(image[:, 0])
    mean_of_squares = torch.zeros_like(mean)
    for teacher in teachers:
        output = teacher.probability(image, autocast)[:, 0]
        mean += output * (teacher.weight / total)
        mean_of_squares += output.square() * (teacher.weight / total)
    if len(teachers) == 1:
        return mean, mean.new_zeros(len(mean))
    variance = (mean_of_squares - mean.square()).clamp(min=0)
    return mean, variance.sqrt().flatten(1).mean(1)
