"""Teachers, alone or together: from images to the mean of their outputs (algorithm 1)."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.transfer.classes import ONE_TARGET
from nakt_dist.transfer.combining import Combination, median, staple
from nakt_dist.transfer.views import Flip, logits_of_views


@dataclass(frozen=True)
class Teacher:
    """One frozen network of an ensemble.

    Attributes:
        trained: on its device; gives logits (N, 1, h, w), of several classes and the background
            (N, K, h, w), or of a classifier (N, K).
        weight: w in Σ w T(x) / Σ w.
        output: ``soft`` probabilities, or ``binary``: probability above 0.5, of several classes 1
            for the most probable.
        findings: what the K outputs of a classifier mean, in order; None for masks.
        flips: by which it sees an image besides, see ``logits_of_views``.
        scales: likewise.
        masks: the classes of the masks that it gives, the background first.
        classes: which of them each of several outputs means, in order; empty for one output.
    """

    trained: TrainedNetwork
    weight: float
    output: Literal["soft", "binary"]
    findings: tuple[str, ...] | None = None
    flips: tuple[Flip, ...] = ()
    scales: tuple[float, ...] = ()
    masks: tuple[str, ...] = ONE_TARGET
    classes: tuple[str, ...] = ()

    @property
    def provenance(self) -> dict[str, Any]:
        """What a manifest says about it."""
        names = ("findings", "flips", "scales", "classes")
        more = {name: getattr(self, name) for name in names}
        original = self.trained.exported_from
        return {
            "name": self.trained.name,
            "weights_sha256": self.trained.weights_sha256,
            **({"exported_from": original} if original else {}),
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
            Of each view float32 (N, P, H, W): the probability of each class but the background at
            the image's own size, or of a classifier (N, K); 0 and 1 for a binary teacher.
        """
        with torch.autocast(image.device.type, autocast, enabled=autocast is not None):
            for logits in logits_of_views(self.trained, image, self.flips, self.scales):
                if self.classes:
                    yield self._planes(logits)
                    continue
                probability = logits.sigmoid()
                yield above_half(probability) if self.output == "binary" else probability

    def _planes(self, logits: torch.Tensor) -> torch.Tensor:
        probability = in_places(logits.softmax(1), list(map(self.masks.index, self.classes)))
        if self.output == "binary":
            chosen = probability.argmax(1, keepdim=True)
            votes = torch.zeros_like(probability).scatter_(1, chosen, 1)
            probability = torch.where(probability.isnan(), probability, votes)
        return probability[:, 1:]

    @property
    def views(self) -> int:
        """How many times it sees an image."""
        return 2 ** len(self.flips) * (1 + len(self.scales))


def in_places(values: torch.Tensor, places: Sequence[int]) -> torch.Tensor:
    """Sums planes that belong to the same class.

    Args:
        values: float (N, K, H, W).
        places: of each plane its class, numbers from 0 on without a gap.

    Returns:
        float (N, C, H, W), C the number of classes.
    """
    if list(places) == list(range(values.shape[1])):
        return values
    own = [
        [number for number, place in enumerate(places) if place == each]
        for each in range(max(places) + 1)
    ]
    return torch.stack([values[:, numbers].sum(1) for numbers in own], dim=1)


def above_half(probability: torch.Tensor) -> torch.Tensor:
    """Returns 1 above 0.5 and 0 elsewhere; what is no number stays, and does not become a vote."""
    return torch.where(probability.isnan(), probability, (probability > 0.5).float())


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
        combination: other than the mean, of all views of all teachers alike. Medians of several
            classes that add up to more than 1 are divided by their sum.

    Returns:
        The mean y = Σ w T(x) / Σ w, float32 (N, P, H, W) with a plane for each class but the
        background, or what else is asked for, and the disagreement, float32 (N,): the weighted
        standard deviation between teachers, and between the views that one has of an image,
        averaged over pixels and planes; 0 for one teacher with one view.
    """
    total = sum(teacher.weight for teacher in teachers)
    mean = image.new_zeros(len(image), len(teachers[0].masks) - 1, *image.shape[-2:])
    mean_of_squares = torch.zeros_like(mean)
    outputs = []
    for teacher in teachers:
        weight = teacher.weight / total / teacher.views
        for output in teacher.probabilities(image, autocast):
            mean += output * weight
            mean_of_squares += output.square() * weight
            if combination != "mean":
                outputs.append(output)
    if sum(teacher.views for teacher in teachers) == 1:
        return mean, mean.new_zeros(len(mean))
    variance = (mean_of_squares - mean.square()).clamp(min=0)
    if combination == "staple":  # of one target, see ``check_combination``
        mean = staple(torch.stack(outputs)[:, :, 0])[:, None]
    elif outputs:
        mean = median(torch.stack(outputs))
        mean = mean / mean.sum(1, keepdim=True).clamp(min=1)
    return mean, variance.sqrt().flatten(1).mean(1)


def joined_classes(teachers: Sequence[Teacher]) -> tuple[str, ...]:
    """Returns the classes of the masks that all teachers give; empty where they have one target."""
    several = teachers[0].findings is None and len(teachers[0].masks) > len(ONE_TARGET)
    return teachers[0].masks if several else ()


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
