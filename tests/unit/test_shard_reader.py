import json
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from nakt_dist.errors import ConfigurationError, DatasetError, UnusableSample
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.runtime.files import file_sha256, value_sha256
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from tests.datasets import make_blob, make_packed_dataset, make_pseudo_labels


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return make_packed_dataset(tmp_path_factory.mktemp("reader"))


@pytest.fixture
def fresh(tmp_path):
    """A dataset of one's own, to damage."""
    return make_packed_dataset(tmp_path, images=6, splits={"train": 0.5, "test": 0.5})


def members_by_tarfile(folder):
    """Returns the content of every member, by name, in the order of the manifest."""
    contents = {}
    for entry in json.loads((folder / MANIFEST_NAME).read_text())["shards"]:
        with tarfile.open(folder / entry["name"]) as tar:
            contents |= {name: tar.extractfile(name).read() for name in tar.getnames()}
    return contents


def test_random_access_gives_what_tarfile_finds(packed):
    images, contents = IndexedShards(packed), members_by_tarfile(packed)
    assert len(contents) == 3 * len(images) == 36
    for number in np.random.default_rng(0).permutation(len(images)):
        key = images.keys[number]
        assert images.image_bytes(number) == contents[f"{key}.png"]
        assert images.mask_bytes(number) == contents[f"{key}.mask.png"]
        assert images.metadata(number) == json.loads(contents[f"{key}.json"])
        images.check(number)


def test_the_packed_pixels_are_those_that_were_published(packed):
    images = IndexedShards(packed)
    assert sorted(images.keys) == [f"image_{number:03d}" for number in range(12)]
    for number, key in enumerate(images.keys):
        image, target = make_blob(int(key[-3:]))
        assert np.array_equal(decode_pixels(images.image_bytes(number))[0], image)
        assert np.array_equal(decode_pixels(images.mask_bytes(number))[0], 255 * target)


def test_splits_are_disjoint_and_together_everything(packed):
    names = ("train", "validation", "test")
    parts = [IndexedShards(packed, [name]).keys for name in names]
    assert [len(part) for part in parts] == [6, 3, 3]
    everything = IndexedShards(packed).keys
    assert sorted([*parts[0], *parts[1], *parts[2]]) == sorted(everything)
    two = IndexedShards(packed, ["test", "train"])
    assert two.keys == [key for key in everything if key not in parts[1]]
    assert set(two.index["split"].to_pylist()) == {"train", "test"}


def test_an_unknown_split_is_refused_with_the_nearest_name(packed):
    with pytest.raises(ConfigurationError, match="did you mean 'validation'") as caught:
        IndexedShards(packed, ["train", "validaton"])
    assert all(name in str(caught.value) for name in ("train", "test", str(packed)))


def test_a_selection_keeps_its_order_and_its_contents(packed):
    images = IndexedShards(packed)
    chosen = images.select([7, 0, 7])
    again = chosen.select(np.array([2, 1]))
    assert chosen.keys == [images.keys[number] for number in (7, 0, 7)]
    assert again.keys == [images.keys[7], images.keys[0]]
    assert [again.image_bytes(number) for number in (0, 1)] == [
        images.image_bytes(7),
        images.image_bytes(0),
    ]
    assert again.describe(1) == images.describe(0)
    assert len(images) == 12
    assert len(images.select([])) == 0


def test_a_sample_is_described_by_shard_and_key(packed):
    images = IndexedShards(packed)
    row = images.index.slice(5, 1).to_pylist()[0]
    shard = images.manifest.shards[row["shard"]].name
    assert images.describe(5) == f"{packed / shard}:{row['key']}"


def test_a_dataset_without_masks_says_so(tmp_path):
    images = IndexedShards(make_packed_dataset(tmp_path, images=2, with_masks=False))
    assert images.manifest.mask_kind == "none"
    assert images.mask_bytes(0) is None
    images.check(0)


def test_a_pickled_dataset_reads_the_same(packed):
    images = IndexedShards(packed)
    images.image_bytes(0)  # a map is open
    again = pickle.loads(pickle.dumps(images.select([3, 1])))
    assert [again.image_bytes(number) for number in (0, 1)] == [
        images.image_bytes(3),
        images.image_bytes(1),
    ]


class ImageLengths(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, number):
        return number, len(self.images.image_bytes(number)), sum(self.images.image_bytes(number))


