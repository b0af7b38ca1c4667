"""The U-Net whose skips pass through attention gates."""

import torch
from torch import Tensor, nn

from nakt_dist.models.layers import Normalisation, convolution_unit, normalisation_layer
from nakt_dist.models.unet import UNet


class AttentionGate(nn.Module):
    """Weighs each pixel of a skip by what the decoder knows already.

    Both inputs are projected to half their channels, added and passed through a ReLU; a
    second projection to one channel and a sigmoid give the weight, in (0, 1).

    Args:
        channels: channels of the skip and of the decoder's features, an even number.
        normalisation: "batch", "group" or "none", after each of the three projections.
    """

    def __init__(self, channels: int, normalisation: Normalisation) -> None:
        super().__init__()
        self.project_decoder = _projection(channels, channels // 2, normalisation)
        self.project_skip = _projection(channels, channels // 2, normalisation)
        self.weigh = _projection(channels // 2, 1, normalisation)

    def forward(self, decoder_features: Tensor, skip: Tensor) -> Tensor:
        """Maps two float (N, channels, H, W) to the skip weighted, of the same shape."""
        joint = self.project_decoder(decoder_features) + self.project_skip(skip)
        return skip * torch.sigmoid(self.weigh(torch.relu(joint)))


class AttentionUNet(UNet):
    """Attention U-Net (Oktay et al. 2018, arXiv 1804.03999) for images.

    64 to 1024 channels down; on the way up nearest-neighbour doubling with a 3×3 convolution,
    an attention gate on the skip, concatenation and a double convolution; 34,877,421
    parameters. It differs from its paper in being two-dimensional, in gating at the
    resolution of the skip rather than one level below, and in having no deep supervision:
    the reading that is in common use. MONAI's network of the same name is another one.

    Arguments, shapes and errors are those of ``UNet``, but its width is always "classic", and
    ``base_channels`` must be an even number.
    """

    gate = AttentionGate
    base_multiple = 2

    def __init__(
        self,
        in_channels: int = 1,
        num_outputs: int = 1,
        base_channels: int = 64,
        normalisation: Normalisation = "batch",
    ) -> None:
        super().__init__(in_channels, num_outputs, "classic", base_channels, normalisation)

    def _upsampler(self, below: int, outputs: int, normalisation: Normalisation) -> nn.Module:
        return nn.Sequential(
            nn.Upsample(scale_factor=2), convolution_unit(below, outputs, normalisation)
        )


def _projection(in_channels: int, out_channels: int, normalisation: Normalisation) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1), normalisation_layer(normalisation, out_channels)
    )
