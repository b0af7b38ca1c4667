"""A search: which trial begins, what is drawn for it, and that no kill changes either."""

import json
import math
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nakt_dist import cli
from nakt_dist.config import StudyConfig
from nakt_dist.config.searching import read_search
from nakt_dist.errors import ConfigurationError, DatasetError, NaktError
from nakt_dist.records.run_record import RunRecord, read_record
from nakt_dist.stages import study
from nakt_dist.studies import sampling
from nakt_dist.studies.rungs import Trial, next_move
from nakt_dist.studies.sampling import draw

VALUES = {"rate": {"log_uniform": [1e-6, 1e-1]}, "turn": {"choice": [0, 15]}}
SEARCH = {"count": 9, "seed": 1, "by": "best_validation_dice", "values": VALUES}
STEP = {
    "stage": "train", "name": "search", "search": SEARCH,
    "config": {
        "output": "${root}/try-${trial}", "data": {"dataset": "${data}/d"},
        "validation": {"dataset": "${data}/d", "splits": ["validation"]},
        "model": {"name": "unet"}, "recipe": {"epochs": 9, "learning_rate": "${rate}"},
        "augmentation": {"largest_rotation": "${turn}"}, "device": "cpu",
    },
}  # fmt: skip
STOPPING = {**SEARCH, "early_stopping": {"from": 1, "factor": 3}}
CHOOSE = {"choose": "best", "of": "search", "over": ["trial"], "by": "best_validation_dice"}
TEST = {
    "stage": "evaluate",
    "config": {"weights": "${best.output}", "dataset": "${data}/t", "output": "${root}/test"},
}


# ---------------------------------------------------------------------------- rungs


def played(results: Sequence[float | None], rungs: list[int], factor: int) -> list[tuple[int, int]]:
    """The moves of a search with one trial at a time, whose results grow a little by length."""
    trials: dict[int, Trial] = {}
    moves = []
    while move := next_move(list(trials.values()), (), len(results), rungs, factor):
        value, before = results[move.number], trials.get(move.number)
        reached = before.results if before else {}
        if value is not None:
            reached = {**reached, move.length: value + move.length / 1000}
        trials[move.number] = Trial(move.number, {}, move.length, reached, value is None)
        moves.append((move.number, move.length))
    return moves


def test_the_best_third_goes_on_as_soon_as_it_is_known() -> None:
    assert played([0.1, 0.3, 0.2], [1, 3], 3) == [(0, 1), (1, 1), (2, 1), (1, 3)]
    assert played([0.3, 0.1, 0.2, 0.4, 0.5, 0.0], [2, 6, 9], 3) == [
        (0, 2), (1, 2), (2, 2), (0, 6), (3, 2), (3, 6), (4, 2), (4, 6), (4, 9), (5, 2),
    ]  # fmt: skip


def test_with_few_trials_the_best_goes_on_to_the_end_and_one_that_fails_does_not() -> None:
    assert played([0.1, 0.2], [1, 3, 9], 3) == [(0, 1), (1, 1), (1, 3), (1, 9)]
    assert played([None, 0.2], [1, 3], 3) == [(0, 1), (1, 1), (1, 3)]
    assert played([None, None], [1, 3], 3) == [(0, 1), (1, 1)]
    assert played([0.1, 0.2], [9], 3) == [(0, 9), (1, 9)]


def test_while_others_run_nothing_is_decided_too_early_and_what_was_begun_comes_first() -> None:
    begun = [Trial(0, {}, 1, {1: 0.5}), Trial(1, {}, 1)]
    assert next_move(begun, {1}, 2, [1, 3], 3) is None  # the best of two is not known
    move = next_move(begun, (), 2, [1, 3], 3)
    assert move is not None and (move.number, move.length) == (1, 1)


