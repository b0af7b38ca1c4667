import argparse
import hashlib
import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nakt_dist.errors import CheckpointError, ConfigurationError
from nakt_dist.models import ModelSpec
from nakt_dist.models.initialise import initialise
from nakt_dist.models.matching import load_into
from nakt_dist.models.weights import read_weights, save_weights
from nakt_dist.runtime.files import file_sha256

SPEC = ModelSpec("unet", options={"base_channels": 4})


def trained(spec=SPEC, seed=0):
    """A network whose BatchNorm buffers have moved from their first values."""
    torch.manual_seed(seed)
    network = spec.build()
    network(torch.rand(2, spec.in_channels, 32, 32))
    return network.eval()


def stored(tmp_path, spec=SPEC, name="weights.safetensors", **metadata):
    path = tmp_path / name
    save_weights(path, trained(spec).state_dict(), spec, metadata)
    return read_weights(path)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        ModelSpec("attention_unet", 3, 2, {"base_channels": 4}),
        ModelSpec("panoptic_fpn", options={"encoder_name": "resnet18"}),
    ],
    ids=lambda spec: spec.name,
)
def test_saved_networks_come_back_whole(tmp_path, spec):
    network, path = trained(spec), tmp_path / "weights.safetensors"
    sha256 = save_weights(path, network.state_dict(), spec, {"origin": "épreuve\n2"})
    loaded = read_weights(path)
    assert (loaded.spec, loaded.metadata) == (spec, {"origin": "épreuve\n2"})
    assert (loaded.path, loaded.source_format) == (path, "safetensors")
    assert loaded.sha256 == sha256 == file_sha256(path)
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()

    twin = loaded.spec.build().eval()
    report = load_into(twin, loaded)
    assert report.is_complete
    assert report.matched == tuple(network.state_dict())
    assert list(loaded.state_dict) == list(network.state_dict())
    for key, tensor in network.state_dict().items():
        assert torch.equal(twin.state_dict()[key], tensor), key
    images = torch.rand(2, spec.in_channels, 32, 40)
    with torch.no_grad():
        assert torch.equal(twin(images), network(images))


def test_dtypes_layouts_and_shared_tensors_are_kept_by_value(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    state = {
        "half": torch.tensor([0.5, 2.0]).bfloat16(),
        "steps": torch.tensor(7),
        "flag": torch.tensor([True]),
        "empty": torch.zeros(0, 3),
        "transposed": base.T,
        "tied": base,
        "tied_again": base,
        "row": base[2],
        "tail": base[3],
        "channels_last": torch.rand(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    path = tmp_path / "weights.safetensors"
    save_weights(path, state, SPEC, {})
    found = read_weights(path).state_dict
    assert set(found) == set(state)
    for key, tensor in state.items():
        assert found[key].dtype == tensor.dtype
        assert torch.equal(found[key], tensor), key


def test_equal_weights_give_equal_bytes(tmp_path):
    metadata = {f"field{index}": str(index) for index in range(9)}
    digests = {
        save_weights(tmp_path / f"{run}.safetensors", trained().state_dict(), SPEC, metadata)
        for run in range(5)
    }
    assert len(digests) == 1


def test_other_tools_read_our_files(tmp_path):
    path = tmp_path / "weights.safetensors"
    network = trained()
    save_weights(path, network.state_dict(), SPEC, {})
    found = safetensors.torch.load_file(path)
    assert all(torch.equal(found[key], each) for key, each in network.state_dict().items())
    with safetensors.safe_open(path, "pt") as opened:
        assert opened.metadata()["format"] == "pt"
        assert json.loads(opened.metadata()["model"])["name"] == "unet"


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    before = stored(tmp_path)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        save_weights(before.path, trained(seed=1).state_dict(), SPEC, {})
    assert [each.name for each in tmp_path.iterdir()] == [before.path.name]
    assert read_weights(before.path).sha256 == before.sha256


def test_files_follow_the_umask(tmp_path):
    previous = os.umask(0o027)
    try:
        assert stored(tmp_path).path.stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(previous)


@pytest.mark.parametrize("metadata", [{"model": "x"}, {"format": "x"}, {"step": 3}])
def test_reserved_names_and_values_that_are_not_text_are_refused(tmp_path, metadata):
    with pytest.raises(ConfigurationError, match="expected text by name"):
        save_weights(tmp_path / "weights.safetensors", {}, SPEC, metadata)


@pytest.mark.parametrize("entry", [3, None, torch.ones(2, 2).to_sparse()])
def test_entries_that_are_no_dense_tensors_are_refused(tmp_path, entry):
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_weights(tmp_path / "weights.safetensors", {"entry": entry}, SPEC, {})
    assert list(tmp_path.iterdir()) == []


def _truncated(data):
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("w.safetensors", _truncated, "damaged"),
        ("w.safetensors", lambda data: data[:-1], "damaged"),
        ("w.safetensors", lambda data: data + b"x", "damaged"),
        ("w.safetensors", lambda data: data[:100], "truncated"),
        ("w.safetensors", lambda _: b"", "has 0 bytes"),
        ("w.safetensors", lambda _: b"<html>404 not found</html>", "not a safetensors file"),
        ("w.safetensors", lambda _: (1 << 60).to_bytes(8, "little") + b"{}", "announces a header"),
        ("w.safetensors", lambda _: bytes(64), "damaged"),
        ("w.safetensors", lambda _: (2).to_bytes(8, "little") + b"{}", "holds no tensors"),
        ("w.safetensors", lambda data: data.replace(b'"model"', b'"modle"'), "weights format"),
        ("w.safetensors", lambda data: data.replace(b'\\"name\\"', b'\\"nane\\"'), "'nane'"),
        ("w.h5", lambda data: data, r"unknown kind .*'\.h5'"),
        ("w.pt", lambda data: data, "not a PyTorch weights file"),
        ("w.pt", lambda _: b"", "not a PyTorch weights file"),
        ("w.pt", lambda _: b"some text\n", "not a PyTorch weights file"),
        ("w.pt", lambda _: b"PK\x03\x04" + bytes(100), "not a PyTorch weights file"),
    ],
)
def test_damaged_and_foreign_files_are_named(tmp_path, name, damage, message):
    data = stored(tmp_path, name="whole.safetensors").path.read_bytes()
    path = tmp_path / name
    path.write_bytes(damage(data))
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)


