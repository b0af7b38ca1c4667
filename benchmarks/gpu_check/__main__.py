"""What works on a GPU of this machine, within a time that is kept, in one JSON.

    bash launch/gpu_check.sh [--wheels FOLDER] [--output FOLDER] [--device auto|cuda|cpu]
        [--seconds 480] [--parallel N] [--only CHECK …] [--list]

Each check is a process with a time of its own, so that one that crashes or hangs takes no other
along. A check is passed, failed, or absent with a reason: not possible on this machine, or no time
left. The JSON is written anew after each, so that it is there whatever happens. The exit status is
1 when a check failed, or when none passed.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks.gpu_check.plan import CHECKS, FIRST, Check

ROOT = Path(__file__).parents[2]
RESULT_NAME = "gpu_check.json"
_LEAST_SECONDS = 8
_NO_TIME = "no time left"


class Run:
    """One run of the checks.

    Args:
        checks: in this order.
        device: ``auto``, ``cuda`` or ``cpu``; that of the machine once it is known.
        output: folder for the JSON.
        work: folder for all else.
        seconds: of all together.
        started: when they began to count, as ``time.monotonic`` tells it.
        parallel: how many run side by side; None for up to 4 on a GPU, as cores allow, else 2.
    """

    def __init__(
        self,
        checks: Sequence[Check],
        device: str,
        output: Path,
        work: Path,
        seconds: float,
        started: float,
        parallel: int | None,
    ) -> None:
        self._checks = checks
        self.device = device
        self._path, self._work = output / RESULT_NAME, work
        self._seconds, self._started = seconds, started
        self._parallel = parallel
        self._answers: dict[str, dict[str, Any]] = {}
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False
        self._lock = threading.Lock()
        self._date = datetime.now(UTC).isoformat(timespec="seconds")

    def run(self) -> dict[str, Any]:
        """Runs all checks; returns what the JSON holds."""
        try:
            self._run()
        finally:
            self._stop()
        return self._write()

    def _stop(self) -> None:
        """Ends what runs, and lets nothing else begin."""
        self._is_stopped = True
        for process in list(self._running):
            _end(process)

    def _run(self) -> None:
        for check in self._checks:
            if check.name in FIRST and not self._run_one(check):
                for other in self._checks:
                    why = f"not tried: the check '{check.name}' failed"
                    self._answers.setdefault(other.name, {"status": "absent", "reason": why})
                return
        cores = len(os.sched_getaffinity(0))
        many = self._parallel or (max(1, min(4, cores // 4)) if self.device == "cuda" else 2)
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // many)))
        rest = [check for check in self._checks if check.name not in FIRST]
        # Without a GPU the numbers of those that want to be alone mean nothing anyway.
        for alone, group in groupby(rest, lambda check: check.alone and self.device == "cuda"):
            self._run_group(list(group), 1 if alone else many)

    def _run_group(self, checks: Sequence[Check], many: int) -> None:
        """Runs checks side by side."""
        with ThreadPoolExecutor(many) as pool:
            try:
                list(pool.map(self._run_one, checks))
            except BaseException:  # the pool waits for its threads, and they for their processes
                self._stop()
                raise

    def _run_one(self, check: Check) -> bool:
        """Runs a check in a process of its own; says whether it did not fail."""
        left = self._seconds - (time.monotonic() - self._started)
        started = time.monotonic()
        if check.why_gpu and self.device == "cpu":
            found = {"status": "absent", "reason": f"needs a GPU: {check.why_gpu}"}
        elif self._is_stopped or left < _LEAST_SECONDS:
            found = {"status": "absent", "reason": _NO_TIME}
        else:
            found = self._start(check, min(check.seconds, left), left < check.seconds)
        found["seconds"] = round(time.monotonic() - started, 1)
        self.device = found.pop("device", self.device)
        with self._lock:
            self._answers[check.name] = found
            self._write()
            print(_line(check.name, found), flush=True)
        return found["status"] != "failed"

    def _start(self, check: Check, seconds: float, is_cut: bool) -> dict[str, Any]:
        name = "".join(letter if letter.isalnum() else "-" for letter in check.name)
        answer, log = self._work / f"{name}.json", self._work / f"{name}.log"
        words = [
            sys.executable, "-m", "benchmarks.gpu_check.one", check.function,
            check.argument or "", self.device, str(self._work), str(answer),
        ]  # fmt: skip
        with log.open("wb") as stream:
            process = subprocess.Popen(
                words, cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True
            )
        self._running.add(process)
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _end(process)
            self._running.discard(process)
        if answer.exists():
            return json.loads(answer.read_text())
        said = log.read_text(errors="replace")[-4000:]
        if status is None and is_cut:
            return {"status": "absent", "reason": f"{_NO_TIME}: stopped after {seconds:.0f} s"}
        why = f"still ran after {seconds:.0f} s" if status is None else f"ended with {status}"
        return {"status": "failed", "reason": why, "error": said}

    def _write(self) -> dict[str, Any]:
        """Writes the JSON as it stands; what has not run yet is there as such."""
        answers = {
            check.name: self._answers.get(check.name, {"status": "absent", "reason": _NO_TIME})
            for check in self._checks
        }
        counts = {
            status: sum(each["status"] == status for each in answers.values())
            for status in ("passed", "failed", "absent")
        }
        result = {
            "format": 1,
            "date": self._date,
            "seconds": round(time.monotonic() - self._started, 1),
            "seconds allowed": self._seconds,
            "device": self.device,
            "machine": answers.get("machine", {}).get("numbers", {}),
            "summary": counts,
            "checks": [{"name": name, **found} for name, found in answers.items()],
        }
        aside = self._path.with_suffix(".tmp")
        aside.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
        aside.replace(self._path)
        return result


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a check and all that it started; they are a process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _line(name: str, found: dict[str, Any]) -> str:
    return f"{found['status']:7} {found['seconds']:6.1f} s  {name:32} {found['reason'][:300]}"


def install(wheels: Path, site: Path) -> None:
    """Unpacks wheels where the checks find them before all else; asks no registry."""
    pip = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--no-index", "--no-deps", "--no-compile", "--upgrade", "--target", str(site),
    ]  # fmt: skip
    paths = sorted(map(str, wheels.glob("*.whl")))
    # Where one is for another Python, pip takes none of them: then one by one.
    if paths and subprocess.run([*pip, *paths], capture_output=True).returncode:
        for path in paths:
            ended = subprocess.run([*pip, path], capture_output=True, text=True)
            if ended.returncode:
                why = " ".join(ended.stderr.split())[:200]
                print(f"gpu_check: goes on without {Path(path).name}: {why}", flush=True)
    os.environ["PYTHONPATH"] = f"{site}:{os.environ.get('PYTHONPATH', '')}"


def _choose(only: Sequence[str] | None) -> list[Check]:
    """Returns the checks to run: all, or the named ones and what they rest on."""
    unknown = set(only or ()) - {check.name for check in CHECKS}
    if unknown:
        known = ", ".join(check.name for check in CHECKS)
        raise SystemExit(f"gpu_check: no check is called {', '.join(unknown)}; known: {known}")
    return [check for check in CHECKS if only is None or check.name in {*FIRST, *only}]


def main() -> None:
    """Runs the checks, prints a line for each, and ends with 1 when one failed."""
    words = argparse.ArgumentParser(
        prog="gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    words.add_argument("--output", type=Path, default=ROOT / "runs" / "gpu_check")
    words.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto")
    words.add_argument("--seconds", type=float, default=480.0)
    words.add_argument("--wheels", type=Path, help="folder of packages that this Python lacks")
    words.add_argument("--parallel", type=int)
    words.add_argument("--only", nargs="+", metavar="CHECK")
    words.add_argument("--list", action="store_true", help="names the checks and ends")
    asked = words.parse_args()
    checks = _choose(asked.only)
    if asked.list:
        print("\n".join(check.name for check in checks))
        return
    started = time.monotonic()
    if asked.wheels is not None and not asked.wheels.is_dir():
        words.error(f"--wheels is '{asked.wheels}', expected a folder of .whl files")
    asked.output.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        # What torch compiles, and what other libraries would fetch, leaves no trace outside.
        os.environ |= {"TORCHINDUCTOR_CACHE_DIR": f"{work}/inductor", "HF_HUB_OFFLINE": "1",
                       "TRITON_CACHE_DIR": f"{work}/triton", "WANDB_MODE": "offline"}  # fmt: skip
        if asked.wheels is not None:
            install(asked.wheels, Path(work) / "site")
        run = Run(
            checks, asked.device, asked.output, Path(work), asked.seconds, started, asked.parallel
        )
        result = run.run()
    counts = result["summary"]
    print(
        f"{counts['passed']} passed, {counts['failed']} failed, {counts['absent']} absent in "
        f"{result['seconds']:.0f} s: {asked.output / RESULT_NAME}"
    )
    sys.exit(counts["failed"] > 0 or not counts["passed"])


if __name__ == "__main__":
    main()
