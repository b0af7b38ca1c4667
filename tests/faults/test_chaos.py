"""Chaos in short, and whether it would notice what it looks for."""

import json
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nakt_dist.records.run_record import RunRecord
from tests.datasets import make_packed_dataset
from tests.faults import chaos_rounds
from tests.faults.chaos_cases import Case, packed_keys, trained_steps
from tests.faults.chaos_launches import ForkedLaunch, LaunchError
from tests.faults.chaos_rounds import Round, main
from tests.faults.chaos_verdict import Verdict, judge

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]


@pytest.mark.parametrize(
    ("stage", "kills", "world", "images"),
    [
        ("pack", 3, 2, 48),
        ("teach", 4, 3, 72),
        ("classes", 2, 2, 48),
        ("findings", 2, 2, 48),
        ("train", 3, 2, 10),
        ("evaluate", 3, 2, 192),
    ],
)
def test_a_stage_killed_at_random_moments_loses_and_changes_nothing(
    capsys: pytest.CaptureFixture[str], stage: str, kills: int, world: int, images: int
) -> None:
    options = {"kills": kills, "seed": 1, "world": world, "images": images}
    words = [f"--{name}={value}" for name, value in options.items()]

    status = main([stage, *words])

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "lost 0, duplicated 0, identical yes", lines
    assert status == 0
    assert sum(line.count(" s (") for line in lines if line.startswith("round-")) == kills


# ------------------------------------------------------------------------ what it notices


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images in three shards."""
    return make_packed_dataset(tmp_path_factory.mktemp("chaos"), splits={"train": 1.0})


@pytest.fixture
def output(undisturbed: Path, tmp_path: Path) -> Path:
    """A copy, to damage."""
    return shutil.copytree(undisturbed, tmp_path / "out")


PACKING = Case(
    stage="pack",
    world=1,
    words=(),
    expected=tuple(f"image_{number:03d}" for number in range(12)),
    found=packed_keys,
    pieces=3,
    done=lambda output: 3,
    last="manifest.json",
)


def test_a_copy_is_as_good_as_what_it_was_copied_from(output: Path, undisturbed: Path) -> None:
    verdict = judge(PACKING, output, undisturbed)

    assert verdict.is_clean
    assert str(verdict) == "lost 0, duplicated 0, identical yes"


def test_the_keys_of_a_shard_that_is_gone_are_lost(output: Path, undisturbed: Path) -> None:
    (output / "train-000001.tar").unlink()

    assert str(judge(PACKING, output, undisturbed)) == "lost 4, duplicated 0, identical no"


def test_the_keys_of_a_shard_that_is_there_twice_are_duplicated(
    output: Path, undisturbed: Path
) -> None:
    shutil.copy(output / "train-000001.tar", output / "train-000003.tar")

    assert str(judge(PACKING, output, undisturbed)) == "lost 0, duplicated 4, identical no"


def test_one_changed_byte_and_one_file_left_over_are_not_identical(
    output: Path, undisturbed: Path
) -> None:
    config = output / "config.yaml"
    config.write_bytes(config.read_bytes() + b"\n")
    (output / ".lock").touch()

    verdict = judge(PACKING, output, undisturbed)

    assert str(verdict) == "lost 0, duplicated 0, identical no"
    assert verdict.differing == (".lock", "config.yaml")


def test_a_key_that_is_lost_in_every_run_is_lost_nevertheless(undisturbed: Path) -> None:
    case = replace(PACKING, expected=(*PACKING.expected, "image_012"))

    assert judge(case, undisturbed, undisturbed).lost == ("image_012",)


def test_steps_that_are_left_out_or_done_twice_are_counted(tmp_path: Path) -> None:
    case = replace(PACKING, expected=("1", "2", "3"), found=trained_steps)
    for name, steps in (("undisturbed", (1, 2, 3)), ("out", (1, 1, 3))):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"step": step, "keys": []}) for step in steps]
        (tmp_path / name / "batches.jsonl").write_text("\n".join(lines) + "\n")

    verdict = judge(case, tmp_path / "out", tmp_path / "undisturbed")

    assert (verdict.lost, verdict.duplicated) == (("2",), ("1",))
    assert verdict.differing == ("batches.jsonl",)


@pytest.mark.parametrize("part", ["inputs", "counts", "metrics", "details"])
def test_a_record_that_says_something_else_is_not_identical(part: str, tmp_path: Path) -> None:
    for name in ("out", "undisturbed"):
        record = RunRecord("train", "out", config={}, metrics={"steps_now": len(name)})
        if name == "out":
            record = replace(record, **{part: {"images": 1}})
        (tmp_path / name).mkdir()
        record.write(tmp_path / name)
    case = replace(PACKING, last="record.json", changing=("record.json",))
    case = replace(case, expected=(), found=lambda _: [])

    verdict = judge(case, tmp_path / "out", tmp_path / "undisturbed")

    assert verdict.differing == ("the results in record.json",)


def test_chaos_without_a_kill_is_refused() -> None:
    with pytest.raises(SystemExit):
        main(["pack", "--kills", "0"])


def test_what_is_wrong_is_said_and_the_status_is_not_zero(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = Round(1, (), Verdict(("a", "b"), (), ("index.parquet",)))
    good = Round(1, (), Verdict())
    monkeypatch.setattr(chaos_rounds, "make_case", lambda *_: PACKING)
    monkeypatch.setattr(chaos_rounds, "run_rounds", lambda *_: [good, bad])

    assert main(["pack"]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "lost 2, duplicated 0, identical no"
    assert "lost: a, b" in lines
    assert "differs: index.parquet" in lines
    kept = Path(lines[-2].removeprefix("what is there: "))
    kept.rmdir()


# --------------------------------------------------------------------------- its launches


def test_a_launch_that_hangs_is_an_error_and_is_ended(undisturbed: Path, tmp_path: Path) -> None:
    launch = ForkedLaunch(["verify", str(undisturbed)], 1, tmp_path / "log", stop_together=False)
    with launch:
        (pid,) = launch.members().values()
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(LaunchError, match="still running after 1 s"):
            launch.finish(1)

    assert not launch.members()


def test_a_launch_that_fails_by_itself_is_an_error_with_what_it_printed(tmp_path: Path) -> None:
    words = ["verify", str(tmp_path / "absent")]
    launch = ForkedLaunch(words, 1, tmp_path / "log", stop_together=False)
    with launch:
        launch.finish(60)

    with pytest.raises(LaunchError, match=r"(?s)'rank 0': 1.*nakt: error: .*absent"):
        launch.check()


def test_a_whole_job_is_killed_with_the_processes_that_its_ranks_have_started(
    undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    words = (
        "train", f"--output={output}", f"--data.dataset={undisturbed}", "--recipe.steps=100000",
        "--recipe.global_batch_size=4", "--model.name=unet", '--model.options={"base_channels": 4}',
        "--device=cpu", "--threads=1", "--workers=1", "--log_keys=true",
    )  # fmt: skip
    with ForkedLaunch(words, 2, tmp_path / "log", stop_together=True) as launch:
        deadline = time.monotonic() + 120
        while not trained_steps(output):
            assert not launch.wait(0.01), launch.printed
            assert time.monotonic() < deadline, launch.printed
        before = launch.processes()
        assert launch.kill(None)
        deadline = time.monotonic() + 3
        while left := launch.processes():
            assert time.monotonic() < deadline, left
            time.sleep(0.05)

    assert len(before) >= 2
    assert launch.killed == ["rank 0", "rank 1"]
