"""Tars that lead out, link, lie about sizes or end early, through every reader of tars."""

import gzip
import io
import itertools
import os
import tarfile
import tracemalloc
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile_tars import (
    BLOCK,
    FIFTY_GIGABYTES,
    change_cell,
    ended,
    file_blocks,
    header,
    holes,
    nothing_appears,
    packed_bytes,
    padded,
    pax_blocks,
    sign,
    with_header,
)

from nakt_dist.config import DataConfig
from nakt_dist.errors import DatasetError
from nakt_dist.loading.batches import streamed_batches
from nakt_dist.loading.samples import select_samples
from nakt_dist.shards.manifest import INDEX_NAME
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.shards.streaming import StatisticallyRepeatableStream
from nakt_dist.shards.tars import list_members, stream_members
from nakt_dist.shards.verify import verify_folder

pytestmark = pytest.mark.faults

SHARD, SIDECAR = "train-000000.tar", "pseudo-000000.tar"
FIRST = file_blocks("a.png")

# What is wrong is found at the second member, so that a reader could have begun to trust.
HOSTILE = {
    "leads_up": ended(FIRST, file_blocks("../b.png")),
    "leads_up_behind_a_folder": ended(FIRST, file_blocks("b/../../c.png")),
    "absolute": ended(FIRST, file_blocks("/etc/b.png")),
    "of_windows": ended(FIRST, file_blocks("..\\b.png")),
    "hidden": ended(FIRST, file_blocks(".b.png")),
    "without_extension": ended(FIRST, file_blocks("b")),
    "name_with_nul": ended(FIRST, file_blocks(b"b\0../c.png")),
    "long_name_with_nul": ended(FIRST, pax_blocks(path="b\0.png"), file_blocks("b.png")),
    "not_utf_8": ended(FIRST, file_blocks(b"b\xff.png")),
    "symbolic_link": ended(FIRST, header("b.png", 0, tarfile.SYMTYPE, linkname="/etc/passwd")),
    "hard_link": ended(FIRST, header("b.png", 0, tarfile.LNKTYPE, linkname="a.png")),
    "character_device": ended(FIRST, header("b.png", 0, tarfile.CHRTYPE)),
    "block_device": ended(FIRST, header("b.png", 0, tarfile.BLKTYPE)),
    "pipe": ended(FIRST, header("b.png", 0, tarfile.FIFOTYPE)),
    "folder": ended(FIRST, header("b.png", 0, tarfile.DIRTYPE)),
    "unknown_type": ended(FIRST, header("b.png", 0, b"Z")),
    "global_header": ended(FIRST, header("pax", 0, tarfile.XGLTYPE), file_blocks("b.png")),
    "same_name_twice": ended(FIRST, FIRST),
    "same_name_in_capitals": ended(FIRST, file_blocks("a.PNG")),
    "same_key_later": ended(FIRST, file_blocks("b.png"), file_blocks("a.json")),
    "fifty_gigabytes": ended(FIRST, header("b.png", FIFTY_GIGABYTES), padded(b"content")),
    "less_than_nothing": ended(FIRST, header("b.png", -BLOCK), padded(b"content")),
    "back_to_the_beginning": ended(FIRST, header("b.png", -3 * BLOCK), padded(b"content")),
    "long_header_of_fifty_gigabytes": ended(FIRST, header("x", FIFTY_GIGABYTES, tarfile.XHDTYPE)),
    "gnu_long_name_of_fifty_gigabytes": ended(FIRST, header("x", FIFTY_GIGABYTES, b"L")),
    "gnu_long_name": ended(FIRST, header("x", 5000, b"L"), padded(b"b" * 5000), FIRST),
    "long_name_beyond_reason": ended(FIRST, pax_blocks(path="b" * 5000), file_blocks("b.png")),
    "other_path": ended(FIRST, pax_blocks(path="../../b.png"), file_blocks("b.png")),
    "other_size": ended(FIRST, pax_blocks(size=str(FIFTY_GIGABYTES)), file_blocks("b.png")),
    "other_size_below_nothing": ended(FIRST, pax_blocks(size="-512"), file_blocks("b.png")),
    "other_encoding": ended(FIRST, pax_blocks(hdrcharset="BINARY"), file_blocks("b.png")),
    "many_headers": ended(FIRST, *[pax_blocks(path="b.png")] * 5000, file_blocks("b.png")),
    "no_file_after_its_header": ended(FIRST, pax_blocks(path="b.png")),
    "record_of_no_length": ended(FIRST, header("x", 9, tarfile.XHDTYPE), padded(b"0 path=b\n")),
    "holes": holes(FIFTY_GIGABYTES),
    "holes_of_pax": ended(
        FIRST,
        pax_blocks(
            GNU__sparse__major="1", GNU__sparse__minor="0", GNU__sparse__realsize="53687091200"
        ),
        file_blocks("b.png", b"1\n0\n7\n"),
    ),
    "holes_without_end": ended(
        FIRST,
        pax_blocks(GNU__sparse__major="1", GNU__sparse__minor="0"),
        file_blocks("b.png", b"9" * BLOCK),
    ),
    "cut_in_a_header": ended(FIRST, file_blocks("b.png"))[: 2 * BLOCK + 100],
    "cut_after_a_header": ended(FIRST, file_blocks("b.png"))[: 3 * BLOCK],
    "cut_in_a_file": ended(FIRST, file_blocks("b.png"))[: 3 * BLOCK + 3],
    "cut_between_files": FIRST,
    "damaged_header": ended(FIRST, b"x" + file_blocks("b.png")[1:]),
    "zeroed_header": ended(FIRST, bytes(BLOCK), padded(b"content"), file_blocks("c.png")),
    "goes_on_after_its_end": ended(FIRST) + b"more",
    "zeros_after_its_end": ended(FIRST) + bytes(tarfile.RECORDSIZE),
    "compressed": gzip.compress(ended(FIRST, file_blocks("b.png", bytes(10**6)))),
    "empty": b"",
    "text": b"<html>not found</html>",
}


