"""Checkpoints that are whole or absent, and know when they are damaged."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from nakt_dist.errors import CheckpointError, DatasetError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import read_weights, save_weights
from nakt_dist.runtime.files import (
    file_sha256,
    flush_folder,
    read_json,
    value_sha256,
    write_bytes,
    write_json,
)
from nakt_dist.runtime.processes import say

Moments = Mapping[str, Mapping[str, torch.Tensor]]
"""An optimiser's state by the name of the parameter, such as Adam's ``step``, ``exp_avg`` and
``exp_avg_sq``.

Under whole names and in whole tensors, so that DDP, every stage of ZeRO and any number of
processes go on from the same checkpoint.
"""

POINTER_NAME = "latest"
"""The file that names the checkpoint saved last, written after it."""

_MODEL = "model.safetensors"
_MOMENTS = "optimiser.safetensors"
_WEIGHTS = "learning.safetensors"
_PROGRESS = "progress.json"
_SEAL = "sha256"
_VALUE = "value"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        best_metric: best validation metric so far; None before the first.
        best_step: the step it was reached at.
        validated_step: the last step after which the network was scored.
        scores: the validation metric each time it was, in their order.
    """

    step: int = 0
    best_metric: float | None = None
    best_step: int | None = None
    validated_step: int | None = None
    scores: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", tuple(self.scores))  # JSON knows lists alone


@dataclass(frozen=True)
class TrainingState:
    """What a run needs besides its network to go on; order, schedule and seeds follow the step.

    Attributes:
        moments: the optimiser's state by parameter, whole tensors.
        scaler: of fp16 losses, plain numbers; None for other precisions.
        beside: parameters that learn and are none of the network's, such as a signal's adapters.
        weights: the state dict that goes on learning, where the network holds the average of
            those before; None where it learns itself.
    """

    moments: Moments
    scaler: Mapping[str, float | int] | None = None
    beside: Mapping[str, torch.Tensor] = field(default_factory=dict)
    weights: Mapping[str, torch.Tensor] | None = None

    def copy(self) -> "TrainingState":
        """Returns it as it is now, on the CPU: the tensors of an optimiser go on changing."""
        moments = {name: copies_of(kinds) for name, kinds in self.moments.items()}
        weights = None if self.weights is None else copies_of(self.weights)
        return TrainingState(moments, self.scaler, copies_of(self.beside), weights)