@given(st.lists(st.integers(0, 5) | st.none(), min_size=1, max_size=30), st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_every_trial_begins_once_and_the_best_comes_to_the_end(
    results: list[int | None], factor: int
) -> None:
    rungs = [1, factor, factor**2]
    moves = played(results, rungs, factor)
    assert len(set(moves)) == len(moves)
    assert sorted(number for number, length in moves if length == 1) == list(range(len(results)))
    fine = [value for value in results if value is not None]
    ended = [results[number] for number, length in moves if length == rungs[-1]]
    assert not fine or max(fine) in ended


# ---------------------------------------------------------------------------- draws


def drawn(path: Path, count: int, **changes: Any) -> list[Trial]:
    search = read_search({**SEARCH, "count": count, **changes})
    trials: list[Trial] = []
    for number in range(count):
        values = draw(search, "search", trials, number, 9, path)
        trials.append(Trial(number, values, 9, {9: score(values)}))
    return trials


def score(values: dict[str, Any]) -> float:
    return 1 - abs(math.log10(values["rate"]) + 3) / 4 - values["turn"] / 100


def test_draws_lie_in_their_ranges_come_again_and_learn(tmp_path: Path) -> None:
    trials = drawn(tmp_path / "a.journal", 30)

    assert all(1e-6 <= each.values["rate"] <= 1e-1 for each in trials)
    assert {each.values["turn"] for each in trials} == {0, 15}
    assert all(type(each.values["turn"]) is int for each in trials)
    assert trials[:4] == drawn(tmp_path / "b.journal", 4)
    assert trials[:4] != drawn(tmp_path / "c.journal", 4, seed=2)
    chance = drawn(tmp_path / "d.journal", 30, sampler="random")
    late = [[score(dict(each.values)) for each in found[15:]] for found in (trials, chance)]
    assert sum(late[0]) > sum(late[1]) + 1  # by 15 trials


@pytest.mark.parametrize("fate", ["whole", "lost", "behind", "ahead", "damaged", "other results"])
def test_a_journal_that_says_something_else_is_made_anew(tmp_path: Path, fate: str) -> None:
    path = tmp_path / "a.journal"
    trials = drawn(path, 12)
    search = read_search({**SEARCH, "count": 13})
    expected = draw(search, "search", trials, 12, 9, path)
    lines = path.read_text().splitlines(keepends=True)
    if fate == "lost":
        path.unlink()
    elif fate == "behind":
        path.write_text("".join(lines[: len(lines) // 2]))
    elif fate == "damaged":
        path.write_text("nonsense\n" + "".join(lines[1:]))
    elif fate == "other results":
        path.unlink()
        draw(search, "search", [Trial(0, trials[0].values, 9, {9: 0.0})], 1, 9, path)
    assert draw(search, "search", trials, 12, 9, path) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "search.count is 0, expected 1 to 10000"),
        ({"sampler": "tpr"}, "did you mean 'tpe'"),
        ({"at_a_tme": 2}, "did you mean 'at_a_time'"),
        ({"values": {"rate": {"log_unifrom": [1, 2]}}}, "did you mean 'log_uniform'"),
        ({"values": {"rate": {"log_uniform": [0, 2]}}}, "both positive"),
        ({"values": {"trial": {"choice": [1]}}}, "'trial' a second time"),
        ({"values": {"root": {"choice": [1]}}}, "'root' a second time"),
        ({"values": {"rate": {"choice": [1e-3, -1]}, "turn": {"choice": [0]}}}, "learning_rate"),
        ({"by": "dice"}, r"by is dice; of trainings expected best_validation_auroc"),
        ({"early_stopping": {"form": 1}}, "expected {from: EPOCHS"),
        ({"early_stopping": {"from": 9}}, r"from is 9, expected less than recipe.epochs \(9\)"),
        ({"early_stopping": {"from": 1, "factor": 1}}, "factor is 1, expected 2"),
    ],
)
def test_a_search_that_is_wrong_is_refused(changes: dict[str, Any], message: str) -> None:
    step = {**STEP, "search": {**SEARCH, **changes}}
    with pytest.raises(ConfigurationError, match=message):
        study.read_study(StudyConfig(steps=[step]))


def test_what_trials_are_judged_by_is_not_drawn() -> None:
    values = {**VALUES, "use": {"choice": ["zero", "one"]}}
    labels = {"names": ["Edema"], "uncertain": "${use}"}
    config = {**STEP["config"], "task": "classification", "model": None, "labels": labels}
    search = {**SEARCH, "by": "best_validation_auroc", "values": values}
    with pytest.raises(ConfigurationError, match=r"change by what trials are judged \(labels\)"):
        study.read_study(StudyConfig(steps=[{**STEP, "search": search, "config": config}]))
    data = [{"dataset": "d", "labels": {"uncertain": "${use}"}}]
    config |= {"data": data, "labels": {"names": ["Edema"], "uncertain": "zero"}}
    study.read_study(StudyConfig(steps=[{**STEP, "search": search, "config": config}]))


def test_trials_that_go_on_need_a_schedule_that_does() -> None:
    recipe = {"epochs": 9, "learning_rate": "${rate}", "schedule": {"name": "cosine"}}
    step = {**STEP, "search": STOPPING, "config": {**STEP["config"], "recipe": recipe}}
    with pytest.raises(ConfigurationError, match="early_stopping lets trials go on with more"):
        study.read_study(StudyConfig(steps=[step]))


def test_what_is_drawn_cannot_name_an_output_and_tests_cannot_be_searched(tmp_path: Path) -> None:
    config = {**STEP["config"], "output": "${root}/${trial}-${rate}"}
    with pytest.raises(ConfigurationError, match=r"name it by \$\{trial\}"):
        study.read_study(StudyConfig(steps=[{**STEP, "config": config}]))
    with pytest.raises(ConfigurationError, match="search beside matrix"):
        study.read_study(StudyConfig(steps=[{**STEP, "matrix": {"seed": [0]}}]))
    config = {"weights": "w", "dataset": "d", "output": "${root}/${trial}-${rate}"}
    with pytest.raises(ConfigurationError, match="output holds what is drawn"):
        study.read_study(StudyConfig(steps=[{**STEP, "stage": "evaluate", "config": config}]))
    tested = {**TEST, "config": {**TEST["config"], "dataset": "${data}/d", "splits": ["test"]}}
    split = {**STEP["config"]["validation"], "splits": ["test"]}
    step = {**STEP, "config": {**STEP["config"], "validation": split}}
    with pytest.raises(ConfigurationError, match="Keep validation and test images apart"):
        study.read_study(StudyConfig(steps=[step, CHOOSE, tested]))


# ---------------------------------------------------------------------------- whole searches


def program(words: list[str]) -> int:
    """Does in no time what a training would leave, or a test; with a large rate it fails."""
    config = yaml.safe_load(Path(words[2]).read_text())
    recipe, output = config.get("recipe", {}), Path(config["output"])
    with (output.parent / "begun.txt").open("a") as stream:
        stream.write(f"{output.name} {recipe.get('epochs')}\n")
    metrics = {}
    if words[0] == "train":
        rate, turn = recipe["learning_rate"], config["augmentation"]["largest_rotation"]
        if rate > 1e-2:
            print("nakt: error: the loss is not a number", file=sys.stderr)
            return 1
        value = score({"rate": rate, "turn": turn}) + recipe["epochs"] / 1000
        metrics = {"best_validation_dice": value}
    output.mkdir(exist_ok=True)
    RunRecord(words[0], output.name, config, metrics=metrics).write(output)
    return 0


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main", program)
    monkeypatch.setattr(cli, "load_stage", lambda name: None)
    monkeypatch.setattr("nakt_dist.studies.local._TICK_SECONDS", 0.005)


def searched(root: Path, search: dict[str, Any] | None = None, **changes: Any) -> StudyConfig:
    steps = [TEST, CHOOSE, {**STEP, "search": search or STOPPING}]
    return StudyConfig(**{"steps": steps, "root": str(root), "retries": 0, **changes})


def run_all(config: StudyConfig) -> str | None:
    """Runs a study in which some trials fail, as their rate is too large."""
    try:
        study.run(config)
    except NaktError as error:
        return str(error)
    return None


def left(root: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text()) for path in root.glob("*/trial.json")}


