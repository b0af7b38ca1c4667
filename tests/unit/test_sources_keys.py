"""Shard keys: safe, unique, and a function of the set of names."""

import hashlib
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nakt_dist.sources.keys import assign_keys

# few letters, so that keys collide often; surrogates stand for bytes that are not UTF-8
ALPHABET = st.sampled_from([*"aA1 ._-/é(", "\u0130", "病", "\udcff", "\ud800", "\u0301"])
NAMES = st.lists(st.text(ALPHABET, min_size=1, max_size=12), unique=True, max_size=30)
SAFE = re.compile(r"[a-z0-9_-]{1,100}")


@given(NAMES, st.randoms(use_true_random=False))
def test_keys_are_safe_unique_and_independent_of_order(names: list[str], random) -> None:
    keys = assign_keys(names)
    assert len(set(keys)) == len(names)
    assert all(SAFE.fullmatch(key) for key in keys)
    shuffled = random.sample(names, len(names))
    assert dict(zip(shuffled, assign_keys(shuffled), strict=True)) == dict(
        zip(names, keys, strict=True)
    )


def test_readable_keys() -> None:
    names = ["benign/benign (4).png", "benign/Lésion n° 1.v2.png", "malignant/Ünï-x__y.tif"]
    assert assign_keys(names) == ["benign_benign_4", "benign_lesion_n_1_v2", "malignant_uni-x_y"]


def test_shared_folders_are_dropped() -> None:
    assert assign_keys(["a/b/1.png", "a/b/2.png"]) == ["1", "2"]
    assert assign_keys(["a/b/1.png", "a/c/1.png", "a/1.png"]) == ["b_1", "c_1", "1"]
    assert assign_keys(["a/b/only one.png"]) == ["only_one"]
    assert assign_keys([]) == []


def digest(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def test_all_that_collide_get_a_hash() -> None:
    names = ["x 1.png", "x_1.jpg", "X-1.png"]
    expected = [f"x_1-{digest('x 1.png')}", f"x_1-{digest('x_1.jpg')}", "x-1"]
    assert assign_keys(names) == expected


def test_a_name_that_looks_like_a_hashed_key() -> None:
    hashed = f"a-{digest('a.png')}"
    keys = assign_keys(["a.png", "a.jpg", f"{hashed}.png"])
    assert len(set(keys)) == 3
    assert all(key != hashed for key in keys)


def test_nothing_left_and_long_names() -> None:
    raw = os.fsdecode(b"\xff\xfe.png")
    first, second, long = assign_keys([raw, "病.png", f"{'k' * 300}.png"])
    assert first == f"image-{digest(raw)}"
    assert second == f"image-{digest('病.png')}"
    assert long == "k" * 100
    assert [len(key) for key in assign_keys(["k" * 300, "k" * 301])] == [100, 100]


def test_a_repeated_name_is_refused() -> None:
    with pytest.raises(ValueError, match="more than once"):
        assign_keys(["a.png", "a.png"])
