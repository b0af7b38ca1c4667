"""Activations of any network as planes (N, C, h, w), rows and columns as the image has them.

A transformer works on a list of tokens: some that belong to no place (class, registers), then
one for each patch, row by row. Swin and others keep maps, with their channels last. Networks of
MONAI see images with columns first, and so lie their maps.
"""

from typing import Any

from torch import Tensor, nn

from nakt_dist.errors import ConfigurationError
from nakt_dist.models.onnx_network import OnnxValue

_TOKENS, _MAP = 3, 4
_CHANNELS_LAST = "NHWC"
# Torch's own layers of two dimensions know no other order than channels before places.
_CHANNELS_FIRST = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d)


def as_planes(
    activation: Tensor, network: nn.Module, module: nn.Module, images: Tensor, path: str
) -> Tensor:
    """Brings what a layer gives to planes; what is neither tokens nor a map stays as it is.

    Tokens are laid out on the grid of patches that the network's ``patch_embed`` cuts images of
    this size into. Those before them, as many as timm's ``num_prefix_tokens``, are left out.

    Args:
        activation: what the layer gave: (N, T, C), (N, h, w, C) or (N, C, h, w).
        network: whose layer it is.
        images: float (N, C, H, W), what the network was given.
        path: of the layer, for messages.

    Returns:
        (N, C, h, w); of tokens and maps of channels last a view.

    Raises:
        ConfigurationError: it is not of these images one by one, as inside windows; or there are
            tokens, and the network has no such grid, or another number of places.
    """
    if activation.ndim not in (_TOKENS, _MAP):
        return activation
    if activation.shape[0] != images.shape[0]:  # len() would fix the batch of an exported graph
        raise ConfigurationError(
            f"the tapped layer '{path}' gives {len(activation)} parts for {len(images)} images, "
            "as layers inside windows or heads do; tap the block around it"
        )
    if activation.ndim == _TOKENS:
        return _from_tokens(activation, network, images, path)
    if _is_channels_last(activation, network, module, images):
        activation = activation.permute(0, 3, 1, 2)
    return upright(activation, module if isinstance(module, OnnxValue) else network)


def upright(maps: Tensor, owner: nn.Module) -> Tensor:
    """Exchanges rows and columns of maps (N, C, h, w) of a network that sees columns first.

    Args:
        owner: the network, or a value of an ONNX file.
    """
    return maps.mT if getattr(owner, "columns_first", False) else maps


def _from_tokens(tokens: Tensor, network: nn.Module, images: Tensor, path: str) -> Tensor:
    grid, found = _grid(network, images), tokens.shape[1]
    if grid is None:
        raise ConfigurationError(
            f"the tapped layer '{path}' gives {found} tokens for each image, and "
            f"{type(network).__name__} does not say which places they are; tap a layer that gives "
            "maps, or choose a network whose patches lie on one grid, such as a ViT of timm"
        )
    places, before = grid[0] * grid[1], getattr(network, "num_prefix_tokens", 0)
    if found not in (places, places + before):
        raise ConfigurationError(
            f"the tapped layer '{path}' gives {found} tokens for each image; expected {before} of "
            f"no place and one for each of the {grid[0]} × {grid[1]} patches. Tap another block"
        )
    return tokens[:, found - places :].transpose(1, 2).unflatten(2, grid)


def _grid(network: nn.Module, images: Tensor) -> tuple[int, int] | None:
    """Returns the rows and columns of patches of these images; None where there is no one grid."""
    size_of = getattr(getattr(network, "patch_embed", None), "dynamic_feat_size", None)
    if size_of is None:
        return None
    rows, columns = size_of((images.shape[-2], images.shape[-1]))
    return int(rows), int(columns)


def _is_channels_last(
    activation: Tensor, network: nn.Module, module: nn.Module, images: Tensor
) -> bool:
    if isinstance(module, _CHANNELS_FIRST):
        return False
    stated = _format(module) or _format(network)
    if stated is not None:
        return stated == _CHANNELS_LAST
    if _format(getattr(network, "patch_embed", None)) != _CHANNELS_LAST:
        return False
    # SAM says it of its patches alone: its blocks go on so, and its neck does not.
    grid, shape = _grid(network, images), tuple(activation.shape)
    return shape[1:3] == grid and shape[2:] != grid


def _format(module: Any) -> str | None:
    """Returns the order of dimensions that timm states of a module or network."""
    stated = getattr(module, "output_fmt", None)
    return None if stated is None else getattr(stated, "value", stated)
