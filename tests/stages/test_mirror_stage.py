"""``nakt mirror``: what is on disk, shown whole and once, however often it is asked for."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.util import get_core_path

from nakt_dist.cli import main
from nakt_dist.config import CheckpointConfig, LabelConfig, MirrorConfig, TrackingConfig
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.mirroring.describing import links_of
from nakt_dist.mirroring.runs import FoundRun, find_runs
from nakt_dist.mirroring.sent import SentFiles
from nakt_dist.records.run_record import RunRecord
from nakt_dist.runtime.mirrors import without_folders
from nakt_dist.runtime.tracking import METRICS_NAME
from nakt_dist.stages import evaluate, mirror, teach
from nakt_dist.studies.folder import Plan, PlannedRun, RunState, StudyFolder
from tests.datasets import make_chest_dataset, make_classifier, make_weights
from tests.launching import run_ranks
from tests.mishaps import Killed
from tests.recipes import evaluate_config, teach_config, train_config
from tests.wandb_server import API_KEY, serving

STUDY = "phantoms"
LABELS = ["Nodule", "Pleural Effusion", "Cardiomegaly"]


def plan_study(root: Path) -> None:
    runs = (
        PlannedRun("student", "train", 1, "train 1", {"method": "masks", "seed": "0"}),
        PlannedRun("test", "evaluate", 2, "test 2", {"method": "teacher", "seed": "0"}),
    )
    StudyFolder(root).write_plan(Plan(STUDY, str(root), runs))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that was killed three times, with W&B offline beside it; a test; pseudo-labels."""
    folder = tmp_path_factory.mktemp("study")
    dataset, root = make_chest_dataset(folder, images=16), folder / "runs"
    teach.run(teach_config(root / "pseudo", dataset, make_weights(folder / "t.safetensors")))
    config = train_config(
        root / "student",
        dataset,
        data={"pseudo_labels": str(root / "pseudo")},
        tracking=TrackingConfig("offline", tags=["mine"]),
        checkpoint=CheckpointConfig(every_steps=2, every_epochs=100),
        seed=7,
    )
    own_service = {"WANDB_SERVICE": ""}  # and not that of another test, which outlives the killed
    for step in (2, 4, 5):  # a checkpoint every second step
        killed = run_ranks(config, death=Killed(step), environment=own_service)
        assert killed[0].exitcode == -9
    assert run_ranks(config, environment=own_service)[0].record is not None
    classifier = make_classifier(folder / "c.safetensors", LABELS)
    evaluate.run(evaluate_config(root / "test", dataset, classifier, labels=LabelConfig(LABELS)))
    plan_study(root)
    return root


def records_of(folder: Path) -> list[dict]:
    """Every record of a folder that W&B wrote, as ``wandb leet inspect --json`` reads it."""
    (file,) = folder.glob("*.wandb")
    inspect = ["leet", "inspect", "-json", "-no-observability", "-run-file", str(file)]
    words = [get_core_path(), *inspect]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_kind(records: list[dict], kind: str) -> list[dict]:
    return [record[kind] for record in records if record["type"] == kind]


def metrics_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / METRICS_NAME).read_text().splitlines()]


def loss_at(rows: list[dict]) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in rows if "loss" in row]


def offline_folders(output: Path) -> dict[str, list[dict]]:
    """What W&B wrote, by the name of the run."""
    found = {}
    for folder in (output / "wandb").glob("offline-run-*"):
        records = records_of(folder)
        (run,) = of_kind(records, "run")[:1]
        assert run["display_name"] not in found, "a run lies there twice"
        found[run["display_name"]] = records
    return found


# -------------------------------------------------------------------------------- W&B offline


