import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from nakt_dist.config import PackConfig
from nakt_dist.errors import ConfigurationError, DatasetError, UnusableSample
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.loading.batches import as_float, indexed_batches
from nakt_dist.loading.decoding import decode_into
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.loading.sampler import GlobalBatches, Share
from nakt_dist.loading.samples import select_samples
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.stages import pack
from nakt_dist.transfer.exclusion import Calibration, ExclusionRule
from tests.datasets import make_blob, make_packed_dataset, make_pseudo_labels, publish_images


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_packed_dataset(tmp_path_factory.mktemp("samples"))


@pytest.fixture(scope="module")
def pseudo(dataset):
    return make_pseudo_labels(dataset.parent, dataset)


def keys_of(samples):
    return samples.images.keys


def median_entropy(dataset, pseudo):
    return float(np.median(PseudoLabels(pseudo, IndexedShards(dataset)).statistics["entropy"]))


def test_the_splits_asked_for_are_selected(dataset):
    assert len(select_samples(dataset, ["train"])) == 6
    assert len(select_samples(dataset, ["test", "validation"])) == 6
    assert len(select_samples(dataset, None)) == 12


def test_smaller_choices_are_part_of_larger_ones(dataset):
    choices = [set(keys_of(select_samples(dataset, None, count=n))) for n in range(1, 13)]
    assert [len(choice) for choice in choices] == list(range(1, 13))
    for smaller, larger in itertools.pairwise(choices):
        assert smaller < larger


def test_a_choice_belongs_to_its_seed_and_keeps_the_order_of_the_dataset(dataset):
    chosen = keys_of(select_samples(dataset, None, count=6))
    assert chosen == keys_of(select_samples(dataset, None, count=6))
    assert chosen != keys_of(select_samples(dataset, None, count=6, subset_seed=1))
    everything = keys_of(select_samples(dataset, None))
    assert chosen == [key for key in everything if key in set(chosen)]


def test_more_samples_than_there_are_cannot_be_chosen(dataset):
    with pytest.raises(ConfigurationError, match=r"count is 7, but .* has 6 samples"):
        select_samples(dataset, ["train"], count=7)


def test_exclusion_leaves_out_what_the_stored_statistics_say(dataset, pseudo):
    beta = median_entropy(dataset, pseudo)
    rule = ExclusionRule(alpha=None, beta=beta)
    samples = select_samples(dataset, None, pseudo, rule)
    statistics = PseudoLabels(pseudo, IndexedShards(dataset)).statistics.to_pylist()
    assert keys_of(samples) == [row["key"] for row in statistics if row["entropy"] <= beta]
    assert (len(samples), samples.before_exclusion) == (6, 12)
    assert samples.pseudo_labels.statistics["key"].to_pylist() == keys_of(samples)


def test_beta_is_found_before_it_excludes_and_is_told(dataset, pseudo):
    rule = ExclusionRule(alpha=None, calibration=Calibration(str(pseudo), None, 50))
    samples = select_samples(dataset, None, pseudo, rule)
    assert samples.exclusion.beta == pytest.approx(median_entropy(dataset, pseudo), abs=1e-3)
    assert len(samples) == pytest.approx(6, abs=1)


def test_exclusion_comes_before_the_count(dataset, pseudo):
    rule = ExclusionRule(alpha=None, beta=median_entropy(dataset, pseudo))
    kept = keys_of(select_samples(dataset, None, pseudo, rule))
    assert keys_of(select_samples(dataset, None, pseudo, rule, count=6)) == kept


def test_beta_does_not_exclude_the_labels_of_binary_teachers(dataset, tmp_path):
    binary = make_pseudo_labels(tmp_path, dataset, seeds=(0, 1), output="binary")
    labels = PseudoLabels(binary, IndexedShards(dataset))
    assert not labels.manifest.soft
    assert len(select_samples(dataset, None, binary, ExclusionRule(None, beta=0.0))) == 12


def test_without_pseudo_labels_or_rule_nothing_is_excluded(dataset, pseudo):
    assert len(select_samples(dataset, None, pseudo)) == 12


def test_nothing_left_is_told_with_the_reason(dataset, pseudo):
    with pytest.raises(ConfigurationError, match="after excluding all 12; nakt inspect"):
        select_samples(dataset, None, pseudo, ExclusionRule(alpha=1e9, beta=None))


