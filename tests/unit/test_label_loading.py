"""Findings of packed images as targets: names, policy, patients, and both ways of reading."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from nakt_dist.config import DataConfig
from nakt_dist.config.selecting import LabelConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.loading.batches import as_float, streamed_batches
from nakt_dist.loading.overlap import patients_in_both
from nakt_dist.loading.samples import select_samples
from nakt_dist.loading.targets import LabelledImages, LabelledTargets, labelled_targets
from nakt_dist.runtime.files import file_sha256, value_sha256
from nakt_dist.shards.findings import parse_findings, patients_in_two_splits
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME, ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.tables import INDEX_SCHEMA, read_table, write_table
from nakt_dist.sources.findings import LabelPolicy
from nakt_dist.stages.train_plan import _check_findings
from tests.datasets import make_blob, make_packed_dataset
from tests.labelled import labels_of, make_labelled_dataset

NAN = float("nan")
NAMES = ("Edema", "Mass", "Nodule")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_labelled_dataset(tmp_path_factory.mktemp("labelled"))


@pytest.fixture
def fresh(dataset, tmp_path):
    return Path(shutil.copytree(dataset, tmp_path / "fresh"))


def number_of(key):
    return int(key.rpartition("_")[2])


def expected_values(keys, uncertain, blank):
    use = {"1": 1.0, "0": 0.0, "-1": uncertain, "": blank}
    return np.array([[use[cell] for cell in labels_of(number_of(key))] for key in keys], np.float32)


def change_findings(folder, change, **fields):
    """Rewrites the column ``findings``, and fields of the manifest, as if packed so."""
    rows = read_table(folder / INDEX_NAME, INDEX_SCHEMA).to_pylist()
    for row in rows:
        row["findings"] = change(row)
    write_table(folder / INDEX_NAME, INDEX_SCHEMA, [rows], None)
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest.pop("fingerprint")
    manifest["files"][INDEX_NAME] = file_sha256(folder / INDEX_NAME)
    manifest |= fields
    text = json.dumps({**manifest, "fingerprint": value_sha256(manifest)})
    (folder / MANIFEST_NAME).write_text(text)


# ---------------------------------------------------------------- targets


@pytest.mark.parametrize("uncertain", ["zero", "one", "ignore"])
@pytest.mark.parametrize("blank", ["zero", "one", "ignore"])
def test_the_policy_is_a_setting_of_the_reader(dataset, uncertain, blank):
    images = IndexedShards(dataset)
    targets = labelled_targets(images, LabelConfig(uncertain=uncertain, blank=blank))
    value = {"zero": 0.0, "one": 1.0, "ignore": NAN}
    assert targets.names == NAMES
    assert targets.policy == LabelPolicy(uncertain, blank)
    assert targets.values.dtype == np.float32
    expected = expected_values(images.keys, value[uncertain], value[blank])
    np.testing.assert_array_equal(targets.values, expected)


def test_without_a_setting_the_policy_is_that_of_the_packing(tmp_path):
    packed = make_labelled_dataset(tmp_path, labels=LabelPolicy(uncertain="one", blank="ignore"))
    images = IndexedShards(packed)
    assert images.manifest.label_policy == {"uncertain": "one", "blank": "ignore"}
    targets = labelled_targets(images, LabelConfig())
    np.testing.assert_array_equal(targets.values, expected_values(images.keys, 1.0, NAN))
    other = labelled_targets(images, LabelConfig(blank="zero"))
    assert other.policy == LabelPolicy("one", "zero")


def test_findings_may_be_read_each_its_own_way(dataset):
    images = IndexedShards(dataset)
    own = labelled_targets(images, LabelConfig(uncertain={"Mass": "one", "Nodule": "zero"}))
    assert own.policy.uncertain == {"default": "zero", "Mass": "one"}
    np.testing.assert_array_equal(own.values, expected_values(images.keys, 1.0, 0.0))
    others = labelled_targets(images, LabelConfig(uncertain={"default": "ignore", "Mass": "zero"}))
    np.testing.assert_array_equal(others.values, expected_values(images.keys, 0.0, 0.0))
    # The policy of findings that are not asked for tells no trainings or tests apart.
    mass = labelled_targets(images, LabelConfig(["Mass"], {"default": "one", "Edema": "zero"}))
    assert mass.policy == LabelPolicy("one")
    # A finding that another source of a training alone knows may be named as well.
    names, uses = ("Mass", "Goitre"), {"Goitre": "ignore", "Mass": "one"}
    mixed = labelled_targets(images, LabelConfig(uncertain=uses), names)
    assert mixed.policy == LabelPolicy({"default": "zero", "Goitre": "ignore", "Mass": "one"})
    assert np.isnan(mixed.values[:, 1]).all()


def test_a_policy_for_a_finding_that_nobody_knows_is_refused(dataset):
    with pytest.raises(ConfigurationError, match="'Edma', which is no finding, did you mean 'Edem"):
        labelled_targets(IndexedShards(dataset), LabelConfig(uncertain={"Edma": "one"}))


def test_the_policy_changes_nothing_of_what_is_packed(dataset, tmp_path):
    other = make_labelled_dataset(tmp_path, labels=LabelPolicy(uncertain="ignore"))
    for name in (INDEX_NAME, *(entry.name for entry in ShardManifest.read(dataset).shards)):
        assert (other / name).read_bytes() == (dataset / name).read_bytes()


def test_targets_follow_the_selection_and_the_names_asked_for(dataset):
    images = IndexedShards(dataset, ["train"]).select([2, 0])
    targets = labelled_targets(images, LabelConfig(names=["Nodule", "Edema"]))
    assert targets.names == ("Nodule", "Edema")
    np.testing.assert_array_equal(targets.values, expected_values(images.keys, 0, 0)[:, [2, 0]])


def test_an_image_of_which_nothing_is_known_is_ignored_whatever_the_policy(fresh):
    unknown = IndexedShards(fresh).keys[3]
    change_findings(fresh, lambda row: None if row["key"] == unknown else row["findings"])
    values = labelled_targets(IndexedShards(fresh), LabelConfig(blank="one")).values
    assert np.isnan(values[3]).all()
    assert not np.isnan(np.delete(values, 3, axis=0)).any()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Edma"], "did you mean 'Edema'"),
        ("chexpert", "which this dataset does not"),
        ("chexprt", "did you mean 'chexpert'"),
        ([], "empty"),
    ],
)
def test_labels_that_the_dataset_lacks_are_refused(dataset, names, message):
    with pytest.raises(ConfigurationError, match=message):
        labelled_targets(IndexedShards(dataset), LabelConfig(names=names))


def test_a_dataset_without_findings_is_refused(tmp_path):
    images = IndexedShards(make_packed_dataset(tmp_path, images=4, splits={"train": 1.0}))
    assert images.findings() == [None] * 4
    with pytest.raises(ConfigurationError, match="'squares' has no findings"):
        labelled_targets(images, LabelConfig())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected JSON"),
        ("[" * 100_000, "expected JSON"),
        ("[1]", "expected an object"),
        ('{"Oedema": 1}', "'Oedema' is not in the manifest's vocabulary"),
        ('{"Edema": 2}', "'Edema' is '2', expected -1, 0 or 1"),
        ('{"Edema": true}', "expected -1, 0 or 1"),
        ('{"Edema": 1.0}', "expected -1, 0 or 1"),
        ('{"Edema": null}', "expected -1, 0 or 1"),
        ('{"Edema": NaN}', "expected -1, 0 or 1"),
        ('{"Edema": "1"}', "expected -1, 0 or 1"),
    ],
)
def test_a_damaged_entry_is_refused_with_its_key(fresh, text, message):
    with pytest.raises(ValueError, match=message):
        parse_findings(text, NAMES)
    first = IndexedShards(fresh).keys[0]
    change_findings(fresh, lambda row: text if row["key"] == first else row["findings"])
    with pytest.raises(DatasetError, match=f"{first}.*{message}"):
        labelled_targets(IndexedShards(fresh), LabelConfig())


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("megabytes", [0, 1])
def test_each_image_comes_with_its_own_target(dataset, megabytes):
    samples = select_samples(str(dataset), ["train"])
    targets = labelled_targets(samples.images, LabelConfig(uncertain="ignore"))
    images = LabelledImages(samples, targets, megabytes)
    expected = expected_values(samples.images.keys, NAN, 0.0)
    for _ in range(2):  # the second time from memory where there is room
        for number, key in enumerate(samples.images.keys):
            item = images[number]
            blob = make_blob(number_of(key))[0] // 2 + 100 * (number_of(key) % 2)
            assert np.array_equal(item["image"][0], blob)
            assert item["target"].dtype == torch.float32
            np.testing.assert_array_equal(item["target"], expected[number])
            assert item["number"] == number


def test_the_memory_holds_images_only(dataset):
    samples = select_samples(str(dataset), None)
    targets = labelled_targets(samples.images, LabelConfig())
    assert LabelledImages(samples, targets).decoded_bytes == 32 * 32


def test_targets_of_other_samples_are_refused(dataset):
    samples = select_samples(str(dataset), ["train"])
    targets = labelled_targets(IndexedShards(dataset), LabelConfig())
    with pytest.raises(ValueError, match="12 targets for 6 samples"):
        LabelledImages(samples, targets)


def test_only_whole_numbers_are_brought_to_the_unit_range():
    batch = {
        "image": torch.tensor([[[[0, 255]]]], dtype=torch.uint8),
        "target": torch.tensor([[1.0, 0.0, NAN]]),
    }
    image, target = as_float(batch, torch.device("cpu"))
    assert image.tolist() == [[[[0.0, 1.0]]]]
    np.testing.assert_array_equal(target, [[1.0, 0.0, NAN]])


def test_a_stream_finds_the_target_of_each_image_by_its_key(dataset):
    config = DataConfig(dataset=str(dataset), streaming=True, shuffle_buffer=4)
    samples = select_samples(str(dataset), ["train", "test"])
    targets = labelled_targets(samples.images, LabelConfig(blank="ignore"))
    expected = expected_values(samples.images.keys, 0.0, NAN)
    batches = streamed_batches(config, samples, 3, seed=0, rank=0, targets=targets)
    seen = set()
    for batch in itertools.islice(batches, 20):
        np.testing.assert_array_equal(batch["target"], expected[batch["number"]])
        for image, number in zip(batch["image"], batch["number"].tolist(), strict=True):
            bright = image.float().mean() > 100
            assert bright == bool(number_of(samples.images.keys[number]) % 2)
            seen.add(number)
    assert len(seen) == len(samples) == 8


# ---------------------------------------------------------------- patients


def test_the_splits_of_a_packing_share_no_patient(dataset):
    parts = [select_samples(str(dataset), [name]) for name in ("train", "validation", "test")]
    for first, second in itertools.combinations(parts, 2):
        assert patients_in_both(first, second) == []
    manifest = ShardManifest.read(dataset)
    assert manifest.patients == {"known": 6, "images_without": 0}


def test_patients_that_two_packings_of_one_dataset_share_are_named(dataset, tmp_path):
    again = make_labelled_dataset(tmp_path, images=4, splits={"train": 1.0})
    everything = select_samples(str(dataset), None)
    assert patients_in_both(everything, select_samples(str(again), None)) == ["p000", "p001"]


def test_other_datasets_name_their_patients_in_their_own_way(dataset, tmp_path):
    other = make_labelled_dataset(tmp_path, name="elsewhere")
    everything = select_samples(str(dataset), None)
    assert patients_in_both(everything, select_samples(str(other), None)) == []


def test_images_of_unknown_patients_share_none(tmp_path):
    samples = select_samples(str(make_packed_dataset(tmp_path, images=4)), None)
    assert patients_in_both(samples, samples) == []


def test_each_patient_of_several_splits_is_told_once():
    patients = ["a", "b", None, "a", "a", None, "b", "c"]
    splits = ["train", "train", "train", "test", "validation", "test", "train", "test"]
    assert list(patients_in_two_splits(patients, splits)) == [("a", "train", "test")]


def test_a_validation_says_which_findings_its_mean_auroc_leaves_out() -> None:
    def targets(*rows: list[float]) -> LabelledTargets:
        return LabelledTargets(NAMES, LabelPolicy(), np.asarray(rows, np.float32))

    whole = targets([0, 1, 0], [1, 0, 1])
    assert whole.with_both_classes == NAMES and _check_findings(whole) == []
    some = targets([0, 0, 0], [1, 0, NAN])
    assert some.with_both_classes == ("Edema",)
    (told,) = _check_findings(some)
    assert "the mean AUROC of 1 of 3 findings; its 2 images do not show the others" in told
    assert told.endswith("both present and absent: Mass, Nodule")
    with pytest.raises(ConfigurationError, match="no AUROC is defined"):
        _check_findings(targets([0, 1, NAN], [0, 1, 1]))
