"""``nakt pipeline``: stages one after the other in one process, as a file lists them.

Every stage skips what is done and goes on where it was killed, so the whole pipeline does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nakt_dist.config import PipelineConfig, as_plain
from nakt_dist.config.matrix import check_names, combinations, describe, fill_in
from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.stages.opening import Opening

_KEYS = ("stage", "config", "matrix", "exclude")
_NO_STEPS = ("pipeline", "submit")


@dataclass(frozen=True)
class Step:
    """One stage to run.

    Attributes:
        number: of the step in the file, from 1; alike for all combinations of its matrix.
        combination: which of the step's matrix, in words; empty without one.
        place: where it stands in the file, for messages.
        config: its checked configuration.
    """

    number: int
    stage: str
    combination: str
    place: str
    config: Any


def run(config: PipelineConfig) -> RunRecord:
    """Runs the steps in order.

    All steps, every combination of a matrix included, are read and checked before the first
    begins, so that a typo in the last one costs nothing. Where ``only_step`` and ``only_run``
    leave one stage, it may run in several processes if it can.

    Raises:
        ConfigurationError: a step is not ``{stage, config}`` with or without ``matrix`` and
            ``exclude``, its configuration is wrong, a ``${name}`` is unknown, or there is no
            such ``only_step`` or ``only_run``; or as ``check_processes``.
    """
    from nakt_dist.cli import load_stage

    stopwatch = Stopwatch()
    steps = plan(config, Opening())
    check_processes(config, process_place().world_size)
    seconds: dict[str, float] = {}
    for number, step in enumerate(steps, start=1):
        say(f"[{number}/{len(steps)}] {step.stage} {step.combination}".rstrip())
        record = load_stage(step.stage).run(step.config)
        seconds[f"{number:02d} {step.stage} {record.name}"] = record.seconds
    return RunRecord(
        stage="pipeline",
        name=config.root,
        config=as_plain(config),
        counts={"steps": len(steps)},
        details={"seconds": seconds},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def plan(config: PipelineConfig, opening: Opening) -> list[Step]:
    """Returns the steps to run, checked; none where ``opening`` gathers what is wrong."""
    with opening.part("steps"):
        steps = chosen_steps(config)
        opening.facts["steps"] = f"{len(steps)}: {', '.join(step.stage for step in steps)}"
        return steps
    return []


def read_steps(config: PipelineConfig) -> list[Step]:
    """Returns all steps, every combination of a matrix by itself, checked.

    Raises:
        ConfigurationError: as ``run``.
    """
    folders = {"root": config.root, "data": config.data}
    check_names(config.definitions, "definitions", folders)
    names = {**folders, **config.definitions}
    steps = [
        step
        for number, values in enumerate(config.steps, start=1)
        for step in _read_step(values, number, names)
    ]
    _check_outputs(steps)
    return steps


def chosen_steps(config: PipelineConfig) -> list[Step]:
    """Returns the runs of ``only_step``, or ``only_run`` of them, or all steps without either.

    Raises:
        ConfigurationError: as ``run``; says how many steps or runs there are.
    """
    steps, only_step, only_run = read_steps(config), config.only_step, config.only_run
    if only_step is None:
        return steps
    runs = [step for step in steps if step.number == only_step]
    if not runs:
        last = steps[-1].number if steps else 0
        raise ConfigurationError(
            f"only_step is {only_step}, expected 1 to {last}: the file's steps"
        )
    if only_run is None:
        return runs
    if not 1 <= only_run <= len(runs):
        raise ConfigurationError(
            f"only_run is {only_run}, expected 1 to {len(runs)}: the runs of steps[{only_step}], "
            f"{runs[0].stage}"
        )
    return [runs[only_run - 1]]


def check_processes(config: Any, count: int) -> None:
    """Refuses several processes for what runs as one.

    Args:
        config: of any stage; of a pipeline, the runs that it names are looked at.
        count: the processes that would share the work.

    Raises:
        ConfigurationError: it runs as one process, and ``count`` is more; or a pipeline's steps
            are wrong, as in ``run``.
    """
    from nakt_dist.cli import STAGES

    if count == 1:
        return
    what = next(name for name, stage in STAGES.items() if stage.config is type(config))
    if isinstance(config, PipelineConfig):
        steps = chosen_steps(config)
        what = steps[0].stage if len(steps) == 1 else f"a pipeline of {len(steps)} stages"
    able = [name for name, stage in STAGES.items() if stage.distributed]
    if what not in able:
        raise ConfigurationError(
            f"{what} runs as one process, and {count} were to share it. Expected one, without "
            "accelerate launch or torchrun (in a job: nodes and tasks_per_node of 1). Several do "
            f"{', '.join(able)}, or one run of these from a pipeline (only_step and only_run)"
        )


def _check_outputs(steps: Sequence[Step]) -> None:
    """Refuses two steps that write to one folder.

    A page of ``report`` may be written several times, as more runs are done. Every other stage
    would refuse the second step once the first has run for hours, or do nothing.
    """
    first_of: dict[str, Step] = {}
    for step in steps:
        output = getattr(step.config, "output", None)
        if output is None:
            continue
        path = output if "://" in output else str(Path(output).resolve())
        first = first_of.setdefault(path, step)
        if first is step or first.stage == step.stage == "report":
            continue
        raise ConfigurationError(
            f"{step.place}: its output {output} is also that of {first.place}; give each step an "
            "output of its own, with every name of a matrix in it, as in runs/student-${seed}"
        )


def _read_step(step: Mapping[str, Any], number: int, names: Mapping[str, Any]) -> Iterator[Step]:
    """Reads a step and all its combinations; messages begin with where they stand."""
    from nakt_dist.cli import STAGES, parse_config

    where = f"steps[{number}]"
    stages = [name for name in STAGES if name not in _NO_STEPS]
    if not {"stage", "config"} <= set(step) or step["stage"] not in stages:
        raise ConfigurationError(
            f"{where} is {step}; expected stage (one of {', '.join(stages)}) and config"
        )
    stage = step["stage"]
    where = f"{where}, {stage}"
    for key in map(str, step):
        if key not in _KEYS:
            raise ConfigurationError(
                f"{where}: a step has no '{key}'{nearest_name(key, _KEYS)} ({', '.join(_KEYS)})"
            )
    if "exclude" in step and "matrix" not in step:
        raise ConfigurationError(f"{where}: exclude without matrix; there is nothing to leave out")
    try:
        matrix, exclude = step.get("matrix"), step.get("exclude")
        repeats = combinations(matrix, exclude, names) if "matrix" in step else [{}]
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    for combination in repeats:
        words = describe(combination)
        place = f"{where} ({words})" if words else where
        try:
            stage_config = parse_config(
                stage, [], fill_in(step["config"], {**names, **combination})
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{place}: {error}") from None
        yield Step(number, stage, words, place, stage_config)
