"""What an optimiser goes on with after a checkpoint."""

import torch

from nakt_dist.config import PreprocessingConfig, RecipeConfig
from nakt_dist.models.spec import ModelSpec
from nakt_dist.runtime.distributed import make_accelerator
from nakt_dist.training.checkpoint import TrainingState
from nakt_dist.training.learner import Learner
from nakt_dist.training.tasks import SegmentationTask

RECIPE = RecipeConfig(steps=1, channels_last=True)


def learner(state=None):
    network = ModelSpec("unet", options={"base_channels": 4}).build()
    network = network.to(memory_format=torch.channels_last)
    task = SegmentationTask(1, PreprocessingConfig(mean=0.0, std=1.0), RECIPE)
    return Learner(make_accelerator("no", "cpu"), network, task, RECIPE, state)


def stepped():
    one = learner()
    one.begin_step(1e-3)
    one.module(torch.rand(2, 1, 32, 32)).mean().backward()
    one.end_step(1)
    return one


def test_moments_get_the_memory_layout_of_their_parameters_back():
    """A file holds plain tensors; Adam is slow where layouts of one parameter differ."""
    saved = stepped().training_state()
    as_in_a_file = {
        name: {kind: value.contiguous() for kind, value in moments.items()}
        for name, moments in saved.moments.items()
    }

    resumed = learner(TrainingState(as_in_a_file)).training_state()

    assert resumed.moments.keys() == saved.moments.keys()
    strides = set()
    for name, moments in saved.moments.items():
        assert resumed.moments[name]["step"].device.type == "cpu"
        for kind, value in moments.items():
            again = resumed.moments[name][kind]
            assert torch.equal(again, value) and again.stride() == value.stride(), (name, kind)
            strides.add(value.ndim == 4 and not value.is_contiguous())
    assert strides == {True, False}
