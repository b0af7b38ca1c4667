"""Names the ways students are trained, in the words that tables and figures share."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nakt_dist.records.fields import printable
from nakt_dist.records.lineage import Method
from nakt_dist.report.telling import tell_apart

_TAPS = {"paper": "the paper's taps", "authors_code": "the authors' taps"}
_REDUCTIONS = {
    "eq2": "equation 2", "batch_frobenius": "norm over the batch", "zagoruyko": "mean of squares",
}  # fmt: skip
_WEIGHT_MODES = {"divide": "weight 1/β", "multiply": "weight β"}
_MATCHINGS = {"adaptive_pool": "maps pooled", "interpolate": "maps interpolated"}
_MOST_TAPS = 2


def name_methods(methods: Sequence[Method]) -> dict[Method, str]:
    """Names methods in a few words; parts and settings only where they tell some apart.

    Args:
        methods: that share a table or a figure.

    Returns:
        A name for each, no two alike.
    """
    several_parts = len({method.parts for method in methods}) > 1
    settings = tell_apart(
        methods,
        lambda method: (method.kind, method.parts, method.teacher),
        lambda method: describe_settings(json.loads(method.settings)),
    )
    named: dict[Method, str] = {}
    for method in methods:
        told = settings[method]
        parts = [
            method.kind.value,
            *_telling_teacher(method, methods),
            *_telling_parts(method, several_parts),
            *([told] if told else []),
        ]
        name = ", ".join(parts)
        again = sum(other == name or other.startswith(f"{name} (") for other in named.values())
        named[method] = f"{name} ({again + 1})" if again and name in named.values() else name
    return named


def describe_settings(settings: Mapping[str, Any]) -> dict[str, str]:
    """Returns words for each setting of a transfer.

    Args:
        settings: flat, such as ``{"attention.beta": 1.0}``.
    """
    words = {}
    for key, value in settings.items():
        part, name = key.split(".", 1)
        match part, name:
            case "attention", "preset" | "taps":
                words["taps"] = _describe_taps(settings)
            case "attention", "beta":
                words[key] = f"β {_show(value)}"
            case "attention", "reduction":
                words[key] = _REDUCTIONS.get(value, _show(value))
            case "attention", "weight_mode":
                words[key] = _WEIGHT_MODES.get(value, _show(value))
            case "attention", "matching":
                words[key] = _MATCHINGS.get(value, _show(value))
            case _:
                spoken = "its weight" if name == "weight" else name.replace("_", " ")
                words[key] = f"{spoken} {_show(value)}"
    return {key: printable(word) for key, word in words.items()}


def _describe_taps(settings: Mapping[str, Any]) -> str:
    """Names the layers that are compared: a preset's, or the student's as the user chose them."""
    preset, taps = settings.get("attention.preset"), settings.get("attention.taps")
    if preset is not None or not isinstance(taps, list):
        return _TAPS.get(preset, f"taps {_show(preset)}")
    layers = [str(tap.get("student")) for tap in taps[:_MOST_TAPS] if isinstance(tap, Mapping)]
    more = len(taps) - len(layers)
    return f"taps {' and '.join(layers)}{f' and {more} more' if more else ''}"


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)[:60]


def _telling_teacher(method: Method, methods: Sequence[Method]) -> list[str]:
    teacher = method.teacher
    if teacher is None:
        return []
    others = {each.teacher for each in methods} - {None}
    alike = [each for each in others if each.label == teacher.label]
    digits = f" {teacher.weights_sha256[:6]}" if len(alike) > 1 else ""
    return [f"teacher {teacher.label}{digits}"]


def _telling_parts(method: Method, several: bool) -> list[str]:
    if method.parts != "all layers":
        return [method.parts]
    return [method.parts] if several and method.teacher is None else []
