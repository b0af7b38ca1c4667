"""Runs one check in this process and writes what it found.

    python -m benchmarks.gpu_check.one FUNCTION ARGUMENT DEVICE WORK ANSWER

``DEVICE`` is auto, cuda or cpu; ``ARGUMENT`` is empty where the check has none. The exit status
is 0 whenever an answer was written, whatever it says.
"""

import gc
import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

gc.disable()  # what is imported stays

import torch  # noqa: E402

from benchmarks.gpu_check.parts import Absent, Place  # noqa: E402
from nakt_dist.runtime.processes import end_process  # noqa: E402

gc.enable()


def answer(function: str, argument: str, device: str, work: Path) -> dict[str, Any]:
    """Runs a check and says how it ended."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    module, _, name = function.partition(".")
    place = Place(device, work)
    try:
        check = getattr(importlib.import_module(f"benchmarks.gpu_check.{module}"), name)
        found = check(place, argument) if argument else check(place)
    except Absent as reason:
        return {"status": "absent", "reason": str(reason), "device": device}
    except Exception as error:
        traceback.print_exc()
        first = " ".join(str(error).split())[:500]
        return {
            "status": "failed",
            "reason": f"{type(error).__name__}: {first}",
            "error": traceback.format_exc()[-4000:],
            "device": device,
        }
    return {
        "status": "failed" if found.failures else "passed",
        "reason": "; ".join(found.failures) or found.headline,
        "failures": found.failures,
        "numbers": found.numbers,
        "tolerance": found.tolerance,
        "device": device,
    }


def main() -> None:
    """Writes the answer as JSON; numbers that JSON does not know become text."""
    function, argument, device, work, path = sys.argv[1:]
    found = answer(function, argument, device, Path(work))
    Path(path).write_text(json.dumps(_plain(found)))
    end_process(0)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)


if __name__ == "__main__":
    main()
