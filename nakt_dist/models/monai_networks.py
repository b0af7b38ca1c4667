"""MONAI's U-Net and DenseNet-121 for images of two dimensions, with the names of its weights.

The U-Net is that of Kerfoot and others (2018, "Left-ventricle quantification using residual
U-Net"), as MONAI's documentation describes ``UNet``: strided convolutions in the place of pooling,
transposed ones on the way up, residual units, PReLU and instance normalisation.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from nakt_dist.errors import ConfigurationError
from nakt_dist.models.densenet import DenseNet121
from nakt_dist.models.layers import at_any_size, check_choice
from nakt_dist.models.normalisation import InputNormalisation, normalise_images

Activation = Literal["prelu", "relu", "leakyrelu"]
Norm = Literal["instance", "affine_instance", "batch"]

_ACTIVATIONS = {"prelu": nn.PReLU, "relu": nn.ReLU, "leakyrelu": nn.LeakyReLU}


@dataclass(frozen=True)
class _Seen:
    """How images come to a network: normalised one by one, and columns first, as MONAI reads."""

    kind: InputNormalisation
    by_channel: bool
    transposed: bool

    def __post_init__(self) -> None:
        check_choice("input_normalisation", self.kind, InputNormalisation)

    def turn(self, maps: Tensor) -> Tensor:
        """Exchanges rows and columns of (N, C, H, W), where they come so."""
        return maps.mT if self.transposed else maps

    def prepare(self, images: Tensor) -> Tensor:
        """Brings images, float (N, C, H, W), to what the network learnt from."""
        return self.turn(normalise_images(images, self.kind, self.by_channel))


class MonaiDenseNet121(DenseNet121):
    """DenseNet-121 for images as a MONAI bundle prepares them.

    Args:
        input_normalisation: of each image by itself: "none", "min_max", "z_score" or
            "z_score_nonzero".
        normalised_by_channel: each channel by itself.
        transposed: whether it learnt from images with columns first, as MONAI reads them.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    def __init__(
        self,
        in_channels: int = 1,
        num_outputs: int = 1,
        input_normalisation: InputNormalisation = "none",
        normalised_by_channel: bool = False,
        transposed: bool = False,
    ) -> None:
        super().__init__(in_channels, num_outputs)
        self._seen = _Seen(input_normalisation, normalised_by_channel, transposed)
        self.columns_first = transposed  # for ``planes.upright``

    def forward(self, images: Tensor) -> Tensor:
        """Maps float images (N, in_channels, H, W), H and W at least 32, to (N, num_outputs)."""
        return super().forward(self._seen.prepare(images))


class _Beside(nn.Module):
    """Puts what a deeper level gives beside what it got."""

    def __init__(self, submodule: nn.Module) -> None:
        super().__init__()
        self.submodule = submodule

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, self.submodule(features)], 1)


