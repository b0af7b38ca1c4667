"""Augmentation on a GPU gives what it gives on the CPU, and the CPU does not wait for it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from nakt_dist.config import AugmentationConfig
from nakt_dist.loading.augmentation import augment, draw_parameters

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FLIPS = AugmentationConfig(
    smallest_crop=1.0, largest_rotation=0.0, gamma=(1.0, 1.0), contrast=(1.0, 1.0)
)


@pytest.fixture
def waiting_refused() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("config", [AugmentationConfig(), FLIPS])
def test_the_gpu_is_not_waited_for_and_agrees_with_the_cpu(config, waiting_refused):
    image = torch.randint(0, 256, (8, 1, 96, 128), dtype=torch.uint8)
    mask = (image > 127).to(torch.uint8) * 255
    device = torch.device("cuda")
    parameters = draw_parameters(config, np.arange(8), 0, 0, 96, 128)
    there = [each.pin_memory().to(device, non_blocking=True) for each in (image, mask)]
    found = augment(*there, parameters.to(device))
    torch.cuda.set_sync_debug_mode("default")
    for ours, theirs in zip(augment(image, mask, parameters), found, strict=True):
        assert torch.allclose(ours, theirs.cpu(), atol=2e-5 if config is FLIPS else 2e-4)
