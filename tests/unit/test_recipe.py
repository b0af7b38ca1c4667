"""Schedules, optimisers, averages and early stopping, by known answers."""

import copy
import math

import pytest
import torch
from torch.optim import lr_scheduler

from nakt_dist.config import (
    BinaryLoss,
    DataConfig,
    EarlyStoppingConfig,
    OptimiserConfig,
    RecipeConfig,
    ScheduleConfig,
    TrainConfig,
)
from nakt_dist.errors import ConfigurationError
from nakt_dist.loading.sampler import Share
from nakt_dist.training.average import Average
from nakt_dist.training.early_stopping import has_stopped_gaining
from nakt_dist.training.optimisers import make_optimiser
from nakt_dist.training.schedule import Schedule
from nakt_dist.training.zero import deepspeed_settings


def rates(steps, steps_per_epoch=1, **settings):
    """The learning rate of each step, where 1 is asked for."""
    recipe = RecipeConfig(steps=steps, learning_rate=1.0, schedule=ScheduleConfig(**settings))
    schedule = Schedule(recipe, steps_per_epoch)
    return [schedule.learning_rate(step) for step in range(steps)]


# ------------------------------------------------------------------------ the learning rate


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "constant"}, [1, 1, 1, 1]),
        ({"name": "constant", "warm_up_steps": 2}, [1 / 2, 1, 1, 1]),
        ({"name": "cosine"}, [1, (1 + math.sqrt(1 / 2)) / 2, 1 / 2, (1 - math.sqrt(1 / 2)) / 2]),
        ({"name": "cosine", "final_share": 0.2}, [1, None, 0.6, None]),
        ({"name": "cosine", "warm_up_steps": 2}, [1 / 2, 1, 1, 1 / 2]),
        ({"name": "step", "decay_every_epochs": 1}, [1, 1, 1 / 2, 1 / 2]),
        (
            {"name": "step", "decay_every_epochs": 1, "warm_up_steps": 3},
            [1 / 3, 2 / 3, 1 / 2, 1 / 2],
        ),
    ],
)
def test_the_learning_rate_by_hand(settings, expected):
    for found, wanted in zip(rates(4, 2, **settings), expected, strict=True):
        assert wanted is None or found == pytest.approx(wanted, abs=1e-15)


