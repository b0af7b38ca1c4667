"""Checkpoints that are whole or absent, and know when they are damaged."""

import json
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nakt_dist.errors import CheckpointError, DatasetError
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import read_weights, save_weights
from nakt_dist.runtime.files import (
    atomic_write,
    file_sha256,
    flush_folder,
    read_json,
    write_bytes,
    write_json,
)
from nakt_dist.runtime.processes import say

_POINTER = "latest"
_MODEL = "model.safetensors"
_STATE = "training_state.pt"
_PROGRESS = "progress.json"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        best_metric: best validation Dice so far; None before the first.
        best_step: the step it was reached at.
    """

    step: int = 0
    best_metric: float | None = None
    best_step: int | None = None


class CheckpointStore:
    """The checkpoints of one run.

    A checkpoint is written aside, flushed and renamed; then the pointer moves to it; then
    older ones go. A kill at any moment leaves a pointer to a whole checkpoint.

    Args:
        folder: ``OUTPUT/checkpoints``.
        keep: how many stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self._folder = folder
        self._keep = keep

    def save(
        self,
        progress: Progress,
        network: nn.Module,
        training_state: Mapping[str, Any],
        spec: ModelSpec,
        metadata: Mapping[str, str],
    ) -> Path:
        """Writes a checkpoint; called on one process.

        Args:
            progress: how far the run is.
            network: its unwrapped network.
            training_state: state dicts of optimiser and scaler: tensors and plain values.
            spec: the architecture.
            metadata: for the weights file.

        Returns:
            The weights file inside the checkpoint.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        final = self._folder / f"step-{progress.step:09d}"
        aside = self._folder / f".{final.name}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        save_weights(aside / _MODEL, network.state_dict(), spec, metadata)
        with atomic_write(aside / _STATE) as stream:
            torch.save(dict(training_state), stream)
        files = {name: file_sha256(aside / name) for name in (_MODEL, _STATE)}
        write_json(aside / _PROGRESS, {**vars(progress), "files": files})
        shutil.rmtree(final, ignore_errors=True)
        aside.replace(final)
        flush_folder(self._folder)
        write_bytes(self._folder / _POINTER, final.name.encode())
        self._drop_old()
        return final / _MODEL

    def _drop_old(self) -> None:
        for folder in self._all()[self._keep :]:
            shutil.rmtree(folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        """Checkpoint folders, the one the pointer names first, then the newest."""
        folders = sorted(self._folder.glob("step-*"), reverse=True)
        try:
            current = (self._folder / _POINTER).read_text().strip()
        except (OSError, UnicodeDecodeError):
            return folders
        return sorted(folders, key=lambda folder: folder.name != current)

    def latest(self) -> Path | None:
        """Returns the newest whole checkpoint, or None when the run has none yet.

        Raises:
            CheckpointError: there are checkpoints and all are damaged.
        """
        folders = self._all() if self._folder.is_dir() else []
        for folder in folders:
            damage = _damage(folder)
            if damage is None:
                return folder
            say(f"checkpoint {folder} is damaged ({damage}); trying the one before it")
        if folders:
            raise CheckpointError(
                f"{self._folder}: all {len(folders)} checkpoints are damaged. Restore them from "
                "a copy, or delete the folder to begin again"
            )
        return None


def load_checkpoint(folder: Path) -> tuple[Progress, dict[str, torch.Tensor], dict[str, Any]]:
    """Reads a checkpoint that ``CheckpointStore.latest`` found whole.

    Returns:
        Progress, the network's state dict, and the training state.

    Raises:
        CheckpointError: the training state is not what training writes, such as pickled code.
    """
    progress = read_json(folder / _PROGRESS, "checkpoint's progress")
    progress.pop("files")
    try:
        state = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise CheckpointError(
            f"{folder / _STATE}: holds something other than tensors and plain values, which "
            "training never writes; do not use this checkpoint"
        ) from None
    return Progress(**progress), dict(read_weights(folder / _MODEL).state_dict), state


def _damage(folder: Path) -> str | None:
    """Says what is wrong with a checkpoint, or None."""
    try:
        files = read_json(folder / _PROGRESS, "checkpoint's progress")["files"]
        for name, sha256 in files.items():
            if file_sha256(folder / name) != sha256:
                return f"{name} has changed"
    except (OSError, DatasetError, KeyError, json.JSONDecodeError) as error:
        return str(error)
    return None
