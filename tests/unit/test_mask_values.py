"""Which values of masks are target: judged over the whole dataset, or named."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from image_files import bomb_png, save, write
from PIL import Image

from nakt_dist.config import PackConfig
from nakt_dist.errors import ConfigurationError, DatasetError, UnusableSample
from nakt_dist.imaging.images import read_mask
from nakt_dist.imaging.mask_rule import MaskRule
from nakt_dist.imaging.mask_settings import MaskValues
from nakt_dist.imaging.mask_survey import meaning, survey_mask
from nakt_dist.imaging.mask_values import judge
from nakt_dist.sources import SourceRecord

SHAPE = (48, 64)
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]
DISC = np.hypot(ROWS - 20, COLUMNS - 30) < 12
HALF = COLUMNS < 32
BORDER = (np.hypot(ROWS - 20, COLUMNS - 30) < 14) & ~DISC
MANY = 10**6


def judged(
    *paths: Path, **settings: object
) -> tuple[MaskRule, dict[str, int], list[np.ndarray | str]]:
    """Judges masks together; returns the rule, what it tells, and each target or reason."""
    named = MaskValues(**settings)
    surveyed = [survey_mask(path, MANY, named.needs_colours) for path in paths]
    rule, told = judge(json.loads(json.dumps(surveyed)), named)
    read = []
    for path in paths:
        record = SourceRecord("x", path, (path,), "binary")
        try:
            read.append(read_mask(record, SHAPE, MANY, rule)[0] > 0)
        except UnusableSample as error:
            read.append(error.reason)
    return rule, told, read


def refusal(*paths: Path, **settings: object) -> str:
    with pytest.raises(DatasetError) as caught:
        judged(*paths, **settings)
    return str(caught.value)


def is_target(found: np.ndarray | str, target: np.ndarray = DISC) -> bool:
    return not isinstance(found, str) and bool((found == target).all())


def grey(path: Path, value: float, target: np.ndarray = DISC, dtype: type = np.uint8) -> Path:
    return save(path, np.where(target, value, 0).astype(dtype))


def min_is_white(path: Path, stored: np.ndarray) -> Path:
    """Writes a TIFF whose stored 0 is white; Pillow would turn the values while saving."""
    bits = stored.dtype.itemsize * 8
    tags = [
        (256, stored.shape[1]), (257, stored.shape[0]), (258, bits), (259, 1), (262, 0),
        (273, 8), (277, 1), (278, stored.shape[0]), (279, stored.nbytes),
        (339, 3 if stored.dtype.kind == "f" else 1),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return write(
        path, struct.pack("<2sHI", b"II", 42, 8 + stored.nbytes) + stored.tobytes() + directory
    )


@pytest.mark.parametrize(
    ("value", "dtype", "suffix"),
    [
        (1, np.uint8, "png"), (255, np.uint8, "png"), (7, np.uint8, "png"), (128, np.uint8, "png"),
        (1, np.uint16, "png"), (257, np.uint16, "png"), (1000, np.uint16, "png"),
        (4095, np.uint16, "tif"), (65535, np.uint16, "png"), (-1, np.int32, "tif"),
        (1000, np.float32, "tif"), (1, np.float32, "tif"), (0.5, np.float32, "tif"),
        (True, bool, "png"),
    ],
)  # fmt: skip
def test_one_value_beside_0_in_all_masks_is_the_target(tmp_path, value, dtype, suffix):
    paths = [grey(tmp_path / f"{n}.{suffix}", value, t, dtype) for n, t in enumerate((DISC, HALF))]
    paths.append(grey(tmp_path / f"empty.{suffix}", 0, DISC, dtype))
    _, told, read = judged(*paths)
    assert is_target(read[0])
    assert is_target(read[1], HALF)
    assert is_target(read[2], np.zeros(SHAPE, bool))
    shown = 255 if dtype is bool else value
    assert told == {f"masks whose target is {shown:g}": 2}


def test_masks_of_0_1_beside_masks_of_0_255_and_of_one_bit(tmp_path):
    paths = [grey(tmp_path / f"{value}.png", value) for value in (1, 255)]
    paths += [grey(tmp_path / "bit.png", True, dtype=bool)]
    assert all(map(is_target, judged(*paths)[2]))


def test_values_that_may_be_numbers_of_classes_are_refused(tmp_path):
    paths = [grey(tmp_path / f"{value}.png", value) for value in (1, 2, 3)]
    message = refusal(*paths)
    assert "mask_values_unclear: 2 of 3 masks" in message
    assert "0 and 2 in 1 (such as '2.png')" in message
    assert "mask_values.target nonzero" in message
    assert all(map(is_target, judged(*paths, target="nonzero")[2]))


@pytest.mark.parametrize(
    "levels",
    [
        np.where(DISC, 1, np.where(BORDER, 255, 0)),
        np.where(DISC, 255, np.where(BORDER, 128, 0)),
        np.where(DISC, 255, np.where(BORDER, 1, 0)),
        np.where(DISC, 170, np.where(HALF, 85, 255)),
        np.where(DISC, 2, 1),
        np.where(DISC, 255, 127),
        np.where((ROWS % 4 > 0) & (COLUMNS % 4 > 0), 1 + ROWS // 4 + 12 * (COLUMNS // 4), 0),
        np.where((ROWS % 3 > 0) & (COLUMNS % 3 > 0), 1 + ROWS // 3 + 17 * (COLUMNS // 3), 0),
        np.where(DISC, 255, (ROWS % 12 > 3) * (1 + ROWS // 12)),
        ROWS * 2 + COLUMNS,
    ],
    ids=[
        "void", "three_levels", "rim", "no_zero", "one_two", "void_and_white", "objects",
        "small_objects", "objects_and_void", "picture",
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_masks_of_several_levels_are_refused(tmp_path, levels, dtype):
    path = save(tmp_path / "mask.tif", levels.astype(dtype))
    message = refusal(path)
    assert "mask_values_unclear: 1 of 1" in message
    assert "'mask.tif'" in message


def test_a_void_border_that_is_named_is_background_and_counted(tmp_path):
    path = save(tmp_path / "m.png", np.where(DISC, 1, 255 * BORDER).astype(np.uint8))
    rule, _, read = judged(path, target=[1], void=[255])
    assert is_target(read[0])
    record = SourceRecord("x", path, (path,), "binary")
    counts = read_mask(record, SHAPE, MANY, rule)[1]
    assert counts == {"void": BORDER.sum(), "other": 0, "turned_apart": 0}
    counts = read_mask(record, SHAPE, MANY, judged(path, target=[1])[0])[1]
    assert counts["other"] == BORDER.sum()
    assert is_target(judged(path, target="nonzero", void=[255])[2][0])
    assert is_target(judged(path, target=[1, 255])[2][0], DISC | BORDER)
    assert is_target(judged(path, threshold=128)[2][0], BORDER)
    assert is_target(judged(path, target=[0])[2][0], ~(DISC | BORDER))


def test_a_named_value_that_no_mask_holds_is_refused(tmp_path):
    path = grey(tmp_path / "m.png", 255)
    assert "names 1, which no mask holds; found: 0, 255" in refusal(path, target=[1])
    full = grey(tmp_path / "full.png", True, DISC | ~DISC, bool)
    assert "names 255, which no mask holds; found: 1" in refusal(full, target=[255])


def test_a_threshold_that_no_mask_reaches_is_refused(tmp_path):
    paths = [grey(tmp_path / f"{value}.png", value) for value in (200, 255)]
    message = refusal(*paths, threshold=300)
    assert (
        "mask_values.threshold is 300, which no mask reaches; the highest value is 255" in message
    )
    assert is_target(judged(*paths, threshold=255)[2][1])


@pytest.mark.parametrize("target", [["#ff0000"], ["#ff0000", "#0000ff"]])
def test_a_colour_that_no_mask_holds_is_refused(tmp_path, target):
    names = {"white": (255, 255, 255), "green": (0, 255, 0), "dark_red": (128, 0, 0)}
    for name, colour in names.items():
        picture = np.where(DISC[..., None], np.array(colour, np.uint8), np.uint8(0))
        path = save(tmp_path / f"{name}.png", picture)
        message = refusal(path, target=target)
        assert f"names {', '.join(target)}, which no mask holds; found: " in message
    assert "#800000" in message
    levels = save(tmp_path / "grey.png", (ROWS * 2 + COLUMNS).astype(np.uint8))
    assert "no mask holds" in refusal(levels, target=target)
    indices = Image.fromarray(DISC.astype(np.uint8), "P")
    indices.putpalette([0, 0, 0, 0, 255, 0])
    assert "#00ff00" in refusal(save(tmp_path / "p.png", indices), target=target)
    red = save(tmp_path / "red.png", DISC[..., None] * np.array([255, 0, 0], np.uint8))
    assert is_target(judged(red, path, target=target)[2][0])


def test_settings_that_apply_to_no_mask_are_refused():
    with pytest.raises(ConfigurationError, match="no masks of which the values tell"):
        judge([], MaskValues(target=[1]))
    with pytest.raises(ConfigurationError, match="masks must be true"):
        PackConfig("busi", "a", "b", masks=False, mask_values=MaskValues(target=[1]))
    assert judge([], MaskValues()) == (MaskRule(), {})


def test_a_name_that_is_hidden_is_not_told(tmp_path):
    summary = survey_mask(grey(tmp_path / "patient.png", 2, DISC | HALF), MANY)
    other = survey_mask(grey(tmp_path / "x.png", 3), MANY)
    with pytest.raises(DatasetError) as caught:
        judge([{**summary, "name": ""}, {**other, "name": ""}], MaskValues())
    assert "0 and 2 in 1; 0 and 3 in 1." in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"target": []}, "empty list"),
        ({"target": "nonzer"}, "did you mean 'nonzero'"),
        ({"target": ["red"]}, "'red', expected whole numbers or colours such as '#ff0000'"),
        ({"target": [1], "void": [1]}, "both hold 1"),
        ({"target": [1], "threshold": 5}, "both set"),
        ({"void": [255]}, "without mask_values.target"),
        ({"threshold": float("nan")}, "expected a number"),
    ],
)
def test_settings_that_contradict_are_refused(settings, words):
    with pytest.raises(ConfigurationError, match=words):
        PackConfig("busi", "a", "b", mask_values=MaskValues(**settings))


class TestFewOddMasks:
    def test_are_set_aside_and_many_refused(self, tmp_path):
        paths = [grey(tmp_path / f"{n}.png", 255, np.roll(DISC, n, 1)) for n in range(20)]
        odd = [grey(tmp_path / f"odd{n}.png", 40 + n) for n in range(3)]
        for count in (1, 2):
            read = judged(*paths, *odd[:count])[2]
            assert read[20:] == ["mask_values_unclear"] * count
            assert is_target(read[0])
        assert "3 of 23 masks that are not empty" in refusal(*paths, *odd)

    def test_empty_masks_do_not_outvote_them(self, tmp_path):
        empty = [grey(tmp_path / f"{n}.png", 0) for n in range(30)]
        odd = [grey(tmp_path / f"odd{n}.png", 1 + n) for n in range(3)]
        assert "2 of 3 masks that are not empty" in refusal(*empty, *odd)

    def test_a_void_value_elsewhere_makes_masks_of_it_alone_odd(self, tmp_path):
        paths = [grey(tmp_path / f"{n}.png", 1, np.roll(DISC, n, 1)) for n in range(30)]
        void = grey(tmp_path / "void.png", 255)
        assert is_target(judged(*paths, void)[2][-1])
        both = save(tmp_path / "both.png", np.where(DISC, 1, 255 * BORDER).astype(np.uint8))
        assert judged(*paths, void, both)[2][-2:] == ["mask_values_unclear"] * 2

    def test_a_broken_file_is_no_odd_mask(self, tmp_path):
        good = grey(tmp_path / "good.png", 1)
        broken = [write(tmp_path / f"{n}.png", b"text") for n in range(5)]
        assert judged(good, *broken)[2][1:] == ["mask_not_an_image"] * 5

    def test_white_of_a_jpeg_that_is_253_in_a_few_masks_is_white(self, tmp_path):
        paths = [grey(tmp_path / f"{n}.png", 255, np.roll(DISC, n, 1)) for n in range(3)]
        paths += [grey(tmp_path / "w.png", 253), grey(tmp_path / "f.png", 253, DISC | ~DISC)]
        read = judged(*paths)[2]
        assert is_target(read[3])
        assert read[4].all()


class TestConstantMasks:
    def test_all_empty(self, tmp_path):
        paths = [grey(tmp_path / f"{n}.png", 0) for n in range(3)]
        assert not np.any(judged(*paths)[2])

    @pytest.mark.parametrize("value", [1, 255])
    def test_full_and_empty_ones(self, tmp_path, value):
        paths = [grey(tmp_path / f"{n}.png", value, np.full(SHAPE, n > 0)) for n in range(3)]
        assert [read.mean() for read in judged(*paths)[2]] == [0, 1, 1]

    def test_each_image_a_number_is_refused(self, tmp_path):
        paths = [grey(tmp_path / f"{n}.png", n, np.full(SHAPE, True)) for n in range(4)]
        assert "mask_values_unclear: 3 of 3" in refusal(*paths)

    def test_another_value_than_the_target_is_odd(self, tmp_path):
        paths = [grey(tmp_path / f"{n}.png", 255, np.roll(DISC, n, 1)) for n in range(3)]
        one = grey(tmp_path / "one.png", 1, np.full(SHAPE, True))
        assert judged(*paths, one)[2][-1] == "mask_values_unclear"


class TestNoiseAndBlur:
    @pytest.mark.parametrize("quality", [10, 20, 30, 50, 75, 90, 95, 98, 100])
    @pytest.mark.parametrize("suffix", ["jpg", "png"])
    @pytest.mark.parametrize("colour", [None, (255, 0, 0), (200, 30, 90)])
    def test_masks_that_were_jpeg(self, tmp_path, quality, suffix, colour):
        large = np.kron(DISC, np.ones((4, 4), bool))
        white = np.where(large, np.uint8(255), np.uint8(0))
        if colour:
            white = np.where(large[..., None], np.array(colour, np.uint8), np.uint8(0))
        path = save(tmp_path / "m.jpg", white, quality=quality)
        if suffix == "png":
            path = save(tmp_path / "m.png", Image.open(path))
        summary = survey_mask(path, MANY)
        assert meaning(summary)[:2] in [("soft", 255), ("pair", 255)]
        rule, told = judge([summary], MaskValues())
        assert list(told.values()) == [1]
        found = read_mask(SourceRecord("x", path, (path,), "binary"), large.shape, MANY, rule)[0]
        assert ((found > 0) != large).mean() < (0.01 if colour else 0.001)

    def test_an_empty_jpeg_is_empty(self, tmp_path):
        paths = [grey(tmp_path / f"{n}.jpg", 255, np.roll(DISC, n)) for n in range(3)]
        dark = save(tmp_path / "e.jpg", (ROWS % 3).astype(np.uint8))
        assert not judged(*paths, dark)[2][-1].any()
        assert "mask_values_unclear" in refusal(dark)

    @pytest.mark.parametrize(("high", "dtype"), [(255, np.uint8), (65535, np.uint16), (1, "f4")])
    def test_blurred_edges(self, tmp_path, high, dtype):
        large = np.kron(DISC, np.ones((5, 5), np.float32))
        soft = Image.fromarray(large).resize(
            SHAPE[::-1], Image.Resampling.BILINEAR, box=(3, 2, 318, 240)
        )
        values = np.asarray(soft) * high
        path = save(tmp_path / "m.tif", values.round().astype(dtype) if high > 1 else values)
        _, told, read = judged(path)
        assert is_target(read[0], np.asarray(soft) >= 0.5)
        assert told == {f"masks with noise or blur, target from {high / 2:g} of {high:g}": 1}

    @pytest.mark.parametrize("suffix", ["png", "jpg"])
    def test_a_white_target_painted_on_a_dark_picture_is_refused(self, tmp_path, suffix):
        rows, columns = np.mgrid[:240, :240]
        picture = 20 + 40 * np.sin(rows / 9) ** 2 + 8 * np.sin(columns / 2)
        picture[np.hypot(rows - 60, columns - 60) < 40] = 255
        path = save(tmp_path / f"m.{suffix}", picture.round().astype(np.uint8))
        assert "'m." in refusal(path)

    def test_a_probability_map_needs_a_threshold(self, tmp_path):
        values = np.clip(1.2 - np.hypot(ROWS - 20, COLUMNS - 30) / 20, 0, 1).astype(np.float32)
        path = save(tmp_path / "m.tif", values)
        assert "mask_values.threshold" in refusal(path)
        assert is_target(judged(path, threshold=0.5)[2][0], values >= 0.5)


class TestNamedValuesInNoise:
    """JPEG keeps no value exactly: a named end means its side of the middle."""

    LARGE = np.kron(DISC, np.ones((4, 4), bool))

    def masks(self, folder: Path, low: int, high: int, suffix: str, **settings) -> list[Path]:
        levels = np.where(self.LARGE, np.uint8(low), np.uint8(high))
        path = save(folder / "m.jpg", levels, **({"quality": 60} | settings))
        if suffix == "jpg":
            return [path]
        return [save(folder / f"m.{suffix}", Image.open(path))]

    def error(self, path: Path, expected: np.ndarray, **settings: object) -> float:
        named = MaskValues(**settings)
        rule, _ = judge([survey_mask(path, MANY, named.needs_colours)], named)
        record = SourceRecord("x", path, (path,), "binary")
        return ((read_mask(record, expected.shape, MANY, rule)[0] > 0) != expected).mean()

    @pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
    @pytest.mark.parametrize("quality", [20, 60, 95])
    def test_either_end_is_cut_at_the_middle(self, tmp_path, suffix, quality):
        (path,) = self.masks(tmp_path, 0, 255, suffix, quality=quality)
        rest = ~self.LARGE
        for settings, target in (
            ({"target": [0]}, self.LARGE), ({"target": [255]}, rest),
            ({"target": [0], "void": [255]}, self.LARGE), ({"target": "nonzero"}, rest),
            ({"target": ["#ffffff"]}, rest), ({"target": [0, 255]}, rest | True),
        ):  # fmt: skip
            assert self.error(path, target, **settings) < 0.001

    def test_what_no_noisy_mask_comes_near_is_refused(self, tmp_path):
        empty = save(tmp_path / "e.jpg", np.zeros(SHAPE, np.uint8))
        (path,) = self.masks(tmp_path, 0, 255, "jpg")
        assert "names 255, which no mask holds; found: 0" in refusal(empty, target=[255])
        assert "names 400, which no mask holds" in refusal(path, target=[400])
        assert "no mask holds" in refusal(path, target=["#ff0000"])
        assert "mask_values.threshold is 300" in refusal(path, threshold=300)

    def test_a_white_of_253_may_be_named_as_it_is_seen(self, tmp_path):
        (path,) = self.masks(tmp_path, 0, 253, "jpg")
        assert self.error(path, ~self.LARGE, target=[253]) < 0.001
        assert self.error(path, ~self.LARGE, target=[255]) < 0.001

    def test_full_and_empty_masks_beside_them(self, tmp_path):
        paths = self.masks(tmp_path, 0, 255, "jpg")
        full = save(tmp_path / "full.jpg", np.full(SHAPE, 254, np.uint8))
        empty = save(tmp_path / "dark.jpg", (ROWS % 3).astype(np.uint8))
        rule, _ = judge([survey_mask(p, MANY) for p in (*paths, full, empty)], MaskValues([0]))
        for path, share in ((full, 0), (empty, 1)):
            record = SourceRecord("x", path, (path,), "binary")
            assert (read_mask(record, SHAPE, MANY, rule)[0] > 0).mean() == share

    @pytest.mark.parametrize("settings", [{"target": [1]}, {"target": [0]}, {"target": "nonzero"}])
    def test_small_numbers_in_a_jpeg_are_refused_with_the_remedy(self, tmp_path, settings):
        levels = np.where(self.LARGE, np.uint8(1), np.uint8(0))
        levels[:20] = 2
        path = save(tmp_path / "m.jpg", levels, quality=90)
        assert "save the masks as PNG" in refusal(path)
        assert "save the masks as PNG" in refusal(path, **settings)
        exact = save(tmp_path / "m.png", levels)
        assert self.error(exact, levels == 1, target=[1]) == 0

    @pytest.mark.parametrize(
        "settings", [{"target": [128]}, {"target": [255]}, {"target": [255], "void": [128]}]
    )
    def test_levels_between_the_ends_of_a_jpeg_are_set_aside(self, tmp_path, settings):
        levels = np.where(self.LARGE, np.uint8(255), np.uint8(0))
        levels[:, :100] = 128
        path = save(tmp_path / "m.jpg", levels, quality=90)
        with pytest.raises(UnusableSample, match="save the masks as PNG") as caught:
            self.error(path, self.LARGE, **settings)
        assert caught.value.reason == "mask_values_unclear"
        assert "mask_values.threshold" in caught.value.detail
        threshold = self.error(path, levels > 190, threshold=190)
        assert threshold < 0.01

    def test_a_colour_in_a_jpeg_is_set_aside(self, tmp_path):
        colours = self.LARGE[..., None] * np.array([255, 0, 0], np.uint8)
        path = save(tmp_path / "m.jpg", colours, quality=95)
        with pytest.raises(UnusableSample, match="save the masks as PNG"):
            self.error(path, self.LARGE, target=["#ff0000"])
        assert self.error(path, ~self.LARGE, target=[0]) < 0.01

    def test_a_blurred_png_keeps_a_level_that_is_named_exactly(self, tmp_path):
        (path,) = self.masks(tmp_path, 0, 255, "png")
        values = np.asarray(Image.open(path))
        assert self.error(path, values == 254, target=[254]) == 0


class TestColours:
    def rgb(self, **areas: np.ndarray) -> np.ndarray:
        names = {"red": (255, 0, 0), "green": (0, 255, 0), "dark_red": (128, 0, 0)}
        picture = np.zeros((*SHAPE, 3), np.uint8)
        for name, area in areas.items():
            picture[area] = names[name]
        return picture

    @pytest.mark.parametrize("name", ["red", "green", "dark_red"])
    def test_one_colour_on_black_is_the_target(self, tmp_path, name):
        assert is_target(judged(save(tmp_path / "m.png", self.rgb(**{name: DISC})))[2][0])

    def test_several_colours_are_refused_unless_named(self, tmp_path):
        path = save(tmp_path / "m.png", self.rgb(red=DISC, green=BORDER))
        assert "#000000, #00ff00 and #ff0000 in 1" in refusal(path)
        assert is_target(judged(path, target=["#FF0000"])[2][0])
        assert is_target(judged(path, target=["#ff0000", "#00ff00"])[2][0], DISC | BORDER)
        assert is_target(judged(path, target="nonzero", void=["#00ff00"])[2][0])
        assert judged(path, target=[1])[2] == ["mask_values_unclear"]
        only = save(tmp_path / "only.png", self.rgb(red=DISC))
        assert is_target(judged(only, path, target=["#ff0000"])[2][0])

    def test_a_target_painted_on_the_picture_is_refused(self, tmp_path):
        picture = np.repeat((60 + 2 * COLUMNS).astype(np.uint8)[..., None], 3, 2)
        picture[DISC] = (255, 0, 0)
        assert "colours in 1 (such as 'm.png')" in refusal(save(tmp_path / "m.png", picture))

    def test_a_colour_on_white_is_refused(self, tmp_path):
        picture = np.where(DISC[..., None], np.array([255, 0, 0], np.uint8), np.uint8(255))
        assert "#ff0000 and #ffffff" in refusal(save(tmp_path / "m.png", picture))

    def palette(self, path: Path, indices: np.ndarray, *colours: tuple, **settings) -> Path:
        image = Image.fromarray(indices.astype(np.uint8), "P")
        image.putpalette([value for colour in colours for value in colour])
        return save(path, image, **settings)

    def test_palettes(self, tmp_path):
        black, red, green, white = (0, 0, 0), (128, 0, 0), (0, 128, 0), (255, 255, 255)
        one = self.palette(tmp_path / "one.png", DISC, black, red)
        assert judged(one)[1] == {"masks whose target is palette index 1": 1}
        assert is_target(judged(one)[2][0])
        swapped = self.palette(tmp_path / "swapped.png", ~DISC, red, black)
        assert is_target(judged(swapped)[2][0])
        greys = self.palette(tmp_path / "greys.png", ~DISC, white, black)
        assert is_target(judged(greys)[2][0])
        all_black = self.palette(tmp_path / "black.png", DISC, black, black)
        assert is_target(judged(all_black)[2][0])
        clear = self.palette(tmp_path / "clear.png", DISC, black, red, transparency=0)
        assert is_target(judged(clear)[2][0])
        unused = self.palette(tmp_path / "unused.png", DISC, black, red, green, transparency=2)
        assert judged(unused)[1] == {"masks whose target is palette index 1": 1}
        several = self.palette(tmp_path / "v.png", DISC + 2 * BORDER, black, red, green)
        assert "palette indices 0, 1 and 2" in refusal(several)
        assert is_target(judged(several, target=[1])[2][0])
        assert is_target(judged(several, target=["#800000"])[2][0])
        assert is_target(judged(greys, target=[255])[2][0])


class TestTransparency:
    def rgba(self, path: Path, colours: np.ndarray, alpha: np.ndarray) -> Path:
        colours = np.broadcast_to(colours, (*SHAPE, 3)).astype(np.uint8)
        return save(path, np.dstack([colours, alpha.astype(np.uint8)]))

    @pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0)])
    def test_it_tells_where_the_colour_does_not_vary(self, tmp_path, colour):
        path = self.rgba(tmp_path / "m.png", colour, DISC * 255)
        empty = self.rgba(tmp_path / "e.png", colour, DISC * 0)
        _, told, read = judged(path, empty)
        assert is_target(read[0])
        assert not read[1].any()
        assert told["masks of which the transparency tells; what is opaque is target"] == 1

    def test_masks_that_do_not_use_it_are_told_beside_those_that_cannot_be_read(self, tmp_path):
        carried = [self.rgba(tmp_path / f"{n}.png", 0, DISC * 255) for n in range(2)]
        shown = [
            self.rgba(tmp_path / f"s{n}.png", np.where(DISC[..., None], 200 + n, 0), DISC * 0 + 255)
            for n in range(4)
        ]
        empty = grey(tmp_path / "e.png", 0)
        unclear = self.rgba(
            tmp_path / "u.png", np.where(DISC[..., None], 0, 255), np.array(DISC) * 255
        )
        message = refusal(*shown, *carried, empty, unclear)
        assert "masks that are not empty" in message
        assert "(1 more are empty) (1 more cannot be read at all)" in message

    def test_it_does_not_where_the_colour_does(self, tmp_path):
        colours = np.where(DISC[..., None], 255, 0)
        assert is_target(judged(self.rgba(tmp_path / "o.png", colours, DISC * 0 + 255))[2][0])
        assert is_target(judged(self.rgba(tmp_path / "h.png", colours, DISC * 0 + 9))[2][0])
        assert is_target(judged(self.rgba(tmp_path / "t.png", colours, DISC * 255))[2][0])
        on_white = np.where(DISC[..., None], (255, 0, 0), 255)
        assert is_target(judged(self.rgba(tmp_path / "w.png", on_white, DISC * 255))[2][0])

    def test_a_contradiction_is_set_aside(self, tmp_path):
        path = self.rgba(tmp_path / "m.png", np.where(DISC[..., None], 0, 255), DISC * 255)
        assert survey_mask(path, MANY)["problem"][0] == "mask_values_unclear"
        assert judged(path)[2] == ["mask_values_unclear"]


class TestMinIsWhite:
    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_what_is_shown_white_is_target(self, tmp_path, dtype):
        top = np.iinfo(dtype).max
        path = min_is_white(tmp_path / "m.tif", np.where(DISC, 0, top).astype(dtype))
        _, told, read = judged(path)
        assert is_target(read[0])
        assert told["MinIsWhite TIFF masks; what a viewer shows white is target"] == 1

    def test_other_ranges_are_unclear(self, tmp_path):
        path = min_is_white(tmp_path / "m.tif", np.where(DISC, 0, 255).astype(np.uint16))
        assert "65280 and 65535" in refusal(path)
        path = min_is_white(tmp_path / "i.tif", np.where(DISC, 0, 255).astype(np.float32))
        assert survey_mask(path, MANY)["problem"][0] == "mask_values_unclear"


class TestOrientation:
    def turned(self, path: Path, mask: np.ndarray, orientation: int) -> Path:
        exif = Image.Exif()
        exif[274] = orientation
        return save(path, mask.astype(np.uint8) * 255, exif=exif)

    def read(self, path: Path, size, turn: int, **settings):
        rule, _ = judge([survey_mask(path, MANY)], MaskValues(**settings))
        return read_mask(SourceRecord("x", path, (path,), "binary"), size, MANY, rule, turn)

    def test_a_square_mask_that_is_not_turned_is_counted(self, tmp_path):
        square = DISC[:, :48]
        path = grey(tmp_path / "m.png", 255, square)
        mask, counts = self.read(path, square.shape, turn=6)
        assert counts["turned_apart"] == 1
        assert ((mask > 0) == square).all()
        mask, counts = self.read(path, square.shape, turn=6, orientation="image")
        assert counts["turned_apart"] == 0
        assert ((mask > 0) == np.rot90(square, -1)).all()
        assert self.read(path, square.shape, turn=1)[1]["turned_apart"] == 0
        own = self.turned(tmp_path / "own.png", square, 6)
        assert self.read(own, square.shape, turn=6)[1]["turned_apart"] == 0
        assert self.read(own, square.shape, turn=1)[1]["turned_apart"] == 1
        same = self.read(own, square.shape, turn=6, orientation="image")[0]
        assert ((same > 0) == np.rot90(square, -1)).all()

    def test_half_a_turn_shows_in_no_shape(self, tmp_path):
        path = grey(tmp_path / "m.png", 255)
        assert self.read(path, SHAPE, turn=3)[1]["turned_apart"] == 1
        mask = self.read(path, SHAPE, turn=3, orientation="image")[0]
        assert ((mask > 0) == DISC[::-1, ::-1]).all()

    def test_sizes_that_differ_for_that_reason_name_exif(self, tmp_path):
        path = grey(tmp_path / "m.png", 255)
        with pytest.raises(UnusableSample, match="EXIF turns the image") as caught:
            self.read(path, SHAPE[::-1], turn=6)
        assert caught.value.reason == "mask_size_differs"
        mask = self.read(path, SHAPE[::-1], turn=6, orientation="image")[0]
        assert ((mask > 0) == np.rot90(DISC, -1)).all()
        assert self.read(path, SHAPE, turn=6)[1]["turned_apart"] == 0  # drawn on the turned image
        with pytest.raises(UnusableSample) as caught:
            self.read(path, (48, 48), turn=6)
        assert "EXIF" not in caught.value.detail


def test_a_hostile_mask_has_a_problem_and_no_counts(tmp_path):
    contents = {"text": b"no", "empty": b"", "bomb": bomb_png()}
    reasons = {"text": "not_an_image", "empty": "empty_file", "bomb": "too_many_pixels"}
    for name, content in contents.items():
        summary = survey_mask(write(tmp_path / name, content), MANY)
        assert summary["problem"][0] == f"mask_{reasons[name]}"
        assert set(summary) == {"name", "problem"}
    assert survey_mask(tmp_path / "absent", MANY)["problem"][0] == "mask_unreadable"
    whole = io.BytesIO()
    Image.fromarray(DISC).save(whole, "PNG")
    cut = write(tmp_path / "cut", whole.getvalue()[:70])
    assert survey_mask(cut, MANY)["problem"][0] == "mask_truncated_image"