@pytest.fixture(params=HOSTILE.values(), ids=HOSTILE)
def hostile(request) -> bytes:
    return request.param


def keys_until_the_end(shard: bytes, sidecar: bytes | None = None) -> list[str]:
    stream = StatisticallyRepeatableStream(
        [SHARD],
        lambda name: io.BytesIO(shard),
        seed=0,
        shuffle_buffer=1,
        sidecar_names=[SIDECAR] if sidecar is not None else None,
        sidecar_opener=lambda name: io.BytesIO(sidecar),
    )
    return [sample["__key__"] for sample in itertools.islice(stream, 20)]


def test_the_stream_refuses_it_by_the_name_of_the_shard(hostile, tmp_path, monkeypatch):
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    tracemalloc.start()
    try:
        with nothing_appears(tmp_path), pytest.raises(DatasetError, match=SHARD):
            keys_until_the_end(hostile)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(hostile) + 8_000_000
    finally:
        tracemalloc.stop()


def test_the_stream_refuses_it_as_a_sidecar(hostile):
    with pytest.raises(DatasetError, match=r"train-000000|pseudo-000000"):
        keys_until_the_end(ended(file_blocks("a.jpg"), file_blocks("b.jpg")), hostile)


def test_a_list_of_its_members_is_refused_too(hostile):
    with pytest.raises(DatasetError, match=SHARD):
        list(list_members(SHARD, io.BytesIO(hostile)))


