"""Hints: a student's activations are drawn to its teacher's, value by value (FitNets)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.signals.signal import SOME_TAPS, Seen, Signal, Size, TapConfig

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class HintsConfig(Signal, group="hints"):
    """Hints of FitNets (arXiv 1412.6550, equation 3), given while all layers learn.

    Attributes:
        taps: pairs of layers; their losses are averaged.
        weight: factor of this loss beside the others.
    """

    taps: list[TapConfig] = field(metadata=SOME_TAPS)
    weight: float = field(default=1.0, metadata=limits.FACTOR)

    title = "Hints"
    column = 5
    colours = ("#882255",)
    adapts = True

    def layers(self, of_preset: Callable[[str], TapConfig]) -> Sequence[TapConfig]:
        """Returns the layers named; there is no preset."""
        return self.taps

    def adapter(self, student: Size, teacher: Size) -> "nn.Module | None":
        """Returns a 1 × 1 convolution to the teacher's planes, where their numbers differ.

        Raises:
            ConfigurationError: a layer does not give planes.
        """
        for whose, size in (("student", student), ("teacher", teacher)):
            if len(size) != 3:
                raise ConfigurationError(
                    f"hints.taps: the {whose}'s layer gives activations of shape {size} for an "
                    "image; expected (planes, height, width). Tap a layer before the global pooling"
                )
        if student[0] == teacher[0]:
            return None
        from torch import nn

        return nn.Conv2d(student[0], teacher[0], 1)

    def loss(self, seen: Seen) -> tuple["Tensor", "Tensor"]:
        """Returns the mean squared difference, and it times ``weight``."""
        import torch

        loss = torch.stack([hint_loss(*pair) for pair in seen.maps]).mean()
        return loss, self.weight * loss


def hint_loss(student: "Tensor", teacher: "Tensor") -> "Tensor":
    """Mean of (s - t)² over images, planes and pixels.

    Args:
        student: (N, C, H, W).
        teacher: (N, C, h, w), averaged over cells where it is larger; no gradient flows into it.

    Returns:
        A scalar, float32 whatever the autocast (float64 for float64 input).
    """
    import torch
    from torch.nn import functional

    from nakt_dist.transfer.attention import match_size

    kind = torch.promote_types(student.dtype, torch.float32)
    with torch.autocast(student.device.type, enabled=False):
        teacher = match_size(teacher.detach().to(kind), student.shape[-2:])
        return functional.mse_loss(student.to(kind), teacher)
