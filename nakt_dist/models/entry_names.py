"""Finds a network's own entries in a checkpoint from elsewhere, by whatever names they go there.

Checkpoints call the same tensors by several names. Three styles of DenseNet-121 are in use:
torchvision's file (``denselayer1.norm.1.weight``, no counters of batches), timm's and today's
torchvision's (``denselayer1.norm1.weight``), and reproductions of CheXNet, where the network is
an attribute of another and its head a sequence (``densenet121.classifier.0.weight``). Training
programs put losses, counters and averaged copies beside the network.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from nakt_dist.errors import CheckpointError
from nakt_dist.models.heads import HEAD_PREFIXES
from nakt_dist.models.matching import COUNTER

_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
_SEQUENTIAL_HEAD = re.compile(r"^(classifier|fc|head)\.0\.(weight|bias)$")
_BOOKKEEPING = ("n_averaged", "total_ops", "total_params")
"""What torch's averages and counters of operations leave among the weights; no forward pass reads
them."""


def own_entries(
    state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Gives a checkpoint's entries the names of a network, and leaves out what is beside it.

    Returns:
        The tensors by the network's names as far as the styles go, and the names of entries that
        were left out: bookkeeping, and, where the network is whole under one prefix, what is not
        under it. Anything else that the network has no place for is still there, to be refused.

    Raises:
        CheckpointError: several networks lie side by side, each of which it could be.
    """
    left = [name for name in state_dict if name.rpartition(".")[2] in _BOOKKEEPING]
    plain = {name: tensor for name, tensor in state_dict.items() if name not in left}
    whole = [prefix for prefix in _prefixes(plain, wanted) if _is_whole(plain, wanted, prefix)]
    if len(whole) > 1 and "" not in whole:
        raise CheckpointError(
            f"{path}: holds {len(whole)} networks that fit, under {', '.join(sorted(whole))}; "
            "keep the entries of one and save them alone"
        )
    if len(whole) == 1 and whole[0]:
        left += [name for name in plain if not name.startswith(whole[0])]
        plain = {name: each for name, each in plain.items() if name.startswith(whole[0])}
    return rename_entries(plain, wanted), tuple(left)


def rename_entries(
    state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Gives a checkpoint's entries the names of a network, where only the style differs.

    Returns:
        The same tensors in the same order. Entries that have no place in the network keep
        their name, less a prefix that the others have.
    """
    modern = {_OLD_DENSE_LAYER.sub(r"\1\2", name): each for name, each in state_dict.items()}
    prefix = min(_prefixes(modern, wanted), key=len, default="")
    renamed = {}
    for name, tensor in modern.items():
        name = name.removeprefix(prefix)
        plain = _SEQUENTIAL_HEAD.sub(r"\1.\2", name)
        renamed[plain if plain in wanted and name not in wanted else name] = tensor
    return renamed


def _prefixes(names: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """Returns what stands before the network's first entry in the checkpoint."""
    first = next(iter(wanted))
    return [
        name.removesuffix(first) for name in names if name == first or name.endswith(f".{first}")
    ]


def _is_whole(names: Mapping[str, Tensor], wanted: Mapping[str, Tensor], prefix: str) -> bool:
    """Says whether a network, but for its head, is there under a prefix."""
    modern = {_OLD_DENSE_LAYER.sub(r"\1\2", name) for name in names if name.startswith(prefix)}
    return all(
        prefix + name in modern
        for name in wanted
        if not name.startswith(HEAD_PREFIXES) and not name.endswith(COUNTER)
    )
