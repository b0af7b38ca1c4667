"""Tiny ONNX files: exported from a checkpoint, or put together node by node."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import helper, numpy_helper
from torch import nn

from nakt_dist.models.network_file import open_network
from nakt_dist.models.onnx_metadata import OnnxMetadata, OnnxOutput, write_metadata
from nakt_dist.models.registry import is_classifier
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.taps import TappedNetwork
from nakt_dist.models.weights import save_weights

FLOAT = onnx.TensorProto.FLOAT


def make_small_classifier(path: Path, labels: Sequence[str], seed: int = 0) -> Path:
    """Saves timm's smallest ResNet, which torch's older exporter knows, with its findings."""
    spec = ModelSpec("timm:test_resnet", 3, len(labels))
    torch.manual_seed(seed)
    network = spec.build()
    network(torch.rand(8, 3, 32, 32))  # its statistics
    lineage = {"task": "classification", "labels": list(labels), "trained_on": {}}
    save_weights(path, network.state_dict(), spec, {"lineage": json.dumps(lineage)})
    return path


class _WithTaps(nn.Module):
    def __init__(self, network: nn.Module, taps: Sequence[str]) -> None:
        super().__init__()
        self.tapped = TappedNetwork(network, taps)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        output, maps = self.tapped(images)
        return output, *maps


def export_onnx(
    weights: Path,
    path: Path,
    side: int = 32,
    taps: Sequence[str] = (),
    ours: bool = True,
    activation: nn.Module | None = None,
    batch: int | None = None,
) -> Path:
    """Exports a checkpoint of ours by torch's older exporter, which is the quick one.

    Args:
        side: of the images.
        taps: layers that are further outputs.
        ours: with what ``nakt export`` writes into it.
        activation: put behind its answer.
        batch: images that it takes at once; None for any number.
    """
    trained = open_network(weights)
    network: nn.Module = trained.network
    network = nn.Sequential(network, activation) if activation else network
    images = torch.rand(batch or 2, trained.spec.in_channels, side, side)
    names = ["answer", *taps]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _WithTaps(network, taps).eval(), (images,), str(path), dynamo=False,
            input_names=["images"], output_names=names,
            dynamic_axes=None if batch else {name: {0: "batch"} for name in ["images", *names]},
        )  # fmt: skip
    if ours:
        task = "classification" if is_classifier(trained.spec.name) else "segmentation"
        metadata = OnnxMetadata(
            name=trained.name,
            task=task,
            model=trained.spec,
            preprocessing=replace(trained.preprocessing, height=side, width=side),
            outputs=(
                OnnxOutput("answer", "answer", "probabilities" if activation else "logits"),
                *(OnnxOutput(name, "tap") for name in taps),
            ),
            weights_sha256=trained.weights_sha256,
            lineage=trained.lineage,
        )
        model = onnx.load(path)
        write_metadata(model, metadata)
        onnx.save(model, path)
    return path


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """An operator between values named by words."""
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    constants: dict[str, torch.Tensor] | None = None,
    shape: Sequence[int | str] = ("n", 1, 8, 8),
    output: tuple[int, Sequence[int | str]] = (FLOAT, ("n", 1, 8, 8)),
    opsets: dict[str, int] | None = None,
) -> onnx.ModelProto:
    """From ``images`` to ``answer``."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("images", FLOAT, shape)],
        [helper.make_tensor_value_info("answer", *output)],
        [numpy_helper.from_array(each.numpy(), name) for name, each in (constants or {}).items()],
    )
    imports = [helper.make_opsetid(*each) for each in (opsets or {"": 18}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)
