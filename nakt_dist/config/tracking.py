"""Settings of where metrics go."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited

_REFUSED_IN_NAMES = "/\\#?%:"
_LONGEST_NAME = 128


@dataclass(frozen=True)
class TrackingConfig(Limited, group="tracking"):
    """Where metrics go besides ``metrics.jsonl``; never images, never identifiers.

    Attributes:
        wandb: ``off``, ``offline`` (files only, needs no account) or ``online``.
        project: W&B project, without the team.
        entity: W&B team or user; None takes that of ``WANDB_ENTITY``, or of the account.
        every_steps: steps between logged training losses.
    """

    wandb: Literal["off", "offline", "online"] = "off"
    project: str = "nakt_dist"
    entity: str | None = None
    every_steps: int = field(default=1, metadata=limits.POSITIVE)

    def __post_init__(self) -> None:
        super().__post_init__()
        team, slash, project = self.project.partition("/")
        if slash and self.entity is None and not (_fault(team) or _fault(project)):
            raise ConfigurationError(
                f"tracking.project is {self.project!r}, and no / may be in the name of a W&B "
                f"project; set tracking.entity to {team} and tracking.project to {project}"
            )
        for name, value in (("project", self.project), ("entity", self.entity)):
            if value is not None and (fault := _fault(value)):
                raise ConfigurationError(
                    f"tracking.{name} is {value[:60]!r}, {fault}; W&B takes names of 1 to "
                    f"{_LONGEST_NAME} characters without {' '.join(_REFUSED_IN_NAMES)}"
                )


def _fault(name: str) -> str | None:
    """Says what W&B does not take in the name of a project or a team; None where it takes it."""
    refused = [character for character in _REFUSED_IN_NAMES if character in name]
    if refused:
        return f"with {' and '.join(refused)} in it"
    if not name.strip():
        return "which is empty"
    if name != name.strip() or not name.isprintable():
        return "with blanks around it or control characters in it"
    if len(name) > _LONGEST_NAME:
        return f"of {len(name)} characters"
    return None
