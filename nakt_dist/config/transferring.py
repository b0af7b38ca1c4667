"""Settings of the teacher that a student follows while it trains."""

from dataclasses import dataclass

from nakt_dist.config.teaching import TrainedNetworkConfig
from nakt_dist.signals import Signals


@dataclass(frozen=True)
class TrainingTeacherConfig(Signals, TrainedNetworkConfig, group="teacher"):
    """The frozen network that a student follows while it trains, and what it takes from it.

    Attributes:
        labels: its outputs' names in order, or a label set such as ``chestxray14``, when the
            weights file does not say; for signals that match outputs, such as distillation.
    """

    labels: str | list[str] | None = None

    def __post_init__(self) -> None:
        TrainedNetworkConfig.__post_init__(self)
        Signals.__post_init__(self)
