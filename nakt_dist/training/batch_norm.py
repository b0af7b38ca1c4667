"""BatchNorm whose statistics are those of all processes' images, on the CPU as on GPUs.

``torch.nn.SyncBatchNorm`` runs on GPUs alone and is another module. Here a network's own
BatchNorms keep their place, names, parameters and buffers, and learn to ask the others.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from nakt_dist.errors import ConfigurationError


def synchronise_batch_norm(network: nn.Module) -> int:
    """Makes the BatchNorms of a network use the images of all processes while they train.

    One process computes what it always did. Call it before taps, DDP or DeepSpeed are put around
    the network; the names in its state dict stay.

    Returns:
        How many BatchNorms there are.

    Raises:
        ConfigurationError: a BatchNorm computes in a way of its own, which would be lost.
    """
    found = {name: each for name, each in network.named_modules() if isinstance(each, _BatchNorm)}
    for name, module in found.items():
        kind = type(module)
        if kind.forward is not _BatchNorm.forward and not _has_activation(module):
            raise ConfigurationError(
                f"recipe.synchronised_batch_norm: '{name}' is a {kind.__name__}, which computes in "
                "a way of its own; set it to false, or take another network"
            )
    normalise = _normalise_together
    if distributed.is_initialized():  # one process need not import torch's compiler, for seconds
        normalise = torch.compiler.disable(normalise)
    for module in found.values():
        kind = type(module)
        first = _SynchronisedWithActivation if _has_activation(module) else _Synchronised
        module.__class__ = type(
            f"Synchronised{kind.__name__}", (first, kind), {"_normalise": normalise}
        )
    return len(found)


def _has_activation(module: nn.Module) -> bool:
    """Says whether a BatchNorm is timm's, which drops and activates what it has normalised."""
    if type(module).forward is _BatchNorm.forward:
        return False
    from timm.layers import BatchNormAct2d  # takes seconds, and most networks have none

    return type(module).forward is BatchNormAct2d.forward


class _Synchronised(_BatchNorm):
    """Comes before the class of a BatchNorm."""

    _normalise: Callable[[Tensor], Tensor]

    def forward(self, values: Tensor) -> Tensor:
        if not _is_together(self):
            return super().forward(values)
        return self._normalise(values)


class _SynchronisedWithActivation(_Synchronised):
    """Comes before timm's BatchNorm."""

    def forward(self, values: Tensor) -> Tensor:
        values = super().forward(values)
        if not _is_together(self):
            return values
        return self.get_submodule("act")(self.get_submodule("drop")(values))


def _is_together(module: nn.Module) -> bool:
    """Says whether statistics are exchanged; else a BatchNorm computes what it always did."""
    together = module.training and distributed.is_initialized()
    return together and distributed.get_world_size() > 1


def _normalise_together(module: Any, values: Tensor) -> Tensor:
    """Normalises (N, C, …) by the statistics of all processes, and updates the running ones."""
    module._check_input_dim(values)
    normalised, mean, variance, count = _Normalisation.apply(
        values, module.weight, module.bias, module.eps
    )
    if module.track_running_stats:
        if module.num_batches_tracked is not None:
            module.num_batches_tracked.add_(1)
        share = module.momentum
        if share is None:  # the mean over all steps so far
            share = 1 / float(module.num_batches_tracked)
        module.running_mean.lerp_(mean.to(module.running_mean), share)
        unbiased = variance * (count / (count - 1))
        module.running_var.lerp_(unbiased.to(module.running_var), share)
    return normalised


class _Normalisation(torch.autograd.Function):
    """(x − mean) / √(variance + ε) · weight + bias, over the values of all processes.

    The processes may hold unlike numbers of values. Statistics meet as float64.
    """

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        exact = values.to(torch.promote_types(values.dtype, torch.float32))
        dimensions = [0, *range(2, values.ndim)]
        own_variance, own_mean = torch.var_mean(exact, dimensions, correction=0)
        own_count = own_mean.new_full((1,), exact.numel() / exact.shape[1])
        own = torch.cat([own_mean, own_variance, own_count]).double()
        gathered = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(gathered, own)
        means, variances, counts = torch.stack(gathered).split(
            [len(own_mean), len(own_mean), 1], dim=1
        )
        count = counts.sum()
        if count <= 1:
            raise ValueError(
                "Expected more than 1 value per channel when training, got input size "
                f"{tuple(values.shape)} on each process"
            )
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(values, weight, mean.to(exact), scale.to(exact))
        ctx.count = count
        ctx.mark_non_differentiable(mean, variance, count)
        shape = _per_channel(values)
        normalised = (exact - mean.to(exact).view(shape)) * scale.to(exact).view(shape)
        if weight is not None and bias is not None:  # either both or neither
            normalised = normalised * weight.view(shape) + bias.view(shape)
        return normalised.to(values.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        values, weight, mean, scale = ctx.saved_tensors
        shape, dimensions = _per_channel(values), [0, *range(2, values.ndim)]
        gradient = gradient.to(mean.dtype)
        normalised = (values.to(mean.dtype) - mean.view(shape)) * scale.view(shape)
        own = torch.stack([gradient.sum(dimensions), (gradient * normalised).sum(dimensions)])
        to_bias, to_weight = own if weight is not None else (None, None)
        if not ctx.needs_input_grad[0]:
            return None, to_weight, to_bias, None
        sums = own.to(torch.float64, copy=True)
        distributed.all_reduce(sums)
        first, second = (sums / ctx.count).to(mean.dtype)
        to_values = gradient - first.view(shape) - normalised * second.view(shape)
        factor = scale if weight is None else scale * weight
        return (to_values * factor.view(shape)).to(values.dtype), to_weight, to_bias, None


def _per_channel(values: Tensor) -> list[int]:
    return [1, -1] + [1] * (values.ndim - 2)
