"""SLURM: the file of a job, and sbatch."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from nakt_dist.errors import ConfigurationError, NaktError

_OPTION = re.compile(r"#SBATCH (--[a-z-]+)=?(.*)")
_SUBMIT_SECONDS = 60
_USUAL_ARRAY_SIZE = 1001


def this_job() -> str | None:
    """Returns the job that this process is in, as SLURM's commands take it, such as ``123_4``."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


def job_file(
    options: Mapping[str, str | int | None],
    extra: Sequence[str],
    environment: Mapping[str, str | None],
    words: Sequence[str],
    per_task: str | None = None,
) -> str:
    """Returns the text of a job: ``launch/slurm/job.sbatch`` with these settings and words.

    Args:
        options: of sbatch, such as ``{"--nodes": 2}``; they replace those of the file. None
            leaves one out.
        extra: further options, as sbatch reads them; they replace the others.
        environment: settings of the script, such as ``NAKT_PYTHON``; None leaves one out.
        per_task: name of one more setting of the stage, whose value is the number of the task
            in an array.

    Raises:
        ConfigurationError: an option holds a line break, which would begin another line.
    """
    template = (
        resources.files("nakt_dist.runtime").joinpath("job.sbatch").read_text(encoding="utf-8")
    )
    first, *lines = template.splitlines()
    chosen = {found[1]: found[2] for line in lines if (found := _OPTION.fullmatch(line))}
    chosen |= {name: _quoted(name, value) for name, value in options.items() if value is not None}
    further = {option.split("=", 1)[0] for option in extra}
    kept = [
        f"{name}={value}" if value else name
        for name, value in chosen.items()
        if name not in further
    ]
    arguments = shlex.join(words)
    if per_task is not None:
        arguments += f' --{per_task} "$SLURM_ARRAY_TASK_ID"'
    return "\n".join(
        [
            first,
            *(f"#SBATCH {option}" for option in [*kept, *extra]),
            "",
            *(
                f"export {name}={shlex.quote(value)}"
                for name, value in environment.items()
                if value is not None
            ),
            f"set -- {arguments}",
            *(line for line in lines if not _OPTION.fullmatch(line)),
            "",
        ]
    )


def _quoted(name: str, value: str | int) -> str:
    if not str(value).isprintable():
        raise ConfigurationError(f"{name[2:]} is {value!r}; expected text on one line")
    return shlex.quote(str(value))


def sbatch_command(path: Path, options: Sequence[str] = ()) -> list[str]:
    """Returns the words that submit a job file and print the job's id alone."""
    return ["sbatch", "--parsable", *options, str(path)]


def submit(path: Path, instead: str, options: Sequence[str] = ()) -> str:
    """Submits a job file.

    Args:
        instead: what to do on a machine without sbatch, for the message.
        options: of sbatch; they go before those of the file.

    Returns:
        The job's id.

    Raises:
        NaktError: there is no sbatch here, it does not answer or not with a job's id, or it
            refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise NaktError(
            f"sbatch is not on this machine, so that {path} was written but not submitted. Run "
            f"the same command on a machine of the cluster where jobs are submitted, or {instead}"
        )
    look = (
        f"Look with `squeue --me` whether the job of {path} is there, and take it out with scancel "
        "before another try"
    )
    try:
        ended = subprocess.run(
            sbatch_command(path, options),
            capture_output=True,
            timeout=_SUBMIT_SECONDS,
            encoding="utf-8",
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        raise NaktError(f"sbatch did not answer within {_SUBMIT_SECONDS} s. {look}") from None
    if ended.returncode:
        reason = " ".join(ended.stderr.split()) or f"exit status {ended.returncode}"
        raise NaktError(f"sbatch refuses {path}: {reason}")
    told = " ".join(ended.stdout.split())
    # Where sbatch is wrapped, other lines come first; in a federation the cluster's name follows.
    found = re.search(r"(?:^| )(\d+)(?:;\S+)?$", told)
    if found is None:
        raise NaktError(f"sbatch prints {told[:200]!r}, expected the number of a job. {look}")
    return found[1]


def release(jobs: Sequence[str]) -> None:
    """Lets jobs begin that were submitted with ``--hold``; of others it changes nothing.

    Raises:
        NaktError: SLURM does not do it; says how to.
    """
    command = ["scontrol", "release", ",".join(jobs)]
    try:
        subprocess.run(
            command,
            capture_output=True,
            timeout=_SUBMIT_SECONDS,
            encoding="utf-8",
            errors="replace",
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        told = " ".join(str(getattr(error, "stderr", None) or error).split())
        raise NaktError(
            f"jobs are submitted but held, as SLURM did not let them begin: {told}. Do it with: "
            f"{shlex.join(command)}"
        ) from None


def highest_task() -> int:
    """Returns the highest number that a task of an array may have here: ``MaxArraySize`` - 1.

    Where SLURM does not say, what is usual.
    """
    try:
        told = subprocess.run(
            ["scontrol", "show", "config"],
            capture_output=True,
            timeout=_SUBMIT_SECONDS,
            encoding="utf-8",
            errors="replace",
        ).stdout
    except (OSError, subprocess.SubprocessError):
        told = ""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", told, re.MULTILINE)
    return max(int(found[1]) if found else _USUAL_ARRAY_SIZE, 2) - 1