def test_absent_files_and_folders_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_weights(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_weights(tmp_path)


def test_truncated_torch_files_are_damaged_not_dangerous(tmp_path):
    for new in (True, False):
        path = tmp_path / f"{new}.pt"
        torch.save(trained().state_dict(), path, _use_new_zipfile_serialization=new)
        path.write_bytes(_truncated(path.read_bytes()))
        with pytest.raises(CheckpointError, match="damaged"):
            read_weights(path)


@pytest.mark.parametrize("whole", [True, False])
def test_the_way_to_convert_a_refused_file_works(tmp_path, whole):
    network = torch.nn.Linear(2, 3)
    path = tmp_path / "old.pth"
    arguments = argparse.Namespace(lr=1)
    torch.save(network if whole else {"state_dict": network.state_dict(), "args": arguments}, path)
    with pytest.raises(CheckpointError, match=r"argparse\.Namespace|Linear") as caught:
        read_weights(path)
    snippet = [line.strip() for line in str(caught.value).splitlines() if line.startswith("    ")]
    assert len(snippet) == 3
    exec("\n".join(snippet), {})
    loaded = read_weights(tmp_path / "old.plain.pt")
    assert load_into(torch.nn.Linear(2, 3), loaded).is_complete


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    with pytest.warns((DeprecationWarning, FutureWarning)):
        script = torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2))
        torch.jit.save(script, path)
    with pytest.raises(CheckpointError, match=r"program that TorchScript wrote.*not opened"):
        read_weights(path)


@pytest.mark.parametrize(
    ("wrap", "source_format"),
    [
        (lambda state: state, "torch"),
        (lambda state: {"epoch": 3, "state_dict": state}, "torch:state_dict"),
        (lambda state: {"model": state, "optimizer": {"lr": 1.0}}, "torch:model"),
        (lambda state: {"teacher": {"state_dict": state}}, "torch:teacher:state_dict"),
        (lambda state: {"module." + key: each for key, each in state.items()}, "torch"),
        (lambda state: {"module._orig_mod." + key: each for key, each in state.items()}, "torch"),
        (
            lambda state: {"state_dict": {"model." + key: each for key, each in state.items()}},
            "torch:state_dict",
        ),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".tar"])
def test_state_dicts_are_found_in_containers_and_behind_prefixes(
    tmp_path, wrap, source_format, suffix
):
    network, path = trained(), tmp_path / f"old{suffix}"
    torch.save(wrap(network.state_dict()), path)
    loaded = read_weights(path)
    assert (loaded.source_format, loaded.spec, loaded.metadata) == (source_format, None, {})
    assert loaded.sha256 == file_sha256(path)
    assert list(loaded.state_dict) == list(network.state_dict())
    assert load_into(SPEC.build(), loaded).is_complete