def test_spawned_loader_workers_read_the_same(packed):
    dataset = ImageLengths(IndexedShards(packed))
    expected = [dataset[number] for number in range(len(dataset))]
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )
    assert [tuple(int(value) for value in item) for item in loader] == expected


def test_many_threads_read_at_once(packed, monkeypatch):
    monkeypatch.setattr("nakt_dist.shards.reader._OPEN_SHARDS", 1)  # files are closed all the time
    images = IndexedShards(packed)
    expected = [images.image_bytes(number) for number in range(len(images))]
    numbers = np.random.default_rng(0).integers(0, len(images), 2000).tolist()
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(images.image_bytes, numbers))
    assert read == [expected[number] for number in numbers]


def test_a_short_shard_is_refused_by_name_and_size(fresh):
    shard = sorted(fresh.glob("*.tar"))[0]
    size = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:-512])
    images = IndexedShards(fresh)
    number = [images.manifest.shards[n].name for n in images.shard_numbers].index(shard.name)
    with pytest.raises(DatasetError, match=f"{size - 512} bytes, expected {size}") as caught:
        images.image_bytes(number)
    assert str(shard) in str(caught.value)


def test_an_absent_shard_is_refused_by_name(fresh):
    for shard in fresh.glob("*.tar"):
        shard.unlink()
    with pytest.raises(DatasetError, match="no such file") as caught:
        IndexedShards(fresh).image_bytes(0)
    assert "train-000000.tar" in str(caught.value)


def test_an_absent_dataset_is_refused_by_name(tmp_path):
    with pytest.raises(DatasetError, match="no shard manifest here"):
        IndexedShards(tmp_path)


@pytest.mark.parametrize("damage", ["absent", "changed", "fewer_rows"])
def test_an_index_that_is_not_the_manifests_is_refused_by_name(fresh, damage):
    path = fresh / INDEX_NAME
    if damage == "absent":
        path.unlink()
    elif damage == "changed":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    else:
        pq.write_table(pq.read_table(path).slice(1), path)
    with pytest.raises(DatasetError) as caught:
        IndexedShards(fresh)
    assert str(path) in str(caught.value)


def test_an_index_with_other_rows_than_the_manifest_counts_is_refused(fresh):
    change_index(fresh, lambda table: table.slice(1))
    with pytest.raises(DatasetError, match="5 rows, but the manifest counts 6 samples"):
        IndexedShards(fresh)


def change_index(folder, change):
    """Stores other rows, and a manifest that names them, as somebody who knows the format would."""
    path = folder / INDEX_NAME
    pq.write_table(change(pq.read_table(path)), path)
    value = json.loads((folder / MANIFEST_NAME).read_text())
    value.pop("fingerprint")
    value["files"][INDEX_NAME] = file_sha256(path)
    value["fingerprint"] = value_sha256(value)
    (folder / MANIFEST_NAME).write_text(json.dumps(value))


def with_value(column, wrong, row=1):
    """Returns a change that puts a value into one row of a column."""

    def change(table):
        values = table[column].to_pylist()
        values[row] = wrong
        position = table.schema.get_field_index(column)
        field = table.schema.field(column)
        return table.set_column(position, field, pa.array(values, type=field.type))

    return change


WRONG_VALUES = [
    ("shard", -1),
    ("shard", 99),
    ("shard", None),
    ("key", None),
    ("image_offset", None),
    ("image_offset", -1),
    ("image_size", None),
    ("image_size", -5),
    ("image_crc32", None),
    ("json_offset", None),
    ("json_size", -1),
    ("json_crc32", None),
    ("mask_offset", None),
    ("mask_offset", -1),
    ("mask_size", None),
    ("mask_crc32", None),
]


@pytest.mark.parametrize(("column", "wrong"), WRONG_VALUES)
def test_a_row_that_leads_nowhere_is_refused_at_opening(fresh, column, wrong):
    change_index(fresh, with_value(column, wrong))
    with pytest.raises(DatasetError, match="Run nakt verify") as caught:
        IndexedShards(fresh)
    assert str(fresh / INDEX_NAME) in str(caught.value)
    assert f"column '{column.split('_')[0]}" in str(caught.value)
    assert " row 1, expected" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "wrong"),
    [("key", None), ("shard", 9), ("soft_offset", None), ("soft_size", -1), ("entropy", None)],
)
def test_a_pseudo_label_that_leads_nowhere_is_refused_at_opening(packed, tmp_path, column, wrong):
    folder = make_pseudo_labels(tmp_path, packed)
    change_index(folder, with_value(column, wrong))
    with pytest.raises(DatasetError, match=f"column '{column}' .*Run nakt verify"):
        PseudoLabels(folder, IndexedShards(packed))


