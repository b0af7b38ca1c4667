"""Starts a network from a checkpoint that was made for another task, or elsewhere.

All styles of DenseNet-121 that ``entry_names`` knows fit ``densenet121``, and as far as it goes
``densenet40``.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from nakt_dist.errors import CheckpointError
from nakt_dist.models.building import check_finite
from nakt_dist.models.entry_names import own_entries
from nakt_dist.models.heads import head_prefixes
from nakt_dist.models.imagenet import IMAGENET
from nakt_dist.models.matching import LoadReport, compare, copy_matched, explain_misfit
from nakt_dist.models.published import recognise
from nakt_dist.models.timm_files import in_timm_names
from nakt_dist.models.weights import LoadedWeights, read_weights
from nakt_dist.models.weights_path import weights_path

WHERE_TO_GET_IMAGENET = (
    "No weights are downloaded. Get torchvision's file densenet121-a639ec97.pth (its "
    "documentation of DenseNet121_Weights has the address) or the safetensors file of a timm "
    "densenet121 (such as timm/densenet121.ra_in1k on the Hugging Face hub), and give its path. "
    "To have timm download them, name the network timm:densenet121 with options: "
    "{pretrained: true}. For timm:tf_efficientnet_lite0 a package brings them: init: imagenet"
)
"""What a message says where pretrained weights are asked for by name."""

_PRETRAINED = (IMAGENET, "densenet121")
_ENCODER = "encoder."  # what smp calls it


def read_initial_weights(source: str | Path) -> LoadedWeights:
    """Reads weights to start from, without running any code that the file may hold.

    Args:
        source: a weights file, or the output folder of a training run.

    Raises:
        CheckpointError: it is missing (the message says where ImageNet's weights are to be had,
            if its name means those), unsafe, damaged, or holds values that are not finite.
    """
    path = Path(source)
    absent = not path.exists() and source != IMAGENET
    if absent and any(each in path.name.lower() for each in _PRETRAINED):
        raise CheckpointError(f"{source}: no such weights file. {WHERE_TO_GET_IMAGENET}")
    loaded = recognise(read_weights(weights_path(path)))
    check_finite(loaded)
    return loaded


def initialise(network: nn.Module, loaded: LoadedWeights, keep_head: bool = True) -> LoadReport:
    """Copies into a network all that a checkpoint has for it.

    The head is copied when it has as many outputs, and otherwise stays at its fresh values.
    First layers are never adapted to another number of image channels. A network that segments
    takes those of a classifier for its encoder, where that is the same network, and keeps its
    decoder.

    Args:
        keep_head: False leaves the head fresh even where it fits, as it has to be when its
            outputs mean other findings.

    Returns:
        What was copied and what was not, by the network's names. What the file has beside
        them, such as the second half of DenseNet-121 for ``densenet40``, is ``unexpected``.
        BatchNorm's counters of batches, which old files lack, are in no list.

    Raises:
        CheckpointError: outside the head, the file lacks a layer that the network shares with
            the ones it may be started from, or has one in another shape. The network is then
            as it was.
    """
    wanted = network.state_dict()
    found, left = own_entries(loaded.state_dict, wanted, loaded.path)
    found, unused = in_timm_names(found, network, loaded.path)
    fresh = _fresh_head(network, found, keep_head)
    if prefix := _encoder_prefix(found, wanted):
        found = {f"{prefix}{name}": each for name, each in found.items()}
        fresh = {name for name in wanted if not name.startswith(_ENCODER)}
    report = compare(wanted, found, loaded.path, fresh)
    report = replace(report, unexpected=(*report.unexpected, *left, *unused))
    own_layers = getattr(network, "own_layers", ())
    lacking = tuple(name for name in report.missing if not name.startswith(own_layers))
    if lacking or report.shape_mismatched or not report.matched:
        misfit = replace(report, missing=lacking)
        raise CheckpointError(explain_misfit(misfit, wanted, loaded))
    copy_matched(network, found, report)
    return report


def _fresh_head(network: nn.Module, found: Mapping[str, Tensor], keep_head: bool) -> set[str]:
    """Returns the entries of the head, where it is not kept or does not fit as a whole."""
    prefixes = head_prefixes(network)
    head = {name: each for name, each in network.state_dict().items() if name.startswith(prefixes)}
    fits = all(name in found and found[name].shape == each.shape for name, each in head.items())
    return set() if keep_head and fits else set(head)


def _encoder_prefix(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Returns what a segmentation network puts before a classifier's names; "" where it has none.

    Encoders ``tu-NAME`` of segmentation-models-pytorch have timm's names after a prefix.
    """
    first = next(iter(found), "")
    prefixes = (
        name.removesuffix(first)
        for name in wanted
        if first not in wanted and name.startswith(_ENCODER) and name.endswith(f".{first}")
    )
    return next(prefixes, "")
