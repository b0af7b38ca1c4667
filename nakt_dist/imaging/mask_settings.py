"""Settings that say what the values of masks mean."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nakt_dist.errors import ConfigurationError, nearest_name

_MOST_CLASSES = 253  # of the indices 0 to 254, besides the background
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class MaskValues:
    """What the values of masks mean; by default the masks of a whole dataset tell what is target.

    Attributes:
        target: the values of the target, such as ``[1, 2]``: numbers of a grey mask, indices of
            a palette, or colours such as ``"#ff0000"``; ``nonzero`` for every value but 0;
            None to judge by the values that all masks of the dataset hold.
        classes: instead, the names of several classes, each with its values as for ``target``, such
            as ``{liver: [1], tumour: [2, 3]}``; masks are packed as indices in this order. What no
            value is named for is background, index 0, which may be named, too.
        void: values that are neither target nor background, such as a border of 255, beside
            ``target`` or ``threshold``; they are counted and packed as background. Beside
            ``classes`` they are packed as void, which counts neither in training nor in Dice.
        threshold: the target begins at this value, for soft masks; instead of ``target``.
        orientation: what turns a mask: its ``own`` EXIF orientation, or that of its ``image``
            where the mask says none, for masks drawn on the picture as stored.
    """

    target: list[int | str] | Literal["nonzero"] | None = None
    classes: dict[str, list[int | str]] | None = None
    void: list[int | str] = field(default_factory=list)
    threshold: float | None = None
    orientation: Literal["own", "image"] = "own"

    def __post_init__(self) -> None:
        named = [] if self.target in (None, "nonzero") else self.target
        if self.target is not None and self.target != "nonzero" and not named:
            raise ConfigurationError(
                "mask_values.target is an empty list; name a value, or nonzero for all but 0"
            )
        if isinstance(named, str):
            raise ConfigurationError(
                f"mask_values.target is '{named}', expected a list such as [1, 2], or nonzero"
                f"{nearest_name(named, ['nonzero'])}"
            )
        by_name = {f"classes.{name}": values for name, values in (self.classes or {}).items()}
        self._check_classes()
        for name, values in (("target", named), ("void", self.void), *by_name.items()):
            for value in values:
                if isinstance(value, str) and not _COLOUR.fullmatch(value):
                    raise ConfigurationError(
                        f"mask_values.{name} holds '{value}', expected whole numbers or colours "
                        "such as '#ff0000'"
                    )
        _check_once({"target": named, "void": self.void, **by_name})
        if self.threshold is not None and self.target is not None:
            raise ConfigurationError(
                "mask_values.threshold and mask_values.target are both set; one says what is target"
            )
        if self.void and self.target is None and self.threshold is None and not self.classes:
            raise ConfigurationError(
                "mask_values.void is set without mask_values.target; name both, or target nonzero"
            )
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ConfigurationError(
                f"mask_values.threshold is {self.threshold}, expected a number"
            )

    def _check_classes(self) -> None:
        if self.classes is None:
            return
        if self.target is not None or self.threshold is not None:
            raise ConfigurationError(
                "mask_values.classes is set beside mask_values.target or threshold; one says what "
                "the values mean"
            )
        names = [name for name in self.classes if name != "background"]
        if not 0 < len(names) <= _MOST_CLASSES or not all(map(str.strip, names)):
            raise ConfigurationError(
                f"mask_values.classes names {len(names)} classes besides the background; expected "
                f"1 to {_MOST_CLASSES}, none of them without a name"
            )
        for name, values in self.classes.items():
            if not values:
                raise ConfigurationError(f"mask_values.classes.{name} is empty; name its values")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of their indices, the background first; empty without any."""
        return tuple(dict.fromkeys(["background", *self.classes])) if self.classes else ()

    @property
    def named(self) -> bool:
        """Whether the settings say what is target, so that nothing is judged."""
        return self.target is not None or self.threshold is not None

    @property
    def needs_colours(self) -> bool:
        """Whether values are named by colour, so that no hue may be taken for grey."""
        target = self.target if isinstance(self.target, list) else []
        classes = [value for values in (self.classes or {}).values() for value in values]
        return any(isinstance(value, str) for value in (*target, *classes, *self.void))


def _check_once(values_by_name: Mapping[str, Sequence[int | str]]) -> None:
    """Refuses a value that is named twice."""
    owners: dict[int | float | str, str] = {}
    for name, values in values_by_name.items():
        for value in {_code(each): each for each in values}:
            if value in owners:
                raise ConfigurationError(
                    f"mask_values.{owners[value]} and mask_values.{name} both hold {value}"
                )
            owners[value] = name


def _code(value: int | float | str) -> int | float | str:
    return value.lower() if isinstance(value, str) else value