@pytest.mark.parametrize(
    ("column", "kind"), [("shard", pa.int64()), ("image_size", pa.float64()), ("key", pa.binary())]
)
def test_a_column_of_another_type_is_refused_by_name(fresh, column, kind):
    def change(table):
        position = table.schema.get_field_index(column)
        return table.set_column(position, column, table[column].cast(kind))

    change_index(fresh, change)
    with pytest.raises(DatasetError, match=f"column '{column}' holds {kind}, expected"):
        IndexedShards(fresh)


def test_keys_that_are_no_text_are_refused(fresh):
    def change(table):
        wrong = pa.array([b"\xff"] * len(table)).view(pa.string())
        return table.set_column(0, "key", wrong)

    change_index(fresh, change)
    with pytest.raises(DatasetError, match="cannot be read"):
        IndexedShards(fresh)


def test_a_changed_byte_of_a_sample_is_found_by_its_checksum(fresh):
    images = IndexedShards(fresh)
    row = images.index.slice(1, 1).to_pylist()[0]
    shard = fresh / images.manifest.shards[row["shard"]].name
    data = bytearray(shard.read_bytes())
    data[row["mask_offset"] + 40] ^= 1
    shard.write_bytes(data)
    images = IndexedShards(fresh)
    images.check(0)
    with pytest.raises(UnusableSample, match="the mask's bytes have changed"):
        images.check(1)
    with pytest.raises(UnusableSample, match="the mask's bytes have changed"):
        images.mask_bytes(1)
    assert images.image_bytes(1)


def test_pseudo_labels_follow_the_dataset_as_selected(packed, tmp_path):
    folder = make_pseudo_labels(tmp_path, packed)
    contents = members_by_tarfile(folder)
    images = IndexedShards(packed, ["test", "validation"]).select([4, 0, 2])
    pseudo = PseudoLabels(folder, images)
    assert pseudo.statistics["key"].to_pylist() == images.keys
    for number, key in enumerate(images.keys):
        assert pseudo.soft_mask_bytes(number) == contents[f"{key}.soft.png"]
    chosen = pickle.loads(pickle.dumps(pseudo.select([1])))
    assert chosen.soft_mask_bytes(0) == pseudo.soft_mask_bytes(1)


def test_pseudo_labels_of_another_packing_are_refused(packed, fresh, tmp_path):
    folder = make_pseudo_labels(tmp_path, packed)
    with pytest.raises(DatasetError, match="another packing"):
        PseudoLabels(folder, IndexedShards(fresh))


def upload(folder, url):
    files = fsspec.filesystem("memory")
    for path in folder.iterdir():
        if path.is_file():
            files.pipe(f"{url}/{path.name}", path.read_bytes())


def test_a_remote_dataset_is_read_through_the_local_cache(packed, tmp_path):
    url = f"memory://{tmp_path.name}/squares"
    upload(packed, url)
    remote, local = IndexedShards(url, cache=tmp_path), IndexedShards(packed)
    assert remote.keys == local.keys
    read = [remote.image_bytes(number) for number in range(len(remote))]
    assert read == [local.image_bytes(number) for number in range(len(local))]
    for shard in packed.glob("*.tar"):
        fsspec.filesystem("memory").rm(f"{url}/{shard.name}")
    assert IndexedShards(url, cache=tmp_path).image_bytes(3) == read[3]  # no second fetch


def test_the_cache_never_stands_in_for_a_newer_packing(packed, tmp_path):
    url = f"memory://{tmp_path.name}/squares"
    upload(packed, url)
    old = IndexedShards(url, cache=tmp_path)
    [old.image_bytes(number) for number in range(len(old))]
    newer = make_packed_dataset(tmp_path, seed=1)
    upload(newer, url)
    remote, local = IndexedShards(url, cache=tmp_path), IndexedShards(newer)
    assert remote.manifest.fingerprint == local.manifest.fingerprint
    assert remote.keys == local.keys
    for number in range(len(local)):
        assert remote.image_bytes(number) == local.image_bytes(number)
