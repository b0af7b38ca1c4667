"""``launch/slurm/job.sbatch`` on two nodes: ranks, ends, signals; with a program that is quick."""

import time
from pathlib import Path

import pytest

from tests.slurm_jobs import ARRAY, JOB, ROOT, Job, call, require_local_cluster, submitted
from tests.slurm_jobs import write_program as write

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(240)]


@pytest.fixture(autouse=True)
def cluster() -> None:
    require_local_cluster()


@pytest.fixture
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NAKT_PYTHON", str(tmp_path / "program"))
    monkeypatch.setenv("NAKT_JOB_FOLDER", str(tmp_path))


TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", JOB)


def lines_of(folder: Path, pattern: str = "rank-*") -> list[str]:
    return sorted(path.read_text() for path in folder.glob(pattern))


def nothing_is_left(folder: Path) -> bool:
    return not list(folder.glob(".nakt-interrupted-*"))


def test_every_task_has_its_rank_its_device_and_one_place_to_meet(
    tmp_path: Path, variables: None
) -> None:
    write(
        tmp_path / "program",
        "names = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'SLURMD_NODENAME', 'MASTER_ADDR',\n"
        "         'MASTER_PORT', 'OMP_NUM_THREADS')\n"
        f"file = '{tmp_path}/rank-' + os.environ['RANK']\n"
        "open(file, 'w').write(' '.join([os.environ[n] for n in names] + sys.argv[1:]))\n",
    )
    words = ("train", "--output=a b", "--data.splits=[train]")
    with submitted(
        "--nodes=2", "--ntasks-per-node=2", "--cpus-per-task=2", JOB, *words, folder=tmp_path
    ) as job:
        job.succeed()

    port = 10000 + int(job.number) % 20000
    meeting = f"nakt1 {port} 1 -m nakt_dist train --output=a b --data.splits=[train]"
    assert lines_of(tmp_path) == [
        f"0 0 4 nakt1 {meeting}",
        f"1 1 4 nakt1 {meeting}",
        f"2 0 4 nakt2 {meeting}",
        f"3 1 4 nakt2 {meeting}",
    ]


def test_a_task_that_fails_ends_the_others_and_the_job_is_not_queued_again(
    tmp_path: Path, variables: None
) -> None:
    write(
        tmp_path / "program",
        "if os.environ['RANK'] == '1':\n    sys.exit(1)\n"
        # What train does with the signal that srun then sends: it leaves to be queued again.
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
        "time.sleep(120)\n",
    )
    began = time.monotonic()
    with submitted(*TWO_NODES, "train", folder=tmp_path) as job:
        assert job.wait() == "FAILED", job.output
        assert job.facts()["ExitCode"] != "0:0"
        assert job.restarts == 0

    assert time.monotonic() - began < 60
    assert "queued again" not in job.output
    assert nothing_is_left(tmp_path)


def test_tasks_that_leave_one_after_the_other_are_waited_for_and_queued_again(
    tmp_path: Path, variables: None
) -> None:
    write(
        tmp_path / "program",
        "rank, start = os.environ['RANK'], os.environ.get('SLURM_RESTART_COUNT', '0')\n"
        "time.sleep(3 * (rank == '0'))\n"
        f"open('{tmp_path}/rank-' + rank + '-' + start, 'w').write(rank + ' ' + start)\n"
        "sys.exit(75 if start == '0' else 0)\n",
    )
    with submitted(*TWO_NODES, "train", folder=tmp_path) as job:
        job.wait_until_queued_again()
        job.succeed()
        assert job.restarts == 1

    assert lines_of(tmp_path) == ["0 0", "0 1", "1 0", "1 1"]
    assert "interrupted, queued again" in job.output
    assert "start 2: nakt train on nakt[1-2]" in job.output
    assert nothing_is_left(tmp_path)


def test_a_task_that_leaves_alone_ends_the_others_at_once_and_the_job_is_queued_again(
    tmp_path: Path, variables: None
) -> None:
    write(
        tmp_path / "program",
        "rank, start = os.environ['RANK'], os.environ.get('SLURM_RESTART_COUNT', '0')\n"
        # The one waits in vain for the other, and ends badly when srun ends it.
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
        f"open('{tmp_path}/rank-' + rank + '-' + start, 'w').write(rank + ' ' + start)\n"
        "if start == '0' and rank == '1':\n"
        f"    while not os.path.exists('{tmp_path}/rank-0-0'):\n        time.sleep(0.1)\n"
        "    sys.exit(76)\n"
        "time.sleep(120 * (start == '0'))\n",
    )
    with submitted(*TWO_NODES, "train", folder=tmp_path) as job:
        job.wait_until_queued_again()
        job.succeed()
        assert job.restarts == 1

    assert lines_of(tmp_path) == ["0 0", "0 1", "1 0", "1 1"]
    assert nothing_is_left(tmp_path)