@pytest.mark.parametrize(
    ("format_number", "key"),
    [
        *((tarfile.PAX_FORMAT, key) for key in ("k", "k" * 99, "k" * 100, "ü" * 100)),
        (tarfile.USTAR_FORMAT, "k"),  # which has no longer names
    ],
)
def test_honest_tars_of_other_writers_are_read_whole(format_number, key):
    members = {f"{key}.png": b"1", f"{key}.mask.png": b"", "other.json": bytes(1000)}
    data = packed_bytes(members, format=format_number)
    assert dict(stream_members(SHARD, io.BytesIO(data))) == members
    for member in list_members(SHARD, io.BytesIO(data)):
        assert data[member.offset : member.offset + member.size] == members[member.name]


def test_shards_without_a_sample_end_the_stream_instead_of_spinning_it():
    with pytest.raises(DatasetError, match="none of the 1 shards of the stream holds a sample"):
        keys_until_the_end(ended())


def test_a_shard_that_brings_its_own_soft_masks_is_refused():
    shard = ended(file_blocks("a.png"), file_blocks("a.soft.png", b"planted"))
    with pytest.raises(DatasetError, match=r"\['soft.png'\] in the shard and in its sidecar"):
        keys_until_the_end(shard, ended(file_blocks("a.soft.png")))


def replace_second_header(folder: Path, shard: str, member: str, **changes: object) -> None:
    """Changes the header of the second sample, leaves all content in its place, and signs."""
    row = pq.read_table(folder / INDEX_NAME).slice(1, 1).to_pylist()[0]
    path = folder / shard
    position = row[f"{member}_offset"] - BLOCK
    path.write_bytes(with_header(path.read_bytes(), position, **changes))
    sign(folder)


IN_PLACE = {
    "leads_up": {"name": "../../b.png"},
    "absolute": {"name": "/tmp/b.png"},
    "symbolic_link": {"kind": tarfile.SYMTYPE},
    "hard_link": {"kind": tarfile.LNKTYPE},
    "device": {"kind": tarfile.CHRTYPE},
    "pipe": {"kind": tarfile.FIFOTYPE},
    "holes": {"kind": tarfile.GNUTYPE_SPARSE},
    "other_key": {"name": "other.png"},
    "other_extension": {"name": "image_000.json"},
    "not_utf_8": {"name": b"b\xff.png"},
    "fifty_gigabytes": {"size": FIFTY_GIGABYTES},
    "less_than_nothing": {"size": -BLOCK},
    "shorter": {"size": 10},
}


@pytest.mark.parametrize("changes", IN_PLACE.values(), ids=IN_PLACE)
def test_verify_does_not_call_a_signed_shard_whole_whose_headers_lie(folders, changes):
    images, pseudo = folders
    for folder, shard, member in ((images, SHARD, "image"), (pseudo, SIDECAR, "soft")):
        replace_second_header(folder, shard, member, **changes)
        damages = list(verify_folder(folder))
        assert [damage.file for damage in damages] == [shard]


@pytest.mark.parametrize("changes", IN_PLACE.values(), ids=IN_PLACE)
def test_reading_by_index_does_not_go_by_the_headers_at_all(whole, folders, changes):
    images, pseudo = folders
    expected = IndexedShards(whole / "images")
    soft = PseudoLabels(whole / "pseudo", expected)
    replace_second_header(images, SHARD, "image", **changes)
    found = IndexedShards(images)
    with pytest.raises(DatasetError, match="another packing"):
        PseudoLabels(pseudo, found)
    replace_second_header(pseudo, SIDECAR, "soft", **changes)
    labels = PseudoLabels(pseudo, expected)
    for number in range(4):
        assert found.image_bytes(number) == expected.image_bytes(number)
        assert labels.soft_mask_bytes(number) == soft.soft_mask_bytes(number)


@pytest.mark.parametrize("changes", IN_PLACE.values(), ids=IN_PLACE)
def test_a_streaming_training_refuses_a_signed_shard_whose_headers_lie(folders, changes):
    images = folders[0]
    replace_second_header(images, SHARD, "image", **changes)
    config = DataConfig(dataset=str(images), streaming=True, shuffle_buffer=1)
    batches = streamed_batches(config, select_samples(str(images), None), 2, seed=0, rank=0)
    with pytest.raises(DatasetError):
        list(itertools.islice(batches, 20))


