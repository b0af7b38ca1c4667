"""Adam as torch has it, without the compiler that torch imports beside it."""

import inspect
from collections.abc import Callable
from typing import Any

import torch


class Adam(torch.optim.Adam):
    """Computes what torch's does, where nobody compiles the optimiser.

    torch marks these methods as not to be compiled, and for that imports its compiler, which takes
    longer than the first step of a small network. Here they are as they were before the mark.
    """

    add_param_group = inspect.unwrap(torch.optim.Adam.add_param_group)
    load_state_dict = inspect.unwrap(torch.optim.Adam.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Adam.state_dict)
    zero_grad = inspect.unwrap(torch.optim.Adam.zero_grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Moves the parameters by their gradients; arguments and answer as torch's."""
        return _STEP(self, closure)


_STEP = inspect.unwrap(torch.optim.Adam.step)