def test_a_sample_is_its_image_and_its_mask(dataset):
    samples = select_samples(dataset, ["validation"])
    images = MaskedImages(samples)
    assert len(images) == 3
    for number in range(3):
        item = images[number]
        image, target = make_blob(int(keys_of(samples)[number][-3:]))
        assert item["image"].dtype == item["target"].dtype == torch.uint8
        assert np.array_equal(item["image"].numpy(), image[None])
        assert np.array_equal(item["target"].numpy(), 255 * target[None])
        assert item["number"].item() == number


def test_with_pseudo_labels_the_target_is_the_soft_mask_and_never_the_annotation(dataset, pseudo):
    samples = select_samples(dataset, None, pseudo)
    images = MaskedImages(samples)
    assert samples.mask_is_soft
    for number in (0, 7):
        stored = decode_pixels(samples.pseudo_labels.soft_mask_bytes(number))
        assert np.array_equal(images[number]["target"].numpy(), stored)
        assert len(np.unique(stored)) > 2


def test_transferal_images_need_no_mask_of_their_own(tmp_path):
    dataset = make_packed_dataset(tmp_path, images=3, splits={"train": 1.0}, with_masks=False)
    labels = make_pseudo_labels(tmp_path, dataset)
    item = MaskedImages(select_samples(dataset, None, labels))[0]
    assert item["target"].shape == (1, 32, 32)
    with pytest.raises(DatasetError, match="3 of 3 samples have no mask") as caught:
        MaskedImages(select_samples(dataset, None))
    assert "train-000000.tar:image_00" in str(caught.value)
    assert "or train on data.pseudo_labels" in str(caught.value)


def test_images_of_which_some_have_no_mask_are_counted_before_any_is_read(tmp_path):
    source = publish_images(tmp_path / "source", images=12)
    for number in (3, 5):
        (source / f"image_{number:03d}_mask.png").unlink()
    options = {"layout_options": {"require_masks": False}, "workers": 1}
    pack.run(PackConfig("image_folder", str(source), str(tmp_path / "packed"), **options))
    samples = select_samples(str(tmp_path / "packed"), None)
    with pytest.raises(DatasetError, match="2 of 12 samples have no mask") as caught:
        MaskedImages(samples)
    assert "--layout_options.require_masks true" in str(caught.value)
    keys = samples.images.keys
    without = [keys.index(key) for key in ("image_003", "image_005")]
    rest = np.setdiff1d(np.arange(12), without)
    assert len(MaskedImages(dataclasses.replace(samples, images=samples.images.select(rest)))) == 10


@pytest.mark.parametrize("megabytes", [0, 1])
def test_remembered_samples_are_those_that_are_decoded(dataset, megabytes, monkeypatch):
    decoded = []

    def counted(data, pixels):
        decoded.append(data)
        decode_into(data, pixels)

    for module in ("samples", "masked"):
        monkeypatch.setattr(f"nakt_dist.loading.{module}.decode_into", counted)
    images = MaskedImages(select_samples(dataset, None), cache_megabytes=megabytes)
    first, second = images[5], images[5]
    assert len(decoded) == (4 if megabytes == 0 else 2)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_does_not_change_what_is_remembered(dataset):
    images = MaskedImages(select_samples(dataset, None), cache_megabytes=1)
    before = images[0]["image"].clone()
    image, _ = as_float(
        {name: value[None] for name, value in images[0].items()}, torch.device("cpu")
    )
    image.zero_()
    assert torch.equal(images[0]["image"], before)


