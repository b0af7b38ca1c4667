"""What a target of mirroring is, and what it is given of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nakt_dist.mirroring.describing import config_of, summary_of_run, tags_of
from nakt_dist.mirroring.glance import StudyGlance
from nakt_dist.mirroring.runs import FoundRun
from nakt_dist.mirroring.sent import Sent
from nakt_dist.runtime.mirrors import TrackedRun


@dataclass(frozen=True)
class Place:
    """Where runs are mirrored to.

    Attributes:
        mode: of W&B, ``offline`` or ``online``.
        entity: W&B's team or user.
        group: instead of the study's name.
        tags: of each run, besides its own.
    """

    output: Path
    mode: str
    project: str
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()

    def tracked(self, run: FoundRun, folder: Path) -> TrackedRun:
        """Returns what a tracker is told of a run when it begins."""
        tracking = run.settings.get("tracking")
        own = tracking.get("group") if isinstance(tracking, dict) else None
        own = own if isinstance(own, str) else None
        return TrackedRun(
            folder=folder,
            name=run.name,
            config=config_of(run),
            wandb_mode=self.mode,
            project=self.project,
            entity=self.entity,
            group=self.group or (run.study.plan.name if run.study else own),
            stage=run.stage,
            tags=tags_of(run, [*_own_tags(tracking), *self.tags]),
        )

    def tracked_study(self, study: StudyGlance, folder: Path) -> TrackedRun:
        """Returns what a tracker is told of the run that stands for a study."""
        return TrackedRun(
            folder=folder,
            name=f"study {study.plan.name}",
            config={"runs": len(study.plan.runs), "axes": study.axes},
            wandb_mode=self.mode,
            project=self.project,
            entity=self.entity,
            group=self.group or study.plan.name,
            stage="study",
            tags=self.tags,
        )


class Target(Protocol):
    """Something that shows runs."""

    def send(self, run: FoundRun, sent: Sent) -> Sent:
        """Sends what is new of a run.

        Args:
            sent: what it has already; of a run it has never met, nothing but an id.

        Returns:
            What it has now; the signature is the caller's.

        Raises:
            NaktError: it cannot be reached, or the run's files are damaged.
        """

    def send_study(self, study: StudyGlance, sent: Sent) -> Sent:
        """Shows how the runs of a study stand; arguments and errors are as for ``send``."""

    def close(self) -> str:
        """Ends everything, and says how to look at what was sent."""


def _own_tags(tracking: object) -> list[str]:
    tags = tracking.get("tags") if isinstance(tracking, dict) else None
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def flat(config: object, prefix: str = "") -> dict[str, str | int | float | bool]:
    """Returns nested settings as one level, ``recipe.learning_rate``; lists as words."""
    if isinstance(config, dict):
        items = [flat(value, f"{prefix}.{name}".lstrip(".")) for name, value in config.items()]
        return {name: value for found in items for name, value in found.items()}
    if config is None:
        return {}
    return {prefix: config if isinstance(config, str | int | float | bool) else str(config)}


def results(run: FoundRun) -> dict[str, float]:
    """Returns the results that are numbers, as floats."""
    return {name: float(value) for name, value in summary_of_run(run).items()
            if isinstance(value, int | float)}  # fmt: skip
