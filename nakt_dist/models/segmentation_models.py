"""Networks of segmentation-models-pytorch (smp), for images of any size.

Importing this module takes several seconds: it brings in smp, timm and torchvision.
"""

import functools
import inspect
from typing import Any

import segmentation_models_pytorch as smp
import timm
from torch import Tensor, nn

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.models.layers import at_any_size

_ARCHITECTURES = {each.__name__: each for each in smp.MODEL_ARCHITECTURES_MAPPING.values()}
_TIMM_PREFIX = "tu-"
_HALVES_AFTER_ENCODER = ("DPT",)  # its decoder needs twice the stride that its encoder states

# DeepLabv3+ (Chen et al. 2018, arXiv 1802.02611) and the semantic branch of Panoptic FPN
# (Kirillov et al. 2019, arXiv 1901.02446). Rates of 24 and 36, smp's defaults, would reach
# past the 24×24 map that a 384×384 image leaves, where a 3×3 kernel is no more than a 1×1.
_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "deeplabv3plus": (
        "DeepLabV3Plus",
        {"encoder_name": "resnet50", "decoder_atrous_rates": (6, 12, 18)},
    ),
    "panoptic_fpn": ("FPN", {"encoder_name": "resnet50", "decoder_dropout": 0.0}),
}

_WITHOUT_TRACE = (
    "decoder_atrous_rates",
    "encoder_output_stride",
    "upsampling",
    "decoder_interpolation",
)
"""Weights fit whatever these are. What dropouts are plays no part in a trained network."""

_NOT_OPTIONS = {
    "in_channels": "set the network's in_channels",
    "classes": "set the network's num_outputs",
    "activation": "networks here return logits",
    "aux_params": "networks here have one head",
}


class _AnySizeInput:
    """Gives an smp network ``at_any_size``, and changes neither parameters nor their names.

    It is a base class, not a module around the network: a wrapper would put its own name in
    front of every entry of the state dict, and checkpoints of plain smp would not fit.
    """

    stride_factor: int
    encoder: Any

    def forward(self, images: Tensor) -> Tensor:
        """Maps float images (N, in_channels, H, W) to logits (N, num_outputs, H, W)."""
        multiple = self.stride_factor * self.encoder.output_stride
        return at_any_size(super().forward, images, multiple)  # type: ignore[misc]


@functools.cache
def _any_size_class(architecture: str) -> type[nn.Module]:
    parent = _ARCHITECTURES[architecture]
    stride_factor = 2 if architecture in _HALVES_AFTER_ENCODER else 1
    attributes = {"__doc__": parent.__doc__, "stride_factor": stride_factor}
    return type(architecture, (_AnySizeInput, parent), attributes)


def build_preset(
    name: str, in_channels: int, num_outputs: int, options: dict[str, Any]
) -> nn.Module:
    """Builds ``deeplabv3plus`` or ``panoptic_fpn`` as the NAKT paper used them.

    ResNet-50 encoders with random weights; 26,671,313 and 26,109,761 parameters for one grey
    channel and one logit. ``deeplabv3plus`` normalises after global pooling and therefore
    cannot be trained on a batch of one: torch's ValueError says that it expects more than
    one value per channel. Drop a short last batch. Options are keywords of smp's class, which
    replace the paper's.

    Raises:
        ConfigurationError: as ``build_model``.
    """
    architecture, defaults = _PRESETS[name]
    return _build(architecture, in_channels, num_outputs, {**defaults, **options})


def build_by_name(
    name: str, in_channels: int, num_outputs: int, options: dict[str, Any]
) -> nn.Module:
    """Builds ``smp:ARCHITECTURE/ENCODER``; options and errors as ``build_preset``."""
    architecture, _, encoder = name.removeprefix("smp:").partition("/")
    if architecture not in _ARCHITECTURES:
        raise ConfigurationError(
            f"network '{name}': unknown architecture '{architecture}'"
            f"{nearest_name(architecture, _ARCHITECTURES)} "
            f"(known: {', '.join(sorted(_ARCHITECTURES))})"
        )
    if not encoder or "encoder_name" in options:
        raise ConfigurationError(
            f"network '{name}': expected the encoder in the name and nowhere else, "
            f"such as smp:{architecture}/resnet34"
        )
    return _build(architecture, in_channels, num_outputs, {**options, "encoder_name": encoder})


