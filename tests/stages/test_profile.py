"""``profile.steps``: a page and a trace of some steps, and the same training."""

import gzip
import json
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from torch.profiler import profile

from nakt_dist.config import ProfileConfig, TrainConfig, ValidationConfig
from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import train
from nakt_dist.training.loop import TrainingLoop
from nakt_dist.training.phases import Phase, phase
from nakt_dist.training.profile_page import RecordedSteps, to_page
from nakt_dist.training.step_times import Operator, StepTimes
from tests.datasets import make_packed_dataset
from tests.recipes import file_hashes, train_config

RESULTS = ("last.safetensors", "best.safetensors", "metrics.jsonl", "batches.jsonl")


@dataclass(frozen=True)
class Runs:
    """The same training without a profile and with one."""

    plain: TrainConfig
    profiled: TrainConfig
    printed: str

    @property
    def folder(self) -> Path:
        return Path(self.profiled.output) / "profile"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    splits = {"train": 2 / 3, "validation": 1 / 3}
    dataset = make_packed_dataset(folder, images=24, splits=splits)
    validation = ValidationConfig(str(dataset), splits=["validation"])
    plain = train_config(folder / "plain", dataset, validation=validation)
    profiled = replace(
        plain, output=str(folder / "<b>run"), profile=ProfileConfig(steps=4, after=1)
    )
    train.run(plain)
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        for module in ("nakt_dist.stages.train", "nakt_dist.training.profile"):
            patch.setattr(f"{module}.say", lines.append)
        train.run(profiled)
    return Runs(plain, profiled, "\n".join(lines))


def again(runs: Runs, output: Path, **settings: int) -> TrainConfig:
    return replace(runs.plain, output=str(output), profile=ProfileConfig(**settings))


def results(config: TrainConfig) -> dict[str, str]:
    hashes = file_hashes(Path(config.output))
    return {name: hashes[name] for name in RESULTS}


def trace_of(folder: Path) -> dict[str, Any]:
    return json.loads(gzip.decompress((folder / "rank_0.json.gz").read_bytes()))


def shares_on(page: str) -> dict[str, float]:
    """Per cent by phase, as the page's table says them."""
    row = re.compile(r"<th scope=\"row\"[^>]*>([a-z ]+)</th><td class=\"short\">([\d.]+) %</td>")
    return {name: float(share) for name, share in row.findall(page)}


def test_a_profile_changes_no_result_and_leaves_two_files(runs: Runs) -> None:
    assert results(runs.profiled) == results(runs.plain)
    added = (
        file_hashes(Path(runs.profiled.output)).keys() - file_hashes(Path(runs.plain.output)).keys()
    )
    assert added == {"profile/page.html", "profile/rank_0.json.gz"}


def test_the_page_says_where_all_of_the_time_went(runs: Runs) -> None:
    page = (runs.folder / "page.html").read_text()

    shares = shares_on(page)
    assert shares.keys() == set(Phase)
    assert sum(shares.values()) == pytest.approx(100, abs=0.6)  # eleven roundings
    for name in ("forward", "backward", "optimiser", "checkpoint", "validation"):
        assert shares[name] > 0
    assert "4 steps recorded after 1 of warm-up, on CPU" in page
    assert "aten::convolution_<wbr>backward" in page
    assert "Optimizer.step" not in page and "ProfilerStep" not in page  # no operators
    assert "images/s" in page and "GiB" in page


def test_the_page_needs_nothing_from_outside_and_escapes_names(runs: Runs) -> None:
    page = (runs.folder / "page.html").read_text()

    assert "http://" not in page and "https://" not in page and "url(" not in page
    assert "<script" not in page and "<b>run" not in page and "&lt;b&gt;run" in page


def test_the_trace_names_no_sample_no_path_and_no_machine(runs: Runs) -> None:
    trace, dataset = trace_of(runs.folder), Path(runs.plain.data.dataset)
    text, page = json.dumps(trace), (runs.folder / "page.html").read_text()

    assert {event["name"] for event in trace["traceEvents"]} > {"forward", "backward", "copy"}
    for key in IndexedShards(dataset).keys:
        assert key not in text and key not in page
    for place in (dataset.parent, Path.home(), Path(train.__file__).parents[2]):
        assert str(place) not in text and str(place) not in page
    assert trace.keys().isdisjoint({"host_name", "traceName"})
    assert f'"{socket.gethostname()}"' not in text


def test_the_end_of_a_run_says_where_the_page_lies(runs: Runs) -> None:
    page = str(runs.folder / "page.html")
    assert runs.printed.splitlines()[-1].endswith(f"where the time goes: {page}")
    assert f"where the time of 4 steps goes: {page}" in runs.printed


