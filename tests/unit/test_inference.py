"""The form in which networks answer fastest: the same function."""

import pytest
import torch
from torch import nn

from nakt_dist.config import PreprocessingConfig
from nakt_dist.models.inference import fold_batch_norms, for_inference
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.preprocessing import NetworkInput
from nakt_dist.models.spec import ModelSpec

IMAGE = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
SPECS = [
    ModelSpec("unet", options={"base_channels": 4}),
    ModelSpec("deeplabv3plus", options={"encoder_name": "resnet18"}),
    ModelSpec("densenet40", num_outputs=3),
]


def trained_like(network: nn.Module) -> nn.Module:
    """Gives each BatchNorm other statistics, scales and shifts than those of the start."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.requires_grad_(False).eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(each, nn.BatchNorm2d) for each in network.modules())


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_network_answers_the_same_with_its_batch_norms_folded(spec: ModelSpec) -> None:
    network = trained_like(spec.build())
    before = norms(network)
    seen = NetworkInput(PreprocessingConfig(None, None, 0.5, 0.25))
    trained = TrainedNetwork("x", network, spec, seen, {}, "0" * 64)
    fast = for_inference(trained, torch.device("cpu"), (64, 64))
    with torch.inference_mode():
        torch.testing.assert_close(fast.logits(IMAGE), trained.logits(IMAGE), atol=1e-4, rtol=1e-4)
    assert norms(network) == before > norms(fast.network)
    if spec.name != "densenet40":  # whose BatchNorms see what several convolutions gave
        assert norms(fast.network) == 0


class Forked(nn.Module):
    """What comes out of the convolution goes past the BatchNorm, too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        made = self.convolution(image)
        return self.norm(made) + made


class Repeated(nn.Module):
    """The convolution is used twice, once without the BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(1, 1, 3), nn.BatchNorm2d(1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.convolution(self.norm(self.convolution(image)))


@pytest.mark.parametrize("kind", [Forked, Repeated])
def test_a_batch_norm_that_cannot_be_folded_stays(kind: type[nn.Module]) -> None:
    network = trained_like(kind())
    kept = fold_batch_norms(network, IMAGE)
    assert norms(kept) == 1
    torch.testing.assert_close(kept(IMAGE), network(IMAGE), atol=0, rtol=0)
