"""What ``nakt pack`` says of tables and patients, and keeps to itself when it de-identifies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nakt_dist.config import ImageConfig, PackConfig, SplitConfig
from nakt_dist.runtime.key_file import make_key
from nakt_dist.shards.manifest import ShardManifest
from nakt_dist.stages import pack
from tests.unit.image_files import gradient, save

NAME = "Miller-Anna"


@pytest.fixture
def config(tmp_path: Path) -> PackConfig:
    """Of a table with patients, folders and findings written in several ways."""
    source = tmp_path / "clinic"
    source.mkdir()
    rows = ["filename;patient;finding"]
    for number, patient in enumerate([f"{NAME}01", f"{NAME.upper()}1", "p2", "p3"]):
        save(source / f"{number}.png", gradient(16 + number, 16))
        finding = ("Edema", "edema", "Mass", "No finding")[number]
        rows.append(f"C:\\{NAME}\\{number}.PNG;{patient};{finding}")
    (source / "metadata.csv").write_text("\n".join(rows))
    return PackConfig(
        layout="images_csv",
        source=str(source),
        output=str(tmp_path / "packed"),
        layout_options={
            "patient_column": "patient",
            "findings_column": "finding",
            "finding_names": ["Edema", "Mass", "No Finding"],
        },
        image=ImageConfig(height=16, width=16),
        workers=1,
    )


def test_examples_are_told(config: PackConfig, capfd: pytest.CaptureFixture[str]) -> None:
    pack.run(config)
    printed = "".join(capfd.readouterr())
    assert "tables whose columns are separated by ';': 1" in printed
    assert f"without the folders before them (such as 'C:/{NAME}/'): 4" in printed
    assert f"leading zeros (such as '{NAME.upper()}1' and '{NAME}01'): 1" in printed
    assert "united from several spellings (such as 'Edema', also written 'edema'): 1" in printed


def test_de_identified_counts_are_told_without_examples(
    config: PackConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_key(tmp_path / "key")
    pack.run(replace(config, deidentify=True, deidentify_key=str(tmp_path / "key")))
    printed = "".join(capfd.readouterr())
    assert "differ only in letter case, blanks or leading zeros: 1" in printed
    found = ShardManifest.read(tmp_path / "packed").found
    assert NAME.casefold() not in f"{printed} {dict(found)}".casefold()


@pytest.mark.parametrize("official", [True, False])
def test_splits_that_folders_tell_are_used_or_said_not_to_be(
    tmp_path: Path, official: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    for part in ("train", "val", "test"):
        for folder in ("images", "masks"):
            (tmp_path / "set" / part / folder).mkdir(parents=True)
            pixels = (gradient(16, 16) > 60) * np.uint8(255)
            save(tmp_path / "set" / part / folder / f"{part}.png", pixels)
    pack.run(
        PackConfig(
            layout="image_folder",
            source=str(tmp_path / "set"),
            output=str(tmp_path / "packed"),
            image=ImageConfig(height=16, width=16),
            splits=SplitConfig(official=official),
            workers=1,
        )
    )
    printed = "".join(capfd.readouterr())
    assert "masks guessed from folders called 'masks': 3" in printed
    told = "official splits (test 1, train 1, validation 1), which are not used"
    assert (told in printed) is not official
    if official:
        splits = ShardManifest.read(tmp_path / "packed").splits
        assert splits == {"test": 1, "train": 1, "validation": 1}
