"""Packing in several processes: the same bytes for any number, whoever dies and comes back."""

import fcntl
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nakt_dist.runtime.machine import is_locked
from nakt_dist.runtime.work import WorkLedger
from nakt_dist.stages import pack, pack_pool
from nakt_dist.stages.pack_pool import Workers
from tests.datasets import publish_images
from tests.faults.chaos_launches import ForkedLaunch
from tests.launching import (
    Death,
    DeathBesideASlowRank,
    errors_of,
    finish,
    program,
    run_ranks,
    torchrun,
)
from tests.recipes import file_hashes, pack_config

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(240)]

IMAGES = 48


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with masks, a copy and one that cannot be read; large enough to be caught at work."""
    folder = tmp_path_factory.mktemp("published") / "images"
    publish_images(folder, images=IMAGES, height=384, width=384)
    (folder / "image_003.png").write_bytes((folder / "image_030.png").read_bytes())
    (folder / "image_017.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def one_process(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one uninterrupted process gives."""
    output = tmp_path_factory.mktemp("one") / "out"
    pack.run(pack_config(source, output))
    return file_hashes(output)


def words_of(source: Path, output: Path, workers: int) -> tuple[str, ...]:
    """The command line that means ``pack_config``."""
    return (
        "pack", "--layout=image_folder", f"--source={source}", f"--output={output}",
        "--image.height=64", "--image.width=64", "--samples_per_shard=4", f"--workers={workers}",
    )  # fmt: skip


def receipts(output: Path, of: str, at_least: int) -> Callable[[], bool]:
    return lambda: len(list((output / ".pack" / of).glob("[0-9]*.json"))) >= at_least


@pytest.mark.parametrize("world_size", [2, 5])
def test_any_number_of_processes_gives_the_same_bytes(
    source: Path, one_process: dict[str, str], tmp_path: Path, world_size: int
) -> None:
    records = finish(pack_config(source, tmp_path / "out"), world_size)

    assert file_hashes(tmp_path / "out") == one_process
    for record in records:
        assert record.counts["packed"] + record.counts["rejected"] == IMAGES


@pytest.mark.parametrize("rename", [1, 2, 4, 9, 15, 25])
def test_one_rank_killed_alone_does_not_stop_the_other(
    source: Path, one_process: dict[str, str], tmp_path: Path, rename: int
) -> None:
    config = pack_config(source, tmp_path / "out")

    outcomes = run_ranks(config, 2, death=DeathBesideASlowRank(Death(rename, rank=rename % 2)))

    assert sorted(outcome.exitcode for outcome in outcomes) == [-9, 0]
    assert file_hashes(tmp_path / "out") == one_process


def test_ranks_that_never_start_are_not_waited_for(
    source: Path, one_process: dict[str, str], tmp_path: Path
) -> None:
    run_ranks(pack_config(source, tmp_path / "out"), 3, only=[1])

    assert file_hashes(tmp_path / "out") == one_process


def test_killed_under_torchrun_and_started_again_in_another_number(
    source: Path, one_process: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with program(*torchrun(3), *words_of(source, output, 1), log=tmp_path / "log") as packing:
        packing.wait_until(receipts(output, "prepared", 5))
        assert packing.ranks().keys() == {0, 1, 2}
        packing.kill()

    assert_gone_on_by_two(source, output, one_process, workers=1)


@pytest.mark.parametrize(
    ("of", "finished", "workers"), [("masks", 2, 1), (".", 5, 2)], ids=["masks", "shards"]
)
def test_killed_together_and_started_again_in_another_number(
    source: Path, one_process: dict[str, str], tmp_path: Path, of: str, finished: int, workers: int
) -> None:
    output = tmp_path / "out"
    with launched(source, output, 3) as packing:
        packing.wait_until(receipts(output, of, finished))
        assert packing.members().keys() == {"rank 0", "rank 1", "rank 2"}
        packing.kill(None)

    assert_gone_on_by_two(source, output, one_process, workers)


def launched(source: Path, output: Path, world_size: int, workers: int = 1) -> ForkedLaunch:
    words, log = words_of(source, output, workers), output.with_name(f"{world_size}.log")
    return ForkedLaunch(words, world_size, log, stop_together=False)


def assert_gone_on_by_two(
    source: Path, output: Path, one_process: dict[str, str], workers: int
) -> None:
    """Starts it again as two processes with so many workers each."""
    assert not (output / "manifest.json").exists()
    with launched(source, output, 2, workers) as packing:
        packing.finish(120)
    printed = packing.printed

    assert packing.statuses() == {"rank 0": 0, "rank 1": 0}, printed
    assert "nakt: error" not in printed
    assert printed.count(f"samples in {output}") == 1
    assert file_hashes(output) == one_process


def test_a_second_launch_is_refused_and_the_first_unharmed(
    source: Path, one_process: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with launched(source, output, 2) as packing:
        packing.wait_until(lambda: is_locked(output / ".lock"))
        first = packing.members()["rank 0"]
        os.kill(first, signal.SIGSTOP)
        (message,) = errors_of(pack_config(source, output))
        os.kill(first, signal.SIGCONT)
        packing.finish(120)
    packing.check()

    assert f"{output}: another pack is writing here right now" in message
    assert file_hashes(output) == one_process


def test_masks_that_say_nothing_are_refused_by_every_process(tmp_path: Path) -> None:
    folder = publish_images(tmp_path / "published", images=8)
    for number, path in enumerate(sorted(folder.glob("*_mask.png"))):
        levels = np.random.default_rng(number).integers(0, 5, (32, 32), dtype=np.uint8)
        Image.fromarray(40 * levels).save(path)

    errors = errors_of(pack_config(folder, tmp_path / "out"), 2)

    assert any("mask" in error for error in errors)
    assert not (tmp_path / "out" / ".pack").exists()


def do(ledger: WorkLedger, piece: int) -> None:
    ledger.finish(piece, {})


def test_the_piece_of_a_process_that_hangs_is_done_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack_pool, "_PATIENCE_SECONDS", 0.3)
    ledger = WorkLedger(tmp_path / ".pack", {}, 3)
    ledger.open()
    with (ledger.folder / "000001.lock").open("w") as hung, Workers(1) as workers:
        fcntl.flock(hung, fcntl.LOCK_EX)
        done = list(
            workers.complete(ledger, ledger.unsound(lambda _: True), do, lambda n: (ledger, n))
        )

    assert done == [0, 2, 1]
    assert ledger.is_complete()


def test_a_piece_that_does_not_stand_as_its_receipt_says_is_done_once_by_somebody(
    tmp_path: Path,
) -> None:
    ledger = WorkLedger(tmp_path / ".pack", {}, 3)
    ledger.open()
    for piece in range(3):
        ledger.finish(piece, {})
    unsound = ledger.unsound(lambda piece: piece == 0)
    assert unsound.keys() == {1, 2}
    ledger.finish(2, {})  # by another process
    called = []

    with Workers(1) as workers:
        done = list(
            workers.complete(
                ledger, unsound, lambda n: called.append(n) or do(ledger, n), lambda n: (n,)
            )
        )

    assert (sorted(done), called) == ([1, 2], [1])
