"""``nakt train``: a network learns, from whatever was annotated or taught; it may be killed."""

import gc
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from nakt_dist.config import DataConfig, TrainConfig, as_plain, save_config
from nakt_dist.loading.sampler import Share
from nakt_dist.loading.samples import SelectedSamples
from nakt_dist.loading.targets import LabelledTargets
from nakt_dist.models.network_file import describe_for_file
from nakt_dist.models.weights_path import BEST_WEIGHTS
from nakt_dist.records.finding_results import VALIDATED_FINDINGS
from nakt_dist.records.run_record import RECORD_NAME, RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.devices import choose_device
from nakt_dist.runtime.distributed import explain_lost_peers, make_accelerator
from nakt_dist.runtime.files import remove_unfinished
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.preemption import StopRequests
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.runtime.tracking import METRICS_NAME
from nakt_dist.runtime.wandb_check import check_tracking
from nakt_dist.runtime.watchdog import clear_stacks
from nakt_dist.runtime.work import sole_user
from nakt_dist.shards.pictures import read_pictures, write_pictures
from nakt_dist.stages import train_forecast
from nakt_dist.stages.opening import Opening
from nakt_dist.stages.train_identity import Training, lineage_of, pictures_met, resolve_auto
from nakt_dist.stages.train_plan import TrainPlan, make_plan, make_task, open_parts
from nakt_dist.stages.train_sources import LearningSet, Mixture
from nakt_dist.training.checkpoint import Progress
from nakt_dist.training.fastest import describe
from nakt_dist.training.gpu_memory import GpuMemoryFull, largest_part, remembered_micro_batch_size
from nakt_dist.training.loop import CHECKPOINTS_NAME, TrainingLoop
from nakt_dist.training.profile import PROFILE_PAGE
from nakt_dist.training.run import TrainingRun
from nakt_dist.training.zero import deepspeed_settings

plan = train_forecast.plan
JOB = Training
_TIME_FOR_STACKS = timedelta(minutes=2)


def run(config: TrainConfig) -> RunRecord:
    """Trains, or goes on from the last checkpoint, or returns at once when all is done.

    The sequence of global batches and the augmentation of each sample depend on the seed
    alone, not on the number of processes (promise 3); N steps equal k steps, a kill and N - k
    steps (promise 4). More epochs may be asked for later.

    Raises:
        ConfigurationError: settings contradict each other or the run in ``output``.
        DatasetError: data are absent, damaged, or were made for something else.
        CheckpointError: ``init`` cannot be read or does not fit the network.
        StartAgain: SIGTERM or SIGUSR1 asked to leave; all is saved at the step reached.
    """
    stopwatch = Stopwatch()
    choose_device(config.device, config.threads)
    output = Path(config.output)
    check_output(output, "train")
    if process_place().is_main:
        check_tracking(output, config.tracking.wandb)
    output.mkdir(parents=True, exist_ok=True)
    with StopRequests() as stop, explain_lost_peers(stop):
        if not process_place().is_main:
            return _train(config, stop, stopwatch)
        with sole_user(output, "train"):
            remove_unfinished(output)
            remove_unfinished(output / CHECKPOINTS_NAME)
            clear_stacks(output)
            return _train(config, stop, stopwatch)


def _train(config: TrainConfig, stop: StopRequests, stopwatch: Stopwatch) -> RunRecord:
    """Trains; one process alone goes on by itself when the GPU's memory was full."""
    while True:
        try:
            return _train_with(_as_remembered(config), stop, stopwatch)
        except GpuMemoryFull as error:
            if process_place().world_size > 1:
                raise  # the others wait for this one's gradients: only a new start helps
            say(f"train: {error}")
        gc.collect()  # Accelerate ties network and optimiser into rings
        torch.cuda.empty_cache()