class _Residual(nn.Module):
    """Convolutions one after the other, and what they got added, by a convolution if need be."""

    def __init__(self, units: Sequence[nn.Module], beside: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Sequential()
        for number, unit in enumerate(units):
            self.conv.add_module(f"unit{number}", unit)
        self.residual = beside

    def forward(self, features: Tensor) -> Tensor:
        return self.conv(features) + self.residual(features)


class MonaiUNet(nn.Sequential):
    """MONAI's ``UNet`` of two dimensions, without dropout, which rests in a trained network.

    Entries have MONAI's names less ``model.``, which is taken off whatever is read.

    Args:
        channels: of each level, from the top.
        strides: of each level but the lowest.
        kernel_size: of convolutions on the way down, odd.
        up_kernel_size: likewise on the way up.
        num_res_units: convolutions of each residual unit; 0 for a plain U-Net.
        act: "prelu", "relu" or "leakyrelu".
        norm: "instance", "affine_instance" or "batch".
        bias: whether convolutions have one.
        input_normalisation: see ``MonaiDenseNet121``; so are the others.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    head_prefixes = ("2.",)
    """All of the uppermost way up has a channel for each output."""

    def __init__(
        self,
        in_channels: int = 1,
        num_outputs: int = 1,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        strides: Sequence[int] = (2, 2, 2, 2),
        kernel_size: int = 3,
        up_kernel_size: int = 3,
        num_res_units: int = 0,
        act: Activation = "prelu",
        norm: Norm = "instance",
        bias: bool = True,
        input_normalisation: InputNormalisation = "none",
        normalised_by_channel: bool = False,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        check_choice("act", act, Activation)
        check_choice("norm", norm, Norm)
        _check_numbers("channels", channels, 2)
        _check_numbers("strides", strides, len(channels) - 1)
        _check_numbers("kernel_size, up_kernel_size", [kernel_size, up_kernel_size], 2, odd=True)
        _check_numbers("num_res_units + 1", [num_res_units + 1], 1)
        self._kernels, self._residuals = (kernel_size, up_kernel_size), num_res_units
        self._act, self._norm, self._bias = act, norm, bias
        strides = list(strides)[: len(channels) - 1]
        self._multiple = math.prod(strides)
        self._seen = _Seen(input_normalisation, normalised_by_channel, transposed)
        self.columns_first = transposed
        self.extend(self._level(in_channels, num_outputs, list(channels), strides, True))

    def forward(self, images: Tensor) -> Tensor:
        """Maps float images (N, in_channels, H, W) to logits (N, num_outputs, H, W)."""
        logits = at_any_size(super().forward, self._seen.prepare(images), self._multiple)
        return self._seen.turn(logits)

    def _level(
        self, given: int, wanted: int, channels: list[int], strides: list[int], is_top: bool
    ) -> nn.Sequential:
        here, below, *deeper = channels
        inner: nn.Module = self._down(here, below, 1)
        if deeper:
            inner, below = self._level(here, here, channels[1:], strides[1:], False), here
        return nn.Sequential(
            self._down(given, here, strides[0]),
            _Beside(inner),
            self._up(here + below, wanted, strides[0], is_top),
        )

    def _down(self, given: int, wanted: int, stride: int) -> nn.Module:
        if not self._residuals:
            return self._unit(given, wanted, stride)
        units = [
            self._unit(wanted if number else given, wanted, 1 if number else stride)
            for number in range(self._residuals)
        ]
        return self._with_residual(units, given, wanted, stride)

    def _up(self, given: int, wanted: int, stride: int, is_top: bool) -> nn.Module:
        if not self._residuals:
            return self._unit(given, wanted, stride, bare=is_top, up=True)
        units = [self._unit(wanted, wanted, 1, bare=is_top)]
        raised = self._unit(given, wanted, stride, up=True)
        return nn.Sequential(raised, self._with_residual(units, wanted, wanted, 1))

    def _with_residual(
        self, units: Sequence[nn.Module], given: int, wanted: int, stride: int
    ) -> _Residual:
        beside: nn.Module = nn.Identity()
        if stride != 1 or given != wanted:
            kernel = self._kernels[0] if stride != 1 else 1
            beside = nn.Conv2d(given, wanted, kernel, stride, kernel // 2, bias=self._bias)
        return _Residual(units, beside)

    def _unit(
        self, given: int, wanted: int, stride: int, bare: bool = False, up: bool = False
    ) -> nn.Sequential:
        """Returns a convolution, and unless it is ``bare`` a normalisation and an activation."""
        kernel = self._kernels[up]
        convolution: nn.Module = nn.Conv2d(
            given, wanted, kernel, stride, kernel // 2, bias=self._bias
        )
        if up:
            convolution = nn.ConvTranspose2d(
                given, wanted, kernel, stride, kernel // 2, stride - 1, bias=self._bias
            )
        unit = nn.Sequential()
        unit.add_module("conv", convolution)
        if not bare:
            after = nn.Sequential()
            after.add_module("N", self._normalise(wanted))
            after.add_module("A", _ACTIVATIONS[self._act]())
            unit.add_module("adn", after)
        return unit

    def _normalise(self, channels: int) -> nn.Module:
        if self._norm == "batch":
            return nn.BatchNorm2d(channels)
        return nn.InstanceNorm2d(channels, affine=self._norm == "affine_instance")


def _check_numbers(option: str, values: Any, least: int, odd: bool = False) -> None:
    known = isinstance(values, list | tuple) and len(values) >= least
    whole = known and all(isinstance(n, int) and not isinstance(n, bool) for n in values)
    if not whole or any(n < 1 or (odd and n % 2 == 0) for n in values):
        kind = "odd whole numbers" if odd else "whole numbers"
        raise ConfigurationError(
            f"option '{option}' is {values!r}, expected at least {least} {kind} from 1 on"
        )
