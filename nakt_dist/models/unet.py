"""The U-Net, and the scaffold it shares with the SDU-Net and the Attention U-Net."""

from typing import Literal

import torch
from torch import Tensor, nn

from nakt_dist.models.any_size import at_any_size
from nakt_dist.models.layers import (
    DoubleConvolution,
    Normalisation,
    check_base_channels,
    check_choice,
    halve,
    initialise,
)

Width = Literal["paper", "classic"]

# Multiples of base_channels, from the image inwards and from the innermost level outwards.
_ENCODER = {"paper": (1, 2, 4, 8, 8), "classic": (1, 2, 4, 8, 16)}
_DECODER = {"paper": (4, 2, 1, 1), "classic": (8, 4, 2, 1)}


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
        in_channels: image channels.
        num_outputs: logits per pixel.
        width: "paper" or "classic".
        base_channels: channels of the first level, which every other level multiplies.
        normalisation: "batch" (the paper's), "group" or "none". With BatchNorm, a
            batch of one image of 16×16 pixels cannot be trained on: torch's ValueError says
            that it expects more than one value per channel.

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
    ) -> None:
        super().__init__()
        check_choice("width", width, Width)
        check_choice("normalisation", normalisation, Normalisation)
        check_base_channels(base_channels, self.base_multiple)
        down = [base_channels * factor for factor in _ENCODER[width]]
        up = [base_channels * factor for factor in _DECODER[width]]
        keep = 1 if width == "paper" else 2
        self.encoder = nn.ModuleList(
            self.block(inputs, outputs, normalisation)
            for inputs, outputs in zip([in_channels, *down], down, strict=False)
        )
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
        features = skips.pop()
        for level, (upsample, block) in enumerate(zip(self.upsamplers, self.decoder, strict=True)):
            features, skip = upsample(features), skips.pop()
            if self.gate is not None:
                skip = self.gates[level](features, skip)
            features = block(torch.cat([skip, features], dim=1))
        return self.head(features)
