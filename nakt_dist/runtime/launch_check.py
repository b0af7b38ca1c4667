"""Whether a launch can train, found out before any process group exists."""

import os

from accelerate.utils import DeepSpeedPlugin

from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.deepspeed_launch import read_plugin, uses_deepspeed
from nakt_dist.runtime.devices import gpu_is_wanted, multiplies_bf16
from nakt_dist.runtime.processes import process_place


def check_launch(precision: str, device: str) -> DeepSpeedPlugin | None:
    """Refuses a launch that cannot train.

    Args:
        precision: ``no``, ``bf16`` or ``fp16``.
        device: ``auto`` or ``cpu``.

    Returns:
        The launch's DeepSpeed settings; None where it does not ask for DeepSpeed.

    Raises:
        ConfigurationError: the device cannot have the precision; the processes could not meet;
            another way of sharding is asked for; or DeepSpeed is, and cannot be had as asked (see
            ``read_plugin``).
    """
    _refuse_other_sharding()
    _check_meeting_point(device)
    _check_precision(precision, device)
    return read_plugin(device) if uses_deepspeed() else None


def _refuse_other_sharding() -> None:
    """Refuses what Accelerate would switch on by variables and nakt does not train with."""
    for name, what in (
        ("ACCELERATE_USE_FSDP", "FSDP"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "parallelism within a network"),
    ):
        if os.environ.get(name, "false").lower() == "true":
            raise ConfigurationError(
                f"{what} was asked for ({name}), which nakt does not train with. Take "
                "configs/accelerate/ddp.yaml, or deepspeed_zero3.yaml, which divides weights, "
                "gradients and optimiser among the processes as well"
            )


def _check_meeting_point(device: str) -> None:
    """Refuses variables with which processes could not meet, which torch meets with a traceback."""
    if "WORLD_SIZE" not in os.environ and not gpu_is_wanted(device):  # where Accelerate reads them
        for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
            if os.environ.get(name, "1") not in ("", "1"):
                raise ConfigurationError(
                    f"MPI started {os.environ[name]} processes ({name}), which do not know one "
                    "another: WORLD_SIZE is absent. Start with torchrun, accelerate launch or nakt "
                    f"submit; unset {name} to run each of them alone"
                )
    world_size = process_place().world_size
    if world_size == 1:
        return
    port = os.environ.get("MASTER_PORT", "")
    if not (port.isdecimal() and 0 < int(port) < 65536):
        raise ConfigurationError(
            f"WORLD_SIZE is {world_size} and MASTER_PORT '{port}'; expected 1 to 65535, the same "
            "in all processes. torchrun and accelerate launch set it"
        )
    if not os.environ.get("MASTER_ADDR"):
        raise ConfigurationError(
            f"WORLD_SIZE is {world_size} and MASTER_ADDR absent; expected the host of process 0. "
            "torchrun and accelerate launch set it"
        )


def _check_precision(precision: str, device: str) -> None:
    """Refuses autocast to what the device does not compute with."""
    on_gpu = gpu_is_wanted(device)
    if precision == "fp16" and not on_gpu:
        raise ConfigurationError(
            "recipe.precision is fp16, which needs a GPU; set it to bf16 or no"
        )
    if precision == "bf16" and on_gpu and not multiplies_bf16(device):
        raise ConfigurationError(
            "recipe.precision is bf16, which this GPU does not have; set it to fp16 or no"
        )
