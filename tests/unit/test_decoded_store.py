"""Decoded images that the processes of a machine keep together."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nakt_dist.loading import decoded_store
from nakt_dist.loading.decoded_store import DecodedStore
from tests.launching import fork

OTHER = """
import sys
from pathlib import Path
import numpy as np
from nakt_dist.loading import decoded_store
decoded_store.SHARED_MEMORY = Path(sys.argv[1])
store = decoded_store.DecodedStore("squares", 5, 12, None)
there = [store.read(number, [np.empty(12, np.uint8)]) for number in range(5)]
store.write(4, [np.full(12, 4, np.uint8)])
print(there, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stands in for shared memory; returns the folder of this user's files."""
    monkeypatch.setattr(decoded_store, "SHARED_MEMORY", tmp_path)
    yield tmp_path / f"nakt_dist-{os.getuid()}"


def files(folder: Path) -> list[str]:
    """Names of the files that hold decoded images."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def filled(store: DecodedStore, numbers: range) -> None:
    """Writes samples whose every byte is their number."""
    for number in numbers:
        store.write(number, [np.full((2, 3), number, np.uint8), np.full(6, number, np.uint8)])


def read(store: DecodedStore, number: int) -> list[int] | None:
    """Returns the different bytes of a sample; None where it is not there."""
    parts = [np.empty((2, 3), np.uint8), np.empty(6, np.uint8)]
    return sorted({*parts[0].flat, *parts[1]}) if store.read(number, parts) else None


def other(folder: Path) -> subprocess.Popen[str]:
    """Starts another process with the same samples."""
    command = [sys.executable, "-c", OTHER, str(folder.parent)]
    return subprocess.Popen(command, stdin=-1, stdout=-1, text=True)


def killed_other(folder: Path) -> None:
    """Lets another process write a sample, which then dies with the store in its hands."""
    process = fork(_write_and_die, folder.parent)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL


def _write_and_die(shared_memory: Path) -> None:
    decoded_store.SHARED_MEMORY = shared_memory
    store = DecodedStore("squares", 5, 12, None)
    store.write(4, [np.full(12, 4, np.uint8)])
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_one_process_decodes_another_reads_and_the_last_one_clears_away(folder: Path) -> None:
    store = DecodedStore("squares", 5, 12, None)
    filled(store, range(3))
    with other(folder) as process:
        assert process.stdout and process.stdout.readline() == "[True, True, True, False, False]\n"
        assert [read(store, number) for number in range(5)] == [[0], [1], [2], None, [4]]
        del store
        assert files(folder) == ["squares"]
        process.communicate()
    assert files(folder) == []


def test_what_a_killed_process_left_is_taken_on_or_cleared_away(folder: Path) -> None:
    killed_other(folder)
    assert files(folder) == ["squares"]
    again = DecodedStore("squares", 5, 12, None)
    assert read(again, 4) == [4] and read(again, 0) is None
    del again
    killed_other(folder)
    others = DecodedStore("circles", 5, 12, None)
    assert files(folder) == ["circles"] and others.records == 5


def test_a_record_half_written_counts_as_none(folder: Path) -> None:
    first = DecodedStore("squares", 5, 12, None)
    filled(first, range(2))
    second = DecodedStore("squares", 5, 12, None)
    content = bytearray((folder / "squares").read_bytes())
    content[5 * 8 + 3] ^= 1  # a pixel of the first
    (folder / "squares").write_bytes(content)
    assert read(second, 0) is None and read(second, 1) == [1]
    filled(second, range(1))
    assert read(DecodedStore("squares", 5, 12, None), 0) == [0]


@pytest.mark.parametrize(("most", "kept"), [(100, 5), (60, 3), (19, 0)])
def test_the_first_samples_that_fit_are_kept(folder: Path, most: int, kept: int) -> None:
    store = DecodedStore("squares", 5, 12, most)
    filled(store, range(5))
    assert [read(store, number) for number in range(5)] == [
        [number] if number < kept else None for number in range(5)
    ]


def test_less_room_than_before_is_kept_to(folder: Path) -> None:
    killed_other(folder)
    assert DecodedStore("squares", 5, 12, 60).records == 3


@pytest.mark.parametrize("obstacle", ["no room", "a link", "a locked folder"])
def test_without_shared_memory_a_process_keeps_its_own(
    folder: Path, obstacle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if obstacle == "no room":
        monkeypatch.setattr(decoded_store, "free_bytes", lambda _: 0)
    elif obstacle == "a link":
        folder.symlink_to(folder.parent)
    else:
        monkeypatch.setattr(decoded_store, "_LONGEST_WAIT", 0.1)
        monkeypatch.setattr(decoded_store, "_is_unused", lambda _: False)
    first, second = (DecodedStore("squares", 5, 12, None) for _ in range(2))
    filled(first, range(5))
    assert read(first, 4) == [4] and read(second, 4) is None
