"""Images of any height and width through networks that halve them several times."""

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from nakt_dist.errors import ConfigurationError

SMALLEST_SIDE = 16


def at_any_size(network: Callable[[Tensor], Tensor], images: Tensor, multiple: int) -> Tensor:
    """Runs a network on images padded to a multiple of its stride and crops its output back.

    The padding mirrors the image (no dark frame, hence no false edge), half of it on each
    side. Images that fit already pass through untouched.

    Args:
        network: maps (N, C, H, W) to (N, K, H, W) where ``multiple`` divides H and W.
        images: float (N, C, H, W), H and W at least 16.
        multiple: what both sides must be divisible by, at most 32.

    Returns:
        (N, K, H, W), of the images' own height and width.

    Raises:
        ConfigurationError: the images are too small, or the network's output has not the
            height and width of its input.
    """
    height, width = images.shape[-2:]
    if height < SMALLEST_SIDE or width < SMALLEST_SIDE:
        raise ConfigurationError(
            f"images are {height}×{width} pixels, expected at least "
            f"{SMALLEST_SIDE}×{SMALLEST_SIDE}; pack them at a larger size"
        )
    # Not -height % multiple: torch.compile cannot follow Python's modulo of a dynamic size.
    extra_rows = (height + multiple - 1) // multiple * multiple - height
    extra_columns = (width + multiple - 1) // multiple * multiple - width
    top, left = extra_rows // 2, extra_columns // 2
    if extra_rows or extra_columns:
        border = (left, extra_columns - left, top, extra_rows - top)
        images = functional.pad(images, border, mode="reflect")
    logits = network(images)
    if logits.shape[-2:] != images.shape[-2:]:
        raise ConfigurationError(
            f"the network returned {_size(logits)} logits for {_size(images)} images, expected the "
            "same size; set its options so that it upsamples as often as its encoder downsamples"
        )
    return logits[..., top : top + height, left : left + width]


def _size(maps: Tensor) -> str:
    return f"{maps.shape[-2]}×{maps.shape[-1]}"
