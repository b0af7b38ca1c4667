"""Metrics as JSON lines, and in W&B when a setting asks for it."""

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nakt_dist.errors import NotFinite, StartAgain
from nakt_dist.runtime.files import naming, write_bytes
from nakt_dist.runtime.mirrors import Ending, Mirror, TrackedRun, one_line, without_folders
from nakt_dist.runtime.processes import say
from nakt_dist.runtime.wandb_run import start_wandb

METRICS_NAME = "metrics.jsonl"
PACE_NAME = "pace.jsonl"
"""How fast a run learns. Not in the other file, whose lines do not depend on interruptions."""

MIRRORS: dict[str, Callable[[TrackedRun], Mirror | None]] = {
    "W&B": start_wandb,
}
"""The trackers by name: each starts its run, or says None where nothing asks for it."""


class JsonLines:
    """A file of one JSON object per line that forgets what lies beyond a resumed step.

    Args:
        resume_step: lines of later steps, written by a process that was killed before its
            next checkpoint, are dropped.
        redone: lines of the resumed step itself that hold this field are dropped as well, since
            they are written again.
    """

    def __init__(self, path: Path, resume_step: int, redone: str | None = None) -> None:
        kept = [
            line
            for line, value in whole_lines(path)
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


def whole_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns a file's lines and what they hold, up to where a kill or a power cut spoilt it.

    A last line that is still being written is not among them.
    """
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
    """Writes metrics to ``metrics.jsonl`` and mirrors them to every tracker of ``MIRRORS``.

    Numbers only: no image and no identifier is ever logged (promise 6).

    Args:
        run: what is tracked; paths in its settings are reduced to their last part.
        resume_step: steps up to this one are kept from an earlier process.
        redone: a metric of the resumed step that is about to be logged again, or None.

    Raises:
        NaktError: W&B cannot be started.
    """

    def __init__(self, run: TrackedRun, resume_step: int, redone: str | None = None) -> None:
        self._lines = JsonLines(run.folder / METRICS_NAME, resume_step, redone)
        self._name, self._step = run.name, resume_step
        run = run._replace(config=without_folders(run.config))
        started = {tracker: start(run) for tracker, start in MIRRORS.items()}
        self._mirrors = {name: mirror for name, mirror in started.items() if mirror is not None}

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return self.close()
        interrupted = issubclass(kind, StartAgain | KeyboardInterrupt)
        if not interrupted:  # without the message, which may name images and folders
            what = "A number is none" if issubclass(kind, NotFinite) else "Training failed"
            self.alert(what, f"ended by {kind.__name__} after step {self._step}; its log says more")
        self.close("interrupted" if interrupted else "failed")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Logs numbers at an explicit step, so that a resumed run does not begin at 0.

        When a tracker fails, that is said once, and the lines go on without it.
        """
        self._lines.write({"step": step, **metrics})
        self._step = step
        self._mirror(lambda run: run.log(metrics, step=step))

    def alert(self, title: str, text: str) -> None:
        """Tells people of something through the trackers that can; names no image, no folder."""
        self._mirror(lambda run: run.alert(title, f"{self._name}: {text}"))

    def sync(self) -> None:
        """Puts what was logged on the disk."""
        self._lines.sync()

    def close(self, ending: Ending = "done") -> None:
        """Ends the run."""
        self._lines.close()
        self._mirror(lambda run: run.finish(ending))

    def _mirror(self, do: Callable[[Mirror], None]) -> None:
        """Does something with each tracker's run; what that raises ends its mirroring alone."""
        for name, mirror in list(self._mirrors.items()):
            try:
                do(mirror)
            except Exception as error:  # of whatever kind: a training of days is worth more
                del self._mirrors[name]
                with contextlib.suppress(Exception):
                    mirror.finish("done")  # else the next run of this process would go on with it
                say(
                    f"{name} failed and gets nothing more of this run: {one_line(error)}. "
                    f"{METRICS_NAME} has everything; the training goes on"
                )
