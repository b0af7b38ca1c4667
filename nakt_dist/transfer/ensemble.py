"""Teachers, alone or together: from images to the mean of their outputs (algorithm 1)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from nakt_dist.models.network_file import TrainedNetwork


@dataclass(frozen=True)
class Teacher:
    """One frozen network of an ensemble.

    Attributes:
        trained: on its device; gives logits (N, 1, h, w).
        weight: w in Σ w T(x) / Σ w.
        output: ``soft`` probabilities, or ``binary``: probability above 0.5.
    """

    trained: TrainedNetwork
    weight: float
    output: Literal["soft", "binary"]

    @property
    def provenance(self) -> dict[str, Any]:
        """What a manifest says about it."""
        return {
            "name": self.trained.name,
            "weights_sha256": self.trained.weights_sha256,
            "architecture": asdict(self.trained.spec),
            "preprocessing": asdict(self.trained.preprocessing),
            "weight": self.weight,
            "output": self.output,
        }

    def probability(self, image: torch.Tensor, autocast: torch.dtype | None = None) -> torch.Tensor:
        """Runs the teacher on a batch.

        Args:
            image: float32 (N, C, H, W) in [0, 1], C 1 or 3.
            autocast: type of the forward pass; None for float32.

        Returns:
            float32 (N, 1, H, W): the probability at the image's own size, or 0 and 1 for a
            binary teacher.
        """
        with torch.autocast(image.device.type, autocast, enabled=autocast is not None):
            logits = self.trained.logits(image)
        probability = logits.sigmoid()
        return (probability > 0.5).float() if self.output == "binary" else probability


@torch.inference_mode()
def ensemble_probability(
    teachers: Sequence[Teacher], image: torch.Tensor, autocast: torch.dtype | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages teachers in float32 and measures how far apart they are.

    Args:
        teachers: at least one.
        image: float32 (N, C, H, W) in [0, 1].
        autocast: type of the forward passes.

    Returns:
        The mean y = Σ w T(x) / Σ w, float32 (N, H, W), and the disagreement, float32 (N,):
        the weighted standard deviation between teachers, averaged over pixels; 0 for one.
    """
    total = sum(teacher.weight for teacher in teachers)
    mean = torch.zeros_like(image[:, 0])
    mean_of_squares = torch.zeros_like(mean)
    for teacher in teachers:
        output = teacher.probability(image, autocast)[:, 0]
        mean += output * (teacher.weight / total)
        mean_of_squares += output.square() * (teacher.weight / total)
    if len(teachers) == 1:
        return mean, mean.new_zeros(len(mean))
    variance = (mean_of_squares - mean.square()).clamp(min=0)
    return mean, variance.sqrt().flatten(1).mean(1)
