"""Packing that is killed at any moment and started again leaves what an undisturbed one leaves."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from nakt_dist.errors import DatasetError
from nakt_dist.stages import pack
from tests.datasets import publish_images
from tests.launching import NAKT, Death, Program, finish, program, run_ranks
from tests.recipes import file_hashes, pack_config

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

SHARDS = 16


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images large enough to be caught at work."""
    folder = tmp_path_factory.mktemp("published") / "images"
    return publish_images(folder, images=4 * SHARDS, height=512, width=512)


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    pack.run(pack_config(source, output))
    return file_hashes(output)


def words_of(source: Path, output: Path, workers: int) -> tuple[str, ...]:
    """The command line that means ``pack_config``."""
    return (
        *NAKT, "pack", "--layout=image_folder", f"--source={source}", f"--output={output}",
        "--image.height=64", "--image.width=64", "--samples_per_shard=4", f"--workers={workers}",
    )  # fmt: skip


def receipts(output: Path, at_least: int, of: str = "") -> Callable[[], bool]:
    """Asks for finished shards, or for the pieces of an earlier pass."""
    return lambda: len(list((output / ".pack" / of).glob("[0-9]*.json"))) >= at_least


def workers_of(packing: Program) -> list[psutil.Process]:
    return [each for each in packing.processes() if "spawn_main" in " ".join(each.cmdline())]


def test_a_kill_before_any_rename_changes_no_byte(tmp_path: Path) -> None:
    source = publish_images(tmp_path / "published")
    pack.run(pack_config(source, tmp_path / "undisturbed"))
    expected = file_hashes(tmp_path / "undisturbed")

    for rename in itertools.count(1):
        config = pack_config(source, tmp_path / str(rename))
        (outcome,) = run_ranks(config, death=Death(rename))
        if outcome.exitcode == 0:
            break
        finish(config)
        assert file_hashes(tmp_path / str(rename)) == expected, f"killed before rename {rename}"

    assert rename > 2 * 3 + 4  # three shards with receipts, two tables, configuration, manifest


@pytest.mark.parametrize(("finished_shards", "workers_then"), [(0, 1), (SHARDS // 2, 3)])
def test_all_processes_killed_in_the_middle_change_no_byte(
    source: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    finished_shards: int,
    workers_then: int,
) -> None:
    output = tmp_path / "out"
    with program(*words_of(source, output, workers=2), log=tmp_path / "log") as packing:
        packing.wait_until((output / ".pack").exists)
        packing.wait_until(receipts(output, finished_shards))
        packing.kill()
    assert not (output / "manifest.json").exists()

    pack.run(pack_config(source, output, workers_then))

    assert file_hashes(output) == undisturbed


def test_one_worker_killed_is_reported_and_the_work_goes_on_next_time(
    source: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "out"
    with program(*words_of(source, output, workers=2), log=tmp_path / "log") as packing:
        packing.wait_until(receipts(output, 2, "prepared"))
        workers_of(packing)[0].kill()
        status = packing.wait()
        assert not packing.orphans()
    assert status == 1
    assert "nakt: error: pack: a worker process was killed" in packing.output
    assert "Traceback" not in packing.output

    pack.run(pack_config(source, output))

    assert "images are read already" in capfd.readouterr().err
    assert file_hashes(output) == undisturbed


def test_workers_end_when_the_main_process_is_killed_alone(
    source: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with program(*words_of(source, output, workers=2), log=tmp_path / "log") as packing:
        packing.wait_until(receipts(output, 2, "prepared"))
        assert len(workers_of(packing)) == 2
        os.kill(packing.pid, signal.SIGKILL)
        packing.wait()
        assert not packing.orphans()

    pack.run(pack_config(source, output))

    assert file_hashes(output) == undisturbed


def test_an_interrupt_ends_without_a_traceback_and_the_work_goes_on_next_time(
    source: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with program(*words_of(source, output, workers=2), log=tmp_path / "log") as packing:
        packing.wait_until(receipts(output, 2, "prepared"))
        os.killpg(packing.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        status = packing.wait()
    assert status == 130
    assert "interrupted; run the same command again to go on" in packing.output
    assert "Traceback" not in packing.output

    pack.run(pack_config(source, output))

    assert file_hashes(output) == undisturbed


def test_of_two_packs_at_once_the_second_is_refused_and_the_first_unharmed(
    source: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with program(*words_of(source, output, workers=1), log=tmp_path / "log") as packing:
        packing.wait_until(receipts(output, 1))
        os.kill(packing.pid, signal.SIGSTOP)
        with pytest.raises(DatasetError, match="another pack is writing here right now"):
            pack.run(pack_config(source, output))
        os.kill(packing.pid, signal.SIGCONT)
        packing.succeed()

    assert file_hashes(output) == undisturbed


@pytest.mark.realdata
def test_real_busi_killed_in_the_middle_changes_no_byte(real_data: Path, tmp_path: Path) -> None:
    busi = Path(__file__).parents[2] / "configs" / "pack" / "busi.yaml"
    small = ("--image.height=32", "--image.width=32", "--workers=2")
    words = (*NAKT, "pack", f"--config={busi}", f"--source={real_data / 'busi'}", *small)
    with program(*words, f"--output={tmp_path / 'undisturbed'}", log=tmp_path / "log") as packing:
        packing.succeed()
    output = tmp_path / "out"

    with program(*words, f"--output={output}", log=tmp_path / "log") as packing:
        packing.wait_until(receipts(output, 3))
        packing.kill()
    assert not (output / "manifest.json").exists()
    with program(*words, f"--output={output}", log=tmp_path / "log") as packing:
        assert "images are read already" in packing.succeed()

    assert file_hashes(output) == file_hashes(tmp_path / "undisturbed")