@pytest.mark.usefixtures("fast")
def test_a_search_stops_early_what_is_worse_and_the_best_is_tested(tmp_path: Path) -> None:
    told = run_all(searched(tmp_path))

    trials = left(tmp_path)
    assert len(trials) == 9
    failed = {name for name, trial in trials.items() if trial["values"]["rate"] > 1e-2}
    assert failed and {name for name, trial in trials.items() if trial["failed"]} == failed
    assert told is not None and f"{len(failed)} of the study's runs failed" in told
    fine = {name: trial for name, trial in trials.items() if name not in failed}
    best = max(fine, key=lambda name: score(fine[name]["values"]))
    assert fine[best]["results"].keys() == {"1", "3", "9"}
    assert sum("9" in trial["results"] for trial in fine.values()) < len(fine) / 2
    assert read_record(tmp_path / "test" / "record.json").config["weights"].endswith(best)
    begun = (tmp_path / "begun.txt").read_text().splitlines()
    assert len(set(begun)) == len(begun) and begun[-1] == "test None"
    (plan,) = [each for each in json.loads((tmp_path / ".study" / "plan.json").read_text())["runs"]
               if each["name"] == best]  # fmt: skip
    assert plan["axes"]["trial"] == best.removeprefix("try-") and "rate" in plan["axes"]

    run_all(searched(tmp_path))  # again: what failed is tried again, and nothing else
    more = (tmp_path / "begun.txt").read_text().splitlines()[len(begun) :]
    assert {line.split()[0] for line in more} == failed


