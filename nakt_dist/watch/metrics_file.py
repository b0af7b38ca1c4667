"""Follows a ``metrics.jsonl`` that somebody else writes: only new bytes are read."""

import json
import math
import os
import stat
import sys
from array import array
from collections import deque
from pathlib import Path
from typing import Any

MOST_POINTS = 240
"""Of a curve; twice as many while it grows."""

_LARGEST_BITE = 2**22
_TAIL = 256
_MOST_NAMES = 200
_RATE_SECONDS = 600.0


class Curve:
    """A metric over the steps; where there are many points, neighbours are averaged.

    Runs that log at the same steps keep the same steps, so that seeds can be laid over each other.
    """

    def __init__(self) -> None:
        self.steps: array[float] = array("d")
        self.values: array[float] = array("d")
        self._width = 1
        self._pending = 0
        self._sum = 0.0
        self._step = 0.0

    def add(self, step: float, value: float) -> None:
        """Adds a point."""
        self._pending += 1
        self._sum += value
        self._step = step
        if self._pending < self._width:
            return
        self.steps.append(step)
        self.values.append(self._sum / self._width)
        self._pending, self._sum = 0, 0.0
        if len(self.steps) >= 2 * MOST_POINTS:
            means = [(a + b) / 2 for a, b in zip(self.values[::2], self.values[1::2], strict=True)]
            self.steps, self.values = self.steps[1::2], array("d", means)
            self._width *= 2

    def points(self) -> tuple[list[float], list[float]]:
        """Returns steps and values, the last value that was logged included."""
        steps, values = self.steps.tolist(), self.values.tolist()
        if self._pending:
            steps.append(self._step)
            values.append(self._sum / self._pending)
        return steps, values


class MetricsFile:
    """What a ``metrics.jsonl`` holds so far.

    A resumed run rewrites its file; that is noticed by what stands before the place reached, and
    everything is read again. A line without its end is left for the next time.

    Attributes:
        step: the last one; None before the first line.
        damaged: lines that could not be read.
        changed: when the file last grew, seconds since 1970.
    """

    def __init__(self, path: Path) -> None:
        self._path = str(path)
        self._seen: tuple[int, int] | None = None
        self._forget()

    def _forget(self) -> None:
        self._offset = 0
        self._tail = self._torn = b""
        self.curves: dict[str, Curve] = {}
        self.last: dict[str, float] = {}
        self.step: int | None = None
        self.damaged = 0
        self.changed: float | None = None
        self._observed: deque[tuple[float, int]] = deque(maxlen=64)

    @property
    def is_behind(self) -> bool:
        """Whether more bytes lie there than were read, as far as the last look told."""
        return self._seen is not None and self._offset + len(self._torn) < self._seen[1]

    def poll(self) -> bool:
        """Reads at most some megabytes of what is new; says whether anything changed."""
        try:
            status = os.stat(self._path)  # noqa: PTH116 - thousands of times
        except OSError:
            gone = self._seen is not None
            self._seen = None
            if gone:
                self._forget()
            return gone
        if not stat.S_ISREG(status.st_mode):
            return False
        seen = (status.st_mtime_ns, status.st_size)
        if seen == self._seen and not self.is_behind:
            return False
        self._seen = seen
        try:
            self._read(status.st_size)
        except OSError:
            return False
        self.changed = status.st_mtime
        if self.step is not None and not self.is_behind:
            self._observe(status.st_mtime, self.step)
        return True

    def _read(self, size: int) -> None:
        # Without waiting: what was a file may be a pipe by now.
        with open(self._path, "rb", opener=_open_at_once) as stream:
            stream.seek(max(self._offset - len(self._tail), 0))
            if size < self._offset or stream.read(len(self._tail)) != self._tail:
                self._forget()
                stream.seek(0)
            bite = stream.read(_LARGEST_BITE)
        end = bite.rfind(b"\n") + 1
        if end == 0 and len(bite) == _LARGEST_BITE:  # no line is so long
            self.damaged += 1
            end = len(bite)
        whole, self._torn = bite[:end], bite[end:]
        self._take(whole)
        self._offset += end
        self._tail = (self._tail + whole)[-_TAIL:]

    def _take(self, whole: bytes) -> None:
        for value in _values(whole):
            step = value.get("step") if isinstance(value, dict) else None
            if type(step) is not int or abs(step) > sys.maxsize:
                self.damaged += 1
                continue
            self.step = step if self.step is None or step > self.step else self.step
            for name, number in value.items():
                if name != "step" and type(number) in (int, float):
                    self._note(name, step, number)

    def _note(self, name: str, step: int, number: float) -> None:
        if abs(number) > sys.float_info.max:
            number = math.nan
        if name not in self.last and (len(self.last) >= _MOST_NAMES or len(name) > 100):
            return
        self.last[name] = float(number)
        if name != "epoch":
            curve = self.curves.get(name)
            if curve is None:
                curve = self.curves[name] = Curve()
            curve.add(step, number)

    def _observe(self, when: float, step: int) -> None:
        observed = self._observed
        if observed and (when <= observed[-1][0] or step <= observed[-1][1]):
            return
        observed.append((when, step))
        while len(observed) > 2 and when - observed[0][0] > _RATE_SECONDS:
            observed.popleft()

    def steps_per_second(self) -> float | None:
        """Returns the pace of the last minutes, as it was watched; None before two looks."""
        if len(self._observed) < 2:
            return None
        (begin, first), (end, last) = self._observed[0], self._observed[-1]
        return (last - first) / (end - begin)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _values(whole: bytes) -> list[Any]:
    """Returns what each line holds; None for one that is damaged."""
    lines = [line for line in whole.splitlines() if line.strip()]
    try:
        values = json.loads(b"[" + b",".join(lines) + b"]")  # ten times as fast as line by line
        if len(values) == len(lines):
            return values
    except (ValueError, RecursionError):
        pass
    return [_value(line) for line in lines]


def _value(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
