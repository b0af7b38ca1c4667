"""Settings of the teacher that a student follows while it trains."""

from dataclasses import dataclass

from nakt_dist.config.plain import require_paths
from nakt_dist.config.teaching import PreprocessingConfig
from nakt_dist.models.spec import ModelSpec
from nakt_dist.signals import Signals


@dataclass(frozen=True)
class TrainingTeacherConfig(Signals):
    """The frozen network that a student follows while it trains, and what it takes from it.

    Attributes:
        weights: weights file, or output folder of a training run.
        name: what to call it; by default the file's folder.
        model: its architecture; None when the weights file names it, as ours do.
        preprocessing: its input, as far as it is not that of the weights file.
        labels: its outputs' names in order, or a label set such as ``chestxray14``, when the
            weights file does not say; for signals that match outputs, such as distillation.
    """

    weights: str
    name: str | None = None
    model: ModelSpec | None = None
    preprocessing: PreprocessingConfig | None = None
    labels: str | list[str] | None = None

    def __post_init__(self) -> None:
        require_paths(self, "weights", prefix="teacher.")
        super().__post_init__()
