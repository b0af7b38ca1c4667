"""How fast nakt watch opens many runs, how soon it shows a new line, and what watching costs.

    python benchmarks/watching.py [--runs 1000] [--seconds 30]

One training and one evaluation on phantoms are real; their files are copied for every run, with
seed and weights of its own. Half of the runs are trainings of 500 lines, half evaluations.
Then as many trainings that go on are added, of which some write a line each second.
"""

import argparse
import json
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

NAKT = (sys.executable, "-m", "nakt_dist")
LINES = 500


def real_runs(folder: Path) -> tuple[Path, Path]:
    """Trains and evaluates one small network on phantoms; returns both outputs."""
    published, shards = folder / "published", folder / "shards"
    train, test = folder / "train", folder / "test"
    form = ["--image.height=32", "--image.width=32", "--workers=1"]
    data = [f"--data.dataset={shards}", "--data.splits=[train]", f"--validation.dataset={shards}"]
    small = ["--model.name=unet", "--model.options={base_channels: 4}", "--device=cpu"]
    stages = [
        ["phantoms", "--kind=thyroid_ultrasound", f"--output={published}", "--count=60"],
        ["pack", "--layout=paired_folders", f"--source={published}", f"--output={shards}", *form],
        ["train", f"--output={train}", *data, *small, "--recipe.steps=20"],
        ["evaluate", f"--weights={train}", f"--dataset={shards}", f"--output={test}"],
    ]
    for words in stages:
        subprocess.run([*NAKT, *words], check=True, stdout=subprocess.DEVNULL)
    return train, test


def metrics(steps: int) -> str:
    """Returns a training's lines up to a step."""
    lines = []
    for step in range(1, steps + 1):
        loss = 1 / (1 + step / 50)
        lines.append(json.dumps({"step": step, "epoch": step // 25, "loss": loss, "dice_loss": loss,
                                 "cross_entropy": loss / 2}))  # fmt: skip
        if step % 25 == 0:
            lines.append(json.dumps({"step": step, "validation_dice": 1 - loss, "best_dice": 0.9}))
    return "".join(f"{line}\n" for line in lines)


def copy(source: Path, target: Path, number: int) -> None:
    """Copies a finished run as that of another seed, with weights of its own."""
    target.mkdir(parents=True)
    weights = set(re.findall(r'weights_sha256": "(\w{64})"', (source / "record.json").read_text()))
    for path in source.iterdir():
        if path.suffix not in (".json", ".yaml"):
            continue
        text = path.read_text().replace('"seed": 0', f'"seed": {number}')
        for each in weights:
            text = text.replace(each, f"{number:08x}{each[8:]}")
        (target / path.name).write_text(text.replace(str(source), str(target)))


def finished(folder: Path, train: Path, test: Path, runs: int) -> None:
    """Writes finished runs: trainings and evaluations in equal parts."""
    lines = metrics(LINES)
    for number in range(runs // 2):
        copy(train, folder / "runs" / f"network-{number}", number)
        (folder / "runs" / f"network-{number}" / "metrics.jsonl").write_text(lines)
        copy(test, folder / "tests" / f"network-{number}", number)


def live(folder: Path, train: Path, runs: int) -> list[Path]:
    """Writes trainings that go on; returns their metrics.jsonl."""
    lines = metrics(100)
    paths = []
    for number in range(runs):
        target = folder / "live" / f"network-{number}"
        target.mkdir(parents=True)
        for name in ("config.yaml", "identity.json"):
            shutil.copy(train / name, target / name)
        (target / "metrics.jsonl").write_text(lines)
        paths.append(target / "metrics.jsonl")
    return paths


class Watched:
    """A ``nakt watch`` of a folder, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._begun = time.perf_counter()
        words = ["watch", str(folder), "--port=0", "--token=false"]
        self._process = subprocess.Popen([*NAKT, *words], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        self._url = line.split(" at ")[1].split()[0]
        self._version, self._epoch = 0, ""

    def ask(self, wait: int = 0) -> dict:
        """Asks as the page does: for what is new, waiting for it."""
        query = f"since={self._version}&epoch={self._epoch}&wait={wait}"
        with urllib.request.urlopen(f"{self._url}api/study?{query}") as answer:
            told = json.load(answer)
        self._version, self._epoch = told["version"], told["epoch"]
        return told

    def until_read(self, runs: int) -> tuple[float, float]:
        """Returns the seconds until the page has anything, and until all runs are read."""
        known: set[str] = set()
        first = 0.0
        while True:
            told = self.ask(wait=1)
            known |= {run["id"] for run in told["runs"]}
            first = first or time.perf_counter() - self._begun
            if told["unread"] == 0 and len(known) == runs:
                return first, time.perf_counter() - self._begun

    def share(self, seconds: float, each_second: list[Path], is_open: bool) -> float:
        """Returns the share of a core that it takes while files grow and a page is open."""
        process = psutil.Process(self._process.pid)
        begun, before = time.perf_counter(), sum(process.cpu_times()[:2])
        step = 1000
        while time.perf_counter() < begun + seconds:
            step += 1
            for path in each_second:
                append(path, step)
            if is_open:
                self.ask()
            time.sleep(1.0)
        used = sum(process.cpu_times()[:2]) - before
        return used / (time.perf_counter() - begun)

    def latency(self, path: Path, step: int) -> float:
        """Returns the seconds from a new line to the answer that holds it."""
        begun = time.perf_counter()
        append(path, step)
        name = str(path.parent.name)
        while True:
            told = self.ask(wait=5)
            if any(run["name"].endswith(f"/{name}") and run["done_steps"] == step
                   for run in told["runs"]):  # fmt: skip
                return time.perf_counter() - begun

    def end(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(20)


def append(path: Path, step: int) -> None:
    """Adds a line."""
    with path.open("a") as stream:
        stream.write(json.dumps({"step": step, "loss": 0.1}) + "\n")


def main() -> None:
    """Measures, and prints a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        train, test = real_runs(root / "made")
        finished(root / "done", train, test, given.runs)
        begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        subprocess.run([*NAKT, "watch", str(root / "done"), "--once"], check=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
        took = time.perf_counter() - begun
        print(f"--once of {given.runs} finished: {took:.1f} s, {used:.1f} s of a core")
        watched = Watched(root / "done")
        first, whole = watched.until_read(given.runs)
        print(f"page of {given.runs} finished: first runs {first:.1f} s, all {whole:.1f} s")
        time.sleep(15)  # it judges the evaluations meanwhile
        print(f"finished, no page: {watched.share(given.seconds, [], False):.1%} of a core")
        print(f"finished, page open: {watched.share(given.seconds, [], True):.1%}")
        watched.end()
        growing = live(root / "going", train, given.runs)
        watched = Watched(root / "going")
        watched.until_read(given.runs)
        print(f"going on, silent, page open: {watched.share(given.seconds, [], True):.1%}")
        busy = watched.share(given.seconds, growing[:10], True)
        print(f"going on, 10 lines a second, page open: {busy:.1%}")
        waits = []
        for step in range(5000, 5020):
            time.sleep(random.uniform(0, 1.5))
            waits.append(watched.latency(random.choice(growing), step))
        print(f"a new line: {statistics.median(waits):.2f} s, at most {max(waits):.2f} s")
        watched.end()


if __name__ == "__main__":
    main()
