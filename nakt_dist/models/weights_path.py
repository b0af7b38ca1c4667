"""Where the weights of a training run lie, and what a network is called by its file."""

from pathlib import Path

from nakt_dist.errors import CheckpointError
from nakt_dist.models.imagenet import IMAGENET, imagenet_file

BEST_WEIGHTS = "best.safetensors"
LAST_WEIGHTS = "last.safetensors"


def weights_path(path: str | Path) -> Path:
    """Returns the weights file meant by a file, or by the output folder of a training run.

    ``imagenet``, where nothing is called so, is the file that a package brings.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if str(path) == IMAGENET and not path.exists():
        return imagenet_file()
    if path.is_dir():
        if not (path / BEST_WEIGHTS).is_file():
            raise CheckpointError(
                f"{path}: holds no {BEST_WEIGHTS}; expected a weights file or the output folder "
                "of a training run that has finished an epoch"
            )
        return path / BEST_WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    return path


def name_of_weights(path: Path) -> str:
    """Returns what to call a network by its file: its run's folder, or the file's stem.

    ``model.pth.tar``, as older training scripts write it, is ``model``.
    """
    if path.name in (BEST_WEIGHTS, LAST_WEIGHTS):
        return path.parent.name
    stem, inner = Path(path.stem), (".pth", ".pt", ".ckpt")
    return stem.stem if path.suffix == ".tar" and stem.suffix in inner else path.stem