def options_without_trace(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of the options that weights do not show and that are not given."""
    architecture = name.removeprefix("smp:").partition("/")[0]
    defaults: dict[str, Any] = {}
    if name in _PRESETS:
        architecture, defaults = _PRESETS[name]
    known = inspect.signature(_ARCHITECTURES[architecture]).parameters
    return {
        option: defaults.get(option, known[option].default)
        for option in _WITHOUT_TRACE
        if option in known and option not in options
    }


def _build(
    architecture: str, in_channels: int, num_outputs: int, options: dict[str, Any]
) -> nn.Module:
    encoder = options["encoder_name"]
    weights = options.get("encoder_weights") or None  # smp downloads for False, too
    _check_encoder(encoder)
    passed_on = _check_options(architecture, encoder, options)
    if weights is not None:
        _check_encoder_weights(encoder, weights)
    if architecture == "DPT":
        options = {"dynamic_img_size": True, **options}  # any size, not only timm's 224×224
    try:
        return _any_size_class(architecture)(
            in_channels=in_channels, classes=num_outputs, **{**options, "encoder_weights": weights}
        )
    except Exception as error:  # smp, timm and the hub raise whatever comes up
        label = f"network '{architecture}' with encoder '{encoder}'"
        if weights is None:
            raise ConfigurationError(
                f"{label}: segmentation-models-pytorch refuses these options: {error}{passed_on}"
            ) from error
        raise ConfigurationError(
            f"{label}: it cannot be built with encoder_weights {weights!r}, which come from the "
            f"Hugging Face repository '{_weights_repository(encoder, weights)}': {error}{passed_on}"
            " Without a network, fetch that repository into the Hugging Face cache beforehand "
            "(variable HF_HOME), or leave encoder_weights out to start from random weights"
        ) from error


def _check_encoder(encoder: Any) -> None:
    known = smp.encoders.get_encoder_names()
    if encoder in known:
        return
    if str(encoder).startswith(_TIMM_PREFIX):
        timm_name = encoder.removeprefix(_TIMM_PREFIX)
        if timm.is_model(timm_name):
            return
        known = [_TIMM_PREFIX + each for each in timm.list_models()]
    raise ConfigurationError(
        f"unknown encoder '{encoder}'{nearest_name(str(encoder), known)} (known: those of "
        "segmentation-models-pytorch, such as resnet34, and tu- with the name of a timm model)"
    )


def _check_options(architecture: str, encoder: str, options: dict[str, Any]) -> str:
    """Returns what to add to an error message about options that go on to a timm encoder."""
    signature = inspect.signature(_ARCHITECTURES[architecture]).parameters
    known = [
        option
        for option, parameter in signature.items()
        if parameter.kind is not parameter.VAR_KEYWORD and option not in _NOT_OPTIONS
    ]
    passed_on = ""
    for option in options:
        if option in _NOT_OPTIONS:
            raise ConfigurationError(
                f"network '{architecture}': option '{option}' cannot be set; {_NOT_OPTIONS[option]}"
            )
        if option in known:
            continue
        # smp hands on what it does not know to timm's encoders, and for its own drops it silently.
        unknown = f"unknown option '{option}'{nearest_name(option, known)}"
        if not encoder.startswith(_TIMM_PREFIX):
            raise ConfigurationError(
                f"network '{architecture}': {unknown} (known: {', '.join(known)})"
            )
        passed_on += f"; passed on to timm: {unknown}"
    return passed_on


def _check_encoder_weights(encoder: str, weights: Any) -> None:
    if encoder.startswith(_TIMM_PREFIX):
        has_weights = timm.models.is_model_pretrained(encoder.removeprefix(_TIMM_PREFIX))
        known = ["true"] if has_weights else []
        valid = has_weights and weights is True
    else:
        known = sorted(smp.encoders.encoders[encoder]["pretrained_settings"])
        valid = weights in known
    if not valid:
        choices = f"{', '.join(known)} or null" if known else "null: it has no pretrained weights"
        raise ConfigurationError(
            f"encoder '{encoder}': encoder_weights is {weights!r}"
            f"{nearest_name(str(weights), known)} (known: {choices})"
        )


def _weights_repository(encoder: str, weights: Any) -> str:
    if encoder.startswith(_TIMM_PREFIX):
        found = timm.models.get_pretrained_cfg(encoder.removeprefix(_TIMM_PREFIX))
        return str(getattr(found, "hf_hub_id", None))
    return smp.encoders.encoders[encoder]["pretrained_settings"][weights]["repo_id"]
