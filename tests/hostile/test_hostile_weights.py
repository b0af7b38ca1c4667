"""Weights that run code, announce what they do not hold, or unpack to more than they are."""

import codecs
import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nakt_dist.errors import CheckpointError
from nakt_dist.models.initialise import read_initial_weights
from nakt_dist.models.network_file import open_network, stored_lineage
from nakt_dist.models.weights import read_weights
from tests.datasets import make_weights
from tests.memory import at_most_megabytes

pytestmark = pytest.mark.faults

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".tar")


class Trap:
    """Touches a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return (os.mkdir, (str(self.mark),))


@pytest.mark.parametrize("suffix", [*PICKLES, ".safetensors"])
@pytest.mark.parametrize("writer", ["pickle", "torch", "old_torch"])
@pytest.mark.parametrize("reader", [read_weights, read_initial_weights, open_network])
def test_a_pickle_runs_nothing_whatever_it_is_called(tmp_path, suffix, writer, reader):
    mark, path = tmp_path / "mark", tmp_path / f"weights{suffix}"
    content = {"weight": torch.ones(2), "more": Trap(mark)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    told = "weights.safetensors" if suffix == ".safetensors" else "not executed"
    with pytest.raises(CheckpointError, match=told):
        reader(path)
    assert not mark.exists()
    data = path.read_bytes()
    pickle.loads(data) if writer == "pickle" else torch.load(io.BytesIO(data), weights_only=False)
    assert mark.exists()  # the trap was a real one


@pytest.mark.parametrize(
    "name",
    ["pipe:mkdir mark", "pipe:mkdir mark;.pt", "|mkdir mark", "$(mkdir mark)", "`mkdir mark`"],
)
@pytest.mark.parametrize("reader", [read_weights, read_initial_weights, open_network])
def test_a_name_that_is_a_command_is_a_file_that_is_not_there(tmp_path, monkeypatch, reader, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="no such"):
        reader(name)
    assert list(tmp_path.iterdir()) == []


def safetensors_bytes(header: object, content: bytes = bytes(4), claimed: int | None = None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + content


def entry(dtype: str = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


LYING = {
    "header_of_sixteen_exabytes": safetensors_bytes({"a": entry()}, claimed=2**64 - 1),
    "header_to_the_last_byte": safetensors_bytes({"a": entry()}, claimed=60),
    "header_of_nothing": safetensors_bytes(b"", b""),
    "header_is_a_list": safetensors_bytes([entry()]),
    "header_is_deep": safetensors_bytes(b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "header_is_not_utf_8": safetensors_bytes(b'{"\xff":1}'),
    "overlapping": safetensors_bytes({"a": entry(), "b": entry()}),
    "half_overlapping": safetensors_bytes({"a": entry(), "b": entry(offsets=(2, 6))}, bytes(6)),
    "with_a_gap": safetensors_bytes({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)),
    "outside_of_the_file": safetensors_bytes({"a": entry(shape=(100,), offsets=(0, 400))}),
    "beyond_any_file": safetensors_bytes({"a": entry(offsets=(2**63, 2**63 + 4))}),
    "backwards": safetensors_bytes({"a": entry(offsets=(4, 0))}),
    "before_the_file": safetensors_bytes({"a": entry(offsets=(-4, 0))}),
    "of_another_size_than_its_shape": safetensors_bytes({"a": entry(shape=(2,))}),
    "shape_that_overflows": safetensors_bytes({"a": entry(shape=(2**62, 8))}),
    "empty_shape_that_overflows": safetensors_bytes({"a": entry("F32", (2**63, 0), (0, 0))}, b""),
    "shape_below_nothing": safetensors_bytes({"a": entry(shape=(-1,))}),
    "shape_is_a_text": safetensors_bytes({"a": entry(shape="1")}),
    "unknown_type": safetensors_bytes({"a": entry("OBJECT")}),
    "type_that_torch_lacks": safetensors_bytes({"a": entry("F8_E8M0", (4,))}),
    "more_than_it_says": safetensors_bytes({"a": entry()}, bytes(100)),
    "metadata_is_a_list": safetensors_bytes({"__metadata__": [], "a": entry()}),
    "metadata_is_nested": safetensors_bytes({"__metadata__": {"a": {}}, "a": entry()}),
}


@pytest.mark.parametrize("data", LYING.values(), ids=LYING)
def test_safetensors_that_lie_are_refused_by_path(tmp_path, data):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def described(tmp_path: Path, **metadata: str) -> Path:
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({"a": torch.ones(1)}, path, {"nakt_weights": "1", **metadata})
    return path


@pytest.mark.parametrize("depth", [17, 100, 600, 950, 985, 5000])
def test_a_description_nested_too_deeply_is_refused_at_any_depth(tmp_path, depth):
    options = '{"a":' * depth + "1" + "}" * depth
    text = f'{{"name": "unet", "in_channels": 1, "num_outputs": 1, "options": {options}}}'
    with pytest.raises(CheckpointError, match="network description: n"):
        read_weights(described(tmp_path, model=text))


@pytest.mark.parametrize("depth", [300, 950, 5000])
def test_a_lineage_nested_too_deeply_is_refused_at_any_depth(tmp_path, depth):
    model = '{"name": "unet", "in_channels": 1, "num_outputs": 1, "options": {}}'
    lineage = '{"a":' * depth + "1" + "}" * depth
    loaded = read_weights(described(tmp_path, model=model, lineage=lineage))
    with pytest.raises(CheckpointError, match="its lineage"):
        stored_lineage(loaded)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_small_file_blown_up_with_nothing_is_not_read(tmp_path, suffix):
    path = make_weights(tmp_path / "whole.safetensors")
    path = path.rename(tmp_path / f"weights{suffix}")
    os.truncate(path, 50 * 2**30)  # a hole on disk
    with at_most_megabytes(200), pytest.raises(CheckpointError, match="damaged, or not"):
        read_weights(path)


def deflated(data: bytes) -> bytes:
    """Returns a copy of torch's archive with compressed parts, which torch reads as well."""
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(data)) as archive,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as copy,
    ):
        for part in archive.infolist():
            copy.writestr(part.filename, archive.read(part))
    return stream.getvalue()


