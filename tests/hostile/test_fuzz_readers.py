"""Random damage: what comes out is the same samples, or an error that a user can act on.

The examples are the same in every run; ``NAKT_FUZZ_EXAMPLES`` tries more of them.
"""

import io
import itertools
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_tars import BLOCK, base_256, nothing_appears, sign, with_header
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nakt_dist.config import DataConfig
from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.loading.batches import streamed_batches
from nakt_dist.loading.samples import select_samples
from nakt_dist.runtime.files import json_bytes, value_sha256
from nakt_dist.shards.manifest import INDEX_NAME, MANIFEST_NAME, PseudoLabelManifest, ShardManifest
from nakt_dist.shards.reader import IndexedShards, PseudoLabels
from nakt_dist.shards.tars import stream_members
from nakt_dist.shards.verify import verify_folder
from tests.datasets import make_packed_dataset, make_pseudo_labels

pytestmark = pytest.mark.faults

SHARD, SIDECAR = "train-000000.tar", "pseudo-000000.tar"
SAMPLES = 4
FUZZ = settings(
    max_examples=int(os.environ.get("NAKT_FUZZ_EXAMPLES", "75")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """One shard of four samples, and pseudo-labels for it; not to be damaged."""
    folder = tmp_path_factory.mktemp("fuzz")
    make_packed_dataset(folder, SAMPLES, splits={"train": 1.0}, name="images")
    make_pseudo_labels(folder, folder / "images")
    return folder


@pytest.fixture(scope="module")
def honest(whole) -> IndexedShards:
    return IndexedShards(whole / "images")


@pytest.fixture(scope="module")
def expected(whole, honest) -> list[list[Any]]:
    """The image and the soft mask of each sample."""
    return pictures_of(honest, PseudoLabels(whole / "pseudo", honest))


@contextmanager
def copy_of(whole: Path) -> Iterator[tuple[Path, Path]]:
    """Yields copies of the dataset and of its pseudo-labels."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("images", "pseudo"):
            shutil.copytree(whole / name, Path(scratch) / name)
        yield Path(scratch) / "images", Path(scratch) / "pseudo"


# ---------------------------------------------------------------- damage to bytes

PLACES = st.floats(0, 1, exclude_max=True)
BLOCKS = st.integers(0, 40)


@st.composite
def damaged_tars(draw: st.DrawFn, data: bytes) -> bytes:
    """Draws one to three changes, most of them where they hurt: at blocks and in headers."""
    for _ in range(draw(st.integers(1, 3))):
        if len(data) < 2 * BLOCK:
            break
        data = draw(st.sampled_from(CHANGES))(draw, data)
    return data


def flip(draw: st.DrawFn, data: bytes) -> bytes:
    position = int(draw(PLACES) * len(data))
    changed = bytearray(data)
    changed[position] ^= draw(st.integers(1, 255))
    return bytes(changed)


def flip_in_a_header(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.sampled_from(headers_of(data))) + draw(st.integers(0, BLOCK - 1))
    return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]


def lie_in_a_header(draw: st.DrawFn, data: bytes) -> bytes:
    """Changes a header and mends its checksum."""
    at = draw(st.sampled_from(headers_of(data)))
    name = draw(st.none() | st.sampled_from(["../a.png", "/a.png", "a", "a.b", "image_001.png"]))
    size = draw(st.none() | st.sampled_from([0, 1, -1, -BLOCK, 511, 2**33, 2**62]))
    kind = draw(st.none() | st.sampled_from([bytes([each]) for each in b"\0123456789xgLKSXZ"]))
    return with_header(data, at, name=name, size=size, kind=kind)


def number_in_a_header(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(st.sampled_from(headers_of(data)))
    field = draw(st.sampled_from([100, 108, 116, 124, 136]))
    value = draw(st.binary(max_size=12) | st.integers(-(2**80), 2**80).map(base_256))
    value = value.ljust(12, b"\0")[:12]
    return with_header(data[: at + field] + value + data[at + field + 12 :], at)


def truncate(draw: st.DrawFn, data: bytes) -> bytes:
    if draw(st.booleans()):
        return data[: draw(BLOCKS) * BLOCK]
    return data[: int(draw(PLACES) * len(data))]


def swap_blocks(draw: st.DrawFn, data: bytes) -> bytes:
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    first, second = (draw(BLOCKS) % len(blocks) for _ in range(2))
    blocks[first], blocks[second] = blocks[second], blocks[first]
    return b"".join(blocks)


def zero_a_block(draw: st.DrawFn, data: bytes) -> bytes:
    at = draw(BLOCKS) * BLOCK
    return data[:at] + bytes(BLOCK) + data[at + BLOCK :]


def repeat_blocks(draw: st.DrawFn, data: bytes) -> bytes:
    first, second = sorted(draw(BLOCKS) * BLOCK for _ in range(2))
    return data[:second] + data[first:second] + data[second:]


def drop_blocks(draw: st.DrawFn, data: bytes) -> bytes:
    first, second = sorted(draw(BLOCKS) * BLOCK for _ in range(2))
    return data[:first] + data[second:]


CHANGES = [
    flip,
    flip_in_a_header,
    lie_in_a_header,
    number_in_a_header,
    truncate,
    swap_blocks,
    zero_a_block,
    repeat_blocks,
    drop_blocks,
]


def headers_of(data: bytes) -> list[int]:
    found = [at - 257 for at in find_all(data, b"ustar\x0000") if at % BLOCK == 257]
    return [at for at in found if at + BLOCK <= len(data)] or [0]


def find_all(data: bytes, wanted: bytes) -> Iterator[int]:
    at = data.find(wanted)
    while at >= 0:
        yield at
        at = data.find(wanted, at + 1)


@FUZZ
@given(st.data())
def test_a_damaged_tar_gives_members_or_an_error_of_ours(whole, data):
    damaged = data.draw(damaged_tars((whole / "images" / SHARD).read_bytes()))
    try:
        members = list(stream_members(SHARD, io.BytesIO(damaged)))
    except DatasetError as error:
        assert SHARD in str(error)
        return
    with tarfile.open(fileobj=io.BytesIO(damaged)) as tar:  # a tolerant reader finds no more
        assert [name for name, _ in members] == tar.getnames()
    assert all("/" not in name and "\\" not in name for name, _ in members)


@FUZZ
@given(st.data())
def test_streaming_a_damaged_shard_gives_the_same_samples_or_an_error_of_ours(
    whole, expected, data
):
    name = data.draw(st.sampled_from([("images", SHARD), ("pseudo", SIDECAR)]))
    with copy_of(whole) as (images, pseudo):
        path = images.parent / name[0] / name[1]
        path.write_bytes(data.draw(damaged_tars(path.read_bytes())))
        config = DataConfig(
            dataset=str(images), pseudo_labels=str(pseudo), streaming=True, shuffle_buffer=1
        )
        samples = select_samples(str(images), None, str(pseudo))
        seen = set()
        try:
            with nothing_appears(images.parent):
                batches = streamed_batches(config, samples, SAMPLES, seed=0, rank=0)
                for batch in itertools.islice(batches, 3):
                    for number, *pixels in zip(*map(batch.get, KEYS), strict=True):
                        assert all(map(np.array_equal, pixels, expected[int(number)]))
                        seen.add(int(number))
        except NaktError:
            return
        assert seen == set(range(SAMPLES))


KEYS = ("number", "image", "target")


def pictures_of(dataset: IndexedShards, labels: PseudoLabels) -> list[list[Any]]:
    """Returns the image and the soft mask of each sample."""
    return [
        [decode_pixels(dataset.image_bytes(number)), decode_pixels(labels.soft_mask_bytes(number))]
        for number in range(len(dataset))
    ]


@FUZZ
@given(st.data(), st.booleans())
def test_reading_and_verifying_a_damaged_shard_gives_the_same_or_an_error_of_ours(
    whole, honest, data, signed
):
    with copy_of(whole) as (images, _):
        before = (images / SHARD).read_bytes()
        after = data.draw(damaged_tars(before))
        (images / SHARD).write_bytes(after)
        if signed:
            sign(images)
        with nothing_appears(images.parent):
            damages = list(verify_folder(images))
            if not damages:
                assert contents(after) == contents(before)
            if before != after and not signed:
                assert {damage.file for damage in damages} == {SHARD}
            found = IndexedShards(images)
            for number in range(SAMPLES):
                try:
                    image, mask = found.image_bytes(number), found.mask_bytes(number)
                except NaktError:
                    continue
                assert (image, mask) == (honest.image_bytes(number), honest.mask_bytes(number))


def contents(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


# ---------------------------------------------------------------- damage to manifests

NUMBERS = st.sampled_from([0, -1, 1, 4, 2**31, 2**63, 10**30, 0.5, 1e308, float("inf")])
TEXTS = st.text(max_size=8) | st.sampled_from(
    [
        "..",
        "../x.tar",
        "/etc/passwd",
        "pipe:touch x",
        "\0",
        "\ud800",
        "a" * 5000,
        "=1+1",
        INDEX_NAME,
    ]
)
LEAVES = st.none() | st.booleans() | NUMBERS | st.just(float("nan")) | TEXTS
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


def paths_in(value: Any, trail: tuple = ()) -> Iterator[tuple]:
    """Yields the way to each part of a JSON value."""
    yield trail
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in items:
            yield from paths_in(inner, (*trail, name))


def edit(draw: st.DrawFn, value: Any) -> Any:
    """Replaces, removes, renames or adds one part of a JSON value."""
    *trail, last = draw(st.sampled_from([path for path in paths_in(value) if path]))
    owner = value
    for name in trail:
        owner = owner[name]
    match draw(st.sampled_from(["replace", "replace", "remove", "add"])):
        case "replace":
            owner[last] = draw(VALUES)
        case "remove":
            del owner[last]
        case "add" if isinstance(owner, dict):
            owner[draw(TEXTS)] = draw(VALUES)
        case _:
            owner.append(draw(VALUES))
    return value


@st.composite
def damaged_manifests(draw: st.DrawFn, data: bytes) -> bytes:
    if draw(st.booleans()):
        value = json.loads(data)
        for _ in range(draw(st.integers(1, 3))):
            value = edit(draw, value)
            if not value:
                break
        return json_bytes(value)
    for _ in range(draw(st.integers(1, 3))):
        at = int(draw(PLACES) * len(data))
        length = draw(st.integers(0, 20))
        data = data[:at] + draw(st.binary(max_size=20)) + data[at + length :]
    return data


def is_json_object(data: bytes) -> bool:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)


@FUZZ
@given(st.data(), st.booleans())
def test_a_damaged_manifest_is_refused_or_leads_to_the_same_samples(
    whole, honest, expected, data, signed
):
    kind = data.draw(st.sampled_from(["images", "pseudo"]))
    with copy_of(whole) as (images, pseudo):
        folder = images if kind == "images" else pseudo
        path = folder / MANIFEST_NAME
        path.write_bytes(data.draw(damaged_manifests(path.read_bytes())))
        if signed:
            resign(path)
        with nothing_appears(images.parent):
            try:
                (ShardManifest if kind == "images" else PseudoLabelManifest).read(folder)
                list(verify_folder(folder))
                dataset = IndexedShards(images)
                labels = PseudoLabels(pseudo, dataset if kind == "pseudo" else honest)
                found = pictures_of(dataset, labels)
            except NaktError as error:
                assert len(str(error)) < 10_000
                return
    for pictures, others in zip(found, expected, strict=True):
        assert all(map(np.array_equal, pictures, others))


def resign(path: Path) -> None:
    """Gives a manifest, where it still is JSON, the fingerprint of what it says."""
    if not is_json_object(path.read_bytes()):
        return
    value = json.loads(path.read_bytes())
    value.pop("fingerprint", None)
    value["fingerprint"] = value_sha256(value)
    path.write_bytes(json_bytes(value))


# ---------------------------------------------------------------- damage to the index


@st.composite
def damaged_tables(draw: st.DrawFn, table: pa.Table) -> pa.Table:
    """Draws other values of the right types, which is what a schema lets through."""
    for _ in range(draw(st.integers(1, 3))):
        position = draw(st.integers(0, table.num_columns - 1))
        field = table.schema.field(position)
        values = table[field.name].to_pylist()
        if pa.types.is_string(field.type):
            drawn = st.none() | TEXTS.filter(lambda text: text.isprintable() or text == "\0")
        elif pa.types.is_floating(field.type):
            drawn = st.none() | st.floats()
        else:
            most = 2 ** (field.type.bit_width - (0 if field.type == pa.uint32() else 1)) - 1
            least = 0 if field.type == pa.uint32() else -most - 1
            drawn = (
                st.none()
                | st.integers(least, most)
                | st.integers(0, 20_000).filter(lambda number, most=most: number <= most)
            )
        values[draw(st.integers(0, len(values) - 1))] = draw(drawn)
        table = table.set_column(position, field, pa.array(values, type=field.type))
    return table


@FUZZ
@given(st.data())
def test_a_signed_index_of_lies_never_gives_another_sample_for_a_key(whole, honest, expected, data):
    kind = data.draw(st.sampled_from(["images", "pseudo"]))
    pictures = {key: image for key, (image, _) in zip(honest.keys, expected, strict=True)}
    with copy_of(whole) as (images, pseudo):
        folder = images if kind == "images" else pseudo
        table = pq.read_table(folder / INDEX_NAME)
        damaged = data.draw(damaged_tables(table))
        pq.write_table(damaged, folder / INDEX_NAME)
        sign(folder)
        damages = list(verify_folder(folder))
        if not damages:
            assert same_places(damaged, table)
        try:
            dataset = IndexedShards(images)
            labels = PseudoLabels(pseudo, dataset if kind == "pseudo" else honest)
            dataset.findings()
            labels.select(range(len(dataset)))
        except NaktError:
            return
        for number, key in enumerate(dataset.keys):
            try:
                image = decode_pixels(dataset.image_bytes(number))
            except NaktError:
                continue
            assert key not in pictures or np.array_equal(image, pictures[key])


def same_places(found: pa.Table, expected: pa.Table) -> bool:
    names = [
        name
        for name in expected.schema.names
        if name == "key" or name.endswith(("_offset", "_size", "_crc32"))
    ]
    return found.select(names).equals(expected.select(names))
