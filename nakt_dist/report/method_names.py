"""Names the ways students are trained, in the words that tables and figures share."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from nakt_dist.records.fields import printable
from nakt_dist.records.lineage import Method
from nakt_dist.report.telling import tell_apart
from nakt_dist.signals import SIGNALS


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
    words: dict[str, str] = {}
    for signal, kind in SIGNALS.items():
        start = f"{signal}."
        own = {key.removeprefix(start): v for key, v in settings.items() if key.startswith(start)}
        words |= {f"{start}{name}": word for name, word in kind.words(own).items()}
    return {key: printable(word) for key, word in words.items()}


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
