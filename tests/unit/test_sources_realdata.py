"""The layouts and the reading of pixels on published images."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nakt_dist.imaging.images import read_image, read_mask, resize_image, resize_mask
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.sources import SourceListing, scan_source
from nakt_dist.sources.keys import assign_keys

pytestmark = pytest.mark.realdata
MAX_PIXELS = 20_000_000
RULE = MaskRule(targets=(1, 255))


def read_some(listing: SourceListing, every: int) -> list[np.ndarray]:
    """Reads and resizes a sample of the listing; returns the masks."""
    masks = []
    for record in listing.records[::every]:
        image, info = read_image(record.image, "grey", MAX_PIXELS, "min_max")
        assert image.shape == (info["height"], info["width"])
        assert image.std() > 1
        assert resize_image(image, (96, 96), "pad").shape == (96, 96)
        if record.mask_kind != "none":
            mask = read_mask(record, image.shape[:2], MAX_PIXELS, RULE)[0]
            masks.append(mask)
            assert resize_mask(mask, (96, 96), "pad", record.mask_kind).shape == (96, 96)
    return masks


def assert_clean(listing: SourceListing) -> None:
    assert [record.problem for record in listing.records if record.problem] == []
    keys = assign_keys([record.name for record in listing.records])
    assert len(set(keys)) == len(listing.records)


def test_busi_lesions(real_data: Path) -> None:
    listing = scan_source("busi", real_data / "busi", {})
    assert_clean(listing)
    assert Counter(r.stratum for r in listing.records) == {"benign": 136, "malignant": 64}
    assert listing.left_out == {"class normal": 20}
    several = [record for record in listing.records if len(record.masks) > 1]
    assert len(several) == 9
    for mask in read_some(SourceListing(several), 1) + read_some(listing, 5):
        assert set(np.unique(mask)) == {0, 255}


def test_busi_united_masks_are_larger_than_each(real_data: Path) -> None:
    listing = scan_source("busi", real_data / "busi", {})
    for record in listing.records:
        if len(record.masks) > 1:
            size = read_image(record.image, "grey", MAX_PIXELS, "min_max")[0].shape
            united = read_mask(record, size, MAX_PIXELS, RULE)[0].sum()
            for path in record.masks:
                single = type(record)(record.name, record.image, (path,), "binary")
                assert 0 < read_mask(single, size, MAX_PIXELS, RULE)[0].sum() <= united


def test_busi_with_normals(real_data: Path) -> None:
    options = {"classes": ["benign", "malignant", "normal"]}
    listing = scan_source("busi", real_data / "busi" / "Dataset_BUSI_with_GT", options)
    assert_clean(listing)
    assert len(listing.records) == 220
    normals = [record for record in listing.records if record.stratum == "normal"]
    assert not any(mask.any() for mask in read_some(SourceListing(normals), 4))


def test_ddti(real_data: Path) -> None:
    listing = scan_source("paired_folders", real_data / "ddti", {})
    assert_clean(listing)
    assert len(listing.records) == 500
    assert all(set(np.unique(mask)) == {0, 255} for mask in read_some(listing, 10))


def test_isic_archive(real_data: Path) -> None:
    listing = scan_source("isic_archive", real_data / "isic", {})
    assert_clean(listing)
    assert Counter(r.stratum for r in listing.records) == {"benign": 70, "malignant": 50}
    assert listing.ignored_files == {".txt": 2}
    assert read_some(listing, 40) == []


def test_voc2012(real_data: Path) -> None:
    listing = scan_source("voc2012", real_data / "voc", {})
    assert_clean(listing)
    masks = read_some(listing, 1)
    assert [sorted(np.unique(mask)) for mask in masks] == [
        [0, 5, 15, 255],
        [0, 9, 15, 18, 255],
        [0, 6, 7, 255],
    ]
    people = read_some(scan_source("voc2012", real_data / "voc", {"classes": ["person"]}), 1)
    assert [int((mask == 255).sum()) for mask in people] == [
        int((mask == 15).sum()) for mask in masks
    ]


def test_chest_images_of_every_mode(real_data: Path) -> None:
    modes = set()
    for folder in ("covid-chestxray", "nih"):
        for record in scan_source("image_folder", real_data / folder, {}).records[::3]:
            image, info = read_image(record.image, "rgb", MAX_PIXELS, "min_max")
            assert image.shape == (info["height"], info["width"], 3)
            modes.add(info["mode"])
    assert modes >= {"L", "RGB", "RGBA"}
