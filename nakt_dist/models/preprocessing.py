"""What a network sees: what the settings say, else what its file says, else what is usual.

Settings and file are joined one by one, here and nowhere else: a size that is given leaves the
mean and the deviation of the file as they are.
"""

import json
import math
import operator
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.limits import LARGEST_INPUT_SIDE
from nakt_dist.models.registry import is_classifier
from nakt_dist.models.spec import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ModelSpec,
    PreprocessingConfig,
    is_nested_deeper,
)
from nakt_dist.models.weights import LoadedWeights

_MOST_NESTED = 200  # a lineage holds those of its teachers
_SIDES = ("height", "width")
_STATISTICS = ("mean", "std")


@dataclass(frozen=True)
class ImageForm:
    """The form in which a packed dataset has its images.

    Attributes:
        fit: how they were brought to it, such as ``pad``; None where nobody says.
    """

    height: int
    width: int
    fit: str | None = None

    def __str__(self) -> str:
        return f"{self.height} × {self.width} pixels" + (f", {self.fit}" if self.fit else "")


@dataclass(frozen=True)
class NetworkInput:
    """What a network sees, and how that is known.

    Attributes:
        preprocessing: in full: mean and deviation are numbers, and a height or width of None is
            that of the dataset.
        assumed: the settings that neither the configuration nor the file states.
        stored: what the file says; checked where the settings say nothing.
        asked: what the settings say.
        source: whose the mean and deviation are that were assumed, in words; empty if nobody's.
    """

    preprocessing: PreprocessingConfig
    assumed: tuple[str, ...] = ()
    stored: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def describe(self, name: str, lineage: Mapping[str, Any], form: ImageForm) -> list[str]:
        """Says what is worth knowing before a network sees images of a form, a sentence each.

        What the settings replace, what was assumed, and how the images differ from those that it
        learnt from; nothing of what agrees or is not known.
        """
        trained_on = lineage.get("trained_on")
        learnt = trained_on if isinstance(trained_on, Mapping) else {}
        sentences = (
            _describe_replaced(name, self),
            _describe_assumed(name, self, form),
            _describe_other_size(name, learnt, self, form),
            _describe_other_fit(name, learnt, form),
        )
        return [each for each in sentences if each]


def resolve_preprocessing(
    given: PreprocessingConfig | None,
    loaded: LoadedWeights | None,
    spec: ModelSpec,
    library: Mapping[str, Any] | None = None,
) -> NetworkInput:
    """Joins what the settings say with what a weights file says, one by one.

    What neither says is usual: the dataset's size, and pixels in [0, 1]; for a classifier of
    three channels that comes from elsewhere what its library says of it, and for one of which that
    says nothing, or that starts from nothing, ImageNet's mean and deviation (paper B).

    Args:
        given: the settings; those that are None are not given.
        loaded: the file; None for a network that starts from nothing, of which nothing is assumed.
        library: what images the library knows the network to be used to, by setting.

    Raises:
        CheckpointError: what the file says, and is not overridden, cannot be read.
    """
    asked = {} if given is None else {k: v for k, v in asdict(given).items() if v is not None}
    stored = {} if loaded is None else _stored_besides(loaded, spec.in_channels, asked)
    known = {**stored, **asked}
    usual: dict[str, Any] = {"mean": 0.0, "std": 1.0}
    ours = loaded is not None and loaded.spec is not None
    library, source = ({} if ours or library is None else library), ""
    usual |= {side: library[side] for side in _SIDES if side in library}
    # Mean and deviation belong together: where one is known, another's would not fit it.
    if not ours and not known.keys() & set(_STATISTICS):
        if library.keys() >= set(_STATISTICS):
            usual |= {name: library[name] for name in _STATISTICS}
            source = f"as timm has it for {spec.name.partition(':')[2]}"
        elif _sees_imagenet(spec):
            usual |= {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}
    assumed = () if loaded is None else tuple(n for n in (*_STATISTICS, *_SIDES) if n not in known)
    return NetworkInput(PreprocessingConfig(**{**usual, **known}), assumed, stored, asked, source)


def value_range(preprocessing: PreprocessingConfig) -> tuple[float, float]:
    """Returns the least and largest value that a network sees, given its mean and deviation."""
    pairs = list(zip(*_spread(preprocessing.mean, preprocessing.std), strict=False))
    return min((0 - m) / s for m, s in pairs), max((1 - m) / s for m, s in pairs)


def _spread(*values: Any) -> list[list[Any]]:
    """Returns means or deviations as lists of one length; one number stands for all channels."""
    lists = [each if isinstance(each, list) else [each] for each in values]
    channels = max(map(len, lists))
    return [each * channels if len(each) == 1 else each for each in lists]


def _sees_imagenet(spec: ModelSpec) -> bool:
    return is_classifier(spec.name) and spec.in_channels == len(IMAGENET_MEAN)


