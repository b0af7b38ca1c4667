"""Masks: united, cut to 0 and 255, kept on their image when resized, encoded the same twice."""

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import bomb_png, encoded, gradient, save, write
from PIL import Image

from nakt_dist.errors import ConfigurationError, UnusableSample
from nakt_dist.imaging.images import (
    encode_image,
    encode_mask_png,
    read_mask,
    resize_image,
    resize_mask,
)
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.sources import SourceRecord

FITS = ("stretch", "pad", "centre_crop")


ZERO_ONE_OR_WHITE = MaskRule(targets=(1, 255, 65535))


def read(
    *masks: Path, kind: str = "binary", size=(2, 2), classes=(), rule=ZERO_ONE_OR_WHITE, known=None
) -> np.ndarray:
    record = SourceRecord("x", Path("x"), masks, kind, mask_classes=classes)
    return read_mask(record, size, 1_000_000, rule, classes=known)[0]


def reason(*masks: Path, **settings) -> str:
    with pytest.raises(UnusableSample) as caught:
        read(*masks, **settings)
    return caught.value.reason


def array(values: list, dtype: type = np.uint8) -> np.ndarray:
    return np.array(values, dtype)


class TestBinaryMasks:
    @pytest.mark.parametrize(
        ("values", "target"),
        [
            (array([[0, 1], [1, 0]]), [[0, 1], [1, 0]]),
            (array([[0, 255], [255, 0]]), [[0, 1], [1, 0]]),
            (array([[0, 0], [0, 0]]), [[0, 0], [0, 0]]),
            (array([[0, 1], [1, 0]], bool), [[0, 1], [1, 0]]),
            (array([[0, 65535], [65535, 0]], np.uint16), [[0, 1], [1, 0]]),
            (array([[0, 255], [0, 255]], np.uint16), [[0, 1], [0, 1]]),
            (array([[0, 1], [0, 1]], np.uint16), [[0, 1], [0, 1]]),
            (array([[0.0, 1.0], [1.0, 0.0]], np.float32), [[0, 1], [1, 0]]),
        ],
    )
    def test_values(self, tmp_path: Path, values: np.ndarray, target: list) -> None:
        mask = read(save(tmp_path / "m.tif", values))
        assert mask.dtype == np.uint8
        assert (mask // 255).tolist() == target
        assert set(np.unique(mask)) <= {0, 255}

    def test_one_colour_on_black_is_the_target(self, tmp_path: Path) -> None:
        colours = np.zeros((2, 2, 4), np.uint8)
        colours[0, 0] = (255, 0, 0, 255)
        colours[0, 1] = (0, 0, 0, 255)
        assert read(save(tmp_path / "m.png", colours)).tolist() == [[255, 0], [0, 0]]
        palette = Image.new("P", (2, 2))
        palette.putpalette([0, 0, 0, 128, 0, 0])
        palette.putdata([0, 1, 1, 0])
        assert read(save(tmp_path / "p.png", palette)).tolist() == [[0, 255], [255, 0]]

    def test_several_are_united(self, tmp_path: Path) -> None:
        first = save(tmp_path / "a.png", array([[255, 0], [0, 0]]))
        second = save(tmp_path / "b.png", array([[0, 1], [0, 0]]))
        assert read(first, second).tolist() == [[255, 255], [0, 0]]

    def test_reasons(self, tmp_path: Path) -> None:
        good = save(tmp_path / "good.png", array([[255, 0], [0, 0]]))
        other_size = save(tmp_path / "size.png", np.zeros((2, 3), np.uint8))
        assert reason(good, other_size) == "mask_size_differs"
        assert reason(save(tmp_path / "u.png", array([[0, 2], [1, 0]]))) == "mask_values_unclear"
        nan = save(tmp_path / "n.tif", array([[0, np.nan], [1, 0]], np.float32))
        assert reason(nan) == "mask_non_finite_pixels"
        assert reason(tmp_path / "absent.png") == "mask_unreadable"
        assert reason(write(tmp_path / "e.png", b"")) == "mask_empty_file"
        assert reason(write(tmp_path / "t.png", b"text")) == "mask_not_an_image"
        assert reason(write(tmp_path / "b.png", bomb_png())) == "mask_too_many_pixels"
        cut = write(tmp_path / "c.png", encoded(gradient(), "PNG")[:60])
        assert reason(cut) == "mask_truncated_image"

    def test_the_detail_names_both_sizes(self, tmp_path: Path) -> None:
        path = save(tmp_path / "m.png", np.zeros((2, 3), np.uint8))
        with pytest.raises(UnusableSample, match=r"'m\.png' is 3×2, its image 5×4"):
            read(path, size=(4, 5))

    def test_a_record_without_masks(self) -> None:
        with pytest.raises(ValueError, match="no masks to read"):
            read()
        with pytest.raises(ValueError, match="no masks to read"):
            read(Path("m.png"), kind="none")


class TestClassMasks:
    @pytest.fixture
    def palette(self, tmp_path: Path) -> Path:
        image = Image.new("P", (2, 2))
        image.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
        image.putdata([0, 5, 15, 255])
        return save(tmp_path / "m.png", image)

    def test_indices(self, tmp_path: Path, palette: Path) -> None:
        assert read(palette, kind="classes").tolist() == [[0, 5], [15, 255]]
        wide = save(tmp_path / "w.tif", array([[0, 5], [15, 255]], np.uint16))
        assert read(wide, kind="classes").tolist() == [[0, 5], [15, 255]]

    def test_a_union_of_classes(self, palette: Path) -> None:
        assert read(palette, classes=(5,)).tolist() == [[0, 255], [0, 0]]
        assert read(palette, classes=(5, 15)).tolist() == [[0, 255], [255, 0]]

    def test_reasons(self, tmp_path: Path, palette: Path) -> None:
        colours = save(tmp_path / "c.png", np.zeros((2, 2, 3), np.uint8))
        assert reason(colours, kind="classes") == "mask_not_class_indices"
        assert reason(colours, classes=(1,)) == "mask_not_class_indices"
        wide = save(tmp_path / "w.png", np.full((2, 2), 300, np.uint16))
        assert reason(wide, kind="classes") == "mask_not_class_indices"
        assert reason(palette, palette, kind="classes") == "mask_several_class_files"

    def test_indices_that_name_no_class_are_none(self, tmp_path: Path, palette: Path) -> None:
        grey = save(tmp_path / "g.png", array([[0, 147], [220, 255]]))  # VOC's person, turned grey
        for settings in ({"kind": "classes"}, {"classes": (15,)}):
            assert reason(grey, known=21, **settings) == "mask_not_class_indices"
            assert np.array_equal(read(palette, known=16, **settings), read(palette, **settings))
        with pytest.raises(UnusableSample, match=r"'g\.png' holds 147, 220; expected .* 0 to 20"):
            read(grey, kind="classes", known=21)


class TestResizing:
    @pytest.mark.parametrize("fit", FITS)
    @pytest.mark.parametrize("shape", [(90, 130), (131, 77), (20, 31), (64, 64)])
    def test_mask_stays_on_its_image(self, fit: str, shape: tuple[int, int]) -> None:
        rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
        centre, radius = (shape[0] * 0.45, shape[1] * 0.55), min(shape) * 0.3
        disc = np.hypot(rows - centre[0], columns - centre[1]) < radius
        mask = disc.astype(np.uint8) * 255
        size = (64, 64)
        grey = resize_image(mask, size, fit)
        colour = resize_image(np.repeat(mask[..., None], 3, 2), size, fit)
        assert np.array_equal(colour[..., 2], grey)
        assert np.array_equal(resize_mask(mask, size, fit, "binary") > 0, grey >= 128)
        classes = resize_mask(disc.astype(np.uint8) * 7, size, fit, "classes")
        assert set(np.unique(classes)) == {0, 7}
        assert ((classes > 0) != (grey >= 128)).mean() < 0.02

    def test_half_covered_pixels_are_target(self) -> None:
        mask = np.zeros((64, 64), np.uint8)
        mask[:, :34] = 255
        covered = resize_mask(mask, (16, 16), "stretch", "binary")
        assert (covered[:, :9] == 255).all()
        mask[:, 33] = 0
        assert not resize_mask(mask, (16, 16), "stretch", "binary")[:, 8:].any()

    def test_shrinking_is_antialiased(self) -> None:
        checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
        assert np.ptp(resize_image(checks, (8, 8), "stretch").astype(int)) < 40

    def test_pad_centres_on_zero(self) -> None:
        white = np.full((20, 40), 255, np.uint8)
        padded = resize_image(white, (32, 32), "pad")
        assert (padded[8:24] == 255).all()
        assert not padded[:8].any()
        assert not padded[24:].any()
        mask = resize_mask(white, (32, 32), "pad", "binary")
        assert np.array_equal(mask, padded)

    def test_centre_crop_takes_the_middle(self) -> None:
        wide = np.repeat(np.arange(60, dtype=np.uint8)[None], 20, 0)
        assert np.array_equal(resize_image(wide, (20, 20), "centre_crop"), wide[:, 20:40])
        tall = np.ascontiguousarray(wide.T)
        assert np.array_equal(resize_image(tall, (10, 20), "centre_crop"), tall[25:35])

    @pytest.mark.parametrize("fit", FITS)
    @pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1), (3, 2)])
    def test_extreme_shapes(self, fit: str, shape: tuple[int, int]) -> None:
        image = np.full(shape, 255, np.uint8)
        assert resize_image(image, (48, 32), fit).shape == (48, 32)
        assert resize_mask(image, (48, 32), fit, "classes").any()

    def test_unknown_words(self) -> None:
        with pytest.raises(ValueError, match="expected 'stretch', 'pad' or 'centre_crop'"):
            resize_image(gradient(), (8, 8), "squash")
        with pytest.raises(ValueError, match="expected 'binary' or 'classes'"):
            resize_mask(gradient(), (8, 8), "pad", "soft")


class TestEncoding:
    @pytest.mark.parametrize("encoding", ["png", "jpg"])
    def test_same_bytes_and_no_metadata(self, encoding: str) -> None:
        for pixels in (gradient(), np.repeat(gradient()[..., None], 3, 2)):
            content = encode_image(pixels, encoding, 90)
            assert content == encode_image(pixels.copy(), encoding, 90)
            image = Image.open(io.BytesIO(content))
            assert not image.getexif()
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
            difference = np.abs(np.asarray(image).astype(int) - pixels)
            assert difference.max() == 0 if encoding == "png" else difference.mean() < 3

    def test_mask(self) -> None:
        mask = array([[0, 255], [7, 0]])
        image = Image.open(io.BytesIO(encode_mask_png(mask)))
        assert (image.format, image.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(image), mask)

    def test_refusals(self) -> None:
        with pytest.raises(ConfigurationError, match="expected 'jpg' or 'png'"):
            encode_image(gradient(), "jpeg", 90)
        for quality in (0, 101):
            with pytest.raises(ConfigurationError, match="expected 1 to 100"):
                encode_image(gradient(), "jpg", quality)
