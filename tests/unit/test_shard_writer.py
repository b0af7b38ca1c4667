import io
import os
import subprocess
import sys
import tarfile
import zlib

import numpy as np
import pytest
import webdataset
from PIL import Image

from nakt_dist.runtime.files import file_sha256
from nakt_dist.shards.writer import ShardWriter, write_shard
from nakt_dist.shards.writer import _header as shard_header

LONG_KEY = "a-rather-long-key-" + "0123456789" * 10  # 118 characters; ustar holds 100


def png(value, size=(8, 6)):
    stream = io.BytesIO()
    Image.new("L", size, value).save(stream, "PNG")
    return stream.getvalue()


def samples(count=3):
    for number in range(count):
        yield (
            f"key-{number}",
            {
                "png": png(number),
                "mask.png": png(255),
                "json": b"{" + b" " * 500 * number + b"}",
            },
        )


def written(path, source=None):
    entry, members = write_shard(path, "train", samples() if source is None else source)
    return path.read_bytes(), entry, members


def test_equal_samples_give_equal_bytes_whenever_and_by_whom_written(tmp_path, monkeypatch):
    first, entry, _ = written(tmp_path / "one.tar")
    monkeypatch.setattr("time.time", lambda: 4e9)
    monkeypatch.setenv("USER", "somebody")
    mask = os.umask(0o077)
    try:
        second, _, _ = written(tmp_path / "two.tar")
    finally:
        os.umask(mask)
    assert first == second
    assert entry.sha256 == file_sha256(tmp_path / "two.tar")


def test_another_process_gives_equal_bytes(tmp_path):
    first, _, _ = written(tmp_path / "one.tar", [("key", {"json": b"{}"})])
    script = (
        "import sys; from pathlib import Path; from nakt_dist.shards.writer import write_shard\n"
        "write_shard(Path(sys.argv[1]), 'train', [('key', {'json': b'{}'})])"
    )
    path = tmp_path / "two.tar"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, env={"TZ": "Asia/Tokyo"})
    assert path.read_bytes() == first


def test_the_order_and_the_content_of_samples_decide_the_bytes(tmp_path):
    first, _, _ = written(tmp_path / "one.tar")
    assert written(tmp_path / "two.tar", reversed(list(samples())))[0] != first
    assert written(tmp_path / "three.tar", samples(2))[0] != first


def test_members_are_plain_files_without_owner_time_or_rights(tmp_path):
    written(tmp_path / "shard.tar")
    with tarfile.open(tmp_path / "shard.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members] == [
        f"key-{number}.{extension}"
        for number in range(3)
        for extension in ("png", "mask.png", "json")
    ]
    for member in members:
        assert member.isreg()
        assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)
        assert (member.uname, member.gname, member.linkname) == ("", "", "")
        assert not member.pax_headers


def check_members(path, members):
    """Compares what the offsets point at with what tarfile finds on its own."""
    data = path.read_bytes()
    with tarfile.open(path) as tar:
        for key, files in members.items():
            for extension, member in files.items():
                found = data[member.offset : member.offset + member.size]
                assert found == tar.extractfile(f"{key}.{extension}").read()
                assert member.crc32 == zlib.crc32(found)


def test_the_offsets_point_exactly_at_the_contents(tmp_path):
    sizes = (0, 1, 511, 512, 513, 10240, 20000)
    source = [(f"size-{size}", {"json": os.urandom(size)}) for size in sizes]
    _, entry, members = written(tmp_path / "shard.tar", source)
    assert [files["json"].size for files in members.values()] == list(sizes)
    check_members(tmp_path / "shard.tar", members)
    assert entry.bytes == (tmp_path / "shard.tar").stat().st_size
    assert (entry.name, entry.split, entry.samples) == ("shard.tar", "train", len(sizes))


def test_a_key_too_long_for_a_plain_header_keeps_its_offsets_and_its_name(tmp_path):
    path = tmp_path / "shard.tar"
    source = [(LONG_KEY, {"png": png(1), "mask.png": png(0)}), ("short", {"png": png(2)})]
    _, _, members = written(path, source)
    check_members(path, members)
    keys = [sample["__key__"] for sample in webdataset.WebDataset(str(path), shardshuffle=False)]
    assert keys == [LONG_KEY, "short"]