def test_an_archive_that_unpacks_to_more_than_its_file_is_not_unpacked(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(10_000_000)}, path)
    path.write_bytes(deflated(path.read_bytes()))
    assert path.stat().st_size < 1_000_000
    with at_most_megabytes(20), pytest.raises(CheckpointError, match="unpacks to 400"):
        read_weights(path)
    assert torch.load(path, weights_only=True)["a"].numel() == 10_000_000  # torch would have


@pytest.mark.parametrize(
    ("name", "seen"),
    [("x/constants.pkl", "unpacks to 400"), ("constants.pkl", "not opened")],
)
def test_a_member_named_as_in_torchscript_does_not_get_an_archive_unpacked(tmp_path, name, seen):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(10_000_000)}, path)
    path.write_bytes(deflated(path.read_bytes()))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{path.stem}/{name}", b"")
    with at_most_megabytes(20), pytest.raises(CheckpointError, match=seen):
        read_weights(path)


def test_an_archive_whose_sizes_cannot_be_read_is_not_unpacked(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(10_000_000)}, path)
    data = bytearray(deflated(path.read_bytes()))
    data[data.index(b"PK\x01\x02") + 6] = 99  # the version needed, which torch does not look at
    path.write_bytes(data)
    assert torch.load(path, weights_only=True)["a"].numel() == 10_000_000
    with pytest.raises(CheckpointError, match="damaged, or not"):
        read_weights(path)


class Calls:
    """Pickles as a call of a function with arguments, whatever these give."""

    def __init__(self, function: object, *arguments: object, state: object = None) -> None:
        self.call = (function, arguments, state)

    def __reduce__(self) -> tuple:
        return self.call


def nested(depth: int) -> tuple:
    value: tuple = ("a",)
    for _ in range(depth):
        value = (value, value)
    return value


def announced(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.zeros(1, dtype=dtype).expand(*size)


def hexadecimal(rounds: int) -> object:
    value: object = b"ab"
    for _ in range(rounds):
        value = Calls(codecs.encode, value, "hex")
    return value


MUCH = 3 * 10**8

AMPLIFIED = {
    "size_of_bytes": lambda: Calls(torch.Size, Calls(bytearray, MUCH)),
    "set_of_bytes": lambda: Calls(set, Calls(bytearray, MUCH)),
    "counter_of_bytes": lambda: Calls(Counter, Calls(bytearray, MUCH)),
    "bytes": lambda: Calls(bytearray, MUCH),
    "bytes_as_a_key": lambda: {"a": torch.ones(1), "b": [Calls(bytearray, MUCH)]},
    "hexadecimal_of_itself": lambda: hexadecimal(28),
    "size_of_a_tensor": lambda: Calls(torch.Size, announced(MUCH)),
    "set_of_a_tensor": lambda: Calls(set, announced(MUCH)),
    "mapping_of_a_tensor": lambda: Calls(OrderedDict, announced(MUCH, 2)),
    "state_is_a_tensor": lambda: Calls(OrderedDict, state=announced(MUCH, 2)),
    "arguments_are_a_tensor": lambda: Calls(
        torch._tensor._rebuild_from_type_v2, torch.Size, torch.Tensor, announced(MUCH), {}
    ),
    "sparse_of_a_tensor": lambda: Calls(
        torch._utils._rebuild_sparse_tensor,
        torch.sparse_coo,
        (announced(1, MUCH, dtype=torch.long), announced(MUCH), (1,), False),
    ),
    "copied_tensor": lambda: Calls(
        torch._utils._rebuild_device_tensor_from_cpu_tensor,
        announced(MUCH),
        torch.float64,
        "cpu",
        False,
    ),
    "key_of_tuples": lambda: {nested(26): 1},
    "set_of_tuples": lambda: {nested(26)},
    "mapping_of_tuples": lambda: Calls(OrderedDict, [[nested(26), 1]]),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize("make", AMPLIFIED.values(), ids=AMPLIFIED)
def test_a_small_pickle_that_takes_much_memory_or_time_is_refused(tmp_path, make, archive):
    path = tmp_path / "weights.pt"
    torch.save(make(), path, _use_new_zipfile_serialization=archive)
    assert path.stat().st_size < 5000
    with at_most_megabytes(20), pytest.raises(CheckpointError, match="not executed"):
        read_weights(path)


@pytest.mark.parametrize("archive", [True, False])
@pytest.mark.parametrize(
    ("arguments", "state"), [((True,), None), ((), (True, False, OrderedDict()))]
)
def test_parameters_as_old_torch_saved_them_are_read(tmp_path, arguments, state, archive):
    path, weight = tmp_path / "weights.pt", torch.arange(3.0)
    parameter = Calls(torch.nn.Parameter, weight, *arguments, state=state)
    torch.save({"a.weight": parameter}, path, _use_new_zipfile_serialization=archive)
    assert torch.equal(read_weights(path).state_dict["a.weight"], weight)


@pytest.mark.parametrize("archive", [True, False])
def test_what_training_scripts_keep_beside_their_weights_is_read_over(tmp_path, archive):
    network = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    network[0].weight.note = "of a parameter"
    buffer = torch.ones(2)
    buffer.note = "of a tensor"
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 3, 7])
    content = {
        "state_dict": {**network.state_dict(keep_vars=True), "buffer": buffer},
        "ema": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "shape": torch.ones(2, 3).shape,
        "names": {"a", "b", (1, 2)},
        "notes": [b"\xff\x00", bytearray(b"ab"), bytearray(), 1 + 2j, None, 2**70, -1.5],
        "where": [torch.device("cuda:1"), torch.float16, torch.strided],
        "pairs": {(1, "a"): [(1, (2, (3,)))]},
        "old": Calls(OrderedDict, [["a", 1], ["b", torch.ones(1)]]),
    }
    path = tmp_path / "weights.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    assert set(torch.load(path, weights_only=True)) == set(content)
    assert set(read_weights(path).state_dict) == {*network.state_dict(), "buffer"}


