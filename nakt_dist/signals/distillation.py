"""Logit distillation for outputs that do not exclude each other (findings, pixels of a mask)."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.signals.signal import Seen, Signal

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class DistillationConfig(Signal, group="distillation"):
    """Logit distillation for outputs that do not exclude each other.

    Attributes:
        temperature: divides both networks' logits.
        weight: factor of this loss beside the others.
    """

    temperature: float = field(default=2.0, metadata=limits.FACTOR)
    weight: float = field(default=1.0, metadata=limits.FACTOR)

    title = "Distillation"
    column = 1
    colours = ("#009E73",)
    matches_outputs = True

    def loss(self, seen: Seen) -> tuple["Tensor", "Tensor"]:
        """Returns the divergence of the logits, and it times ``weight``."""
        assert seen.teacher is not None  # as it matches outputs
        loss = distillation_loss(seen.student, seen.teacher, self.temperature)
        return loss, self.weight * loss


def distillation_loss(
    student_logits: "Tensor", teacher_logits: "Tensor", temperature: float = 2.0
) -> "Tensor":
    """T² times the divergence of the student's softened probabilities from the teacher's.

    Each output is a yes-or-no question of its own, so Hinton's softmax becomes a sigmoid: with
    p = σ(s / T) and q = σ(t / T), the Kullback-Leibler divergence of Bernoulli(p) from
    Bernoulli(q), that is their binary cross-entropy minus the teacher's entropy, so that 0 means
    equal. T² keeps the gradient's size when T changes.

    Args:
        student_logits: any shape, such as (N, K) or (N, K, H, W).
        teacher_logits: of the same shape; no gradient flows into it.
        temperature: T, above 0.

    Returns:
        A scalar averaged over all elements, 0 or more but for rounding; float32 whatever the
        autocast (float64 for float64 input).

    Raises:
        ConfigurationError: the shapes differ.
    """
    import torch
    from torch.nn import functional

    if student_logits.shape != teacher_logits.shape:
        raise ConfigurationError(
            f"distillation: the student gives outputs of shape {tuple(student_logits.shape)} and "
            f"the teacher {tuple(teacher_logits.shape)}; they must agree. Choose the outputs "
            "that both have"
        )
    kind = torch.promote_types(student_logits.dtype, torch.float32)
    with torch.autocast(student_logits.device.type, enabled=False):
        student = student_logits.to(kind) / temperature
        teacher = teacher_logits.detach().to(kind) / temperature
        probability = teacher.sigmoid()
        cross_entropy = functional.binary_cross_entropy_with_logits(
            student, probability, reduction="none"
        )
        entropy = functional.binary_cross_entropy_with_logits(
            teacher, probability, reduction="none"
        )
        return temperature**2 * (cross_entropy - entropy).mean()
