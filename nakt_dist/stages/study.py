"""``nakt study``: many runs as one graph, here or as one part of a cluster's array."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nakt_dist.config import StudyConfig, as_plain
from nakt_dist.errors import ConfigurationError, DatasetError, NaktError
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.files import read_regular_file
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.runtime.work import sole_user
from nakt_dist.stages.opening import Opening
from nakt_dist.studies.dry_run import lines_of
from nakt_dist.studies.estimates import with_estimates
from nakt_dist.studies.folder import StudyFolder
from nakt_dist.studies.local import LocalRuns, Outcome
from nakt_dist.studies.one_run import is_elsewhere
from nakt_dist.studies.plan import Study, StudyRun, make_study
from nakt_dist.studies.searches import Searches, with_draws
from nakt_dist.studies.standing import Standing, stand
from nakt_dist.studies.sweep import write_sweeps
from nakt_dist.studies.together import do_together

_SHOWN = 5
_WAIT_SECONDS = 5.0


def run(config: StudyConfig) -> RunRecord:
    """Does all runs that are not done, those that need others behind them.

    All settings are checked before the first run begins. It may be killed at any time: the same
    command goes on. A run that fails stops only those that need it.

    Raises:
        ConfigurationError: the file is wrong (see ``make_study``), or there is no such run.
        NaktError: runs failed; names them with the last that they said.
        StartAgain: a signal asked to leave.
    """
    stopwatch = Stopwatch()
    study = read_study(config)
    folder = StudyFolder(config.root)
    chosen = _chosen(study)
    check_together(chosen, process_place().world_size)
    if process_place().world_size > 1:
        return _run_together(chosen[0], study, folder, stopwatch)
    if config.export is not None:
        write_sweeps(study, Path(config.export))
        return _record(study, Outcome(), stopwatch)
    if config.dry_run:
        standings = stand(study, folder)
        study = with_draws(with_estimates(study, folder, config.records))
        print("\n".join(lines_of(study, standings, _asked(study))), flush=True)
        return _record(study, Outcome(), stopwatch)
    folder.folder.mkdir(parents=True, exist_ok=True)
    part = config.task is not None or config.only is not None
    if part:  # others may do other runs of the study now
        outcome = _run_here(study, folder)
    else:
        with sole_user(folder.folder, "study"):
            outcome = _run_here(study, folder)
    _complain(study, outcome)
    return _record(study, outcome, stopwatch)


def plan(config: StudyConfig, opening: Opening) -> list[StudyRun]:
    """Returns the runs to do, checked; none where ``opening`` gathers what is wrong."""
    with opening.part("steps"):
        runs = _chosen(read_study(config))
        stages = dict.fromkeys(run.planned.stage for run in runs)
        opening.facts["runs"] = f"{len(runs)}: {', '.join(stages)}"
        return runs
    return []


def read_study(config: StudyConfig) -> Study:
    """Reads the study of a configuration.

    Raises:
        ConfigurationError: as ``make_study``; or a step cannot be launched as it says.
    """
    from nakt_dist.cli import STAGES, parse_config

    study = make_study(config, lambda stage, values: parse_config(stage, [], values), list(STAGES))
    for run in study.runs:
        file = run.launch.accelerate_config
        if not run.launch.is_alone and not STAGES[run.planned.stage].distributed:
            raise ConfigurationError(
                f"{run.place}: {run.planned.stage} runs as one process; take processes and "
                "accelerate_config out of the step"
            )
        if file is not None and not Path(file).is_file():
            raise ConfigurationError(f"{run.place}: accelerate_config is {file}: no such file")
    return study


def check_processes(config: Any, count: int) -> None:
    """Refuses several processes for what runs as one.

    Args:
        config: of any stage; of a study, the runs that it names are looked at.
        count: the processes that would share the work.

    Raises:
        ConfigurationError: it runs as one process, and ``count`` is more; or a study's steps are
            wrong, as in ``run``.
    """
    from nakt_dist.cli import STAGES

    if count == 1:
        return
    if isinstance(config, StudyConfig):
        check_together(_chosen(read_study(config)), count)
        return
    what = next(name for name, stage in STAGES.items() if stage.config is type(config))
    _check_able(what, count)


def check_together(runs: Sequence[StudyRun], count: int) -> None:
    """Refuses several processes for runs that are not one, or that run as one.

    Raises:
        ConfigurationError: as ``check_processes``.
    """
    if count > 1:
        one = len(runs) == 1
        _check_able(runs[0].planned.stage if one else f"a study of {len(runs)} runs", count)


def _check_able(what: str, count: int) -> None:
    from nakt_dist.cli import STAGES

    able = [name for name, stage in STAGES.items() if stage.distributed]
    if what not in able:
        raise ConfigurationError(
            f"{what} runs as one process, and {count} were to share it. Expected one, without "
            "accelerate launch or torchrun (in a job: nodes and tasks_per_node of 1). Several do "
            f"{', '.join(able)}, or one run of these from a study (only)"
        )


def _chosen(study: Study) -> list[StudyRun]:
    config = study.config
    if config.task_file is not None and config.task is not None:
        return study.by_name(_names_of_task(Path(config.task_file), config.task))
    names = config.only_names
    return study.by_name(names) if names is not None else list(study.runs)


def _asked(study: Study) -> list[StudyRun]:
    """The runs chosen, and what they need where that is asked for as well."""
    chosen = _chosen(study)
    return study.with_needs(chosen) if study.config.with_needs else chosen


def _names_of_task(path: Path, task: int) -> list[str]:
    try:
        tasks = json.loads(read_regular_file(path, 2**26))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"task_file {path} cannot be read: {error}") from None
    lists = isinstance(tasks, list) and all(isinstance(each, list) for each in tasks)
    if not lists or not 1 <= task <= len(tasks):
        raise ConfigurationError(
            f"task is {task}, expected 1 to {len(tasks) if lists else 0}: the lists of {path}"
        )
    return [str(name) for name in tasks[task - 1]]


def _run_here(study: Study, folder: StudyFolder) -> Outcome:
    from nakt_dist.cli import load_stage, main

    config = study.config
    chosen = _chosen(study)
    is_task = config.task is not None
    standings = stand(study, folder, [run.name for run in chosen] if is_task else None)
    done = {name for name, standing in standings.items() if standing.done}
    searches = None
    if not is_task:
        study = with_draws(with_estimates(study, folder, config.records))
        if config.only is None:
            searches = Searches(study, folder, standings)
            folder.write_plan(study.plan)
    chosen = _asked(study)
    todo = [run for run in chosen if run.name not in done]
    for run in todo if searches is None else ():
        if run.trial is not None:
            run.trial.drawn()
        _refuse_changed_trials(run, study, standings)
    if len(chosen) > len(todo):
        say(f"study {config.study_name}: {len(chosen) - len(todo)} of {len(chosen)} runs are done")
    for stage in {run.planned.stage for run in todo if run.launch.is_alone}:
        load_stage(stage)  # once, for all that are forked from this process
    outcome = LocalRuns(study, folder, done, todo, config.jobs, main, searches).run()
    for name in outcome.blocked if is_task else ():
        folder.forget_queued(name)
    return outcome


def _refuse_changed_trials(run: StudyRun, study: Study, standings: Mapping[str, Standing]) -> None:
    """Refuses to choose among trials as the file had them once; they may have failed, not changed.

    Raises:
        DatasetError: one was trained with other settings than it has now.
    """
    trials = {each.name for each in study.runs if each.trial is not None} if run.choices else set()
    for name in trials.intersection(run.planned.after):
        if standings[name].changed:
            raise DatasetError(
                f"{run.name} chooses among trials of which {name} was trained with other settings "
                f"({'; '.join(standings[name].changed)}). Give the trials other outputs, or "
                "restore the settings"
            )


def _run_together(
    run: StudyRun, study: Study, folder: StudyFolder, stopwatch: Stopwatch
) -> RunRecord:
    """Does one run in this process, which is one of several that a launcher has started."""
    from nakt_dist.cli import load_stage

    _await_needs(run, study, folder)
    if stand(study, folder, [run.name])[run.name].done:
        say(f"{run.name}: is done")
        return _record(study, Outcome(), stopwatch)
    do_together(run, study, folder, load_stage(run.planned.stage).run)
    return _record(study, Outcome(done=[run.name]), stopwatch)


def _await_needs(run: StudyRun, study: Study, folder: StudyFolder) -> None:
    """Waits while others do what a run needs; the processes of one launch cannot do it.

    Raises:
        ConfigurationError: something is not done, and nobody does it.
    """
    folder.of_run(run.name).mkdir(parents=True, exist_ok=True)
    told = False
    while True:
        standings = stand(study, folder, [run.name])
        missing = [need for need in run.planned.needs if not standings[need].done]
        idle = [need for need in missing if not is_elsewhere(folder, need)]
        if idle:
            folder.forget_queued(run.name)
            raise ConfigurationError(
                f"{run.name} needs {idle[0]}, which is not done, and nobody does it now. Do it "
                f"first, as one process: nakt study FILE --only {idle[0]} --with_needs true"
            )
        if not missing:
            return
        if not told:
            say(f"{run.name}: waits for {missing[0]}, which another process does")
            told = True
        time.sleep(_WAIT_SECONDS)


def _complain(study: Study, outcome: Outcome) -> None:
    if not outcome.failed and not outcome.blocked:
        return
    lines = [f"  {name}: {reason}" for name, reason in list(outcome.failed.items())[:_SHOWN]]
    more = len(outcome.failed) - len(lines)
    lines += [f"  and {more} more"] if more > 0 else []
    if outcome.blocked:
        named = ", ".join(outcome.blocked[:_SHOWN])
        dots = ", …" if len(outcome.blocked) > _SHOWN else ""
        lines.append(f"  {len(outcome.blocked)} not begun, as they need others: {named}{dots}")
    raise NaktError(
        "\n".join(
            [
                f"{len(outcome.failed)} of the study's runs failed, {len(outcome.done)} were done "
                "now. Mend what they say, and run the same command again; their logs are "
                f"{study.config.root}/.study/runs/…/log.txt",
                *lines,
            ]
        )
    )


def _record(study: Study, outcome: Outcome, stopwatch: Stopwatch) -> RunRecord:
    return RunRecord(
        stage="study",
        name=study.config.study_name,
        config=as_plain(study.config),
        counts={
            "runs": len(study.runs),
            "done_now": len(outcome.done),
            "failed": len(outcome.failed),
            "blocked": len(outcome.blocked),
        },
        details={"seconds": outcome.seconds},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )
