"""Folders that smp's ``save_pretrained`` writes: weights beside ``config.json``."""

from nakt_dist.errors import CheckpointError
from nakt_dist.models.published.beside import read_beside, spec_beside, take
from nakt_dist.models.published.described import described
from nakt_dist.models.weights import LoadedWeights

_CONFIG = "config.json"
_NOT_OPTIONS = (
    *("_model_class", "activation", "aux_params", "classes"),
    *("encoder_name", "encoder_weights", "in_channels"),
)
_ONE_TARGET = (None, "identity", "sigmoid")
_CLASSES = (None, "identity", "softmax", "softmax2d")


def recognise(loaded: LoadedWeights) -> LoadedWeights | None:
    """Takes a network for what its folder says; None for a file without such a description.

    An activation has no weights: the sigmoid of one output and the softmax of several are what
    is taken of any network here.

    Raises:
        CheckpointError: the description cannot be used, or its activation is another.
    """
    path = loaded.path.with_name(_CONFIG)
    config = read_beside(path) if loaded.path.name == "model.safetensors" else None
    if config is None or not {"_model_class", "encoder_name"} <= config.keys():
        return None
    architecture, encoder = (take(config, n, str, path) for n in ("_model_class", "encoder_name"))
    classes, channels = (take(config, name, int, path) for name in ("classes", "in_channels"))
    activation = config.get("activation")
    if activation not in (_ONE_TARGET if classes == 1 else _CLASSES):
        raise CheckpointError(
            f"{path}: the activation of its {classes} outputs is {activation!r}; networks here "
            "have one target (sigmoid), or classes of which each pixel has one (softmax)"
        )
    options = {name: value for name, value in config.items() if name not in _NOT_OPTIONS}
    spec = spec_beside(path, f"smp:{architecture}/{encoder}", channels, classes, options)
    notice = f"taken for what {_CONFIG} beside it says: {spec.name}, activation {activation}"
    return described(loaded, notice, spec, loaded.state_dict, {}, {})
