import itertools
import json
import tarfile
from collections import Counter

import pytest

from nakt_dist.config import DataConfig
from nakt_dist.errors import DatasetError
from nakt_dist.loading.batches import streamed_batches
from nakt_dist.loading.samples import select_samples
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.shards.streaming import StatisticallyRepeatableStream
from nakt_dist.shards.writer import write_shard
from nakt_dist.transfer.exclusion import ExclusionRule
from tests.datasets import make_packed_dataset, make_pseudo_labels


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A packed dataset of one split in four shards, and pseudo-labels for it."""
    folder = tmp_path_factory.mktemp("streaming")
    dataset = make_packed_dataset(folder, images=12, splits={"train": 1.0}, samples_per_shard=3)
    return dataset, make_pseudo_labels(folder, dataset)


def stream_of(dataset, pseudo=None, seed=0, rank=0, shuffle_buffer=4):
    shards = sorted(path.name for path in dataset.glob("*.tar"))
    sidecars = pseudo and sorted(path.name for path in pseudo.glob("*.tar"))
    return StatisticallyRepeatableStream(
        shards,
        lambda name: (dataset / name).open("rb"),
        seed=seed,
        rank=rank,
        shuffle_buffer=shuffle_buffer,
        sidecar_names=sidecars,
        sidecar_opener=pseudo and (lambda name: (pseudo / name).open("rb")),
    )


def keys_of(stream, count):
    return [sample["__key__"] for sample in itertools.islice(stream, count)]


def test_every_sample_appears_about_equally_often_and_the_stream_never_ends(folders):
    counts = Counter(keys_of(stream_of(folders[0]), 12 * 50))
    assert set(counts) == set(IndexedShards(folders[0]).keys)
    assert max(counts.values()) - min(counts.values()) <= 4  # what the buffer holds back


def test_samples_come_as_the_bytes_that_were_packed(folders):
    images = IndexedShards(folders[0])
    number_of = {key: number for number, key in enumerate(images.keys)}
    for sample in itertools.islice(stream_of(folders[0]), 12):
        number = number_of[sample["__key__"]]
        assert sample["png"] == images.image_bytes(number)
        assert sample["mask.png"] == images.mask_bytes(number)
        assert json.loads(sample["json"]) == images.metadata(number)


def test_sidecars_are_merged_into_the_samples_of_their_key(folders):
    dataset, pseudo = folders
    images = IndexedShards(dataset)
    labels = PseudoLabels(pseudo, images)
    number_of = {key: number for number, key in enumerate(images.keys)}
    for sample in itertools.islice(stream_of(dataset, pseudo), 24):
        number = number_of[sample["__key__"]]
        assert sample["png"] == images.image_bytes(number)
        assert sample["soft.png"] == labels.soft_mask_bytes(number)


def test_the_order_belongs_to_seed_and_rank(folders):
    order = keys_of(stream_of(folders[0]), 36)
    assert keys_of(stream_of(folders[0]), 36) == order
    assert keys_of(stream_of(folders[0], seed=1), 36) != order
    assert keys_of(stream_of(folders[0], rank=1), 36) != order
    assert order != sorted(order)


@pytest.mark.parametrize("change", ["other_key", "missing_last", "one_too_many"])
def test_a_sidecar_with_other_keys_is_refused_naming_the_shard(tmp_path, change):
    keys = ["a", "b", "c"]
    sidecar_keys = {
        "other_key": ["a", "x", "c"],
        "missing_last": ["a", "b"],
        "one_too_many": ["a", "b", "c", "d"],
    }[change]
    write_shard(tmp_path / "train.tar", "train", ((key, {"png": b"1"}) for key in keys))
    write_shard(tmp_path / "pseudo.tar", "train", ((k, {"soft.png": b"2"}) for k in sidecar_keys))
    stream = StatisticallyRepeatableStream(
        ["train.tar"],
        lambda name: (tmp_path / name).open("rb"),
        seed=0,
        shuffle_buffer=1,
        sidecar_names=["pseudo.tar"],
        sidecar_opener=lambda name: (tmp_path / name).open("rb"),
    )
    with pytest.raises(DatasetError, match=r"train\.tar: its sidecar"):
        keys_of(stream, 6)


def test_no_shards_is_an_error_and_not_an_endless_wait():
    with pytest.raises(DatasetError, match="no shards"):
        StatisticallyRepeatableStream([], open, seed=0)


def test_a_shard_name_is_never_run_as_a_command(tmp_path, folders):
    marker = tmp_path / "marker"
    shard = next(folders[0].glob("*.tar"))
    opened = []

    def opener(name):
        opened.append(name)
        return shard.open("rb")

    command = f"pipe:touch {marker}"
    stream = StatisticallyRepeatableStream([command], opener, seed=0, shuffle_buffer=1)
    assert len(keys_of(stream, 2)) == 2
    assert set(opened) == {command}
    assert not marker.exists()


def test_a_pickled_member_is_passed_on_as_bytes_and_never_loaded(tmp_path):
    payload = b"cposix\nsystem\n(S'touch " + str(tmp_path / "marker").encode() + b"'\ntR."
    files = {"png": b"1", "pyd": payload, "pickle": payload}
    write_shard(tmp_path / "train.tar", "train", [("a", files)])
    stream = StatisticallyRepeatableStream(
        ["train.tar"], lambda name: (tmp_path / name).open("rb"), seed=0, shuffle_buffer=1
    )
    sample = next(iter(stream))
    assert sample["pyd"] == sample["pickle"] == payload
    assert not (tmp_path / "marker").exists()


def test_a_truncated_shard_is_an_error_and_not_a_short_epoch(tmp_path, folders):
    shard = next(folders[0].glob("*.tar"))
    (tmp_path / "cut.tar").write_bytes(shard.read_bytes()[:1500])
    stream = StatisticallyRepeatableStream(
        ["cut.tar"], lambda name: (tmp_path / name).open("rb"), seed=0, shuffle_buffer=1
    )
    with pytest.raises((tarfile.TarError, DatasetError, EOFError, OSError)):
        keys_of(stream, 6)


def test_streamed_batches_hold_the_selected_samples_only(folders):
    dataset, pseudo = (str(folder) for folder in folders)
    statistics = PseudoLabels(pseudo, IndexedShards(dataset)).statistics
    middle = sorted(statistics["entropy"].to_pylist())[6]
    rule = ExclusionRule(alpha=None, beta=middle)
    config = DataConfig(
        dataset=dataset, pseudo_labels=pseudo, exclusion=rule, streaming=True, shuffle_buffer=4
    )
    samples = select_samples(dataset, ["train"], pseudo, rule)
    assert 0 < len(samples) < 12
    batches = itertools.islice(streamed_batches(config, samples, 4, seed=0, rank=0), 12)
    numbers = Counter()
    for batch in batches:
        assert batch["image"].shape == (4, 1, 32, 32)
        assert batch["target"].shape == (4, 1, 32, 32)
        numbers.update(batch["number"].tolist())
    assert set(numbers) == set(range(len(samples)))


def test_a_sample_that_is_one_of_many_is_waited_for_however_seldom_it_comes(tmp_path):
    dataset = str(make_packed_dataset(tmp_path, splits={"train": 1.0}, samples_per_shard=12))
    config = DataConfig(dataset=dataset, streaming=True, shuffle_buffer=12)
    samples = select_samples(dataset, ["train"], count=1)
    batches = itertools.islice(streamed_batches(config, samples, 1, seed=0, rank=0), 500)
    assert [batch["number"].tolist() for batch in batches] == [[0]] * 500
