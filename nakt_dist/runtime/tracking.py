"""Metrics as JSON lines, and in W&B when a setting asks for it."""

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nakt_dist.runtime.files import naming, write_bytes

METRICS_NAME = "metrics.jsonl"
_RUN_ID_NAME = "wandb_run_id.txt"


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
    ) -> None:
        self._lines = JsonLines(folder / METRICS_NAME, resume_step, redone)
        self._wandb = None
        if wandb_mode != "off":
            self._wandb = _start_wandb(folder, wandb_mode, project, name, config)

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs numbers at an explicit step, so that a resumed run does not begin at 0."""
        self._lines.write({"step": step, **metrics})
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=step)

    def sync(self) -> None:
        """Puts what was logged on the disk."""
        self._lines.sync()

    def close(self) -> None:
        """Ends the run."""
        self._lines.close()
        if self._wandb is not None:
            self._wandb.finish()


def _start_wandb(
    folder: Path, mode: str, project: str, name: str, config: Mapping[str, Any]
) -> Any:
    """Starts or takes up the W&B run whose id is kept beside the checkpoints."""
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    id_path = folder / _RUN_ID_NAME
    if not id_path.exists():
        write_bytes(id_path, secrets.token_hex(4).encode())
    return wandb.init(
        project=project,
        name=name,
        id=id_path.read_text(encoding="utf-8").strip(),
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