def copies_of(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns tensors as they are now, on the CPU."""
    return {name: value.detach().to("cpu", copy=True) for name, value in tensors.items()}


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run.

    A checkpoint is written aside, flushed and renamed; then the pointer moves to it; then
    older ones go. A kill at any moment leaves a pointer to a whole checkpoint.

    Attributes:
        folder: ``OUTPUT/checkpoints``.
        keep: how many stay, besides the one with the best validation metric.
    """

    folder: Path
    keep: int

    def save(
        self,
        progress: Progress,
        weights: Mapping[str, torch.Tensor],
        training_state: TrainingState,
        spec: ModelSpec,
        metadata: Mapping[str, str],
    ) -> None:
        """Writes a checkpoint; called on one process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._drop_later(progress.step)
        final = self._named(progress.step)
        aside = self.folder / f".{final.name}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        save_weights(aside / _MODEL, weights, spec, metadata)
        write_bytes(aside / _MOMENTS, save(_flat(training_state)))
        if training_state.weights is not None:
            save_weights(aside / _WEIGHTS, training_state.weights, spec, metadata)
        content = {
            "progress": vars(progress),
            "scaler": training_state.scaler,
            "files": {path.name: file_sha256(path) for path in sorted(aside.iterdir())},
        }
        write_json(aside / _PROGRESS, _sealed(content))
        shutil.rmtree(final, ignore_errors=True)  # damaged, else its step were not done again
        aside.replace(final)
        flush_folder(self.folder)
        write_bytes(self.folder / POINTER_NAME, final.name.encode())
        self._drop_old(progress)

    def update(self, progress: Progress) -> None:
        """Changes what the checkpoint of ``progress.step`` says of validation."""
        path = self._named(progress.step) / _PROGRESS
        content = {**_read_progress(path.parent), "progress": vars(progress)}
        write_json(path, _sealed(content), staging=self.folder)
        self._drop_old(progress)

    def restore_best(self, progress: Progress, path: Path) -> None:
        """Puts the weights of the best step back, where those of a lost step, or none, are.

        Args:
            progress: of the run; without scores the best step is the last that was validated.
        """
        folder = self._named(progress.best_step or progress.validated_step or 0)
        if not folder.is_dir() or _damage(folder) is not None:
            return
        if not path.exists() or file_sha256(path) != file_sha256(folder / _MODEL):
            write_bytes(path, (folder / _MODEL).read_bytes())

    def _named(self, step: int) -> Path:
        return self.folder / _name(step)

    def _drop_later(self, step: int) -> None:
        """Drops what is left of steps that were lost and are done again."""
        for folder in self.folder.glob("step-*"):
            if folder.name > self._named(step).name:
                shutil.rmtree(folder, ignore_errors=True)

    def _drop_old(self, progress: Progress) -> None:
        best = self._named(progress.best_step or 0)
        for folder in self._all()[self.keep :]:
            if folder != best:
                shutil.rmtree(folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        """Checkpoint folders, the one the pointer names first, then the newest."""
        folders = sorted(self.folder.glob("step-*"), reverse=True)
        try:
            current = (self.folder / POINTER_NAME).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return folders
        return sorted(folders, key=lambda folder: folder.name != current)

    def latest(self) -> Path | None:
        """Returns the newest whole checkpoint, or None when the run has none yet.

        Raises:
            CheckpointError: there are checkpoints and all are damaged, or the pointer is no file.
        """
        pointer = self.folder / POINTER_NAME
        if pointer.is_dir():
            raise CheckpointError(f"{pointer}: is a folder, expected a file; delete it")
        folders = self._all() if self.folder.is_dir() else []
        for folder in folders:
            damage = _damage(folder)
            if damage is None:
                return folder
            say(f"checkpoint {folder} is damaged ({damage}); trying the one before it")
        if folders:
            raise CheckpointError(
                f"{self.folder}: all {len(folders)} checkpoints are damaged. Restore them from "
                "a copy, or delete the folder to begin again"
            )
        return None


def _name(step: int) -> str:
    return f"step-{step:09d}"


def load_checkpoint(folder: Path) -> tuple[Progress, dict[str, torch.Tensor], TrainingState]:
    """Reads a checkpoint that ``CheckpointStore.latest`` found whole.

    Returns:
        Progress, the network's state dict, and the training state.

    Raises:
        CheckpointError: a file in it is not what training writes.
    """
    content = _read_progress(folder)
    try:
        progress = Progress(**content["progress"])
        moments, beside = _by_name(load_file(folder / _MOMENTS))
        averaged = _WEIGHTS in content["files"]
        weights = read_weights(folder / _WEIGHTS).state_dict if averaged else None
        state = TrainingState(moments, content["scaler"], beside, weights)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{folder}: holds something that training never writes ({error}); do not use this "
            "checkpoint"
        ) from None
    return progress, dict(read_weights(folder / _MODEL).state_dict), state


def _flat(state: TrainingState) -> dict[str, torch.Tensor]:
    """Names tensors ``PARAMETER:KIND``; parameters' names hold no colon."""
    values = {name: {_VALUE: value} for name, value in state.beside.items()}
    return {
        f"{name}:{kind}": value.detach().cpu().contiguous()
        for named in (state.moments, values)
        for name, kinds in named.items()
        for kind, value in kinds.items()
    }


def _by_name(
    tensors: Mapping[str, torch.Tensor],
) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    moments: dict[str, dict[str, torch.Tensor]] = {}
    beside: dict[str, torch.Tensor] = {}
    for flat_name, value in tensors.items():
        name, _, kind = flat_name.rpartition(":")
        if kind == _VALUE:
            beside[name] = value
        else:
            moments.setdefault(name, {})[kind] = value
    return moments, beside


def _read_progress(folder: Path) -> dict[str, Any]:
    return read_json(folder / _PROGRESS, "checkpoint's progress")


def _sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Adds the checksum of all the rest."""
    rest = {name: value for name, value in content.items() if name != _SEAL}
    return {**rest, _SEAL: value_sha256(rest)}


def _damage(folder: Path) -> str | None:
    """Says what is wrong with a checkpoint, or None."""
    try:
        content = _read_progress(folder)
        files = content.get("files")
        if not isinstance(files, dict) or set(files) - {_WEIGHTS} != {_MODEL, _MOMENTS}:
            return f"{_PROGRESS} does not name its files"
        if content != _sealed(content):
            return f"{_PROGRESS} has changed"
        if folder.name != _name(content["progress"]["step"]):
            return f"{_PROGRESS} is that of another step"
        for name, sha256 in files.items():
            if file_sha256(folder / name) != sha256:
                return f"{name} has changed"
    except (OSError, DatasetError) as error:
        return str(error)
    except (KeyError, TypeError, ValueError):
        return f"{_PROGRESS} does not say its step"
    return None
