"""Settings of what a student takes from a frozen teacher while it trains."""

from dataclasses import dataclass
from typing import Literal

from nakt_dist.config.plain import require_paths, require_positive
from nakt_dist.config.teaching import PreprocessingConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.models.spec import ModelSpec


@dataclass(frozen=True)
class TapConfig:
    """One pair of layers whose activation maps are matched.

    Attributes:
        student: module path in the student, such as ``features.denseblock4.denselayer15``.
        teacher: module path in the teacher.
    """

    student: str
    teacher: str


@dataclass(frozen=True)
class AttentionTransferConfig:
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
    beta: float = 1.0
    matching: Literal["adaptive_pool", "interpolate"] = "adaptive_pool"

    def __post_init__(self) -> None:
        require_positive(self.beta, "attention.beta")
        if (self.preset is None) == (not self.taps):
            raise ConfigurationError(
                f"attention.preset is {self.preset} and attention.taps {self.taps}; set exactly "
                "one, such as preset: paper"
            )


@dataclass(frozen=True)
class DistillationConfig:
    """Logit distillation for outputs that do not exclude each other.

    Attributes:
        temperature: divides both networks' logits.
        weight: factor of this loss beside the others.
    """

    temperature: float = 2.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("temperature", "weight"):
            require_positive(getattr(self, name), f"distillation.{name}")


@dataclass(frozen=True)
class TrainingTeacherConfig:
    """The frozen network that a student follows while it trains.

    Attributes:
        weights: weights file, or output folder of a training run.
        name: what to call it; by default the file's folder.
        model: its architecture; None when the weights file names it, as ours do.
        preprocessing: its input, as far as it is not that of the weights file.
        labels: its outputs' names in order, or a label set such as ``chestxray14``, when the
            weights file does not say; for distillation.
        attention: match activation maps; None does not.
        distillation: match logits; None does not.
    """

    weights: str
    name: str | None = None
    model: ModelSpec | None = None
    preprocessing: PreprocessingConfig | None = None
    labels: str | list[str] | None = None
    attention: AttentionTransferConfig | None = None
    distillation: DistillationConfig | None = None

    def __post_init__(self) -> None:
        require_paths(self, "weights", prefix="teacher.")
        if self.attention is None and self.distillation is None:
            raise ConfigurationError(
                "teacher is set, but neither teacher.attention nor teacher.distillation; set "
                "what the student takes from it, such as attention: {preset: paper}"
            )
