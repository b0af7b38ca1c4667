"""``nakt verify``: any damage is found and named, and only what is damaged is rebuilt."""

import os
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image

from nakt_dist.cli import main
from nakt_dist.config import VerifyConfig
from nakt_dist.errors import DatasetError
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.shards.verify import verify_folder
from nakt_dist.stages import verify
from tests.datasets import make_packed_dataset, make_pseudo_labels
from tests.recipes import file_hashes

TABLES = ("index.parquet", "rejected.parquet")


def flip_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve samples in JPEG, whose damage a decoder does not notice, and one rejected input."""
    source = make_packed_dataset(tmp_path, encoding="jpg")
    (tmp_path / "squares-published" / "image_100.png").write_bytes(b"")
    shutil.rmtree(source)
    return Path(_pack_again(tmp_path))


def _pack_again(tmp_path: Path) -> str:
    words = {
        "layout": "image_folder", "name": "squares", "workers": "1", "samples_per_shard": "4",
        "source": str(tmp_path / "squares-published"), "output": str(tmp_path / "squares"),
        "image.height": "32", "image.width": "32",
    }  # fmt: skip
    assert main(["pack", *(f"--{name}={value}" for name, value in words.items())]) == 0
    return words["output"]


def image_of(folder: Path, number: int) -> tuple[Path, str, int]:
    """Where a sample's image lies: the shard, the key, a position inside the image."""
    images = IndexedShards(folder)
    row = images.index.to_pylist()[number]
    shard = folder / images.manifest.shards[row["shard"]].name
    return shard, row["key"], row["image_offset"] + row["image_size"] // 2


def test_a_whole_dataset_passes(folder: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["verify", str(folder)]) == 0
    assert "is whole: 12 samples" in capsys.readouterr().err


def test_one_flipped_byte_is_found_and_shard_and_key_are_named(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    shard, key, position = image_of(folder, 5)
    flip_byte(shard, position)

    assert main(["verify", str(folder)]) == 1

    printed = capsys.readouterr().err
    assert f"damaged: {shard.name}, key {key}: " in printed
    assert f"nakt: error: {folder}: 1 damaged" in printed


def test_a_flipped_byte_anywhere_is_found_in_the_right_file(folder: Path) -> None:
    generator = random.Random(0)
    for path in sorted(folder.glob("*.tar")) + [folder / name for name in TABLES]:
        content = path.read_bytes()
        # Heads and ends hold what a reader trusts most: offsets, sizes, lengths.
        ends = [*range(0, 8), *range(len(content) - 8, len(content))]
        for position in {*ends, *generator.sample(range(len(content)), 10)}:
            flip_byte(path, position)
            damages = list(verify_folder(folder))
            assert path.name in {damage.file for damage in damages}, (path.name, position)
            path.write_bytes(content)
    assert not list(verify_folder(folder))


@pytest.mark.parametrize("name", ["train-000000.tar", *TABLES])
@pytest.mark.parametrize("damage", ["absent", "truncated", "empty"])
def test_a_lost_or_cut_file_is_named_and_rebuilt(folder: Path, name: str, damage: str) -> None:
    before = file_hashes(folder)
    path = folder / name
    if damage == "absent":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size // 2)
    assert name in {each.file for each in verify_folder(folder)}

    record = verify.run(VerifyConfig(folder=str(folder), repair=True, workers=1))

    assert name in record.details["repaired"]
    assert file_hashes(folder) == before


def test_repair_rebuilds_only_the_damaged_shard(folder: Path) -> None:
    before = file_hashes(folder)
    shard, _, position = image_of(folder, 5)
    flip_byte(shard, position)
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}

    record = verify.run(VerifyConfig(folder=str(folder), repair=True, workers=1))

    assert record.details["repaired"] == [shard.name]
    assert file_hashes(folder) == before
    changed = {path for path in folder.iterdir() if times.get(path) != path.stat().st_mtime_ns}
    assert changed == {shard}
    assert main(["verify", str(folder)]) == 0


def test_damage_in_several_files_is_repaired_in_one_go(folder: Path) -> None:
    before = file_hashes(folder)
    flip_byte(folder / "index.parquet", 100)
    flip_byte(folder / "train-000001.tar", 100)
    (folder / "rejected.parquet").unlink()

    verify.run(VerifyConfig(folder=str(folder), repair=True, workers=1))

    assert file_hashes(folder) == before


