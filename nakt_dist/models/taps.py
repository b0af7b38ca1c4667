"""Activation maps inside any network, by module path: of a student, of a frozen teacher.

A tap is a forward hook. It must be there before the network is wrapped or compiled: a hook that
is added after the first compiled call never fires. What it keeps is a copy, since networks
overwrite their activations (torchvision's DenseNet and every ResNet apply ReLU in place).
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.models.onnx_network import OnnxNetwork
from nakt_dist.models.planes import as_planes
from nakt_dist.models.registry import NETWORKS, find_network

PRESETS = tuple(dict.fromkeys(each for network in NETWORKS.values() for each in network.taps))
"""Names of taps that some network has."""

_NAMES_SHOWN = 4


def preset_taps(preset: str, spec_name: str) -> str:
    """Returns the module path that a preset taps in a network, as ``NETWORKS`` says it.

    Args:
        preset: ``paper`` (paper B) or ``authors_code``.

    Raises:
        ConfigurationError: the preset is unknown, or knows no tap of this network.
    """
    if preset not in PRESETS:
        raise ConfigurationError(
            f"attention.preset is '{preset}'{nearest_name(preset, PRESETS)} "
            f"(known: {', '.join(PRESETS)})"
        )
    found = find_network(spec_name)
    if found is None or preset not in found.taps:
        known = [name for name, network in NETWORKS.items() if preset in network.taps]
        raise ConfigurationError(
            f"attention.preset '{preset}' has no tap for the network '{spec_name}' (it knows "
            f"{', '.join(known)}); name the layers instead, as attention.taps: "
            "[{student: …, teacher: …}]"
        )
    return found.taps[preset]


def find_module(network: nn.Module, path: str) -> nn.Module:
    """Returns the module at a path such as ``features.denseblock4.denselayer15``.

    Args:
        network: the bare network, not wrapped for DDP or compiled.
        path: names of submodules, joined by dots; of an ONNX file the name of a value.

    Raises:
        ConfigurationError: there is none; names the nearest path, or what lies below the part
            of the path that exists.
    """
    if isinstance(network, OnnxNetwork):
        return network.value(path)
    modules = dict(network.named_modules())
    modules.pop("", None)
    if path in modules:
        return modules[path]
    parent = path
    while parent and parent not in modules:
        parent = parent.rpartition(".")[0]
    inside = [name for name, _ in (modules[parent] if parent else network).named_children()]
    listed = ", ".join(inside[:_NAMES_SHOWN]) + (", …" if len(inside) > _NAMES_SHOWN else "")
    where = f"'{parent}'" if parent else f"the network ({type(network).__name__})"
    raise ConfigurationError(
        f"there is no layer '{path}'{nearest_name(path, modules)} ({where} has {listed or 'none'})"
    )


class TappedNetwork(nn.Module):
    """A network that gives its activations at some layers beside its output.

    Its parameters, modes and gradients are the bare network's; the bare network may go on being
    used by itself, untapped. Works under DDP and torch.compile, which are to be put around this
    module and not inside it. Recomputation by activation checkpointing is not recorded.

    Args:
        paths: module paths, see ``find_module``; any number, any order.
        terms: those of linear layers, at which the terms of the outputs are recorded instead:
            each input times its weight, (N, outputs, inputs).

    Attributes:
        adapters: what the activation at each path goes through.

    Raises:
        ConfigurationError: there is no such module, or it is not linear.
    """

    def __init__(
        self, network: nn.Module, paths: Sequence[str], terms: Collection[str] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.paths = tuple(paths)
        self.adapters = nn.ModuleList(nn.Identity() for _ in paths)
        self._taps = _Taps(network, self.paths, terms)

    def forward(self, images: Tensor) -> tuple[Any, tuple[Tensor, ...]]:
        """Runs the network.

        Returns:
            The network's output, and what the adapters make of the activation at each path, in
            the order of ``paths``; in the forward pass's dtype and the graph of gradients. Tokens
            and maps of channels last come as planes (N, C, h, w), see ``as_planes``, anything else
            in the layer's shape.

        Raises:
            ConfigurationError: a tapped layer was not called, was called more than once, gives
                something but a tensor, or tokens of no known place.
        """
        taps = self._taps
        taps.start()
        try:
            output = self.network(images)
        finally:
            found = taps.finish()
        activations = zip(self.adapters, taps.in_order(found, images), strict=True)
        return output, tuple(adapter(each) for adapter, each in activations)


class TeacherTap:
    """A frozen teacher: its activations at some layers, its output, or both.

    It computes without gradients (``no_grad``, not inference mode: what it returns enters a
    loss), and in eval mode whatever ``train()`` is called on in the meantime, so that neither its
    parameters nor its buffers ever change. It is no module: no optimiser, DDP or ``prepare``
    takes it for a part of the student.

    Args:
        network: the bare network, on its device. Its parameters are frozen here.
        paths: module paths, see ``find_module``; may be empty when only the output is wanted.
        terms: as of ``TappedNetwork``.

    Raises:
        ConfigurationError: there is no such module, or it is not linear.
    """

    def __init__(
        self, network: nn.Module, paths: Sequence[str] = (), terms: Collection[str] = ()
    ) -> None:
        self.network = network.requires_grad_(False).eval()
        self.paths = tuple(paths)
        self._taps = _Taps(network, self.paths, terms)

    def activations(self, images: Tensor) -> tuple[Tensor, ...]:
        """Runs the network up to the last tapped layer it comes by.

        Args:
            images: float (N, in_channels, H, W), as the network wants to see them.

        Returns:
            The activation at each path, as ``TappedNetwork`` gives it, without gradients.

        Raises:
            ConfigurationError: as ``TappedNetwork``.
        """
        if not self.paths:
            return ()
        return self._run(images, stops=True)[1]

    def output_and_activations(self, images: Tensor) -> tuple[Any, tuple[Tensor, ...]]:
        """Runs the whole network; see ``activations``. What it returns has no gradients."""
        return self._run(images, stops=False)

    @torch.no_grad()
    def _run(self, images: Tensor, stops: bool) -> tuple[Any, tuple[Tensor, ...]]:
        self.network.eval()
        self._taps.start(stops)
        output = None
        try:
            output = self.network(images)
        except _LastTapReached:
            pass
        finally:
            found = self._taps.finish()
        return output, self._taps.in_order(found, images)


class _LastTapReached(Exception):
    """Ends a forward pass of which nothing more is wanted."""


class _Taps:
    """Hooks on a network that record while asked to, and otherwise do nothing."""

    def __init__(self, network: nn.Module, paths: Sequence[str], terms: Collection[str]) -> None:
        self._network, self._terms = network, frozenset(terms)
        self._modules = [(path, find_module(network, path)) for path in paths]
        self._found: dict[str, list[Any]] | None = None
        self._stops = False
        for path, module in dict(self._modules).items():
            if path in terms and not isinstance(module, nn.Linear):
                raise ConfigurationError(
                    f"the layer '{path}' is a {type(module).__name__}, expected a linear layer, "
                    "which gives the network's outputs"
                )
            module.register_forward_hook(partial(self._record, path))

    def start(self, stops: bool = False) -> None:
        self._found = {path: [] for path, _ in self._modules}
        self._stops = stops

    def finish(self) -> dict[str, list[Any]]:
        found, self._found = self._found, None
        return found or {}

    def in_order(self, found: Mapping[str, list[Any]], images: Tensor) -> tuple[Tensor, ...]:
        for path, outputs in found.items():
            if len(outputs) != 1:
                raise ConfigurationError(_explain_calls(path, len(outputs)))
            if not isinstance(outputs[0], Tensor):
                raise ConfigurationError(
                    f"the tapped layer '{path}' gives a {type(outputs[0]).__name__}, expected a "
                    "tensor; tap a layer inside it"
                )
        return tuple(
            found[path][0]
            if path in self._terms
            else as_planes(found[path][0], self._network, module, images, path)
            for path, module in self._modules
        )

    def _record(self, path: str, module: Any, inputs: Any, output: Any) -> None:
        if self._found is None:
            return
        if path in self._terms:
            # Of a copy, as DeepSpeed may take a layer's weights away after its forward.
            output = inputs[0].unsqueeze(1) * module.weight.clone()
        self._found[path].append(output.clone() if isinstance(output, Tensor) else output)
        if self._stops and all(self._found.values()):
            raise _LastTapReached


def _explain_calls(path: str, calls: int) -> str:
    if calls == 0:
        return (
            f"the tapped layer '{path}' is not called in the network's forward pass; tap a layer "
            "that the image passes through, such as a convolution or a block"
        )
    return (
        f"the tapped layer '{path}' is called {calls} times in one forward pass, so that it has "
        "no one activation; tap the block around it"
    )
