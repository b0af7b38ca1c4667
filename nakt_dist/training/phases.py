"""The parts of a step that a profile tells apart."""

from contextlib import AbstractContextManager, nullcontext
from enum import StrEnum

import torch

_UNRECORDED: AbstractContextManager[None] = nullcontext()


class Phase(StrEnum):
    """What a training process does at a moment, in the words of its trace and page."""

    WAITING = "waiting for data"
    COPY = "copy"
    AUGMENTATION = "augmentation"
    FORWARD = "forward"
    BACKWARD = "backward"
    OPTIMISER = "optimiser"
    LOGGING = "logging"
    CHECKPOINT = "checkpoint"
    VALIDATION = "validation"
    PEERS = "other processes"
    IDLE = "idle"


def phase(name: Phase) -> AbstractContextManager[None]:
    """Surrounds a phase: a range of the trace while torch's profiler records, and else nothing."""
    if torch.autograd._profiler_enabled():
        return torch.autograd.profiler.record_function(name.value)
    return _UNRECORDED
