"""Shows a study before anything is run: its graph, what is done, and how long the rest may take."""

from collections.abc import Mapping, Sequence

from nakt_dist.studies.local import remaining_seconds
from nakt_dist.studies.plan import Study, StudyRun
from nakt_dist.studies.standing import Standing

_SHOWN = 4


def lines_of(
    study: Study, standings: Mapping[str, Standing], chosen: Sequence[StudyRun]
) -> list[str]:
    """Returns a line for each step and each run that is asked for, with what it waits for.

    Runs of one step that wait for the same are told together.
    """
    config = study.config
    part = "" if len(chosen) == len(study.runs) else f"{len(chosen)} of "
    lines = [f"study {config.study_name}: {part}{len(study.runs)} runs below {config.root}"]
    groups: dict[str, list[StudyRun]] = {}
    for run in chosen:
        groups.setdefault(run.planned.group, []).append(run)
    group_of = {run.name: run.planned.group for run in study.runs}
    for group, runs in groups.items():
        if len(runs) > 1:
            lines.append(_line_of_group(group, runs, standings, group_of))
        indent = "    " if len(runs) > 1 else f"  {group}: "
        lines += [f"{indent}{_line_of_run(run, standings[run.name])}" for run in runs]
    return [*lines, *_summary(study, standings, chosen)]


def _line_of_group(
    group: str,
    runs: Sequence[StudyRun],
    standings: Mapping[str, Standing],
    group_of: Mapping[str, str],
) -> str:
    done = sum(standings[run.name].done for run in runs)
    waits = dict.fromkeys(
        group_of[name] for run in runs for name in (*run.planned.needs, *run.planned.after)
    )
    behind = f", behind {', '.join(waits)}" if waits else ""
    searched = ""
    if runs[0].trial is not None:
        drawn = sum(run.trial is not None and run.trial.is_drawn for run in runs)
        settings = runs[0].trial.search.settings
        searched = f", a search by {settings.by} ({settings.sampler}): {drawn} drawn"
    return f"  {group}: {len(runs)} runs, {done} done{searched}{behind}"


def _line_of_run(run: StudyRun, standing: Standing) -> str:
    word = "done" if standing.done else "to do"
    axes = " ".join(f"{axis}={value}" for axis, value in run.planned.axes.items())
    needs = list(run.planned.needs)
    dots = ", …" if len(needs) > _SHOWN else ""
    waits = f"  needs {', '.join(needs[:_SHOWN])}{dots}" if needs else ""
    chosen = "".join(
        f"  chooses {choice.name} of {len(choice.candidates)} by {choice.by}"
        for choice in run.choices
    )
    changed = f"  CHANGED SETTINGS: {'; '.join(standing.changed[:3])}" if standing.changed else ""
    together = run.launch.processes
    processes = f"  {together} processes" if together > 1 else ""
    searched = f"  after {len(run.planned.after)} others" if run.planned.after else ""
    axes = f"  {axes}" if axes else ""
    if run.trial is not None:
        axes += f"  {run.trial.told()}"
    return f"{word:<6}{run.name}{axes}{processes}{chosen}{waits}{searched}{changed}"


def _summary(
    study: Study, standings: Mapping[str, Standing], chosen: Sequence[StudyRun]
) -> list[str]:
    todo = [run for run in chosen if not standings[run.name].done]
    known = [run.planned.estimate_seconds for run in todo]
    seconds = sum(each for each in known if each is not None)
    unknown = sum(each is None for each in known)
    shared = _shared(chosen)
    lines = [f"{len(chosen) - len(todo)} done, {len(todo)} to do"]
    if shared:
        lines.append(f"shared: {shared}")
    if todo and unknown < len(todo):
        others = {run.name for run in study.runs} - {run.name for run in todo}
        longest = max(remaining_seconds(study, others).values())
        unlike = f"; {unknown} {_plural(unknown)} like none that is done" if unknown else ""
        lines.append(
            f"estimate: {_hours(seconds)} one after the other, at least {_hours(longest)} however "
            f"many at a time{unlike}"
        )
    elif todo:
        lines.append("estimate: none yet, as no run like these is done (--records adds folders)")
    changed = sum(bool(standings[run.name].changed) for run in chosen)
    if changed:
        lines.append(
            f"{changed} {_plural(changed)} ended with other settings than the file has now: give "
            "them another output, or delete the old one"
        )
    return lines


def _shared(chosen: Sequence[StudyRun]) -> str:
    """Names the runs that most others need."""
    counts: dict[str, int] = {}
    for run in chosen:
        for need in run.planned.needs:
            counts[need] = counts.get(need, 0) + 1
    most = sorted(counts.items(), key=lambda item: -item[1])[:_SHOWN]
    return ", ".join(f"{name} by {count}" for name, count in most if count > 1)


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _plural(count: int) -> str:
    return "run" if count == 1 else "runs"
