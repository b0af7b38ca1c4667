"""Files of timm's networks, as timm or their authors publish them: names, heads, input and size.

All of it is timm's own knowledge, asked of the network that was built; timm reads no file.
"""

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models.heads import head_prefixes
from nakt_dist.models.matching import COUNTER
from nakt_dist.models.onnx_network import OnnxNetwork
from nakt_dist.models.registry import TIMM_PREFIX
from nakt_dist.models.spec import ModelSpec, PreprocessingConfig

_FILTER = "checkpoint_filter_fn"
"""What timm calls the function by which a family of networks reads other layouts than its own."""


def is_of_timm(spec: ModelSpec) -> bool:
    """Says whether timm builds the network."""
    return spec.name.startswith(TIMM_PREFIX)


def in_timm_names(
    found: Mapping[str, Tensor], network: nn.Module, path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Gives a checkpoint's entries timm's names and shapes, by timm's own function.

    Files in the layout of torch.hub's DINOv2, of DINOv3, OpenCLIP and others become timm's;
    position embeddings and patches of another size are resampled. What fits as it is stays, and
    so does what is of no network of timm.

    Returns:
        The entries, and the names of those that timm leaves out, such as ``mask_token``.

    Raises:
        CheckpointError: timm stumbles over it.
    """
    read = getattr(sys.modules[type(network).__module__], _FILTER, None)
    if read is None or _fits(found, network):
        return dict(found), ()
    try:
        entries = read(dict(found), network)
    except Exception as error:  # it trusts the layouts it knows, and raises whatever comes up
        raise CheckpointError(
            f"{path}: timm cannot read it as {type(network).__name__}: {error!r:.300}. Check the "
            "network's name and options"
        ) from None
    kept = {each.untyped_storage().data_ptr() for each in entries.values()}
    left = (
        name
        for name, each in found.items()
        if name not in entries and each.untyped_storage().data_ptr() not in kept
    )
    return dict(entries), tuple(left)


def _fits(found: Mapping[str, Tensor], network: nn.Module) -> bool:
    """Says whether, but for the head, a file has what the network has, and nothing else."""
    prefixes = head_prefixes(network)
    wanted = {n: e.shape for n, e in network.state_dict().items() if not n.startswith(prefixes)}
    own = {n: e.shape for n, e in found.items() if not n.startswith(prefixes)}
    names = {name for name in wanted.keys() | own.keys() if not name.endswith(COUNTER)}
    return all(wanted.get(name) == own.get(name) for name in names)


def without_head(
    found: Mapping[str, Tensor], network: nn.Module
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Leaves out the head of a file for a network that has none.

    Returns:
        The entries, and the names of those left out.
    """
    wanted, prefixes = network.state_dict(), head_prefixes(network)
    left = [name for name in found if name.startswith(prefixes) and name not in wanted]
    return {name: each for name, each in found.items() if name not in left}, tuple(left)


def usual_input(network: nn.Module, spec: ModelSpec) -> dict[str, Any]:
    """Returns what images a network of timm is used to, as settings of ``preprocessing``.

    Returns:
        ``mean`` and ``std`` of its pretrained weights, where they are of as many channels; and
        ``height`` and ``width``, where it cuts images into patches or takes one size alone.
    """
    stated = getattr(network, "pretrained_cfg", None) or {}
    usual: dict[str, Any] = {}
    for name in ("mean", "std"):
        values = stated.get(name)
        if isinstance(values, list | tuple) and len(values) == spec.in_channels:
            usual[name] = [float(value) for value in values]
    size = _own_size(network)
    if size is None and stated.get("fixed_input_size") and "img_size" not in spec.options:
        size = tuple(stated["input_size"][1:])
    return usual | (dict(zip(("height", "width"), size, strict=True)) if size else {})


def bring_to_size(
    network: nn.Module, spec: ModelSpec, seen: PreprocessingConfig, name: str
) -> tuple[ModelSpec, str | None]:
    """Makes a trained network of timm see images of a size: timm resamples what depends on it.

    Args:
        network: with its weights; it is changed.
        seen: what it is to see; a height or width of None is that of the network.
        name: of the network, for the message.

    Returns:
        The network as it is now, and what is worth knowing of it, or None.

    Raises:
        ConfigurationError: it takes no other size, or its patches do not cover this one.
    """
    own = _own_size(network)
    size = own and (seen.height or own[0], seen.width or own[1])
    if own is None or size is None or size == own:
        return spec, None
    resize = getattr(network, "set_input_size", None)
    if resize is None or not _is_of_one_size(network):
        check_size(network, size, name)
        return spec, None
    _check_patches(network, size, name)
    resize(img_size=size)
    spec = replace(spec, options={**spec.options, "img_size": list(size)})
    return spec, (
        f"{name}: was made for {own[0]} × {own[1]} pixels; timm resamples what depends on their "
        f"number, such as position embeddings, for {size[0]} × {size[1]}"
    )


def check_size(network: nn.Module, size: tuple[int, int], name: str) -> None:
    """Refuses images of a size that a network of timm or an ONNX file cannot see; others see any.

    Args:
        size: height and width of the images as it would see them.
        name: of the network, for the message.

    Raises:
        ConfigurationError: it takes another size alone, or its patches do not cover this one.
    """
    if isinstance(network, OnnxNetwork):
        network.check_size(size, name)
    own = _own_size(network)
    if own is None or size == own:
        return
    if _is_of_one_size(network):
        raise ConfigurationError(
            f"{name}: takes images of {own[0]} × {own[1]} pixels, and would see {size[0]} × "
            f"{size[1]}; set preprocessing.height and width to these, or build it for others "
            f"with model.options.img_size: [{size[0]}, {size[1]}], if it has that"
        )
    _check_patches(network, size, name)


def _is_of_one_size(network: nn.Module) -> bool:
    """Says whether a network takes no other size than its own as it is; others resample."""
    strict = getattr(network.get_submodule("patch_embed"), "strict_img_size", False)
    dynamic = getattr(network, "dynamic_img_size", False)
    return not dynamic and (strict or hasattr(network, "set_input_size"))


def _own_size(network: nn.Module) -> tuple[int, int] | None:
    """Returns the height and width of images that a network's patches were made for."""
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    return None if size is None else (int(size[0]), int(size[1]))


def _check_patches(network: nn.Module, size: tuple[int, int], name: str) -> None:
    embed = network.get_submodule("patch_embed")
    if getattr(embed, "dynamic_img_pad", False):
        return
    stated: Any = getattr(embed, "patch_size", 1)
    patch = (stated, stated) if isinstance(stated, int) else tuple(stated)
    for side, pixels, step in zip(("height", "width"), size, patch, strict=True):
        if pixels % step:
            below = max(pixels // step, 1) * step
            raise ConfigurationError(
                f"{name}: would see images of a {side} of {pixels}, which its patches of "
                f"{patch[0]} × {patch[1]} pixels do not cover; set preprocessing.{side} to {below} "
                f"or {below + step}"
            )
