"""Whether an ONNX model answers as the network it was made from, and images to try it with."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nakt_dist.errors import NaktError
from nakt_dist.exporting.graph import ExportedNetwork
from nakt_dist.models.onnx_metadata import INPUT_NAME

TOLERANCE = 1e-4
"""Largest difference of any value, absolute up to values of 1 and relative to the largest above."""

BATCHES = (1, 3)
"""Numbers of images that are tried."""

_SEED, _PATCHES, _GRAIN = 0, 8, 0.05


def trial_images(channels: int, size: tuple[int, int]) -> Tensor:
    """Draws images that no dataset holds: smooth patches with grain, the same each time.

    Returns:
        float32 (3, channels, *size) in [0, 1].
    """
    generator = torch.Generator().manual_seed(_SEED)
    patches = torch.rand(max(BATCHES), channels, _PATCHES, _PATCHES, generator=generator)
    smooth = functional.interpolate(patches, size, mode="bilinear", align_corners=False)
    grain = torch.randn(smooth.shape, generator=generator)
    return (smooth + _GRAIN * grain).clamp(0, 1)


@torch.no_grad()
def outputs_of(network: ExportedNetwork, images: Tensor) -> dict[str, Tensor]:
    """Returns all that a network gives in PyTorch, float32 by name."""
    found = network(images)
    return {n: each.float().contiguous() for n, each in zip(network.names, found, strict=True)}


def check_parity(path: Path, network: ExportedNetwork, images: Tensor) -> dict[str, float]:
    """Compares PyTorch with ONNX Runtime on the CPU, for each of ``BATCHES``.

    Args:
        path: of the ONNX file, as it will be handed on.
        images: float32 (3, C, H, W), as the network sees them.

    Returns:
        The largest difference of each output, as a share of ``max(1, largest value)``.

    Raises:
        NaktError: an output differs by more than ``TOLERANCE``, or has another shape.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    largest: dict[str, float] = dict.fromkeys(network.names, 0.0)
    for batch in BATCHES:
        expected = outputs_of(network, images[:batch])
        found = session.run(list(network.names), {INPUT_NAME: images[:batch].numpy()})
        for name, difference in _differences(expected, found).items():
            if not difference <= TOLERANCE:  # nor is one that is no number
                raise NaktError(
                    f"ONNX Runtime's output '{name}' differs from PyTorch's by {difference:.2g} "
                    f"for {batch} image{'s' if batch > 1 else ''}, allowed is {TOLERANCE:g}. "
                    "Nothing was exported; try other versions of torch and onnxruntime, or leave "
                    "ONNX out: --formats '[safetensors]'"
                )
            largest[name] = max(largest[name], difference)
    return largest


def _differences(expected: Mapping[str, Tensor], found: Sequence[np.ndarray]) -> dict[str, float]:
    differences = {}
    for (name, tensor), array in zip(expected.items(), found, strict=True):
        wanted = tensor.numpy()
        if wanted.shape != array.shape:
            differences[name] = float("inf")
            continue
        scale = max(1.0, float(np.abs(wanted).max(initial=0.0)))
        differences[name] = float(np.abs(wanted - array).max(initial=0.0)) / scale
    return differences