@pytest.fixture(scope="module")
def written(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("mirror")
    for sent in (3, 0):  # the second time, there is nothing new
        record = mirror.run(MirrorConfig([str(study)], output=str(output), tags=["shown"]))
        assert record.counts.get("sent", 0) == sent
    return output


@pytest.fixture(scope="module")
def offline(written: Path) -> dict[str, list[dict]]:
    return offline_folders(written)


def test_a_run_that_was_queued_again_three_times_is_one_run_with_every_step_once(
    study: Path, offline: dict[str, list[dict]]
) -> None:
    live = list((study / "student").glob("wandb/offline-run-*"))
    assert len(live) == 4  # of which W&B would show the last alone
    rows = [item["item"] for item in of_kind(offline["student"], "history")]
    assert loss_at(rows) == loss_at(metrics_of(study / "student"))
    assert [row["_step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    (run,) = of_kind(offline["student"], "run")
    assert run["run_id"] == (study / "student" / "wandb_run_id.txt").read_text()


def test_group_stage_tags_settings_and_results_are_there(offline: dict[str, list[dict]]) -> None:
    (run,) = of_kind(offline["student"], "run")
    assert (run["run_group"], run["job_type"]) == (STUDY, "train")
    assert run["tags"] == [
        "dataset:chest", "network:unet", "method:pseudo masks", "images:8", "seed:7", "mine",
        "shown",
    ]  # fmt: skip
    config = run["config"]["update"]
    assert config["recipe"]["learning_rate"] == 0.01
    assert config["data"]["dataset"] == "chest"
    assert config["study"]["axes"] == {"method": "masks", "seed": "0"}
    (pseudo,) = of_kind(offline["pseudo"], "run")  # which is not in the plan, or no longer
    assert (pseudo["run_group"], pseudo["job_type"]) == (STUDY, "teach")
    defined = {metric.get("name"): metric for metric in of_kind(offline["student"], "metric")}
    assert defined["loss"]["step_metric"] == "step"
    assert defined["loss"]["summary"] == {"min": True}
    summary = {}
    for update in of_kind(offline["test"], "summary"):
        summary |= update.get("update", {})
    assert {f"auroc/{finding}" for finding in LABELS} <= summary.keys()
    (ended,) = of_kind(offline["test"], "exit")
    assert ended.get("exit_code", 0) == 0


def test_findings_are_a_table_and_statistics_of_pseudo_labels_histograms(
    offline: dict[str, list[dict]],
) -> None:
    tested = [item["item"] for item in of_kind(offline["test"], "history")]
    (table,) = [row for row in tested if "findings._type" in row]
    assert (table["findings._type"], table["findings.nrows"]) == ("table-file", 3)
    taught = json.dumps([item["item"] for item in of_kind(offline["pseudo"], "history")])
    assert all(f'"{name}._type": "histogram"' in taught for name in ("entropy", "target_pixels"))


def test_what_was_written_offline_is_uploaded_as_one_run_each_joined_by_fingerprints(
    study: Path, written: Path
) -> None:
    folders = sorted(map(str, (written / "wandb").glob("offline-run-*")))
    with serving() as server:
        there = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": API_KEY}
        words = [sys.executable, "-m", "wandb", "sync", *folders]
        subprocess.run(words, env=os.environ | there, cwd=written, timeout=60, check=True)
    shown = {run.settings["displayName"]: run for run in server.runs.values()}
    assert len(server.runs) == len(shown) == 4  # with the study itself
    student, pseudo, test = (shown[name] for name in ("student", "pseudo", "test"))
    assert loss_at(student.history) == loss_at(metrics_of(study / "student"))
    assert [name.partition("-")[0] for name in pseudo.logged] == ["pseudo"]
    assert set(pseudo.logged) <= set(student.used)
    assert {name.partition("-")[0] for name in student.logged} == {"weights"}
    assert {name.partition("-")[0] for name in test.used} == {"dataset", "weights"}
    assert set(test.used) & set(student.used)  # both read the dataset


def test_nothing_that_is_sent_names_an_image_a_folder_or_a_patient(
    study: Path, tmp_path_factory: pytest.TempPathFactory, offline: dict[str, list[dict]]
) -> None:
    text = json.dumps(offline)
    assert str(study) not in text
    assert study.parent.name not in text
    assert "00000001" not in text  # a patient, and the beginning of the names of images


def test_a_run_that_went_on_replaces_what_was_written_of_it(tmp_path: Path) -> None:
    run, output = tmp_path / "runs" / "student", tmp_path / "mirror"
    run.mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": 1 / step}) for step in range(1, 6)]
    for written in ("\n".join(lines[:3]) + '\n{"step": 4, "lo', "\n".join(lines) + "\n"):
        (run / METRICS_NAME).write_text(written)
        mirror.run(MirrorConfig([str(tmp_path / "runs")], output=str(output)))
    (records,) = offline_folders(output).values()
    steps = [item["item"]["_step"] for item in of_kind(records, "history")]
    assert steps == [1, 2, 3, 4]  # of the fifth, more may be said as long as the run goes on


# --------------------------------------------------------------------------------- W&B online


def test_online_only_new_steps_are_sent_and_from_another_machine_none_twice(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "student"
    run.mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": 1 / step}) + "\n" for step in range(1, 7)]
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        for count, machine in ((3, "one"), (6, "one"), (6, "another")):
            (run / METRICS_NAME).write_text("".join(lines[:count]))
            mirror.run(
                MirrorConfig(
                    [str(run.parent)],
                    wandb="online",
                    entity="team",
                    output=str(tmp_path / machine),
                )
            )
        (shown,) = server.runs.values()
        assert [row["_step"] for row in shown.history] == [1, 2, 3, 4, 5]
        assert shown.preempting

        mirror.run(MirrorConfig([str(study)], wandb="online", output=str(tmp_path / "study")))
        wandb.teardown()
        student = server.runs[(study / "student" / "wandb_run_id.txt").read_text()]
        (taught,) = [each for each in server.runs.values() if each.settings["jobType"] == "teach"]
    assert loss_at(student.history) == loss_at(metrics_of(study / "student"))
    assert student.settings["groupName"] == STUDY
    assert student.exit_code == 0
    assert taught.logged and taught.logged[0] in student.used
    assert student.settings["program"] == "nakt train"


def test_a_study_that_fails_is_told_once_and_seen_at_a_glance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "student"
    run.mkdir()
    (run / METRICS_NAME).write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n')
    plan_study(tmp_path)
    folder = StudyFolder(tmp_path)
    folder.write_state("student", RunState("failed", 2, exit_code=1, reason="/x"))
    with serving() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", API_KEY)
        for line, state in (("", "running"), ('{"step": 3, "loss": 1}\n', "done"), ("", "done")):
            with (run / METRICS_NAME).open("a") as stream:
                stream.write(line)
            folder.write_state("test", RunState(state))
            mirror.run(MirrorConfig([str(tmp_path)], wandb="online", workspace=True))
        wandb.teardown()
        shown = {each.settings["jobType"]: each for each in server.runs.values()}
    failed = "Study ended with runs that failed", f"{STUDY}: 1 failed, 1 done"
    assert shown["train"].alerts == [("Run failed", f"student of {STUDY}: failed, try 2")]
    assert shown["study"].alerts == [failed]
    assert (shown["train"].exit_code, shown["study"].exit_code) == (1, 0)
    assert shown["study"].summary["failed"] == 1
    (view,) = server.views  # once, so that what people change in it stays
    assert view["displayName"] == f"Study {STUDY}"
    assert view["spec"]["section"]["runSets"][0]["filters"]["filters"][0]["value"] == STUDY
    assert "study.value.axes.method" in json.dumps(view["spec"])


# -------------------------------------------------------------------------------- TensorBoard


def test_tensorboard_reads_every_step_once_however_often_it_is_mirrored(
    study: Path, tmp_path: Path
) -> None:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = MirrorConfig([str(study)], to="tensorboard", output=str(tmp_path))
    lines = (study / "student" / METRICS_NAME).read_text().splitlines(keepends=True)
    record = (study / "student" / "record.json").read_bytes()
    try:
        (study / "student" / "record.json").unlink()  # as it was while it ran
        (study / "student" / METRICS_NAME).write_text("".join(lines[:3]))
        mirror.run(config)
    finally:
        (study / "student" / "record.json").write_bytes(record)
        (study / "student" / METRICS_NAME).write_text("".join(lines))
    for _ in range(2):
        mirror.run(config)
    events = reader.EventAccumulator(str(tmp_path / "tensorboard" / "runs" / "student"))
    events.Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("loss")]
    expected = loss_at(metrics_of(study / "student"))
    assert dict(scalars) == pytest.approx(dict(expected))
    assert len(scalars) == len(expected)
    taught = reader.EventAccumulator(str(tmp_path / "tensorboard" / "runs" / "pseudo"))
    taught.Reload()
    assert set(taught.Tags()["histograms"]) == {"entropy", "target_pixels"}


def write_run(folder: Path, losses: list[float], settings: str = "") -> Path:
    """What a training leaves as it goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"step": step, "loss": loss}) for step, loss in enumerate(losses, 1)]
    (folder / METRICS_NAME).write_text("\n".join(lines) + "\n")
    (folder / "identity.json").write_text(json.dumps({"settings": settings}))
    return folder


def shown_in_tensorboard(folder: Path) -> list[tuple[int, float]]:
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars("loss")]


def to_tensorboard(tmp_path: Path, *folders: str) -> RunRecord:
    runs = [str(tmp_path / folder) for folder in folders]
    return mirror.run(MirrorConfig(runs, to="tensorboard", output=str(tmp_path / "mirror")))


@pytest.mark.parametrize("settings", ["", "others"])
def test_of_a_run_that_was_redone_only_the_new_steps_are_shown(
    settings: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    # Its files of one second are read 10 before 9.
    monkeypatch.setattr(writer, "_global_uid", writer.AtomicCounter(9))
    write_run(tmp_path / "runs" / "student", [8, 4, 2, 1])
    to_tensorboard(tmp_path, "runs")
    write_run(tmp_path / "runs" / "student", [9, 5, 3], settings)
    for _ in range(2):
        to_tensorboard(tmp_path, "runs")
    assert shown_in_tensorboard(tmp_path / "mirror/tensorboard/runs/student") == [(1, 9), (2, 5)]


def test_what_a_killed_mirror_has_sent_is_not_shown_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path / "runs" / "student", [8, 4, 2, 1])

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SentFiles, "write", interrupt)
        with pytest.raises(KeyboardInterrupt):
            to_tensorboard(tmp_path, "runs")
    to_tensorboard(tmp_path, "runs")
    shown = shown_in_tensorboard(tmp_path / "mirror/tensorboard/runs/student")
    assert shown == [(1, 8), (2, 4), (3, 2)]


def test_runs_of_two_folders_that_are_called_alike_are_told_apart(tmp_path: Path) -> None:
    for trial, loss in (("one", 8), ("two", 9)):
        write_run(tmp_path / trial / "runs" / "student", [loss, 4], trial)
    for sent in (2, 0):
        record = to_tensorboard(tmp_path, "one/runs", "two/runs")
        assert record.counts.get("sent", 0) == sent
    shown = tmp_path / "mirror" / "tensorboard"
    assert shown_in_tensorboard(shown / "one" / "runs" / "student") == [(1, 8)]
    assert shown_in_tensorboard(shown / "two" / "runs" / "student") == [(1, 9)]


def test_what_comes_to_an_end_while_it_is_mirrored_is_sent_the_next_time(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "student"
    run.mkdir(parents=True)
    (run / METRICS_NAME).write_bytes((study / "student" / METRICS_NAME).read_bytes())
    record = (study / "student" / "record.json").read_bytes()

    def find_and_end(*words: Any) -> Iterator[FoundRun]:
        yield from list(find_runs(*words))
        (run / "record.json").write_bytes(record)

    with monkeypatch.context() as patched:
        patched.setattr(mirror, "find_runs", find_and_end)
        assert to_tensorboard(tmp_path, "runs").counts["sent"] == 1
    assert to_tensorboard(tmp_path, "runs").counts["sent"] == 1
    shown = shown_in_tensorboard(tmp_path / "mirror/tensorboard/runs/student")
    assert [step for step, _ in shown] == [1, 2, 3, 4, 5, 6]


def test_trackio_keeps_every_step_once(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("trackio", reason="trackio is not installed")
    config = MirrorConfig([str(study)], to="trackio", output=str(tmp_path))
    mirror.run(config)
    mirror.run(config)
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = [run for run in SQLiteStorage.get_runs("nakt_dist") if run.startswith("student")]
    rows = SQLiteStorage.get_logs("nakt_dist", name)
    assert loss_at(rows) == loss_at(metrics_of(study / "student"))


# -------------------------------------------------------------------------------------- the rest


def test_what_is_damaged_is_named_and_the_others_are_sent(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in (("a", "{"), ("b", '{"format": "nakt-record/1", "stage": "train"}')):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "record.json").write_text(content)
    good = tmp_path / "runs" / "c"
    good.mkdir()
    (good / METRICS_NAME).write_text('{"step": 1, "loss": 2}\n{"step": 2}\n')
    assert main(["mirror", str(tmp_path / "runs"), "--to=tensorboard"]) == 0
    said = capsys.readouterr().err
    assert said.count("left out") == 2
    assert "1 sent" in said


def test_one_run_that_cannot_be_told_holds_up_no_other_and_damage_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    write_run(runs / "a", [2, 1])
    (runs / "a" / "wandb_run_id.txt").write_text("\0")
    lines = b'{"step": 1, "loss": 2}\n{"step": 2, "lo\xff\n{"step": 3, "loss": 1}\n'
    (write_run(runs / "b", []) / METRICS_NAME).write_bytes(lines)
    write_run(runs / "c", [2, 1])
    for name in ("d", "e"):
        write_run(runs / name, [2, 1])
    (runs / "d" / METRICS_NAME).unlink()
    os.mkfifo(runs / "d" / METRICS_NAME)
    for folder in ("c", "e"):
        (runs / folder / "wandb_run_id.txt").write_text("same")
    assert main(["mirror", str(runs), "--to=tensorboard"]) == 0
    said = capsys.readouterr().err
    assert "a/wandb_run_id.txt: holds" in said
    assert f"b/{METRICS_NAME}: line 2 is damaged; what follows it is not shown" in said
    assert f"d/{METRICS_NAME}: is no regular file" in said
    assert "/e: is the same run as runs/c, which is shown" in said
    assert "3 sent" in said


def test_odd_files_of_a_run_neither_end_the_mirror_nor_lead_out_of_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, output = tmp_path / "runs", tmp_path / "mirror"
    os.mkfifo(write_run(runs / "a", [2, 1]) / "wandb_run_id.txt")
    (write_run(runs / "b", [2, 1]) / "config.yaml").write_text(
        "tracking: {group: 5}\n3: 4\nday: 2020-01-01\n"
    )
    (write_run(runs / "c", []) / METRICS_NAME).write_text('{"step": 1, "": 2, "loss": 1}\n\n')
    for name, value in (("d", "../../../../outside"), ("e", 5)):
        (write_run(runs / name / "run", [2, 1]) / "identity.json").unlink()  # nothing says which
        plan_study(runs / name)
        plan = runs / name / ".study" / "plan.json"
        plan.write_text(json.dumps({**json.loads(plan.read_text()), "name": value}))
    for number in range(4):
        (runs / f"f{number}").mkdir()
        (runs / f"f{number}" / "record.json").write_text("{")

    for target in ("wandb", "tensorboard"):
        words = ["mirror", str(runs), f"--to={target}", f"--output={output}"]
        assert main(words) == 0
        said = capsys.readouterr().err
        assert "a/wandb_run_id.txt: cannot be read: it is not a regular file" in said
        assert "left out: 1 more" in said
        assert "4 sent" in said
    assert not list(tmp_path.rglob("outside*"))
    assert (output / "tensorboard" / "study ..-..-..-..-outside").is_dir()


def test_a_run_that_writes_to_wandb_itself_is_left_to_it(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "student"
    run.mkdir(parents=True)
    (run / METRICS_NAME).write_text('{"step": 1, "loss": 2}\n{"step": 2, "loss": 1}\n')
    (run / "config.yaml").write_text("tracking: {wandb: online}\n")
    record = mirror.run(MirrorConfig([str(tmp_path / "runs")], to="tensorboard"))
    assert record.counts["tracked live"] == 1


def test_what_wandb_needs_is_told_by_the_setting_of_mirror(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETRC", "/dev/null")
    monkeypatch.setenv("WANDB_CONFIG_DIR", "/dev/null")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigurationError, match=r"^wandb is online.*or set wandb to offline"):
        mirror.run(MirrorConfig([str(study)], wandb="online"))
    with pytest.raises(ConfigurationError, match="workspace must be false unless"):
        MirrorConfig([str(study)], workspace=True)


def test_folders_without_runs_and_wrong_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no run"):
        mirror.run(MirrorConfig([str(tmp_path)]))
    with pytest.raises(DatasetError, match="no such folder"):
        mirror.run(MirrorConfig([str(tmp_path / "absent")]))
    with pytest.raises(ConfigurationError, match=r"tags has 'x{65}', expected 1 to 64"):
        MirrorConfig([str(tmp_path)], tags=["x" * 65])


def test_every_weights_file_links_to_what_it_learnt_from(study: Path) -> None:
    found = {run.name: run for run in find_runs([str(study)], [])}
    links = {(link.direction, link.kind) for link in links_of(found["student"])}
    assert links == {("read", "dataset"), ("read", "pseudo-labels"), ("wrote", "weights")}
    assert without_folders(dict(found["student"].settings))["output"] == "student"