@pytest.mark.parametrize(
    ("settings", "of_torch"),
    [
        (
            {"name": "cosine", "final_share": 0.1},
            lambda one: lr_scheduler.CosineAnnealingLR(one, 30, eta_min=0.1),
        ),
        (
            {"name": "step", "decay_every_epochs": 2, "decay_factor": 0.3},
            lambda one: lr_scheduler.StepLR(one, 10, gamma=0.3),
        ),
        (
            {"name": "constant", "warm_up_steps": 8},
            lambda one: lr_scheduler.LinearLR(one, start_factor=1 / 8, total_iters=7),
        ),
        (
            {"name": "cosine", "warm_up_steps": 8},
            lambda one: lr_scheduler.SequentialLR(
                one,
                [
                    lr_scheduler.LinearLR(one, start_factor=1 / 8, total_iters=7),
                    lr_scheduler.CosineAnnealingLR(one, 22),
                ],
                milestones=[8],
            ),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:The epoch parameter in")
def test_the_learning_rate_is_that_of_torchs_schedulers(settings, of_torch):
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs, scheduler = [], of_torch(optimiser)
    for _ in range(30):
        theirs.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        scheduler.step()
    assert rates(30, 5, **settings) == pytest.approx(theirs, abs=1e-12)


def test_a_warm_up_as_long_as_the_training_is_refused():
    recipe = RecipeConfig(epochs=3, schedule=ScheduleConfig(warm_up_steps=6))
    assert Schedule(recipe, 3).total_steps == 9
    with pytest.raises(ConfigurationError, match="warm_up_steps is 6 and the training has 6 steps"):
        Schedule(recipe, 2)


# --------------------------------------------------------------------------- contradictions


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimiserConfig(momentum=0.9), "momentum is 0.9 and the optimiser adam"),
        (lambda: OptimiserConfig("sgd", nesterov=True), "nesterov needs a momentum"),
        (lambda: OptimiserConfig("sgd", momentum=1.0), "optimiser.momentum must be above 0 and"),
        (lambda: OptimiserConfig("adamw", weight_decay=-1), "recipe.optimiser.weight_decay must"),
        (lambda: ScheduleConfig("cosine", 16), "name is cosine and decay_every_epochs 16"),
        (lambda: ScheduleConfig("step"), "step needs decay_every_epochs"),
        (lambda: BinaryLoss(gamma=2.0), "gamma is 2 and the loss cross_entropy"),
        (lambda: BinaryLoss("focal", margin=0.1), "recipe.loss.name to asymmetric"),
        (
            lambda: RecipeConfig(
                steps=1, loss=BinaryLoss("focal", alpha=0.25), positive_weighting="balanced"
            ),
            "both weigh positives",
        ),
        (
            lambda: TrainConfig(
                "o", DataConfig("d"), RecipeConfig(steps=1, early_stopping=EarlyStoppingConfig(2))
            ),
            "early_stopping needs validation",
        ),
        (
            lambda: deepspeed_settings(
                RecipeConfig(steps=1, optimiser=OptimiserConfig("sgd")), Share.of(4, 2, None)
            ),
            "recipe.optimiser.name sgd cannot be had with DeepSpeed",
        ),
        (
            lambda: deepspeed_settings(RecipeConfig(steps=1, ema_decay=0.9), Share.of(4, 2, None)),
            "recipe.ema_decay cannot be had with DeepSpeed",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make, message):
    with pytest.raises(ConfigurationError, match=message):
        make()


# ---------------------------------------------------------------------------- the optimiser


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_biases_and_norms_do_not_decay(name):
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Flatten(), torch.nn.Linear(2, 1)
    )
    recipe = RecipeConfig(
        steps=1, learning_rate=0.1, optimiser=OptimiserConfig(name, weight_decay=0.5)
    )
    optimiser = make_optimiser(recipe, network.parameters())
    before = {name: each.detach().clone() for name, each in network.named_parameters()}
    for each in network.parameters():
        each.grad = torch.zeros_like(each)
    optimiser.step()
    changed = {
        name for name, each in network.named_parameters() if not torch.equal(each, before[name])
    }
    assert changed == {"0.weight", "3.weight"}
    if name != "adam":  # whose step does not depend on the size of the decay
        assert torch.allclose(network[0].weight, before["0.weight"] * (1 - 0.1 * 0.5))


# ----------------------------------------------------------------------------- the average


def test_an_average_by_hand():
    network = torch.nn.BatchNorm1d(1)
    average = Average(copy.deepcopy(network), network, 0.25)
    expected = 0.0
    for done, (value, decay) in enumerate([(4.0, 2 / 11), (8.0, 0.25), (16.0, 0.25)], start=1):
        with torch.no_grad():
            network.bias.fill_(value)
            network.running_mean.fill_(value)
            network.num_batches_tracked.fill_(done)
        average.update(done)
        expected = decay * expected + (1 - decay) * value
        assert average.network.bias.item() == pytest.approx(expected)
        assert average.network.running_mean.item() == pytest.approx(expected)
        assert average.network.num_batches_tracked.item() == done
    assert not any(each.requires_grad for each in average.network.parameters())
    assert network.bias.item() == 16 and network.bias.requires_grad


# --------------------------------------------------------------------------- early stopping


@pytest.mark.parametrize(
    ("scores", "patience", "gain", "stops"),
    [
        ([], 1, 0.0, False),
        ([0.0], 1, 0.0, False),  # the first score is a gain
        ([0.5, 0.5], 1, 0.0, True),  # no more is none
        ([0.5, 0.4, 0.6, 0.6], 2, 0.0, False),
        ([0.5, 0.4, 0.6, 0.6, 0.5], 2, 0.0, True),
        ([0.5, 0.55, 0.58, 0.61], 2, 0.1, False),  # small gains add up
        ([0.5, 0.55, 0.58, 0.59], 3, 0.1, True),
    ],
)
def test_training_stops_when_nothing_was_gained_for_so_long(scores, patience, gain, stops):
    assert has_stopped_gaining(scores, EarlyStoppingConfig(patience, gain)) is stops
    assert not has_stopped_gaining(scores, None)
