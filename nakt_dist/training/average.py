"""An exponential moving average of a network's weights and statistics."""

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Follows a network while it learns.

    In early steps it keeps less of what was, (1 + n) / (10 + n) at step n at most, so that the
    first weights are forgotten however short the training is. As a function of the step alone it
    needs no counter in a checkpoint.

    Args:
        network: a copy of the followed one that holds the average so far.
        followed: on its device, where its tensors stay what they are.

    Attributes:
        network: with the average; its counters are those of the followed one.
    """

    def __init__(self, network: nn.Module, followed: nn.Module, decay: float) -> None:
        self._decay = decay
        self.network = network.requires_grad_(False)
        # Not of the state dict, which has tied weights twice.
        pairs = list(zip(_tensors(network), _tensors(followed), strict=True))
        numbers = [pair for pair in pairs if pair[0].is_floating_point()]
        self._averages, self._currents = map(list, zip(*numbers, strict=True))
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    def update(self, done: int) -> None:
        """Takes in the followed network as it is after ``done`` steps."""
        decay = min(self._decay, (1 + done) / (10 + done))
        get_ema_multi_avg_fn(decay)(self._averages, self._currents, done)
        for counter, current in self._counters:
            counter.copy_(current)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]