def _describe_replaced(name: str, seen: NetworkInput) -> str:
    taken = {each: getattr(seen.preprocessing, each) for each in _STATISTICS if each in seen.stored}
    parts = [
        f"preprocessing.{setting}: the file says {_spell(seen.stored[setting])}, taken "
        f"{_spell(value)}, as set"
        for setting, value in taken.items()
        if operator.ne(*_spread(seen.stored[setting], value))
    ]
    return f"{name}: {'; '.join(parts)}" if parts else ""


def _describe_assumed(name: str, seen: NetworkInput, form: ImageForm) -> str:
    """Says what a network gets whose file does not say what its images looked like."""
    if not seen.assumed:
        return ""
    found = seen.preprocessing
    mean, std = found.mean, found.std
    lowest, highest = value_range(found)
    told = ["ImageNet's"] * (mean == list(IMAGENET_MEAN)) + [seen.source] * bool(seen.source)
    whose = f" ({', '.join(told)})" if told else ""
    *others, last = seen.assumed
    assumed = f"{', '.join(others)} and {last}" if others else last
    return (
        f"{name}: its file does not say what its images looked like. It sees them at "
        f"{found.height or form.height} × {found.width or form.width} pixels with values from "
        f"{lowest:.4g} to {highest:.4g}: pixels in [0, 1] less the mean {_spell(mean)}, divided by "
        f"the deviation {_spell(std)}{whose}. Assumed: {assumed}; set them in "
        "preprocessing to what it learnt from"
    )


def _describe_other_size(
    name: str, learnt: Mapping[str, Any], seen: NetworkInput, form: ImageForm
) -> str:
    found = seen.preprocessing
    stored = {side: size for side, size in seen.stored.items() if _is_side(size)}
    before = tuple(stored.get(side) or learnt.get(side) for side in _SIDES)
    now = (found.height or form.height, found.width or form.width)
    if None in before or before == now:
        return ""
    given = " and ".join(
        side for side, size in seen.asked.items() if side in _SIDES and size != stored.get(side)
    )
    why = f", as preprocessing.{given} {'say' if ' ' in given else 'says'}"
    advice = "; its preprocessing.height and width bring images to a size"
    return (
        f"{name} learnt from images of {before[0]} × {before[1]} pixels and sees "
        f"{now[0]} × {now[1]} here{why if given else advice}"
    )


def _describe_other_fit(name: str, learnt: Mapping[str, Any], form: ImageForm) -> str:
    fit = learnt.get("fit")
    if not isinstance(fit, str) or form.fit in (None, fit):
        return ""
    return (
        f"{name} learnt from images brought to their size by {fit} and sees them brought to "
        f"it by {form.fit} here; pack the dataset with image.fit {fit} to show them alike"
    )


def _spell(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_spell, value))}]"[:80]
    return f"{value:g}" if _is_finite(value) else f"{value!r:.40}"


def stored_object(metadata: Mapping[str, str], field: str, path: Path) -> dict[str, Any]:
    """Reads a JSON object from a weights file's metadata; empty where there is none.

    Raises:
        CheckpointError: it is there and cannot be read.
    """
    try:
        value = json.loads(metadata.get(field, "{}"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its {field} cannot be read: {error}") from None
    if not isinstance(value, dict) or is_nested_deeper(value, _MOST_NESTED):
        found = "nested too deeply" if isinstance(value, dict) else f"a JSON {type(value).__name__}"
        raise CheckpointError(
            f"{path}: its {field} is {found}, expected an object; copy the "
            "file again from its origin"
        )
    return value


def _stored_besides(
    loaded: LoadedWeights, channels: int, asked: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns what a file says of its network's input; nothing where all else is asked for."""
    try:
        return _stored_preprocessing(loaded, channels, asked)
    except CheckpointError:
        if set(asked) == {*_SIDES, *_STATISTICS}:
            return {}
        raise


def _stored_preprocessing(
    loaded: LoadedWeights, channels: int, asked: Mapping[str, Any]
) -> dict[str, Any]:
    path = loaded.path
    values = stored_object(loaded.metadata, "preprocessing", path)
    for name in values.keys() - asked.keys():
        side = name in _SIDES
        value = values[name]
        if not (_is_side(value) if side else _is_per_channel(value, channels)):
            expected = (
                f"null or a whole number from 1 to {LARGEST_INPUT_SIDE}"
                if side
                else f"a finite number, or a list with {channels}, one per input channel"
            )
            raise CheckpointError(
                f"{path}: its preprocessing.{name} is {str(value)[:40]}, expected {expected}. "
                "Give the input in the configuration as preprocessing: {height: …, width: …, "
                "mean: …, std: …}"
            )
    try:
        PreprocessingConfig(**{**values, **asked})
    except (TypeError, ConfigurationError) as error:
        raise CheckpointError(f"{path}: its preprocessing cannot be read: {error}") from None
    return values


def _is_side(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value is None or (whole and 1 <= value <= LARGEST_INPUT_SIDE)


def _is_per_channel(value: Any, channels: int) -> bool:
    if not isinstance(value, list):
        return _is_finite(value)
    return len(value) == channels and all(map(_is_finite, value))


def _is_finite(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False
