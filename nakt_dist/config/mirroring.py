"""Settings of ``mirror``."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist import limits
from nakt_dist.config.training import check_names
from nakt_dist.limits import Limited


@dataclass(frozen=True)
class MirrorConfig(Limited):
    """``nakt mirror RUNS… --to wandb``: shows runs that are on disk in a tracker.

    Settings, curves, results and tables per finding go there, and fingerprints of datasets and
    weights; never images, never identifiers. What is sent already is not sent again.

    Attributes:
        runs: folders that hold runs, at any depth.
        to: ``wandb``, ``tensorboard`` or ``trackio``.
        wandb: ``offline`` writes folders that ``wandb sync`` uploads from another machine;
            ``online`` sends to the server.
        project: of W&B or trackio.
        entity: W&B team or user; None takes that of ``WANDB_ENTITY``, or of the account.
        group: of the runs; None takes the name of their study, or what they say themselves.
        tags: of each run, besides its own.
        workspace: save a view of each study in W&B's workspace, once; online only.
        output: folder for the files of the tracker, and for what was sent; None takes
            ``.mirror`` in the first of ``runs``.
    """

    runs: list[str] = field(metadata=limits.limit("at least one folder", len))
    to: Literal["wandb", "tensorboard", "trackio"] = "wandb"
    wandb: Literal["offline", "online"] = "offline"
    project: str = "nakt_dist"
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    workspace: bool = False
    output: str | None = field(default=None, metadata=limits.PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names("", self.project, self.entity, self.group, self.tags)
        if self.workspace:
            online = self.to == "wandb" and self.wandb == "online"
            limits.require(online, "workspace", "false unless to is wandb and wandb is online")
