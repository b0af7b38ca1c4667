"""From a network's name to the network."""

import inspect
from typing import TYPE_CHECKING, Any

from nakt_dist.errors import ConfigurationError, nearest_name

if TYPE_CHECKING:
    from torch import nn

HAND_WRITTEN_NAMES = ("unet", "attention_unet", "sdu_net")
PRESET_NAMES = ("deeplabv3plus", "panoptic_fpn")
CLASSIFIER_NAMES = ("densenet121", "densenet40")
MODEL_NAMES = HAND_WRITTEN_NAMES + PRESET_NAMES + CLASSIFIER_NAMES
"""The papers' networks; ``smp:ARCHITECTURE/ENCODER`` and ``timm:NAME`` name any other."""

SMP_PREFIX = "smp:"
TIMM_PREFIX = "timm:"


def is_classifier(name: str) -> bool:
    """Says whether a network of this name gives logits per image, and not per pixel."""
    return name in CLASSIFIER_NAMES or name.startswith(TIMM_PREFIX)


def build_model(
    name: str, in_channels: int = 1, num_outputs: int = 1, **options: Any
) -> "nn.Module":
    """Builds a network with random weights.

    Segmentation networks map float images (N, in_channels, H, W), H and W at least 16, to
    logits (N, num_outputs, H, W) of the same height and width. Images whose sides the network
    cannot halve often enough are padded by reflection and the logits cropped back. Classifiers
    map float images (N, in_channels, H, W) to logits (N, num_outputs), see ``is_classifier``.
    Either kind has one head and no activation. The initial weights depend on torch's global
    seed alone.

    Args:
        name: the network; for segmentation

            - ``unet``, ``sdu_net``: options ``width`` ("paper", "classic"),
              ``base_channels`` (64), ``normalisation`` ("batch", "group", "none").
            - ``attention_unet``: options ``base_channels`` (64), ``normalisation``.
            - ``deeplabv3plus``, ``panoptic_fpn``: option ``encoder_name`` ("resnet50") and
              every keyword of segmentation-models-pytorch's ``DeepLabV3Plus`` and ``FPN``.
            - ``smp:ARCHITECTURE/ENCODER``, such as ``smp:Unet/resnet34``: any architecture
              and encoder of segmentation-models-pytorch, with its keywords as options. A few
              need larger images, such as PAN 128 pixels a side.

            and for classification

            - ``densenet121``: torchvision's network, option ``drop_rate`` (0); H and W at
              least 32.
            - ``densenet40``: its first half and a bottleneck of 32 planes of 8×8, the
              attention-transfer paper's small student; option and sizes likewise.
            - ``timm:NAME``, such as ``timm:resnet50``: any classifier of timm, with its
              keywords as options.
        in_channels: image channels, 1 for grey and 3 for RGB.
        num_outputs: logits per pixel, or per image.
        **options: as listed above. Nothing is downloaded unless ``encoder_weights`` (timm:
            ``pretrained``) is given.

    Returns:
        The network in training mode, float32, on torch's default device. With its default
        options it has exactly the parameters of the papers' networks: 14,787,777 (unet),
        34,877,421 (attention_unet), 5,997,681 (sdu_net), 26,671,313 (deeplabv3plus) and
        26,109,761 (panoptic_fpn) for one channel and one logit; 6,968,206 (densenet121) and
        1,364,142 (densenet40) for three channels and 14 logits.

    Raises:
        ConfigurationError: the network, an architecture, an encoder or an option is unknown
            (the message has the nearest known name), a value is out of range, or pretrained
            weights were asked for and cannot be had.
    """
    _check_channels("in_channels", in_channels)
    _check_channels("num_outputs", num_outputs)
    if name in HAND_WRITTEN_NAMES + CLASSIFIER_NAMES:
        return _build_from_class(name, in_channels, num_outputs, options)
    if name.startswith(TIMM_PREFIX):
        from nakt_dist.models import timm_classifiers  # several seconds: only when needed

        return timm_classifiers.build_classifier(name, in_channels, num_outputs, options)
    if name not in PRESET_NAMES and not name.startswith(SMP_PREFIX):
        raise ConfigurationError(
            f"unknown network '{name}'{nearest_name(name, MODEL_NAMES)} "
            f"(known: {', '.join(MODEL_NAMES)}, smp:ARCHITECTURE/ENCODER such as "
            "smp:Unet/resnet34, and timm:NAME such as timm:resnet50)"
        )
    from nakt_dist.models import segmentation_models  # likewise

    if name in PRESET_NAMES:
        return segmentation_models.build_preset(name, in_channels, num_outputs, options)
    return segmentation_models.build_by_name(name, in_channels, num_outputs, options)


def _build_from_class(
    name: str, in_channels: int, num_outputs: int, options: dict[str, Any]
) -> "nn.Module":
    network_class = _class_of(name)
    known = [
        option
        for option in inspect.signature(network_class).parameters
        if option not in ("in_channels", "num_outputs")
    ]
    for option in options:
        if option not in known:
            raise ConfigurationError(
                f"network '{name}': unknown option '{option}'{nearest_name(option, known)} "
                f"(known: {', '.join(known)})"
            )
    return network_class(in_channels=in_channels, num_outputs=num_outputs, **options)


def _class_of(name: str) -> "type[nn.Module]":
    if name == "unet":
        from nakt_dist.models.unet import UNet

        return UNet
    if name == "sdu_net":
        from nakt_dist.models.sdu_net import SDUNet

        return SDUNet
    if name == "attention_unet":
        from nakt_dist.models.attention_unet import AttentionUNet

        return AttentionUNet
    from nakt_dist.models import densenet  # brings in torchvision

    return densenet.DenseNet121 if name == "densenet121" else densenet.DenseNet40


def _check_channels(field: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{field} is {value!r}, expected a whole number of at least 1")
