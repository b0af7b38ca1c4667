"""nnU-Net's networks for images of two dimensions, with the names of their weights.

PlainConvUNet is the U-Net of nnU-Net (Isensee et al. 2021, arXiv 1809.10486): strided convolutions
in the place of pooling, transposed ones on the way up, instance normalisation, leaky ReLU.
ResidualEncoderUNet (Isensee et al. 2024, arXiv 2404.09556) has residual blocks on the way down.
Outputs of deep supervision, which only training reads, are left out.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from nakt_dist.errors import ConfigurationError
from nakt_dist.models.layers import at_any_size, check_choice
from nakt_dist.models.normalisation import InputNormalisation, normalise_images

_SLOPE = 0.01

Pair = Sequence[int]


class _Unit(nn.Module):
    """Convolution, normalisation and, unless it is ``bare``, leaky ReLU."""

    def __init__(
        self, given: int, wanted: int, kernel: Pair, stride: Pair, bias: bool, bare: bool = False
    ) -> None:
        super().__init__()
        rows, columns = kernel
        padding = ((rows - 1) // 2, (columns - 1) // 2)
        self.conv = nn.Conv2d(given, wanted, (rows, columns), tuple(stride), padding, bias=bias)  # type: ignore[arg-type]
        self.norm = nn.InstanceNorm2d(wanted, affine=True)
        self._bare = bare

    def forward(self, features: Tensor) -> Tensor:
        normalised = self.norm(self.conv(features))
        return normalised if self._bare else nn.functional.leaky_relu(normalised, _SLOPE)


class _Block(nn.Module):
    """Two units and what they got added: pooled by a stride, and convolved to other channels."""

    def __init__(self, given: int, wanted: int, kernel: Pair, stride: Pair, bias: bool) -> None:
        super().__init__()
        self.conv1 = _Unit(given, wanted, kernel, stride, bias)
        self.conv2 = _Unit(wanted, wanted, kernel, (1, 1), bias, bare=True)
        self.skip = nn.Sequential()
        if tuple(stride) != (1, 1):
            self.skip.append(nn.AvgPool2d(tuple(stride)))  # type: ignore[arg-type]
        if given != wanted:
            self.skip.append(_Unit(given, wanted, (1, 1), (1, 1), False, bare=True))

    def forward(self, features: Tensor) -> Tensor:
        added = self.conv2(self.conv1(features)) + self.skip(features)
        return nn.functional.leaky_relu(added, _SLOPE)


class _Units(nn.Module):
    """Units one after the other, the first of which may have a stride."""

    called: ClassVar[str] = "convs"
    kind: ClassVar[type[nn.Module]] = _Unit

    def __init__(
        self, given: int, wanted: int, kernel: Pair, stride: Pair, number: int, bias: bool
    ) -> None:
        super().__init__()
        units = (
            self.kind(wanted if n else given, wanted, kernel, (1, 1) if n else stride, bias)
            for n in range(number)
        )
        setattr(self, self.called, nn.Sequential(*units))

    def forward(self, features: Tensor) -> Tensor:
        return getattr(self, self.called)(features)


class _Blocks(_Units):
    """Residual blocks one after the other, the first of which may have a stride."""

    called, kind = "blocks", _Block


class _Encoder(nn.Module):
    """The way down; gives the features of each level."""

    def __init__(
        self, given: int, levels: Sequence[tuple[int, Pair, Pair, int]], residual: bool, bias: bool
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        if residual:
            first, kernel = levels[0][:2]
            self.stem = _Units(given, first, kernel, (1, 1), 1, bias)
            given = first
        for wanted, kernel, stride, number in levels:
            if residual:
                self.stages.append(_Blocks(given, wanted, kernel, stride, number, bias))
            else:
                units = _Units(given, wanted, kernel, stride, number, bias)
                self.stages.append(nn.Sequential(units))
            given = wanted

    def forward(self, images: Tensor) -> list[Tensor]:
        found = [self.stem(images) if hasattr(self, "stem") else images]
        for stage in self.stages:
            found.append(stage(found[-1]))
        return found[1:]


class _Decoder(nn.Module):
    """The way up, its levels from the lowest."""

    def __init__(
        self, levels: Sequence[tuple[int, Pair, Pair, int]], numbers: Sequence[int], bias: bool
    ) -> None:
        super().__init__()
        self.transpconvs, self.stages = nn.ModuleList(), nn.ModuleList()
        for below, here, number in zip(
            reversed(levels[1:]), reversed(levels[:-1]), numbers, strict=True
        ):
            step: Any = tuple(below[2])
            self.transpconvs.append(nn.ConvTranspose2d(below[0], here[0], step, step, bias=bias))
            self.stages.append(_Units(2 * here[0], here[0], here[1], (1, 1), number, bias))

    def forward(self, levels: list[Tensor]) -> Tensor:
        features = levels[-1]
        for raise_, stage, beside in zip(
            self.transpconvs, self.stages, reversed(levels[:-1]), strict=True
        ):
            features = stage(torch.cat([raise_(features), beside], 1))
        return features


class NnUNet(nn.Module):
    """A network of nnU-Net's plans; of which weights have the names, the last output as ``head``.

    Args:
        features: channels of each level, from the top.
        kernel_sizes: rows and columns of each level, odd.
        strides: rows and columns by which each level is smaller than the one above.
        convolutions: of each level on the way down; residual blocks where it is ``residual``.
        decoder_convolutions: on the way up, from the lowest level.
        residual: whether it is a ResidualEncoderUNet.
        bias: whether convolutions have one.
        input_normalisation: of each image by itself, by channel: "none", "min_max", "z_score" or
            "z_score_nonzero".

    Raises:
        ConfigurationError: an option is out of its range.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_outputs: int = 2,
        features: Sequence[int] = (32, 64, 128, 256, 512, 512),
        kernel_sizes: Sequence[Pair] = ((3, 3),) * 6,
        strides: Sequence[Pair] = ((1, 1), *((2, 2),) * 5),
        convolutions: Sequence[int] = (2,) * 6,
        decoder_convolutions: Sequence[int] = (2,) * 5,
        residual: bool = False,
        bias: bool = True,
        input_normalisation: InputNormalisation = "z_score",
    ) -> None:
        super().__init__()
        check_choice("input_normalisation", input_normalisation, InputNormalisation)
        _check("features", features, None)
        number = len(features)
        _check("convolutions", convolutions, number)
        _check("decoder_convolutions", decoder_convolutions, number - 1)
        for option, pairs in (("kernel_sizes", kernel_sizes), ("strides", strides)):
            whole = isinstance(pairs, list | tuple) and len(pairs) == number
            for pair in pairs if whole else [None]:
                _check(option, pair, 2)
        levels = list(zip(features, kernel_sizes, strides, convolutions, strict=True))
        self._kind = input_normalisation
        rows, columns = zip(*strides, strict=True)
        self._multiple = math.prod(rows), math.prod(columns)
        self.encoder = _Encoder(in_channels, levels, residual, bias)
        self.decoder = _Decoder(levels, decoder_convolutions, bias)
        self.head = nn.Conv2d(features[0], num_outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Maps float images (N, in_channels, H, W) to logits (N, num_outputs, H, W)."""
        seen = normalise_images(images, self._kind, by_channel=True)
        return at_any_size(self._logits, seen, self._multiple, "constant")

    def _logits(self, images: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(images)))


def _check(option: str, values: Any, number: int | None) -> None:
    known = isinstance(values, list | tuple) and len(values) == (number or max(len(values), 2))
    if not known or not all(type(n) is int and n > 0 for n in values):
        raise ConfigurationError(
            f"option '{option}' is {str(values)[:80]}, expected {number or 'at least 2'} whole "
            "numbers from 1 on, and pairs of them for kernels and strides, for each level"
        )
