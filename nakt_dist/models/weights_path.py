"""Where the weights of a training run lie, and what a network is called by its file."""

from pathlib import Path

from nakt_dist.errors import CheckpointError
from nakt_dist.models.imagenet import IMAGENET, imagenet_file

BEST_WEIGHTS = "best.safetensors"
LAST_WEIGHTS = "last.safetensors"
EXPORTED_WEIGHTS = "model.safetensors"
"""As ``nakt export``, and Hugging Face's hub, call them."""

_IN_FOLDERS = (BEST_WEIGHTS, EXPORTED_WEIGHTS, "models/model.pt", "fold_0/checkpoint_final.pth")
"""Weights in a run, an export or network of smp or the hub, a MONAI bundle and nnU-Net's."""


def weights_path(path: str | Path) -> Path:
    """Returns the weights file meant by a file, or by the folder of a run, here or of a library.

    ``imagenet``, where nothing is called so, is the file that a package brings.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if str(path) == IMAGENET and not path.exists():
        return imagenet_file()
    if path.is_dir():
        found = next((path / each for each in _IN_FOLDERS if (path / each).is_file()), None)
        if found is None:
            raise CheckpointError(
                f"{path}: holds no {BEST_WEIGHTS}; expected a weights file or the output folder "
                "of a training run that has finished an epoch (other libraries': with "
                f"{', '.join(_IN_FOLDERS[1:])})"
            )
        return found
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weights file")
    return path


def name_of_weights(path: Path) -> str:
    """Returns what to call a network by its file: its run's folder, or the file's stem.

    ``model.pth.tar``, as older training scripts write it, is ``model``.
    """
    for within in (*_IN_FOLDERS, LAST_WEIGHTS):
        if path.match(within):
            return path.parents[within.count("/")].name
    stem, inner = Path(path.stem), (".pth", ".pt", ".ckpt")
    return stem.stem if path.suffix == ".tar" and stem.suffix in inner else path.stem
