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
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.runtime.record import RunRecord, Stopwatch, package_versions

_KEYS = ("stage", "config", "matrix", "exclude")


@dataclass(frozen=True)
class Step:
    """One stage to run.

    Attributes:
        stage: the verb.
        combination: which of the step's matrix, in words; empty without one.
        place: where it stands in the file, for messages.
        config: its checked configuration.
    """

    stage: str
    combination: str
    place: str
    config: Any


def run(config: PipelineConfig) -> RunRecord:
    """Runs the steps in order.

    All steps, every combination of a matrix included, are read and checked before the first
    begins, so that a typo in the last one costs nothing.

    Raises:
        ConfigurationError: a step is not ``{stage, config}`` with or without ``matrix`` and
            ``exclude``, its configuration is wrong, or a ``${name}`` is unknown.
    """
    from nakt_dist.cli import load_stage

    require_one_process("pipeline")
    stopwatch = Stopwatch()
    steps = read_steps(config)
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
        for step in _read_step(values, f"steps[{number}]", names)
    ]
    _check_outputs(steps)
    return steps


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


def _read_step(step: Mapping[str, Any], where: str, names: Mapping[str, Any]) -> Iterator[Step]:
    """Reads a step and all its combinations; messages begin with where they stand."""
    from nakt_dist.cli import STAGES, parse_config

    stages = [name for name in STAGES if name != "pipeline"]
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
        yield Step(stage, words, place, stage_config)
