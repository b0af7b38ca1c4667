"""Weights files as other libraries publish them, taken for what they are without being told.

A format is a module here with ``recognise(loaded)``, which returns the file with its network, its
input and what its outputs mean, or None where the file is of another kind. All is read as data:
no name in a file is imported and no expression in it is evaluated. ``nakt_dist.models.building``
builds what a file describes within the limits that hold for our own.
"""

from nakt_dist.errors import CheckpointError
from nakt_dist.models.published import monai_bundle, nnunet_folder, smp_folder, torchxrayvision
from nakt_dist.models.weights import LoadedWeights

_FORMATS = (torchxrayvision, smp_folder, monai_bundle, nnunet_folder)
_NOT_AS_WRITTEN = (
    ArithmeticError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError,
)  # fmt: skip


def recognise(loaded: LoadedWeights) -> LoadedWeights:
    """Returns a weights file with what its format says of it; any other as it is.

    Raises:
        CheckpointError: its format is known, and what it says cannot be used.
    """
    if loaded.spec is not None:
        return loaded
    try:
        found = (each.recognise(loaded) for each in _FORMATS)
        return next(filter(None, found), loaded)
    except _NOT_AS_WRITTEN as error:
        raise CheckpointError(
            f"{loaded.path}: what lies beside it holds values of other kinds than its library "
            f"writes ({type(error).__name__}: {str(error)[:100]}); copy them again from their "
            "origin, or name the network as model: {name: …} for a copy of the weights alone"
        ) from None
