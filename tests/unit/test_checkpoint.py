import os
import pickle
import shutil

import pytest
import torch

from nakt_dist.errors import CheckpointError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import read_weights
from nakt_dist.runtime.files import file_sha256, read_json, value_sha256, write_json
from nakt_dist.training.checkpoint import (
    CheckpointStore,
    Progress,
    TrainingState,
    load_checkpoint,
)

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
    names = [name for name, _ in network.named_parameters()]
    moments = {names[n]: dict(each) for n, each in optimiser.state_dict()["state"].items()}
    state = TrainingState(moments, {"scale": 65536.0, "_growth_tracker": 3})
    store.save(Progress(step, 0.5, 1), network.state_dict(), state, SPEC, {"lineage": "{}"})


def saved(store, step, network_and_optimiser=None):
    """The folder of a checkpoint just written."""
    save(store, step, network_and_optimiser)
    return store.latest()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def damage(folder, name="optimiser.safetensors"):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


def test_a_run_without_checkpoints_has_no_latest(store):
    assert store.latest() is None


def test_a_checkpoint_comes_back_bit_for_bit(store):
    network, optimiser = trained(3)
    weights = saved(store, 3, (network, optimiser)) / "model.safetensors"
    progress, state_dict, state = load_checkpoint(store.latest())
    assert progress == Progress(3, 0.5, 1)
    assert state.scaler == {"scale": 65536.0, "_growth_tracker": 3}
    assert list(state_dict) == list(network.state_dict())
    assert all(torch.equal(state_dict[name], value) for name, value in network.state_dict().items())
    expected = optimiser.state_dict()["state"]
    assert set(state.moments) == {name for name, _ in network.named_parameters()}
    for number, (name, _) in enumerate(network.named_parameters()):
        assert state.moments[name].keys() == {"step", "exp_avg", "exp_avg_sq"}
        for kind, value in expected[number].items():
            assert torch.equal(state.moments[name][kind], value)
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


@pytest.mark.parametrize("name", ["optimiser.safetensors", "model.safetensors", "progress.json"])
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
        damage(saved(store, step))
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
    folder = saved(store, 5)
    path, marker = folder / "optimiser.safetensors", tmp_path / "marker"
    if writer == "torch":
        torch.save({"optimiser": Malicious(marker)}, path)
    else:
        path.write_bytes(pickle.dumps({"optimiser": Malicious(marker)}, protocol=2))
    sign(folder)
    with pytest.raises(CheckpointError, match="do not use this checkpoint"):
        load_checkpoint(store.latest())
    assert not marker.exists()


def sign(folder, **changes):
    """Makes the checkpoint agree with its files, as somebody would who tampers with it."""
    content = read_json(folder / "progress.json", "progress") | changes
    content["files"] = {name: file_sha256(folder / name) for name in content["files"]}
    del content["sha256"]
    write_json(folder / "progress.json", {**content, "sha256": value_sha256(content)})


@pytest.mark.parametrize(
    "change",
    [{"progress": {"stride": 1}}, {"progress": None}, {"progress": [1, 2]}],
)
def test_a_progress_that_training_never_writes_is_refused(store, change):
    folder = saved(store, 5)
    content = read_json(folder / "progress.json", "progress")
    write_json(folder / "progress.json", {**content, **change})
    with pytest.raises(CheckpointError, match="do not use this checkpoint"):
        load_checkpoint(folder)
    sign(folder, **change)
    with pytest.raises(CheckpointError, match="all 1 checkpoints are damaged"):
        store.latest()


@pytest.mark.parametrize("files", [None, [], {}, {"model.safetensors": "0"}, "model.safetensors"])
def test_a_checkpoint_that_does_not_name_its_files_is_damaged(store, capsys, files):
    for step in (5, 10):
        save(store, step)
    newest = store.latest()
    content = read_json(newest / "progress.json", "progress")
    write_json(newest / "progress.json", {**content, "files": files})
    assert store.latest().name == "step-000000005"
    assert "does not name its files" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"step": 5}, {"step": "10"}, {"step": -3}, {"best_metric": float("nan")},
        {"best_step": -1}, {"validated_step": 10}, {"more": 1},
    ],
)  # fmt: skip
def test_progress_that_was_changed_is_damaged(store, capsys, change):
    for step in (5, 10):
        save(store, step)
    newest = store.latest()
    content = read_json(newest / "progress.json", "progress")
    changed = {**content, "progress": {**content["progress"], **change}}
    write_json(newest / "progress.json", changed)
    assert store.latest().name == "step-000000005"
    assert "progress.json has changed" in capsys.readouterr().err


def test_a_checkpoint_under_the_name_of_another_step_is_damaged(store, capsys):
    save(store, 5)
    shutil.copytree(store.latest(), store.latest().with_name("step-000000010"))
    (store.latest().parent / "latest").write_text("step-000000010")
    assert store.latest().name == "step-000000005"
    assert "progress.json is that of another step" in capsys.readouterr().err


def test_a_pointer_that_is_a_folder_is_said_to_be_one(store):
    folder = saved(store, 5).parent
    (folder / "latest").unlink()
    (folder / "latest").mkdir()
    with pytest.raises(CheckpointError, match="latest: is a folder, expected a file; delete it"):
        store.latest()


def test_the_best_checkpoint_stays_besides_the_newest(store, tmp_path):
    for step, best in ((5, 5), (10, 5), (15, 5), (20, 20), (25, 20), (30, 20)):
        network, _ = trained(1)
        store.save(
            Progress(step, 0.5, best),
            network.state_dict(),
            TrainingState({}),
            SPEC,
            {"lineage": "{}"},
        )
        kept = names(tmp_path / "checkpoints")[1:]
        assert f"step-{best:09d}" in kept
        assert len(kept) == len({best, *range(max(step - 5, 5), step + 1, 5)})


def test_what_a_checkpoint_says_of_validation_can_be_changed(store):
    save(store, 5)
    store.update(Progress(5, 0.75, 5, 5))
    assert load_checkpoint(store.latest())[0] == Progress(5, 0.75, 5, 5)


def test_steps_that_were_lost_do_not_count_among_those_kept(store, tmp_path):
    for step in (5, 10):
        save(store, step)
    damage(store.latest())
    assert store.latest().name == "step-000000005"
    save(store, 7)
    assert names(tmp_path / "checkpoints") == ["latest", "step-000000005", "step-000000007"]


def test_the_best_weights_of_a_lost_step_give_way_to_the_best_that_is_kept(store, tmp_path):
    weights, best = saved(store, 5) / "model.safetensors", tmp_path / "best.safetensors"
    best.write_bytes(b"of a step that was lost")
    store.restore_best(Progress(5, 0.5, None), best)
    assert best.read_bytes() == b"of a step that was lost"
    store.restore_best(Progress(5, 0.5, 5), best)
    assert best.read_bytes() == weights.read_bytes()