def test_masks_of_class_indices_are_no_binary_target(dataset):
    samples = select_samples(dataset, None)
    samples.images.manifest = dataclasses.replace(samples.images.manifest, mask_kind="classes")
    with pytest.raises(ConfigurationError, match="class indices"):
        MaskedImages(samples)


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("member", ["image", "mask"])
def test_a_changed_sample_is_refused_by_shard_and_key(tmp_path, member):
    dataset = make_packed_dataset(tmp_path, images=2, splits={"train": 1.0})
    row = IndexedShards(dataset).index.slice(1, 1).to_pylist()[0]
    flip(dataset / "train-000000.tar", row[f"{member}_offset"] + row[f"{member}_size"] // 2)
    images = MaskedImages(select_samples(dataset, None))
    assert images[0]["image"].shape == (1, 32, 32)
    with pytest.raises(DatasetError, match=f"the {member}'s bytes have changed") as caught:
        images[1]
    assert f"{dataset / 'train-000000.tar'}:{row['key']}" in str(caught.value)


def test_a_changed_soft_mask_is_refused_by_shard_and_key(tmp_path):
    dataset = make_packed_dataset(tmp_path, images=2, splits={"train": 1.0})
    pseudo = make_pseudo_labels(tmp_path, dataset)
    row = PseudoLabels(pseudo, IndexedShards(dataset)).statistics.slice(1, 1).to_pylist()[0]
    flip(pseudo / "pseudo-000000.tar", row["soft_offset"] + row["soft_size"] // 2)
    images = MaskedImages(select_samples(dataset, None, pseudo))
    assert images[0]["target"].shape == (1, 32, 32)
    with pytest.raises(DatasetError, match=r"in pseudo-000000\.tar have changed") as caught:
        images[1]
    assert row["key"] in str(caught.value)


def test_a_sample_that_does_not_decode_is_named_with_its_shard(dataset, monkeypatch):
    def fail(data, expected):
        raise UnusableSample("undecodable", "does not decode: no idea")

    monkeypatch.setattr("nakt_dist.loading.samples.decode_into", fail)
    samples = select_samples(dataset, ["train"])
    with pytest.raises(DatasetError, match="does not decode: no idea") as caught:
        MaskedImages(samples)[1]
    assert f"train-000000.tar:{keys_of(samples)[1]}" in str(caught.value)


def test_a_sample_of_another_size_than_the_manifest_says_is_refused_by_name(dataset):
    samples = select_samples(dataset, ["train"])
    samples.images.manifest = dataclasses.replace(samples.images.manifest, width=31)
    with pytest.raises(DatasetError, match="has 32×32 pixels, expected 32×31") as caught:
        MaskedImages(samples)[1]
    assert f"train-000000.tar:{keys_of(samples)[1]}" in str(caught.value)


def test_a_description_names_data_by_fingerprint_and_holds_no_path(dataset, pseudo):
    plain = select_samples(dataset, ["train"]).describe()
    taught = select_samples(dataset, ["train"], pseudo).describe()
    assert (plain["labels"], taught["labels"]) == ("annotations", "pseudo masks")
    assert (
        plain["fingerprint"] == taught["fingerprint"] == IndexedShards(dataset).manifest.fingerprint
    )
    assert [teacher["name"] for teacher in taught["teachers"]] == ["pseudo-teacher-0"]
    assert taught["teachers"][0]["preprocessing"].keys() == {"height", "width", "mean", "std"}
    assert str(dataset.parent) not in json.dumps([plain, taught])


def global_batches(images, order, processes, micro, workers=0):
    """Reads a run of three steps as so many processes, and puts the global batches together."""
    share = Share.of(order.batch_size, processes, micro)
    ranks = [
        indexed_batches(images, order, share, rank, 1, 4, workers) for rank in range(processes)
    ]
    parts = [batch for together in zip(*ranks, strict=True) for batch in together]
    size = share.accumulation * processes
    return [
        {
            name: torch.cat([part[name] for part in parts[start : start + size]])
            for name in ("image", "target", "number")
        }
        for start in range(0, len(parts), size)
    ]


@pytest.mark.parametrize(
    ("processes", "micro", "workers"), [(1, 1, 0), (2, None, 0), (2, 1, 0), (4, 1, 0), (1, 4, 1)]
)
def test_every_launch_reads_the_same_global_batches(dataset, processes, micro, workers):
    images = MaskedImages(select_samples(dataset, None))
    order = GlobalBatches([12], 4, seed=0)
    expected = global_batches(images, order, 1, 4)
    found = global_batches(images, order, processes, micro, workers)
    assert [batch["number"].tolist() for batch in expected] == [
        order.batch(step).tolist() for step in (1, 2, 3)
    ]
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_batches_become_floats_in_the_unit_interval():
    batch = {
        "image": torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8),
        "target": torch.tensor([[[[0, 128, 255]]]], dtype=torch.uint8),
    }
    image, target = as_float(batch, torch.device("cpu"))
    assert image.flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert target.flatten().tolist() == pytest.approx([0, 128 / 255, 1])
    assert image.dtype == target.dtype == torch.float32
