"""What a student may take from a frozen teacher while it trains: the form of one signal."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nakt_dist.limits import Limited, limit

if TYPE_CHECKING:
    from torch import Tensor, nn

Size = tuple[int, ...]
"""Of one image's activations: (C, h, w) of planes."""

SOME_TAPS = limit(
    "a list with at least one pair of layers, such as [{{student: layer3, teacher: layer3}}]", len
)
_MOST_TAPS = 2


@dataclass(frozen=True)
class TapConfig:
    """One pair of layers whose activation maps are matched.

    Attributes:
        student: module path in the student, such as ``features.denseblock4.denselayer15``.
        teacher: module path in the teacher.
    """

    student: str
    teacher: str


@dataclass(frozen=True)
class Seen:
    """What student and teacher gave for the same images.

    Attributes:
        student: the student's logits, float32 (N, K) or (N, 1, H, W); of a signal that matches
            outputs only those that both networks have.
        teacher: the teacher's, of the same shape; None where no signal matches outputs.
        maps: activations of student and teacher, (N, C, h, w), for each pair of layers; the
            student's as its ``adapter`` gives them. Where it ``takes_terms``, (N, K, C).
        images_per_step: images of the whole optimiser step, over all processes and parts.
        target: what the student's own labels say of its outputs here, not a number where nothing.
    """

    student: "Tensor"
    teacher: "Tensor | None"
    maps: Sequence[tuple["Tensor", "Tensor"]]
    images_per_step: int
    target: "Tensor | None" = None


@dataclass(frozen=True)
class Signal(Limited, ABC):
    """The settings of one signal, a frozen dataclass, and all that is to be known of it.

    Settings stand under ``teacher.NAME``, where the name is that of the list in
    ``nakt_dist.signals``. These modules import torch only where a loss is computed: settings and
    reports do without it.
    """

    title: ClassVar[str]
    """What a student's method is called in tables and figures."""
    column: ClassVar[int]
    """Its place among the methods; of several signals, the sum is made in this order."""
    colours: ClassVar[tuple[str, ...]]
    """Of its methods in figures; as many as are told apart by colour."""
    matches_outputs: ClassVar[bool] = False
    """Whether the teacher's outputs are wanted, and not only its layers."""
    takes_terms: ClassVar[bool] = False
    """Whether its layers are linear ones, of whose outputs it wants the terms they are sums of,
    (N, K, C), for the outputs that both networks have."""
    adapts: ClassVar[bool] = False
    """Whether ``adapter`` may return one; both networks then see an empty image beforehand."""

    def layers(self, of_preset: Callable[[str], TapConfig]) -> Sequence[TapConfig]:
        """Returns the pairs of layers whose activations are wanted.

        Args:
            of_preset: gives the pair of a preset for the two networks at hand.
        """
        return ()

    def adapter(self, student: Size, teacher: Size) -> "nn.Module | None":
        """Returns what a student's activations of one pair of layers go through, or None.

        It learns with the student: its parameters are the training run's, in its optimiser and
        its checkpoints, alike on all processes; no weights file holds them.

        Args:
            student: size of its layer's activations of one image.
            teacher: of its teacher's.
        """
        return None

    @abstractmethod
    def loss(self, seen: Seen) -> tuple["Tensor", "Tensor"]:
        """Returns the loss as it is logged, a scalar, and what is added to the total."""

    @classmethod
    def describe_settings(cls, settings: Mapping[str, Any]) -> dict[str, str]:
        """Returns words for each setting, by which a report tells methods apart.

        Args:
            settings: as a lineage holds them; those of another version may be among them.
        """
        spoken = {name: name.replace("_", " ") for name in settings} | {"weight": "its weight"}
        shown = {name: show(value) for name, value in settings.items()}
        if "taps" in settings:
            shown["taps"] = show_taps(settings["taps"])
        return {name: f"{spoken[name]} {value}" for name, value in shown.items()}


def show(value: Any) -> str:
    """Writes the value of a setting."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)[:60]


def show_taps(taps: Any) -> str:
    """Names the student's layers of pairs."""
    if not isinstance(taps, list):
        return show(taps)
    layers = [str(tap.get("student")) for tap in taps[:_MOST_TAPS] if isinstance(tap, Mapping)]
    more = len(taps) - len(layers)
    return f"{' and '.join(layers)}{f' and {more} more' if more else ''}"