def test_a_prefix_that_not_all_names_share_stays(tmp_path):
    state = {"model.weight": torch.ones(2), "loss.weight": torch.ones(2)}
    torch.save(state, tmp_path / "old.pt")
    assert set(read_weights(tmp_path / "old.pt").state_dict) == set(state)


@pytest.mark.parametrize("content", [{"epoch": 3}, [1, 2], {}, {"state_dict": {}}])
def test_files_without_a_state_dict_are_explained(tmp_path, content):
    torch.save(content, tmp_path / "old.pt")
    with pytest.raises(CheckpointError, match="expected tensors by name"):
        read_weights(tmp_path / "old.pt")


def test_foreign_safetensors_lose_their_wrappers_too(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"module.a": torch.ones(2)}, path, {"format": "pt", "by": "them"})
    loaded = read_weights(path)
    assert (list(loaded.state_dict), loaded.spec, loaded.metadata) == (["a"], None, {"by": "them"})


def test_plain_smp_checkpoints_load_unchanged(tmp_path):
    import segmentation_models_pytorch as smp

    plain = smp.DeepLabV3Plus("resnet18", encoder_weights=None, in_channels=1)
    torch.save(plain.state_dict(), tmp_path / "smp.pth")
    network = ModelSpec("deeplabv3plus", options={"encoder_name": "resnet18"}).build()
    assert load_into(network, read_weights(tmp_path / "smp.pth")).is_complete


def test_a_strict_mismatch_changes_nothing_and_says_what(tmp_path):
    loaded = stored(tmp_path)
    network = ModelSpec("unet", options={"base_channels": 4, "normalisation": "none"}).build()
    before = {key: each.clone() for key, each in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"unexpected \(encoder\.0\.0\.1\.weight, .*…\)"):
        load_into(network, loaded)
    assert all(torch.equal(before[key], each) for key, each in network.state_dict().items())
    report = initialise(network, loaded)
    assert not report.missing
    assert not report.is_complete
    assert torch.equal(network.head.weight, loaded.state_dict["head.weight"])


def test_weights_of_another_architecture_are_never_taken_for_loaded(tmp_path):
    network = torch.nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"0 entries match, 2 missing \(weight, bias\)"):
        load_into(network, stored(tmp_path))


@pytest.mark.parametrize("name", ["unet", "deeplabv3plus"])
def test_heads_are_replaced_only_on_request(tmp_path, name):
    options = {"base_channels": 4} if name == "unet" else {"encoder_name": "resnet18"}
    loaded = stored(tmp_path, ModelSpec(name, num_outputs=3, options=options))
    network = ModelSpec(name, options=options).build()
    with pytest.raises(CheckpointError, match="set num_outputs to 3, or replace the head"):
        load_into(network, loaded)
    head = {key: each.clone() for key, each in network.state_dict().items() if "head" in key}
    report = initialise(network, loaded)
    assert report.is_complete
    assert set(report.replaced_head) == set(head)
    for key, each in network.state_dict().items():
        assert torch.equal(each, head.get(key, loaded.state_dict[key])), key


def test_replacing_the_head_forgives_nothing_else(tmp_path):
    loaded = stored(tmp_path, ModelSpec("unet", 3, 3, {"base_channels": 4}))
    with pytest.raises(CheckpointError, match="reads 3 image channels"):
        initialise(SPEC.build(), loaded)


@pytest.mark.parametrize("name", ["unet", "deeplabv3plus"])
def test_first_layers_for_other_channels_are_named(tmp_path, name):
    options = {"base_channels": 4} if name == "unet" else {"encoder_name": "resnet18"}
    loaded = stored(tmp_path, ModelSpec(name, in_channels=3, options=options))
    with pytest.raises(CheckpointError, match="reads 3 image channels, the network's 1"):
        load_into(ModelSpec(name, options=options).build(), loaded)


def test_loading_keeps_the_dtype_of_the_network(tmp_path):
    path = Path(tmp_path / "weights.safetensors")
    half = {
        key: each.bfloat16() if each.is_floating_point() else each
        for key, each in trained().state_dict().items()
    }
    save_weights(path, half, SPEC, {})
    loaded = read_weights(path)
    assert loaded.state_dict["head.weight"].dtype == torch.bfloat16
    network = SPEC.build()
    load_into(network, loaded)
    assert network.head.weight.dtype == torch.float32


def test_the_hint_names_the_outputs_where_several_are_wanted(tmp_path):
    loaded = stored(tmp_path, ModelSpec("unet", num_outputs=3, options={"base_channels": 4}))
    network = ModelSpec("unet", num_outputs=2, options={"base_channels": 4}).build()
    with pytest.raises(CheckpointError, match="set num_outputs to 3"):
        load_into(network, loaded)
