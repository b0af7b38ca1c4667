"""JPEGs that are made smaller while they are decoded: nearly the same pixels, in the same place."""

import functools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from nakt_dist.config import ImageConfig
from nakt_dist.errors import DatasetError, UnusableSample
from nakt_dist.imaging.images import read_image, reduction_for, resize_image
from nakt_dist.shards.manifest import ShardManifest
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import pack
from tests.datasets import make_blob
from tests.recipes import pack_config
from tests.unit.image_files import encoded


def scene(height, width):
    """A picture as cameras give it: no finer than a few pixels, with hard edges, and noise."""
    picture = Image.fromarray(make_blob(0, height, width)[0]).filter(ImageFilter.GaussianBlur(1))
    pixels = np.asarray(picture, int) + np.random.default_rng(0).integers(-4, 5, (height, width))
    return pixels.clip(0, 255).astype(np.uint8)


def packed(content, size, fit, scaled, colour="grey"):
    reduce = functools.partial(reduction_for, size=size, fit=fit) if scaled else None
    pixels, info = read_image(Path("x"), colour, 10**7, "min_max", content=content, reduce=reduce)
    shape, reduction = (info["height"], info["width"]), info.get("reduction", 1)
    return resize_image(pixels, size, fit, shape, reduction).astype(int), info


@pytest.mark.parametrize(
    ("shape", "size", "fit", "reduction"),
    [
        ((1024, 1024), (256, 256), "stretch", 4), ((1023, 1023), (256, 256), "stretch", 2),
        ((1024, 500), (256, 256), "stretch", 1), ((1024, 512), (256, 256), "pad", 4),
        ((1024, 512), (256, 256), "centre_crop", 2), ((9000, 9000), (64, 64), "stretch", 8),
        ((40, 60), (64, 64), "stretch", 1), ((8, 2000), (4, 4), "pad", 8),
    ],
)  # fmt: skip
def test_no_picture_becomes_smaller_than_it_is_packed(shape, size, fit, reduction):
    assert reduction_for(shape, size, fit) == reduction


@pytest.mark.parametrize("fit", ["stretch", "pad", "centre_crop"])
@pytest.mark.parametrize("colour", ["grey", "rgb"])
@pytest.mark.parametrize(("shape", "size"), [((512, 512), (128, 128)), ((519, 641), (90, 70))])
def test_pixels_stay_within_the_tolerance(shape, size, fit, colour):
    picture = Image.fromarray(scene(*shape))
    content = encoded(picture.convert("RGB") if colour == "rgb" else picture, "JPEG", quality=95)
    whole, told = packed(content, size, fit, False, colour)
    scaled, info = packed(content, size, fit, True, colour)
    assert info.pop("reduction") in (4, 8) and info == told
    assert np.abs(whole - scaled).mean() < 1.5
    assert 10 * np.log10(255**2 / ((whole - scaled) ** 2).mean()) > 40
    # It lies where the whole picture lies: not a pixel aside, nor nearly so.
    moved = np.abs(whole[:, 1:] - scaled[:, :-1]).mean()
    assert np.abs(whole - scaled).mean() < moved / 2


def test_others_than_large_upright_jpegs_are_read_as_ever():
    picture = scene(512, 512)
    turned = Image.Exif()
    turned[274] = 6
    for content in (
        encoded(picture, "PNG"), encoded(picture, "JPEG", exif=turned),
        encoded(picture[:200, :200], "JPEG"),
    ):  # fmt: skip
        whole, told = packed(content, (128, 128), "stretch", False)
        scaled, info = packed(content, (128, 128), "stretch", True)
        assert np.array_equal(whole, scaled) and info == told


def test_a_cut_jpeg_is_noticed():
    content = encoded(scene(512, 512), "JPEG", quality=95)
    with pytest.raises(UnusableSample) as caught:
        packed(content[: len(content) // 2], (64, 64), "stretch", True)
    assert caught.value.reason == "truncated_image"


def test_a_packing_says_that_its_pictures_were_scaled(tmp_path):
    source = tmp_path / "published"
    source.mkdir()
    for number in range(5):
        image, target = make_blob(number % 4, 257, 300)
        Image.fromarray(image).save(source / f"image_{number}.jpg", quality=95)
        Image.fromarray(np.uint8(255 * target)).save(source / f"image_{number}_mask.png")
    form = ImageConfig(64, 64, scaled_decoding=True)
    plain = pack_config(source, tmp_path / "plain")
    config = pack_config(source, tmp_path / "scaled", workers=2)
    scaled = pack.run(type(config)(**{**vars(config), "image": form}))
    whole = pack.run(plain)

    assert scaled.counts == whole.counts and scaled.details["splits"] == whole.details["splits"]
    assert scaled.details["fingerprint"] != whole.details["fingerprint"]
    assert ShardManifest.read(tmp_path / "scaled").config["image"]["scaled_decoding"] is True
    one, other = IndexedShards(tmp_path / "scaled"), IndexedShards(tmp_path / "plain")
    numbers = [set(each.index["pixels"].to_pylist()) for each in (one, other)]
    assert len(numbers[0]) == len(numbers[1]) == 4, "a copy is not known"
    assert not numbers[0] & numbers[1], "a reduced picture passes for one published so"
    assert [one.mask_bytes(n) for n in range(5)] == [other.mask_bytes(n) for n in range(5)]
    with pytest.raises(DatasetError, match="scaled_decoding"):
        pack.run(type(config)(**{**vars(config), "image": ImageConfig(64, 64)}))
    told = one.metadata(0)
    assert (told["width"], told["height"], told["reduction"]) == (300, 257, 4)
    assert "reduction" not in other.metadata(0)
