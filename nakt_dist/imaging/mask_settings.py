"""Settings that say which values of binary masks are target."""

import math
import re
from dataclasses import dataclass, field
from typing import Literal

from nakt_dist.errors import ConfigurationError, nearest_name

_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True)
class MaskValues:
    """Which values of binary masks are target; by default the whole dataset's masks tell.

    Attributes:
        target: the values of the target, such as ``[1, 2]``: numbers of a grey mask, indices of
            a palette, or colours such as ``"#ff0000"``; ``nonzero`` for every value but 0;
            None to judge by the values that all masks of the dataset hold.
        void: values that are neither target nor background, such as a border of 255, beside
            ``target`` or ``threshold``; they are counted and packed as background.
        threshold: the target begins at this value, for soft masks; instead of ``target``.
        orientation: what turns a mask: its ``own`` EXIF orientation, or that of its ``image``
            where the mask says none, for masks drawn on the picture as stored.
    """

    target: list[int | str] | Literal["nonzero"] | None = None
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
        for name, values in (("target", named), ("void", self.void)):
            for value in values:
                if isinstance(value, str) and not _COLOUR.fullmatch(value):
                    raise ConfigurationError(
                        f"mask_values.{name} holds '{value}', expected whole numbers or colours "
                        "such as '#ff0000'"
                    )
        both = set(map(_code, named)) & set(map(_code, self.void))
        if both:
            raise ConfigurationError(
                f"mask_values.target and mask_values.void both hold {sorted(both, key=str)[0]}"
            )
        if self.threshold is not None and self.target is not None:
            raise ConfigurationError(
                "mask_values.threshold and mask_values.target are both set; one says what is target"
            )
        if self.void and self.target is None and self.threshold is None:
            raise ConfigurationError(
                "mask_values.void is set without mask_values.target; name both, or target nonzero"
            )
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ConfigurationError(
                f"mask_values.threshold is {self.threshold}, expected a number"
            )

    @property
    def named(self) -> bool:
        """Whether the settings say what is target, so that nothing is judged."""
        return self.target is not None or self.threshold is not None

    @property
    def needs_colours(self) -> bool:
        """Whether values are named by colour, so that no hue may be taken for grey."""
        target = self.target if isinstance(self.target, list) else []
        return any(isinstance(value, str) for value in (*target, *self.void))


def _code(value: int | float | str) -> int | float | str:
    return value.lower() if isinstance(value, str) else value
