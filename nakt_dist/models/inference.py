"""Makes a trained network faster where it only answers: the same function, other last digits."""

import copy
from collections import Counter
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from nakt_dist.models.network_file import TrainedNetwork

_TOLERANCE = 1e-4
"""Of logits, relative to the largest: folding moves the last digits of float32 alone."""


def for_inference(
    trained: TrainedNetwork, device: torch.device, size: tuple[int, int]
) -> TrainedNetwork:
    """Copies a network to a device in the form in which it answers fastest.

    Each BatchNorm that a convolution feeds is folded into the convolution, and weights lie
    channels_last.

    Args:
        trained: on the CPU; it stays as it is.
        size: height and width of the images that it will see.

    Returns:
        The same function: its logits differ in float32's last digits.
    """
    height, width = size
    size = (trained.preprocessing.height or height, trained.preprocessing.width or width)
    # Noise has every frequency, and a fixed seed makes the same choice each time.
    shape, generator = (1, trained.spec.in_channels, *size), torch.Generator().manual_seed(0)
    network = fold_batch_norms(trained.network, torch.randn(shape, generator=generator))
    return replace(trained, network=network.to(device, memory_format=torch.channels_last))  # type: ignore[call-overload]


def fold_batch_norms(network: nn.Module, image: torch.Tensor) -> nn.Module:
    """Returns a copy in whose convolutions the BatchNorms behind them are folded.

    Which belong together is seen in a forward pass: what comes out of the one goes into the
    other. That nothing else uses it is not seen; so the outputs are compared, and where they
    differ, the copy is a plain one.

    Args:
        network: in eval mode, on the CPU.
        image: float32 (N, C, H, W), an input to try.
    """
    copied = copy.deepcopy(network)
    if not any(type(each) is nn.BatchNorm2d for each in network.modules()):
        return copied
    with torch.no_grad():
        pairs, expected = _watch(network, image)
        if not pairs:
            return copied
        for convolution, norm in pairs:
            _fold(copied, convolution, norm)
        difference = (copied(image) - expected).abs().max()
        within = difference <= _TOLERANCE * expected.abs().max().clamp(min=1.0)
    return copied if within else copy.deepcopy(network)


def _watch(network: nn.Module, image: torch.Tensor) -> tuple[list[tuple[str, str]], torch.Tensor]:
    """Returns the names of convolutions and the BatchNorms that they alone feed, and the output."""
    made_by: dict[int, tuple[torch.Tensor, str]] = {}  # a tensor that is kept keeps its id
    calls: Counter[str] = Counter()
    pairs: list[tuple[str, str]] = []

    def hook(name: str) -> Any:
        def look(module: nn.Module, given: Any, made: Any) -> None:
            calls[name] += 1
            if type(module) is nn.Conv2d:
                made_by[id(made)] = made, name
            elif given and id(given[0]) in made_by:
                pairs.append((made_by[id(given[0])][1], name))

        return look

    modules = [
        (name, each)
        for name, each in network.named_modules()
        if type(each) is nn.Conv2d or (type(each) is nn.BatchNorm2d and _is_plain(each))
    ]
    handles = [module.register_forward_hook(hook(name)) for name, module in modules]
    try:
        output = network(image)
    finally:
        for handle in handles:
            handle.remove()
    feeds = Counter(convolution for convolution, _ in pairs)
    once = [pair for pair in pairs if feeds[pair[0]] == calls[pair[0]] == calls[pair[1]] == 1]
    return once, output


def _is_plain(norm: nn.BatchNorm2d) -> bool:
    return norm.running_mean is not None and norm.running_var is not None and not norm.training


def _fold(network: nn.Module, convolution_name: str, norm_name: str) -> None:
    """Puts scale and shift of a BatchNorm, in float64, into the convolution before it."""
    convolution, norm = (network.get_submodule(each) for each in (convolution_name, norm_name))
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None and norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.double()
    if norm.affine:
        scale = scale * norm.weight.double()
    shift = shift * scale
    if norm.affine:
        shift = shift + norm.bias.double()
    weight = convolution.weight.double() * scale.view(-1, 1, 1, 1)
    kind = convolution.weight.dtype
    convolution.weight = nn.Parameter(weight.to(kind), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(kind), requires_grad=False)
    parent, _, last = norm_name.rpartition(".")
    setattr(network.get_submodule(parent), last, nn.Identity())
