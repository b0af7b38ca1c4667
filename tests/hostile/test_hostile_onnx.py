"""ONNX files that ask for what no network needs, or are none; and programs under other names."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper

from nakt_dist.errors import CheckpointError
from nakt_dist.models import onnx_file
from nakt_dist.models.network_file import open_network
from tests.memory import at_most_megabytes
from tests.onnx_files import FLOAT, make_model, node

pytestmark = pytest.mark.faults

RELU = node("Relu", "images", "answer")


def scaled(value: float) -> onnx.ModelProto:
    return make_model([node("Mul", "images w", "answer")], {"w": torch.tensor([value])})


def external(place: str) -> onnx.ModelProto:
    model = scaled(1.0)
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=place)
    return model


def huge(operator: str) -> onnx.ModelProto:
    nodes = [node(operator, "size" if operator == "ConstantOfShape" else "w size", "many")]
    nodes += [node("ReduceSum", "many", "sum", keepdims=0), node("Add", "images sum", "answer")]
    constants = {"size": torch.tensor([2**20, 2**20]), "w": torch.ones(1, 1)}
    return make_model(nodes, constants)


def unknown_size() -> onnx.ModelProto:
    nodes = [
        node("NonZero", "images", "places"), node("Transpose", "places", "turned"),
        node("Cast", "turned", "numbers", to=FLOAT), node("ReduceSum", "numbers", "s", keepdims=0),
        node("Add", "images s", "answer"),
    ]  # fmt: skip
    return make_model(nodes)


def branches(inner: onnx.NodeProto, depth: int = 1) -> onnx.ModelProto:
    """``If`` within ``If``, in whose heart an operator stands."""
    chosen = inner
    for level in range(depth):
        out = chosen.output[0]
        graph = helper.make_graph(
            [chosen], f"g{level}", [], [helper.make_tensor_value_info(out, FLOAT, ("n", 1, 8, 8))]
        )
        last = level == depth - 1
        chosen = helper.make_node(
            "If", ["yes"], ["answer" if last else f"o{level}"], then_branch=graph, else_branch=graph
        )
    return make_model([chosen], {"yes": torch.tensor(True)}, opsets={"": 18, "theirs": 1})


def branches_of_the_same_names() -> onnx.ModelProto:
    """Of the values ``x`` in two branches one is small, the other as large as what is seen says."""
    answer = [helper.make_tensor_value_info("out", FLOAT, ("n", 1, 8, 8))]
    small = [node("Identity", "images", "x"), node("Relu", "x", "out")]
    large = [
        node("ConstantOfShape", "size", "x"), node("ReduceSum", "x", "s", keepdims=0),
        node("Add", "images s", "out"),
    ]  # fmt: skip
    graphs = [helper.make_graph(nodes, "g", [], answer) for nodes in (small, large)]
    nodes = [
        node("ReduceMax", "images", "most", keepdims=0), node("Mul", "most many", "times"),
        node("Cast", "times", "whole", to=onnx.TensorProto.INT64),
        node("Reshape", "whole one", "size"),
        node("Less", "most many", "dark"),
        helper.make_node("If", ["dark"], ["answer"], then_branch=graphs[1], else_branch=graphs[0]),
    ]  # fmt: skip
    return make_model(nodes, {"many": torch.tensor(1e9), "one": torch.tensor([1])})


def with_function() -> onnx.ModelProto:
    model = make_model([helper.make_node("Own", ["images"], ["answer"], domain="theirs")])
    opset = helper.make_opsetid("", 18)
    model.opset_import.append(helper.make_opsetid("theirs", 1))
    body = node("Relu", "x", "y")
    model.functions.append(helper.make_function("theirs", "Own", ["x"], ["y"], [body], [opset]))
    return model


def announcing() -> onnx.ModelProto:
    model = scaled(1.0)
    model.graph.initializer[0].dims[:] = [2**40]
    return model


def two_inputs() -> onnx.ModelProto:
    model = make_model([node("Add", "images more", "answer")])
    model.graph.input.append(helper.make_tensor_value_info("more", FLOAT, ("n", 1, 8, 8)))
    return model


def many_nodes() -> onnx.ModelProto:
    return make_model([node("Relu", "images", f"r{n}") for n in range(100)] + [RELU])


def text_output() -> onnx.ModelProto:
    cast = node("Cast", "images", "answer", to=onnx.TensorProto.STRING)
    return make_model([cast], output=(onnx.TensorProto.STRING, ("n", 1, 8, 8)))


def broadcast() -> onnx.ModelProto:
    """Small constants that span 3 GiB together, where a size is computed."""
    sides = {"a": (700, 1, 1), "b": (1, 700, 1)}
    constants = {name: torch.ones(side, dtype=torch.int64) for name, side in sides.items()}
    constants |= {"c": torch.ones(1, 1, 700, dtype=torch.int64), "yes": torch.tensor([True])}
    nodes = [
        node("Max", "a b c", "span"), node("ReduceMax", "span", "one", keepdims=0),
        node("Unsqueeze", "one axis", "side"), node("Concat", "side c1", "size", axis=0),
        node("ConstantOfShape", "size", "many"), node("ReduceSum", "many", "sum", keepdims=0),
        node("Add", "images sum", "answer"),
    ]  # fmt: skip
    return make_model(nodes, constants | {"axis": torch.tensor([0]), "c1": torch.tensor([1])})


def many_large() -> onnx.ModelProto:
    """Eighty tensors of 128 MiB an image."""
    nodes = [node("Tile", "images times", f"t{n}") for n in range(80)]
    return make_model([*nodes, RELU], {"times": torch.tensor([1, 2**19, 1, 1])})


def of_type(kind: int) -> onnx.ModelProto:
    model = make_model([RELU])
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def called(name: str) -> onnx.ModelProto:
    model = make_model([node("Relu", "images", name)])
    model.graph.output[0].name = name
    return model


def custom(operator: str = "Own", domain: str = "theirs") -> onnx.NodeProto:
    return helper.make_node(operator, ["images"], ["answer"], domain=domain)


def loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [node("Identity", "going", "go_on"), node("Relu", "x", "y")],
        "body",
        [
            helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, ()),
            helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, ()),
            helper.make_tensor_value_info("x", FLOAT, ("n", 1, 8, 8)),
        ],
        [
            helper.make_tensor_value_info("go_on", onnx.TensorProto.BOOL, ()),
            helper.make_tensor_value_info("y", FLOAT, ("n", 1, 8, 8)),
        ],
    )
    turns = {"turns": torch.tensor(2**62), "yes": torch.tensor(True)}
    return make_model([node("Loop", "turns yes images", "answer", body=body)], turns)


def argmax() -> onnx.ModelProto:
    return make_model(
        [node("ArgMax", "images", "answer", axis=1)],
        output=(onnx.TensorProto.INT64, ("n", 1, 8, 8)),
    )


def batch_norm_in_training() -> onnx.ModelProto:
    norm = node("BatchNormalization", "images s b m v", "answer rm rv", training_mode=1)
    return make_model([norm], {name: torch.ones(1) for name in "sbmv"})


HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "an operator of its own": (
        lambda: make_model([custom()], opsets={"": 18, "theirs": 1}), r"theirs\.Own, which is none",
    ),
    "an operator of its own in a branch": (lambda: branches(custom()), r"theirs\.Own"),
    "an operator of ONNX Runtime that opens a file": (
        lambda: make_model([custom("EPContext", "com.microsoft")]), r"com\.microsoft\.EPContext",
    ),
    "a function of its own": (with_function, "functions of its own"),
    "a loop without end": (loop, "Loop, which may repeat"),
    "random numbers": (
        lambda: make_model([node("RandomNormalLike", "images", "answer")]), "random numbers",
    ),
    "weights above its folder": (lambda: external("../weights"), "in another file"),
    "weights at the root": (lambda: external("/etc/passwd"), "in another file"),
    "weights beside it": (lambda: external("weights"), "in another file"),
    "weights that are announced": (announcing, "announces values"),
    "a constant of 4 TiB": (lambda: huge("ConstantOfShape"), "at most 536,870,912 values"),
    "4 TiB by repetition": (lambda: huge("Tile"), "at most 536,870,912 values"),
    "4 TiB by expansion": (lambda: huge("Expand"), "at most 536,870,912 values"),
    "numbers that span 3 GiB": (broadcast, "cannot be known"),
    "many tensors that are large together": (many_large, "of all"),
    "a batch of 10¹²": (
        lambda: make_model([RELU], shape=(10**12, 1, 8, 8), output=(FLOAT, (10**12, 1, 8, 8))),
        "takes images of shape",
    ),
    "channels without end": (
        lambda: make_model([RELU], shape=("n", 2**40, 8, 8), output=(FLOAT, ("n", 2**40, 8, 8))),
        "takes images of shape",
    ),
    "an input of no type": (lambda: of_type(999), "type 999|damaged"),
    "an output of a long name": (lambda: called("a" * 10**5), "100000 letters"),
    "a size that depends on what is seen": (unknown_size, "cannot be known"),
    "a size that is known of another branch": (branches_of_the_same_names, "cannot be known"),
    "an answer of no pixel": (
        lambda: make_model(
            [node("Slice", "images zero zero two", "answer")],
            {"zero": torch.tensor([0]), "two": torch.tensor([2])},
            output=(FLOAT, ("n", 1, 0, 8)),
        ),
        r"float of shape \(2, 1, 0, 8\)",
    ),
    "branches in branches": (lambda: branches(RELU, 12), "deep in each other"),
    "more operators than allowed": (many_nodes, "more than 100 operators"),
    "an input of another rank": (
        lambda: make_model([RELU], shape=("n", 8, 8), output=(FLOAT, ("n", 8, 8))),
        "3 dimensions, expected 4",
    ),
    "two inputs": (two_inputs, r"2 inputs \(images, more\)"),
    "text for an answer": (text_output, "is string of shape"),
    "classes for an answer": (argmax, "int64 .*argmax"),
    "an answer that is no mask": (
        lambda: make_model([node("Squeeze", "images", "answer")], output=(FLOAT, ("n", 8, 8))),
        r"float of shape \(2, 8, 8\)",
    ),
    "weights that are no numbers": (lambda: scaled(float("nan")), "not finite"),
    "an old opset": (lambda: make_model([RELU], opsets={"": 1}), "opset 1,"),
    "an opset of the future": (lambda: make_model([RELU], opsets={"": 999}), "opset 999"),
    "a batch that matters": (batch_norm_in_training, "export it in eval mode"),
    "a value that nobody makes": (lambda: make_model([node("Relu", "x", "answer")]), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_onnx_file_is_refused_by_what_is_wrong(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, expected = HOSTILE[kind]
    monkeypatch.setattr(onnx_file, "MOST_NODES", 100)
    (tmp_path.parent / "weights").write_bytes(b"\0" * 4)
    (tmp_path / "weights").write_bytes(b"\0" * 4)
    path = tmp_path / "theirs.onnx"
    path.write_bytes(make().SerializeToString())
    with at_most_megabytes(400), pytest.raises(CheckpointError, match=expected) as caught:
        open_network(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_what_is_cut_off_or_no_onnx_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scaled(2.0).SerializeToString()
    path = tmp_path / "theirs.onnx"
    for data in (
        whole[: len(whole) // 2],
        whole[:-3],
        b"",
        b"PK\x03\x04" + bytes(60),
        b"\xff" * 99,
    ):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match="damaged, or not an ONNX file"):
            open_network(path)
    path.write_bytes(whole)
    assert float(open_network(path).network(torch.ones(1, 1, 8, 8)).mean()) == 2
    monkeypatch.setattr(onnx_file, "LARGEST_FILE", len(whole) - 1)
    with pytest.raises(CheckpointError, match=f"has {len(whole)} bytes, expected at most"):
        open_network(path)


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("name", ["a.pt2", "a.ts", "a.torchscript", "exported.pt", "older.pth"])
def test_programs_are_refused_with_the_reason_and_the_way(tmp_path: Path, name: str) -> None:
    path, mark = tmp_path / name, tmp_path / "mark"
    if name in ("exported.pt", "older.pth"):
        part = {"exported.pt": "m/archive_format", "older.pth": "serialized_exported_program.json"}
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(part[name], "pt2")
            archive.writestr("m/data/constants.pt", pickle.dumps(Trap(mark)))
    else:
        path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(CheckpointError, match=r"not opened: torch.* can unpickle") as caught:
        open_network(path)
    assert "torch.onnx.export" in str(caught.value) and not mark.exists()
