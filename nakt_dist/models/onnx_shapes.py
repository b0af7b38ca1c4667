"""How large each value of an ONNX network becomes, found out before it is run.

A file of a few bytes can ask for any amount of memory. ONNX's own inference of shapes says how
large values are, as far as it sees through what exporters compute with shapes; where it does not,
these small computations are done here, one after the other.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nakt_dist.errors import CheckpointError
from nakt_dist.models.onnx_file import OnnxFile, damaged, graphs_in

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

MOST_VALUES = 2**28
"""Of one tensor for one image: 1 GiB of float32."""
MOST_TOGETHER = 2**31
"""Of all tensors likewise: 8 GiB, were none given back."""

Shapes = dict[str, tuple[int, tuple[int, ...]]]
"""Of each value by name its ONNX type and its shape."""

_SMALL = 1024
"""Values of a constant that may say the shape of something."""
_MOST_ROUNDS = 32
_LARGEST_BATCH_COUNTED = 4
_NEVER_LARGE = {
    "Cast", "Concat", "Constant", "Gather", "Identity", "ReduceProd", "Reshape", "Slice", "Squeeze",
    "Transpose", "Unsqueeze",
}  # fmt: skip
"""What of small constants makes nothing that is large."""
_BROADCAST = {
    "Abs", "Add", "And", "Ceil", "Div", "Equal", "Floor", "Greater", "Less", "Max", "Min", "Mod",
    "Mul", "Neg", "Not", "Or", "Sub", "Where",
}  # fmt: skip
"""What makes as much as its inputs span, which is known."""
_SHAPED = {"ConstantOfShape": 0, "Expand": 1}
"""The place of the input that says how much they make."""


def value_shapes(file: OnnxFile, shape: Sequence[int]) -> Shapes:
    """Finds out what each value of a network will be for one batch, without running it.

    Raises:
        CheckpointError: one is larger than any, or its size cannot be known.
    """
    bare, constants = _without_weights(file, shape), dict[str, np.ndarray]()
    found, missing = _infer(file.path, bare, shape)
    for _ in range(_MOST_ROUNDS):
        if not missing or not _fold(bare, found, constants):
            break
        found, missing = _infer(file.path, bare, shape)
    if missing:
        name, operator = next(iter(missing.items()))
        raise CheckpointError(
            f"{file.path}: how large '{name[:80]}' ({operator}) becomes cannot be known before it "
            f"is run, for images of shape {tuple(shape)}; export the network for images of one "
            "size, without what depends on their content"
        )
    return found


def _infer(path: Path, bare: "ModelProto", shape: Sequence[int]) -> tuple[Shapes, dict[str, str]]:
    """Returns the shapes that are known, and the operators of the values whose are not."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    except Exception as error:  # of several kinds
        raise damaged(path, error) from None
    found: Shapes = {}
    missing: dict[str, str] = {}
    images, together = min(shape[0], _LARGEST_BATCH_COUNTED), 0
    for graph in graphs_in(path, inferred.graph):
        # Two branches may call values alike: what is known of one says nothing of the other.
        own: Shapes = {e.name: (e.data_type, tuple(e.dims)) for e in graph.initializer}
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            sides = kind.shape.dim
            if kind.HasField("shape") and all(each.HasField("dim_value") for each in sides):
                own[value.name] = kind.elem_type, tuple(each.dim_value for each in sides)
        found |= own
        for node in graph.node:
            for name in filter(None, node.output):
                if name not in own:
                    missing[name] = node.op_type
                    continue
                values = math.prod(own[name][1])
                together += values
                if values > MOST_VALUES * images or together > MOST_TOGETHER * images:
                    raise CheckpointError(
                        f"{path}: '{name[:80]}' ({node.op_type}) would be of shape "
                        f"{own[name][1]} for images of shape {tuple(shape)}, expected at most "
                        f"{MOST_VALUES * images:,} values, and {MOST_TOGETHER * images:,} of all"
                    )
    return found, missing


def _fold(bare: "ModelProto", found: Shapes, constants: dict[str, np.ndarray]) -> bool:
    """Puts the results of small computations in their places; says whether there were any."""
    from onnx import numpy_helper

    for each in bare.graph.initializer:
        if each.name not in constants:
            constants[each.name] = numpy_helper.to_array(each)
    kept = []
    for node in bare.graph.node:
        result = _result(bare, node, found, constants)
        if result is None or result.size > _SMALL:
            kept.append(node)
            continue
        constants[node.output[0]] = result
        bare.graph.initializer.append(numpy_helper.from_array(result, node.output[0]))
    folded = len(kept) < len(bare.graph.node)
    kept = [type(node).FromString(node.SerializeToString()) for node in kept] if folded else kept
    if folded:
        del bare.graph.node[:]
        bare.graph.node.extend(kept)
    return folded


def _result(
    bare: "ModelProto", node: "NodeProto", found: Shapes, constants: Mapping[str, np.ndarray]
) -> np.ndarray | None:
    """Returns what a node makes of small constants; None where it is not one of these."""
    given = [name for name in node.input if name]
    if node.op_type == "Shape" and given[0] in found and not node.attribute:
        return np.array(found[given[0]][1], np.int64)
    if len(node.output) != 1 or not all(name in constants for name in given):
        return None
    if node.op_type in _SHAPED:
        wanted = constants[given[_SHAPED[node.op_type]]]
        large = math.prod(wanted.reshape(-1).tolist()) > _SMALL
    elif node.op_type in _BROADCAST:
        large = math.prod(found.get(node.output[0], (0, [_SMALL + 1]))[1]) > _SMALL
    else:
        large = node.op_type not in _NEVER_LARGE
    if large or sum(constants[name].size for name in given) > _SMALL * _SMALL:
        return None
    return _evaluate(bare, node, {name: constants[name] for name in given})


def _evaluate(bare: "ModelProto", node: "NodeProto", given: Mapping[str, Any]) -> np.ndarray | None:
    import onnx
    from onnx.reference import ReferenceEvaluator

    inputs = [onnx.ValueInfoProto(name=name) for name in given]
    output = onnx.ValueInfoProto(name=node.output[0])
    graph = onnx.GraphProto(name="one", node=[node], input=inputs, output=[output])
    alone = onnx.ModelProto(ir_version=bare.ir_version, opset_import=bare.opset_import, graph=graph)
    try:
        with np.errstate(all="ignore"):
            (made,) = ReferenceEvaluator(alone).run(None, dict(given))
    except Exception:  # whatever numpy stumbles over stays unknown, and is refused for that
        return None
    return np.asarray(made)


def _without_weights(file: OnnxFile, shape: Sequence[int]) -> "ModelProto":
    """Returns a copy that takes large weights as inputs, and believes no size that it states."""
    import onnx

    model, info = file.model, onnx.helper.make_tensor_value_info
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph, seen = bare.graph, file.input
    graph.name = "network"
    graph.node.extend(model.graph.node)
    graph.input.append(info(seen.name, seen.type.tensor_type.elem_type, shape))
    for each in model.graph.initializer:
        if math.prod(each.dims) > _SMALL:
            graph.input.append(info(each.name, each.data_type, each.dims))
        else:
            graph.initializer.append(each)
    graph.output.extend(onnx.ValueInfoProto(name=each.name) for each in model.graph.output)
    for inner in list(graphs_in(file.path, graph))[1:]:
        del inner.value_info[:]
        for output in inner.output:
            output.ClearField("type")
    return bare
