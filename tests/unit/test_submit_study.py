"""``nakt submit study`` with a SLURM of a few lines: what is submitted, and what is not again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nakt_dist.cli import main
from nakt_dist.studies.folder import RunState, StudyFolder, statuses

SBATCH = """\
echo "$*" >> HERE/sbatch
next=$(( $(cat HERE/next 2> /dev/null || echo 100) + 1 ))
if [ -e HERE/most ] && [ "$next" -gt "$(cat HERE/most)" ]; then
    echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2
    exit 1
fi
echo "$next" | tee HERE/next
"""
SCONTROL = """\
echo "$*" >> HERE/scontrol
if [ "$1" = show ]; then echo "MaxArraySize            = $(cat HERE/array-size)"; fi
"""
Submit = Callable[..., int]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    programs = {"sbatch": SBATCH, "scontrol": SCONTROL, "squeue": "cat HERE/queue\n"}
    (tmp_path / "bin").mkdir()
    for name, text in programs.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/bin/sh\n{text.replace('HERE', str(tmp_path))}")
        program.chmod(0o755)
    (tmp_path / "array-size").write_text("1001")
    (tmp_path / "queue").write_text("")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.chdir(tmp_path)
    return tmp_path


PHANTOMS = {
    "kind": "breast_ultrasound", "output": "${root}/published-${seed}", "seed": "${seed}",
    "count": 2, "image_size": 32,
}  # fmt: skip
PACK = {"layout": "busi", "source": "${root}/published-${seed}", "output": "${root}/pack-${seed}"}


def write_study(folder: Path, **last: Any) -> Path:
    matrix = {"matrix": {"seed": [0, 1, 2]}}
    steps = [
        {"stage": "phantoms", **matrix, "config": PHANTOMS},
        {"stage": "pack", **({} if "search" in last else matrix), "config": PACK, **last},
    ]
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({"root": "runs/demo", "steps": steps}))
    return file


def submit(here: Path, *words: str) -> int:
    own = words[: words.index("--")] if "--" in words else words
    others = words[len(own) + 1 :]
    return main(["submit", "study", *own, "--", str(here / "study.yaml"), *others])


def submitted(here: Path) -> list[str]:
    """The commands so far, without what is alike in all."""
    place = f"{here}/runs/demo/.study/slurm"
    lines = (here / "sbatch").read_text().splitlines()
    return [line.replace(f" {place}/", " ").replace("--parsable --hold --", "") for line in lines]


KILL = "--kill-on-invalid-dep=yes"


def test_a_step_is_an_array_whose_tasks_wait_for_their_own(here: Path) -> None:
    write_study(here)
    assert submit(here, "--array-limit=2", "--partition=gpu") == 0

    assert submitted(here) == [
        "array=1-3%2 job-1-1.sbatch",
        f"array=1-3%2 --dependency=aftercorr:101 {KILL} job-1-2.sbatch",
    ]
    assert (here / "scontrol").read_text().splitlines()[-1] == "release 101,102"
    study = StudyFolder("runs/demo")
    assert len(study.read_plan().runs) == 6
    assert study.read_state("pack-1") == RunState("queued", job="102_2")
    text = (here / "runs/demo/.study/slurm/job-1-2.sbatch").read_text()
    assert "#SBATCH --partition=gpu\n" in text
    frozen, tasks = (study.folder.resolve() / name for name in
                     ("submitted-1.yaml", "tasks-1-2-2.json"))  # fmt: skip
    words = f"set -- study --config {frozen} --task_file {tasks} --jobs 1 --task"
    assert f'{words} "$SLURM_ARRAY_TASK_ID"\n' in text
    assert json.loads(tasks.read_text()) == [["pack-0"], ["pack-1"], ["pack-2"]]
    lines = [json.loads(line) for line in (study.folder / "jobs.jsonl").read_text().splitlines()]
    assert [(line["job"], line["step"], line["dependency"]) for line in lines] == [
        ("101", 1, None), ("102", 2, "aftercorr:101"),
    ]  # fmt: skip
    assert lines[0]["tasks"]["3"] == ["published-2"]


def test_a_task_does_its_runs_by_the_study_as_it_was_submitted(here: Path) -> None:
    file = write_study(here)
    assert submit(here, "--runs-per-task=2") == 0
    file.write_text("steps: changed since")
    folder = here / "runs/demo/.study"
    words = ("study", f"--config={folder}/submitted-1.yaml")

    assert main([*words, f"--task_file={folder}/tasks-1-1-1.json", "--task=1"]) == 0
    study = StudyFolder("runs/demo")
    states = [study.read_state(f"published-{n}") for n in range(3)]
    assert [state.status for state in states if state] == ["done", "done", "queued"]

    # The second task of packing begins though what it needs has failed: it says so, and ends.
    assert main([*words, f"--task_file={folder}/tasks-1-2-2.json", "--task=2"]) == 1
    assert study.read_state("pack-2") is None
    assert not (here / "runs/demo/pack-2").exists()


def test_what_is_queued_is_not_submitted_again(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(here)
    assert submit(here) == 0
    (here / "queue").write_text("101_2|RUNNING|None\n102_2|PENDING|Dependency\n")
    # A first task has failed, and SLURM took what needs it out of the queue; the others are done.
    StudyFolder("runs/demo").write_state("published-0", RunState("failed", job="101_1"))

    assert submit(here) == 1
    assert "2 runs of the study are queued or running (jobs 101, 102)" in capsys.readouterr().err
    assert submit(here, "--resume") == 0

    assert submitted(here)[2:] == [
        "array=1-2 job-2-1.sbatch",
        f"array=1-2 --dependency=aftercorr:103 {KILL} job-2-2.sbatch",
    ]
    # Those of before may be held still, where their submission was killed.
    assert (here / "scontrol").read_text().splitlines()[-1] == "release 101,102,103,104"
    names = StudyFolder("runs/demo").folder / "tasks-2-2-2.json"
    assert json.loads(names.read_text()) == [["pack-0"], ["pack-2"]]


def test_what_slurm_took_out_of_the_queue_is_blocked_and_what_it_lost_has_failed(
    here: Path,
) -> None:
    write_study(here)
    assert submit(here) == 0
    study = StudyFolder("runs/demo")
    study.write_state("published-0", RunState("failed", job="101_1"))
    plan = study.read_plan()
    states = {run.name: study.read_state(run.name) for run in plan.runs}

    # One task does several runs: those that it has not begun are queued still.
    queue = {"101_3": "RUNNING", "102_3": "PENDING (Dependency)"}
    found = {each.run.name: each.word for each in statuses(plan, states, queue)}

    assert found == {
        "published-0": "failed", "pack-0": "blocked", "published-1": "failed",
        "pack-1": "blocked", "published-2": "queued", "pack-2": "queued",
    }  # fmt: skip


def test_an_array_is_split_where_the_cluster_takes_smaller_ones(here: Path) -> None:
    write_study(here)
    (here / "array-size").write_text("3")
    assert submit(here) == 0
    assert [line.split()[0] for line in submitted(here)] == [
        "array=1-2", "array=1", "array=1-2", "array=1",
    ]  # fmt: skip


def test_where_sbatch_takes_no_more_the_rest_is_for_later(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(here)
    (here / "most").write_text("101")

    assert submit(here) == 1

    message = capsys.readouterr().err
    assert "QOSMaxSubmitJobPerUserLimit. 1 of 2 arrays with 3 runs are submitted" in message
    assert (here / "scontrol").read_text().splitlines()[-1] == "release 101"
    (here / "most").unlink()
    (here / "queue").write_text("101_1|RUNNING|None\n101_2|PENDING|None\n101_3|PENDING|None\n")
    assert submit(here, "--resume") == 0
    assert submitted(here)[2:] == [f"array=1-3 --dependency=aftercorr:101 {KILL} job-2-1.sbatch"]


def test_a_dry_run_prints_arrays_and_commands_and_leaves_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(here, job={"time": "00:30:00"})
    assert submit(here, "--dry-run") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == ("study demo: 6 of 6 runs to submit as 2 arrays (0 done, 0 queued)")
    assert "pack 2, 3 runs in 3 tasks" in lines[2]
    assert "time 00:30:00" in lines[2]
    assert "time" not in lines[1]
    assert "sbatch --parsable --hold --array=1-3 --dependency=aftercorr:JOB1" in lines[2]
    assert not (here / "runs").exists()
    assert not (here / "sbatch").exists()


def test_gpus_that_no_process_takes_are_told(here: Path, capsys: pytest.CaptureFixture) -> None:
    write_study(here)
    for given, told in (
        (["--gpus-per-node=8"], "gpus_per_node 8, of which 7 stay idle)"),
        (["--gpus-per-node=2", "--runs-per-task=3", "--jobs=2"], "gpus_per_node 2)"),
    ):
        assert submit(here, "--dry-run", *given) == 0
        assert told in capsys.readouterr().out.splitlines()[2]


def test_several_processes_of_a_run_are_tasks_on_nodes(here: Path) -> None:
    write_study(here, processes=8, retries=2, job={"gpus_per_node": 4})
    assert submit(here, "--runs-per-task=3") == 0

    text = (here / "runs/demo/.study/slurm/job-1-2.sbatch").read_text()
    for option in ("--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4"):
        assert f"#SBATCH {option}\n" in text
    assert "export NAKT_RETRIES=2\n" in text
    assert [line.split()[0] for line in submitted(here)] == ["array=1", "array=1-3"]


TRAIN = {"data": {"dataset": "d"}, "recipe": {"steps": 5, "global_batch_size": 4}}
MISTAKES = {
    "there is no 'gpus_per_nod', did you mean 'gpus_per_node'": {"job": {"gpus_per_nod": 4}},
    "job: time is 'soon'": {"job": {"time": "soon"}},
    "job: gpus_per_node is four": {"job": {"gpus_per_node": "four"}},
    "processes of the step is 6, but 2 nodes with 4": {"processes": 6, "job": {"gpus_per_node": 4}},
    "report runs as one process": {
        "stage": "report", "config": {"runs": ["a"], "output": "${root}/${seed}"}, "processes": 2,
    },
    "recipe.global_batch_size 4 is not a multiple of 8 processes": {
        "stage": "train", "config": {**TRAIN, "output": "${root}/${seed}"}, "processes": 8,
    },
    "did you mean 'image'": {"config": {**PACK, "imag": 3}},
    "a search draws its trials in the one process": {
        "stage": "train",
        "config": {
            "output": "${root}/${trial}", "data": {"dataset": "d"}, "validation": {"dataset": "v"},
            "recipe": {"epochs": 2, "global_batch_size": 4, "learning_rate": "${rate}"},
        },
        "search": {
            "count": 2, "by": "best_validation_dice", "values": {"rate": {"choice": [0.1, 0.2]}},
        },
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "last", "expected"),
    [
        *(((), last, expected) for expected, last in MISTAKES.items()),
        (("--nodes=2",), {}, "nodes and tasks_per_node are no settings of a whole study"),
        (("--jobs=2",), {}, "jobs is 2 and runs_per_task 1"),
        (("--", "--only=[pack-4]"), {}, "the study has no run 'pack-4'"),
        (("--", "--only=[pack-1]"), {}, "pack-1 needs published-1, which is neither done nor"),
        (("--", "--task=1", "--task_file=a"), {}, "task is what the jobs of a study do"),
    ],
)
def test_a_mistake_is_found_before_the_queue(
    words: tuple[str, ...],
    last: dict[str, Any],
    expected: str,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_study(here, **last)
    assert submit(here, *words) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert not last or "steps[2]" in message
    assert not (here / "sbatch").exists()


def test_settings_of_studies_are_refused_for_a_single_stage(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["submit", "verify", "--array-limit=2", "--", "shards"]) == 2
    assert "array_limit is a setting for a study, and verify is none" in capsys.readouterr().err


def replace_program(here: Path, name: str, text: str) -> None:
    (here / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")


def test_a_job_whose_number_is_not_told_is_not_built_upon(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_study(here)
    replace_program(here, "sbatch", "echo 'Budget: 10 hours left'")
    assert submit(here) == 1
    message = capsys.readouterr().err
    assert "sbatch prints 'Budget: 10 hours left', expected the number of a job" in message
    assert "squeue --me" in message
    assert not (here / "runs/demo/.study/jobs.jsonl").exists()

    monkeypatch.setattr("nakt_dist.runtime.slurm._SUBMIT_SECONDS", 0.2)
    replace_program(here, "sbatch", "echo 7; exec sleep 60")
    assert submit(here) == 1
    message = capsys.readouterr().err
    assert "sbatch did not answer within 0.2 s. Look with `squeue --me`" in message
    assert "take it out with scancel" in message
    assert not (here / "runs/demo/.study/jobs.jsonl").exists()
    monkeypatch.setattr("nakt_dist.runtime.slurm._SUBMIT_SECONDS", 60)

    replace_program(here, "sbatch", "echo 'Budget: 10 hours left'; echo '7;north'")
    assert submit(here) == 0
    assert StudyFolder("runs/demo").read_state("pack-1") == RunState("queued", job="7_2")


@pytest.mark.parametrize("answer", ["Maintenance on Friday", "101_1|RUNNING", "id|state|why"])
def test_an_answer_that_is_no_queue_is_not_taken_for_an_empty_one(
    answer: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(here)
    assert submit(here) == 0
    (here / "queue").write_text(f"{answer}\n")
    assert submit(here, "--resume") == 1
    assert "squeue does not answer as expected" in capsys.readouterr().err
    assert len(submitted(here)) == 2


def test_jobs_in_hidden_partitions_are_asked_for(here: Path) -> None:
    write_study(here)
    assert submit(here) == 0
    replace_program(
        here, "squeue", f'case "$*" in *--all*) echo "101_1|RUNNING|None";; esac; cat {here}/queue'
    )
    assert submit(here) == 1


@pytest.mark.parametrize("damage", ["cut inside a letter", "line separator", "a list of tasks"])
def test_what_was_submitted_is_known_behind_a_damaged_line(
    damage: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(here)
    assert submit(here) == 0
    jobs = here / "runs/demo/.study/jobs.jsonl"
    lines = jobs.read_bytes()
    told = {
        "cut inside a letter": b'{"job": "1", "tasks": {"1": ["\xc3\n' + lines,
        "line separator": lines.replace(b'"study"', '"more": "\u2028\x85", "study"'.encode()),
        "a list of tasks": b'{"job": 5, "tasks": {"1": 3, "2": [[]]}}\n{"tasks": {}}\n' + lines,
    }
    jobs.write_bytes(told[damage])
    (here / "queue").write_text("101_2|RUNNING|None\n")
    assert submit(here) == 1
    assert "1 runs of the study are queued or running (jobs 101)" in capsys.readouterr().err


def test_a_list_of_jobs_that_cannot_be_read_is_not_taken_for_none(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(here)
    (here / "runs/demo/.study/jobs.jsonl").mkdir(parents=True)
    assert submit(here) == 1
    assert "jobs.jsonl: cannot be read: Is a directory" in capsys.readouterr().err
    assert not (here / "sbatch").exists()


def test_what_slurm_will_never_begin_is_submitted_again(here: Path) -> None:
    write_study(here)
    assert submit(here) == 0
    reason = "DependencyNeverSatisfied"  # of a task that was cancelled by hand
    (here / "queue").write_text(f"102_1|PENDING|{reason}\n101_2|RUNNING|None\n102_2|PENDING|None\n")
    assert submit(here, "--resume") == 0
    files = (StudyFolder("runs/demo").folder / f"tasks-2-{step}-{step}.json" for step in (1, 2))
    names = [json.loads(file.read_text()) for file in files]
    assert names == [[["published-0"], ["published-2"]], [["pack-0"], ["pack-2"]]]


def test_where_jobs_stay_held_all_that_went_wrong_is_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_study(here)
    (here / "most").write_text("101")
    replace_program(here, "scontrol", "printf 'n\\377t allowed' >&2; exit 1")
    assert submit(here) == 1
    message = capsys.readouterr().err
    assert "QOSMaxSubmitJobPerUserLimit; jobs are submitted but held" in message
    assert "n\ufffdt allowed. Do it with: scontrol release 101" in message


def test_the_log_of_a_study_with_a_long_name_can_be_opened(here: Path) -> None:
    file = write_study(here)
    root = f"runs/{'ü' * 120}"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "root": root}))
    assert submit(here) == 0
    text = (here / root / ".study/slurm/job-1-2.sbatch").read_text()
    (name,) = [
        line.partition("=")[2].strip("'") for line in text.splitlines() if "--job-name" in line
    ]
    assert name.endswith("-pack-2")
    assert len(name.encode()) < 200
