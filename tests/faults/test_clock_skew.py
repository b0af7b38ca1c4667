"""Clocks that are wrong, on one machine or between several, change nothing."""

import ast
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nakt_dist
from nakt_dist.config import (
    ImageConfig,
    PackConfig,
    ValidationConfig,
)
from nakt_dist.stages import evaluate, pack, teach, train
from nakt_dist.stages.pack_sources import TIMES_NAME
from tests.launching import Death, finish, run_ranks
from tests.recipes import evaluate_config, file_hashes, teach_config, train_config

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

TEN_YEARS = 10 * 365 * 86400.0
CLOCKS = {
    "time": {"time", "time_ns", "localtime", "gmtime", "ctime", "strftime"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}
TIMES_OF_FILES = {
    "st_mtime", "st_mtime_ns", "st_ctime", "st_ctime_ns", "st_atime", "st_atime_ns", "getmtime",
    "getctime", "getatime",
}  # fmt: skip
COMPARED_FOR_EQUALITY_ONLY = {
    "stages/pack_sources.py", "shards/index_file.py", "predicting/listing.py",
}  # fmt: skip
# What they tell people holds times; a study besides looks again at runs that may be of old inputs,
# and their stages, which ask no clock, say whether they are.
TELL_PEOPLE = (
    "watch/", "stages/watch.py", "mirroring/", "studies/", "runtime/rank_textfile.py",
    "training/pace.py",
)  # fmt: skip


def uses_of_clocks(path: Path) -> Iterator[str]:
    """Names what a module reads of the calendar clock and of the times of files."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else None
            owner = node.value.id if isinstance(node.value, ast.Name) else owner
            if node.attr in TIMES_OF_FILES or node.attr in CLOCKS.get(owner, ()):
                yield f"{path.name}:{node.lineno} {node.attr}"
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (
                f"{path.name}:{node.lineno} {each.name}"
                for each in node.names
                if each.name in CLOCKS["time"]
            )


def test_no_module_asks_what_time_it_is() -> None:
    package = Path(nakt_dist.__file__).parent
    found = {
        str(path.relative_to(package)): uses
        for path in sorted(package.rglob("*.py"))
        if (uses := list(uses_of_clocks(path)))
    }

    # Whether a source or an index may have changed since it was read: no clock is compared.
    deciding = {path for path in found if not path.startswith(TELL_PEOPLE)}
    assert deciding <= COMPARED_FOR_EQUALITY_ONLY, found


@pytest.mark.parametrize(
    "text",
    [
        "import time\ntime.time()", "from time import time_ns\n", "path.stat().st_mtime\n",
        "import datetime\ndatetime.datetime.now()\n", "import os\nos.path.getmtime('x')\n",
    ],
)  # fmt: skip
def test_a_module_that_asks_is_found(tmp_path: Path, text: str) -> None:
    path = tmp_path / "module.py"
    path.write_text(text)

    assert list(uses_of_clocks(path))


def pack_case(output: Path, dataset: Path, weights: Path) -> PackConfig:
    source = dataset.with_name(f"{dataset.name}-published")
    image = ImageConfig(height=32, width=32)
    return PackConfig(
        layout="image_folder",
        source=str(source),
        output=str(output),
        image=image,
        samples_per_shard=4,
        workers=1,
    )


def train_case(output: Path, dataset: Path, weights: Path) -> Any:
    validation = ValidationConfig(str(dataset), splits=["validation"])
    return train_config(output, dataset, validation=validation)


def teach_case(output: Path, dataset: Path, weights: Path) -> Any:
    return teach_config(output, dataset, weights)


def evaluate_case(output: Path, dataset: Path, weights: Path) -> Any:
    return evaluate_config(output, dataset, weights)


def skew_times_of_files(folder: Path) -> None:
    """Makes the oldest files the newest, half of them from the future."""
    now = time.time()
    files = sorted(folder.rglob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for number, path in enumerate(files):
        moment = now + TEN_YEARS + number if number % 2 else number
        os.utime(path, (moment, moment))


def lasting(output: Path) -> dict[str, str]:
    """What a run leaves, but for times and paths."""
    changing = ("record.json", "config.yaml", "pace.jsonl")
    return {name: sha for name, sha in file_hashes(output).items() if name not in changing}


@pytest.mark.parametrize(
    ("stage", "case", "rename"),
    [
        (pack, pack_case, 6), (teach, teach_case, 6), (train, train_case, 16),
        (evaluate, evaluate_case, 1),
    ],
    ids=["pack", "teach", "train", "evaluate"],
)  # fmt: skip
def test_a_stage_goes_on_under_a_clock_that_runs_backwards(
    dataset: Path,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: Any,
    case: Callable[[Path, Path, Path], Any],
    rename: int,
) -> None:
    finish(case(tmp_path / "undisturbed", dataset, weights))
    config = case(tmp_path / "out", dataset, weights)
    (outcome,) = run_ranks(config, death=Death(rename))
    assert outcome.exitcode == -9
    skew_times_of_files(tmp_path / "out")
    seconds = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(seconds)))

    stage.run(config)

    assert lasting(tmp_path / "out") == lasting(tmp_path / "undisturbed")


def test_images_from_the_future_are_packed_like_any_others(dataset: Path, tmp_path: Path) -> None:
    config = pack_case(tmp_path / "before", dataset, dataset)
    pack.run(config)
    skew_times_of_files(Path(config.source))

    pack.run(pack_case(tmp_path / "after", dataset, dataset))

    after, before = (file_hashes(tmp_path / name) for name in ("after", "before"))
    assert after.pop(TIMES_NAME) != before.pop(TIMES_NAME)
    assert after == before
