"""The command line: ``nakt STAGE --config FILE --dotted.key value``."""

import contextlib
import importlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from nakt_dist import __version__
from nakt_dist.errors import ConfigurationError, NaktError, StartAgain, nearest_name
from nakt_dist.runtime.characters import replace_unprintable
from nakt_dist.runtime.imports import keep_imports, large_imports
from nakt_dist.runtime.preemption import (
    REQUEUE_ALONE_EXIT_CODE,
    REQUEUE_EXIT_CODE,
    ignore_stop_signals,
)
from nakt_dist.runtime.processes import ProcessPlace, end_process, printable_lines, process_place


@dataclass(frozen=True)
class Stage:
    """A verb of the command line.

    Attributes:
        settings: the name of its configuration class.
        summary: one line for the help.
        positional: the fields that words without a dash fill, in order; ``runs`` takes all words.
        rest: the field that the words after ``--`` fill, or None.
        distributed: whether several processes may run it together.
    """

    settings: str
    summary: str
    positional: tuple[str, ...] = ()
    rest: str | None = None
    distributed: bool = False

    @property
    def config(self) -> type:
        """Its configuration class."""
        from nakt_dist import config  # with jsonargparse and NumPy; help does without

        return getattr(config, self.settings)


STAGES = {
    "phantoms": Stage("PhantomsConfig", "write a procedural dataset to try everything on"),
    "pack": Stage("PackConfig", "turn a dataset as published into shards", distributed=True),
    "verify": Stage("VerifyConfig", "re-read shards and name any damage", ("folder",)),
    "teach": Stage(
        "TeachConfig",
        "let teachers write pseudo masks or findings for a packed dataset",
        distributed=True,
    ),
    "weigh": Stage("WeighConfig", "find the weights of teachers on a few annotated images"),
    "inspect": Stage(
        "InspectConfig",
        "show what exclusion leaves of pseudo-labels, or what a dataset holds",
        ("pseudo_labels",),
    ),
    "train": Stage(
        "TrainConfig", "train a network on masks, pseudo masks or findings", distributed=True
    ),
    "evaluate": Stage(
        "EvaluateConfig",
        "measure the Dice of every image, or the AUROC of a classifier",
        distributed=True,
    ),
    "predict": Stage(
        "PredictConfig",
        "masks or findings of images as they are: predict WEIGHTS IMAGES",
        ("weights", "images"),
        distributed=True,
    ),
    "attention": Stage("AttentionConfig", "show where a student and its teacher look"),
    "export": Stage(
        "ExportConfig", "hand a trained network on: safetensors, ONNX, a card", ("weights",)
    ),
    "report": Stage("ReportConfig", "make tables, figures and one page of runs", ("runs",)),
    "mirror": Stage("MirrorConfig", "show runs in W&B, TensorBoard or trackio", ("runs",)),
    "watch": Stage("WatchConfig", "follow runs live on one page, or in a table", ("runs",)),
    "study": Stage("StudyConfig", "run many stages as one graph: study FILE", ("config",)),
    "doctor": Stage(
        "DoctorConfig",
        "say what a launch resolves to and what is wrong: doctor STAGE --config FILE",
        rest="settings",
        distributed=True,
    ),
    "submit": Stage(
        "SubmitConfig", "run a stage as a SLURM job: submit STAGE … -- …", ("stage",), "words"
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage.

    Args:
        arguments: words after the program's name; None takes those of the process, and ends it.

    Returns:
        0 when all went well, 1 on an error the user can mend, 2 on a wrong command line,
        75 when the job was asked to leave and goes on when it is started again, 76 when that
        happened to this process alone, 130 when interrupted.
    """
    replace_unprintable()
    if arguments is None:
        keep_imports()
    status = _run(list(sys.argv[1:] if arguments is None else arguments))
    if arguments is None:
        end_process(status)
    return status


def _run(words: list[str]) -> int:
    try:
        if not words or words[0] in ("-h", "--help"):
            print(_usage(), flush=True)
            return 0 if words else 2
        if words[0] == "--version":
            print(__version__, flush=True)
            return 0
        config = parse_config(words[0], words[1:])
        load_stage(words[0]).run(config)
    except ConfigurationError as error:
        return _complain(error, 2)
    except StartAgain as error:
        ignore_stop_signals()
        code = REQUEUE_ALONE_EXIT_CODE if error.alone else REQUEUE_EXIT_CODE
        return _complain(error, code)
    except NaktError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted; run the same command again to go on", 130)
    except MemoryError as error:
        detail = f" ({error})" if str(error) else ""
        return _complain(
            f"this machine's memory is full{detail}. Take smaller batches, fewer workers or "
            "smaller images, or a machine with more",
            1,
        )
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # else Python tries once more as it ends, and says so
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if words[-1:] in (["-h"], ["--help"], ["--version"]):
            return 1  # whoever asked for the first lines has them
        return _complain("what this program prints is read no more: a pipe was closed", 1)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        return _complain(f"{error.strerror}: {error.filename or 'no file named'}", 1)
    return 0


def _complain(message: object, code: int) -> int:
    try:
        place = process_place()
    except ConfigurationError:  # this may be what it complains about
        place = ProcessPlace()
    rank = f" (process {place.rank})" if place.world_size > 1 else ""
    print(printable_lines(f"nakt: error{rank}: {message}"), file=sys.stderr)
    return code


def _usage() -> str:
    lines = [f"  {name:<10} {stage.summary}" for name, stage in STAGES.items()]
    return "\n".join(
        [
            "usage: nakt STAGE [--config FILE] [--dotted.key value …]",
            "",
            *lines,
            "",
            "nakt STAGE --help lists a stage's settings; --print_config prints them as YAML.",
        ]
    )


def load_stage(name: str) -> ModuleType:
    """Imports a stage's module, which has ``run(config)``."""
    with large_imports():
        return importlib.import_module(f"nakt_dist.stages.{name}")


def parse_config(stage: str, arguments: Sequence[str], values: Any = None) -> Any:
    """Builds a stage's configuration.

    Args:
        stage: one of ``STAGES``.
        arguments: words of a command line.
        values: a nested mapping instead of a command line.

    Raises:
        ConfigurationError: the stage, a key or a value is wrong; names the nearest right key.
    """
    with large_imports():  # as in Stage.config
        from nakt_dist.config.doctor import name_stage
        from nakt_dist.config.reading import read_config

    if stage not in STAGES:
        raise ConfigurationError(
            f"there is no stage '{stage}'{nearest_name(stage, STAGES)} "
            f"(stages: {', '.join(STAGES)})"
        )
    kind = STAGES[stage]
    words = name_stage(arguments) if stage == "doctor" else list(arguments)
    if kind.rest is not None:
        words = _name_rest(kind.rest, words)
    words = _name_positional(stage, words)
    try:
        return read_config(kind.config, f"nakt {stage}", kind.summary, words, values)
    except ConfigurationError as error:
        if kind.rest is None or stage == "doctor" or values is not None or "--" in arguments:
            raise
        raise ConfigurationError(
            f"{error}; settings of the stage to run stand after --, as in "
            f"nakt {stage} train --nodes 2 -- --config FILE"
        ) from None


def _name_rest(field: str, words: Sequence[str]) -> list[str]:
    """Turns ``… -- OTHERS`` into settings by name.

    Before ``--`` settings may be written as schedulers write theirs: ``--cpus-per-task 4``.

    Args:
        field: the setting, a list of texts, that the words after ``--`` fill.
        words: of the command line.
    """
    cut = words.index("--") if "--" in words else len(words)
    own, rest = [_underscored(word) for word in words[:cut]], list(words[cut + 1 :])
    # As one JSON list, so that no word is taken for a setting or for a list of its own.
    return [*own, f"--{field}={json.dumps(rest, ensure_ascii=False)}"] if rest else own


def _underscored(word: str) -> str:
    """Writes the name of ``--name`` or ``--name=value`` with underscores."""
    found = re.fullmatch(r"--([\w.-]+)(=.*)?", word, re.DOTALL)
    return f"--{found[1].replace('-', '_')}{found[2] or ''}" if found else word


def _name_positional(stage: str, words: list[str]) -> list[str]:
    """Gives leading words without a dash the name of the field they fill."""
    leading = 0
    while leading < len(words) and not words[leading].startswith("-"):
        leading += 1
    if not leading:
        return words
    fields = STAGES[stage].positional
    if fields == ("runs",):
        return [f"--runs+={word}" for word in words[:leading]] + words[leading:]
    if leading > len(fields):
        raise ConfigurationError(
            f"nakt {stage} does not understand '{words[len(fields)]}'; "
            "settings are given as --name value"
        )
    named = zip(fields, words[:leading], strict=False)
    return [f"--{name}={word}" for name, word in named] + words[leading:]
