"""Last layers: what they are called, and one of whose outputs exactly one holds."""

import torch
from torch import Tensor, nn

from nakt_dist.errors import ConfigurationError

HEAD_PREFIXES = ("head.", "segmentation_head.", "classifier.", "fc.", "op_threshs")
"""How the networks here, those of smp and the usual classifiers call their last layer, and what
belongs to its outputs."""


class SoftmaxHead(nn.Linear):
    """A last layer whose sigmoids are what the softmax of its weights' logits is.

    Everything here takes the sigmoid of a classifier's logits. The logit of a softmax's
    probability is z_k - log Σ_{j≠k} exp(z_j): of two outputs the difference of both.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Maps float (N, features) to logits (N, K).

        Raises:
            ConfigurationError: K is 1.
        """
        if self.out_features < 2:
            raise ConfigurationError(
                "option 'softmax' is for a classifier of at least two outputs, and this one has 1; "
                "leave it out"
            )
        logits = super().forward(features)
        own = torch.eye(logits.shape[-1], dtype=torch.bool, device=logits.device)
        others = logits[:, None].expand(-1, logits.shape[-1], -1).masked_fill(own, -torch.inf)
        return logits - others.logsumexp(-1)


def head_prefixes(network: nn.Module) -> tuple[str, ...]:
    """Returns how the names of the entries of a network's last layer begin."""
    if own := getattr(network, "head_prefixes", ()):
        return own
    stated = (getattr(network, "pretrained_cfg", None) or {}).get("classifier")  # timm's
    if not stated:
        return HEAD_PREFIXES
    names = (stated,) if isinstance(stated, str) else tuple(stated)
    return tuple(f"{name}." for name in names)


def with_softmax(network: nn.Module, name: str) -> nn.Module:
    """Gives a classifier, in place, a last layer that takes the softmax of its outputs.

    Names of entries and fresh weights stay what they are.

    Args:
        name: of the network, for messages.

    Raises:
        ConfigurationError: it ends otherwise than in one linear layer.
    """
    paths = [prefix.removesuffix(".") for prefix in head_prefixes(network)]
    heads = {path: each for path, each in network.named_modules() if path in paths}
    path, head = next(iter(heads.items()), ("", None))
    if len(heads) != 1 or type(head) is not nn.Linear:
        raise ConfigurationError(
            f"network '{name}': option 'softmax' is for a classifier that ends in one linear "
            f"layer, and this one ends in {head or 'none of that name'}; leave it out"
        )
    softmax = SoftmaxHead(
        head.in_features, head.out_features, bias=head.bias is not None, device="meta"
    )
    softmax.weight, softmax.bias = head.weight, head.bias
    parent, _, last = path.rpartition(".")
    setattr(network.get_submodule(parent), last, softmax)
    return network
