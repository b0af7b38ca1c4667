"""``nakt submit`` without a cluster: the job's file, and mistakes found before the queue."""

import subprocess
from pathlib import Path

import pytest
import yaml

from nakt_dist.cli import main, parse_config
from nakt_dist.config import SubmitConfig
from nakt_dist.config.submitting import time_in_seconds
from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.slurm import job_file
from nakt_dist.stages import submit

TRAIN = (
    "--output=runs/student", "--data.dataset=shards/a", "--recipe.steps=5",
    "--recipe.global_batch_size=8",
)  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fake_sbatch(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """An sbatch that does as ``text`` says, first on the path."""
    (folder / "bin").mkdir()
    program = folder / "bin" / "sbatch"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder / "bin"), prepend=":")


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """The lines of a dry run."""
    assert main(["submit", *words]) == 0
    return capsys.readouterr().out.splitlines()


def options_of(lines: list[str]) -> dict[str, str]:
    found = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert len({each.split("=")[0] for each in found}) == len(found), "an option stands twice"
    return {each.split("=", 1)[0]: each.partition("=")[2] for each in found}


@pytest.mark.parametrize("flag", ["--dry-run", "--dry_run", "--dry_run=true", "--dry-run=true"])
def test_a_dry_run_prints_the_job_and_the_command_and_leaves_nothing(
    flag: str, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_sbatch(here, monkeypatch, f"touch {here}/was-called")

    lines = printed(capsys, "train", flag, "--nodes=2", "--", *TRAIN)

    assert lines[0] == "#!/usr/bin/env bash"
    assert f"set -- train {' '.join(TRAIN)}" in lines
    assert lines[-1] == f"# sbatch --parsable {here}/runs/student-train.sbatch"
    assert [path.name for path in here.iterdir()] == ["bin"]


def test_settings_become_options_of_sbatch_and_replace_those_of_the_script(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = printed(
        capsys, "train", "--dry-run", "--nodes=2", "--gpus-per-node=4", "--cpus_per_task", "8",
        "--time", "04:00:00", "--memory=64G", "--partition=gpu", "--account=lab", "--qos=high",
        "--warning-seconds=300", '--extra=["--constraint=a100", "--mem=0", "--exclusive"]', "--",
        *TRAIN,
    )  # fmt: skip

    assert options_of(lines) == {
        "--job-name": "student-train", "--nodes": "2", "--ntasks-per-node": "4",
        "--gpus-per-node": "4", "--cpus-per-task": "8", "--time": "04:00:00",
        "--partition": "gpu", "--account": "lab", "--qos": "high", "--signal": "USR1@300",
        "--chdir": str(here), "--output": f"{here}/runs/%x-%j.log", "--open-mode": "append",
        "--requeue": "", "--constraint": "a100", "--mem": "0", "--exclusive": "",
    }  # fmt: skip


def test_the_job_is_shell_and_its_words_arrive_as_they_were_given(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = ('--model.options={"a": "it\'s $HOME `x`"}', "--seed", "3", "--init=a b*")
    lines = printed(
        capsys, "train", "--dry-run", "--activate=module load 'a b'", "--python=/opt/p y",
        "--master-address=10.0.0.1", "--", *TRAIN, *odd,
    )  # fmt: skip

    settings = lines[: next(i for i, line in enumerate(lines) if line.startswith("set --")) + 1]
    check = ["import os, sys, json", "names = ('NAKT_ACTIVATE', 'NAKT_PYTHON', 'NAKT_MASTER_ADDR')"]
    check += ["print(json.dumps([*map(os.environ.get, names), *sys.argv[1:]]))"]
    script = "\n".join([*settings, f'python3 -c "{"; ".join(check)}" "$@"'])
    ended = subprocess.run(["bash", "-euc", script], capture_output=True, text=True, check=True)
    assert yaml.safe_load(ended.stdout) == [
        "module load 'a b'", "/opt/p y", "10.0.0.1", "train", *TRAIN, *odd,
    ]  # fmt: skip
    subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=True)


def test_a_job_is_written_beside_the_output_and_its_number_is_told(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_sbatch(here, monkeypatch, f'echo "$@" > {here}/words; echo "4711;cluster"')

    record = submit.run(SubmitConfig(stage="train", words=list(TRAIN), nodes=2))

    assert record.details["job"] == "4711"
    file = here / "runs" / "student-train.sbatch"
    assert (here / "words").read_text() == f"--parsable {file}\n"
    assert "#SBATCH --nodes=2\n" in file.read_text()
    assert not (here / "runs" / "student").exists()


def test_without_sbatch_it_says_what_to_do_and_keeps_the_file(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(here))

    assert main(["submit", "train", "--gpus-per-node=4", "--folder=jobs", "--", *TRAIN]) == 1

    message = capsys.readouterr().err
    assert "nakt: error: sbatch is not on this machine" in message
    assert f"torchrun --nproc_per_node 4 -m nakt_dist train {' '.join(TRAIN)}" in message
    assert (here / "jobs" / "student-train.sbatch").exists()


def test_what_sbatch_complains_about_is_passed_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_sbatch(here, monkeypatch, "echo 'sbatch: error: invalid partition: gpuu' >&2; exit 1")

    assert main(["submit", "train", "--partition=gpuu", "--", *TRAIN]) == 1

    assert "student-train.sbatch: sbatch: error: invalid partition" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "--", *TRAIN, "--recipe.stepz=3"), "did you mean 'recipe.steps'"),
        (("train", "--", *TRAIN, "--recipe.steps=many"), "recipe.steps is many"),
        (("train", "--nodez=2", "--", *TRAIN), "did you mean 'nodes'"),
        (("train", *TRAIN), "settings of the stage to run stand after --"),
        (("trian", "--", *TRAIN), "did you mean 'train'"),
        (("submit", "--", "train"), "submit cannot submit itself"),
        (("verify", "--nodes=2", "--", "a"), "verify runs as one process, and 2 were to share it"),
        (("train", "--time=2", "--", *TRAIN), "expected more than 180 s"),
        (("train", "--time=soon", "--", *TRAIN), "such as 90, 04:00:00 or 2-12"),
        (("train", "--nodes=0", "--", *TRAIN), "nodes must be positive"),
        (("train", "--extra=[exclusive]", "--", *TRAIN), "extra has 'exclusive'"),
        (("train", "--accelerate-config=no.yaml", "--", *TRAIN), "accelerate_config: no.yaml: "),
        (("train", "--dry-run", "--nodez=2", "--", *TRAIN), "did you mean 'nodes'"),
        (("train", "--partition=a\n#SBATCH --x", "--", *TRAIN), "expected text on one line"),
        (
            ("train", "--nodes=4", "--tasks-per-node=4", "--", *TRAIN),
            "recipe.global_batch_size 8 is not a multiple of 16 processes",
        ),
    ],
)
def test_a_mistake_is_found_before_anything_is_submitted(
    words: tuple[str, ...],
    told: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fake_sbatch(here, monkeypatch, f"touch {here}/was-called")

    assert main(["submit", *words]) == 2

    message = capsys.readouterr().err
    assert told.lower() in message.lower()
    assert message.startswith("nakt: error: ")
    assert message.count("\n") == 1
    assert [path.name for path in here.iterdir()] == ["bin"]


def test_a_file_of_accelerate_that_no_node_could_use_is_found_before_the_queue(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "fsdp.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: FSDP\nnum_processes: 2\n"
    )
    words = ("train", "--dry-run", "--accelerate-config=fsdp.yaml", "--", *TRAIN)

    assert main(["submit", *words]) == 2

    assert "accelerate_config: fsdp.yaml: distributed_type is FSDP" in capsys.readouterr().err


def write_study(folder: Path, **last: object) -> Path:
    phantoms = {"kind": "dermoscopy", "output": "${root}/published-${seed}"}
    evaluate = {"weights": "w", "dataset": "d", "output": "${root}/test-${seed}", **last}
    steps = [
        {"stage": "phantoms", "matrix": {"seed": [0, 1]}, "config": phantoms},
        {"stage": "evaluate", "matrix": {"seed": [5, 6, 7]}, "config": evaluate},
    ]
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump({"root": "runs/study", "steps": steps}))
    return file