@pytest.mark.usefixtures("fast")
def test_killed_at_any_moment_it_goes_on_with_the_same_trials(tmp_path: Path) -> None:
    run_all(searched(tmp_path / "calm"))
    source, log = random.Random(4), tmp_path / "killed" / "begun.txt"
    for kill in range(4):
        before = log.read_text() if log.exists() else ""
        pid = os.fork()
        if pid == 0:
            run_all(searched(tmp_path / "killed"))
            os._exit(0)
        while not log.exists() or log.read_text() == before:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
            time.sleep(0.001)
        time.sleep(source.uniform(0, 0.1))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if kill == 2:
            (tmp_path / "killed" / ".study" / "search-3.journal").unlink()
    run_all(searched(tmp_path / "killed"))
    assert left(tmp_path / "killed") == left(tmp_path / "calm")
    weights = [
        read_record(tmp_path / name / "test" / "record.json").config["weights"][-5:]
        for name in ("killed", "calm")
    ]
    assert weights[0] == weights[1]


@pytest.mark.usefixtures("fast")
def test_several_at_a_time_and_more_of_them_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {**STOPPING, "count": 4, "at_a_time": 3,
             "values": {**VALUES, "rate": {"log_uniform": [1e-6, 1e-3]}}}  # fmt: skip
    study.run(searched(tmp_path, steps=[{**STEP, "search": {**small, "count": 2}}]))
    first = left(tmp_path)
    capsys.readouterr()
    study.run(searched(tmp_path, small, dry_run=True))
    told = capsys.readouterr().out
    assert "search: 4 runs, 0 done, a search by best_validation_dice (tpe): 2 drawn" in told
    assert told.count("to be drawn") == 2 and "has reached 9 of 9" in told

    study.run(searched(tmp_path, small, jobs=4))

    assert len(left(tmp_path)) == 4
    assert {name: left(tmp_path)[name]["values"] for name in first} == {
        name: trial["values"] for name, trial in first.items()
    }
    with pytest.raises(DatasetError, match="was drawn by a search with other settings"):
        study.run(searched(tmp_path, {**small, "seed": 5}))


def test_only_the_study_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for world_size in ("1", "2"):
        monkeypatch.setenv("WORLD_SIZE", world_size)
        with pytest.raises(DatasetError, match="trial 0 of search is not drawn yet: nakt study"):
            study.run(searched(tmp_path, only="try-0"))
    assert not list(tmp_path.glob("**/*.journal")) and not left(tmp_path)


@pytest.mark.usefixtures("fast")
def test_one_run_is_not_done_by_trials_of_other_settings(tmp_path: Path) -> None:
    steps = searched(tmp_path).steps
    run_all(searched(tmp_path))
    study.run(searched(tmp_path, only="test"))
    recipe = {**STEP["config"]["recipe"], "global_batch_size": 2}
    steps = [*steps[:2], {**steps[2], "config": {**STEP["config"], "recipe": recipe}}]
    with pytest.raises(DatasetError, match=r"with other settings \(recipe.global_batch_size"):
        study.run(searched(tmp_path, steps=steps, only="test"))


def test_without_optuna_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'nakt_dist\[optuna\]'"):
        study.run(searched(tmp_path))
    study.run(searched(tmp_path, dry_run=True))


def test_agents_of_a_sweep_cannot_draw(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="a sweep of W&B cannot do the step search"):
        study.run(searched(tmp_path, export=str(tmp_path / "sweep.yaml")))
