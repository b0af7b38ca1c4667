"""Runs of W&B: the one module that imports it."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from nakt_dist.errors import NaktError
from nakt_dist.runtime.files import write_bytes
from nakt_dist.runtime.mirrors import Mirror, TrackedRun, one_line
from nakt_dist.runtime.wandb_check import RUN_ID_NAME, check_wandb, read_run_id

_LONGEST_RUN_NAME = 128


def check_tracking(folder: Path, mode: str) -> None:
    """Refuses, before anything is built, what W&B would refuse.

    Args:
        folder: output of the run; may be absent.
        mode: ``off``, ``offline`` or ``online``.

    Raises:
        NaktError: as ``check_wandb``, or W&B does not understand its variables.
    """
    check_wandb(folder, mode)
    if mode != "off":
        wandb = _import_wandb()
        with _explained(mode):
            wandb.Settings().update_from_env_vars(dict(os.environ))


def _import_wandb() -> ModuleType:
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    return wandb


@contextlib.contextmanager
def _explained(mode: str) -> Iterator[None]:
    """Turns whatever W&B raises into one line; its errors have several bases.

    Raises:
        NaktError: W&B cannot be started.
    """
    try:
        yield
    except Exception as error:
        other = "off" if mode == "offline" else "offline"
        raise NaktError(
            f"W&B cannot be started ({mode}): {one_line(error)}. Mend that, or set "
            f"tracking.wandb to {other}"
        ) from None


def start_wandb(run: TrackedRun) -> Mirror | None:
    """Starts or takes up the W&B run whose id is kept beside the checkpoints.

    Raises:
        NaktError: W&B cannot be started.
    """
    if run.wandb_mode == "off":
        return None
    wandb = _import_wandb()
    if read_run_id(run.folder) is None:
        write_bytes(run.folder / RUN_ID_NAME, secrets.token_hex(4).encode())
    with _explained(run.wandb_mode):
        return wandb.init(
            entity=run.entity,
            project=run.project,
            name=run.name[:_LONGEST_RUN_NAME],
            id=read_run_id(run.folder),
            resume="allow" if run.wandb_mode == "online" else None,
            mode=run.wandb_mode,
            dir=str(run.folder),
            config=run.config,
            settings=wandb.Settings(
                disable_git=True, save_code=False, console="off", x_disable_meta=True
            ),
        )
