"""Divides the runs of a study into job arrays, and says which array waits for which."""

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

from nakt_dist.studies.plan import StudyRun


@dataclass(frozen=True)
class Wait:
    """What an array waits for, as ``--dependency`` says it.

    Attributes:
        kind: ``afterok`` (all tasks well), ``aftercorr`` (the task of the same number well) or
            ``afterany`` (all tasks ended).
        array: its number in this submission; 0 for jobs that are queued already.
        jobs: ids of those, such as ``123`` or ``123_4:123_5``.
    """

    kind: str
    array: int
    jobs: str = ""

    def told(self, jobs: Mapping[int, str]) -> str:
        """Returns it with the id of the job that an array has become."""
        return f"{self.kind}:{self.jobs or jobs[self.array]}"


@dataclass(frozen=True)
class JobArray:
    """Runs of one step that wait for the same arrays, as one job.

    Attributes:
        number: among the arrays of a submission, from 1.
        runs: in the order of the study.
        tasks: names of the runs by the number of the task that does them.
        waits: for what; none begins before all hold.
    """

    number: int
    runs: tuple[StudyRun, ...]
    tasks: Mapping[int, tuple[str, ...]]
    waits: tuple[Wait, ...]

    @property
    def indices(self) -> str:
        """The numbers of its tasks, as ``--array`` takes them, such as ``1-3,7``."""
        spans: list[list[int]] = []
        for number in sorted(self.tasks):
            if spans and spans[-1][1] == number - 1:
                spans[-1][1] = number
            else:
                spans.append([number, number])
        return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in spans)

    @property
    def lists(self) -> list[list[str]]:
        """The runs of tasks 1, 2, …, for ``task_file``; of a number that is no task, none."""
        return [list(self.tasks.get(number, ())) for number in range(1, max(self.tasks) + 1)]

    @property
    def kills(self) -> bool:
        """Whether a task that can never begin is to be taken out of the queue."""
        return any(wait.kind != "afterany" for wait in self.waits)


@dataclass(eq=False)
class _Group:
    """Runs that become one array, or that are one in the queue already.

    Attributes:
        number: in the order in which they are submitted; those in the queue come first.
        job: the id of one in the queue.
        per_task: how many runs a task does.
        tasks: the number of each run's task.
    """

    number: int
    job: str | None = None
    per_task: int = 1
    waits: tuple["_Group", ...] = ()
    runs: list[StudyRun] = field(default_factory=list)
    tasks: dict[str, int] = field(default_factory=dict)

    @property
    def is_single(self) -> bool:
        """Whether each task does one run, and so ends as that run does."""
        return len(set(self.tasks.values())) == len(self.tasks)


def make_arrays(
    todo: Sequence[StudyRun],
    queued: Mapping[str, str],
    most_tasks: int,
    per_task: Callable[[StudyRun], int],
) -> list[JobArray]:
    """Divides runs into arrays.

    An array holds runs of one step that wait for the same other arrays. Where each run needs
    exactly one of another array, both number these tasks alike, so that a task waits for its own
    alone. Where all need all of another array, and only then, none begins unless all went well;
    otherwise they begin when the others have ended, and each looks for what it needs.

    Args:
        todo: each behind those that it waits for.
        queued: jobs of runs that are in the queue already, such as ``123_4``, by name.
        most_tasks: the highest number that a task may have.
        per_task: how many runs like this one a task does, one after the other.

    Returns:
        The arrays, each behind those that it waits for.
    """
    groups = _grouped(todo, _in_queue(queued), most_tasks, per_task)
    first = groups[0].number - 1 if groups else 0
    arrays = []
    for group in groups:
        _number_tasks(group)
        waits = [wait for other in group.waits for wait in _waits(group, other, first)]
        tasks: dict[int, tuple[str, ...]] = {}
        for name, task in group.tasks.items():
            tasks[task] = (*tasks.get(task, ()), name)
        arrays.append(JobArray(group.number - first, tuple(group.runs), tasks, tuple(waits)))
    return arrays


def _in_queue(queued: Mapping[str, str]) -> dict[str, _Group]:
    """Returns the group of each run that is in the queue already."""
    found: dict[str, _Group] = {}
    of_run: dict[str, _Group] = {}
    for name, told in queued.items():
        job, _, task = told.partition("_")
        group = found.setdefault(job, _Group(len(found) + 1, job))
        group.tasks[name] = int(task or 0)
        of_run[name] = group
    return of_run


def _grouped(
    todo: Sequence[StudyRun],
    group_of: dict[str, _Group],
    most_tasks: int,
    per_task: Callable[[StudyRun], int],
) -> list[_Group]:
    """Returns the groups; one waits for earlier ones alone, so that there is no circle."""
    number = max((group.number for group in group_of.values()), default=0)
    groups: list[_Group] = []
    open_groups: dict[Hashable, _Group] = {}
    for run in todo:
        before = (*run.planned.needs, *run.planned.after)
        waits = tuple(
            sorted({group_of[name] for name in before if name in group_of}, key=lambda g: g.number)
        )
        key = (run.planned.step, waits)
        group = open_groups.get(key)
        if group is None or len(group.runs) >= most_tasks * group.per_task:
            number += 1
            group = open_groups[key] = _Group(number, per_task=per_task(run), waits=waits)
            groups.append(group)
        group.runs.append(run)
        group_of[run.name] = group
    return groups


def _number_tasks(group: _Group) -> None:
    """Numbers the tasks of a group as those of a group that it needs one by one, or from 1."""
    if group.per_task == 1:
        for other in group.waits:
            pairs = _pairs(group, other)
            if pairs is not None:
                group.tasks = pairs
                return
    group.tasks = {run.name: 1 + place // group.per_task for place, run in enumerate(group.runs)}


def _pairs(group: _Group, other: _Group) -> dict[str, int] | None:
    """Returns the task of the other group that each run needs; None where it is not one each."""
    if not other.is_single:
        return None
    needed = [[name for name in run.planned.needs if name in other.tasks] for run in group.runs]
    names = list(itertools.chain.from_iterable(needed))
    if any(len(each) != 1 for each in needed) or len(set(names)) != len(names):
        return None
    return {run.name: other.tasks[name] for run, name in zip(group.runs, names, strict=True)}


def _waits(group: _Group, other: _Group, first: int) -> list[Wait]:
    """Returns how a group waits for another one, whose number is beyond ``first`` if it is new."""
    every = set(other.tasks)
    all_need_all = all(every <= set(run.planned.needs) for run in group.runs)
    if all_need_all and (other.job is None or other.is_single):
        kinds = ["afterok"]
    elif group.tasks == _pairs(group, other):
        kinds = ["aftercorr"]
    else:
        kinds = ["afterany"]
    if kinds != ["afterany"] and any(every & set(run.planned.after) for run in group.runs):
        kinds.append("afterany")
    if other.job is None:
        return [Wait(kind, other.number - first) for kind in kinds]
    # Of an array in the queue some tasks may have failed long ago, which is no reason to wait.
    tasks = ":".join(f"{other.job}_{task}" for task in dict.fromkeys(other.tasks.values()))
    return [Wait(kind, 0, other.job if kind == "aftercorr" else tasks) for kind in kinds]
