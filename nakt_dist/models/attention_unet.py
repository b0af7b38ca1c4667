"""The U-Net whose skips pass through attention gates."""

import torch
from torch import Tensor, nn

from nakt_dist.models.any_size import at_any_size
from nakt_dist.models.layers import (
    DoubleConvolution,
    Normalisation,
    check_base_channels,
    check_choice,
    convolution_unit,
    halve,
    initialise,
    normalisation_layer,
)

_LEVELS = (1, 2, 4, 8, 16)


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


class AttentionUNet(nn.Module):
    """Attention U-Net (Oktay et al. 2018, arXiv 1804.03999) for images.

    64 to 1024 channels down; on the way up nearest-neighbour doubling with a 3×3 convolution,
    an attention gate on the skip, concatenation and a double convolution; 34,877,421
    parameters. It differs from its paper in being two-dimensional, in gating at the
    resolution of the skip rather than one level below, and in having no deep supervision:
    the reading that is in common use. MONAI's network of the same name is another one.

    Args:
        in_channels: image channels.
        num_outputs: logits per pixel.
        base_channels: channels of the first level, an even number; level k has 2^k times it.
        normalisation: "batch" (the paper's), "group" or "none". With BatchNorm, a
            batch of one image of 16×16 pixels cannot be trained on: torch's ValueError says
            that it expects more than one value per channel.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_outputs: int = 1,
        base_channels: int = 64,
        normalisation: Normalisation = "batch",
    ) -> None:
        super().__init__()
        check_choice("normalisation", normalisation, Normalisation)
        check_base_channels(base_channels, 2)
        widths = [base_channels * factor for factor in _LEVELS]
        self.encoder = nn.ModuleList(
            DoubleConvolution(inputs, outputs, normalisation)
            for inputs, outputs in zip([in_channels, *widths], widths, strict=False)
        )
        self.upsamplers, self.gates, self.decoder = (nn.ModuleList() for _ in range(3))
        for below, skip in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.upsamplers.append(
                nn.Sequential(
                    nn.Upsample(scale_factor=2), convolution_unit(below, skip, normalisation)
                )
            )
            self.gates.append(AttentionGate(skip, normalisation))
            self.decoder.append(DoubleConvolution(2 * skip, skip, normalisation))
        self.head = nn.Conv2d(base_channels, num_outputs, 1)
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Maps float images (N, in_channels, H, W) to logits (N, num_outputs, H, W).

        H and W are at least 16; where 16 does not divide them, see ``at_any_size``.
        """
        return at_any_size(self._segment, images, 2 ** len(self.decoder))

    def _segment(self, images: Tensor) -> Tensor:
        skips = [self.encoder[0](images)]
        for block in self.encoder[1:]:
            skips.append(block(halve(skips[-1])))
        features = skips.pop()
        for upsample, gate, block in zip(self.upsamplers, self.gates, self.decoder, strict=True):
            features = upsample(features)
            features = block(torch.cat([gate(features, skips.pop()), features], dim=1))
        return self.head(features)


def _projection(in_channels: int, out_channels: int, normalisation: Normalisation) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1), normalisation_layer(normalisation, out_channels)
    )
