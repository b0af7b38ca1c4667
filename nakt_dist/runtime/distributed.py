"""The process group, through Accelerate, and what its processes agree on."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs
from torch import distributed

from nakt_dist.errors import ConfigurationError, NaktError, StartAgain
from nakt_dist.runtime.deepspeed_launch import uses_deepspeed
from nakt_dist.runtime.devices import gpu_is_wanted, group_backend
from nakt_dist.runtime.files import differing_fields
from nakt_dist.runtime.launch_check import check_launch
from nakt_dist.runtime.preemption import StopRequests
from nakt_dist.runtime.processes import process_place

Value = TypeVar("Value")

_PEER_IS_GONE = (
    "Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting",
    "Connection refused", "Socket Timeout", "recvBytes", "sendBytes",
)  # fmt: skip


def make_accelerator(
    precision: str,
    device: str,
    accumulation: int = 1,
    deepspeed: Callable[[], Mapping[str, Any]] = dict,
    timeout: timedelta = timedelta(minutes=10),
) -> Accelerator:
    """Joins the process group of this launch, if there is one.

    Args:
        precision: ``no``, ``bf16`` or ``fp16``.
        device: ``auto`` or ``cpu``.
        accumulation: micro-batches per optimiser step.
        deepspeed: asked, where the launch wants DeepSpeed, for settings that replace those of its
            configuration, such as ``gradient_clipping``.
        timeout: how long a process waits for its peers before it gives up with an error.

    Raises:
        ConfigurationError: as ``check_launch``, and what ``deepspeed`` raises.
        NaktError: the launcher started several processes but no group was formed.
    """
    settings = deepspeed() if uses_deepspeed() else {}
    plugin = check_launch(precision, device)
    if plugin is not None:
        plugin.deepspeed_config.update(settings)
    expected = process_place().world_size
    group = InitProcessGroupKwargs(backend=group_backend(device), timeout=timeout)
    # An earlier stage of this process may have had another precision, and another device.
    AcceleratorState._reset_state(reset_partial_state=not distributed.is_initialized())
    try:
        accelerator = Accelerator(
            # Accelerate takes cpu=True for "no DeepSpeed".
            cpu=plugin is None and not gpu_is_wanted(device),
            mixed_precision=precision if plugin is None else "no",
            # Named, so that no variable decides on them.
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=accumulation),
            dynamo_backend="no",
            deepspeed_plugin=plugin,
            # With a backend named, one plain process would be taken for an absent group.
            kwargs_handlers=[group] if expected > 1 or plugin is not None else None,
        )
    except (ValueError, KeyError, AssertionError) as error:
        AcceleratorState._reset_state(reset_partial_state=True)
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"accelerate refuses this launch: {reason}. Mend its configuration file, or the "
            "ACCELERATE_… and launcher variables of this process"
        ) from None
    if accelerator.num_processes != expected:
        raise NaktError(
            f"the launcher set WORLD_SIZE={expected}, but the process group has "
            f"{accelerator.num_processes} processes. Start with accelerate launch "
            "(--cpu where there is no GPU) or torchrun"
        )
    return accelerator


class Agreement:
    """Decisions that all processes of a launch take alike.

    They talk over a group of their own on the CPU, which costs a fraction of a millisecond and
    never waits for a GPU.
    """

    def __init__(self, accelerator: Accelerator, timeout: timedelta) -> None:
        self._group: Any = None
        self._is_main = accelerator.is_main_process
        if accelerator.num_processes > 1:
            self._group = distributed.new_group(backend="gloo", timeout=timeout)

    def largest(self, value: int) -> int:
        """Returns the largest of the processes' values."""
        return self.largest_of([value])[0]

    def largest_of(self, values: Sequence[int]) -> list[int]:
        """Returns of each value the largest over the processes, in one exchange."""
        if self._group is None:
            return list(values)
        shared = torch.tensor(values, dtype=torch.int64)
        distributed.all_reduce(shared, distributed.ReduceOp.MAX, group=self._group)
        return shared.tolist()

    def check_alike(self, started: Mapping[str, Any]) -> None:
        """Refuses processes that were not started alike: they would learn different things.

        Args:
            started: settings, data and the like; plain values.

        Raises:
            ConfigurationError: names what differs, on every process.
        """
        if self._group is None:
            return
        gathered: list[Any] = [None] * distributed.get_world_size(self._group)
        distributed.all_gather_object(gathered, dict(started), group=self._group)
        for rank, theirs in enumerate(gathered):
            differences = differing_fields(theirs, gathered[0])
            if differences:
                raise ConfigurationError(
                    f"process {rank} was started otherwise than process 0, whose values are those "
                    f"expected ({'; '.join(differences[:5])}). Start all of them with the same "
                    "command, files and versions; once more where a file was not seen yet"
                )

    def of_main(self, decide: Callable[[], Value]) -> Value:
        """Lets the main process decide for all.

        Args:
            decide: called on the main process alone.

        Raises:
            NaktError: what ``decide`` raised, on every process.
        """
        if self._group is None:
            return decide()
        answer: list[Any] = [None, None]
        if self._is_main:
            try:
                answer[0] = decide()
            except NaktError as error:
                answer[1] = error
        distributed.broadcast_object_list(answer, src=0, group=self._group)
        if answer[1] is not None:
            raise answer[1]
        return answer[0]


