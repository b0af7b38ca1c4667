"""Prints the variables that ``accelerate launch --config_file FILE`` would set, for a shell.

Where a scheduler starts the processes itself, such as ``srun``, its batch script says
``eval "$(python -m nakt_dist.runtime.accelerate_environment FILE)"``. Accelerate's own functions
turn the file into variables, so that they are those of the version installed.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import (
    prepare_deepspeed_cmd_env,
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)

from nakt_dist.errors import ConfigurationError, NaktError

_SCHEDULERS = frozenset(
    {
        "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
        "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "PYTHONPATH",
    }
)  # fmt: skip
"""What the scheduler and its batch script decide, whatever the file says."""

_REFUSED = {
    "compute_environment": ("AMAZON_SAGEMAKER",),
    "distributed_type": ("XLA", "FSDP", "MEGATRON_LM"),
}


def launch_environment(path: Path) -> dict[str, str]:
    """Returns what ``accelerate launch`` would add to the environment of each process.

    Args:
        path: a file of its settings, as ``accelerate config`` writes it. How many processes and
            machines it names does not matter.

    Raises:
        ConfigurationError: the file is absent, is no such file, or asks for what processes
            started one by one cannot have (SageMaker, TPU pods), or for sharding that no stage
            trains with (FSDP, Megatron).
    """
    _check_file(path)
    words = ["--config_file", str(path), "--module", "nakt_dist"]
    try:
        arguments, defaults, precision_in_file = _validate_launch_command(
            launch_command_parser().parse_args(words)
        )
        arguments.num_machines, arguments.main_process_port = 1, 0  # any that is free
        if arguments.use_deepspeed:
            named = [*defaults.deepspeed_config, *(["mixed_precision"] * precision_in_file)]
            arguments.deepspeed_fields_from_accelerate_config = ",".join(named)
        variables = _variables(arguments)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise ConfigurationError(
            f"{path}: accelerate does not take it: {' '.join(str(error).split())}. Expected a file "
            "such as configs/accelerate/ddp.yaml; `accelerate config` writes one"
        ) from None
    return {
        name: value
        for name, value in sorted(variables.items())
        if name not in _SCHEDULERS and os.environ.get(name) != value
    }


def _check_file(path: Path) -> None:
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"{path}: cannot be read as YAML: {reason}. Give a file such as "
            "configs/accelerate/ddp.yaml"
        ) from None
    if not isinstance(settings, Mapping):
        raise ConfigurationError(
            f"{path}: holds a {type(settings).__name__}, expected accelerate's settings by name"
        )
    for name, refused in _REFUSED.items():
        if settings.get(name) in refused:
            raise ConfigurationError(
                f"{path}: {name} is {settings[name]}, which nakt does not run with; expected "
                "LOCAL_MACHINE with MULTI_CPU, MULTI_GPU or DEEPSPEED"
            )


def _variables(arguments: argparse.Namespace) -> dict[str, str]:
    """Chooses among accelerate's launchers as ``accelerate launch`` does."""
    if arguments.use_deepspeed and not arguments.cpu:
        return prepare_deepspeed_cmd_env(arguments)[1]
    if arguments.multi_gpu and not arguments.cpu:
        return prepare_multi_gpu_env(arguments)
    return prepare_simple_launcher_cmd_env(arguments)[1]


def main(words: Sequence[str]) -> int:
    """Prints ``export NAME=value`` for each variable; returns the exit status."""
    try:
        if len(words) != 1:
            raise ConfigurationError(f"expected one file of accelerate's settings, got {words}")
        for name, value in launch_environment(Path(words[0])).items():
            print(f"export {name}={shlex.quote(value)}")
    except NaktError as error:
        print(f"nakt: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