@pytest.mark.parametrize("number", ["USR1", "TERM"])
def test_a_stage_that_does_not_know_the_warning_dies_of_it_and_is_queued_again(
    number: str, tmp_path: Path, variables: None
) -> None:
    write(
        tmp_path / "program",
        "rank, start = os.environ['RANK'], os.environ.get('SLURM_RESTART_COUNT', '0')\n"
        f"open('{tmp_path}/rank-' + rank + '-' + start, 'w').write(rank)\n"
        "time.sleep(120 * (start == '0'))\n",
    )
    with submitted(*TWO_NODES, "teach", folder=tmp_path) as job:
        job.wait_until(lambda: len(lines_of(tmp_path)) == 2)
        call("scancel", f"--signal={number}", job.number)
        job.wait_until_queued_again()
        job.succeed()

    assert lines_of(tmp_path, "rank-*-1") == ["0", "1"]


@pytest.mark.parametrize("answer", ["lambda *_: sys.exit(75)", "signal.SIG_DFL"])
def test_a_job_that_is_cancelled_stays_cancelled(
    answer: str, tmp_path: Path, variables: None
) -> None:
    write(
        tmp_path / "program",
        f"signal.signal(signal.SIGTERM, {answer})\n"
        f"open('{tmp_path}/rank-' + os.environ['RANK'], 'w').close()\n"
        "time.sleep(120)\n",
    )
    with submitted(*TWO_NODES, "train", folder=tmp_path) as job:
        job.wait_until(lambda: len(lines_of(tmp_path)) == 2)
        call("scancel", job.number)
        assert job.wait() == "CANCELLED"
        time.sleep(3)
        assert job.facts()["JobState"] == "CANCELLED"
        assert job.restarts == 0


def test_where_a_job_may_not_be_queued_again_it_says_how_to_go_on(
    tmp_path: Path, variables: None
) -> None:
    write(tmp_path / "program", "sys.exit(75)\n")
    with submitted("--no-requeue", *TWO_NODES, "train", folder=tmp_path) as job:
        assert job.wait() == "FAILED"
        assert job.facts()["ExitCode"] == "75:0"

    assert "submit it once more to go on" in job.output
    assert nothing_is_left(tmp_path)


def test_of_an_array_only_the_task_that_was_interrupted_is_queued_again(
    tmp_path: Path, variables: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAKT_JOB", str(JOB))
    write(
        tmp_path / "program",
        "task = os.environ['SLURM_ARRAY_TASK_ID']\n"
        "start = os.environ.get('SLURM_RESTART_COUNT', '0')\n"
        f"open('{tmp_path}/task-' + task + '-' + start, 'w').write(' '.join(sys.argv[3:]))\n"
        "sys.exit(75 if task == '2' and start == '0' else 0)\n",
    )
    # The last task of an array bears the number of the whole array.
    words = ("--array=1-2", ARRAY, "--config=study.yaml", "--task_file=tasks.json")
    with submitted(*words, folder=tmp_path) as array:
        first, last = (Job(f"{array.number}_{task}", array.log) for task in (1, 2))
        last.wait_until_queued_again()
        last.succeed()
        first.succeed()

    run = "study --config=study.yaml --task_file=tasks.json --task"
    assert sorted(path.name for path in tmp_path.glob("task-*")) == [
        "task-1-0",
        "task-2-0",
        "task-2-1",
    ]
    assert lines_of(tmp_path, "task-*-0") == [f"{run} 1", f"{run} 2"]


def test_the_scripts_are_shell_and_the_package_carries_the_job() -> None:
    for script in (JOB, ARRAY, ROOT / "launch" / "slurm" / "local_cluster.sh"):
        call("bash", "-n", script)
    assert (ROOT / "nakt_dist" / "runtime" / "job.sbatch").read_bytes() == JOB.read_bytes()
