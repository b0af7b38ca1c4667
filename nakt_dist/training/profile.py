"""Records some steps of a run with torch's profiler, and writes where their time goes."""

import gzip
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from nakt_dist.errors import ConfigurationError, NaktError
from nakt_dist.runtime.devices import peak_memory_bytes
from nakt_dist.runtime.files import remove_unfinished, write_bytes
from nakt_dist.runtime.processes import say
from nakt_dist.training.run import TrainingRun
from nakt_dist.training.step_times import operators, step_times

PROFILE_PAGE = "profile/page.html"
_TRACE_NAME = "rank_0.json.gz"
_COMPRESSION = 3
# The rest of a trace names the machine and its paths.
_KEPT_OF_TRACE = ("schemaVersion", "deviceProperties", "displayTimeUnit", "baseTimeNanoseconds")


class Profile:
    """Records the steps that ``profile`` of a run's settings asks for, on the main process.

    The others do the same; what the main one waits for them is a phase of its own. A launch that
    goes on leaves the page of an earlier one alone.

    Args:
        first: steps done before this launch.
        beat: called before what takes time.

    Raises:
        ConfigurationError: where the page would lie there is no folder, but something else.
    """

    def __init__(self, run: TrainingRun, first: int, beat: Callable[[str], None]) -> None:
        self._run, self._beat = run, beat
        self._asked, self._after = run.config.profile.steps, run.config.profile.after
        self._page = run.output / PROFILE_PAGE
        device = run.accelerator.device
        self._gpu, self._done = device if device.type == "cuda" else None, 0
        is_there = first > 0 and self._page.exists()
        if self._asked:
            _check_folder(self._page.parent)
        self._profiler: profile | None = None
        if self._asked and run.accelerator.is_main_process and not is_there:
            self._profiler = self._make_profiler(self._asked)

    def _make_profiler(self, steps: int) -> profile:
        # What it says on standard error is for its authors.
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")
        on_gpu = [] if self._gpu is None else [ProfilerActivity.CUDA]
        return profile(
            activities=[ProfilerActivity.CPU, *on_gpu],
            schedule=schedule(wait=self._after - 1, warmup=1, active=steps, repeat=1),
            on_trace_ready=self._write,
        )

    def __enter__(self) -> "Profile":
        if self._profiler is not None:
            self._profiler.start()
        return self

    def pass_step(self) -> None:
        """Takes note that a step is done; after the last that was asked for, writes."""
        if self._profiler is None or self._asked is None:
            return
        self._done += 1
        is_last = self._done == self._after + self._asked
        if is_last or self._done == self._after:
            self._wait_for_gpu()
        self._profiler.step()
        if is_last:
            self._profiler = None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes what was recorded of a run that ended early; one that failed is to go on."""
        if self._profiler is None:
            return
        if kind is not None or self._done <= self._after:
            self._profiler.on_trace_ready = None
        else:
            self._wait_for_gpu()
        self._profiler.stop()
        if kind is None and self._done <= self._after:
            say(
                f"train: nothing was recorded for {PROFILE_PAGE}: the launch ended after "
                f"{self._done} steps, and profile.after passes over {self._after}"
            )

    def _wait_for_gpu(self) -> None:
        if self._gpu is not None:
            torch.cuda.synchronize(self._gpu)

    def _write(self, profiler: profile) -> None:
        from nakt_dist.training.profile_page import RecordedSteps, to_page  # takes long to import

        self._beat("writing the profile")
        folder = self._page.parent
        folder.mkdir(exist_ok=True)
        remove_unfinished(folder)
        trace = _without_machine(_exported(profiler, folder))
        text = json.dumps(trace, separators=(",", ":")).encode()
        write_bytes(folder / _TRACE_NAME, gzip.compress(text, _COMPRESSION, mtime=0))
        events = trace["traceEvents"]
        times = step_times(events, self._done - self._after)
        recorded = RecordedSteps(
            name=self._run.output.name,
            asked=self._asked or 0,
            after=self._after,
            times=times,
            operators=operators(events, times.on_gpu, times.steps),
            images=self._run.share.batch_size,
            peak_memory_bytes=peak_memory_bytes(self._gpu),
            device="CPU" if self._gpu is None else torch.cuda.get_device_name(self._gpu),
            processes=self._run.accelerator.num_processes,
        )
        write_bytes(self._page, to_page(recorded).encode())
        say(f"train: where the time of {times.steps} steps goes: {self._page}")


def _check_folder(folder: Path) -> None:
    """Refuses before the first step what would end the run after the last that is recorded."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise ConfigurationError(
            f"{folder}: is a file or a link that leads nowhere, expected a folder or nothing: "
            "profile.steps writes there. Remove it, or set profile.steps to null"
        )


def _exported(profiler: profile, folder: Path) -> dict[str, Any]:
    """Returns the trace, which the profiler only writes into a file.

    Raises:
        NaktError: it could not, of which the profiler itself says nothing.
    """
    path = folder / ".trace.tmp"
    try:
        profiler.export_chrome_trace(str(path))
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise NaktError(
            f"{folder}: torch's profiler could not write its trace there, as on a full disk. Make "
            "room and run the same command again; what was saved is kept"
        ) from error
    finally:
        remove_unfinished(folder)  # it writes into a file beside this one first


def _without_machine(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out names of the machine and its files, which texts among an event's facts may be."""
    kept = {name: trace[name] for name in _KEPT_OF_TRACE if name in trace}
    events = [
        {**event, "args": {name: fact for name, fact in facts.items() if not isinstance(fact, str)}}
        if (facts := event.get("args")) and event["ph"] != "M"
        else event
        for event in trace["traceEvents"]
    ]
    return {**kept, "traceEvents": events}