def test_repair_removes_a_link_in_the_place_of_its_own_folder_and_not_what_it_points_to(
    folder: Path, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("theirs")
    before = file_hashes(folder)
    (folder / ".repair-x").symlink_to(victim)
    (folder / ".repair-y").write_text("a file")
    shard, _, position = image_of(folder, 5)
    flip_byte(shard, position)

    verify.run(VerifyConfig(folder=str(folder), repair=True, workers=1))

    assert (victim / "file").read_text() == "theirs"
    assert file_hashes(folder) == before


def test_a_folder_in_the_place_of_a_shard_is_named_before_anything_is_rebuilt(folder: Path) -> None:
    first, *_, last = sorted(folder.glob("*.tar"))
    flip_byte(first, 600)
    damaged = first.read_bytes()
    last.unlink()
    last.mkdir()
    with pytest.raises(DatasetError, match=f"{last.name} is a folder where a file belongs"):
        verify.run(VerifyConfig(folder=str(folder), repair=True, workers=1))
    assert first.read_bytes() == damaged and not (folder / ".lock").exists()

    last.rmdir()
    verify.run(VerifyConfig(folder=str(folder), repair=True, workers=1))


def test_repair_finds_a_source_that_has_moved(folder: Path, tmp_path: Path) -> None:
    before = file_hashes(folder)
    (tmp_path / "squares-published").rename(tmp_path / "moved")
    flip_byte(folder / "train-000000.tar", 600)

    assert main(["verify", str(folder), "--repair=true"]) == 1
    assert main(["verify", str(folder), "--repair=true", f"--source={tmp_path / 'moved'}"]) == 0
    assert file_hashes(folder) == before


def test_a_dataset_that_was_moved_into_its_source_can_be_repaired(
    folder: Path, tmp_path: Path
) -> None:
    before = file_hashes(folder)
    inside = folder.rename(tmp_path / "squares-published" / "packed")
    flip_byte(inside / "train-000000.tar", 600)

    verify.run(VerifyConfig(folder=str(inside), repair=True, workers=1))

    assert file_hashes(inside) == before


@pytest.mark.parametrize("same_size", [True, False])
def test_repair_refuses_a_source_that_has_changed(
    folder: Path, tmp_path: Path, same_size: bool
) -> None:
    shard, key, position = image_of(folder, 0)
    flip_byte(shard, position)
    damaged = file_hashes(folder)
    published = tmp_path / "squares-published" / f"{key}.png"
    size = published.stat().st_size
    Image.new("L", (32, 32), 200).save(published)
    with published.open("ab") as stream:
        stream.write(b"\0" * (size - published.stat().st_size if same_size else 1))

    with pytest.raises(DatasetError, match="packed again differs"):
        verify.run(VerifyConfig(folder=str(folder), repair=True, workers=1))

    assert file_hashes(folder) == damaged


def test_a_shard_that_the_manifest_does_not_name_is_reported(folder: Path) -> None:
    shutil.copy(folder / "train-000000.tar", folder / "train-000099.tar")

    with pytest.raises(DatasetError, match=r"train-000099\.tar.*does not name"):
        verify.run(VerifyConfig(folder=str(folder)))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"format": "nakt-shards/1"}'])
def test_a_damaged_manifest_is_an_error_not_a_traceback(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)

    with pytest.raises(DatasetError, match=r"manifest\.json"):
        verify.run(VerifyConfig(folder=str(folder)))


def test_a_flipped_byte_anywhere_in_the_manifest_is_found(folder: Path) -> None:
    path = folder / "manifest.json"
    content = path.read_bytes()
    for position in random.Random(0).sample(range(len(content)), 100):
        flip_byte(path, position)
        with pytest.raises(DatasetError, match=r"manifest\.json"):
            verify.run(VerifyConfig(folder=str(folder)))
        path.write_bytes(content)


def test_pseudo_labels_are_verified_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    dataset = make_packed_dataset(tmp_path)
    pseudo = make_pseudo_labels(tmp_path, dataset)
    assert main(["verify", str(pseudo)]) == 0
    flip_byte(pseudo / "pseudo-000001.tar", 700)

    assert main(["verify", str(pseudo)]) == 1

    assert "damaged: pseudo-000001.tar, key image_" in capsys.readouterr().err
