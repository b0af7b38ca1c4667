"""What ``launch/slurm/job.sbatch`` makes of the exits of its tasks, with an srun of a few lines."""

import os
import subprocess
from pathlib import Path

import pytest

JOB = Path(__file__).parents[2] / "launch" / "slurm" / "job.sbatch"
PROGRAMS = {
    # Runs the tasks one after the other and ends as srun does, with the highest exit status.
    "srun": """\
while [ "$1" != bash ]; do shift; done
highest=0
for rank in $(seq 0 $((SLURM_NTASKS - 1))); do
    status=0
    SLURM_PROCID=$rank SLURM_LOCALID=$rank "$@" || status=$?
    if [ $status -gt $highest ]; then highest=$status; fi
done
exit $highest
""",
    "scontrol": 'if [ "$1" = show ]; then echo node1; else echo "$*" >> requeued; fi\n',
    "python": 'echo "$*" > "words-$RANK"\nset -- $EXITS\nshift "$RANK"\nexit "$1"\n',
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        program = tmp_path / "bin" / name
        program.write_text(f"#!/usr/bin/env bash\n{text}")
        program.chmod(0o755)
    return tmp_path


def run_job(
    here: Path, *words: str, exits: str = "0", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs the batch script; ``exits`` are those of the stage in each task."""
    variables = {
        "PATH": f"{here / 'bin'}:{os.environ['PATH']}", "EXITS": exits, "SLURM_JOB_ID": "12",
        "SLURM_NTASKS": str(len(exits.split())), "SLURM_JOB_NODELIST": "node1",
        "SLURM_SUBMIT_DIR": str(here), **environment,
    }  # fmt: skip
    ended = subprocess.run(
        ["bash", JOB, *words], cwd=here, env=variables, capture_output=True, text=True, timeout=60
    )
    assert not list(here.glob(".nakt-*")), "a file of the tasks stayed behind"
    return ended


@pytest.mark.parametrize(
    ("stage", "exits", "status", "queued_again"),
    [
        ("train", "0 0", 0, False),
        ("train", "75 75", 0, True),
        ("train", "75 0", 0, True),
        ("train", "75 1", 1, False),
        ("train", "1 75", 1, False),
        ("train", "76 143", 0, True),
        ("train", "1 76", 0, True),
        ("train", "75 76", 0, True),
        ("report", "75", 0, True),
        *(
            (stage, signalled, 0, True)
            for stage in ("pack", "teach", "train", "evaluate", "predict", "study")
            for signalled in ("138", "143")
        ),
        *((stage, "138", 138, False) for stage in ("attention", "inspect", "verify", "report")),
        ("verify", "143", 143, False),
        ("teach", "138 1", 1, False),
        ("teach", "1 143", 1, False),
    ],
)
def test_the_exits_of_the_tasks_decide_whether_a_job_is_queued_again(
    stage: str, exits: str, status: int, queued_again: bool, here: Path
) -> None:
    ended = run_job(here, stage, exits=exits)

    assert ended.returncode == status, ended.stderr
    assert (here / "requeued").exists() == queued_again
    assert ("queued again (1 of at most 50 times)" in ended.stderr) == queued_again
    if queued_again:
        assert (here / "requeued").read_text() == "requeue 12\n"
    assert ("submit it with more time" in ended.stderr) == (status in (138, 143))


@pytest.mark.parametrize("exits", ["75 75", "143 76"])
def test_a_job_that_does_not_get_on_is_not_queued_again_for_ever(exits: str, here: Path) -> None:
    settings = {"NAKT_MOST_RESTARTS": "3"}
    assert run_job(here, "train", exits=exits, SLURM_RESTART_COUNT="2", **settings).returncode == 0
    assert (here / "requeued").read_text() == "requeue 12\n"

    ended = run_job(here, "train", exits=exits, SLURM_RESTART_COUNT="3", **settings)

    assert ended.returncode == 75
    assert (here / "requeued").read_text() == "requeue 12\n"
    assert "as it was 3 times before (NAKT_MOST_RESTARTS is 3)" in ended.stderr


@pytest.mark.parametrize("activation", ["source ./activate", "set -- other words"])
def test_the_words_that_make_python_ready_neither_see_nor_change_those_of_the_stage(
    activation: str, here: Path
) -> None:
    (here / "activate").write_text('[ "$#" = 0 ] || exit 9\nset -- "$UNSET"\nexport EXITS=75\n')

    ended = run_job(here, "teach", "--output=a b", NAKT_ACTIVATE=activation)

    assert ended.returncode == 0, ended.stderr
    assert (here / "words-0").read_text() == "-m nakt_dist teach --output=a b\n"
    assert (here / "requeued").exists() == (activation == "source ./activate")


@pytest.mark.parametrize(
    ("exits", "tries", "status"), [("1", 3, 1), ("2", 1, 2), ("75", 1, 0), ("0", 1, 0)]
)
def test_a_stage_that_fails_is_tried_again_where_that_is_asked_for(
    exits: str, tries: int, status: int, here: Path
) -> None:
    python = here / "bin" / "python"
    python.write_text('#!/usr/bin/env bash\necho "$NAKT_TRY" >> tries\nexit "$EXITS"\n')

    ended = run_job(here, "train", exits=exits, NAKT_RETRIES="2")

    assert ended.returncode == status, ended.stderr
    numbers = (here / "tries").read_text().split()
    assert numbers == [str(number) for number in range(1, tries + 1)]
