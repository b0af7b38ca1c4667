"""What a tracker beside ``metrics.jsonl`` is given, and what it gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

Ending = Literal["done", "failed", "interrupted"]
"""How a run ended: interrupted ones are queued again and go on."""


class TrackedRun(NamedTuple):
    """What a tracker beside ``metrics.jsonl`` may know of a run.

    Attributes:
        config: its settings, to be shown.
        wandb_mode: ``off``, ``offline`` or ``online``.
        entity: W&B team or user; None takes that of the account.
        group: the study it belongs to, if any.
        tags: by which it is found.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    wandb_mode: str
    project: str
    entity: str | None = None
    group: str | None = None
    stage: str = "train"
    tags: tuple[str, ...] = ()


class Mirror(Protocol):
    """A run in a tracker beside ``metrics.jsonl``, as W&B's has it."""

    def log(self, data: Mapping[str, float], *, step: int) -> None:
        """Takes numbers; never an image or an identifier (promise 6)."""

    def alert(self, title: str, text: str) -> None:
        """Tells people of something, if it can; never of an image or an identifier."""

    def finish(self, ending: Ending) -> None:
        """Ends the run."""


def summary_of(metric: str) -> str | None:
    """Says which value of a curve counts: ``max``, ``min``, or None for the last."""
    if metric.endswith(("loss", "cross_entropy")):
        return "min"
    return "max" if metric.startswith(("validation_", "best_")) else None


def without_folders(value: Any) -> Any:
    """Reduces absolute paths to their last part: a folder may name a patient or a user."""
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    if isinstance(value, str) and "/" in value:
        return value.rstrip("/").rsplit("/", 1)[-1]
    return value


def one_line(error: Exception) -> str:
    """Returns a tracker's error message as one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(" For further information visit")[0].rstrip(".")
