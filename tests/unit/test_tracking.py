import json
import os

import pytest
import wandb

from nakt_dist.errors import NaktError, NotFinite, StartAgain
from nakt_dist.runtime import tracking
from nakt_dist.runtime.mirrors import TrackedRun, summary_of
from nakt_dist.runtime.tracking import METRICS_NAME, JsonLines, Tracker
from nakt_dist.runtime.wandb_run import WandbRun


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def track(folder, steps, resume_step=0, wandb_mode="off", config=None):
    tracker = Tracker(TrackedRun(folder, "run", config or {}, wandb_mode, "nakt_dist"), resume_step)
    for step in steps:
        tracker.log(step, {"loss": 1 / step, "epoch": 0})
    tracker.close()


def test_metrics_are_one_json_object_a_line_with_their_step(tmp_path):
    track(tmp_path, [1, 2])
    assert lines(tmp_path / METRICS_NAME) == [
        {"step": 1, "loss": 1.0, "epoch": 0},
        {"step": 2, "loss": 0.5, "epoch": 0},
    ]


def test_lines_are_on_disk_as_soon_as_they_are_logged(tmp_path):
    tracker = Tracker(TrackedRun(tmp_path, "run", {}, "off", "nakt_dist"), 0)
    tracker.log(1, {"loss": 1.0})
    assert len(lines(tmp_path / METRICS_NAME)) == 1
    tracker.close()


def test_lines_beyond_the_resumed_step_are_dropped(tmp_path):
    track(tmp_path, range(1, 8))
    track(tmp_path, range(5, 7), resume_step=4)
    assert [line["step"] for line in lines(tmp_path / METRICS_NAME)] == [1, 2, 3, 4, 5, 6]


def test_what_is_no_file_is_neither_waited_for_nor_kept(tmp_path):
    os.mkfifo(tmp_path / METRICS_NAME)
    track(tmp_path, [1])
    assert [line["step"] for line in lines(tmp_path / METRICS_NAME)] == [1]


def test_a_last_line_cut_by_a_kill_is_dropped(tmp_path):
    path = tmp_path / METRICS_NAME
    track(tmp_path, [1, 2])
    with path.open("a") as stream:
        stream.write('{"step": 3, "lo')
    track(tmp_path, [3], resume_step=2)
    assert [line["step"] for line in lines(path)] == [1, 2, 3]


@pytest.mark.parametrize(
    "spoilt",
    ["\0\0\0\0", '{"loss": 1}', "[]", '{"step": "3"}', '{"step": Infinity}', '{"step": true}'],
)
def test_what_stands_after_a_spoilt_line_is_dropped(tmp_path, spoilt):
    path = tmp_path / METRICS_NAME
    track(tmp_path, [1, 2])
    path.write_text(path.read_text() + spoilt + '\n{"step": 2, "loss": 7}\n')
    track(tmp_path, [3], resume_step=2)
    assert [line["step"] for line in lines(path)] == [1, 2, 3]


def test_a_metric_that_is_logged_again_stands_there_once(tmp_path):
    path = tmp_path / METRICS_NAME
    path.write_text('{"step": 1, "score": 1}\n{"step": 2, "loss": 1}\n{"step": 2, "score": 2}\n')
    with JsonLines(path, 2, redone="score") as again:
        again.write({"step": 2, "score": 3})
    assert [line.get("score") for line in lines(path)] == [1, None, 3]


@pytest.mark.parametrize("content", ["", '{"step": 1', "\n"])
def test_a_file_that_was_cut_at_its_beginning_is_begun_again(tmp_path, content):
    path = tmp_path / METRICS_NAME
    path.write_text(content.strip())
    track(tmp_path, [1])
    assert [line["step"] for line in lines(path)] == [1]


def test_starting_anew_forgets_the_lines_of_an_earlier_run(tmp_path):
    track(tmp_path, [1, 2, 3])
    track(tmp_path, [1])
    assert [line["step"] for line in lines(tmp_path / METRICS_NAME)] == [1]


def test_several_lines_of_the_resumed_step_are_kept(tmp_path):
    path = tmp_path / "lines.jsonl"
    writer = JsonLines(path, 0)
    for value in ({"step": 2, "loss": 1.0}, {"step": 2, "dice": 0.5}, {"step": 3, "loss": 0.9}):
        writer.write(value)
    writer.close()
    JsonLines(path, 2).close()
    assert lines(path) == [{"step": 2, "loss": 1.0}, {"step": 2, "dice": 0.5}]


def test_without_wandb_nothing_but_the_lines_is_written(tmp_path):
    track(tmp_path, [1])
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_NAME]


