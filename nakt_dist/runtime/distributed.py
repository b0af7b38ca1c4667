"""The process group, through Accelerate."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from nakt_dist.errors import NaktError
from nakt_dist.runtime.devices import gpu_is_wanted
from nakt_dist.runtime.processes import process_place

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
"""How long a process waits for its peers before it gives up with an error."""


def make_accelerator(precision: str, device: str) -> Accelerator:
    """Joins the process group of this launch, if there is one.

    Args:
        precision: ``no``, ``bf16`` or ``fp16``.
        device: ``auto`` or ``cpu``.

    Raises:
        NaktError: the launcher started several processes but no group came about.
    """
    on_cpu = not gpu_is_wanted(device)
    expected = process_place().world_size
    group = InitProcessGroupKwargs(backend="gloo" if on_cpu else "nccl", timeout=COLLECTIVE_TIMEOUT)
    # An earlier stage of this process may have had another precision.
    AcceleratorState._reset_state()
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        # With a backend named, one plain process would be taken for a group that is not there.
        kwargs_handlers=[group] if expected > 1 else None,
    )
    if accelerator.num_processes != expected:
        raise NaktError(
            f"the launcher set WORLD_SIZE={expected}, but the process group has "
            f"{accelerator.num_processes} processes. Start with accelerate launch "
            "(--cpu where there is no GPU) or torchrun"
        )
    return accelerator


def gather_rows(accelerator: Accelerator, pieces: Sequence[torch.Tensor], count: int) -> np.ndarray:
    """Joins what the processes computed of the items rank, rank + world size, …, in item order.

    Args:
        accelerator: of this launch.
        pieces: this process's rows, each (n, D), float64; may be empty.
        count: number of items over all processes, each computed by exactly one.

    Returns:
        float64 (count, D), alike on all processes.
    """
    if accelerator.num_processes == 1:
        return torch.cat(list(pieces)).cpu().numpy()
    world = accelerator.num_processes
    width = accelerator.reduce(
        torch.tensor(pieces[0].shape[1] if pieces else 0, device=accelerator.device)
        * (accelerator.process_index == 0),
        "sum",
    )  # a process without an item does not know how wide a row is; the first always has one
    rows = torch.zeros(
        (-(-count // world), int(width)), dtype=torch.float64, device=accelerator.device
    )
    if pieces:
        own = torch.cat(list(pieces))
        rows[: len(own)] = own
    gathered = accelerator.gather(rows).reshape(world, len(rows), -1)
    return gathered.transpose(0, 1).reshape(-1, gathered.shape[-1])[:count].cpu().numpy()


def average_buffers(accelerator: Accelerator, network: torch.nn.Module) -> None:
    """Makes BatchNorm statistics and other float buffers agree on all processes: their mean."""
    if accelerator.num_processes == 1:
        return
    for buffer in network.buffers():
        if buffer.is_floating_point():
            buffer.copy_(accelerator.reduce(buffer.detach().clone(), "mean"))