def test_a_run_shorter_than_the_profile_writes_what_it_saw_and_says_so(
    runs: Runs, tmp_path: Path
) -> None:
    train.run(again(runs, tmp_path / "out", steps=50, after=4))

    page = (tmp_path / "out" / "profile" / "page.html").read_text()
    assert "2 steps recorded after 4 of warm-up" in page
    assert "before all 50 steps that profile.steps asks for were recorded" in page


def test_a_run_that_ends_in_the_warm_up_says_so(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train.run(again(runs, tmp_path / "out", steps=1, after=6))

    assert not (tmp_path / "out" / "profile").exists()
    assert (
        "the launch ended after 6 steps, and profile.after passes over 6" in capsys.readouterr().err
    )


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_lies_in_the_place_of_the_page_is_refused_before_the_first_step(
    runs: Runs, tmp_path: Path, make: Callable[[Path], None]
) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "out" / "profile")

    with pytest.raises(ConfigurationError, match=r"out/profile: is a file or a link.*null"):
        train.run(again(runs, tmp_path / "out", steps=1, after=1))
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


@pytest.mark.parametrize("cut", ["", ".tmp"])  # its file is cut off, or the one it writes first
def test_a_disk_too_full_for_the_trace_is_told_and_no_part_of_it_is_left(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    def write_a_part(_: profile, path: str) -> None:
        Path(path + cut).write_text('{"host_name": ')

    monkeypatch.setattr(profile, "export_chrome_trace", write_a_part)
    with pytest.raises(NaktError, match=r"out/profile: torch's profiler.*Make room"):
        train.run(again(runs, tmp_path / "out", steps=1, after=1))
    assert not list((tmp_path / "out" / "profile").iterdir())


def test_a_launch_that_goes_on_records_what_the_last_one_could_not_and_no_more(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = again(runs, tmp_path / "out", steps=2, after=1)
    folder, step = tmp_path / "out" / "profile", TrainingLoop._step

    def fail_at(loop: TrainingLoop, number: int) -> Any:
        if number == 2:  # the second of the recorded steps; two are saved
            raise KeyboardInterrupt
        return step(loop, number)

    monkeypatch.setattr(TrainingLoop, "_step", fail_at)
    with pytest.raises(KeyboardInterrupt):
        train.run(config)
    assert not folder.exists()
    monkeypatch.undo()
    train.run(config)
    assert results(config) == results(runs.plain)
    first = (folder / "page.html").read_bytes()

    more = replace(config, recipe=replace(config.recipe, steps=9))
    train.run(more)
    assert (folder / "page.html").read_bytes() == first


def test_a_phase_is_nothing_while_nobody_records() -> None:
    assert phase(Phase.FORWARD) is phase(Phase.BACKWARD)


def page_with(on_gpu: bool = False, **shares: float) -> str:
    """The page of a step in which phases took these shares, and forward the rest."""
    seconds = dict.fromkeys(Phase, 0.0) | {Phase[name]: share for name, share in shares.items()}
    seconds[Phase.FORWARD] += 1 - sum(seconds.values())
    operators = [Operator(f"aten::op{number}", 1, 1.0) for number in range(12)]
    times = StepTimes(20, seconds, on_gpu)
    return to_page(RecordedSteps("run", 20, 10, times, operators, 8, 2**30, "H200", 2))


def test_advice_is_given_on_what_takes_long_alone() -> None:
    advice = "waiting for data takes 40 % of these steps. Less of it: more workers"
    assert advice in page_with(WAITING=0.4)
    assert "recipe.compile" in page_with(on_gpu=True, IDLE=0.5)
    assert "recipe.compile" not in page_with(IDLE=0.5)
    assert "Nothing stands out" in page_with(WAITING=0.05)


def test_validation_among_the_steps_is_told_apart_from_the_speed_of_steps() -> None:
    page = page_with(VALIDATION=0.4, CHECKPOINT=0.1)
    assert "Validation took 8.00 s of these 20 steps" in page
    assert "No validation fell" not in page
    assert "16.0 images/s of all processes while recording" in page
    assert "8.0 images/s of all processes while recording" in page_with()


def test_the_page_shows_ten_operators_and_says_when_a_gpu_told_nothing() -> None:
    page = page_with()
    assert "aten::op9" in page and "aten::op10" not in page
    assert "The driver did not tell" in page
    assert "The driver did not tell" not in page_with(on_gpu=True)
