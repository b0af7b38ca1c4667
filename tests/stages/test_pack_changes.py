"""``nakt pack`` over an output that is there already notices what has changed, by content."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from nakt_dist.config import ImageConfig, PackConfig, VerifyConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.records.run_record import RunRecord
from nakt_dist.stages import pack, pack_prepare, pack_sources, verify
from tests.datasets import make_blob, make_packed_dataset, make_pseudo_labels


def pack_pairs(source: Path, output: Path, **settings: Any) -> RunRecord:
    form = ImageConfig(height=32, width=32)
    defaults = {"layout": "paired_folders", "image": form, "workers": 1, "samples_per_shard": 4}
    return pack.run(PackConfig(source=str(source), output=str(output), **(defaults | settings)))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Uncompressed pairs: another mask of the same shape has as many bytes."""
    root = tmp_path / "source"
    for folder in ("image", "mask"):
        (root / folder).mkdir(parents=True)
    for number in range(8):
        image, target = make_blob(number, 40, 40)
        Image.fromarray(image).save(root / "image" / f"{number}.bmp")
        Image.fromarray(np.uint8(255 * target)).save(root / "mask" / f"{number}.bmp")
    return root


def correct(path: Path, keep_time: bool = False) -> None:
    """Writes another mask of the same size in bytes, at the same time if wished."""
    before = path.stat()
    mask = np.zeros((40, 40), np.uint8)
    mask[:10] = 255
    Image.fromarray(mask).save(path)
    assert path.stat().st_size == before.st_size
    if keep_time:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_corrected_mask_of_the_same_size_is_noticed(
    source: Path, tmp_path: Path, keep_time: bool
) -> None:
    pack_pairs(source, tmp_path / "out")
    correct(source / "mask" / "3.bmp", keep_time)
    with pytest.raises(DatasetError, match=r"1 image has another mask \('image/3.bmp'\)"):
        pack_pairs(source, tmp_path / "out")


