"""What a tracker beside ``metrics.jsonl`` is given, and what it gives."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class TrackedRun(NamedTuple):
    """What a tracker beside ``metrics.jsonl`` may know of a run.

    Attributes:
        config: its settings, to be shown.
        wandb_mode: ``off``, ``offline`` or ``online``.
        project: W&B project.
        entity: W&B team or user; None takes that of the account.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    wandb_mode: str
    project: str
    entity: str | None = None


class Mirror(Protocol):
    """A run in a tracker beside ``metrics.jsonl``, as W&B's has it."""

    def log(self, data: dict[str, float], *, step: int) -> None:
        """Takes numbers; never an image or an identifier (promise 6)."""

    def finish(self) -> None:
        """Ends the run."""


def one_line(error: Exception) -> str:
    """Returns a tracker's error message as one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(" For further information visit")[0].rstrip(".")
