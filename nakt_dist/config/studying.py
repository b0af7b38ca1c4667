"""Settings of ``study``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nakt_dist import limits
from nakt_dist.errors import ConfigurationError
from nakt_dist.limits import Limited


@dataclass(frozen=True)
class StudyConfig(Limited):
    """``nakt study FILE``: many runs as one graph, made from what they read and write.

    Attributes:
        steps: each ``{stage: NAME, config: {…}}``, in any order; repeated over the axes of
            ``rounds``, ``matrix``, ``zip`` and ``random``, less those of ``exclude``,
            ``${name}`` in its config standing for the value. ``{choose: NAME, of: STEP, over:
            [axes], by: metric}`` takes the best of runs by a validation metric.
        root: folder that replaces ``${root}`` in every setting.
        data: folder of published datasets; replaces ``${data}``.
        name: of the study, for dashboards and W&B's group; None for the last part of ``root``.
        definitions: values that replace ``${name}`` in every step.
        retries: how often a run that failed is tried again.
        jobs: runs at a time; each gets its share of the GPUs or, without any, of the cores.
        dry_run: print the graph, what is done, and how long the rest may take; run nothing.
        only: names of the runs to do, or one; None does all that are not done.
        with_needs: do also what the runs of ``only`` need and is not done. What another process
            does right now is waited for.
        task_file: a list of lists of names, as ``nakt submit study`` writes it.
        task: do the runs of this list of ``task_file``, counted from 1: a scheduler's array.
        records: more folders with records of like runs, to estimate hours from.
        export: write the study to this file as a sweep of W&B, and run nothing.
    """

    steps: list[dict[str, Any]] = field(metadata=limits.limit("a list with at least one step", len))
    root: str = field(default="runs/study", metadata=limits.PATH)
    data: str = field(default="data", metadata=limits.PATH)
    name: str | None = field(default=None, metadata=limits.limit("text", str.strip))
    definitions: dict[str, Any] = field(default_factory=dict)
    retries: int = field(default=1, metadata=limits.within(0, 100, "0 to 100"))
    jobs: int = field(default=1, metadata=limits.PROCESSES)
    dry_run: bool = False
    only: list[str] | str | None = field(
        default=None, metadata=limits.limit("a list with a name", len)
    )
    with_needs: bool = False
    task_file: str | None = field(default=None, metadata=limits.PATH)
    task: int | None = field(default=None, metadata=limits.POSITIVE)
    records: list[str] = field(default_factory=list)
    export: str | None = field(default=None, metadata=limits.PATH)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.task is None) != (self.task_file is None):
            raise ConfigurationError("task and task_file belong together; give both or neither")
        if self.task is not None and self.only is not None:
            raise ConfigurationError("only and task both choose runs; give one of them")

    @property
    def only_names(self) -> list[str] | None:
        """The names in ``only``."""
        return [self.only] if isinstance(self.only, str) else self.only

    @property
    def study_name(self) -> str:
        """What the study is called."""
        return self.name or Path(self.root).resolve().name
