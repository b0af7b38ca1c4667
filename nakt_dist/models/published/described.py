"""How what a foreign file says is put into the words of our own files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import LoadedWeights

LEVELS = 255
"""Of the files that are packed; packed pixels are in [0, 1]."""

AS_PACKED: dict[str, Any] = {"height": None, "width": None}
"""The size of images for a network that takes them at the size they have."""


def described(
    loaded: LoadedWeights,
    notice: str,
    spec: ModelSpec,
    state_dict: Mapping[str, Tensor],
    preprocessing: Mapping[str, Any],
    outputs: Mapping[str, Sequence[str]],
) -> LoadedWeights:
    """Returns a foreign file as if it were ours.

    Args:
        notice: what it was taken for, a sentence.
        state_dict: with the names of our network.
        preprocessing: what the file, or its library, says of the input; some settings or all.
        outputs: under ``labels`` or ``classes`` what the outputs mean; empty if unsaid.
    """
    said = {"preprocessing": preprocessing, "lineage": outputs}
    return replace(
        loaded,
        spec=spec,
        state_dict=dict(state_dict),
        metadata={name: json.dumps(each) for name, each in said.items() if each},
        notices=(notice,),
    )