def test_trusted_times_decide_alone(source: Path, tmp_path: Path) -> None:
    pack_pairs(source, tmp_path / "out")
    correct(source / "mask" / "3.bmp", keep_time=True)
    record = pack_pairs(source, tmp_path / "out", trust_times=True)
    assert record.speed == {}
    with pytest.raises(DatasetError, match=r"another mask \('image/3.bmp'\)"):
        pack_pairs(source, tmp_path / "out")  # what was trusted once is not believed for ever
    correct(source / "mask" / "4.bmp")
    with pytest.raises(DatasetError, match=r"another mask \('image/4.bmp'\)"):
        pack_pairs(source, tmp_path / "out", trust_times=True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda root: correct(root / "image" / "2.bmp"), "1 image has other content"),
        (
            lambda root: [shutil.copy(root / f / "0.bmp", root / f / "8.bmp") for f in FOLDERS],
            r"1 image was added \('image/8.bmp'\)",
        ),
        (
            lambda root: [(root / f / "5.bmp").unlink() for f in FOLDERS],
            "images no longer there: 1",
        ),
        (
            lambda root: [correct(root / "mask" / f"{n}.bmp") for n in (1, 6)],
            r"2 images have other masks \('image/1.bmp', the first of them\)",
        ),
        (lambda root: (root / "mask" / "7.bmp").unlink(), "1 image is described otherwise"),
    ],
)
def test_what_has_changed_is_said_in_words(
    source: Path, tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    pack_pairs(source, tmp_path / "out")
    change(source)
    with pytest.raises(DatasetError, match=rf"packed otherwise .*{words}"):
        pack_pairs(source, tmp_path / "out")


FOLDERS = ("image", "mask")


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    reads, read = [], pack_sources._content_of

    def count(path: Path, key: bytes) -> str | None:
        reads.append(path)
        return read(path, key)

    monkeypatch.setattr(pack_sources, "_content_of", count)
    return reads


def test_files_that_nobody_touched_are_not_read_again_and_copied_ones_once(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack_pairs(source, tmp_path / "out")
    reads = count_reads(monkeypatch)
    pack_pairs(source, tmp_path / "out")
    assert reads == []
    os.utime(source / "image" / "3.bmp")
    shutil.copytree(source, tmp_path / "copy")  # as to another machine, with new times
    assert pack_pairs(tmp_path / "copy", tmp_path / "out").speed == {}
    assert len(reads) == 16
    pack_pairs(tmp_path / "copy", tmp_path / "out")
    assert len(reads) == 16


def test_a_piece_whose_files_changed_between_interrupted_packings_is_read_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where size and time of modification are as they were."""
    interrupt(source, tmp_path / "out", monkeypatch)
    correct(source / "mask" / "3.bmp", keep_time=True)
    pack_pairs(source, tmp_path / "out")
    pack_pairs(source, tmp_path / "undisturbed")
    names = sorted(path.name for path in (tmp_path / "undisturbed").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "out").iterdir())
    for name in names:
        one, other = (tmp_path / folder / name for folder in ("out", "undisturbed"))
        assert one.read_bytes() == other.read_bytes(), name


def interrupt(source: Path, output: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
    """Packs all shards and is then interrupted."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(pack, "finalise", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pack_pairs(source, output, **settings)


def test_a_packing_goes_on_over_files_that_were_added_changed_and_removed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(source, tmp_path / "out", monkeypatch)
    for folder in FOLDERS:
        shutil.copy(source / folder / "0.bmp", source / folder / "8.bmp")
        for number in (1, 4, 5, 6, 7):  # fewer shards than before
            (source / folder / f"{number}.bmp").unlink()
    correct(source / "image" / "2.bmp")
    pack_pairs(source, tmp_path / "out")
    pack_pairs(source, tmp_path / "undisturbed")
    expected = {path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected


def test_a_packing_goes_on_by_the_rule_of_the_masks_as_they_are_now(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One mask is not touched, and means something else since the others were corrected."""
    for number in range(8):
        value = 1 if number == 0 else 7  # the commonest pair is 0 and 7: 0 and 1 is set aside
        mask = np.uint8(value * make_blob(number, 40, 40)[1])
        Image.fromarray(mask).save(source / "mask" / f"{number}.bmp")
    interrupt(source, tmp_path / "out", monkeypatch, samples_per_shard=1)
    for number in range(1, 8):
        mask = np.uint8(make_blob(number, 40, 40)[1])
        Image.fromarray(mask).save(source / "mask" / f"{number}.bmp")
    record = pack_pairs(source, tmp_path / "out", samples_per_shard=1)
    assert record.counts["packed"] == 8
    pack_pairs(source, tmp_path / "undisturbed", samples_per_shard=1)
    expected = {path.name: path.read_bytes() for path in (tmp_path / "undisturbed").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == expected


@pytest.mark.parametrize("content", [b"{}", b"{", b"[]", b'{"inputs": [1, 2], "sha256": ""}'])
def test_damaged_receipts_are_made_again(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    interrupt(source, tmp_path / "out", monkeypatch)
    for folder in ("masks", "prepared"):
        (tmp_path / "out" / ".pack" / folder / "000001.json").write_bytes(content)
    pack_pairs(source, tmp_path / "out")
    pack_pairs(source, tmp_path / "undisturbed")
    for path in (tmp_path / "undisturbed").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name


def test_comparing_with_the_source_writes_nothing(source: Path, tmp_path: Path) -> None:
    pack_pairs(source, tmp_path / "out")
    shutil.copytree(source, tmp_path / "copy")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    config = VerifyConfig(str(tmp_path / "out"), against_source=True, source=str(tmp_path / "copy"))
    verify.run(config)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before


def test_times_of_deidentified_sources_are_kept_as_keyed_hashes(
    source: Path, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        key = str(tmp_path / f"{name}.key")
        pack_pairs(source, tmp_path / name, deidentify=True, deidentify_key=key)
        again = pack_pairs(source, tmp_path / name, deidentify=True, deidentify_key=key)
        assert again.speed == {}
    pack_pairs(source, tmp_path / "plain")
    hashes = []
    for name in ("one", "other", "plain"):
        rows = pq.read_table(tmp_path / name / pack_sources.TIMES_NAME).to_pylist()
        for row in rows:  # nothing but hexadecimal digits of a hash, and so no size or time
            assert re.fullmatch(r"[0-9a-f]{32} [0-9a-f]{32}", f"{row['modified']} {row['touched']}")
        hashes.append({row["modified"] for row in rows})
    assert not set.intersection(*hashes[:2]) and not set.intersection(*hashes[1:])


def test_a_file_that_changes_while_it_is_read_stops_the_packing(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = pack_prepare._convert

    def change(record: Any, settings: Any) -> Any:
        made = convert(record, settings)
        if record.image.name == "5.bmp":
            correct(record.masks[0])
        return made

    monkeypatch.setattr(pack_prepare, "_convert", change)
    with pytest.raises(DatasetError, match=r"5\.bmp: it, or its mask, changes while it is read"):
        pack_pairs(source, tmp_path / "out")


def test_verify_compares_with_the_source_on_request(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    pack_pairs(source, tmp_path / "out")
    verify.run(VerifyConfig(folder=str(tmp_path / "out"), against_source=True))
    assert "8 inputs in" in capsys.readouterr().err
    correct(source / "mask" / "3.bmp", keep_time=True)
    verify.run(VerifyConfig(folder=str(tmp_path / "out")))
    with pytest.raises(DatasetError, match=r"is not as it was .*another mask \('image/3.bmp'\)"):
        verify.run(VerifyConfig(folder=str(tmp_path / "out"), against_source=True))


def test_pseudo_labels_have_no_published_dataset_to_compare_with(tmp_path: Path) -> None:
    pseudo = make_pseudo_labels(tmp_path, make_packed_dataset(tmp_path))
    with pytest.raises(ConfigurationError, match="holds pseudo-labels"):
        verify.run(VerifyConfig(folder=str(pseudo), against_source=True))


def test_a_damaged_table_of_sources_is_built_again(source: Path, tmp_path: Path) -> None:
    pack_pairs(source, tmp_path / "out")
    table = tmp_path / "out" / pack_sources.SOURCES_NAME
    before = table.read_bytes()
    table.write_bytes(b"damaged")
    with pytest.raises(DatasetError, match=r"sources\.parquet"):
        pack_pairs(source, tmp_path / "out")
    verify.run(VerifyConfig(folder=str(tmp_path / "out"), repair=True, workers=1))
    assert table.read_bytes() == before
