"""``nakt teach``: the pseudo masks are the teachers' mean, and say where they come from."""

import io
import os
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from skimage.measure import shannon_entropy

from nakt_dist.config import PreprocessingConfig, TeacherConfig
from nakt_dist.errors import CheckpointError, ConfigurationError, DatasetError
from nakt_dist.imaging.packed import encode_mask_png, encode_soft_png
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import save_weights
from nakt_dist.shards.manifest import PseudoLabelManifest, ShardManifest
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.stages import teach
from nakt_dist.stages.opening import Opening
from tests.datasets import make_packed_dataset, make_pseudo_labels, make_weights
from tests.recipes import TINY_UNET, file_hashes, teach_config, train_config


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_packed_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two teachers that disagree."""
    folder = tmp_path_factory.mktemp("weights")
    return [make_weights(folder / f"{seed}.safetensors", seed=seed) for seed in (0, 1)]


def soft_masks(folder: Path) -> dict[str, np.ndarray]:
    """The stored masks by key, read from the tars without our reader."""
    masks = {}
    for path in sorted(folder.glob("pseudo-*.tar")):
        with tarfile.open(path) as archive:
            for member in archive:
                key, _, extension = member.name.partition(".")
                assert extension == "soft.png"
                masks[key] = np.asarray(Image.open(archive.extractfile(member)))
    return masks


def statistics(folder: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(folder / "index.parquet").to_pylist()
    return {row["key"]: row for row in rows}


@torch.no_grad()
def probabilities(weights: Path, dataset: Path) -> dict[str, np.ndarray]:
    """What a teacher thinks of each image, computed the plain way."""
    network = TINY_UNET.build()
    network.load_state_dict(load_file(weights))
    images = IndexedShards(dataset)
    result = {}
    for number, key in enumerate(images.keys):
        pixels = np.asarray(Image.open(io.BytesIO(images.image_bytes(number))))
        logits = network.eval()(torch.tensor(pixels / 255, dtype=torch.float32)[None, None])
        result[key] = logits.sigmoid()[0, 0].double().numpy()
    return result


def assert_stores(masks: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Stored levels are round(255 y); a value on the edge of two may fall to either."""
    assert masks.keys() == expected.keys()
    for key, mask in masks.items():
        assert mask.dtype == np.uint8
        assert np.abs(mask - 255 * expected[key]).max() <= 0.501


def test_the_stored_mask_is_the_teachers_probability(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    teach.run(teach_config(tmp_path / "out", dataset, weights[0]))

    assert_stores(soft_masks(tmp_path / "out"), probabilities(weights[0], dataset))


def test_the_fastest_form_keeps_the_masks_and_is_named(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 12's bound: one grey level, in all but 0.1 % of the pixels."""
    spec = ModelSpec("unet", options={"base_channels": 4})
    network = spec.build().train()
    with torch.no_grad():
        for seed in range(3):
            network(torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(seed)))
    save_weights(tmp_path / "teacher.safetensors", network.state_dict(), spec, {})
    for output in ("fast", "plain"):
        teach.run(teach_config(tmp_path / output, dataset, tmp_path / "teacher.safetensors"))
        monkeypatch.setattr(teach, "for_inference", lambda trained, *_: trained)

    fast, plain = (soft_masks(tmp_path / output) for output in ("fast", "plain"))
    levels = np.stack([np.abs(fast[key].astype(int) - plain[key]) for key in plain])
    assert (levels > 1).mean() <= 1e-3
    config = PseudoLabelManifest.read(tmp_path / "fast").config
    assert config["precision"] == "float32"
    assert config["form"] == ["BatchNorm folded", "channels_last"]


def test_auto_is_a_precision_of_the_device_and_tf32_one_of_a_gpu() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    asked = ("auto", "float32", "bfloat16")
    assert [teach.resolve_precision(each, cpu) for each in asked] == [
        "float32", "float32", "bfloat16"
    ]  # fmt: skip
    assert teach.resolve_precision("auto", gpu) == "tf32"
    with pytest.raises(ConfigurationError, match="precision is tf32"):
        teach.resolve_precision("tf32", cpu)


def test_soft_masks_are_stored_without_loss_and_not_a_tenth_larger() -> None:
    noise = np.random.default_rng(0).normal(size=(12, 12)).astype(np.float32)
    wavy = np.asarray(Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC))
    side = np.linspace(-1, 1, 96)
    logits = 25 * (0.4 - side[:, None] ** 2 - side**2) + wavy
    mask = (255 / (1 + np.exp(-logits))).round().astype(np.uint8)
    stored = encode_soft_png(mask)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(stored))), mask)
    assert len(stored) <= 1.1 * len(encode_mask_png(mask))