def test_a_mapping_whose_methods_are_replaced_is_no_error_of_python(tmp_path):
    replaced = {"values": 1, "items": 2, "keys": 3}
    state = Calls(OrderedDict, [["a", torch.ones(1)]], state=replaced)
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="damaged, or not"):
        read_weights(tmp_path / "weights.pt")


@pytest.mark.filterwarnings("ignore")  # torch's advice on the kinds tried here
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: torch.ones(1).expand(10**6, 10**6), "announce 1000000000000 values"),
        (lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6)), "not a dense tensor"),
        (lambda: torch.eye(3).to_sparse(), "not a dense tensor"),
        (lambda: torch.empty(3, device="meta"), "not a dense tensor"),
        (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "not a dense"),
    ],
    ids=["expanded", "huge_sparse", "sparse", "without_values", "quantised"],
)
def test_tensors_that_are_only_announced_are_refused_by_name(tmp_path, make, told):
    path = tmp_path / "weights.pt"
    torch.save({"layer.weight": make()}, path)
    with pytest.raises(CheckpointError, match=told) as caught:
        read_initial_weights(path)
    assert "'layer.weight'" in str(caught.value)


def test_tied_and_sliced_tensors_are_no_announcements(tmp_path):
    base = torch.arange(100.0)
    state = {"a": base, "b": base, "row": base[:5], "scalar": torch.tensor(1), "none": base[:0]}
    torch.save(state, tmp_path / "weights.pt")
    loaded = read_weights(tmp_path / "weights.pt").state_dict
    assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize("name", [1, None, ("a", "b"), b"a"])
def test_names_that_are_no_text_are_refused(tmp_path, name):
    torch.save({name: torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match="expected text by name"):
        read_weights(tmp_path / "weights.pt")


@pytest.mark.timeout(20)
def test_a_name_of_a_million_wrappers_is_taken_off_only_so_far(tmp_path):
    name = "model." * 1_000_000 + "weight"
    torch.save({name: torch.ones(1)}, tmp_path / "weights.pt")
    (found,) = read_weights(tmp_path / "weights.pt").state_dict
    assert found.endswith("weight") and len(found) < len(name)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float64])
def test_weights_that_are_not_finite_are_refused_before_they_are_used(
    tmp_path, value, suffix, kind
):
    path = tmp_path / f"weights{suffix}"
    state = {"good": torch.ones(3), "bad": torch.tensor([1.0, value], dtype=kind)}
    (safetensors.torch.save_file if suffix == ".safetensors" else torch.save)(state, path)
    for read in (read_initial_weights, open_network):
        with pytest.raises(CheckpointError, match="'bad' holds 1 of 2 values that are NaN or inf"):
            read(path)


def test_no_single_damaged_byte_of_a_pickle_escapes_as_another_error(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.ones(3)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for position in range(0, len(data), 3):
            changed = bytearray(data)
            changed[position] ^= 0x15
            path.write_bytes(changed)
            try:
                assert all(map(torch.is_tensor, read_weights(path).state_dict.values()))
            except CheckpointError:
                continue
