"""Attention transfer: a student's activation maps are drawn towards its teacher's (paper B)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.signals.signal import Seen, Signal, TapConfig, show, show_taps

if TYPE_CHECKING:
    from torch import Tensor

_PRESETS = {"paper": "the paper's taps", "authors_code": "the authors' taps"}
_WORDS = {
    "reduction": {
        "eq2": "equation 2",
        "batch_frobenius": "norm over the batch",
        "zagoruyko": "mean of squares",
    },
    "weight_mode": {"divide": "weight 1/β", "multiply": "weight β"},
    "matching": {"adaptive_pool": "maps pooled", "interpolate": "maps interpolated"},
}


@dataclass(frozen=True)
class AttentionTransferConfig(Signal, group="attention"):
    """Attention transfer (paper B, equations 1 and 2).

    Attributes:
        preset: taps by name: ``paper`` (one layer before the last of the last dense block) or
            ``authors_code`` (the last layer's second convolution). None with ``taps``.
        taps: pairs of layers instead of a preset; their losses are averaged.
        reduction: ``eq2`` (per plane, in [0, 2]), ``batch_frobenius`` (one norm over the whole
            batch, what the authors' code computes) or ``zagoruyko`` (mean of squares over
            channels, the original attention transfer).
        weight_mode: ``divide`` (loss + attention / beta, the paper's text and code) or
            ``multiply`` (loss + beta * attention, as equation 1 is printed).
        beta: the paper tries 1 to 2000 on the validation set.
        matching: how a teacher's map is brought to the student's height and width.
    """

    preset: Literal["paper", "authors_code"] | None = None
    taps: list[TapConfig] | None = None
    reduction: Literal["eq2", "batch_frobenius", "zagoruyko"] = "eq2"
    weight_mode: Literal["divide", "multiply"] = "divide"
    beta: float = field(default=1.0, metadata=limits.FACTOR)
    matching: Literal["adaptive_pool", "interpolate"] = "adaptive_pool"

    title = "Attention transfer"
    column = 2
    colours = ("#0072B2", "#56B4E9")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.preset is None) == (not self.taps):
            raise ConfigurationError(
                f"attention.preset is {self.preset} and attention.taps {self.taps}; set exactly "
                "one, such as preset: paper"
            )

    def layers(self, of_preset: Callable[[str], TapConfig]) -> Sequence[TapConfig]:
        """Returns the layers named, or the preset's."""
        return self.taps or [of_preset(str(self.preset))]

    def loss(self, seen: Seen) -> tuple["Tensor", "Tensor"]:
        """Returns the mean distance of the maps, and it weighed by β."""
        import torch

        from nakt_dist.transfer.attention import attention_loss, weighted

        each = [
            attention_loss(student, teacher, self.reduction, self.matching)
            for student, teacher in seen.maps
        ]
        loss = torch.stack(each).mean()
        if self.reduction == "batch_frobenius":
            # It grows with the square root of the images it sees: as of the whole step, of which
            # the parts' mean is a little less than the norm, unless all are equally far apart.
            loss = loss * (seen.images_per_step / len(seen.student)) ** 0.5
        return loss, weighted(loss, self.beta, self.weight_mode)

    @classmethod
    def describe_settings(cls, settings: Mapping[str, Any]) -> dict[str, str]:
        """Returns words for each setting; a preset and taps are one of them."""
        described = super().describe_settings(settings)
        for name, value in settings.items():
            if name in ("preset", "taps"):
                described[name] = _describe_taps(settings)
            elif name == "beta":
                described[name] = f"β {show(value)}"
            elif name in _WORDS:
                described[name] = _WORDS[name].get(value, show(value))
        return described


def _describe_taps(settings: Mapping[str, Any]) -> str:
    """Names the layers that are compared: a preset's, or the student's as the user chose them."""
    preset = settings.get("preset")
    if preset is not None:
        return _PRESETS.get(str(preset), f"taps {show(preset)}")
    return f"taps {show_taps(settings.get('taps'))}"
