"""Asks the questions of this folder and tells the answers beside their targets.

    python -m benchmarks [QUESTION ...] [--smoke] [--gpu] [--rounds 5] [--output FILE.json]

Each module with a function ``measure(scale) -> list[Table]`` is a question.
"""

import argparse
import contextlib
import importlib
import sys
import tempfile
import time
import traceback
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.comparing import Scale, Table, machine
from nakt_dist.runtime.files import write_json

QUESTIONS = (
    "attention", "augmentation", "evaluating", "indexes", "loading", "packing", "scaling",
    "starting", "teaching", "training",
)  # fmt: skip
_COMPARED = (
    "nakt_dist", "torchvision", "webdataset", "mosaicml-streaming", "litdata", "datasets", "ffcv",
    "kornia", "opencv-python-headless", "pillow", "pyarrow", "pandas",
)  # fmt: skip


def main(words: list[str] | None = None) -> int:
    """Asks, prints and stores; returns 1 if a question could not be asked."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__.split("\n\n")[0])
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--smoke", action="store_true", help="whether it runs, not how fast")
    parser.add_argument("--gpu", action="store_true", help="on the GPU, at the papers' sizes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON of everything measured")
    given = parser.parse_args(words)
    if unknown := [name for name in given.questions if name not in QUESTIONS]:
        parser.error(f"no question {', '.join(unknown)}; there are {', '.join(QUESTIONS)}")
    if given.gpu and not torch.cuda.is_available():
        parser.error("--gpu: torch finds no GPU on this machine")
    answers: dict[str, Any] = {}
    about = machine() | {"date": time.strftime("%Y-%m-%d")} | _versions()
    print(" | ".join(f"{name} {value}" for name, value in about.items()), "\n", flush=True)
    if given.smoke:
        print("a smoke test: its ratios and missed targets say nothing of speed\n", flush=True)
    tables: list[Table] = []
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        scale = Scale(Path(folder), given.smoke, given.gpu, given.rounds)
        for name in given.questions or QUESTIONS:
            begun = time.perf_counter()
            try:
                found = _ask(name, scale)
            except Exception:
                traceback.print_exc()
                failed.append(name)
                continue
            answers[name] = {
                "seconds": round(time.perf_counter() - begun, 1),
                "tables": [asdict(table) for table in found],
            }
            tables += found
            if given.output is not None:  # each time: a run takes long, and may be ended
                told = {"machine": about, "smoke": given.smoke, "answers": answers}
                write_json(given.output, told)
    print(_summary(tables))
    if failed:
        print(f"could not be asked: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _versions() -> dict[str, str]:
    """Returns the versions of this package and of what it is compared with, where installed."""
    found = {}
    for name in _COMPARED:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _ask(name: str, scale: Scale) -> list[Table]:
    module = importlib.import_module(f"benchmarks.{name}")
    print(f"## {name}: {(module.__doc__ or '').splitlines()[0]}\n", flush=True)
    tables = list(module.measure(scale))
    for table in tables:
        print(table.markdown(), flush=True)
    return tables


def _summary(tables: list[Table]) -> str:
    """Returns all ratios that have a target, as one table."""
    lines = ["## Targets", "", "| what | way | ratio | target | met |", "|---|---|---|---|---|"]
    for table in tables:
        for row in table.rows:
            if row.target is None:
                continue
            ratio = "?" if row.failed else f"{row.judged_ratio:.2f}"
            met = row.failed or ("yes" if row.target.is_met(row.judged_ratio) else "no")
            lines.append(f"| {table.title} | {row.way} | {ratio} | {row.target} | {met} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
