"""Logit distillation for outputs that do not exclude each other (findings, pixels of a mask)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.signals.signal import Seen, Signal

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_VARIANCE = 1e-7


@dataclass(frozen=True)
class DistillationConfig(Signal, group="distillation"):
    """Logit distillation for outputs that do not exclude each other.

    Attributes:
        temperature: divides both networks' logits.
        weight: factor of this loss beside the others.
        standardise: first bring the logits of each image, over its outputs, to mean 0 and standard
            deviation 1 (logit standardisation, arXiv 2403.01427).
    """

    temperature: float = field(default=2.0, metadata=limits.FACTOR)
    weight: float = field(default=1.0, metadata=limits.FACTOR)
    standardise: bool = False

    title = "Distillation"
    column = 1
    colours = ("#009E73",)
    matches_outputs = True

    def loss(self, seen: Seen) -> tuple["Tensor", "Tensor"]:
        """Returns the divergence of the logits, and it times ``weight``."""
        assert seen.teacher is not None  # as it matches outputs
        student, teacher = seen.student, seen.teacher
        if self.standardise:
            student, teacher = standardised(student), standardised(teacher)
        loss = distillation_loss(student, teacher, self.temperature)
        return loss, self.weight * loss

    @classmethod
    def describe_settings(cls, settings: Mapping[str, Any]) -> dict[str, str]:
        """Returns words for each setting."""
        described = super().describe_settings(settings)
        if "standardise" in settings:
            how = "standardised" if settings["standardise"] else "as they are"
            described["standardise"] = f"logits {how}"
        return described


def standardised(logits: "Tensor") -> "Tensor":
    """Brings the logits of each image, or pixel, to mean 0 and standard deviation 1.

    Args:
        logits: (N, K) or (N, K, H, W), K at least 2.

    Returns:
        Of the same shape; all 0 where the logits are all alike. float32 whatever the autocast
        (float64 for float64 input).

    Raises:
        ConfigurationError: there is one output.
    """
    import torch

    if logits.shape[1] < 2:
        raise ConfigurationError(
            "distillation.standardise compares the outputs of an image, and teacher and student "
            "have one in common; set it to false"
        )
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    variance, mean = torch.var_mean(logits, dim=1, correction=0, keepdim=True)
    return (logits - mean) * (variance + _LEAST_VARIANCE).rsqrt()


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
