"""What a launch asks of DeepSpeed, and whether it can be had."""

import os

import torch
from accelerate.utils import DeepSpeedPlugin

from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.devices import gpu_is_wanted


def uses_deepspeed() -> bool:
    """Says whether the launch was asked for DeepSpeed, by an accelerate configuration file."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def read_plugin(device: str) -> DeepSpeedPlugin:
    """Reads the launch's DeepSpeed settings, and prepares DeepSpeed itself.

    Args:
        device: ``auto`` or ``cpu``.

    Raises:
        ConfigurationError: DeepSpeed is not installed, has no launcher or no ZeRO stage, or would
            use a GPU that the stage was told not to use; or its settings cannot be read, or hold
            what the stage decides.
    """
    if torch.cuda.is_available() and not gpu_is_wanted(device):
        raise ConfigurationError(
            "device is cpu, but DeepSpeed would take the GPU of this machine. Set device to auto, "
            "or hide the GPUs (CUDA_VISIBLE_DEVICES='')"
        )
    if "RANK" not in os.environ:
        raise ConfigurationError(
            "DeepSpeed was asked for, but no launcher started this process. Start it with "
            "accelerate launch --config_file configs/accelerate/deepspeed_zero2.yaml"
        )
    try:
        plugin = DeepSpeedPlugin()
        stage = zero_stage(plugin)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"the DeepSpeed settings of this launch cannot be read: {reason}. Mend the "
            "accelerate configuration, or the file that its deepspeed_config_file names"
        ) from None
    if stage not in (1, 2, 3):
        raise ConfigurationError(
            f"the accelerate configuration's zero_stage is {stage}, expected 1, 2 or 3. Without "
            "ZeRO, take configs/accelerate/ddp.yaml"
        )
    _refuse_what_the_stage_decides(plugin)
    _prepare_deepspeed()
    return plugin


def zero_stage(plugin: DeepSpeedPlugin) -> int | None:
    """Returns the stage of ZeRO that the settings ask for."""
    return plugin.hf_ds_config.get_value("zero_optimization.stage")


def _refuse_what_the_stage_decides(plugin: DeepSpeedPlugin) -> None:
    """Refuses parts of a DeepSpeed file that would give another training than the recipe."""
    asked = plugin.hf_ds_config.get_value
    refused = {
        "optimizer": asked("optimizer"),
        "scheduler": asked("scheduler"),
        "fp16.enabled": asked("fp16.enabled") not in (None, False, "auto"),
        "bf16.enabled": asked("bf16.enabled") not in (None, False, "auto"),
    }
    for name, found in refused.items():
        if found:
            raise ConfigurationError(
                f"the DeepSpeed settings of this launch hold '{name}', which the recipe decides "
                "(recipe.*). Leave it out of the file"
            )
    for what in ("optimizer", "param"):
        device = asked(f"zero_optimization.offload_{what}.device")
        if device not in (None, "none"):
            raise ConfigurationError(
                f"the DeepSpeed settings of this launch offload to {device} (offload_{what}), "
                "which nakt does not train with: DeepSpeed would compile an optimiser first. Set "
                "it to none, and take zero_stage 3 where memory is short"
            )


def _prepare_deepspeed() -> None:
    try:
        from deepspeed import ops
    except ImportError as error:
        raise ConfigurationError(
            f"DeepSpeed was asked for by the accelerate configuration, but cannot be imported "
            f"({error}). Install it: pip install 'nakt_dist[deepspeed]'"
        ) from None
    # On CPUs it would compile an all-reduce of its own: minutes, a compiler, and a lock that a
    # killed build leaves behind, at which every later start waits for ever. gloo does as well.
    ops.__compatible_ops__["deepspeed_shm_comm"] = False
