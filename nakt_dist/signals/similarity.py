"""Similarity preservation: images that look alike to a teacher shall look alike to its student."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.signals.signal import SOME_TAPS, Seen, Signal, TapConfig

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class SimilarityConfig(Signal, group="similarity"):
    """Similarity-preserving distillation (arXiv 1907.09682).

    Attributes:
        taps: pairs of layers, of any shapes; their losses are averaged.
        weight: factor of this loss beside the others; the paper's γ.
    """

    taps: list[TapConfig] = field(metadata=SOME_TAPS)
    weight: float = field(default=3000.0, metadata=limits.FACTOR)

    title = "Similarity preservation"
    column = 6
    colours = ("#999933",)

    def layers(self, of_preset: Callable[[str], TapConfig]) -> Sequence[TapConfig]:
        """Returns the layers named; there is no preset."""
        return self.taps

    def loss(self, seen: Seen) -> tuple["Tensor", "Tensor"]:
        """Returns the mean squared difference of similarities, and it times ``weight``."""
        import torch

        loss = torch.stack([similarity_loss(*pair) for pair in seen.maps]).mean()
        return loss, self.weight * loss


def similarity_loss(student: "Tensor", teacher: "Tensor") -> "Tensor":
    """Mean of (G - H)² over pairs of images, where G and H say how alike each network finds them.

    G = Q Qᵀ of the activations Q, one row for an image, each row of G divided by its L2 norm.

    Args:
        student: (N, …), at least two images.
        teacher: (N, …), of any other shape; no gradient flows into it.

    Returns:
        A scalar, float32 whatever the autocast (float64 for float64 input).

    Raises:
        ConfigurationError: there is one image, which is like itself to any network.
    """
    import torch
    from torch.nn import functional

    if len(student) < 2:
        raise ConfigurationError(
            "similarity compares the images of a micro-batch with each other, and there is one; "
            "set recipe.micro_batch_size and recipe.global_batch_size so that each process has "
            "two or more at a time"
        )

    def similarities(activations: torch.Tensor) -> torch.Tensor:
        rows = activations.to(torch.promote_types(activations.dtype, torch.float32)).flatten(1)
        return functional.normalize(rows @ rows.T, dim=1)

    with torch.autocast(student.device.type, enabled=False):
        return functional.mse_loss(similarities(student), similarities(teacher.detach()))
