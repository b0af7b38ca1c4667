"""Signals: what a student may take from a frozen teacher while it trains."""

from dataclasses import dataclass, fields
from typing import get_args, get_type_hints

from nakt_dist.errors import ConfigurationError
from nakt_dist.signals.attention import AttentionTransferConfig
from nakt_dist.signals.dist import DistConfig
from nakt_dist.signals.distillation import DistillationConfig
from nakt_dist.signals.hints import HintsConfig
from nakt_dist.signals.multi_label import MultiLabelConfig
from nakt_dist.signals.signal import Seen, Signal, TapConfig
from nakt_dist.signals.similarity import SimilarityConfig


@dataclass(frozen=True, kw_only=True)
class Signals:
    """The list of all signals: each is a field, whose name is that of its settings.

    Attributes:
        attention: match activation maps; None does not.
        distillation: match logits; None does not.
        multi_label: match logits as the multi-label paper does; None does not.
        dist: match how outputs correlate; None does not.
        hints: match activations themselves; None does not.
        similarity: match how alike images look to the networks; None does not.
    """

    attention: AttentionTransferConfig | None = None
    distillation: DistillationConfig | None = None
    multi_label: MultiLabelConfig | None = None
    dist: DistConfig | None = None
    hints: HintsConfig | None = None
    similarity: SimilarityConfig | None = None

    def __post_init__(self) -> None:
        if not self.chosen():
            settings = ", ".join(f"teacher.{name}" for name in SIGNALS)
            raise ConfigurationError(
                f"teacher is set, but none of {settings}; set what the student takes from it, "
                "such as attention: {preset: paper}"
            )

    def chosen(self) -> dict[str, Signal]:
        """Returns the signals that are set, by name, in the order in which they are added up."""
        values = {name: getattr(self, name) for name in SIGNALS}
        taken = {name: signal for name, signal in values.items() if signal is not None}
        return dict(sorted(taken.items(), key=lambda item: item[1].column))


SIGNALS: dict[str, type[Signal]] = {
    field.name: get_args(get_type_hints(Signals)[field.name])[0] for field in fields(Signals)
}
"""The class of each signal by its name."""

__all__ = [
    "SIGNALS",
    "AttentionTransferConfig",
    "DistConfig",
    "DistillationConfig",
    "HintsConfig",
    "MultiLabelConfig",
    "Seen",
    "Signal",
    "Signals",
    "SimilarityConfig",
    "TapConfig",
]
