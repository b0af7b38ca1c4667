"""A network and its optimiser, in one process or copied to many (DDP)."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from accelerate import Accelerator
from torch import nn

from nakt_dist.config import RecipeConfig
from nakt_dist.errors import CheckpointError
from nakt_dist.runtime.distributed import average_buffers, share_buffers_of_main
from nakt_dist.training.average import Average
from nakt_dist.training.checkpoint import Moments, TrainingState
from nakt_dist.training.optimisers import make_optimiser
from nakt_dist.training.tasks import TrainingTask


class Learner:
    """Takes optimiser steps on a network.

    Args:
        network: on its device, with the weights to go on from, or their average.
        state: what ``training_state`` returned when the checkpoint was written, or None.
    """

    _bare_optimiser = True

    def __init__(
        self,
        accelerator: Accelerator,
        network: nn.Module,
        task: TrainingTask,
        recipe: RecipeConfig,
        state: TrainingState | None,
    ) -> None:
        self._accelerator = accelerator
        self._recipe = recipe
        self.network = network
        copied = None if recipe.ema_decay is None else copy.deepcopy(network)
        if state is not None and state.weights is not None:
            network.load_state_dict(state.weights)
        # Taps are set before anything is compiled or wrapped: later ones would never be reached.
        module = task.wrap(network)
        self._beside = _parameters_beside(network, module)
        if state is not None:
            _set_beside(self._beside, state.beside)
        learns = {name: p for name, p in network.named_parameters() if p.requires_grad}
        self.trained = learns | self._beside
        optimiser = make_optimiser(recipe, self.trained.values(), self._bare_optimiser)
        names = {parameter: name for name, parameter in self.trained.items()}
        # As the optimiser numbers them.
        self._names = [names[p] for group in optimiser.param_groups for p in group["params"]]
        self._prepare(module, optimiser, state)
        self._average = None
        if copied is not None and recipe.ema_decay is not None:
            # After prepare, which may put other buffers in the place of those there were.
            self._average = Average(copied, network, recipe.ema_decay)
        # Compiled on top of what prepare returns; parameters stay those of the bare network.
        self.module = torch.compile(self._prepared) if recipe.compile else self._prepared

    def _prepare(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, state: TrainingState | None
    ) -> None:
        if state is not None:
            check_names(self.trained, state.moments)
            numbered = {
                number: _laid_out_like(self.trained[name], state.moments[name])
                for number, name in enumerate(self._names)
                if name in state.moments
            }
            optimiser.load_state_dict({**optimiser.state_dict(), "state": numbered})
        # To find out that it may place them, Accelerate would import torch's divided tensors.
        self._prepared, self._optimiser = self._accelerator.prepare(
            module, optimiser, device_placement=[True, True]
        )
        # Accelerate has moved Adam's counters to the GPU, too, where it would wait for each of
        # them at every step; in a run that was never interrupted they stay on the CPU.
        for moments in optimiser.state.values():
            if "step" in moments:
                moments["step"] = moments["step"].cpu()
        if state is not None and self._accelerator.scaler is not None and state.scaler:
            self._accelerator.scaler.load_state_dict(state.scaler)

    def begin_step(self, learning_rate: float) -> None:
        """Sets the mode and the learning rate of a step."""
        if not self.network.training:  # it was scored; a large network has hundreds of parts
            self._prepared.train()
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate

    def micro_batch(self) -> AbstractContextManager[None]:
        """Surrounds forward and backward of one micro-batch; gradients meet in the last one."""
        return self._accelerator.accumulate(self._prepared)

    def autocast(self) -> AbstractContextManager[None]:
        """Surrounds forward passes."""
        return self._accelerator.autocast()

    def backward(self, loss: torch.Tensor) -> None:
        """Adds the gradients of a micro-batch's mean loss, divided by their number."""
        self._accelerator.backward(loss)

    def gradients_are_finite(self) -> torch.Tensor:
        """Says whether all gradients are numbers, a scalar bool that nobody has waited for yet.

        Those of a scaled loss are judged by its scaler.
        """
        gradients = [each.grad for each in self.trained.values() if each.grad is not None]
        if self._accelerator.scaler is not None or not gradients:
            return torch.tensor(True, device=self._accelerator.device)
        return torch.nn.utils.get_total_norm(gradients).isfinite()

    def end_step(self, done: int) -> None:
        """Moves the weights by the gradients gathered.

        Args:
            done: steps taken, with this one.
        """
        if self._recipe.largest_gradient_norm is not None:
            self._accelerator.clip_grad_norm_(
                self._prepared.parameters(), self._recipe.largest_gradient_norm
            )
        self._optimiser.step()
        self._optimiser.zero_grad()
        if self._average is not None:
            self._average.update(done)

    def copy_of_buffers(self) -> list[torch.Tensor]:
        """Returns BatchNorm's statistics and other buffers as they are, for ``drop_step``."""
        return [buffer.detach().clone() for buffer in self.network.buffers()]

    def drop_step(self, buffers: Sequence[torch.Tensor]) -> None:
        """Forgets the gradients gathered, and what the forward passes did to the buffers."""
        self._optimiser.zero_grad()
        for buffer, before in zip(self.network.buffers(), buffers, strict=True):
            buffer.copy_(before)

    def average_buffers(self) -> None:
        """Makes BatchNorm's statistics agree on all processes."""
        average_buffers(self._accelerator, self.network)
        if self._average is not None:
            # Those of the first process, as a checkpoint between two scorings has them.
            share_buffers_of_main(self._accelerator, self._average.network)

    def whole_network(self) -> nn.Module:
        """Returns the network with whole weights, alike on all processes, to score or save.

        Where weights are averaged it holds their average. A collective operation: all processes
        call it.
        """
        return self.network if self._average is None else self._average.network

    def training_state(self) -> TrainingState:
        """Returns what ``state`` takes; a collective operation: all processes call it."""
        scaler = self._accelerator.scaler
        return TrainingState(
            self._moments(),
            None if scaler is None else scaler.state_dict(),
            self._whole_beside(),
            None if self._average is None else self.network.state_dict(),
        )

    def _whole_beside(self) -> dict[str, torch.Tensor]:
        return dict(self._beside)

    def _moments(self) -> Moments:
        numbered = self._optimiser.state_dict()["state"]
        return {self._names[number]: dict(moments) for number, moments in numbered.items()}


