"""Mends one launch command: ``accelerate launch --cpu --num_processes N`` starts one process.

Accelerate leaves several CPU processes to mpirun; where none was asked for it starts a single
process and says nothing (its issue 2741). That process then starts what the user wanted.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml


def start_missing_processes(arguments: Sequence[str]) -> None:
    """Becomes a launcher of as many processes as accelerate was asked for; else does nothing.

    Args:
        arguments: words after the program's name.
    """
    if "WORLD_SIZE" in os.environ or os.environ.get("ACCELERATE_USE_CPU") != "True":
        return
    count = asked_of_accelerate(_words_of_parent())
    if count > 1:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        number = f"--nproc_per_node={count}"
        os.execv(sys.executable, [*launcher, number, "-m", "nakt_dist", *arguments])


def asked_of_accelerate(words: Sequence[str]) -> int:
    """Returns the number of processes that an accelerate command line means, 1 for any other.

    Args:
        words: of the command line, the interpreter's included.
    """
    launch = next((number for number, word in enumerate(words) if word.endswith("launch")), None)
    if launch is None or "accelerate" not in " ".join(words[: launch + 1]):
        return 1
    options: dict[str, str] = {}
    ours = False
    for word, following in zip(words[launch + 1 :], [*words[launch + 2 :], ""], strict=True):
        name, equals, value = word.partition("=")
        ours = ours or name in ("-m", "--module")  # from here on the words are our own
        if not ours:
            options[name.replace("-", "_")] = value if equals else following
    number = options.get("__num_processes") or _number_in_file(options.get("__config_file"))
    return int(number) if str(number).isdecimal() else 1


def _number_in_file(path: str | None) -> object:
    try:
        return yaml.safe_load(Path(path).read_text()).get("num_processes") if path else 1
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return 1


def _words_of_parent() -> list[str]:
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:  # not Linux, or the parent is gone
        return []
    return [word.decode(errors="replace") for word in words.split(b"\0")]
