"""The U-Net with stacked dilated convolutions."""

import torch
from torch import Tensor, nn

from nakt_dist.models.layers import Normalisation, convolution_unit
from nakt_dist.models.unet import UNet

_SHARES = (2, 4, 8, 16, 16)
_DILATIONS = (1, 3, 6, 9, 12)


class StackedDilatedConvolutions(nn.Module):
    """The SDU-Net's block: five 3×3 convolutions in series, all of them concatenated.

    Of n output channels they give n/2, n/4, n/8, n/16 and n/16, at dilations 1, 3, 6, 9 and
    12, so that one block sees both detail and context. Each has a bias, its own normalisation
    and a ReLU.

    Args:
        in_channels: channels of the input, float (N, in_channels, H, W).
        out_channels: n, a multiple of 16; the output is float (N, n, H, W).
        normalisation: "batch", "group" or "none".
    """

    def __init__(self, in_channels: int, out_channels: int, normalisation: Normalisation) -> None:
        super().__init__()
        self.units = nn.ModuleList()
        for share, dilation in zip(_SHARES, _DILATIONS, strict=True):
            width = out_channels // share
            self.units.append(convolution_unit(in_channels, width, normalisation, dilation))
            in_channels = width

    def forward(self, features: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H, W)."""
        outputs = []
        for unit in self.units:
            features = unit(features)
            outputs.append(features)
        return torch.cat(outputs, dim=1)


class SDUNet(UNet):
    """SDU-Net (Wang et al. 2020, arXiv 2004.03466): the U-Net's scaffold with dilated blocks.

    It has 5,997,681 parameters, 40.6 % of the U-Net of the same ``width="paper"``, the ratio
    that its paper states. Arguments, shapes and errors are those of ``UNet``, but
    ``base_channels`` must be a multiple of 16.
    """

    block = StackedDilatedConvolutions
    base_multiple = 16
