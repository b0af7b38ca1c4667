import os
import pickle

import pytest
import torch

from nakt_dist.errors import CheckpointError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import read_weights
from nakt_dist.runtime.files import file_sha256, read_json, write_json
from nakt_dist.training.checkpoint import CheckpointStore, Progress, load_checkpoint

SPEC = ModelSpec("unet", options={"base_channels": 4})


def trained(steps, seed=0):
    """A network and its optimiser after so many steps."""
    torch.manual_seed(seed)
    network = SPEC.build()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        network(torch.rand(2, 1, 32, 32)).mean().backward()
        optimiser.step()
    return network, optimiser


def save(store, step, network_and_optimiser=None):
    network, optimiser = network_and_optimiser or trained(1)
    state = {"optimiser": optimiser.state_dict(), "scaler": None}
    return store.save(Progress(step, 0.5, 1), network, state, SPEC, {"lineage": "{}"})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def damage(folder, name="training_state.pt"):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


def test_a_run_without_checkpoints_has_no_latest(store):
    assert store.latest() is None


def test_a_checkpoint_comes_back_bit_for_bit(store):
    network, optimiser = trained(3)
    weights = save(store, 3, (network, optimiser))
    progress, state_dict, state = load_checkpoint(store.latest())
    assert progress == Progress(3, 0.5, 1)
    assert state["scaler"] is None
    assert list(state_dict) == list(network.state_dict())
    assert all(torch.equal(state_dict[name], value) for name, value in network.state_dict().items())
    again = torch.optim.Adam(network.parameters(), lr=1.0)
    again.load_state_dict(state["optimiser"])
    expected = optimiser.state_dict()
    assert again.state_dict()["param_groups"] == expected["param_groups"]
    for number, moments in expected["state"].items():
        for name, value in moments.items():
            assert torch.equal(again.state_dict()["state"][number][name], value)
    assert read_weights(weights).spec == SPEC


def test_the_newest_checkpoints_are_kept(store, tmp_path):
    for step in (5, 10, 15):
        save(store, step)
    assert names(tmp_path / "checkpoints") == ["latest", "step-000000010", "step-000000015"]
    assert store.latest().name == "step-000000015"


def test_the_same_step_saved_again_replaces_its_checkpoint(store):
    save(store, 5)
    network, optimiser = trained(2, seed=9)
    save(store, 5, (network, optimiser))
    state_dict = load_checkpoint(store.latest())[1]
    assert all(torch.equal(state_dict[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["training_state.pt", "model.safetensors", "progress.json"])
@pytest.mark.parametrize("kind", ["flipped", "truncated", "absent"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before_it(store, capsys, name, kind):
    for step in (5, 10):
        save(store, step)
    newest = store.latest()
    if kind == "flipped" and name != "progress.json":
        damage(newest, name)
    elif kind == "absent":
        (newest / name).unlink()
    else:
        (newest / name).write_bytes((newest / name).read_bytes()[:-20])
    assert store.latest().name == "step-000000005"
    message = capsys.readouterr().err
    assert f"checkpoint {newest} is damaged" in message
    assert name in message


def test_no_whole_checkpoint_is_an_error_and_not_a_new_beginning(store):
    for step in (5, 10):
        damage(save(store, step).parent)
    with pytest.raises(CheckpointError, match="all 2 checkpoints are damaged"):
        store.latest()


@pytest.mark.parametrize("pointer", [b"", b"step-000000099", b"\xff\xfe", None])
def test_without_a_usable_pointer_the_newest_checkpoint_is_taken(store, tmp_path, pointer):
    for step in (5, 10):
        save(store, step)
    path = tmp_path / "checkpoints" / "latest"
    path.unlink() if pointer is None else path.write_bytes(pointer)
    assert store.latest().name == "step-000000010"


@pytest.mark.parametrize("function", ["save_weights", "write_json", "write_bytes"])
def test_an_end_at_any_moment_leaves_a_whole_checkpoint(store, tmp_path, monkeypatch, function):
    save(store, 5)

    def killed(*arguments, **settings):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"nakt_dist.training.checkpoint.{function}", killed)
        save(store, 10)
    load_checkpoint(store.latest())
    save(store, 10)
    assert store.latest().name == "step-000000010"
    assert names(tmp_path / "checkpoints") == ["latest", "step-000000005", "step-000000010"]


class Malicious:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickled_code_in_a_training_state_is_refused_and_does_not_run(store, tmp_path, writer):
    folder = save(store, 5).parent
    path, marker = folder / "training_state.pt", tmp_path / "marker"
    if writer == "torch":
        torch.save({"optimiser": Malicious(marker)}, path)
    else:
        path.write_bytes(pickle.dumps({"optimiser": Malicious(marker)}, protocol=2))
    progress = read_json(folder / "progress.json", "progress")
    progress["files"][path.name] = file_sha256(path)
    write_json(folder / "progress.json", progress)
    with pytest.raises(CheckpointError, match="training_state"):
        load_checkpoint(store.latest())
    assert not marker.exists()
