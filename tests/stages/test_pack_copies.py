"""``nakt pack`` knows pictures that are there several times, and pictures of nothing."""

from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nakt_dist.config import ImageConfig, PackConfig, SplitConfig
from nakt_dist.records.run_record import RunRecord
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import pack
from tests.datasets import make_blob

HALVES = SplitConfig(fractions={"train": 0.5, "test": 0.5})
COPIES = "images identical to another"
APART = "of these with a copy in another split"


def pack_small(source: Path, output: Path, **settings: Any) -> RunRecord:
    defaults = {
        "layout": "image_folder",
        "splits": HALVES,
        "image": ImageConfig(height=32, width=32),
        "workers": 1,
        "samples_per_shard": 7,
    }
    return pack.run(PackConfig(source=str(source), output=str(output), **(defaults | settings)))


def write_pictures(folder: Path, copies: int, singles: int) -> Path:
    """Writes pairs of equal pictures ``cNN_a`` and ``cNN_b``, and ``sNN`` that are alone."""
    folder.mkdir(parents=True)
    for number in range(copies + singles):
        image = Image.fromarray(make_blob(number, 40, 40)[0])
        if number < copies:
            image.save(folder / f"c{number:02d}_a.png")
            # the same pixels in other bytes: colour, format and compression differ
            image.convert("RGB").save(folder / f"c{number:02d}_b.bmp")
        else:
            image.save(folder / f"s{number:02d}.png", compress_level=number % 9)
    return folder


def splits_of_names(output: Path) -> dict[str, str]:
    index = IndexedShards(output).index
    names = (source.partition(".")[0] for source in index["source"].to_pylist())
    return dict(zip(names, index["split"].to_pylist(), strict=True))


def test_copies_are_kept_in_one_split_and_counted(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "source", copies=12, singles=6)
    record = pack_small(source, tmp_path / "out")
    split_of = splits_of_names(tmp_path / "out")
    assert all(split_of[f"c{n:02d}_a"] == split_of[f"c{n:02d}_b"] for n in range(12))
    assert Counter(split_of.values()) == {"train": 15, "test": 15}
    assert record.details["found"] == {COPIES: 24}


