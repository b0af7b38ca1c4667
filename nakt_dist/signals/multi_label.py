"""Multi-label distillation: each finding a yes-or-no question with an embedding of its own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.signals.distillation import distillation_loss
from nakt_dist.signals.signal import Seen, Signal, TapConfig

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_MEAN = 1e-12
_WITHOUT_PRODUCTS = "donot_use_mm_for_euclid_dist"
"""Through products of embeddings, the distance of two that are nearly alike is rounding."""


@dataclass(frozen=True)
class MultiLabelConfig(Signal, group="multi_label"):
    """Multi-label knowledge distillation (L2D, arXiv 2308.06453); its weights are the authors'.

    Attributes:
        weight: factor of the divergence of logits, summed over findings (MLD).
        embeddings: the last linear layers of both networks, whose terms embed each finding of an
            image; None compares logits alone.
        class_aware_weight: factor of how the images with a finding lie to each other (LED).
        instance_aware_weight: factor of how the findings of an image lie to each other (LED).
    """

    weight: float = field(default=10.0, metadata=limits.FACTOR)
    embeddings: TapConfig | None = None
    class_aware_weight: float = field(default=100.0, metadata=limits.WEIGHT)
    instance_aware_weight: float = field(default=1000.0, metadata=limits.WEIGHT)

    title = "Multi-label distillation"
    column = 3
    colours = ("#44AA99",)
    matches_outputs = True
    takes_terms = True

    def layers(self, of_preset: Callable[[str], TapConfig]) -> Sequence[TapConfig]:
        """Returns the last layers, where embeddings are wanted."""
        return [] if self.embeddings is None else [self.embeddings]

    def loss(self, seen: Seen) -> tuple["Tensor", "Tensor"]:
        """Returns the weighted sum of all parts, twice: its weights are its own."""
        assert seen.teacher is not None  # as it matches outputs
        mean = distillation_loss(seen.student, seen.teacher, temperature=1.0)
        loss = self.weight * seen.student.shape[1] * mean
        for student, teacher in seen.maps:
            if seen.target is None or student.ndim != 3 or seen.target.shape != student.shape[:2]:
                raise ConfigurationError(
                    f"multi_label.embeddings: the student's layer gives terms of shape "
                    f"{tuple(student.shape)}, expected (images, findings, features) of a "
                    "classifier. Name the last linear layers, such as {student: classifier, "
                    "teacher: classifier}"
                )
            present = seen.target > 0.5
            class_aware = relation_loss(
                *(each.movedim(1, 0) for each in (student, teacher, present))
            )
            # A sum over images: as of the whole step, however that is divided.
            whole = seen.images_per_step / len(student)
            instance_aware = whole * relation_loss(student, teacher, present)
            loss = loss + self.class_aware_weight * class_aware
            loss = loss + self.instance_aware_weight * instance_aware
        return loss, loss

    @classmethod
    def describe_settings(cls, settings: Mapping[str, Any]) -> dict[str, str]:
        """Returns words for each setting."""
        described = super().describe_settings(settings)
        if "embeddings" in settings:
            alone = settings["embeddings"] is None
            described["embeddings"] = "logits alone" if alone else "with label embeddings"
        return described


def relation_loss(student: "Tensor", teacher: "Tensor", present: "Tensor") -> "Tensor":
    """Compares how embeddings lie to each other in student and teacher, within each group.

    Distances between the embeddings of a group are divided by their mean; the Huber loss of
    student's and teacher's is summed over ordered pairs, divided by the number of embeddings, and
    summed over groups.

    Args:
        student: (A, B, D), B embeddings in each of A groups.
        teacher: (A, B, d); no gradient flows into it.
        present: bool (A, B): which embeddings count. A group of fewer than two gives 0.

    Returns:
        A scalar, float32 whatever the autocast (float64 for float64 input).
    """
    import torch
    from torch.nn import functional

    others = ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    pairs = present[:, :, None] & present[:, None, :] & others

    def relations(embeddings: torch.Tensor) -> torch.Tensor:
        exact = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        distances = torch.where(pairs, torch.cdist(exact, exact, compute_mode=_WITHOUT_PRODUCTS), 0)
        mean = distances.sum((1, 2), keepdim=True) / pairs.sum((1, 2), keepdim=True).clamp(min=1)
        return distances / mean.clamp(min=_LEAST_MEAN)

    with torch.autocast(student.device.type, enabled=False):
        each = functional.smooth_l1_loss(
            relations(student), relations(teacher.detach()), reduction="none"
        )
        return (each.sum((1, 2)) / present.sum(1).clamp(min=1)).sum()
