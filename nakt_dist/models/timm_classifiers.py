"""Classifiers of timm, by name.

Importing this module takes several seconds: it brings in timm and torchvision.
"""

from typing import Any

import timm
from torch import nn

from nakt_dist.errors import ConfigurationError, nearest_name

# Their initialisation grows with 1 / √outputs: that of a thousand classes is as large as that of
# other networks, that of ten findings ten times larger, and takes a training's steps to unlearn.
_LARGE_HEADS = (timm.models.EfficientNet, timm.models.MobileNetV3)

_BY_INITIALISATION = "to start from a file, build the network without it and give the file as init"
_NOT_OPTIONS = {
    "cache_dir": "set the variable HF_HOME",
    "checkpoint_path": _BY_INITIALISATION,
    "features_only": "classifiers return logits; activation maps are had by taps",
    "in_chans": "set the network's in_channels",
    "num_classes": "set the network's num_outputs",
    "pretrained_cfg": _BY_INITIALISATION,
    "pretrained_cfg_overlay": _BY_INITIALISATION,
}


def build_classifier(
    name: str, in_channels: int, num_outputs: int, options: dict[str, Any]
) -> nn.Module:
    """Builds ``timm:NAME``, such as ``timm:resnet50`` or ``timm:densenet121.ra_in1k``.

    Args:
        name: with the prefix; a tag after the dot matters with ``pretrained`` alone.
        options: keywords of timm's network, and ``pretrained`` (False): whether timm may
            download its weights. Some networks take one size of image; ``img_size`` or
            ``dynamic_img_size`` change that.

    Raises:
        ConfigurationError: as ``build_model``.
    """
    timm_name = name.partition(":")[2]
    if not timm.is_model(timm_name):
        known = timm.list_models()
        raise ConfigurationError(
            f"network '{name}': timm has no network '{timm_name}'"
            f"{nearest_name(timm_name, known)} (timm.list_models() lists its {len(known)} names)"
        )
    pretrained = _check_options(name, options)
    if pretrained:
        _check_pretrained(name, timm_name, in_channels)
    try:
        network = timm.create_model(
            timm_name, in_chans=in_channels, num_classes=num_outputs, **options
        )
    except Exception as error:  # timm and the hub raise whatever comes up
        raise ConfigurationError(_explain(name, timm_name, error, pretrained)) from error
    if getattr(network, "num_classes", None) != num_outputs:
        raise ConfigurationError(
            f"network '{name}' cannot be built with {num_outputs} outputs; timm has it as a "
            "feature extractor alone. Choose another network"
        )
    if isinstance(network, _LARGE_HEADS):
        _shrink_head(network, num_outputs, pretrained)
    return network


def _shrink_head(network: Any, num_outputs: int, pretrained: bool) -> None:
    """Begins a fresh head as torch begins one; what pretrained weights bring stays."""
    head = network.get_classifier()
    brought = pretrained and network.pretrained_cfg["num_classes"] == num_outputs
    if isinstance(head, nn.Linear) and not brought:
        head.reset_parameters()


def _check_options(name: str, options: dict[str, Any]) -> bool:
    """Refuses options that are settings elsewhere; says whether weights are asked for."""
    for option in options:
        if option in _NOT_OPTIONS:
            raise ConfigurationError(
                f"network '{name}': option '{option}' cannot be set; {_NOT_OPTIONS[option]}"
            )
    pretrained = options.get("pretrained", False)
    if not isinstance(pretrained, bool):
        raise ConfigurationError(
            f"network '{name}': option 'pretrained' is {pretrained!r}, expected true or false; "
            f"{_BY_INITIALISATION}"
        )
    return pretrained


def _check_pretrained(name: str, timm_name: str, in_channels: int) -> None:
    if not timm.models.is_model_pretrained(timm_name):
        tags = timm.list_pretrained(f"{timm_name.partition('.')[0]}*")[:8]
        raise ConfigurationError(
            f"network '{name}': timm has no pretrained weights of this name "
            f"({'it has ' + ', '.join(tags) if tags else 'nor of its other tags'}); leave the "
            "option 'pretrained' out to start from random weights"
        )
    found = timm.models.get_pretrained_cfg(timm_name)
    expected = found.input_size[0] if found is not None else in_channels
    if in_channels != expected:  # timm would add its first layer's channels up, without a word
        raise ConfigurationError(
            f"network '{name}': its pretrained weights read {expected} image channels, and "
            f"in_channels is {in_channels}; set in_channels to {expected}"
        )


def _explain(name: str, timm_name: str, error: Exception, pretrained: bool) -> str:
    if not pretrained:
        return f"network '{name}': timm refuses these options: {error}"
    source = getattr(timm.models.get_pretrained_cfg(timm_name), "hf_hub_id", None) or "their site"
    return (
        f"network '{name}': it cannot be built with its pretrained weights, which come from "
        f"'{source}': {error}. Without a network, fetch them into the Hugging Face cache "
        "beforehand (variable HF_HOME), or leave the option 'pretrained' out"
    )
