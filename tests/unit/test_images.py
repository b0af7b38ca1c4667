"""Reading untrusted images: every mode becomes uint8, every damage a reason."""

import os
import pickle
import struct
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
from image_files import FORMATS, bomb_png, encoded, gradient, save, write
from PIL import Image

from nakt_dist.errors import UnusableSample
from nakt_dist.imaging.decoding import convert_mode
from nakt_dist.imaging.images import read_image

MAX_PIXELS = 1_000_000


def read(path: Path, colour: str = "grey", sixteen_bit: str = "min_max") -> np.ndarray:
    return read_image(path, colour, MAX_PIXELS, sixteen_bit)[0]


def reason(path: Path, max_pixels: int = MAX_PIXELS) -> str:
    with pytest.raises(UnusableSample) as caught:
        read_image(path, "grey", max_pixels, "min_max")
    assert pickle.loads(pickle.dumps(caught.value)).detail == caught.value.detail
    assert path.name in caught.value.detail
    assert str(path.parent) not in caught.value.detail
    return caught.value.reason


def plain_tiff(values: np.ndarray, kind: int) -> bytes:
    """Returns a TIFF of one strip; kinds of numbers are 1 (without sign) and 2 (with)."""
    rows, columns = values.shape
    data = values.tobytes()
    tags = {
        256: columns, 257: rows, 258: 8 * values.itemsize, 259: 1, 262: 1, 273: 8, 277: 1,
        278: rows, 279: len(data), 339: kind,
    }  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<4sI", b"II*\0", 8 + len(data)) + data
    return head + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(("kind", "signed"), [(np.int8, 2), (np.uint32, 1)])
def test_numbers_whose_sign_pillow_mistakes_are_set_aside(tmp_path: Path, kind, signed) -> None:
    sound = np.linspace(0, 127, 64).reshape(8, 8).astype(kind)
    path = write(tmp_path / "a.tif", plain_tiff(sound, signed))
    assert np.array_equal(read(path), sound)
    wrong = np.linspace(*((-128, 127) if signed == 2 else (0, 2**32 - 1)), 64)
    write(path, plain_tiff(wrong.reshape(8, 8).astype(kind), signed))
    assert reason(path) == "unreadable"


@pytest.mark.parametrize("file_format", ["TIFF", "GIF", "PNG", "WEBP"])
def test_files_of_several_pictures_say_so(tmp_path: Path, file_format: str) -> None:
    first, second = Image.fromarray(gradient(9, 9)), Image.fromarray(255 - gradient(9, 9))
    lossless = {"lossless": True} if file_format == "WEBP" else {}
    for others in ([], [second]):
        path = tmp_path / f"{len(others)}"
        more = {"save_all": True, "append_images": others, **lossless}
        first.convert("RGB").save(path, file_format, **more)
        pixels, info = read_image(path, "grey", MAX_PIXELS, "min_max")
        assert info.get("holds_more", False) == bool(others)
        assert np.abs(pixels.astype(int) - gradient(9, 9)).max() <= 8  # a GIF's palette


