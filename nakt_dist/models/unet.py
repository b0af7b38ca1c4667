"""The U-Net, and on its scaffold the SDU-Net and the Attention U-Net."""

from typing import Literal

import torch
from torch import Tensor, nn

from nakt_dist.models.layers import (
    DoubleConvolution,
    Normalisation,
    at_any_size,
    check_base_channels,
    check_choice,
    check_dropout,
    convolution_unit,
    halve,
    initialise,
    normalisation_layer,
)

Width = Literal["paper", "classic"]

# Multiples of base_channels, from the image inwards and from the innermost level outwards.
_ENCODER = {"paper": (1, 2, 4, 8, 8), "classic": (1, 2, 4, 8, 16)}
_DECODER = {"paper": (4, 2, 1, 1), "classic": (8, 4, 2, 1)}

# Of the SDU-Net's block: into how many parts the outputs are divided, and dilations.
_SHARES = (2, 4, 8, 16, 16)
_DILATIONS = (1, 3, 6, 9, 12)


class UNet(nn.Module):
    """U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with padded convolutions.

    Five levels of blocks, max-pooling between them; on the way up a 2×2 transposed
    convolution, the skip concatenated in front of it, and a block. It differs from its paper
    in padding its convolutions, so that nothing is cropped, and in normalising them.

    ``width="paper"`` is the U-Net of the NAKT paper's experiments as the SDU-Net paper (arXiv
    2004.03466) implies it: 64-128-256-512-512 channels down, up-convolutions that keep their
    channels, 256-128-64-64 up; 14,787,777 parameters. ``width="classic"`` doubles down to
    1024 and halves at every up-convolution: 31,042,369 parameters.

    Args:
        width: "paper" or "classic".
        base_channels: channels of the first level, which every other level multiplies.
        normalisation: "batch" (the paper's), "group" or "none". With BatchNorm, a
            batch of one image of 16×16 pixels cannot be trained on: torch's ValueError says
            that it expects more than one value per channel.
        dropout: share of the innermost level's values that training sets to zero, where the
            paper's section 3.1 has its drop-out layers; in [0, 1).

    Raises:
        ConfigurationError: an option is out of its range.
    """

    block: type[nn.Module] = DoubleConvolution
    gate: type[nn.Module] | None = None
    base_multiple = 1

    def __init__(
        self,
        in_channels: int = 1,
        num_outputs: int = 1,
        width: Width = "paper",
        base_channels: int = 64,
        normalisation: Normalisation = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_choice("width", width, Width)
        check_choice("normalisation", normalisation, Normalisation)
        check_base_channels(base_channels, self.base_multiple)
        check_dropout(dropout)
        down = [base_channels * factor for factor in _ENCODER[width]]
        up = [base_channels * factor for factor in _DECODER[width]]
        keep = 1 if width == "paper" else 2
        self.encoder = nn.ModuleList(
            self.block(inputs, outputs, normalisation)
            for inputs, outputs in zip([in_channels, *down], down, strict=False)
        )
        self.dropout = nn.Dropout(dropout)
        self.upsamplers = nn.ModuleList()
        if self.gate is not None:
            self.gates = nn.ModuleList(self.gate(skip, normalisation) for skip in down[-2::-1])
        self.decoder = nn.ModuleList()
        below = down[-1]
        for skip, outputs in zip(reversed(down[:-1]), up, strict=True):
            self.upsamplers.append(self._upsampler(below, below // keep, normalisation))
            self.decoder.append(self.block(skip + below // keep, outputs, normalisation))
            below = outputs
        self.head = nn.Conv2d(below, num_outputs, 1)
        initialise(self)

    def _upsampler(self, below: int, outputs: int, normalisation: Normalisation) -> nn.Module:
        return nn.ConvTranspose2d(below, outputs, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        """Maps float images (N, in_channels, H, W) to logits (N, num_outputs, H, W).

        H and W are at least 16; where 16 does not divide them, see ``at_any_size``.
        """
        return at_any_size(self._segment, images, 2 ** len(self.decoder))

    def _segment(self, images: Tensor) -> Tensor:
        skips = [self.encoder[0](images)]
        for block in self.encoder[1:]:
            skips.append(block(halve(skips[-1])))
        features = self.dropout(skips.pop())
        for level, (upsample, block) in enumerate(zip(self.upsamplers, self.decoder, strict=True)):
            features, skip = upsample(features), skips.pop()
            if self.gate is not None:
                skip = self.gates[level](features, skip)
            features = block(torch.cat([skip, features], dim=1))
        return self.head(features)


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
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_channels, num_outputs, "classic", base_channels, normalisation, dropout)

    def _upsampler(self, below: int, outputs: int, normalisation: Normalisation) -> nn.Module:
        return nn.Sequential(
            nn.Upsample(scale_factor=2), convolution_unit(below, outputs, normalisation)
        )


def _projection(in_channels: int, out_channels: int, normalisation: Normalisation) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1), normalisation_layer(normalisation, out_channels)
    )
