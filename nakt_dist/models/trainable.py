"""Which parts of a network learn."""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.models.registry import NETWORKS
from nakt_dist.models.taps import find_module

_PARTS = {
    name: (owner, paths)
    for owner, network in reversed(NETWORKS.items())  # of networks with the same parts the first
    for name, paths in network.parts.items()
}


def select_trainable(network: nn.Module, parts: str | Sequence[str]) -> int:
    """Freezes all but some parts of a network; call it before an optimiser takes the parameters.

    Args:
        network: the bare network; its parameters' ``requires_grad`` is set.
        parts: ``all``; ``last34``, the last 34 layers of DenseNet-121 as paper B counts them
            (transition3, denseblock4, norm5 and the classifier: 2,700,814 parameters with 14
            outputs, where the paper's text says 2.4 million); or module paths.

    Returns:
        The number of trainable parameters.

    Raises:
        ConfigurationError: a part is unknown to this network or has no parameters.
    """
    modules = _modules_of(network, parts)
    network.requires_grad_(False)
    for module in modules:
        module.requires_grad_(True)
    return sum(each.numel() for each in network.parameters() if each.requires_grad)


def keep_frozen_statistics(network: nn.Module) -> int:
    """Puts BatchNorms that are not trained into eval mode; call it after every ``train()``.

    Without this a frozen BatchNorm goes on updating its running statistics and normalises by
    those of the batch, which is what the original code of paper B does.

    Returns:
        How many BatchNorms these are: those with parameters, all of them frozen.
    """
    frozen = 0
    for module in network.modules():
        parameters = list(module.parameters(recurse=False))
        if not isinstance(module, _BatchNorm) or not parameters:
            continue
        if not any(each.requires_grad for each in parameters):
            module.eval()
            frozen += 1
    return frozen


def _modules_of(network: nn.Module, parts: str | Sequence[str]) -> list[nn.Module]:
    if parts == "all":
        return [network]
    if isinstance(parts, str):
        if parts not in _PARTS:
            known = ["all", *_PARTS]
            raise ConfigurationError(
                f"trainable is '{parts}'{nearest_name(parts, known)} (known: "
                f"{', '.join(known)}, or a list of module paths such as [{parts}])"
            )
        owner, paths = _PARTS[parts]
        if any(path not in dict(network.named_modules()) for path in paths):
            raise ConfigurationError(
                f"trainable is '{parts}', which are layers of {owner}, and the network is a "
                f"{type(network).__name__}; set all, or name its modules in a list"
            )
        parts = paths
    if not parts:
        raise ConfigurationError(
            "trainable is an empty list, so that nothing would be learnt; name modules, or set all"
        )
    modules = [find_module(network, path) for path in parts]
    for path, module in zip(parts, modules, strict=True):
        if next(module.parameters(), None) is None:
            raise ConfigurationError(
                f"trainable: '{path}' ({type(module).__name__}) has no parameters; name a module "
                "that has"
            )
    return modules
