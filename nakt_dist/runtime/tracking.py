"""Metrics as JSON lines, and in W&B when a setting asks for it."""

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from nakt_dist.errors import NaktError
from nakt_dist.runtime.files import naming, write_bytes
from nakt_dist.runtime.processes import say
from nakt_dist.runtime.wandb_check import RUN_ID_NAME, check_wandb, read_run_id

METRICS_NAME = "metrics.jsonl"
_LONGEST_RUN_NAME = 128


class JsonLines:
    """A file of one JSON object per line that forgets what lies beyond a resumed step.

    Args:
        path: the file.
        resume_step: lines of later steps, written by a process that was killed before its
            next checkpoint, are dropped.
        redone: lines of the resumed step itself that hold this field are dropped as well, since
            they are written again.
    """

    def __init__(self, path: Path, resume_step: int, redone: str | None = None) -> None:
        kept = [
            line
            for line, value in _whole_lines(path)
            if value["step"] < resume_step or (value["step"] == resume_step and redone not in value)
        ]
        write_bytes(path, "".join(line + "\n" for line in kept).encode())
        self._path = path
        self._stream = path.open("a", encoding="utf-8")

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, value: Mapping[str, Any]) -> None:
        """Appends one object, which must hold ``step``."""
        with naming(self._path):
            self._stream.write(json.dumps(value) + "\n")
            self._stream.flush()

    def sync(self) -> None:
        """Puts what was written on the disk."""
        with naming(self._path):
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """Closes the file."""
        with naming(self._path):
            self._stream.close()


def _whole_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns a file's lines and what they hold, up to where a kill or a power cut spoilt it."""
    whole: list[tuple[str, dict[str, Any]]] = []
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for line in text[: text.rfind("\n") + 1].splitlines():
        try:
            value = json.loads(line)
            intact = type(value["step"]) is int
        except (ValueError, KeyError, TypeError):
            intact = False
        if not intact:
            break
        whole.append((line, value))
    return whole


class Tracker:
    """Writes metrics to ``metrics.jsonl`` and mirrors them to W&B.

    Numbers only: no image and no identifier is ever logged (promise 6).

    Args:
        folder: output of the run.
        resume_step: steps up to this one are kept from an earlier process.
        wandb_mode: ``off``, ``offline`` or ``online``.
        project: W&B project.
        name: of the run.
        config: shown in W&B; paths in it are reduced to their last part.
        redone: a metric of the resumed step that is about to be logged again, or None.
        entity: W&B team or user; None takes that of the account.

    Raises:
        NaktError: W&B cannot be started.
    """

    def __init__(
        self,
        folder: Path,
        resume_step: int,
        wandb_mode: str,
        project: str,
        name: str,
        config: Mapping[str, Any],
        redone: str | None = None,
        entity: str | None = None,
    ) -> None:
        self._lines = JsonLines(folder / METRICS_NAME, resume_step, redone)
        self._wandb = None
        if wandb_mode != "off":
            self._wandb = _start_wandb(folder, wandb_mode, entity, project, name, config)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs numbers at an explicit step, so that a resumed run does not begin at 0.

        When W&B fails, that is said once, and the lines go on alone.
        """
        self._lines.write({"step": step, **metrics})
        self._mirror(lambda run: run.log(dict(metrics), step=step))

    def sync(self) -> None:
        """Puts what was logged on the disk."""
        self._lines.sync()

    def close(self) -> None:
        """Ends the run."""
        self._lines.close()
        self._mirror(lambda run: run.finish())

    def _mirror(self, do: Callable[[Any], None]) -> None:
        """Does something with the W&B run, if any; what it raises ends the mirroring alone."""
        if self._wandb is None:
            return
        try:
            do(self._wandb)
        except Exception as error:  # of whatever kind: a training of days is worth more
            failed, self._wandb = self._wandb, None
            with contextlib.suppress(Exception):
                failed.finish()  # else the next run of this process would go on with it
            say(
                f"W&B failed and gets nothing more of this run: {_one_line(error)}. {METRICS_NAME} "
                "has everything; the training goes on"
            )


def check_tracking(folder: Path, mode: str) -> None:
    """Refuses, before anything is built, what W&B would refuse.

    Args:
        folder: output of the run; may be absent.
        mode: ``off``, ``offline`` or ``online``.

    Raises:
        NaktError: as ``check_wandb``, or W&B does not understand its variables.
    """
    check_wandb(folder, mode)
    if mode != "off":
        wandb = _import_wandb()
        with _explained(mode):
            wandb.Settings().update_from_env_vars(dict(os.environ))


def _import_wandb() -> ModuleType:
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


@contextlib.contextmanager
def _explained(mode: str) -> Iterator[None]:
    """Turns whatever W&B raises into one line; its errors have several bases.

    Raises:
        NaktError: W&B cannot be started.
    """
    try:
        yield
    except Exception as error:
        other = "off" if mode == "offline" else "offline"
        raise NaktError(
            f"W&B cannot be started ({mode}): {_one_line(error)}. Mend that, or set "
            f"tracking.wandb to {other}"
        ) from None


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text.partition(" For further information visit")[0].rstrip(".")


def _start_wandb(
    folder: Path,
    mode: str,
    entity: str | None,
    project: str,
    name: str,
    config: Mapping[str, Any],
) -> Any:
    """Starts or takes up the W&B run whose id is kept beside the checkpoints.

    Raises:
        NaktError: W&B cannot be started.
    """
    wandb = _import_wandb()
    if read_run_id(folder) is None:
        write_bytes(folder / RUN_ID_NAME, secrets.token_hex(4).encode())
    with _explained(mode):
        return wandb.init(
            entity=entity,
            project=project,
            name=name[:_LONGEST_RUN_NAME],
            id=read_run_id(folder),
            resume="allow" if mode == "online" else None,
            mode=mode,
            dir=str(folder),
            config=_without_folders(config),
            settings=wandb.Settings(
                disable_git=True, save_code=False, console="off", x_disable_meta=True
            ),
        )


def _without_folders(value: Any) -> Any:
    """Reduces absolute paths to their last part: a folder may name a patient or a user."""
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(item) for item in value]
    if isinstance(value, str) and "/" in value:
        return value.rstrip("/").rsplit("/", 1)[-1]
    return value
