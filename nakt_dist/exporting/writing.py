"""Writes a network's files: safetensors, ONNX and the test vector, each tried before it counts."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from nakt_dist.errors import NaktError
from nakt_dist.exporting.graph import ExportedNetwork, to_onnx
from nakt_dist.exporting.parity import check_parity, outputs_of, trial_images
from nakt_dist.exporting.places import without_places
from nakt_dist.models.input_images import prepare_image
from nakt_dist.models.network_file import TrainedNetwork, describe_for_file, open_network
from nakt_dist.models.onnx_metadata import INPUT_NAME, OnnxMetadata, write_metadata
from nakt_dist.models.weights import read_weights, save_weights
from nakt_dist.models.weights_path import EXPORTED_WEIGHTS
from nakt_dist.runtime.files import naming, write_bytes

ONNX_NAME, VECTOR_NAME = "model.onnx", "test_vector.safetensors"
PIXELS_NAME = "pixels"


def write_weights(
    folder: Path, source: Path, trained: TrainedNetwork, told: OnnxMetadata, as_is: bool
) -> bool:
    """Writes the safetensors, and reads them back.

    A file of ours that names no place of this machine is copied byte for byte: its SHA-256 is
    what evaluations and students know the network by.

    Args:
        told: what is said of the network; its outputs are named in a file of others, too.
        as_is: whether no setting replaces what it says.

    Returns:
        Whether it is a copy.
    """
    path = folder / EXPORTED_WEIGHTS
    is_copy = as_is and _is_complete(source)
    if is_copy:
        with naming(path):
            shutil.copyfile(source, path)
    else:
        header = describe_for_file(trained.preprocessing, {**_names(told), **told.lineage})
        save_weights(path, trained.network.state_dict(), told.model, header)
    written = open_network(path)
    if is_copy and written.weights_sha256 != trained.weights_sha256:
        raise NaktError(f"{source}: was changed while it was exported; run the same command again")
    return is_copy


def _names(told: OnnxMetadata) -> dict[str, Any]:
    """Returns what a lineage says of the outputs."""
    names = told.answer.names
    if names is None or (told.task == "segmentation" and len(names) == 1):
        return {}
    field = "labels" if told.task == "classification" else "classes"
    return {"task": told.task, field: list(names)}


def _is_complete(source: Path) -> bool:
    """Says whether a file describes its network, and names no place of this machine."""
    loaded = read_weights(source)
    if loaded.spec is None:
        return False
    told = [json.loads(loaded.spec.to_json()), *map(json.loads, loaded.metadata.values())]
    return bool(without_places(told) == told)


def write_onnx(
    path: Path, network: ExportedNetwork, told: OnnxMetadata, images: Tensor
) -> dict[str, float]:
    """Writes the ONNX file, and compares it with PyTorch.

    Args:
        images: float32 (3, C, H, W), as the network sees them.

    Returns:
        The largest difference of each output, see ``check_parity``.

    Raises:
        NaktError: the network cannot be expressed, or the file answers otherwise.
    """
    model = to_onnx(network, images[:2])
    model.producer_name = "nakt_dist"
    model.doc_string = f"{told.name}: see its metadata"
    write_metadata(model, told)
    write_bytes(path, model.SerializeToString(deterministic=True))
    return check_parity(path, network, images)


def write_vector(path: Path, network: ExportedNetwork, told: OnnxMetadata) -> Mapping[str, Tensor]:
    """Writes images and what the network makes of them in PyTorch, for whoever runs it elsewhere.

    Returns:
        The tensors of the file: ``pixels`` in [0, 1], ``images`` as the network sees them, and
        each output by name.
    """
    channels = told.model.in_channels
    seen = told.preprocessing
    assert seen.height is not None and seen.width is not None
    pixels = trial_images(channels, (seen.height, seen.width))
    images = prepare_image(pixels, channels, seen).contiguous()
    tensors = {PIXELS_NAME: pixels, INPUT_NAME: images, **outputs_of(network, images)}
    write_bytes(path, safetensors.torch.save(tensors, {"format": "pt"}))
    return tensors