def _as_remembered(config: TrainConfig) -> TrainConfig:
    """Returns the configuration with the micro-batches that an earlier launch had to lower."""
    if not config.recipe.halve_when_out_of_memory:
        return config
    recipe = config.recipe
    size, asked = remembered_micro_batch_size(Path(config.output)), recipe.micro_batch_size
    if size is None or (asked is not None and asked <= size):
        return config
    # Another number of processes has another part of the global batch to divide.
    part = largest_part(recipe.global_batch_size // process_place().world_size, size)
    return replace(config, recipe=replace(recipe, micro_batch_size=part))


def _train_with(config: TrainConfig, stop: StopRequests, stopwatch: Stopwatch) -> RunRecord:
    config = resolve_auto(config)
    plan = make_plan(config, open_parts(config, Opening()))
    config = plan.config
    torch.manual_seed(config.seed)
    network, trainable = plan.start.build()
    plan.check_size(network)
    lineage = lineage_of(plan, trainable)
    job = Training(config, lineage)
    begun = job.begin()
    output, finished = job.output, job.finished()
    if finished is not None:
        say(f"train: {output} is finished; nothing to do")
        return finished
    recipe, world = config.recipe, process_place().world_size
    share = Share.of(recipe.global_batch_size, world, recipe.micro_batch_size)
    # The watchdog speaks first: it knows more than a collective operation that timed out.
    timeout = timedelta(seconds=config.watchdog_seconds) + _TIME_FOR_STACKS
    accelerator = make_accelerator(
        recipe.precision, config.device, share.accumulation,
        lambda: deepspeed_settings(recipe, share), timeout,
    )  # fmt: skip
    if accelerator.is_main_process:
        say(f"train {output.name}: {plan.start.spec.name} on {_names(plan)}; {describe(recipe)}")
        for notice in plan.notices:
            say(f"train: {notice}")
    accelerator.wait_for_everyone()
    cache = config.memory_cache_megabytes
    task = make_task(plan, accelerator.device)
    loop = TrainingLoop(
        TrainingRun(
            config=config,
            spec=plan.start.spec,
            network=network,
            task=task,
            training=plan.training.images(cache),
            validation=plan.validation.images(cache) if plan.validation else None,
            metadata=describe_for_file(plan.start.seen.preprocessing, lineage),
            accelerator=accelerator,
            share=share,
            timeout=timeout,
            alike=job.alike,
            stop=stop,
        )
    )
    if accelerator.is_main_process:
        (output / RECORD_NAME).unlink(missing_ok=True)  # of fewer steps: no longer true
        save_config(config, output)
        met = pictures_met(plan)
        if begun:
            met = met.completed_by(read_pictures(output / BEST_WEIGHTS))
        write_pictures(output, met)
    first_step = loop.progress.step
    progress = loop.train()
    training = plan.training
    record = RunRecord(
        stage="train",
        name=output.name,
        config=as_plain(config),
        inputs={"dataset": lineage["trained_on"]["fingerprint"]},
        counts={"images": len(training), "before_exclusion": training.before_exclusion},
        metrics={
            f"best_validation_{task.metric}": progress.best_metric,
            "steps_now": progress.step - first_step,
        },
        details={
            "steps": progress.step,
            "best_step": progress.best_step,
            "total_steps": loop.total_steps,
            "stopped_early": loop.milestones.stopped_early,
            "processes": accelerator.num_processes,
            "lineage": lineage,
            **_of_sources(plan.training, loop),
            **_validated_findings(plan.validation),
            **loop.milestones.weights_sha256(),
        },
        seconds=stopwatch.seconds,
        speed=loop.speed,
        versions=package_versions(),
    )
    if accelerator.is_main_process:
        record.write(output)
        say(
            f"train {output.name}: {_steps(first_step, progress.step)} in "
            f"{stopwatch.seconds:.0f} s; "
            f"{_best(progress, task.metric)}{BEST_WEIGHTS} and {METRICS_NAME} in {output}"
        )
        if config.profile.steps and (output / PROFILE_PAGE).exists():
            say(f"train {output.name}: where the time goes: {output / PROFILE_PAGE}")
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return record


def _of_sources(training: Mixture, loop: TrainingLoop) -> dict[str, Any]:
    """Says what each of several sources gave, and how many images are in more than one."""
    if len(training.sources) == 1:
        return {}
    return {"sources": loop.describe_sources(), "images_in_several_sources": training.doubled}


def _validated_findings(validation: LearningSet | None) -> dict[str, Any]:
    """Says over which findings the mean AUROC is that the best epoch is chosen by."""
    if validation is None or not isinstance(validation.targets, LabelledTargets):
        return {}
    return {VALIDATED_FINDINGS: list(validation.targets.with_both_classes)}


def _steps(before: int, done: int) -> str:
    """Says how many steps are done, and how many of them this launch took, whose time is told."""
    return f"{done} steps, the last {done - before} of them" if before else f"{done} steps"


def _best(progress: Progress, metric: str) -> str:
    if progress.best_metric is None:
        return ""
    name = {"dice": "Dice", "auroc": "mean AUROC"}[metric]
    return f"best validation {name} {100 * progress.best_metric:.2f} % at {progress.best_step}; "


def _names(plan: TrainPlan) -> str:
    """Says what is learnt from, such as ``350 pseudo masks of ddti (400 before exclusion)``."""
    sources = zip(plan.config.sources, plan.training.sources, strict=True)
    teacher = f", following {plan.teacher.network.name}" if plan.teacher else ""
    return " and ".join(_name(data, learnt.samples, plan) for data, learnt in sources) + teacher


def _name(data: DataConfig, samples: SelectedSamples, plan: TrainPlan) -> str:
    manifest = samples.images.manifest
    kind = "pseudo masks" if samples.mask_is_soft else "annotations"
    if plan.labels is not None:
        taught = "pseudo-" if samples.pseudo_findings else ""
        kind = f"images with {len(plan.labels)} {taught}findings"
        if samples.unlabelled:
            kind = "images without labels"
    phantom = " (phantom)" if manifest.phantom else ""
    excluded = data.exclusion is not None or data.confidence is not None
    before = f" ({samples.before_exclusion} before exclusion)" if excluded else ""
    return f"{len(samples)} {kind} of {manifest.dataset}{phantom}{before}"
