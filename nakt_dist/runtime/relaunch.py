"""Mends what launchers leave undone.

``accelerate launch --cpu --num_processes N`` leaves several CPU processes to mpirun; where none
was asked for it starts a single process and says nothing (its issue 2741). That process then
starts what the user wanted.

A launcher that dies of a signal, or of kill -9, may leave its processes behind, which would go on
unseen and hold their output. They are ended with it.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

_PR_SET_PDEATHSIG = 1


def follow_launcher(arguments: Sequence[str]) -> None:
    """Ends with its launcher, and becomes one where accelerate was asked for more processes.

    Does nothing where no launcher started this process.

    Args:
        arguments: words after the program's name.
    """
    words = _words_of_parent()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        # A program of the user's may be the worker, and this process a thread's of it.
        if _after_accelerate(words) is not None or _is_torchrun(words):
            end_with_parent()
        return
    count = asked_of_accelerate(words)
    if count is None or "WORLD_SIZE" in os.environ:
        return
    end_with_parent()
    if count > 1 and os.environ.get("ACCELERATE_USE_CPU") == "True":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        number = f"--nproc_per_node={count}"
        os.execv(sys.executable, [*launcher, number, "-m", "nakt_dist", *arguments])


def end_with_parent() -> None:
    """Asks Linux for SIGTERM when the parent ends, however it does; elsewhere does nothing."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it ended just before
        os.kill(os.getpid(), signal.SIGTERM)


def asked_of_accelerate(words: Sequence[str]) -> int | None:
    """Returns the number of processes that an accelerate command line means, None for any other.

    Args:
        words: of the command line, the interpreter's included.
    """
    following = _after_accelerate(words)
    if following is None:
        return None
    options: dict[str, str] = {}
    ours = False
    for word, next_word in zip(following, [*following[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        ours = ours or name in ("-m", "--module")  # from here on the words are our own
        if not ours:
            options[name.replace("-", "_")] = value if equals else next_word
    number = options.get("__num_processes") or _number_in_file(options.get("__config_file"))
    return int(str(number)) if str(number).isdecimal() else 1


def _after_accelerate(words: Sequence[str]) -> Sequence[str] | None:
    """Returns the words after ``accelerate launch``, however it was started; None without it."""
    for number, word in enumerate(words):
        name, before = Path(word).name, Path(words[number - 1]).name if number else ""
        module = word == "accelerate.commands.launch" or word.endswith(
            "accelerate/commands/launch.py"
        )
        if module or name == "accelerate-launch" or (before, word) == ("accelerate", "launch"):
            return words[number + 1 :]
    return None


def _is_torchrun(words: Sequence[str]) -> bool:
    return any(
        Path(word).name == "torchrun"
        or word == "torch.distributed.run"
        or word.endswith(("torch/distributed/run.py", "torch/distributed/launch.py"))
        for word in words
    )


def _number_in_file(path: str | None) -> object:
    if not path:
        return 1
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8")).get("num_processes")
    except (OSError, ValueError, AttributeError, yaml.YAMLError):
        return 1


def _words_of_parent() -> list[str]:
    try:
        words = Path(f"/proc/{os.getppid()}/cmdline").read_bytes()
    except OSError:  # not Linux, or the parent is gone
        return []
    return [word.decode(errors="replace") for word in words.split(b"\0")]
