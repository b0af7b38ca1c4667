"""``nakt inspect`` finds copies and look-alikes, within a dataset and in others."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nakt_dist.config import ImageConfig, InspectConfig, PackConfig, SplitConfig
from nakt_dist.errors import ConfigurationError
from nakt_dist.evaluation.near_duplicates import LARGEST_DISTANCE, near_pairs
from nakt_dist.stages import inspect, pack
from tests.datasets import make_packed_dataset, make_pseudo_labels


def picture(number: int, side: int = 96) -> Image.Image:
    """A cloudy picture: low frequencies as a scan has, noise on top."""
    random = np.random.default_rng(number)
    clouds = Image.fromarray(random.integers(0, 255, (12, 12)).astype(np.uint8))
    smooth = np.asarray(clouds.resize((side, side), Image.Resampling.BICUBIC), float)
    return Image.fromarray(np.clip(smooth + random.normal(0, 3, (side, side)), 0, 255).astype("u1"))


def pack_folder(source: Path, output: Path, **settings) -> Path:
    image = ImageConfig(**{"height": 64, "width": 64, **settings.pop("image", {})})
    splits = SplitConfig(fractions={"train": 0.5, "test": 0.5}, identical_together=False)
    pack.run(
        PackConfig(
            "image_folder", str(source), str(output), image=image, splits=splits, workers=1,
            **settings,
        )
    )  # fmt: skip
    return output


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    for number in range(20):
        picture(number).save(source / f"{number:02d}.png")
    picture(3).save(source / "copy_of_03.bmp")
    for number in (5, 6):  # shrunk and compressed
        small = picture(number).resize((70, 70), Image.Resampling.LANCZOS)
        small.save(source / f"small_{number:02d}.jpg", quality=60)
    return pack_folder(source, tmp_path / "dataset", name="first")


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "copies.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_identical_pictures_are_counted_without_decoding(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    inspect.run(InspectConfig(str(dataset), output=str(tmp_path / "out")))
    assert "images identical to another: 2 of 23" in capsys.readouterr().out
    (row,) = rows_of(tmp_path / "out")
    assert {row["key"], row["other_key"]} == {"03", "copy_of_03"} and row["distance"] == "0"
    assert not (tmp_path / "out" / "look_alike.png").exists()


def test_near_duplicates_are_found_on_request(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = InspectConfig(str(dataset), output=str(tmp_path / "out"), near_duplicates=True)
    inspect.run(config)
    printed = capsys.readouterr().out
    assert "images that look like another: 4 of 23; pairs in two splits:" in printed
    pairs = {frozenset((row["key"], row["other_key"])) for row in rows_of(tmp_path / "out")}
    assert pairs == {
        frozenset(p) for p in (("03", "copy_of_03"), ("05", "small_05"), ("06", "small_06"))
    }
    with Image.open(tmp_path / "out" / "look_alike.png") as sheet:
        assert sheet.width > 100


def test_images_are_looked_for_in_other_datasets(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "others"
    source.mkdir()
    for number in (2, 7, 40):
        picture(number).save(source / f"renamed{number}.png")
    picture(9).resize((80, 80)).save(source / "other_size.png")
    form = {"height": 48, "width": 56, "fit": "pad"}
    other = pack_folder(source, tmp_path / "other", name="second", image=form)
    inspect.run(InspectConfig(str(dataset), against=[str(other)], near_duplicates=True))
    printed = capsys.readouterr().out
    assert "images identical to another in second: 2 of 23; " in printed
    against = [str(make_packed_dataset(tmp_path))]
    inspect.run(InspectConfig(str(dataset), against=against, near_duplicates=True))
    printed = capsys.readouterr().out
    assert "images identical to another in squares: 0 of 23" in printed
    assert "images that look like another in squares: 0 of 23" in printed


def test_pairs_are_those_within_the_distance_whatever_the_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nakt_dist.evaluation.near_duplicates._BLOCK", 7)
    random = np.random.default_rng(0)
    signs = random.choice([-1, 1], (40, 255)).astype(np.float32)
    signs[30] = signs[4]
    signs[30, :LARGEST_DISTANCE] *= -1
    signs[31] = signs[5]
    signs[31, : LARGEST_DISTANCE + 1] *= -1
    assert list(near_pairs(signs)) == [(LARGEST_DISTANCE, 4, 30)]
    assert (0, 4, 4) in near_pairs(signs, signs)
    assert (LARGEST_DISTANCE, 30, 4) in near_pairs(signs, signs)
    signs[:2] = 0  # pictures of one value
    assert list(near_pairs(signs)) == [(LARGEST_DISTANCE, 4, 30)]


def test_settings_of_datasets_are_refused_for_pseudo_labels(tmp_path: Path) -> None:
    pseudo = make_pseudo_labels(tmp_path, make_packed_dataset(tmp_path))
    with pytest.raises(ConfigurationError, match="near_duplicates"):
        inspect.run(InspectConfig(str(pseudo), near_duplicates=True))


@pytest.mark.realdata
def test_the_same_radiographs_in_two_sizes_are_found(real_data: Path, tmp_path: Path) -> None:
    folders = []
    for name in ("nih320", "nih_pneumonia"):
        config = PackConfig(
            "chestxray14", str(real_data / name), str(tmp_path / name), name=name,
            image=ImageConfig(height=64, width=64), workers=2,
        )  # fmt: skip
        pack.run(config)
        folders.append(str(tmp_path / name))
    output = tmp_path / "out"
    first, other = folders
    inspect.run(InspectConfig(first, output=str(output), near_duplicates=True, against=[other]))
    shared = [row for row in rows_of(output) if row["other_dataset"] == "nih_pneumonia"]
    assert len(shared) == 14 and all(row["key"] == row["other_key"] for row in shared)
