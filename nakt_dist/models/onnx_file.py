"""ONNX files, read as what strangers may have written: nothing in them is run before it is judged.

An ONNX file is a program of a fixed set of operators. It cannot open a file or an address, unless
it brings operators of its own or keeps weights elsewhere; it can ask for any amount of memory and
time. So whatever is not of ONNX's own operators, repeats itself, draws random numbers, or makes
values whose size is huge or cannot be known beforehand, is refused.
"""

import hashlib
import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from nakt_dist.errors import CheckpointError, ConfigurationError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

ONNX_SUFFIX = ".onnx"
LARGEST_FILE = 2**31 - 1
"""Bytes: what a message of protocol buffers can have."""
MOST_NODES = 50_000
MOST_SEEN = 2**28
"""Values of all images that a file of a fixed batch takes at once."""


_OLDEST_OPSET = 7
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml")
_DEEPEST = 8
_LONGEST_NAME = 300
_MOST_VALUES_PER_BYTE = 8
_REPEATING = ("Loop", "Scan", "SequenceMap")
_PASSING = (
    "Cast", "Clip", "Dropout", "Flatten", "Identity", "Reshape", "Resize", "Slice", "Squeeze",
    "Transpose", "Unsqueeze", "Upsample",
)  # fmt: skip
_LINEAR = ("Conv", "Gemm", "MatMul")
_RANDOM = (
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
)  # fmt: skip


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that may be run."""

    path: Path
    model: "ModelProto"
    sha256: str

    @property
    def properties(self) -> dict[str, str]:
        """Its metadata by key."""
        return {each.key: each.value for each in self.model.metadata_props}

    @property
    def input(self) -> "ValueInfoProto":
        """Its one input: the images."""
        return _inputs(self.model.graph)[0]

    @property
    def input_shape(self) -> tuple[int | None, ...]:
        """Images, channels, height and width; None where any will do."""
        sides = self.input.type.tensor_type.shape.dim
        return tuple(each.dim_value if each.dim_value > 0 else None for each in sides)


def import_optional(name: str, path: Path) -> ModuleType:
    """Imports a package that reads or runs ONNX.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ConfigurationError(
            f"{path}: an ONNX file needs {name}, which is not installed here. Install it: "
            "pip install 'nakt_dist[onnx]'"
        ) from None


def read_onnx(path: Path) -> OnnxFile:
    """Reads an ONNX file and refuses what nobody should run.

    Raises:
        CheckpointError: it is damaged, of another kind, larger than any, keeps weights outside of
            it, holds operators that are not ONNX's own, repeats itself or draws random numbers, or
            takes something else than images.
        ConfigurationError: onnx is not installed.
    """
    onnx = import_optional("onnx", path)
    size = path.stat().st_size
    if size > LARGEST_FILE:
        raise CheckpointError(
            f"{path}: has {size} bytes, expected at most {LARGEST_FILE}, which is all that an ONNX "
            "file can hold; take it from its origin again"
        )
    data = path.read_bytes()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # of protocol buffers
        raise damaged(path, error) from None
    if not model.graph.node:
        raise damaged(path, "it holds no network")
    _check_graphs(path, model)
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # ValidationError, and of some files others
        raise damaged(path, error) from None
    _check_input(path, model.graph)
    return OnnxFile(path, model, hashlib.sha256(data).hexdigest())


def producer(model: "ModelProto", name: str) -> str:
    """Returns the operator that makes a value, past those that make no other kind of it; or ``""``.

    Of probabilities these leave probabilities: they move, choose, bound or interpolate them.
    """
    node = _maker(model, name)
    return str(node.op_type) if node else ""


def ends_linearly(model: "ModelProto", name: str) -> bool:
    """Says whether a layer without bounds makes a value, be its bias added by itself."""
    unbounding = tuple(each for each in _PASSING if each != "Clip")
    node = _maker(model, name, unbounding)
    makers = [node]
    if node is not None and node.op_type == "Add":
        makers = [_maker(model, each, unbounding) for each in node.input]
    return any(each.op_type in _LINEAR for each in makers if each is not None)


def _maker(model: "ModelProto", name: str, passing: Sequence[str] = _PASSING) -> "NodeProto | None":
    made = {output: node for node in model.graph.node for output in node.output}
    while name in made and made[name].op_type in passing:
        name = made[name].input[0]
    return made.get(name)


def _check_graphs(path: Path, model: "ModelProto") -> None:
    if model.functions:
        raise CheckpointError(
            f"{path}: holds functions of its own ({model.functions[0].name[:80]}), expected ONNX's "
            "operators alone; put them in their places with onnx.inliner.inline_local_functions"
        )
    nodes = 0
    for graph in graphs_in(path, model.graph):
        nodes += len(graph.node)
        if nodes > MOST_NODES:
            raise CheckpointError(f"{path}: has more than {MOST_NODES:,} operators")
        for node in graph.node:
            _check_operator(path, node.domain, node.op_type)
        for tensor in _tensors(graph):
            _check_tensor(path, tensor)
        if graph.sparse_initializer:
            raise CheckpointError(f"{path}: keeps weights as sparse tensors, expected dense ones")
    _check_opset(path, {each.domain: each.version for each in model.opset_import})