def _parameters_beside(network: nn.Module, module: nn.Module) -> dict[str, nn.Parameter]:
    """Names the parameters that signals have put around a network; no name is the network's."""
    own = set(network.parameters())
    return {f"beside/{name}": p for name, p in module.named_parameters() if p not in own}


@torch.no_grad()
def _set_beside(parameters: Mapping[str, nn.Parameter], values: Mapping[str, torch.Tensor]) -> None:
    """Gives what is trained beside a network the values of a checkpoint.

    Raises:
        CheckpointError: it holds those of other parameters.
    """
    if parameters.keys() != values.keys():
        raise CheckpointError(
            f"the checkpoint has {sorted(values) or 'nothing'} beside the network, expected "
            f"{sorted(parameters) or 'nothing'}. Choose another --output, or delete the folder"
        )
    for name, parameter in parameters.items():
        parameter.copy_(values[name])


def _laid_out_like(
    parameter: torch.Tensor, moments: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Gives a parameter's moments its memory layout, which files do not keep."""
    return {
        kind: value if value.ndim == 0 else torch.empty_like(parameter).copy_(value)
        for kind, value in moments.items()
    }


def check_names(trained: Iterable[str], moments: Moments) -> None:
    """Refuses a checkpoint of other parameters; one without a gradient so far has no moments.

    Raises:
        CheckpointError: the checkpoint knows a parameter that is not trained.
    """
    unknown = sorted(set(moments) - set(trained))
    if unknown:
        raise CheckpointError(
            f"the checkpoint's optimiser knows parameters that are not trained now "
            f"({', '.join(unknown[:5])}). Choose another --output, or delete the folder"
        )
