"""What it takes to use a network again: its name, channels and options, and what it sees."""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.limits import Limited
from nakt_dist.models.registry import TIMM_PREFIX, build_model

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""Mean of ImageNet's training images by channel, in [0, 1]; what torchvision and timm subtract."""

IMAGENET_STD = (0.229, 0.224, 0.225)
"""Standard deviation likewise; what they divide by."""

_SIDE = limits.within(
    1, limits.LARGEST_INPUT_SIDE, f"positive, at most {limits.LARGEST_INPUT_SIDE}"
)
_CHANNELS = limits.within(
    -limits.LARGEST_FACTOR,
    limits.LARGEST_FACTOR,
    f"from {-limits.LARGEST_FACTOR:g} to {limits.LARGEST_FACTOR:g}",
)

_MOST_NESTED = 16


@dataclass(frozen=True)
class ModelSpec:
    """A network as a configuration and a weights file describe it.

    Attributes:
        name: of ``NETWORKS``: ``unet``, ``attention_unet``, ``sdu_net``, ``deeplabv3plus``,
            ``panoptic_fpn``, ``densenet121``, ``densenet40``; ``monai_unet``, ``nnunet`` and
            ``monai_densenet121`` for files of these libraries; or any other
            ``smp:ARCHITECTURE/ENCODER`` or ``timm:NAME``.
        in_channels: image channels, 1 for grey and 3 for RGB.
        num_outputs: logits per pixel, of several of which softmax makes probabilities, one for
            each class and the background; of classifiers logits per image. Of ``timm:NAME`` 0
            leaves the classifier head out: such a network gives features, and can be followed by
            its layers.
        options: of the network, such as ``base_channels`` of a U-Net or ``encoder_name`` of
            ``deeplabv3plus``; a wrong one is answered with those there are. Kept as JSON reads
            them back (a tuple becomes a list), so that a spec equals its stored copy.

    Raises:
        ConfigurationError: an option cannot be written as JSON.
    """

    name: str = "unet"
    in_channels: int = 1
    num_outputs: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            plain = json.loads(json.dumps(self.options, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(
                f"options of network '{self.name}': {error}; expected names with values that JSON "
                "can hold: numbers, text, true, false, null, lists and mappings of these"
            ) from None
        object.__setattr__(self, "options", plain)

    def build(self) -> "nn.Module":
        """Builds the network with fresh weights; see ``build_model`` for what it raises."""
        return build_model(self.name, self.in_channels, self.num_outputs, **self.options)

    def without_encoder_weights(self) -> "ModelSpec":
        """Returns the same network, started from random weights.

        A network whose weights are about to be read from a file has no use for pretrained
        ones, and building it must not download them.
        """
        options = {name: value for name, value in self.options.items() if name != "encoder_weights"}
        # Anything but true and false would name a file, which is left for others to refuse.
        if self.name.startswith(TIMM_PREFIX) and isinstance(options.get("pretrained"), bool):
            del options["pretrained"]
        return replace(self, options=options)

    def over(self, stored: "ModelSpec | None") -> "ModelSpec":
        """Returns what this one says, joined one by one with what a file says of its network.

        Channels, outputs and options that are left out are the file's. Another name is another
        network, of which the file says nothing.
        """
        if stored is None or stored.name != self.name:
            return self
        plain = ModelSpec()
        numbers = ("in_channels", "num_outputs")
        left_out = {n for n in numbers if getattr(self, n) == getattr(plain, n)}
        return replace(
            self,
            options={**stored.options, **self.options},
            **{name: getattr(stored, name) for name in left_out},
        )

    def to_json(self) -> str:
        """Returns one line of JSON with sorted keys: equal specs give equal text."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "ModelSpec":
        """Reads what ``to_json`` wrote.

        Raises:
            ConfigurationError: the text is not JSON, is nested deeper than options are, or a
                field is unknown or of another type.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigurationError(f"network description: not JSON ({error})") from None
        if not isinstance(values, dict):
            raise ConfigurationError(
                f"network description: found {type(values).__name__}, expected a mapping"
            )
        if is_nested_deeper(values, _MOST_NESTED):
            raise ConfigurationError(
                f"network description: nested more than {_MOST_NESTED} deep, expected options"
            )
        _check_fields(values)
        return cls(**values)


@dataclass(frozen=True)
class PreprocessingConfig(Limited, group="preprocessing"):
    """What a network wants to see: pixels in [0, 1], then (x - mean) / std.

    Each setting that is left out is that of the weights file, or, where that says nothing or there
    is none, what is usual: the dataset's size, mean 0 and deviation 1; for a classifier of three
    channels that nakt_dist did not write what timm has for its weights, or ImageNet's.

    Attributes:
        height: rows.
        width: columns.
        mean: subtracted; a number for every channel, or a list with one per input channel of
            the network, such as ``IMAGENET_MEAN``.
        std: divides; likewise.
    """

    height: int | None = field(default=None, metadata=_SIDE)
    width: int | None = field(default=None, metadata=_SIDE)
    mean: float | list[float] | None = field(default=None, metadata=_CHANNELS)
    std: float | list[float] | None = field(default=None, metadata=_CHANNELS)

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            value = getattr(self, name)
            if isinstance(value, tuple):  # so that it equals its copy in a file
                value = list(value)
                object.__setattr__(self, name, value)
            expected = "a number, or a list with one number per channel"
            limits.require(value != [], f"preprocessing.{name}", expected)
        super().__post_init__()
        deviations = self.std if isinstance(self.std, list) else [self.std]
        positive = all(each is None or each > 0 for each in deviations)
        limits.require(positive, "preprocessing.std", "positive")


def is_nested_deeper(value: Any, levels: int) -> bool:
    """Says whether what was read from JSON has more levels of lists and mappings than these."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return levels == 0 or any(is_nested_deeper(each, levels - 1) for each in value)


def _check_fields(values: dict[str, Any]) -> None:
    expected = {"name": str, "in_channels": int, "num_outputs": int, "options": dict}
    known = [each.name for each in fields(ModelSpec)]
    for name, value in values.items():
        if name not in known:
            raise ConfigurationError(
                f"network description: unknown field '{name}'{nearest_name(name, known)} "
                f"(known: {', '.join(known)}); a newer version of nakt_dist may have written it"
            )
        if not isinstance(value, expected[name]) or isinstance(value, bool):
            raise ConfigurationError(
                f"network description: field '{name}' is {value!r}, "
                f"expected {expected[name].__name__}"
            )