def test_a_plain_webdataset_loop_reads_a_shard(tmp_path):
    path = tmp_path / "shard.tar"
    written(path)
    read = list(webdataset.WebDataset(str(path), shardshuffle=False).decode("pil"))
    assert [sample["__key__"] for sample in read] == ["key-0", "key-1", "key-2"]
    for number, sample in enumerate(read):
        assert np.asarray(sample["png"]).shape == (6, 8, 3)
        assert (np.asarray(sample["png"]) == number).all()
        assert (np.asarray(sample["mask.png"]) == 255).all()
        assert sample["json"] == {}


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "../a", "/a", "a\\b", "."])
def test_a_key_that_webdataset_would_cut_or_that_leaves_the_folder_is_refused(key):
    with pytest.raises(ValueError, match="key"):
        ShardWriter(io.BytesIO()).add(key, {"json": b"{}"})


@pytest.mark.parametrize(
    "key",
    ["a", "k" * 96, "k" * 97, "ä", "名" * 40, LONG_KEY],
    ids=["a", "96", "97", "ä", "名", "long"],
)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 10_240, 70_000])
def test_a_shard_is_what_tarfile_writes(key, size):
    ours, theirs, content = io.BytesIO(), io.BytesIO(), b"x" * size
    writer = ShardWriter(ours)
    with tarfile.open(fileobj=theirs, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("png", "json"):
            header = tarfile.TarInfo(f"{key}.{name}")
            header.size, header.mode = size, 0o644
            archive.addfile(header, io.BytesIO(content))
            member = writer.add(key, {name: content})[name]
            assert ours.getvalue()[member.offset :][:size] == content
    writer.close()
    assert ours.getvalue() == theirs.getvalue()


def test_a_file_of_eight_gibibytes_has_a_header_that_holds_its_size():
    for size in (8**11 - 1, 8**11):
        header = tarfile.TarInfo("a.png")
        header.size, header.mode = size, 0o644
        assert shard_header("a.png", size) == header.tobuf(tarfile.PAX_FORMAT)


def test_an_empty_shard_is_a_whole_tar(tmp_path):
    _, entry, members = written(tmp_path / "shard.tar", [])
    assert (entry.samples, members) == (0, {})
    with tarfile.open(tmp_path / "shard.tar") as tar:
        assert tar.getnames() == []


def test_a_failure_in_the_middle_leaves_no_file(tmp_path):
    def failing():
        yield from samples(2)
        raise OSError("the disk of the source is gone")

    with pytest.raises(OSError, match="is gone"):
        write_shard(tmp_path / "shard.tar", "train", failing())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_a_kill_in_the_middle_leaves_no_file_under_the_final_name(tmp_path):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from nakt_dist.shards.writer import write_shard\n"
        "def samples():\n"
        "    yield 'key', {'json': bytes(100_000)}\n"
        "    os.kill(os.getpid(), 9)\n"
        "write_shard(Path(sys.argv[1]), 'train', samples(), Path(sys.argv[2]))"
    )
    staging = tmp_path / "staging"
    staging.mkdir()
    path = tmp_path / "shard.tar"
    killed = subprocess.run([sys.executable, "-c", script, str(path), str(staging)], check=False)
    assert killed.returncode == -9
    assert sorted(tmp_path.iterdir()) == [staging]


def test_samples_are_held_in_memory_one_at_a_time(tmp_path):
    living = []

    class Payload(bytes):
        def __new__(cls, content):
            living.append(None)
            return super().__new__(cls, content)

        def __del__(self):
            living.pop()

    most = 0

    def counted():
        nonlocal most
        for number in range(20):
            most = max(most, len(living))
            yield f"key-{number}", {"json": Payload(b"{}")}

    write_shard(tmp_path / "shard.tar", "train", counted())
    assert most <= 1
