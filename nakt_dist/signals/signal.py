"""What a student may take from a frozen teacher while it trains: the form of one signal."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from nakt_dist.limits import Limited

if TYPE_CHECKING:
    from torch import Tensor


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
        maps: activations of student and teacher, (N, C, h, w), for each pair of layers.
        images_per_step: images of the whole optimiser step, over all processes and parts.
    """

    student: "Tensor"
    teacher: "Tensor | None"
    maps: Sequence[tuple["Tensor", "Tensor"]]
    images_per_step: int


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

    def layers(self, of_preset: Callable[[str], TapConfig]) -> Sequence[TapConfig]:
        """Returns the pairs of layers whose activations are wanted.

        Args:
            of_preset: gives the pair of a preset for the two networks at hand.
        """
        return ()

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
        return {name: f"{spoken[name]} {show(value)}" for name, value in settings.items()}


def show(value: Any) -> str:
    """Writes the value of a setting."""
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)[:60]
