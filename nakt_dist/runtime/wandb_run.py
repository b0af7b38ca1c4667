"""Runs of W&B: all that imports it."""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from nakt_dist.errors import DatasetError, NaktError
from nakt_dist.runtime.files import read_regular_file, write_bytes
from nakt_dist.runtime.mirrors import Ending, Mirror, TrackedRun, one_line, summary_of

RUN_ID_NAME = "wandb_run_id.txt"
FOLDER_NAME = "wandb"
_RUN_ID = re.compile(r"[\w-]{1,64}")
_MOST_BYTES = 2**16
_LONGEST_RUN_NAME = 128
_LONGEST_TITLE = 63
_EXIT_CODES = {"done": 0, "failed": 1, "interrupted": 75}


def read_run_id(folder: Path) -> str | None:
    """Returns the id of the W&B run that the output belongs to; None where there is none yet.

    Raises:
        DatasetError: the file that holds it is damaged.
    """
    path = folder / RUN_ID_NAME
    try:
        text = read_regular_file(path, _MOST_BYTES).decode(errors="replace").strip()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DatasetError(f"{path}: cannot be read: {reason}") from None
    if not _RUN_ID.fullmatch(text):
        raise DatasetError(
            f"{path}: holds {text[:60]!r}, expected the id of a W&B run (letters, digits, - and "
            "_). Restore it, or delete it to begin another W&B run"
        )
    return text


def sweeps_run_id() -> str | None:
    """Returns the id that the agent of a W&B sweep has chosen for this run; None outside one."""
    return os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None


def import_wandb() -> ModuleType:
    """Imports W&B, silent."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


@contextlib.contextmanager
def explained(mode: str, setting: str = "tracking.wandb") -> Iterator[None]:
    """Turns whatever W&B raises into one line; its errors have several bases.

    Args:
        mode: ``offline`` or ``online``.
        setting: that chose it.
    """
    try:
        yield
    except Exception as error:
        other = "off" if mode == "offline" and setting != "wandb" else "offline"
        raise NaktError(
            f"W&B cannot be started ({mode}): {one_line(error)}. Mend that, or set "
            f"{setting} to {other}"
        ) from None


class WandbRun:
    """A W&B run that is open: numbers at steps, and what the mirror knows besides.

    Args:
        run: as ``wandb.init`` returns it.
    """

    def __init__(self, run: Any) -> None:
        self._run = run
        self._defined: set[str] = set()

    @property
    def first_step(self) -> int:
        """The first step that the run does not have yet; earlier ones would be dropped."""
        return self._run.starting_step

    def log(self, data: Mapping[str, Any], *, step: int) -> None:
        """Takes numbers at a step, which is their x axis, too.

        A step that the run has already is left out, but not the last: a run that was killed, or
        left, before its network was scored has the losses of that step alone.
        """
        for name in data.keys() - self._defined:
            self._run.define_metric(name, step_metric="step", summary=summary_of(name))
        self._defined |= data.keys()
        at = step + 1 if step == self.first_step - 1 else step
        self._run.log({**data, "step": step}, step=at)

    def summarise(self, values: Mapping[str, Any]) -> None:
        """Sets results that belong to no step."""
        self._run.summary.update(dict(values))

    def log_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], step: int
    ) -> None:
        """Logs a table."""
        table = import_wandb().Table(columns=list(columns), data=[list(row) for row in rows])
        self._run.log({name: table}, step=step)

    def log_histogram(
        self, name: str, counts: Sequence[int], edges: Sequence[float], step: int
    ) -> None:
        """Logs a histogram; there is one edge more than counts."""
        histogram = import_wandb().Histogram(np_histogram=(list(counts), list(edges)))
        self._run.log({name: histogram}, step=step)

    def link(self, direction: str, name: str, kind: str, facts: Mapping[str, Any]) -> None:
        """Names something the run has read or written; nothing is uploaded.

        The same name and fingerprint are the same version, whichever run names them: that is what
        joins runs to a lineage.

        Args:
            direction: ``read`` or ``wrote``.
            kind: its type, such as ``model``.
            facts: with ``sha256``, what it refers to.
        """
        artifact = import_wandb().Artifact(name, type=kind, metadata=dict(facts))
        # A reference of an unknown scheme is its own digest; nobody opens it.
        artifact.add_reference(f"nakt:sha256:{facts['sha256']}", name=kind, checksum=False)
        if direction == "wrote":
            self._run.log_artifact(artifact)
        else:  # as use_artifact does, which refuses offline and waits for the server online
            self._run._log_artifact(artifact, is_user_created=True, use_after_commit=True)

    def alert(self, title: str, text: str) -> None:
        """Tells people, as they have asked W&B to be told."""
        self._run.alert(title[:_LONGEST_TITLE], text, level="ERROR")

    def finish(self, ending: Ending) -> None:
        """Ends the run in the state of that name; a sweep starts an interrupted one again."""
        if ending == "interrupted":
            self._run.mark_preempting()
        self._run.finish(_EXIT_CODES[ending])


def start_wandb(run: TrackedRun) -> Mirror | None:
    """Starts or takes up the W&B run whose id is kept beside the checkpoints.

    Raises:
        NaktError: W&B cannot be started.
    """
    if run.wandb_mode == "off":
        return None
    known = read_run_id(run.folder)
    run_id = sweeps_run_id() or known or secrets.token_hex(4)
    if run_id != known:
        write_bytes(run.folder / RUN_ID_NAME, run_id.encode())
    return open_wandb(run, run_id)


def open_wandb(run: TrackedRun, run_id: str, *, mirrored: bool = False) -> WandbRun:
    """Opens a run of this id, or goes on with it where the server has it.

    Args:
        run: W&B's files come into its folder.
        mirrored: it ran before, perhaps elsewhere: what this machine does is not measured.

    Raises:
        NaktError: W&B cannot be started.
    """
    wandb = import_wandb()
    settings = {
        "disable_git": True, "save_code": False, "console": "off", "x_disable_meta": True,
        "x_save_requirements": False,
        "program": f"nakt {run.stage}",  # else its whole path
        # Else tables lie in the user's cache until they are synced, and do not travel.
        "allow_offline_artifacts": False,
    }  # fmt: skip
    if mirrored:
        settings |= {"x_disable_machine_info": True, "host": "mirror"}
    with explained(run.wandb_mode, "wandb" if mirrored else "tracking.wandb"):
        return WandbRun(
            wandb.init(
                entity=run.entity,
                project=run.project,
                name=run.name[:_LONGEST_RUN_NAME],
                id=run_id,
                group=run.group,
                job_type=run.stage,
                tags=run.tags,
                resume="allow" if run.wandb_mode == "online" else None,
                mode=run.wandb_mode,
                dir=str(run.folder),
                config=dict(run.config),
                settings=wandb.Settings(**settings),
            )
        )


def default_entity() -> str:
    """Returns the team or user that the account writes to.

    Raises:
        NaktError: the server does not say.
    """
    with explained("online", "wandb"):
        found = os.environ.get("WANDB_ENTITY") or import_wandb().Api().default_entity
    if not found:
        raise NaktError("W&B's server does not say whose account this is; set entity")
    return found


def end_wandb() -> None:
    """Ends W&B's service, which writes the last records after a run has ended."""
    import_wandb().teardown()