def test_a_teacher_that_learnt_with_dropout_teaches_without(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    noisy = ModelSpec("unet", options={"dropout": 0.5})
    teachers = [TeacherConfig(str(weights[0]), model=model) for model in (None, noisy)]
    for name, teacher in zip(("plain", "noisy"), teachers, strict=True):
        teach.run(teach_config(tmp_path / name, dataset, teacher))
    plain, other = (soft_masks(tmp_path / name) for name in ("plain", "noisy"))
    assert plain.keys() == other.keys()
    assert all(np.array_equal(plain[key], other[key]) for key in plain)


def test_two_teachers_are_averaged_by_their_weights(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    teachers = [
        TeacherConfig(weights=str(path), weight=weight)
        for path, weight in zip(weights, (1.0, 3.0), strict=True)
    ]
    teach.run(teach_config(tmp_path / "out", dataset, *teachers))

    first, second = (probabilities(path, dataset) for path in weights)
    mean = {key: (first[key] + 3 * second[key]) / 4 for key in first}
    assert_stores(soft_masks(tmp_path / "out"), mean)
    for key, row in statistics(tmp_path / "out").items():
        squares = (first[key] ** 2 + 3 * second[key] ** 2) / 4
        spread = np.sqrt(np.maximum(squares - mean[key] ** 2, 0)).mean()
        assert row["teacher_disagreement"] == pytest.approx(spread, abs=1e-4)
        assert row["teacher_disagreement"] > 0.01


def test_binary_teachers_vote(dataset: Path, weights: list[Path], tmp_path: Path) -> None:
    teachers = [
        TeacherConfig(weights=str(path), weight=weight, output="binary")
        for path, weight in zip(weights, (1.0, 3.0), strict=True)
    ]
    teach.run(teach_config(tmp_path / "out", dataset, *teachers))

    first, second = (probabilities(path, dataset) for path in weights)
    votes = {key: ((first[key] > 0.5) + 3.0 * (second[key] > 0.5)) / 4 for key in first}
    masks = soft_masks(tmp_path / "out")
    assert_stores(masks, votes)
    assert {64, 191} & set(np.unique(np.stack(list(masks.values()))).tolist())
    assert PseudoLabelManifest.read(tmp_path / "out").soft is False


def test_statistics_are_those_of_the_stored_mask(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    teach.run(teach_config(tmp_path / "out", dataset, *weights))

    rows, masks = statistics(tmp_path / "out"), soft_masks(tmp_path / "out")
    assert rows.keys() == masks.keys()
    for key, mask in masks.items():
        probability = mask / 255
        assert rows[key]["target_pixels"] == np.count_nonzero(mask >= 128)
        assert rows[key]["entropy"] == pytest.approx(shannon_entropy(mask), abs=1e-9)
        confidence = np.maximum(probability, 1 - probability).mean()
        assert rows[key]["mean_confidence"] == pytest.approx(confidence, abs=1 / 255)
        target = mask >= 128
        divisor = probability.sum() + target.sum()
        expected = 2 * probability[target].sum() / divisor if target.any() else 0
        assert rows[key]["expected_dice"] == pytest.approx(expected, abs=1e-12)
    assert len({row["target_pixels"] for row in rows.values()}) > 1


def test_keys_and_their_order_are_those_of_the_source_shards(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    teach.run(teach_config(tmp_path / "out", dataset, weights[0]))

    source, sidecars = ShardManifest.read(dataset), PseudoLabelManifest.read(tmp_path / "out")
    assert len(source.shards) == len(sidecars.shards) > 2
    for shard, sidecar in zip(source.shards, sidecars.shards, strict=True):
        with tarfile.open(dataset / shard.name) as archive:
            keys = [name.split(".")[0] for name in archive.getnames() if name.endswith(".json")]
        with tarfile.open(tmp_path / "out" / sidecar.name) as archive:
            assert archive.getnames() == [f"{key}.soft.png" for key in keys]
        assert sidecar.split == shard.split
    assert list(statistics(tmp_path / "out")) == IndexedShards(dataset).keys


def test_a_teacher_may_want_another_size(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    teacher = TeacherConfig(
        weights=str(weights[0]), preprocessing=PreprocessingConfig(height=48, width=64)
    )
    teach.run(teach_config(tmp_path / "out", dataset, teacher))

    masks = soft_masks(tmp_path / "out")
    assert {mask.shape for mask in masks.values()} == {(32, 32)}
    seen = PseudoLabelManifest.read(tmp_path / "out").teachers[0]["preprocessing"]
    assert (seen["height"], seen["width"]) == (48, 64)


def test_the_batch_size_of_a_small_network_changes_no_stored_level_by_more_than_one(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    for batch_size in (1, 3):
        output = tmp_path / str(batch_size)
        teach.run(teach_config(output, dataset, weights[0], batch_size=batch_size))

    one, three = soft_masks(tmp_path / "1"), soft_masks(tmp_path / "3")
    assert all(np.abs(one[key].astype(int) - three[key]).max() <= 1 for key in one)


def test_a_finished_run_is_left_alone(dataset: Path, weights: list[Path], tmp_path: Path) -> None:
    config = teach_config(tmp_path / "out", dataset, weights[0])
    teach.run(config)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}

    record = teach.run(config)

    assert record.counts == {"taught_by_this_process": 0, "pseudo_labels": 12}
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


# ------------------------------------------------------------------------- provenance


@pytest.mark.parametrize("damage", ["flipped", "lost"])
def test_the_same_command_again_mends_damaged_sidecars_and_nothing_else(
    dataset: Path, weights: list[Path], tmp_path: Path, damage: str
) -> None:
    output = tmp_path / "out"
    teach.run(teach_config(output, dataset, weights[0]))
    expected = file_hashes(output)
    times = {path: path.stat().st_mtime_ns for path in output.iterdir()}
    damaged = output / "pseudo-000001.tar"
    if damage == "lost":
        damaged.unlink()
    else:
        data = bytearray(damaged.read_bytes())
        data[700] ^= 1
        damaged.write_bytes(data)

    record = teach.run(teach_config(output, dataset, weights[0]))

    assert file_hashes(output) == expected
    in_shard = PseudoLabelManifest.read(output).shards[1].samples
    assert record.counts["taught_by_this_process"] == in_shard > 0
    assert {path for path, time in times.items() if path.stat().st_mtime_ns != time} == {damaged}


def other_packing(folder: Path) -> Path:
    """The same images in another order."""
    folder.mkdir()
    return make_packed_dataset(folder, samples_per_shard=3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            lambda config, weights: {"teachers": [TeacherConfig(str(weights[1]))]},
            "teachers[0].weights_sha256",
        ),
        (lambda config, weights: {"teachers": [*config.teachers, *config.teachers]}, "teachers"),
        (
            lambda config, weights: {"teachers": [replace(config.teachers[0], weight=2.0)]},
            "teachers[0].weight: found 1.0, expected 2.0",
        ),
        (
            lambda config, weights: {"teachers": [replace(config.teachers[0], output="binary")]},
            "teachers[0].output: found 'soft', expected 'binary'",
        ),
        (lambda config, weights: {"batch_size": 5}, "batch_size: found 16, expected 5"),
    ],
    ids=["weights", "number", "weight", "output", "batch_size"],
)
@pytest.mark.parametrize("finished", [True, False])
def test_another_ensemble_on_the_same_output_is_refused_by_name(
    dataset: Path,
    weights: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: Any,
    named: str,
    finished: bool,
) -> None:
    config = teach_config(tmp_path / "out", dataset, weights[0])
    if finished:
        teach.run(config)
    else:
        interrupt_before_the_index(monkeypatch, config)
    before = file_hashes(tmp_path / "out")

    with pytest.raises(DatasetError) as refusal:
        teach.run(replace(config, **change(config, weights)))

    assert named in str(refusal.value)
    assert file_hashes(tmp_path / "out") == before


def interrupt_before_the_index(monkeypatch: pytest.MonkeyPatch, config: Any) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(teach, "write_table", interrupted)
        with pytest.raises(KeyboardInterrupt):
            teach.run(config)


def test_another_packing_is_refused_by_teach_and_by_train(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    from nakt_dist.stages import train

    teach.run(teach_config(tmp_path / "out", dataset, weights[0]))
    again = other_packing(tmp_path / "again")

    with pytest.raises(DatasetError, match="dataset_fingerprint"):
        teach.run(teach_config(tmp_path / "out", again, weights[0]))
    with pytest.raises(DatasetError, match=r"another packing.*dataset_fingerprint"):
        data = {"pseudo_labels": str(tmp_path / "out")}
        train.run(train_config(tmp_path / "student", again, data=data))


def test_pseudo_labels_of_another_dataset_are_refused(dataset: Path, tmp_path: Path) -> None:
    pseudo = make_pseudo_labels(tmp_path, dataset)
    other = make_packed_dataset(tmp_path, name="circles")

    with pytest.raises(DatasetError, match="of dataset 'squares', not of 'circles'"):
        PseudoLabels(pseudo, IndexedShards(other))


def test_unfinished_pseudo_labels_are_refused(
    dataset: Path, weights: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = teach_config(tmp_path / "out", dataset, weights[0])
    interrupt_before_the_index(monkeypatch, config)

    with pytest.raises(DatasetError, match=r"manifest\.json"):
        PseudoLabels(tmp_path / "out", IndexedShards(dataset))


def test_the_manifest_says_what_it_came_from(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    teach.run(teach_config(tmp_path / "out", dataset, weights[0]))

    manifest = PseudoLabelManifest.read(tmp_path / "out")
    assert manifest.dataset_fingerprint == ShardManifest.read(dataset).fingerprint
    (teacher,) = manifest.teachers
    assert teacher["weights_sha256"] == file_hashes(weights[0].parent)[weights[0].name]
    assert teacher["architecture"]["name"] == "unet"
    assert (teacher["weight"], teacher["output"]) == (1.0, "soft")
    assert str(tmp_path) not in (tmp_path / "out" / "manifest.json").read_text()


# ----------------------------------------------------------------- damage and strangers


@pytest.mark.parametrize("encoding", ["jpg", "png"])
def test_a_damaged_source_shard_is_one_clear_error(
    tmp_path: Path, weights: list[Path], encoding: str
) -> None:
    dataset = make_packed_dataset(tmp_path, encoding=encoding)
    images = IndexedShards(dataset)
    row = images.index.to_pylist()[5]
    shard = dataset / images.manifest.shards[row["shard"]].name
    content = bytearray(shard.read_bytes())
    content[row["image_offset"] + row["image_size"] // 2] ^= 0xFF
    shard.write_bytes(bytes(content))

    with pytest.raises(DatasetError) as refusal:
        teach.run(teach_config(tmp_path / "out", dataset, weights[0]))

    assert f"{shard}:{row['key']}" in str(refusal.value)
    assert "nakt verify" in str(refusal.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


@pytest.mark.parametrize("damage", ["absent", "truncated"])
def test_a_lost_source_shard_is_one_clear_error(
    tmp_path: Path, weights: list[Path], damage: str
) -> None:
    dataset = make_packed_dataset(tmp_path)
    shard = dataset / "train-000001.tar"
    if damage == "absent":
        shard.unlink()
    else:
        os.truncate(shard, 2048)

    with pytest.raises(DatasetError, match=r"train-000001\.tar.*Run nakt verify"):
        teach.run(teach_config(tmp_path / "out", dataset, weights[0]))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_foreign_state_dict_teaches_like_our_own_file(
    dataset: Path, weights: list[Path], tmp_path: Path, wrapped: bool
) -> None:
    state = load_file(weights[0])
    if wrapped:
        state = {"epoch": 7, "state_dict": {f"module.{name}": each for name, each in state.items()}}
    torch.save(state, tmp_path / "foreign.pt")
    foreign = TeacherConfig(weights=str(tmp_path / "foreign.pt"), model=TINY_UNET)

    teach.run(teach_config(tmp_path / "ours", dataset, weights[0]))
    teach.run(teach_config(tmp_path / "theirs", dataset, foreign))

    ours, theirs = file_hashes(tmp_path / "ours"), file_hashes(tmp_path / "theirs")
    shards = [name for name in ours if name.endswith(".tar")]
    assert shards
    assert {name: ours[name] for name in shards} == {name: theirs[name] for name in shards}


def test_a_foreign_state_dict_without_architecture_is_refused(
    dataset: Path, weights: list[Path], tmp_path: Path
) -> None:
    torch.save(load_file(weights[0]), tmp_path / "foreign.pt")

    with pytest.raises(CheckpointError, match="does not say which network"):
        teach.run(teach_config(tmp_path / "out", dataset, tmp_path / "foreign.pt"))


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple:
        return (os.system, (self.command,))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".ckpt", ".safetensors"])
def test_a_malicious_pickle_is_refused_without_running(
    dataset: Path, weights: list[Path], tmp_path: Path, suffix: str
) -> None:
    traces = tmp_path / "it-ran"
    state = {**load_file(weights[0]), "more": Malicious(f"touch {traces}")}
    torch.save(state, tmp_path / f"evil{suffix}")
    evil = TeacherConfig(weights=str(tmp_path / f"evil{suffix}"), model=TINY_UNET)

    with pytest.raises(CheckpointError):
        teach.run(teach_config(tmp_path / "out", dataset, evil))

    assert not traces.exists()
    (tmp_path / f"evil{suffix}").rename(tmp_path / "trap.pt")
    torch.load(tmp_path / "trap.pt", weights_only=False)  # to show that the trap is real
    assert traces.exists()


@pytest.mark.parametrize("idle", [0, 3])
def test_processes_without_a_shard_are_named(
    dataset: Path, weights: list[Path], tmp_path: Path, monkeypatch, idle: int
):
    processes = len(ShardManifest.read(dataset).shards) + idle
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    opening = Opening()
    teach.plan(teach_config(tmp_path / "pseudo", dataset, weights[0]), opening)
    found = [note.split(":")[0] for note in opening.notes if "nothing to do" in note]
    assert found == ([f"{idle} of {processes} processes have nothing to do"] if idle else [])
