"""From a network's name to the network."""

import inspect
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.models.library_imports import library_imports

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Network:
    """A network, or a family of them, that settings can name.

    Attributes:
        module: where it is; imported when one is built, since torch and the libraries take seconds.
        builder: a class in it that takes ``in_channels``, ``num_outputs`` and options; or a
            function of name, channels, outputs and a mapping of options, which it checks itself.
        classifies: whether it gives logits per image, and not per pixel.
        taps: by the name of a preset, the layer whose activation map is compared with another's.
        parts: by the name that ``trainable`` gives them, its layers that learn.
    """

    module: str
    builder: str
    classifies: bool = False
    taps: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def load(self) -> ModuleType:
        """Imports the module."""
        with library_imports():
            return import_module(self.module)


# Of paper B: the last dense layer but one; of its authors' code: the last one's second convolution.
_DENSENET121_TAPS = {
    "paper": "features.denseblock4.denselayer15",
    "authors_code": "features.denseblock4.denselayer16.conv2",
}
# DenseNet-40's first 1×1 convolution; for their code the paper names no other.
_DENSENET40_TAPS = dict.fromkeys(_DENSENET121_TAPS, "features.squeeze")
# As paper B counts the last 34 layers.
_LAST34 = ("features.transition3", "features.denseblock4", "features.norm5", "classifier")

NETWORKS = {
    "unet": Network("nakt_dist.models.unet", "UNet"),
    "attention_unet": Network("nakt_dist.models.unet", "AttentionUNet"),
    "sdu_net": Network("nakt_dist.models.unet", "SDUNet"),
    "deeplabv3plus": Network("nakt_dist.models.segmentation_models", "build_preset"),
    "panoptic_fpn": Network("nakt_dist.models.segmentation_models", "build_preset"),
    "densenet121": Network(
        "nakt_dist.models.densenet", "DenseNet121", True, _DENSENET121_TAPS, {"last34": _LAST34}
    ),
    "densenet40": Network("nakt_dist.models.densenet", "DenseNet40", True, _DENSENET40_TAPS),
    "monai_unet": Network("nakt_dist.models.monai_networks", "MonaiUNet"),
    "nnunet": Network("nakt_dist.models.nnunet", "NnUNet"),
    "monai_densenet121": Network(
        "nakt_dist.models.monai_networks",
        "MonaiDenseNet121",
        True,
        _DENSENET121_TAPS,
        {"last34": _LAST34},
    ),
}
"""The networks by name: a new one is its file and a line here."""

TIMM_PREFIX = "timm:"
ONNX_PREFIX = "onnx:"
FAMILIES = {
    "smp:": Network("nakt_dist.models.segmentation_models", "build_by_name"),
    TIMM_PREFIX: Network("nakt_dist.models.timm_classifiers", "build_classifier", classifies=True),
    f"{TIMM_PREFIX}densenet121": Network(
        "nakt_dist.models.timm_classifiers", "build_classifier", True, _DENSENET121_TAPS
    ),  # it has torchvision's layers
    # Of a network that only its ONNX file knows, by what it answers.
    f"{ONNX_PREFIX}segmentation": Network("nakt_dist.models.onnx_building", "refuse"),
    f"{ONNX_PREFIX}classification": Network("nakt_dist.models.onnx_building", "refuse", True),
}
"""Libraries, any network of which can be named: ``smp:ARCHITECTURE/ENCODER``, ``timm:NAME``.

A network of theirs of which more is known has a line of its own; its tags do not matter.
"""

MODEL_NAMES = tuple(NETWORKS)


def find_network(name: str) -> Network | None:
    """Returns what a network or its family is registered as; None for an unknown name."""
    untagged, family = name.partition(".")[0], f"{name.partition(':')[0]}:"
    return NETWORKS.get(name) or FAMILIES.get(untagged) or FAMILIES.get(family)


def is_classifier(name: str) -> bool:
    """Says whether a network of this name gives logits per image, and not per pixel."""
    found = find_network(name)
    return found is not None and found.classifies


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
              ``base_channels`` (64), ``normalisation`` ("batch", "group", "none") and
              ``dropout`` (0).
            - ``attention_unet``: options ``base_channels`` (64), ``normalisation``, ``dropout``.
            - ``deeplabv3plus``, ``panoptic_fpn``: option ``encoder_name`` ("resnet50") and
              every keyword of segmentation-models-pytorch's ``DeepLabV3Plus`` and ``FPN``.
            - ``smp:ARCHITECTURE/ENCODER``, such as ``smp:Unet/resnet34``: any architecture
              and encoder of segmentation-models-pytorch, with its keywords as options. A few
              need larger images, such as PAN 128 pixels a side.

            - ``monai_unet``: MONAI's U-Net, with its keywords as options.
            - ``nnunet``: a network of nnU-Net's plans, for two dimensions.

            and for classification

            - ``densenet121``: torchvision's network, options ``drop_rate`` (0) and
              ``calibrated`` (false); H and W at least 32.
            - ``densenet40``: its first half and a bottleneck of 32 planes of 8×8, the
              attention-transfer paper's small student; option ``drop_rate``, sizes likewise.
            - ``monai_densenet121``: the same network for images as MONAI prepares them.
            - ``timm:NAME``, such as ``timm:resnet50``: any classifier of timm, with its
              keywords as options.

            Each has the option ``softmax`` (false): of its outputs exactly one holds. The logits
            are then those whose sigmoid is the softmax.
        in_channels: image channels, 1 for grey and 3 for RGB.
        num_outputs: logits per pixel, or per image; of ``timm:NAME`` 0 for features alone.
        **options: as listed above. Nothing is downloaded unless ``encoder_weights`` (timm:
            ``pretrained``) is given.

    Returns:
        The network in training mode, float32, on torch's default device. With its default
        options it has exactly the parameters of the paper's network, as its class says.

    Raises:
        ConfigurationError: the network, an architecture, an encoder or an option is unknown
            (the message has the nearest known name), a value is out of range, or pretrained
            weights were asked for and cannot be had.
    """
    _check_channels("in_channels", in_channels)
    # Of timm's networks 0 leaves the head out: what they give are features.
    _check_channels("num_outputs", num_outputs, 0 if name.startswith(TIMM_PREFIX) else 1)
    found = find_network(name)
    if found is None:
        raise ConfigurationError(
            f"unknown network '{name}'{nearest_name(name, NETWORKS)} "
            f"(known: {', '.join(NETWORKS)}, smp:ARCHITECTURE/ENCODER such as "
            "smp:Unet/resnet34, and timm:NAME such as timm:resnet50)"
        )
    if found.classifies and options.pop("softmax", False):
        from nakt_dist.models.heads import with_softmax  # with torch

        return with_softmax(build_model(name, in_channels, num_outputs, **options), name)
    builder = getattr(found.load(), found.builder)
    parameters = inspect.signature(builder).parameters
    if "options" in parameters:
        return builder(name, in_channels, num_outputs, options)
    _check_options(name, list(parameters), options)
    return builder(in_channels=in_channels, num_outputs=num_outputs, **options)


def _check_options(name: str, parameters: Collection[str], options: Collection[str]) -> None:
    known = [each for each in parameters if each not in ("in_channels", "num_outputs")]
    for option in options:
        if option not in known:
            raise ConfigurationError(
                f"network '{name}': unknown option '{option}'{nearest_name(option, known)} "
                f"(known: {', '.join(known)})"
            )


def _check_channels(field: str, value: int, least: int = 1) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(
            f"{field} is {value!r}, expected a whole number of at least {least}"
        )
