"""``launch/gpu_check.sh``: its quickest checks, on the CPU, and what it makes of bad ones."""

import contextlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from benchmarks.gpu_check import speed, training
from benchmarks.gpu_check.__main__ import Run, install
from benchmarks.gpu_check.parts import Findings, Place
from benchmarks.gpu_check.plan import CHECKS, Check

SCRIPT = Path(__file__).parents[2] / "launch" / "gpu_check.sh"


def gpu_check(*words: str, timeout: float = 150) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", str(SCRIPT), *words], env={**os.environ, "PYTHON": sys.executable},
        capture_output=True, text=True, timeout=timeout,
    )  # fmt: skip


def write_wheel(folder: Path, name: str, tag: str) -> None:
    """Writes a wheel that holds one empty module."""
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w") as wheel:
        about = f"{name}-1.0.dist-info"
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.mark.timeout(200)
def test_the_quickest_checks_pass_on_a_cpu_and_the_others_are_not_left_out(tmp_path: Path) -> None:
    only = ["step: masks", "full memory"]
    ended = gpu_check("--device", "cpu", "--output", str(tmp_path), "--only", *only)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = json.loads((tmp_path / "gpu_check.json").read_text())
    found = {each["name"]: each for each in result["checks"]}
    assert {name: each["status"] for name, each in found.items()} == {
        "machine": "passed", "prepare": "passed", "step: masks": "passed", "full memory": "absent",
    }  # fmt: skip
    assert result["machine"]["torch"] and result["summary"] == {
        "passed": 3, "failed": 0, "absent": 1,
    }  # fmt: skip
    assert found["full memory"]["reason"].startswith("needs a GPU: a CPU has no memory")
    step = found["step: masks"]
    assert step["numbers"]["float32: loss, relative"] == pytest.approx(0, abs=1e-6)
    assert 0 < step["numbers"]["bf16: loss, relative"] < 0.03
    assert step["tolerance"]["bf16: loss, relative"] == "at most 0.03"
    assert "passed" in ended.stdout and "3 passed, 0 failed, 1 absent" in ended.stdout


def test_the_speed_of_a_network_is_measured_in_every_way(tmp_path: Path) -> None:
    found = speed.throughput(Place("cpu", tmp_path), "densenet40")

    assert not found.failures
    assert found.headline.startswith("images/s learning and answering: float32 ")
    for way in ("float32", "bf16 channels_last"):
        assert found.numbers[way]["training"] > 0 and found.numbers[way]["inference"] > 0


