"""What a training run resolves to and what it will take, told before it begins."""

import os
from pathlib import Path

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nakt_dist.config import RecipeConfig, TrainConfig
from nakt_dist.loading.sampler import Share, batch_order
from nakt_dist.models.building import build_configured
from nakt_dist.models.trainable import select_trainable
from nakt_dist.models.weights_path import weights_path
from nakt_dist.runtime.deepspeed_launch import uses_deepspeed, zero_stage
from nakt_dist.runtime.launch_check import check_launch
from nakt_dist.runtime.processes import process_place
from nakt_dist.runtime.wandb_check import check_tracking
from nakt_dist.stages.opening import NotOpened, Opening, in_words, tell_weights
from nakt_dist.stages.train_identity import Training, lineage_of, resolve_auto
from nakt_dist.stages.train_plan import TrainPlan, make_plan, open_parts
from nakt_dist.training.batch_norm import synchronise_batch_norm
from nakt_dist.training.fastest import describe
from nakt_dist.training.schedule import Schedule
from nakt_dist.training.zero import deepspeed_settings


def plan(config: TrainConfig, found: Opening) -> Training:
    """Opens data, networks, batch, precision and launch, each for itself, then all together."""
    config = resolve_auto(config)
    parts = open_parts(config, found)
    _look_at_keys(found)
    share = _look_at_batch(config, found)
    _look_at_launch(config, found, share)
    job = None
    if share is not None and found.is_sound:  # the rest needs all of the above
        with found.part("train"):
            whole = make_plan(config, parts)
            job = _look_at_plan(whole, found, share)
            _look_at_loading(whole, found)
    _look_at_tracking(config, found)
    if job is None:
        raise NotOpened
    return job


def _look_at_keys(found: Opening) -> None:
    """Warns where patients in training and validation cannot be told to be the same."""
    validated = found.inputs.get("validation's key")
    keys = {key for name, key in found.inputs.items() if name.endswith("'s key")}
    if validated is not None and keys != {validated}:
        found.note(
            "training and validation data were not de-identified with one key, so that a patient "
            "in both of them would go unnoticed"
        )


def _look_at_tracking(config: TrainConfig, found: Opening) -> None:
    """Looks at what W&B would refuse; the first process alone speaks to it."""
    tracking = config.tracking
    if process_place().is_main and tracking.wandb != "off":
        team = f"{tracking.entity}/" if tracking.entity else ""
        group = tracking.group or os.environ.get("NAKT_STUDY")
        found.facts["W&B"] = f"{tracking.wandb}, project {team}{tracking.project}" + (
            f", group {group}" if group else ""
        )
        with found.part("W&B"):
            check_tracking(Path(config.output), tracking.wandb)


def _look_at_batch(config: TrainConfig, found: Opening) -> Share | None:
    recipe, world = config.recipe, process_place().world_size
    with found.part("batch"):
        share = Share.of(recipe.global_batch_size, world, recipe.micro_batch_size)
        found.facts["global batch"] = (
            f"{share.batch_size} = micro-batch {share.micro_batch_size} × accumulation "
            f"{share.accumulation} × {world} process{'' if world == 1 else 'es'}"
        )
        return share
    return None


def _look_at_launch(config: TrainConfig, found: Opening, share: Share | None) -> None:
    """Looks at what the launcher asks for besides processes, as the stage does."""
    precision = config.recipe.precision
    found.facts["precision"] = describe(config.recipe)
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", precision)
    if launched not in (precision, "no"):
        found.note(
            f"accelerate was launched with mixed_precision {launched}; recipe.precision decides"
        )
    with found.part("launch"):
        plugin = check_launch(precision, config.device)
        found.facts["DeepSpeed"] = f"ZeRO stage {zero_stage(plugin)}" if plugin else "not used"
    if uses_deepspeed() and share is not None:
        with found.part("DeepSpeed"):
            deepspeed_settings(config.recipe, share)


def _look_at_plan(plan: TrainPlan, found: Opening, share: Share) -> Training:
    """Says what a run will take."""
    config = plan.config
    found.note(*plan.notices)
    recipe, size = config.recipe, len(plan.training)
    order = batch_order(
        [len(each.samples) for each in plan.training.sources], config.weights,
        recipe.global_batch_size, config.seed,
    )  # fmt: skip
    per_epoch = order.steps_per_epoch
    steps = Schedule(recipe, per_epoch).total_steps
    found.facts["steps"] = f"{steps:,}, {per_epoch:,} in an epoch of {size:,} images"
    if len(order.sizes) > 1:
        epoch = zip(plan.training.names, order.drawn(per_epoch), order.sizes, strict=True)
        found.facts["mixture"] = "; ".join(
            f"{name}: {drawn / (per_epoch * order.batch_size):.1%} of each batch, {drawn:,} draws "
            f"of {count:,} images an epoch"
            for name, drawn, count in epoch
        )
    if plan.teacher is not None:
        path, teacher = weights_path(plan.teacher.config.weights), plan.teacher.network
        found.facts["teacher"] = (
            f"{teacher.name} ({teacher.spec.name}), frozen: "
            f"{tell_weights(path, teacher.weights_sha256)}"
        )
    # One like the network to train: what its weights would be does not matter.
    bare = plan.start.spec.without_encoder_weights()
    network = plan.start.parent.network if plan.start.parent else build_configured(bare)
    plan.check_size(network)
    parameters = sum(each.numel() for each in network.parameters())
    weights = 4 * parameters
    checkpoint = _numbers_of_a_weight(recipe) * weights
    learnt = "findings" if plan.labels else "masks"
    found.facts["network"] = f"{plan.start.spec.name}, {parameters:,} parameters, learns {learnt}"
    _look_at_batch_norm(recipe, network, found, share)
    # While one is written, the oldest is still there; best and last weights lie beside.
    found.disk = (config.checkpoint.keep + 2) * checkpoint + 2 * weights
    found.facts["checkpoint"] = (
        f"about {in_words(checkpoint)} each, {config.checkpoint.keep} kept besides the best"
    )
    return Training(config, lineage_of(plan, select_trainable(network, config.trainable)))


def _numbers_of_a_weight(recipe: RecipeConfig) -> int:
    """Returns how many numbers a checkpoint holds for each weight."""
    moments = 2 if recipe.optimiser.name != "sgd" else int(recipe.optimiser.momentum is not None)
    return 1 + moments + int(recipe.ema_decay is not None)


def _look_at_batch_norm(
    recipe: RecipeConfig, network: nn.Module, found: Opening, share: Share
) -> None:
    """Says over how many images BatchNorm takes its statistics, if it can."""
    layers = sum(isinstance(each, _BatchNorm) for each in network.modules())
    if recipe.synchronised_batch_norm:
        synchronise_batch_norm(network)
    if layers and share.world_size > 1:
        size, together = share.micro_batch_size, recipe.synchronised_batch_norm
        found.facts["BatchNorm"] = (
            f"statistics of {size * share.world_size} images of all processes together"
            if together
            else f"statistics of the {size} images of each process (together: "
            "recipe.synchronised_batch_norm)"
        )


def _look_at_loading(plan: TrainPlan, found: Opening) -> None:
    """Says what decoded images take in memory, where they are kept."""
    allowed = plan.config.memory_cache_megabytes
    read = [each.images(allowed) for each in (plan.training, plan.validation) if each is not None]
    if not allowed or process_place().local_rank:  # the first process of a machine keeps them
        return
    for images in read[plan.config.is_streaming :]:
        found.memory += min(images.memory_bytes, int(allowed * 1e6))
