"""Which device this process computes on, with how many threads, and when its memory is full."""

import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.runtime.freed_memory import keep_freed_memory
from nakt_dist.runtime.processes import process_place

# How CUDA and its libraries say it where torch's allocator was not asked.
_MEMORY_IS_FULL = ("out of memory", "STATUS_ALLOC_FAILED", "ALLOCATION_FAILED")


def choose_device(name: str, threads: int | None) -> torch.device:
    """Resolves a device setting, sets torch's CPU threads and has freed memory kept.

    Args:
        name: ``auto`` (this process's GPU where there is one, else the CPU), ``cpu``, ``cuda``
            or ``cuda:N``.
        threads: CPU threads; None leaves torch's choice.

    Raises:
        ConfigurationError: the device does not exist here.
    """
    keep_freed_memory()
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


def multiplies_bf16(device: str, cpu_flags: Path = Path("/proc/cpuinfo")) -> bool:
    """Says whether a device has units of its own that multiply matrices of bf16.

    Args:
        device: ``auto`` or ``cpu``.
        cpu_flags: where Linux tells what the CPU has.
    """
    if gpu_is_wanted(device):
        with torch.cuda.device(choose_device(device, None)):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return "amx_bf16" in cpu_flags.read_text(encoding="utf-8").split()
    except OSError:
        return False


def peak_memory_bytes(gpu: torch.device | None) -> int:
    """Returns the most memory that the process has held so far: of its GPU, or of its own."""
    if gpu is not None:
        return torch.cuda.max_memory_reserved(gpu)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def gpu_uuid(device: torch.device) -> str:
    """Returns what the driver calls a GPU, such as ``GPU-5ba1…``; empty of a CPU."""
    if device.type != "cuda":
        return ""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    return f"GPU-{uuid}" if uuid else ""


def group_backend(device: str) -> str:
    """Returns the backend of a process group over such devices: ``nccl`` of GPUs, else ``gloo``.

    Args:
        device: as for ``choose_device``.
    """
    return "nccl" if gpu_is_wanted(device) else "gloo"


def memory_is_full(error: RuntimeError) -> bool:
    """Says whether an error means that the GPU's memory did not suffice.

    Beside torch's allocator, its libraries take memory: a context of cuBLAS, a workspace of cuDNN,
    a communicator of NCCL. They say so in words alone.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return any(sign in str(error) for sign in _MEMORY_IS_FULL)


@contextlib.contextmanager
def explain_full_memory(what: str, advice: str) -> Iterator[None]:
    """Turns "out of memory" of a GPU into one line.

    Args:
        what: was being done, such as the output's folder.
        advice: a sentence on what to lower.

    Raises:
        NaktError: the memory is full.
    """
    try:
        yield
    except RuntimeError as error:
        if not memory_is_full(error):
            raise
        first = str(error).splitlines()[0]
        raise NaktError(f"{what}: the GPU's memory is full ({first}). {advice}") from None
