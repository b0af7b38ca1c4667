"""Test-time augmentation: a network sees an image several times, mirrored and at other sizes."""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch.nn import functional

from nakt_dist.models.input_images import at_size
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.registry import is_classifier

Flip = Literal["horizontal", "vertical"]

_AXES = {"horizontal": -1, "vertical": -2}
_STEP = 32
"""Sides of other sizes are multiples of it: encoders halve an image up to five times."""


def logits_of_views(
    trained: TrainedNetwork,
    image: torch.Tensor,
    flips: Sequence[Flip] = (),
    scales: Sequence[float] = (),
) -> Iterator[torch.Tensor]:
    """Yields what a network says of each view of images, the plain one first.

    Args:
        image: float32 (N, C, H, W) in [0, 1].
        flips: with two of them, an image is seen in all four ways.
        scales: of the network's input, besides 1; sides are rounded to multiples of 32.

    Yields:
        Logits as ``TrainedNetwork.logits`` gives them, turned back to the image: at 1 and each
        scale, for each way of mirroring.
    """
    prepared = trained.prepare(image)
    mirrored: list[tuple[int, ...]] = [()]
    for flip in flips:
        mirrored += [(*axes, _AXES[flip]) for axes in mirrored]
    for scale in (1.0, *scales):
        seen = prepared if scale == 1 else _scaled(prepared, scale)
        for axes in mirrored:
            output = trained.network(seen.flip(axes) if axes else seen)
            if is_classifier(trained.spec.name):
                yield output.float()
            else:
                yield at_size(output.flip(axes) if axes else output, image.shape[-2:])


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """Returns height and width of a view at a scale of the network's input."""
    height, width = (max(_STEP, round(side * scale / _STEP) * _STEP) for side in size)
    return height, width


def _scaled(image: torch.Tensor, scale: float) -> torch.Tensor:
    size = scaled_size(image.shape[-2:], scale)
    return functional.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