def run_checks(tmp_path: Path, *checks: Check, seconds: float = 60) -> Any:
    (tmp_path / "work").mkdir()
    run = Run(checks, "cpu", tmp_path, tmp_path / "work", seconds, time.monotonic(), 1)
    result = run.run()
    assert json.loads((tmp_path / "gpu_check.json").read_text()) == result
    return {each["name"]: each for each in result["checks"]}


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A stand-in for Python that runs the check's function as a shell script, without imports."""
    stand_in = tmp_path / "python"
    stand_in.write_text('#!/bin/sh\nexec sh -c "$3" sh "$7"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    return tmp_path


ANSWER = 'echo \'{"status": "passed", "reason": "fine", "device": "cpu"}\' > "$1"'


def test_a_check_that_crashes_or_hangs_takes_no_other_along(programs: Path) -> None:
    found = run_checks(
        programs,
        Check("crashes", "echo dying words >&2; kill -9 $$"),
        Check("hangs", "sleep 1000 & sleep 1000", seconds=1),
        Check("fine", ANSWER),
    )
    assert found["crashes"]["status"] == "failed"
    assert found["crashes"]["reason"] == "ended with -9"
    assert "dying words" in found["crashes"]["error"]
    assert found["hangs"]["status"] == "failed"
    assert found["hangs"]["reason"] == "still ran after 1 s"
    assert found["hangs"]["seconds"] < 10
    assert found["fine"]["status"] == "passed"


def test_what_no_longer_fits_is_said_and_not_left_out(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu_check.__main__._LEAST_SECONDS", 0.5)
    found = run_checks(
        programs,
        Check("slow", "sleep 1000", seconds=1000),
        Check("later", ANSWER),
        seconds=1.5,
    )
    assert found["slow"]["reason"].startswith("no time left: stopped after")
    assert found["later"] | {"seconds": 0} == {
        "name": "later", "status": "absent", "reason": "no time left", "seconds": 0,
    }  # fmt: skip


def test_without_data_nothing_else_is_tried_and_all_of_it_is_said(programs: Path) -> None:
    found = run_checks(programs, Check("machine", "exit 3"), Check("chain", ANSWER))
    assert found["machine"]["reason"] == "ended with 3"
    assert found["chain"]["status"] == "absent"
    assert found["chain"]["reason"] == "not tried: the check 'machine' failed"


def test_a_number_that_is_none_fails_whatever_is_expected_of_it() -> None:
    found = Findings()
    found.expect("loss", float("nan"), at_most=1e9)
    found.expect("norm", 2.0, at_most=1.0)
    found.expect("cosine", 0.5, at_least=0.9)
    found.expect("fine", 0.5, at_most=1.0, at_least=0.1)
    assert [each.split()[0] for each in found.failures] == ["loss", "norm", "cosine"]
    assert found.failures[2] == "cosine is 0.5, expected at least 0.9"


def test_a_step_that_learns_something_else_fails_in_every_precision() -> None:
    expected = training.Step(1.0, torch.tensor([3.0, 4.0], dtype=torch.float64))
    for name, precision in training.PRECISIONS.items():
        for step, told in (
            (training.Step(1.1, expected.gradient), "loss, relative"),
            (training.Step(1.0, 1.3 * expected.gradient), "gradient norm, relative"),
            (training.Step(1.0, expected.gradient.flip(0) * torch.tensor([1, -1])), "cosine"),
        ):
            found = Findings()
            training._judge(found, name, precision, step, expected)
            (failure,) = found.failures
            assert failure.startswith(f"{name}: {told}")


def test_wheels_are_used_without_touching_this_python_and_unfit_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "wheels", "nakt_probe_fits", "py3-none-any")
    write_wheel(tmp_path / "wheels", "nakt_probe_unfit", "cp27-cp27m-win32")
    ended = gpu_check(
        "--wheels", str(tmp_path / "wheels"), "--output", str(tmp_path), "--device", "cpu",
        "--seconds", "1",
    )  # fmt: skip
    assert ended.returncode == 1  # nothing passed: there was no time
    assert "goes on without nakt_probe_unfit" in ended.stdout
    assert "nakt_probe_fits" not in ended.stdout
    result = json.loads((tmp_path / "gpu_check.json").read_text())
    assert {each["reason"].split(":")[0] for each in result["checks"]} == {
        "no time left", "needs a GPU",
    }  # fmt: skip
    assert len(result["checks"]) == len(CHECKS)

    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    install(tmp_path / "wheels", tmp_path / "site")
    script = "import nakt_probe_fits; print(nakt_probe_fits.__file__)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout.strip() == str(tmp_path / "site" / "nakt_probe_fits.py")


def test_a_run_that_is_asked_to_leave_takes_its_processes_along(tmp_path: Path) -> None:
    words = ["bash", str(SCRIPT), "--device", "cpu", "--output", str(tmp_path), "--only", "chain"]
    started = subprocess.Popen(
        words, env={**os.environ, "PYTHON": sys.executable}, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        children: list[psutil.Process] = []
        while not children:
            assert time.monotonic() < deadline and started.poll() is None
            with contextlib.suppress(psutil.NoSuchProcess):
                of_it = psutil.Process(started.pid).children()
                children = [each for each in of_it if "benchmarks.gpu_check.one" in each.cmdline()]
            time.sleep(0.05)
        started.terminate()
        assert started.wait(30) == 143
        assert not psutil.wait_procs(children, timeout=10)[1]
    finally:
        started.kill()
        started.wait()


def test_an_unknown_check_or_folder_is_one_line(tmp_path: Path) -> None:
    for words, told in (
        (["--only", "stepp"], "no check is called stepp; known: machine"),
        (["--wheels", str(tmp_path / "absent")], "expected a folder of .whl files"),
    ):
        ended = gpu_check(*words, "--output", str(tmp_path / "out"))
        assert ended.returncode != 0 and told in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()
