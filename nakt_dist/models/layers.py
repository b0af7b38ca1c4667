"""The parts that the hand-written networks share."""

import math
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from nakt_dist.errors import ConfigurationError, nearest_name

Normalisation = Literal["batch", "group", "none"]

_CHANNELS_PER_GROUP = 16
_SMALLEST_SIDE = 16


def check_choice(option: str, value: Any, choices: Any) -> None:
    """Raises ConfigurationError unless ``value`` is one of a ``Literal``'s ``choices``."""
    known = get_args(choices)
    if value not in known:
        raise ConfigurationError(
            f"option '{option}' is {value!r}{nearest_name(str(value), known)} "
            f"(known: {', '.join(known)})"
        )


def check_base_channels(value: Any, multiple_of: int) -> None:
    """Raises ConfigurationError unless ``value`` is a positive multiple of ``multiple_of``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % multiple_of:
        raise ConfigurationError(
            f"option 'base_channels' is {value!r}, expected a whole number that is a positive "
            f"multiple of {multiple_of}"
        )


def check_dropout(value: Any) -> None:
    """Raises ConfigurationError unless ``value`` is a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigurationError(f"option 'dropout' is {value!r}, expected a number in [0, 1)")


def normalisation_layer(kind: Normalisation, channels: int) -> nn.Module:
    """Returns the layer that follows a convolution of ``channels`` outputs.

    ``"batch"`` is the papers' BatchNorm, which couples the images of a batch. ``"group"``
    (GroupNorm, about 16 channels a group) and ``"none"`` treat each image by itself, so one
    process with a batch of 8 and two with 4 each compute the same.
    """
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    most = max(1, channels // _CHANNELS_PER_GROUP)
    groups = next(count for count in range(most, 0, -1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)


def convolution_unit(
    in_channels: int, out_channels: int, normalisation: Normalisation, dilation: int = 1
) -> nn.Sequential:
    """Returns Conv3×3 (with bias) - normalisation - ReLU, which keeps height and width."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation),
        normalisation_layer(normalisation, out_channels),
        nn.ReLU(),
    )


class DoubleConvolution(nn.Sequential):
    """The U-Net's block: two units of Conv3×3 - normalisation - ReLU, one after the other.

    Args:
        in_channels: channels of the input, float (N, in_channels, H, W).
        out_channels: channels of the output, float (N, out_channels, H, W).
        normalisation: "batch", "group" or "none".
    """

    def __init__(self, in_channels: int, out_channels: int, normalisation: Normalisation) -> None:
        super().__init__(
            convolution_unit(in_channels, out_channels, normalisation),
            convolution_unit(out_channels, out_channels, normalisation),
        )


@torch.no_grad()
def initialise(network: nn.Module) -> None:
    """Draws a network's convolutions anew, with biases at zero.

    Gaussians of variance 2 over the fan-in before a ReLU, as the U-Net paper (arXiv
    1505.04597, section 3) prescribes after He et al. (arXiv 1502.01852): without any
    normalisation layer the signal then keeps its scale through all layers. An up-convolution
    has no ReLU and each of its outputs sees each input channel once: variance 1 over those.
    """
    for module in network.modules():
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_channels))
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        else:
            continue
        nn.init.zeros_(module.get_parameter("bias"))


def halve(features: Tensor) -> Tensor:
    """Returns the maximum of each 2×2 window: (N, C, H, W) to (N, C, H/2, W/2)."""
    return nn.functional.max_pool2d(features, 2)


def at_any_size(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    multiple: int | tuple[int, int],
    padding: Literal["reflect", "constant"] = "reflect",
) -> Tensor:
    """Runs a network on images padded to a multiple of its stride and crops its output back.

    The padding mirrors the image (no dark frame, hence no false edge), half of it on each
    side. Images that fit already pass through untouched.

    Args:
        network: maps (N, C, H, W) to (N, K, H, W) where ``multiple`` divides H and W.
        images: float (N, C, H, W), H and W at least 16.
        multiple: what both sides must be divisible by, or the height and the width.
        padding: "constant" pads with 0, as some networks of others were trained with.

    Returns:
        (N, K, H, W), of the images' own height and width.

    Raises:
        ConfigurationError: the images are too small, or the network's output has not the
            height and width of its input.
    """
    height, width = images.shape[-2:]
    if height < _SMALLEST_SIDE or width < _SMALLEST_SIDE:
        raise ConfigurationError(
            f"images are {height}×{width} pixels, expected at least "
            f"{_SMALLEST_SIDE}×{_SMALLEST_SIDE}; pack them at a larger size"
        )
    # Not -height % multiple: torch.compile cannot follow Python's modulo of a dynamic size.
    rows, columns = (multiple, multiple) if isinstance(multiple, int) else multiple
    extra_rows = (height + rows - 1) // rows * rows - height
    extra_columns = (width + columns - 1) // columns * columns - width
    top, left = extra_rows // 2, extra_columns // 2
    if extra_rows or extra_columns:
        border = (left, extra_columns - left, top, extra_rows - top)
        images = nn.functional.pad(images, border, mode=padding)
    logits = network(images)
    if logits.shape[-2:] != images.shape[-2:]:
        raise ConfigurationError(
            f"the network returned {_size(logits)} logits for {_size(images)} images, expected the "
            "same size; set its options so that it upsamples as often as its encoder downsamples"
        )
    return logits[..., top : top + height, left : left + width]


def _size(maps: Tensor) -> str:
    return f"{maps.shape[-2]}×{maps.shape[-1]}"
