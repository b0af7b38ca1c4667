"""What SLURM says of one's jobs, asked seldom and never waited for long."""

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping

EVERY_SECONDS = 15.0
_TIMEOUT_SECONDS = 10.0
# With those in hidden partitions, too.
_COMMAND = ("squeue", "--me", "--all", "--noheader", "--array", "--format=%i|%T|%r")
_LINE = re.compile(r"(\d+[^|]*)\|([^|]*)\|(.*)")


def read_queue(timeout: float = _TIMEOUT_SECONDS) -> dict[str, str] | None:
    """Asks ``squeue`` once.

    Args:
        timeout: seconds after which it is given up.

    Returns:
        State and reason by job or task of an array, such as ``{"123_4": "PENDING (Priority)"}``;
        None where there is no SLURM, or it does not answer, or in other words than those.
    """
    program = shutil.which(_COMMAND[0])
    if program is None:
        return None
    try:
        told = subprocess.run(
            [program, *_COMMAND[1:]], capture_output=True, encoding="utf-8", errors="replace",
            timeout=timeout, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    lines = [line.strip() for line in told.stdout.splitlines() if line.strip()]
    found = [_LINE.fullmatch(line) for line in lines]
    return None if None in found else {each[1]: _told(each[2], each[3]) for each in found if each}


def _told(state: str, reason: str) -> str:
    return state if reason in ("", "None") else f"{state} ({reason})"


class SlurmQueue:
    """The queue as last told, asked again in the background at most every 15 seconds."""

    def __init__(self) -> None:
        self._told: Mapping[str, str] | None = None
        self._next = 0.0
        self._asking: threading.Thread | None = None

    def jobs(self) -> Mapping[str, str] | None:
        """Returns at once what was told last; None where nothing was, or there is no SLURM."""
        if time.monotonic() >= self._next and not (self._asking and self._asking.is_alive()):
            self._next = time.monotonic() + EVERY_SECONDS
            self._asking = threading.Thread(target=self._ask, daemon=True)
            self._asking.start()
        return self._told

    def wait(self) -> Mapping[str, str] | None:
        """Returns what is told now, or after some seconds None."""
        self.jobs()
        if self._asking is not None:
            self._asking.join(_TIMEOUT_SECONDS + 1)
        return self._told

    def _ask(self) -> None:
        self._told = read_queue()