def test_a_streaming_training_compares_what_it_reads_with_the_index(folders):
    images = folders[0]
    row = pq.read_table(images / INDEX_NAME).slice(1, 1).to_pylist()[0]
    data = bytearray((images / SHARD).read_bytes())
    other = pq.read_table(images / INDEX_NAME).slice(2, 1).to_pylist()[0]
    size = min(row["mask_size"], other["mask_size"])
    first, second = row["mask_offset"], other["mask_offset"]
    data[first : first + size] = data[second : second + size]  # a mask, and of another image
    (images / SHARD).write_bytes(data)
    config = DataConfig(dataset=str(images), streaming=True, shuffle_buffer=1)
    batches = streamed_batches(config, select_samples(str(images), None), 2, seed=0, rank=0)
    with pytest.raises(DatasetError, match="the mask's bytes have changed"):
        list(itertools.islice(batches, 20))


def test_a_streaming_training_ends_where_no_sample_is_one_of_the_index(folders):
    images = folders[0]
    members = {f"other-{number}.png": b"content" for number in range(4)}
    (images / SHARD).write_bytes(packed_bytes(members))
    config = DataConfig(dataset=str(images), streaming=True, shuffle_buffer=1)
    batches = streamed_batches(config, select_samples(str(images), None), 2, seed=0, rank=0)
    with pytest.raises(DatasetError, match="none is one that was selected"):
        next(batches)


@pytest.mark.parametrize("key", ["../b", "a/b", "a\\b", "b.c", "", "a\0b"])
def test_a_key_that_could_be_a_path_is_refused_at_opening(folders, key):
    change_cell(folders[0], "key", key)
    with pytest.raises(DatasetError, match=r"column 'key' holds .* expected a name without"):
        IndexedShards(folders[0])


def test_a_key_that_stands_there_twice_is_refused_at_opening(folders):
    for folder in folders:
        change_cell(folder, "key", pq.read_table(folder / INDEX_NAME)["key"][3].as_py())
    with pytest.raises(DatasetError, match=r"in row 3, expected each key once"):
        IndexedShards(folders[0])


@pytest.mark.parametrize("reader", [IndexedShards, verify_folder])
def test_a_sample_of_fifty_gigabytes_takes_no_memory(folders, reader):
    images = folders[0]
    with (images / SHARD).open("r+b") as shard:
        shard.truncate(FIFTY_GIGABYTES)  # a hole on disk, which sums would read for minutes
    change_cell(images, "image_size", FIFTY_GIGABYTES - 10**6, shards=False)
    sign(images, lambda value: value["shards"][0].update(bytes=FIFTY_GIGABYTES), shards=False)
    tracemalloc.start()
    try:
        told = what_it_says(reader, images)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert "image_size" in told and "at most" in told


def what_it_says(reader, folder: Path) -> str:
    try:
        return "; ".join(map(str, reader(folder)))
    except DatasetError as error:
        return str(error)


def test_verify_gives_the_size_of_a_shard_that_has_grown_without_reading_it(folders):
    images = folders[0]
    with (images / SHARD).open("r+b") as shard:
        shard.truncate(FIFTY_GIGABYTES)
    tracemalloc.start()
    try:
        (damage,) = verify_folder(images)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    assert f"{FIFTY_GIGABYTES} bytes, expected" in damage.detail


@pytest.mark.parametrize("name", [SHARD, INDEX_NAME, "manifest.json"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(folders, name):
    images = folders[0]
    (images / name).unlink()
    os.mkfifo(images / name)
    with pytest.raises(DatasetError, match=name):
        IndexedShards(images).image_bytes(0)
    with pytest.raises(DatasetError) if name == "manifest.json" else nothing_appears(images):
        assert any(damage.file == name for damage in verify_folder(images))
