"""A network and its optimiser divided among processes: DeepSpeed's ZeRO 1, 2 and 3."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn

from nakt_dist.config import RecipeConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.loading.sampler import Share
from nakt_dist.runtime.distributed import share_buffers_of_main
from nakt_dist.training.checkpoint import Moments, TrainingState
from nakt_dist.training.learner import Learner, check_names

_KINDS = ("exp_avg", "exp_avg_sq")


def deepspeed_settings(recipe: RecipeConfig, share: Share) -> dict[str, Any]:
    """Returns what a recipe means to DeepSpeed.

    Raises:
        ConfigurationError: the recipe asks for what cannot be had together with DeepSpeed.
    """
    refused = {
        "recipe.precision fp16": recipe.precision == "fp16",
        "recipe.compile": recipe.compile,
        "recipe.not_finite skip": recipe.not_finite == "skip",
        "recipe.optimiser.name sgd": recipe.optimiser.name == "sgd",
        "recipe.ema_decay": recipe.ema_decay is not None,
    }
    for name, asked in refused.items():
        if asked:
            raise ConfigurationError(
                f"{name} cannot be had with DeepSpeed here. Take bf16 or no for precision and adam "
                "or adamw as optimiser, switch the others off, or start with "
                "configs/accelerate/ddp.yaml"
            )
    settings: dict[str, Any] = {
        "train_batch_size": share.batch_size,
        "train_micro_batch_size_per_gpu": share.micro_batch_size,
        "gradient_accumulation_steps": share.accumulation,
        # 0 is "never"; left out, Accelerate would clip at 1.
        "gradient_clipping": recipe.largest_gradient_norm or 0.0,
    }
    if recipe.precision == "bf16":
        # Weights and BatchNorm's statistics stay float32, and gradients meet as float32: like DDP.
        settings["torch_autocast"] = {
            "enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": [],
        }  # fmt: skip
    return settings


class ZeroLearner(Learner):
    """Takes optimiser steps with DeepSpeed's engine.

    Scoring and saving work on a plain copy of the network that gets the whole weights when they
    are asked for: what the engine divides never meets a process that others do not wait for.
    """

    _bare_optimiser = False  # DeepSpeed takes no class that it does not know

    def _prepare(
        self, module: nn.Module, optimiser: torch.optim.Optimizer, state: TrainingState | None
    ) -> None:
        self._copy = copy.deepcopy(self.network).requires_grad_(False)
        self._prepared, self._optimiser = self._accelerator.prepare(module, optimiser)
        self._zero = self._prepared.optimizer
        if state is not None:
            check_names(self.trained, state.moments)
            self._set_moments(state.moments)

    def begin_step(self, learning_rate: float) -> None:
        """Sets mode and learning rate, and shares BatchNorm's statistics as DDP would."""
        super().begin_step(learning_rate)
        share_buffers_of_main(self._accelerator, self.network)

    def autocast(self) -> AbstractContextManager[None]:
        """Surrounds forward passes; the engine's own settings say the same."""
        if self._recipe.precision == "no":
            return nullcontext()
        return torch.autocast(self._accelerator.device.type, torch.bfloat16)

    def gradients_are_finite(self) -> torch.Tensor:
        """Says whether the engine took the step; it passes over one that is not finite."""
        return torch.tensor(not self._zero.overflow, device=self._accelerator.device)

    def end_step(self, done: int) -> None:
        """Does nothing: the engine has moved the weights in the last ``backward``."""

    def whole_network(self) -> nn.Module:
        """Returns the plain copy, brought up to date."""
        from deepspeed.utils import safe_get_full_fp32_param

        copies = dict(self._copy.named_parameters())
        with torch.no_grad():
            for name, parameter in self.trained.items():
                if name in copies:
                    copies[name].copy_(safe_get_full_fp32_param(parameter))
            for mine, current in zip(self._copy.buffers(), self.network.buffers(), strict=True):
                mine.copy_(current)
        return self._copy

    def _whole_beside(self) -> dict[str, torch.Tensor]:
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: safe_get_full_fp32_param(p) for name, p in self._beside.items()}

    def _moments(self) -> Moments:
        from deepspeed.utils import safe_get_full_optimizer_state

        states = list(self._zero.optimizer.state.values())
        if not states or "step" not in states[0]:  # no step was taken yet
            return {}
        self._link_moments()
        step = states[0]["step"]
        return {
            name: {
                "step": torch.as_tensor(step, dtype=torch.float32).clone(),
                **{kind: safe_get_full_optimizer_state(p, kind).cpu() for kind in _KINDS},
            }
            for name, p in self.trained.items()
        }

    def _set_moments(self, moments: Moments) -> None:
        """Gives each process its part of Adam's state, which the engine makes at its first step."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if not moments:  # no step was taken yet
            return
        step = next(iter(moments.values()))["step"]
        for flat in _flat_partitions(self._zero):
            zeros = {kind: torch.zeros_like(flat.data) for kind in _KINDS}
            self._zero.optimizer.state[flat] = {"step": step.clone(), **zeros}
        self._link_moments()
        known = {name: each for name, each in self.trained.items() if name in moments}
        for name, parameter in known.items():
            for kind in _KINDS:
                value = moments[name][kind].to(self._accelerator.device)
                if hasattr(parameter, "ds_tensor"):  # ZeRO 3, which does not pad what it is given
                    part = self._own_part(value, parameter.ds_tensor.numel())
                    safe_set_local_optimizer_state(parameter, part, kind)
                else:
                    safe_set_full_optimizer_state(parameter, value, kind)

    def _link_moments(self) -> None:
        """Lets parameters find their moments: ZeRO 1 and 2 see to the first group's alone."""
        if hasattr(self._zero, "_lazy_init_hp_params_optimizer_state"):
            self._zero._hp_optimizer_states_linked = False
            self._zero._lazy_init_hp_params_optimizer_state()

    def _own_part(self, value: torch.Tensor, size: int) -> torch.Tensor:
        """Returns this process's equal part of a tensor, (size,), padded with zeros at the end."""
        padded = value.new_zeros(size * self._accelerator.num_processes)
        padded[: value.numel()] = value.flatten()
        return padded[size * self._accelerator.process_index :][:size]


def _flat_partitions(zero: Any) -> list[torch.Tensor]:
    """Returns the flat float32 tensors that this process's Adam works on."""
    for name in ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat"):
        if hasattr(zero, name):  # ZeRO 1 and 2; ZeRO 3
            return list(getattr(zero, name))
    raise ConfigurationError(
        f"this version of DeepSpeed keeps its {type(zero).__name__} in an unknown way, so that no "
        "checkpoint can be resumed with it. Install the version that constraints.txt names"
    )
