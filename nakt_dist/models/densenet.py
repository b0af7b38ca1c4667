"""DenseNet-121, and its first half as a smaller student, for classification.

Importing this module takes a second or two: it brings in torchvision.
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet

from nakt_dist.errors import ConfigurationError

_GROWTH_RATE = 32
_STEM_CHANNELS = 64
_LAST_CHANNELS = 1024  # DenseNet-121's, so that its norm5 and classifier fit DenseNet-40 too
_SQUEEZED_CHANNELS = 32
_POOLED_SIDE = 8
_SMALLEST_SIDE = 32  # five halvings of DenseNet-121 leave one pixel


class DenseNet121(DenseNet):
    """DenseNet-121 (Huang et al. 2017, arXiv 1608.06993), torchvision's network.

    6,968,206 parameters with three channels and 14 outputs. Names of parameters are
    torchvision's, which timm's ``densenet121`` shares.

    Args:
        drop_rate: dropout after each dense layer, in [0, 1).
        calibrated: whether its weights hold operating points, ``op_threshs``, which probabilities
            are brought to 0.5 by, see ``at_operating_points``; 0.5 of a new network.

    Raises:
        ConfigurationError: an option is out of its range.
    """

    op_threshs: Tensor

    def __init__(
        self,
        in_channels: int = 3,
        num_outputs: int = 14,
        drop_rate: float = 0.0,
        calibrated: bool = False,
    ) -> None:
        _check_drop_rate(drop_rate)
        super().__init__(
            _GROWTH_RATE, (6, 12, 24, 16), _STEM_CHANNELS, drop_rate=drop_rate,
            num_classes=num_outputs,
        )  # fmt: skip
        if in_channels != 3:
            self.features.conv0 = _first_convolution(in_channels)
        if not isinstance(calibrated, bool):
            raise ConfigurationError(
                f"option 'calibrated' is {calibrated!r}, expected true or false"
            )
        self._calibrated = calibrated
        if calibrated:  # torchxrayvision's name
            self.register_buffer("op_threshs", torch.full((num_outputs,), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        """Maps float images (N, in_channels, H, W), H and W at least 32, to (N, num_outputs)."""
        _check_size(images)
        logits = super().forward(images)
        return at_operating_points(logits, self.op_threshs) if self._calibrated else logits


class DenseNet40(nn.Module):
    """The small student of the attention-transfer paper: the first half of DenseNet-121.

    ``conv0`` to ``denseblock2`` of DenseNet-121 (512 planes at an eighth of the image), pooled
    to 8×8; ``squeeze``, a 1×1 convolution to 32 planes, is where attention is transferred;
    ``expand``, another to 1024; then DenseNet-121's own ``norm5`` and ``classifier``, so that
    their pretrained tensors load. 1,364,142 parameters with three channels and 14 outputs.

    Args:
        drop_rate: dropout after each dense layer, in [0, 1).

    Raises:
        ConfigurationError: an option is out of its range.
    """

    own_layers = ("features.squeeze.", "features.expand.")
    """What it has beside the layers of DenseNet-121, whose weights it may start from."""

    def __init__(self, in_channels: int = 3, num_outputs: int = 14, drop_rate: float = 0.0) -> None:
        super().__init__()
        _check_drop_rate(drop_rate)
        half = DenseNet(_GROWTH_RATE, (6, 12), _STEM_CHANNELS, drop_rate=drop_rate, num_classes=1)
        layers = OrderedDict(half.features.named_children())
        last_channels = layers.pop("norm5").num_features
        if in_channels != 3:
            layers["conv0"] = _first_convolution(in_channels)
        layers["pool"] = nn.AdaptiveAvgPool2d(_POOLED_SIDE)
        layers["squeeze"] = _pointwise_convolution(last_channels, _SQUEEZED_CHANNELS)
        layers["expand"] = _pointwise_convolution(_SQUEEZED_CHANNELS, _LAST_CHANNELS)
        layers["norm5"] = nn.BatchNorm2d(_LAST_CHANNELS)
        self.features = nn.Sequential(layers)
        self.classifier = nn.Linear(_LAST_CHANNELS, num_outputs)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Maps float images (N, in_channels, H, W), H and W at least 32, to (N, num_outputs)."""
        _check_size(images)
        features = functional.relu(self.features(images))
        return self.classifier(functional.adaptive_avg_pool2d(features, 1).flatten(1))


def at_operating_points(logits: Tensor, points: Tensor) -> Tensor:
    """Brings the probability at which each finding is called present to 0.5.

    As torchxrayvision (Cohen et al. 2022, arXiv 2111.00595) does: p / (2 t) below the operating
    point t, 1 - (1 - p) / (2 (1 - t)) from it on. What is returned are the logits of that, so
    that the sigmoid, taken as of any network here, gives it.

    Args:
        logits: float (N, K).
        points: float (K,), in (0, 1).
    """
    # Logarithms of p and 1 - p; ONNX Runtime's log of a sigmoid would end in infinity.
    present, absent = -functional.softplus(-logits), -functional.softplus(logits)
    # Clamped where the other line holds, where its logarithm would have none.
    below = present - (2 * points - present.exp()).clamp(min=points).log()
    above = (2 * (1 - points) - absent.exp()).clamp(min=1 - points).log() - absent
    return torch.where(present.exp() < points, below, above)


def _first_convolution(in_channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, _STEM_CHANNELS, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(convolution.weight)  # as torchvision draws its own
    return convolution


def _pointwise_convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, out_channels, 1)
    nn.init.kaiming_normal_(convolution.weight)
    nn.init.zeros_(convolution.get_parameter("bias"))
    return convolution


def _check_drop_rate(value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not 0 <= value < 1:
        raise ConfigurationError(
            f"option 'drop_rate' is {value!r}, expected a number of at least 0 and below 1"
        )


def _check_size(images: Tensor) -> None:
    height, width = images.shape[-2:]
    if height < _SMALLEST_SIDE or width < _SMALLEST_SIDE:
        raise ConfigurationError(
            f"images are {height}×{width} pixels, expected at least "
            f"{_SMALLEST_SIDE}×{_SMALLEST_SIDE} for a DenseNet; pack them at a larger size, or "
            "set preprocessing.height and preprocessing.width"
        )
