"""``nakt pipeline``: stages one after the other in one process, as a file lists them.

Every stage skips what is done and goes on where it was killed, so the whole pipeline does.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
        config: its checked configuration.
    """

    stage: str
    combination: str
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
    return [
        step
        for number, values in enumerate(config.steps, start=1)
        for step in _read_step(values, f"steps[{number}]", names)
    ]


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
    outputs: dict[Any, str] = {}
    for combination in repeats:
        words = describe(combination)
        place = f"{where} ({words})" if words else where
        try:
            stage_config = parse_config(
                stage, [], fill_in(step["config"], {**names, **combination})
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"{place}: {error}") from None
        output = getattr(stage_config, "output", None)
        if output is not None and output in outputs:
            raise ConfigurationError(
                f"{place}: its output {output} is also that of {outputs[output]}; put every name "
                f"of the matrix into it, such as ${{{next(iter(combination))}}}"
            )
        outputs[output] = place
        yield Step(stage, words, stage_config)