def test_a_typo_in_the_last_step_of_a_study_costs_no_time_in_the_queue(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = write_study(here, batch_sise=3)
    assert main(["submit", "study", "--", f"--config={study}"]) == 2
    assert "did you mean 'batch_size'" in capsys.readouterr().err


def test_a_file_holds_what_is_alike_for_all_jobs_of_a_cluster(here: Path) -> None:
    (here / "cluster.yaml").write_text("partition: gpu\ntime: '60'\nextra: [--exclusive]\n")

    config = parse_config("submit", ["train", "--config=cluster.yaml", "--", "--seed", "3"])

    assert (config.stage, config.words) == ("train", ["--seed", "3"])
    assert (config.partition, config.time, config.extra) == ("gpu", "60", ["--exclusive"])


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("90", 5400), ("5:30", 330), ("04:00:00", 14400), ("2-12", 216000), ("1-0:30", 88200),
        ("1-00:00:05", 86405),
    ],
)  # fmt: skip
def test_a_time_is_read_as_sbatch_reads_it(time: str, seconds: int) -> None:
    assert time_in_seconds(time) == seconds


def test_an_option_may_not_begin_another_line() -> None:
    with pytest.raises(ConfigurationError, match="chdir is"):
        job_file({"--chdir": "a\nb"}, [], {}, ["train"])
