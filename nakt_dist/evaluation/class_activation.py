"""Which places of an image speak for a finding: class activation maps.

Two kinds: where a network pools its last feature map into one linear layer (DenseNet and most
classifiers), each place's share of the logit (Zhou et al. 2016, arXiv 1512.04150), which is
exact; for any other network Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) at a layer.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nakt_dist.models.heads import SoftmaxHead
from nakt_dist.models.planes import as_planes, upright

_TOLERANCE = 1e-4


@dataclass(frozen=True)
class PooledFeatures:
    """The end of a network whose logits are linear in the mean of a feature map.

    Attributes:
        module: gives the map (N, F, h, w).
        head: the linear layer from the F means to the logits.
        rectified: whether a ReLU lies between the map and its mean.
    """

    module: nn.Module
    head: nn.Linear
    rectified: bool


@torch.no_grad()
def find_pooled_features(network: nn.Module, image: torch.Tensor) -> PooledFeatures | None:
    """Finds the map that a classifier pools, by looking at numbers and not at names.

    Whatever the network is called, a module's output is that map when its mean over places is
    what the last linear layer receives.

    Args:
        network: in eval mode.
        image: float (N, C, H, W), as the network wants it.

    Returns:
        Where the map and the layer are; None when the network does not end so, as where the
        logits are those of a softmax, of which no place has a share.
    """
    inputs: dict[nn.Linear, torch.Tensor] = {}
    outputs: dict[nn.Module, torch.Tensor] = {}

    def keep(module: nn.Module, arguments: tuple, output: Any) -> None:
        if isinstance(module, nn.Linear) and arguments[0].ndim == 2:
            inputs[module] = arguments[0]
            outputs[module] = output
        elif isinstance(output, torch.Tensor) and output.ndim == 4:
            outputs[module] = output

    logits = _with_hooks(network, image, list(network.modules()), keep)
    heads = [
        module
        for module in inputs
        if torch.equal(outputs[module], logits) and not isinstance(module, SoftmaxHead)
    ]
    if not heads:
        return None
    means = inputs[heads[-1]]
    found = []
    for module, features in outputs.items():
        if features.ndim != 4 or features.shape[:2] != means.shape:
            continue
        if features.shape[2:].numel() == 1:  # pooled already, and its own mean
            continue
        if _is_mean(features, means):
            found.append(PooledFeatures(module, heads[-1], rectified=False))
        elif _is_mean(features.relu(), means):
            found.append(PooledFeatures(module, heads[-1], rectified=True))
    return found[-1] if found else None


def _is_mean(features: torch.Tensor, means: torch.Tensor) -> bool:
    tolerance = _TOLERANCE * float(means.abs().max())
    return torch.allclose(features.mean((2, 3)), means, rtol=_TOLERANCE, atol=tolerance)


@torch.no_grad()
def exact_class_activation(
    network: nn.Module, pooled: PooledFeatures, image: torch.Tensor, outputs: Sequence[int]
) -> torch.Tensor:
    """Returns each place's share of some logits.

    The mean of a map over its places, plus the linear layer's bias, is the logit.

    Args:
        network: in eval mode.
        pooled: its end, from ``find_pooled_features``.
        image: float (N, C, H, W), as the network wants it.
        outputs: numbers of the logits.

    Returns:
        float32 (N, len(outputs), h, w), of either sign.
    """
    kept: list[torch.Tensor] = []
    _with_hooks(network, image, [pooled.module], lambda module, _, output: kept.append(output))
    features = kept[-1].float()
    features = features.relu() if pooled.rectified else features
    weight = pooled.head.weight[list(outputs)].float()
    return upright(torch.einsum("kf,nfhw->nkhw", weight, features), network)


def gradient_class_activation(
    network: nn.Module, module: nn.Module, image: torch.Tensor, outputs: Sequence[int]
) -> torch.Tensor:
    """Returns Grad-CAM maps of some logits at a layer.

    Args:
        network: in eval mode, without gradients.
        module: the layer; gives planes (N, F, h, w), or what can be brought to them.
        image: float (N, C, H, W), as the network wants it.
        outputs: numbers of the logits.

    Returns:
        float32 (N, len(outputs), h, w), 0 or more: planes weighted by the logit's mean gradient
        on each, negative places cut off.
    """
    kept: list[torch.Tensor] = []

    def restart(module: nn.Module, _: tuple, output: torch.Tensor) -> torch.Tensor:
        kept.append(output.detach().requires_grad_(True))
        return kept[-1].clone()  # what follows may write into it

    with torch.enable_grad():
        logits = _with_hooks(network, image, [module], restart)
        maps = []
        for output in outputs:
            gradient = torch.autograd.grad(logits[:, output].sum(), kept[-1], retain_graph=True)[0]
            activation, gradient = (
                as_planes(each, network, module, image, "of Grad-CAM")
                for each in (kept[-1].detach(), gradient)
            )
            weighted = activation * gradient.mean((2, 3), keepdim=True)
            maps.append(weighted.sum(1).relu().float())
    return torch.stack(maps, dim=1)


def _with_hooks(
    network: nn.Module, image: torch.Tensor, modules: Sequence[nn.Module], hook: Callable
) -> torch.Tensor:
    """Runs the network with a forward hook on some modules, and takes the hooks off again."""
    with ExitStack() as hooks:
        for module in modules:
            hooks.callback(module.register_forward_hook(hook).remove)
        return network(image)
