"""torch's optimisers, without the compiler that torch imports beside them."""

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from nakt_dist.config import RecipeConfig

_MARKED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def make_optimiser(
    recipe: RecipeConfig, trained: Iterable[torch.Tensor], bare: bool = True
) -> Optimizer:
    """Returns the recipe's optimiser of some parameters.

    Weight decay leaves biases and the scales and shifts of norms alone: what has less than two
    dimensions. Without it all are one group.

    Args:
        bare: without torch's marks for its compiler, see ``without_compiler``.
    """
    chosen = recipe.optimiser
    settings: dict[str, Any] = {"lr": recipe.learning_rate, "weight_decay": chosen.weight_decay}
    if chosen.name == "sgd":
        settings |= {"momentum": chosen.momentum or 0.0, "nesterov": chosen.nesterov}
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[
        chosen.name
    ]
    everything = list(trained)
    groups: list[dict[str, Any]] = [{"params": everything}]
    if chosen.weight_decay:
        decayed = [each for each in everything if each.ndim > 1]
        rest = [each for each in everything if each.ndim <= 1]
        groups = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    filled = [group for group in groups if group["params"]]
    return (without_compiler(kind) if bare else kind)(filled, **settings)


def without_compiler(kind: type[Optimizer]) -> type[Optimizer]:
    """Returns a kind of optimiser that computes what torch's does, where nobody compiles it.

    torch marks these methods as not to be compiled, and for that imports its compiler, which takes
    longer than the first step of a small network. Here they are as they were before the mark.
    """
    move = inspect.unwrap(kind.step)

    @torch.no_grad()
    def step(self: Optimizer, closure: Callable[[], float] | None = None) -> Any:
        """Moves the parameters by their gradients; arguments and answer as torch's."""
        return move(self, closure)

    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _MARKED}
    return type(kind.__name__, (kind,), {**methods, "step": step})