def _check_operator(path: Path, domain: str, operator: str) -> None:
    if domain not in _DOMAINS:
        raise CheckpointError(
            f"{path}: has the operator {domain}.{operator}"[:300] + ", which is none of ONNX's "
            "own (ai.onnx, ai.onnx.ml): no other is run. Export the network without it"
        )
    if operator in _REPEATING:
        raise CheckpointError(
            f"{path}: has the operator {operator}, which may repeat itself without end; export the "
            "network with torch.onnx.export(…, dynamo=True), which unrolls what it can"
        )
    if operator in _RANDOM:
        raise CheckpointError(
            f"{path}: has the operator {operator}, which draws random numbers, so that no answer "
            "would be repeatable; export the network in eval mode"
        )


def _check_opset(path: Path, versions: Mapping[str, int]) -> None:
    import onnx

    found, newest = versions.get("", versions.get("ai.onnx", 0)), onnx.defs.onnx_opset_version()
    if not _OLDEST_OPSET <= found <= newest:
        raise CheckpointError(
            f"{path}: is of ONNX's opset {found}, and this version of onnx knows {_OLDEST_OPSET} "
            f"to {newest}; export it with opset_version={min(newest, 18)}, or install a newer onnx"
        )


def _check_tensor(path: Path, tensor: "TensorProto") -> None:
    if tensor.data_location or tensor.external_data:
        raise CheckpointError(
            f"{path}: keeps '{tensor.name[:80]}' in another file, and no file but it is opened. "
            "Where it was made, put its weights in: onnx.save(onnx.load('model.onnx'), "
            "'whole.onnx'), or torch.onnx.export(…, external_data=False)"
        )
    if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > (
        _MOST_VALUES_PER_BYTE * tensor.ByteSize()
    ):
        raise damaged(path, f"'{tensor.name[:80]}' announces values that it does not hold")


def _check_input(path: Path, graph: "GraphProto") -> None:
    import onnx

    inputs = _inputs(graph)
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise CheckpointError(
            f"{path}: has {len(inputs)} inputs ({names[:200]}), expected one, the images"
        )
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
        raise CheckpointError(
            f"{path}: its input is {type_name(kind.elem_type)}, expected float32 or float16: "
            "images less a mean, divided by a deviation. Export it without its first conversion"
        )
    if len(kind.shape.dim) != 4:
        raise CheckpointError(
            f"{path}: its input has {len(kind.shape.dim)} dimensions, expected 4: images, "
            "channels, height and width"
        )
    sides = [max(each.dim_value, 1) for each in kind.shape.dim]
    if math.prod(sides) > MOST_SEEN:
        raise CheckpointError(
            f"{path}: takes images of shape {sides}, expected at most {MOST_SEEN:,} values"
        )
    longest = max((each.name for each in (*inputs, *graph.output)), key=len)
    if len(longest) > _LONGEST_NAME:
        raise CheckpointError(
            f"{path}: calls an input or output '{longest[:40]}…', {len(longest)} letters, expected "
            f"at most {_LONGEST_NAME}"
        )


def type_name(kind: int) -> str:
    """Returns what ONNX calls a type of values, in lower case."""
    import onnx

    known = onnx.TensorProto.DataType.values()
    return str(onnx.TensorProto.DataType.Name(kind)).lower() if kind in known else f"type {kind}"


def _inputs(graph: "GraphProto") -> list["ValueInfoProto"]:
    weights = {each.name for each in graph.initializer}
    return [each for each in graph.input if each.name not in weights]


def graphs_in(path: Path, graph: "GraphProto", depth: int = 0) -> Iterator["GraphProto"]:
    """Yields a graph and those in its nodes, such as the branches of ``If``."""
    if depth > _DEEPEST:
        raise CheckpointError(f"{path}: has graphs more than {_DEEPEST} deep in each other")
    yield graph
    for node in graph.node:
        for each in node.attribute:
            for inner in (*([each.g] if each.HasField("g") else []), *each.graphs):
                yield from graphs_in(path, inner, depth + 1)


def _tensors(graph: "GraphProto") -> Iterator["TensorProto"]:
    yield from graph.initializer
    for node in graph.node:
        for each in node.attribute:
            yield from ([each.t] if each.HasField("t") else [])
            yield from each.tensors
            sparse = [each.sparse_tensor] if each.HasField("sparse_tensor") else []
            for tensor in (*sparse, *each.sparse_tensors):
                yield from (tensor.values, tensor.indices)


def damaged(path: Path, reason: object) -> CheckpointError:
    """Returns the error of a file that cannot be read."""
    return CheckpointError(
        f"{path}: damaged, or not an ONNX file ({' '.join(str(reason).split())[:300]}); copy it "
        "again from its origin"
    )
