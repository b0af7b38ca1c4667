"""Whose folder an output is: one stage does not write among the files of another."""

from pathlib import Path

from nakt_dist.errors import DatasetError

_LEFT_BY = {
    "pack": (".pack", "rejected.parquet"),
    "teach": (".teach",),
    "weigh": ("teachers.yaml",),
    "train": ("identity.json", "checkpoints", "best.safetensors"),
    "evaluate": (".evaluate", "predictions.parquet"),
    "predict": (".predict", "predicted.parquet"),
    "inspect": ("excluded.parquet",),
    "attention": ("attention.parquet",),
    "report": ("report.html",),
    "export": ("export.json",),
}


def check_output(folder: Path, stage: str) -> None:
    """Refuses an output folder that another stage has written, or that cannot be made.

    Args:
        folder: may be absent.

    Raises:
        DatasetError: names the stage whose folder it is; or it is a file, or a link that leads
            nowhere.
    """
    if folder.is_symlink() and not folder.exists():
        raise DatasetError(
            f"{folder}: is a link to {folder.readlink()}, which is not there. Make that folder, or "
            "choose another --output"
        )
    if folder.exists() and not folder.is_dir():
        raise DatasetError(f"{folder}: is a file, expected a folder. Choose another --output")
    for owner in _LEFT_BY:
        found = left_by(folder, owner)
        if owner != stage and found is not None:
            raise DatasetError(
                f"{folder}: holds what {owner} has written ({found}); {stage} would write among "
                "it. Choose another --output"
            )


def left_by(folder: Path, stage: str) -> str | None:
    """Names something in a folder that only this stage writes; None where there is nothing."""
    return next((name for name in _LEFT_BY.get(stage, ()) if (folder / name).exists()), None)
