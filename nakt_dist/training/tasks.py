"""What is learnt: the forward pass and the loss of a batch."""

from collections.abc import Mapping

import torch
from torch import nn

from nakt_dist.config import PreprocessingConfig, RecipeConfig
from nakt_dist.transfer.ensemble import logits_at_image_size
from nakt_dist.transfer.losses import segmentation_loss


class SegmentationTask:
    """Dice loss and cross-entropy against annotations or pseudo masks (paper A, section 5).

    Args:
        in_channels: of the network.
        preprocessing: what the network sees.
        recipe: the weights of the losses.
    """

    def __init__(
        self, in_channels: int, preprocessing: PreprocessingConfig, recipe: RecipeConfig
    ) -> None:
        self._in_channels = in_channels
        self._preprocessing = preprocessing
        self._recipe = recipe

    def logits(self, network: nn.Module, image: torch.Tensor) -> torch.Tensor:
        """Runs the network on images float32 (N, C, H, W) in [0, 1]; logits (N, 1, H, W)."""
        seen = self._preprocessing
        return logits_at_image_size(
            network, image, self._in_channels, seen.height, seen.width, seen.mean, seen.std
        )

    def forward(
        self, network: nn.Module, image: torch.Tensor, target: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """Returns ``loss`` and its components, scalars averaged over the batch."""
        return segmentation_loss(
            self.logits(network, image),
            target,
            self._recipe.dice_weight,
            self._recipe.cross_entropy_weight,
        )
