"""Which device this process computes on, and with how many threads."""

import os

import torch

from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.processes import process_place


def choose_device(name: str, threads: int | None) -> torch.device:
    """Resolves a device setting and sets torch's CPU threads.

    Args:
        name: ``auto`` (this process's GPU where there is one, else the CPU), ``cpu``, ``cuda``
            or ``cuda:N``.
        threads: CPU threads; None leaves torch's choice.

    Raises:
        ConfigurationError: the device does not exist here.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    place = process_place()
    if name == "auto":
        name = "cuda" if gpu_is_wanted(name) else "cpu"
    if name == "cuda":
        name = f"cuda:{place.local_rank % max(torch.cuda.device_count(), 1)}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(
            f"device is {name!r}; expected auto, cpu, cuda or cuda:N"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(
            f"device is {name}, but this machine shows {torch.cuda.device_count()} CUDA devices. "
            "Set --device cpu or auto"
        )
    return device


def gpu_is_wanted(device: str) -> bool:
    """Says whether there is a GPU, and neither setting nor ``accelerate --cpu`` is against it."""
    asked_for_cpu = device == "cpu" or os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    return torch.cuda.is_available() and not asked_for_cpu


def group_backend(device: str) -> str:
    """Returns the backend of a process group over such devices: ``nccl`` of GPUs, else ``gloo``.

    Args:
        device: as for ``choose_device``.
    """
    return "nccl" if gpu_is_wanted(device) else "gloo"
