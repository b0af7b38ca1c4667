"""From a network's name to the network."""

import inspect
from typing import TYPE_CHECKING, Any

from nakt_dist.errors import ConfigurationError, nearest_name

if TYPE_CHECKING:
    from torch import nn

HAND_WRITTEN_NAMES = ("unet", "attention_unet", "sdu_net")
PRESET_NAMES = ("deeplabv3plus", "panoptic_fpn")
MODEL_NAMES = HAND_WRITTEN_NAMES + PRESET_NAMES
"""The paper's five networks; ``smp:ARCHITECTURE/ENCODER`` names any other."""

SMP_PREFIX = "smp:"


def build_model(
    name: str, in_channels: int = 1, num_outputs: int = 1, **options: Any
) -> "nn.Module":
    """Builds a segmentation network with random weights.

    Every network maps float images (N, in_channels, H, W), H and W at least 16, to logits
    (N, num_outputs, H, W) of the same height and width: one head, no activation. Images
    whose sides the network cannot halve often enough are padded by reflection and the
    logits cropped back. The initial weights depend on torch's global seed alone.

    Args:
        name: the network.

            - ``unet``, ``sdu_net``: options ``width`` ("paper", "classic"),
              ``base_channels`` (64), ``normalisation`` ("batch", "group", "none").
            - ``attention_unet``: options ``base_channels`` (64), ``normalisation``.
            - ``deeplabv3plus``, ``panoptic_fpn``: option ``encoder_name`` ("resnet50") and
              every keyword of segmentation-models-pytorch's ``DeepLabV3Plus`` and ``FPN``.
            - ``smp:ARCHITECTURE/ENCODER``, such as ``smp:Unet/resnet34``: any architecture
              and encoder of segmentation-models-pytorch, with its keywords as options. A few
              need larger images, such as PAN 128 pixels a side.
        in_channels: image channels, 1 for grey and 3 for RGB.
        num_outputs: logits per pixel.
        **options: as listed above. Nothing is downloaded unless ``encoder_weights`` is given.

    Returns:
        The network in training mode, float32, on torch's default device. With its default
        options it has exactly the parameters of the NAKT paper's networks: 14,787,777 (unet),
        34,877,421 (attention_unet), 5,997,681 (sdu_net), 26,671,313 (deeplabv3plus) and
        26,109,761 (panoptic_fpn).

    Raises:
        ConfigurationError: the network, an architecture, an encoder or an option is unknown
            (the message has the nearest known name), a value is out of range, or pretrained
            weights were asked for and cannot be had.
    """
    _check_channels("in_channels", in_channels)
    _check_channels("num_outputs", num_outputs)
    if name in HAND_WRITTEN_NAMES:
        return _build_hand_written(name, in_channels, num_outputs, options)
    if name not in PRESET_NAMES and not name.startswith(SMP_PREFIX):
        raise ConfigurationError(
            f"unknown network '{name}'{nearest_name(name, MODEL_NAMES)} "
            f"(known: {', '.join(MODEL_NAMES)}, and smp:ARCHITECTURE/ENCODER such as "
            "smp:Unet/resnet34)"
        )
    from nakt_dist.models import segmentation_models  # several seconds: only when needed

    if name in PRESET_NAMES:
        return segmentation_models.build_preset(name, in_channels, num_outputs, options)
    return segmentation_models.build_by_name(name, in_channels, num_outputs, options)


def _build_hand_written(
    name: str, in_channels: int, num_outputs: int, options: dict[str, Any]
) -> "nn.Module":
    network_class = _hand_written_class(name)
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


def _hand_written_class(name: str) -> "type[nn.Module]":
    if name == "unet":
        from nakt_dist.models.unet import UNet

        return UNet
    if name == "sdu_net":
        from nakt_dist.models.sdu_net import SDUNet

        return SDUNet
    from nakt_dist.models.attention_unet import AttentionUNet

    return AttentionUNet


def _check_channels(field: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"{field} is {value!r}, expected a whole number of at least 1")
