"""Teachers, alone or together: from images to the mean of their outputs (algorithm 1)."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.transfer.combining import Combination, median, staple
from nakt_dist.transfer.views import Flip, logits_of_views


@dataclass(frozen=True)
class Teacher:
    """One frozen network of an ensemble.

    Attributes:
        trained: on its device; gives logits (N, 1, h, w), or of a classifier (N, K).
        weight: w in Σ w T(x) / Σ w.
        output: ``soft`` probabilities, or ``binary``: probability above 0.5.
        findings: what the K outputs of a classifier mean, in order; None for masks.
        flips: by which it sees an image besides, see ``logits_of_views``.
        scales: likewise.
    """

    trained: TrainedNetwork
    weight: float
    output: Literal["soft", "binary"]
    findings: tuple[str, ...] | None = None
    flips: tuple[Flip, ...] = ()
    scales: tuple[float, ...] = ()

    @property
    def provenance(self) -> dict[str, Any]:
        """What a manifest says about it."""
        more = {"findings": self.findings, "flips": self.flips, "scales": self.scales}
        return {
            "name": self.trained.name,
            "weights_sha256": self.trained.weights_sha256,
            "architecture": asdict(self.trained.spec),
            "preprocessing": asdict(self.trained.preprocessing),
            "weight": self.weight,
            "output": self.output,
            **{name: list(each) for name, each in more.items() if each},
        }

    def probabilities(
        self, image: torch.Tensor, autocast: torch.dtype | None = None
    ) -> Iterator[torch.Tensor]:
        """Runs the teacher on a batch.

        Args:
            image: float32 (N, C, H, W) in [0, 1], C 1 or 3.
            autocast: type of the forward pass; None for float32.

        Yields:
            Of each view float32 (N, 1, H, W): the probability at the image's own size, or of a
            classifier (N, K); 0 and 1 for a binary teacher.
        """
        with torch.autocast(image.device.type, autocast, enabled=autocast is not None):
            for logits in logits_of_views(self.trained, image, self.flips, self.scales):
                probability = logits.sigmoid()
                yield (probability > 0.5).float() if self.output == "binary" else probability

    @property
    def views(self) -> int:
        """How many times it sees an image."""
        return 2 ** len(self.flips) * (1 + len(self.scales))


@torch.inference_mode()
def ensemble_probability(
    teachers: Sequence[Teacher],
    image: torch.Tensor,
    autocast: torch.dtype | None = None,
    combination: Combination = "mean",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages teachers in float32 and measures how far apart they are.

    Args:
        teachers: at least one.
        image: float32 (N, C, H, W) in [0, 1].
        autocast: type of the forward passes.
        combination: other than the mean, of all views of all teachers alike.

    Returns:
        The mean y = Σ w T(x) / Σ w, float32 (N, H, W), or what else is asked for, and the
        disagreement, float32 (N,): the weighted standard deviation between teachers, and between
        the views that one has of an image, averaged over pixels; 0 for one teacher with one view.
    """
    total = sum(teacher.weight for teacher in teachers)
    mean = torch.zeros_like(image[:, 0])
    mean_of_squares = torch.zeros_like(mean)
    outputs = []
    for teacher in teachers:
        weight = teacher.weight / total / teacher.views
        for probability in teacher.probabilities(image, autocast):
            output = probability[:, 0]
            mean += output * weight
            mean_of_squares += output.square() * weight
            if combination != "mean":
                outputs.append(output)
    if sum(teacher.views for teacher in teachers) == 1:
        return mean, mean.new_zeros(len(mean))
    variance = (mean_of_squares - mean.square()).clamp(min=0)
    if outputs:
        mean = {"median": median, "staple": staple}[combination](torch.stack(outputs))
    return mean, variance.sqrt().flatten(1).mean(1)


def joined_findings(teachers: Sequence[Teacher]) -> tuple[str, ...]:
    """Returns each finding that a teacher knows once, in the order in which teachers name them."""
    return tuple(dict.fromkeys(name for each in teachers for name in each.findings or ()))


@torch.inference_mode()
def ensemble_findings(
    teachers: Sequence[Teacher],
    image: torch.Tensor,
    autocast: torch.dtype | None = None,
    combination: Literal["mean", "median"] = "mean",
) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages classifiers finding by finding, each over those that know it.

    Paper A's mean (algorithm 1) for findings in place of pixels; that vocabularies may differ is
    ours.

    Args:
        teachers: classifiers, at least one.
        image: float32 (N, C, H, W) in [0, 1].
        autocast: type of the forward passes.
        combination: of all views of all teachers alike, where it is the median.

    Returns:
        The mean Σ w p / Σ w, or the median, and the disagreement, the weighted standard deviation,
        of the teachers that know a finding and of their views, each float32 (N, K) in the order
        of ``joined_findings``.
    """
    number = {name: column for column, name in enumerate(joined_findings(teachers))}
    total, views = image.new_zeros(2, len(number))
    mean, squares = image.new_zeros(2, len(image), len(number))
    outputs = []
    for teacher in teachers:
        columns = [number[name] for name in teacher.findings or ()]
        total[columns] += teacher.weight
        views[columns] += teacher.views
        weight = teacher.weight / teacher.views
        for output in teacher.probabilities(image, autocast):
            mean[:, columns] += weight * output
            squares[:, columns] += weight * output.square()
            if combination == "median":
                outputs.append(torch.full_like(mean, torch.nan))
                outputs[-1][:, columns] = output
    mean, squares = mean / total, squares / total
    spread = torch.where(views > 1, (squares - mean.square()).clamp(min=0).sqrt(), 0.0)
    return median(torch.stack(outputs)) if outputs else mean, spread
