"""What the transforms of a MONAI bundle make of an image before its network sees it."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nakt_dist.errors import CheckpointError
from nakt_dist.models.published.described import AS_PACKED, LEVELS

_WITHOUT_EFFECT = {"EnsureChannelFirst", "EnsureType", "ToTensor", "CastToType", "AddChannel"}


@dataclass
class Preparation:
    """What is done to an image.

    Attributes:
        options: of the network, see ``monai_networks``.
        preprocessing: height, width, mean and std, as far as they are said.
        others: transforms that are not known here, by name.
    """

    options: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def read_transforms(value: Any, path: Path) -> Preparation:
    """Reads the transforms of ``Compose``, or a list of them.

    Raises:
        CheckpointError: one that is known has arguments that are not.
    """
    found = value.get("transforms") if isinstance(value, dict) else value
    seen = Preparation(preprocessing={**AS_PACKED, "mean": 0.0, "std": 1 / LEVELS})
    for each in found if isinstance(found, list) else []:
        target = str(each.get("_target_", each) if isinstance(each, dict) else each)
        name = target.rpartition(".")[2].removesuffix("d")
        if name in _WITHOUT_EFFECT or is_disabled(each):
            continue
        if name not in _KNOWN or not isinstance(each, dict):
            seen.others.append(target[:40])
            continue
        try:
            _KNOWN[name](each, seen)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: {name} in its preprocessing cannot be read: {str(error)[:120]}; expected "
                "plain values"
            ) from None
    return seen


def is_disabled(component: Any) -> bool:
    """Says whether MONAI leaves a component out of a list, as ``_disabled_`` asks."""
    asked = component.get("_disabled_", False) if isinstance(component, dict) else False
    return str(asked).strip().lower() == "true"


def _load(given: dict[str, Any], seen: Preparation) -> None:
    seen.options["transposed"] = given.get("reverse_indexing", True) is not False


def _scale(given: dict[str, Any], seen: Preparation) -> None:
    _only(given, {"minv": 0, "maxv": 1, "factor": None})
    _by_image("min_max", given, seen)


def _normalise(given: dict[str, Any], seen: Preparation) -> None:
    if "subtrahend" in given or "divisor" in given:
        _only(given, {"nonzero": False})
        subtracted, divided = (_numbers(given.get(n)) for n in ("subtrahend", "divisor"))
        start, step = _alike_so_far(seen)
        seen.preprocessing["mean"] = _each(lambda m: start + step * m, subtracted)
        seen.preprocessing["std"] = _each(lambda s: step * s, divided)
        return
    nonzero = given.get("nonzero", False)
    _only(given, {"nonzero": nonzero})
    _by_image("z_score_nonzero" if nonzero is True else "z_score", given, seen)


def _scale_range(given: dict[str, Any], seen: Preparation) -> None:
    low, high = float(given["a_min"]), float(given["a_max"])
    to_low, to_high = (float(given.get(n, usual)) for n, usual in (("b_min", 0), ("b_max", 1)))
    start, step = _alike_so_far(seen)
    if given.get("clip") is True and (low > -start / step or high < (1 - start) / step):
        raise ValueError(f"it clips to {low:g} to {high:g}, which is not done here")
    std = step * (high - low) / (to_high - to_low)
    seen.preprocessing |= {"mean": start + step * low - to_low * std, "std": std}


def _alike_so_far(seen: Preparation) -> tuple[float, float]:
    """Returns the mean and deviation that were taken off all images alike."""
    if "input_normalisation" in seen.options:
        raise ValueError("it comes after a normalisation of each image by itself")
    mean, std = seen.preprocessing["mean"], seen.preprocessing["std"]
    if isinstance(mean, list) or isinstance(std, list):
        raise ValueError("it comes after another that is of each channel")
    return mean, std


def _resize(given: dict[str, Any], seen: Preparation) -> None:
    _only(given, {"size_mode": "all"})
    first, second = (int(side) for side in given["spatial_size"])
    turned = seen.options.get("transposed")
    height, width = (second, first) if turned else (first, second)
    seen.preprocessing |= {"height": height, "width": width}


def _by_image(kind: str, given: dict[str, Any], seen: Preparation) -> None:
    """Notes a normalisation by an image's own values, from which what was before has no effect."""
    by_channel = given.get("channel_wise", False) is True
    mean, std = seen.preprocessing["mean"], seen.preprocessing["std"]
    channels_differ = isinstance(mean, list) or isinstance(std, list)
    channels_differ |= seen.options.get("normalised_by_channel", False)
    moved = mean != 0 or "input_normalisation" in seen.options
    if (channels_differ and not by_channel) or (kind == "z_score_nonzero" and moved):
        raise ValueError("what comes before it changes its result")
    seen.options |= {"input_normalisation": kind, "normalised_by_channel": by_channel}
    seen.preprocessing |= {"mean": 0.0, "std": 1.0}


def _only(given: dict[str, Any], usual: dict[str, Any]) -> None:
    """Refuses arguments other than the usual ones."""
    for name, value in usual.items():
        if given.get(name, value) != value:
            raise ValueError(f"{name} is {given[name]!r}, which is not known here")


def _numbers(value: Any) -> float | list[float]:
    found = [float(each) for each in value] if isinstance(value, list) else float(value)
    if not all(map(math.isfinite, found if isinstance(found, list) else [found])):
        raise ValueError("it has no finite number")
    return found


def _each(change: Any, value: float | list[float]) -> float | list[float]:
    return [change(each) for each in value] if isinstance(value, list) else change(value)


_KNOWN = {
    "LoadImage": _load,
    "ScaleIntensity": _scale,
    "NormalizeIntensity": _normalise,
    "ScaleIntensityRange": _scale_range,
    "Resize": _resize,
}
