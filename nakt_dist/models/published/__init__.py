"""Weights files as other libraries publish them, taken for what they are without being told.

A format is a module here with ``recognise(loaded)``, which returns the file with its network, its
input and what its outputs mean, or None where the file is of another kind. All is read as data:
no name in a file is imported and no expression in it is evaluated. ``nakt_dist.models.building``
builds what a file describes within the limits that hold for our own.
"""

from nakt_dist.models.published import smp_folder, torchxrayvision
from nakt_dist.models.weights import LoadedWeights

_FORMATS = (torchxrayvision.recognise, smp_folder.recognise)


def recognise(loaded: LoadedWeights) -> LoadedWeights:
    """Returns a weights file with what its format says of it; any other as it is.

    Raises:
        CheckpointError: its format is known, and what it says cannot be used.
    """
    if loaded.spec is not None:
        return loaded
    return next((found for each in _FORMATS if (found := each(loaded))), loaded)