def test_a_smaller_copy_in_a_tiff_is_no_further_picture(tmp_path: Path) -> None:
    small = Image.fromarray(gradient(4, 4))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(gradient(9, 9)).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert "holds_more" not in read_image(tmp_path / "a.tif", "grey", MAX_PIXELS, "min_max")[1]


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # what Pillow says of damaged TIFF files
class TestDamage:
    def test_empty_file(self, tmp_path: Path) -> None:
        assert reason(write(tmp_path / "a.png", b"")) == "empty_file"

    @pytest.mark.parametrize("content", [b"this is text\n", b"\x89PN", b"%!PS-Adobe-3.0 EPSF"])
    def test_text_named_png(self, tmp_path: Path, content: bytes) -> None:
        assert reason(write(tmp_path / "a.png", content)) == "not_an_image"

    @pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
    @pytest.mark.parametrize("file_format", ["PNG", "JPEG", "TIFF", "BMP"])
    def test_truncated(self, tmp_path: Path, file_format: str, share: float) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (50, 50), dtype=np.uint8)
        content = encoded(noise, file_format)
        path = write(tmp_path / "a.png", content[: int(len(content) * share)])
        assert reason(path) == "truncated_image"

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_cut_anywhere_gives_a_reason_or_the_whole_image(
        self, tmp_path: Path, file_format: str
    ) -> None:
        content = encoded(gradient(12, 9), file_format)
        whole = read(write(tmp_path / "a", content))
        for length in range(0, len(content), 3):
            try:
                found = read(write(tmp_path / "a", content[:length]))
            except UnusableSample:
                continue
            assert np.array_equal(found, whole)

    @pytest.mark.parametrize("file_format", FORMATS)
    def test_changed_bytes_never_escape(self, tmp_path: Path, file_format: str) -> None:
        generator = np.random.default_rng(1)
        content = np.frombuffer(encoded(gradient(12, 9), file_format), np.uint8)
        for _ in range(60):
            changed = content.copy()
            places = generator.integers(0, len(content), 3)
            changed[places] = generator.integers(0, 256, 3)
            try:
                assert read(write(tmp_path / "a", changed.tobytes())).dtype == np.uint8
            except UnusableSample as error:
                assert " at 0x" not in error.detail

    def test_bomb_is_not_decoded(self, tmp_path: Path) -> None:
        content = bomb_png()
        assert len(content) < 200_000
        path = write(tmp_path / "bomb.png", content)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tracemalloc.start()
            assert reason(path, max_pixels=50_000_000) == "too_many_pixels"
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
            tracemalloc.stop()

    def test_limit_is_of_the_call_not_of_the_process(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = save(tmp_path / "a.png", gradient(100, 100))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        assert read(path).shape == (100, 100)
        assert reason(path, max_pixels=9_999) == "too_many_pixels"

    def test_too_many_bytes(self, tmp_path: Path) -> None:
        content = encoded(gradient(), "PNG") + bytes(2**20 + 8 * 3000)
        assert reason(write(tmp_path / "a.png", content), max_pixels=3000) == "too_many_bytes"

    def test_unreadable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert reason(tmp_path / "vanished.png") == "unreadable"
        os.mkfifo(tmp_path / "pipe.png")
        assert reason(tmp_path / "pipe.png") == "unreadable"
        (tmp_path / "folder.png").mkdir()
        assert reason(tmp_path / "folder.png") == "unreadable"

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        locked = save(tmp_path / "locked.png", gradient())
        monkeypatch.setattr(Path, "open", refuse)
        assert reason(locked) == "unreadable"


class TestModes:
    def test_the_content_decides_not_the_suffix(self, tmp_path: Path) -> None:
        for file_format in FORMATS:
            path = write(tmp_path / "a b.ü.v1.jpg", encoded(gradient(), file_format))
            array, info = read_image(path, "grey", MAX_PIXELS, "min_max")
            assert array.shape == (40, 60)
            assert (info["format"], info["width"], info["height"]) == (file_format, 60, 40)
            assert (info["scaling"], info["range"], info["orientation"]) == ("none", None, 1)

    @pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
    def test_plain_modes(self, tmp_path: Path, mode: str) -> None:
        image = Image.fromarray(gradient()).convert(mode)
        path = save(tmp_path / "a.png", image)
        assert np.array_equal(read(path), np.asarray(image.convert("RGB").convert("L")))
        assert np.array_equal(read(path, "rgb"), np.asarray(image.convert("RGB")))
        assert read(path).flags.writeable

    def test_alpha_is_shown_over_black(self, tmp_path: Path) -> None:
        pixels = np.zeros((2, 2, 4), np.uint8)
        pixels[0, 0] = (200, 100, 50, 255)
        pixels[0, 1] = (200, 100, 50, 0)
        pixels[1, 0] = (200, 100, 50, 128)
        array = read(save(tmp_path / "a.png", pixels), "rgb")
        assert array[0].tolist() == [[200, 100, 50], [0, 0, 0]]
        assert array[1, 0].tolist() == [100, 50, 25]
        grey = np.array([[[200, 255], [200, 0]]], np.uint8)
        assert read(save(tmp_path / "b.png", Image.fromarray(grey, "LA"))).tolist() == [[200, 0]]

    def test_palette_with_transparency(self, tmp_path: Path) -> None:
        image = Image.new("P", (2, 1))
        image.putpalette([10, 10, 10, 250, 250, 250])
        image.putdata([0, 1])
        path = save(tmp_path / "a.png", image, transparency=1)
        assert read(path).tolist() == [[10, 0]]

    @pytest.mark.parametrize("mode", ["CMYK", "YCbCr"])
    def test_print_and_video_colours(self, tmp_path: Path, mode: str) -> None:
        flat = Image.new("RGB", (16, 16), (180, 90, 40)).convert(mode)
        suffix = ".tiff" if mode == "YCbCr" else ".jpg"
        array = read(save(tmp_path / f"a{suffix}", flat), "rgb")
        assert np.abs(array.astype(int) - (180, 90, 40)).max() < 6

    def test_a_mode_that_pillow_cannot_convert(self) -> None:
        with pytest.raises(UnusableSample, match="colour mode La, which cannot be turned into RGB"):
            convert_mode(Image.new("La", (2, 2)), "RGB", "a.tif")

    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
    def test_orientation_is_undone(self, tmp_path: Path, suffix: str, orientation: int) -> None:
        exif = Image.Exif()
        exif[274] = orientation
        stored = np.repeat(np.repeat(np.array([[0, 255], [80, 160]], np.uint8), 16, 0), 24, 1)
        path = save(tmp_path / f"a{suffix}", stored, exif=exif)
        array, info = read_image(path, "grey", MAX_PIXELS, "min_max")
        assert info["orientation"] == orientation
        assert array.shape == (info["height"], info["width"])
        assert array.shape == ((32, 48) if orientation < 5 else (48, 32))
        turned = {
            1: [[0, 255], [80, 160]],
            2: [[255, 0], [160, 80]],
            3: [[160, 80], [255, 0]],
            4: [[80, 160], [0, 255]],
            5: [[0, 80], [255, 160]],
            6: [[80, 0], [160, 255]],
            7: [[160, 255], [80, 0]],
            8: [[255, 160], [0, 80]],
        }[orientation]
        height, width = array.shape
        centres = array[height // 4 :: height // 2, width // 4 :: width // 2]
        assert np.abs(centres.astype(int) - turned).max() <= 4


class TestWideValues:
    def scaled(self, path: Path, rule: str = "min_max") -> tuple[list, str, list]:
        array, info = read_image(path, "grey", MAX_PIXELS, rule)
        assert np.array_equal(read(path, "rgb", rule)[..., 1], array)
        return array.tolist(), info["scaling"], info["range"]

    @pytest.mark.parametrize("suffix", [".png", ".tif"])
    def test_sixteen_bits(self, tmp_path: Path, suffix: str) -> None:
        values = np.array([[1000, 2000, 3000, 61000]], np.uint16)
        path = save(tmp_path / f"a{suffix}", values)
        assert self.scaled(path) == ([[0, 4, 9, 255]], "min_max", [1000, 61000])
        assert self.scaled(path, "full_range") == ([[4, 8, 12, 237]], "full_range", [0, 65535])

    def test_big_endian_and_white_is_zero(self, tmp_path: Path) -> None:
        values = np.array([[0, 65535, 1000]], np.uint16)
        big = save(tmp_path / "a.tif", Image.fromarray(values.astype(">u2")))
        assert self.scaled(big)[0] == [[0, 255, 4]]
        # Pillow writes black-is-zero only: turn the tag (number, type short, one value) over
        black_is_zero, white_is_zero = (struct.pack("<HHIHH", 262, 3, 1, v, 0) for v in (1, 0))
        content = encoded(values, "TIFF").replace(black_is_zero, white_is_zero)
        assert self.scaled(write(tmp_path / "b.tif", content))[0] == [[255, 0, 251]]

    def test_whole_numbers_of_32_bits(self, tmp_path: Path) -> None:
        values = np.array([[-100000, 0, 100000]], np.int32)
        path = save(tmp_path / "a.tif", values)
        expected = ([[0, 128, 255]], "min_max", [-100000, 100000])
        assert self.scaled(path) == self.scaled(path, "full_range") == expected

    def test_eight_bits_in_a_wide_file_are_kept(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.tif", np.array([[3, 90]], np.uint16))
        assert self.scaled(path) == ([[3, 90]], "kept", [0, 255])
        assert self.scaled(path, "full_range") == ([[0, 0]], "full_range", [0, 65535])

    def test_constant_image(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", np.full((1, 2), 5000, np.uint16))
        assert self.scaled(path) == ([[0, 0]], "min_max", [5000, 5000])

    def test_floating_point(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.tif", np.array([[0.25, 0.5, 0.75]], np.float32))
        assert self.scaled(path) == ([[0, 128, 255]], "min_max", [0.25, 0.75])
        for bad in (np.nan, np.inf):
            broken = save(tmp_path / "b.tif", np.array([[0.25, bad]], np.float32))
            assert reason(broken) == "non_finite_pixels"


def test_threads_and_forks_read_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", gradient(64, 64), compression="tiff_lzw")
    expected = read(path)
    found: list[bool] = []

    def read_often() -> None:
        found.extend(np.array_equal(read(path), expected) for _ in range(20))

    threads = [threading.Thread(target=read_often) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 80
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(read(path), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