def test_copies_may_be_divided_by_name_of_the_setting(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = write_pictures(tmp_path / "source", copies=12, singles=6)
    splits = SplitConfig(fractions={"train": 0.5, "test": 0.5}, identical_together=False)
    record = pack_small(source, tmp_path / "out", splits=splits)
    split_of = splits_of_names(tmp_path / "out")
    apart = sum(split_of[f"c{n:02d}_a"] != split_of[f"c{n:02d}_b"] for n in range(12))
    assert 0 < 2 * apart == record.details["found"][APART]
    assert f"WARNING: {2 * apart} images have a copy in another split" in capsys.readouterr().err


def test_copies_join_their_patients(tmp_path: Path) -> None:
    """A picture of two patients is one patient's under two names, or nobody knows whose."""
    source = tmp_path / "source"
    source.mkdir()
    for patient in range(20):
        for visit in range(2):
            # the second visit of an even patient is the first of the next one
            number = 2 * patient + visit + (patient % 2 == 0 and visit == 1)
            image = Image.fromarray(make_blob(number, 40, 40)[0])
            image.save(source / f"p{patient:02d}_{visit}.png")
    options = {"patient_regex": "(?P<patient>p[0-9]+)_"}
    record = pack_small(source, tmp_path / "out", layout_options=options)
    splits = defaultdict(set)
    for name, split in splits_of_names(tmp_path / "out").items():
        splits[int(name[1:3]) // 2].add(split)
    assert record.details["found"][COPIES] == 20
    assert all(len(found) == 1 for found in splits.values())
    assert len(set.union(*splits.values())) == 2


def test_copies_in_official_splits_are_said_and_not_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "source"
    for folder in ("train", "test"):
        (source / folder).mkdir(parents=True)
        for number in range(4):
            picture = number if number < 2 else number + 10 * (folder == "test")
            Image.fromarray(make_blob(picture, 40, 40)[0]).save(source / folder / f"{number}.png")
    record = pack_small(source, tmp_path / "out", splits=SplitConfig(official=True))
    assert record.details["splits"] == {"test": 4, "train": 4}
    assert {COPIES: 4, APART: 4}.items() <= record.details["found"].items()
    assert "WARNING: 4 images have a copy in another split" in capsys.readouterr().err


def test_copies_of_another_class_are_counted(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for number, folder in enumerate(("benign", "malignant", "benign", "malignant")):
        (source / folder).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(make_blob(number // 2 if number < 2 else number, 40, 40)[0])
        image.save(source / folder / f"{number}.png")
    record = pack_small(source, tmp_path / "out", layout_options={"class_from_folder": True})
    words = "of these with a copy of another class or other findings"
    assert record.details["found"] == {COPIES: 2, words: 2}


def test_pictures_of_one_value_are_counted_and_are_no_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = write_pictures(tmp_path / "source", copies=0, singles=4)
    for number, value in enumerate((0, 0, 255, 7)):
        Image.new("L", (40, 40), value).save(source / f"flat{number}.png")
    clear = np.zeros((40, 40, 4), np.uint8)
    clear[..., :3] = np.random.default_rng(0).integers(0, 255, (40, 40, 3))
    Image.fromarray(clear).save(source / "clear.png")  # all of it transparent
    record = pack_small(source, tmp_path / "out")
    assert record.details["found"] == {"pictures of one value everywhere": 5}
    assert "pictures of one value everywhere: 5" in capsys.readouterr().err
    assert IndexedShards(tmp_path / "out").index["pixels"].null_count == 5


def test_a_picture_has_one_number_whatever_size_fit_colour_and_encoding_it_is_packed_in(
    tmp_path: Path,
) -> None:
    source = write_pictures(tmp_path / "source", copies=0, singles=5)
    numbers = []
    for number, image in enumerate(
        (
            ImageConfig(height=32, width=32),
            ImageConfig(height=16, width=24, fit="pad", encoding="png"),
            ImageConfig(height=20, width=20, fit="centre_crop", colour="rgb"),
        )
    ):
        pack_small(source, tmp_path / str(number), image=image)
        index = IndexedShards(tmp_path / str(number)).index
        names = index["source"].to_pylist()
        numbers.append(dict(zip(names, index["pixels"].to_pylist(), strict=True)))
    assert numbers[0] == numbers[1] == numbers[2]
    assert len(set(numbers[0].values())) == 5


def test_a_split_that_gets_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = write_pictures(tmp_path / "source", copies=0, singles=3)
    splits = SplitConfig(fractions={"train": 0.9, "validation": 0.05, "test": 0.05})
    pack_small(source, tmp_path / "out", splits=splits)
    printed = capsys.readouterr().err
    assert "WARNING: the split 'validation' was asked for and got no image" in printed
    assert "WARNING: the split 'test' was asked for and got no image" in printed


def test_shares_are_those_of_usable_rows(tmp_path: Path) -> None:
    """Of a table of 400 images 40 are on the disk: these are divided as asked."""
    source = write_pictures(tmp_path / "source", copies=0, singles=40)
    lines = ["filename,patient"] + [
        f"{f's{n:02d}' if n < 40 else f'absent{n}'}.png,p{n}" for n in range(400)
    ]
    (source / "metadata.csv").write_text("\n".join(lines))
    options = {"patient_column": "patient"}
    fractions = {"train": 0.8, "validation": 0.1, "test": 0.1}
    record = pack_small(
        source, tmp_path / "out", layout="images_csv", layout_options=options,
        splits=SplitConfig(fractions=fractions),
    )  # fmt: skip
    assert record.details["splits"] == {"train": 32, "validation": 4, "test": 4}
    assert record.counts["rejected"] == 360
    chosen = pack_small(
        source, tmp_path / "some", layout="images_csv", layout_options=options,
        splits=SplitConfig(fractions=fractions), count=20,
    )  # fmt: skip
    assert chosen.counts["packed"] == 20
    whole = splits_of_names(tmp_path / "out")
    assert splits_of_names(tmp_path / "some").items() <= whole.items()


def test_a_patient_spelt_apart_over_official_splits_is_warned_of(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "source"
    for folder, patient in (("train", "p01"), ("train", "p02"), ("test", "P1"), ("test", "p03")):
        (source / folder).mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(make_blob(ord(patient[-1]) + len(folder), 40, 40)[0])
        image.save(source / folder / f"{patient}_x.png")
    options = {"patient_regex": "/(?P<patient>[pP][0-9]+)_"}
    record = pack_small(
        source, tmp_path / "out", layout_options=options, splits=SplitConfig(official=True)
    )
    assert record.counts["packed"] == 4
    printed = capsys.readouterr().err
    assert "WARNING: 1 patients seem to lie in two of the dataset's own splits" in printed
    assert "4 patients, none of them in two splits as they are spelt" in printed
    divided = pack_small(source, tmp_path / "again", layout_options=options)
    split_of = splits_of_names(tmp_path / "again")
    assert split_of["train/p01_x"] == split_of["test/P1_x"]
    assert divided.counts["packed"] == 4
    assert "seem to lie in two" not in capsys.readouterr().err


def test_a_part_of_a_set_with_copies_says_that_its_splits_are_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = write_pictures(tmp_path / "source", copies=6, singles=6)
    pack_small(source, tmp_path / "out", count=17)
    assert "WARNING: copies are known among the packed images alone" in capsys.readouterr().err
