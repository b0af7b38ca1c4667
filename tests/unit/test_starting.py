"""What a command imports before its first step: nothing large that it does not use."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nakt_dist.config import OptimiserConfig, RecipeConfig
from nakt_dist.training.optimisers import make_optimiser
from tests.datasets import publish_images

PROGRAM = """
import gc, sys
from nakt_dist.cli import main
from nakt_dist.runtime.imports import keep_imports
from nakt_dist.runtime.processes import end_process

keep_imports()

folder = sys.argv[1]

def absent(after, *names):
    met = [name for name in names if name in sys.modules]
    assert not met, f"{after} imports {met}"

assert main(["--help"]) == 0
absent("--help", "torch", "numpy", "yaml", "jsonargparse", "pydantic")

source = ["--layout=image_folder", f"--source={folder}/published"]
form = ["--image={height: 32, width: 32}", "--splits.fractions={train: 1.0}", "--workers=1"]
assert main(["pack", *source, f"--output={folder}/packed", *form]) == 0
absent("pack", "torch", "matplotlib", "wandb", "scipy", "pandas", "fsspec", "asyncio")

from nakt_dist.models import MODEL_NAMES, ModelSpec, build_model
absent("naming networks", "torch")

import torch
large = "torch._dynamo", "torch.distributed.tensor", "sympy", "wandb", "matplotlib", "scipy"
never = [name for name in large if name not in sys.modules]  # torch may bring some by itself
recipe = ["--recipe={steps: 1, global_batch_size: 2}", "--model.options={base_channels: 2}"]
data = [f"--data.dataset={folder}/packed", "--model.name=unet", "--device=cpu"]
assert main(["train", *data, *recipe, f"--output={folder}/run"]) == 0
absent("train", *never, "timm", "torchvision", "segmentation_models_pytorch")

disable = torch.compiler.disable
ModelSpec("deeplabv3plus", options={"encoder_name": "resnet18"}).build()
absent("networks of libraries", *never)
assert torch.compiler.disable is disable

# What was put off is there when it is used.
from nakt_dist.models.library_imports import library_imports
with library_imports():
    from torch._dynamo.utils import counters
assert sys.modules["torch._dynamo.utils"].counters is counters
import wandb
assert sys.modules["torchvision.ops.roi_align"].is_compile_supported("cpu") in (True, False)
assert gc.isenabled() and gc.get_freeze_count() > 100_000  # torch and timm have more
from torchvision.tv_tensors import wrap, Image
assert wrap(torch.zeros(1, 2, 2), like=Image(torch.zeros(1, 2, 2))).shape == (1, 2, 2)
end_process(0)
"""


def test_commands_import_nothing_large_that_they_do_not_use(tmp_path: Path) -> None:
    publish_images(tmp_path / "published", 4)
    subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], check=True, timeout=120)


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "adam"},
        {"name": "adamw", "weight_decay": 0.1},
        {"name": "sgd", "weight_decay": 0.1, "momentum": 0.9, "nesterov": True},
    ],
    ids=["adam", "adamw", "sgd"],
)
def test_optimisers_are_those_of_torch(settings: dict[str, Any]) -> None:
    learnt = []
    for bare in (True, False):
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 2)
        recipe = RecipeConfig(steps=1, learning_rate=0.1, optimiser=OptimiserConfig(**settings))
        optimiser = make_optimiser(recipe, network.parameters(), bare)
        for number in range(3):
            network(torch.full((1, 3), float(number))).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()
            assert all(parameter.grad is None for parameter in network.parameters())
            state = optimiser.state_dict()
            optimiser = make_optimiser(
                replace(recipe, learning_rate=0.2), network.parameters(), bare
            )
            optimiser.load_state_dict(state)
        learnt.append(
            [*network.parameters(), *(v for s in state["state"].values() for v in s.values())]
        )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*learnt, strict=True))