def test_wandb_offline_keeps_numbers_on_this_machine_and_no_image_or_path(tmp_path):
    run = tmp_path / "patient-0815" / "run"
    run.mkdir(parents=True)
    secret = str(run.parent)
    config = {
        "recipe": {"learning_rate": 1e-4},
        "data": {"dataset": f"{secret}/shards", "teachers": [{"weights": f"{secret}/best.pt"}]},
    }
    tracked = TrackedRun(
        run, "run", config, "offline", "nakt_dist", group="study-5", tags=("images:350", "seed:3")
    )
    with Tracker(tracked, 0) as tracker:
        tracker.log(1, {"loss": 1.0})
    wandb.teardown()  # its service writes the last records after the run has ended
    run_id = (run / "wandb_run_id.txt").read_text()
    (stored,) = run.glob("wandb/offline-run-*/*.wandb")
    content = stored.read_bytes()
    assert run_id.encode() in content
    assert b"learning_rate" in content  # the file is readable as it is: the search can find
    for told in (b"loss", b"study-5", b"images:350", b"seed:3", b"train"):
        assert told in content
    for kind in ("*.png", "*.jpg", "*.pt", "*.safetensors"):
        assert not list(run.rglob(kind))
    for path in [stored, *run.glob("wandb/offline-run-*/files/**/*")]:
        assert path.is_dir() or b"patient-0815" not in path.read_bytes()


class RunOfWandb:
    """Takes no step twice, as W&B's own."""

    def __init__(self, starting_step):
        self.starting_step = self.step = starting_step
        self.rows = {}

    def define_metric(self, *_, **__):
        pass

    def log(self, data, step):
        if step >= self.step:
            self.step = step
            self.rows.setdefault(step, {}).update(data)


def test_wandb_gets_the_score_that_a_killed_run_still_owed():
    run = RunOfWandb(starting_step=5)  # it has steps up to 4
    resumed = WandbRun(run)
    resumed.log({"loss": 0.3}, step=3)
    resumed.log({"validation_dice": 0.5}, step=4)
    resumed.log({"loss": 0.1}, step=6)
    assert run.rows == {5: {"validation_dice": 0.5, "step": 4}, 6: {"loss": 0.1, "step": 6}}
    first = RunOfWandb(starting_step=0)
    WandbRun(first).log({"loss": 0.5}, step=1)
    assert first.rows == {1: {"loss": 0.5, "step": 1}}


def test_a_resumed_run_keeps_its_wandb_id(tmp_path):
    for steps, resume_step in (([1], 0), ([2], 1)):
        track(tmp_path, steps, resume_step, wandb_mode="offline")
    run_id = (tmp_path / "wandb_run_id.txt").read_text()
    runs = list(tmp_path.glob("wandb/offline-run-*"))
    assert runs
    assert all(run_id in run.name for run in runs)


class Heard:
    """A tracker that keeps what it is told."""

    def __init__(self):
        self.told = []

    def log(self, data, *, step):
        self.told.append((step, dict(data)))

    def alert(self, title, text):
        self.told.append((title, text))

    def finish(self, ending):
        self.told.append(ending)


@pytest.mark.parametrize(
    ("error", "heard"),
    [
        (None, ["done"]),
        (StartAgain("asked to leave by SIGTERM"), ["interrupted"]),
        (KeyboardInterrupt(), ["interrupted"]),
        (
            NotFinite("the loss is nan (images patient-0815 …)"),
            [("A number is none", "run: ended by NotFinite after step 3; its log says more")],
        ),
        (
            NaktError("/data/patient-0815: no such file"),
            [("Training failed", "run: ended by NaktError after step 3; its log says more")],
        ),
    ],
)
def test_a_failure_is_told_without_what_its_message_names(error, heard, tmp_path, monkeypatch):
    mirror = Heard()
    monkeypatch.setattr(tracking, "MIRRORS", {"mine": lambda run: mirror})
    try:
        with Tracker(TrackedRun(tmp_path, "run", {}, "off", "nakt_dist"), 0) as tracker:
            tracker.log(3, {"loss": 1.0})
            if error is not None:
                raise error
    except type(error):
        pass
    ending = [] if isinstance(heard[-1], str) else ["failed"]
    assert mirror.told == [(3, {"loss": 1.0}), *heard, *ending]


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        ("loss", "min"),
        ("dice_loss", "min"),
        ("cross_entropy", "min"),
        ("validation_loss", "min"),
        ("validation_dice", "max"),
        ("best_auroc", "max"),
        ("learning_rate", None),
        ("images_per_second", None),
    ],
)
def test_the_best_value_of_a_curve_counts(metric, best):
    assert summary_of(metric) == best
