"""DIST: a student's outputs shall correlate with its teacher's, over findings and over images."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.signals.signal import Seen, Signal

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_NORM = 1e-6
"""Probabilities whose deviations from their mean have no larger L2 norm count as constant."""


@dataclass(frozen=True)
class DistConfig(Signal, group="dist"):
    """DIST (arXiv 2205.10536) of outputs that do not exclude each other.

    Attributes:
        inter_weight: factor of 1 - r over the findings of an image, averaged over images; 0 takes
            none. The paper's β.
        intra_weight: factor of 1 - r over the images of a process's micro-batch, averaged over
            findings; 0 takes none. The paper's γ.
        temperature: divides both networks' logits.
    """

    inter_weight: float = field(default=1.0, metadata=limits.WEIGHT)
    intra_weight: float = field(default=1.0, metadata=limits.WEIGHT)
    temperature: float = field(default=1.0, metadata=limits.FACTOR)

    title = "DIST"
    column = 4
    colours = ("#332288",)
    matches_outputs = True

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            self.inter_weight or self.intra_weight,
            "dist.inter_weight and dist.intra_weight",
            f"from 0 to {limits.LARGEST_FACTOR:g}, and not both 0",
        )

    def loss(self, seen: Seen) -> tuple["Tensor", "Tensor"]:
        """Returns the weighted sum of both, twice: its weights are its own."""
        assert seen.teacher is not None  # as it matches outputs
        loss = dist_loss(
            seen.student, seen.teacher, self.inter_weight, self.intra_weight, self.temperature
        )
        return loss, loss


def dist_loss(
    student_logits: "Tensor",
    teacher_logits: "Tensor",
    inter_weight: float = 1.0,
    intra_weight: float = 1.0,
    temperature: float = 1.0,
) -> "Tensor":
    """T² times a weighted sum of mean 1 - r, r being Pearson's correlation of probabilities.

    Outputs are yes-or-no questions, and σ(z / T) takes the place of softmax. Where one side is
    constant, r is 0, and so is its gradient.

    Args:
        student_logits: (N, K), or (N, K, H, W) where every pixel counts as an image.
        teacher_logits: of the same shape; no gradient flows into it.
        inter_weight: of r over the K outputs of an image, averaged over images.
        intra_weight: of r over the images, averaged over outputs.

    Returns:
        A scalar in [0, 2 T² (inter_weight + intra_weight)], but for rounding; float32 whatever
        the autocast (float64 for float64 input).

    Raises:
        ConfigurationError: there is one output, or one image, to correlate over.
    """
    import torch

    kind = torch.promote_types(student_logits.dtype, torch.float32)
    with torch.autocast(student_logits.device.type, enabled=False):
        student, teacher = (
            (logits.to(kind) / temperature).sigmoid().movedim(1, -1).flatten(0, -2)
            for logits in (student_logits, teacher_logits.detach())
        )
        _check_enough(len(student), student.shape[1], inter_weight, intra_weight)
        loss = student.new_zeros(())
        if inter_weight:
            loss = loss + inter_weight * (1 - _correlation(student, teacher).mean())
        if intra_weight:
            loss = loss + intra_weight * (1 - _correlation(student.T, teacher.T).mean())
        return temperature**2 * loss


def _correlation(first: "Tensor", second: "Tensor") -> "Tensor":
    """Pearson's r of each pair of rows, (A, B) to (A,)."""
    import torch

    first, second = (each - each.mean(1, keepdim=True) for each in (first, second))
    norms = first.norm(dim=1), second.norm(dim=1)
    counts = (norms[0] > _LEAST_NORM) & (norms[1] > _LEAST_NORM)
    # An epsilon beside the norms would give gradients of 1e6 where one of them is 0.
    product = torch.where(counts, norms[0] * norms[1], 1)
    return torch.where(counts, (first * second).sum(1) / product, 0)


def _check_enough(images: int, outputs: int, inter_weight: float, intra_weight: float) -> None:
    if inter_weight and outputs < 2:
        raise ConfigurationError(
            "dist correlates over the outputs of an image, and teacher and student have one in "
            "common; set dist.inter_weight to 0"
        )
    if intra_weight and images < 2:
        raise ConfigurationError(
            "dist correlates over the images of a micro-batch, and there is one; set "
            "recipe.micro_batch_size and recipe.global_batch_size so that each process has two "
            "or more at a time, or dist.intra_weight to 0"
        )