@contextlib.contextmanager
def explain_lost_peers(stop: StopRequests) -> Iterator[None]:
    """Turns what a process meets when a peer has ended into one clear error.

    Args:
        stop: signals that this process was sent.

    Raises:
        NaktError: a peer is gone, or does not answer within the timeout.
        StartAgain: the same, where all were asked to leave, and the peer was quicker.
    """
    try:
        yield
    except RuntimeError as error:
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise NaktError(
                f"port {os.environ.get('MASTER_PORT')} is taken, at which the processes were to "
                "meet. Choose another (--main_process_port, --master_port, MASTER_PORT)"
            ) from None
        lost = isinstance(error, distributed.DistError)
        if not lost and not any(sign in str(error) for sign in _PEER_IS_GONE):
            raise
        first = str(error).splitlines()[0]
        if stop.received:
            raise StartAgain(
                f"asked to leave by {stop.name}, and another process has left already. Start the "
                "same command again to go on from the last checkpoint"
            ) from None
        raise NaktError(
            f"another process of this job has ended or does not answer at "
            f"{os.environ.get('MASTER_ADDR')} ({first}). Its own message says why; start the same "
            "command again to go on from the last checkpoint"
        ) from None


def gather_rows(accelerator: Accelerator, pieces: Sequence[torch.Tensor], count: int) -> np.ndarray:
    """Joins what the processes computed of the items rank, rank + world size, …, in item order.

    Args:
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
    for alike in _alike(each for each in network.buffers() if each.is_floating_point()):
        _give_back(accelerator.reduce(_joined(alike), "mean"), alike)


def share_buffers_of_main(accelerator: Accelerator, network: torch.nn.Module) -> None:
    """Gives all processes the main one's buffers, as DDP does before each step."""
    if accelerator.num_processes == 1:
        return
    for alike in _alike(network.buffers()):
        joined = _joined(alike)
        distributed.broadcast(joined, src=0)
        _give_back(joined, alike)


def _alike(buffers: Iterable[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Groups tensors by dtype: hundreds of small ones travel as a few."""
    groups: dict[torch.dtype, list[torch.Tensor]] = {}
    for buffer in buffers:
        groups.setdefault(buffer.dtype, []).append(buffer.detach())
    return list(groups.values())


def _joined(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([each.reshape(-1) for each in tensors])


def _give_back(joined: torch.Tensor, tensors: Sequence[torch.Tensor]) -> None:
    """Copies what ``_joined`` made back into its parts."""
    pieces = joined.split([each.numel() for each in tensors])
    for tensor, piece in zip(tensors, pieces, strict=True):
        tensor.copy_(piece.view(tensor.shape))
