"""``nakt pipeline``: stages one after the other in one process, as a file lists them.

Every stage skips what is done and goes on where it was killed, so the whole pipeline does.
"""

from collections.abc import Mapping
from typing import Any

from nakt_dist.config import PipelineConfig, as_plain
from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.runtime.record import RunRecord, Stopwatch, package_versions


def run(config: PipelineConfig) -> RunRecord:
    """Runs the steps in order.

    All steps are read and checked before the first begins, so that a typo in the last one
    costs nothing.

    Raises:
        ConfigurationError: a step is not ``{stage, config}`` or its configuration is wrong.
    """
    from nakt_dist.cli import STAGES, load_stage, parse_config

    require_one_process("pipeline")
    stopwatch = Stopwatch()
    steps = []
    for number, step in enumerate(config.steps, start=1):
        if set(step) != {"stage", "config"} or step["stage"] not in set(STAGES) - {"pipeline"}:
            raise ConfigurationError(
                f"steps[{number}] is {step}; expected stage (one of {', '.join(STAGES)}) and config"
            )
        values = _with_folders(step["config"], {"root": config.root, "data": config.data})
        try:
            steps.append((step["stage"], parse_config(step["stage"], [], values)))
        except ConfigurationError as error:
            raise ConfigurationError(f"steps[{number}], {step['stage']}: {error}") from None
    seconds: dict[str, float] = {}
    for number, (stage, stage_config) in enumerate(steps, start=1):
        say(f"[{number}/{len(steps)}] {stage}")
        record = load_stage(stage).run(stage_config)
        seconds[f"{number:02d} {stage} {record.name}"] = record.seconds
    return RunRecord(
        stage="pipeline",
        name=config.root,
        config=as_plain(config),
        counts={"steps": len(steps)},
        details={"seconds": seconds},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def _with_folders(value: Any, folders: Mapping[str, str]) -> Any:
    """Replaces ``${root}`` and ``${data}`` in every text of a nested value."""
    if isinstance(value, dict):
        return {key: _with_folders(item, folders) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_folders(item, folders) for item in value]
    if isinstance(value, str):
        for name, folder in folders.items():
            value = value.replace(f"${{{name}}}", folder)
    return value
