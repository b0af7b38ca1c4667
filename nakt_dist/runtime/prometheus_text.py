"""Metrics in the text format that Prometheus and the node exporter's textfile collector read.

https://prometheus.io/docs/instrumenting/exposition_formats/ says what it looks like.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Family:
    """A metric with all its series.

    Attributes:
        name: with its unit at the end, such as ``nakt_rank_data_wait_seconds_total``.
        kind: what ``TYPE`` says; of a ``summary`` the series are added with ``suffix``.
        help: one sentence without its full stop.
        samples: ending of the name, labels and value of each series.
    """

    name: str
    kind: Literal["counter", "gauge", "summary"]
    help: str
    samples: list[tuple[str, Mapping[str, str], float]] = field(default_factory=list)

    def add(self, value: float | None, labels: Mapping[str, str], suffix: str = "") -> None:
        """Adds a series; none where the value is not known."""
        if value is not None:
            self.samples.append((suffix, labels, float(value)))


def render(families: Iterable[Family]) -> bytes:
    """Writes families that have a series, each once, in the text format."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for suffix, labels, value in family.samples:
            inside = ",".join(f'{name}="{_quoted(text)}"' for name, text in labels.items())
            braces = f"{{{inside}}}" if inside else ""
            lines.append(f"{family.name}{suffix}{braces} {_number(value)}")
    return "".join(f"{line}\n" for line in lines).encode()


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(text: str) -> str:
    # What is no Unicode, such as half of a surrogate pair in a folder's name, is no label.
    text = text.encode(errors="replace").decode()
    return _escaped(text).replace('"', '\\"')


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
