"""``nakt train``: a network learns, from whatever was annotated or taught; it may be killed."""

import gc
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from nakt_dist.config import TrainConfig, as_plain, save_config
from nakt_dist.errors import DatasetError
from nakt_dist.loading.loader_errors import explain_loader_errors
from nakt_dist.loading.sampler import Share
from nakt_dist.models.network_file import BEST_WEIGHTS, describe_for_file
from nakt_dist.runtime.devices import choose_device
from nakt_dist.runtime.distributed import explain_lost_peers, make_accelerator
from nakt_dist.runtime.files import (
    differing_fields,
    read_json,
    remove_unfinished,
    write_json,
)
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.preemption import StopRequests
from nakt_dist.runtime.processes import process_place, say
from nakt_dist.runtime.record import (
    RECORD_NAME,
    RunRecord,
    Stopwatch,
    package_versions,
    read_record,
)
from nakt_dist.runtime.tracking import METRICS_NAME
from nakt_dist.runtime.watchdog import clear_stacks
from nakt_dist.runtime.work import sole_user
from nakt_dist.stages.train_plan import TrainPlan, lineage_of, make_plan, make_task
from nakt_dist.training.checkpoint import Progress
from nakt_dist.training.gpu_memory import GpuMemoryFull, largest_part, remembered_micro_batch_size
from nakt_dist.training.loop import CHECKPOINTS_NAME, TrainingLoop, describe_progress
from nakt_dist.training.run import TrainingRun
from nakt_dist.training.zero import deepspeed_settings

_IDENTITY_NAME = "identity.json"
_MAY_CHANGE = (
    "output", "checkpoint", "tracking", "device", "workers", "memory_cache_megabytes", "threads",
    "log_keys", "init", "init_labels", "watchdog_seconds",
)  # fmt: skip
_MAY_CHANGE_IN_DATA = ("dataset", "pseudo_labels", "cache")
_MAY_CHANGE_IN_RECIPE = (
    "epochs", "steps", "micro_batch_size", "not_finite", "halve_when_out_of_memory",
)  # fmt: skip
_TIME_FOR_STACKS = timedelta(minutes=2)
_MAY_CHANGE_IN_TEACHER = ("weights",)


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
    output.mkdir(parents=True, exist_ok=True)
    # Torch tells of a dead loader process wherever this one happens to be.
    with StopRequests() as stop, explain_loader_errors(), explain_lost_peers():
        if not process_place().is_main:
            return _train(config, output, stop, stopwatch)
        with sole_user(output, "train"):
            remove_unfinished(output)
            remove_unfinished(output / CHECKPOINTS_NAME)
            clear_stacks(output)
            return _train(config, output, stop, stopwatch)


def _train(
    config: TrainConfig, output: Path, stop: StopRequests, stopwatch: Stopwatch
) -> RunRecord:
    """Trains; one process alone goes on by itself when the GPU's memory was full."""
    while True:
        try:
            return _train_with(_as_remembered(config, output), output, stop, stopwatch)
        except GpuMemoryFull as error:
            if process_place().world_size > 1:
                raise  # the others wait for this one's gradients: only a new start helps
            say(f"train: {error}")
        gc.collect()  # Accelerate ties network and optimiser into rings
        torch.cuda.empty_cache()


def _as_remembered(config: TrainConfig, output: Path) -> TrainConfig:
    """Returns the configuration with the micro-batches that an earlier launch had to lower."""
    if not config.recipe.halve_when_out_of_memory:
        return config
    recipe = config.recipe
    size, asked = remembered_micro_batch_size(output), recipe.micro_batch_size
    if size is None or (asked is not None and asked <= size):
        return config
    # Another number of processes has another part of the global batch to divide.
    part = largest_part(recipe.global_batch_size // process_place().world_size, size)
    return replace(config, recipe=replace(recipe, micro_batch_size=part))


def _train_with(
    config: TrainConfig, output: Path, stop: StopRequests, stopwatch: Stopwatch
) -> RunRecord:
    plan = make_plan(config)
    config = plan.config
    finished = _finished_record(config, output)
    torch.manual_seed(config.seed)
    network, trainable = plan.start.build()
    lineage = lineage_of(plan, trainable)
    has_begun = check_own_output(config, lineage)
    if not has_begun and process_place().is_main:
        write_json(output / _IDENTITY_NAME, _identity(config, lineage))
    if finished is not None:
        say(f"train: {output} is finished; nothing to do")
        return finished
    recipe = config.recipe
    world_size = process_place().world_size
    share = Share.of(recipe.global_batch_size, world_size, recipe.micro_batch_size)
    # The watchdog speaks first: it knows more than a collective operation that timed out.
    timeout = timedelta(seconds=config.watchdog_seconds) + _TIME_FOR_STACKS
    accelerator = make_accelerator(
        recipe.precision, config.device, share.accumulation,
        lambda: deepspeed_settings(recipe, share), timeout,
    )  # fmt: skip
    if accelerator.is_main_process:
        say(f"train {output.name}: {plan.start.spec.name} on {_names(plan)}")
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
            metadata=describe_for_file(config.preprocessing, lineage),
            accelerator=accelerator,
            share=share,
            timeout=timeout,
            alike=_alike(config, lineage),
            stop=stop,
        )
    )
    if accelerator.is_main_process:
        (output / RECORD_NAME).unlink(missing_ok=True)  # of fewer steps: no longer true
        save_config(config, output)
    first_step = loop.progress.step
    progress = loop.train()
    samples = plan.training.samples
    record = RunRecord(
        stage="train",
        name=output.name,
        config=as_plain(config),
        inputs={"dataset": samples.images.manifest.fingerprint},
        counts={"images": len(samples), "before_exclusion": samples.before_exclusion},
        metrics={
            f"best_validation_{task.metric}": progress.best_metric,
            "steps_now": progress.step - first_step,
        },
        details={
            **describe_progress(progress),
            "total_steps": loop.total_steps,
            "processes": accelerator.num_processes,
            "lineage": lineage,
            **loop.milestones.weights_sha256(),
        },
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )
    if accelerator.is_main_process:
        record.write(output)
        say(
            f"train {output.name}: {progress.step} steps in {stopwatch.seconds:.0f} s; "
            f"{_best(progress, task.metric)}{BEST_WEIGHTS} and {METRICS_NAME} in {output}"
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return record


def _best(progress: Progress, metric: str) -> str:
    if progress.best_metric is None:
        return ""
    name = {"dice": "Dice", "auroc": "mean AUROC"}[metric]
    return f"best validation {name} {100 * progress.best_metric:.2f} % at {progress.best_step}; "


def _finished_record(config: TrainConfig, output: Path) -> RunRecord | None:
    """Returns the record of this run when it is done and no more was asked for."""
    if not (output / RECORD_NAME).exists():
        return None
    record = read_record(output / RECORD_NAME)
    stored, asked = record.config["recipe"], as_plain(config)["recipe"]
    same_length = all(stored[name] == asked[name] for name in ("epochs", "steps"))
    return record if same_length else None


def _names(plan: TrainPlan) -> str:
    """Says what is learnt from, such as ``350 pseudo masks of ddti (400 before exclusion)``."""
    samples = plan.training.samples
    manifest = samples.images.manifest
    kind = "pseudo masks" if samples.mask_is_soft else "annotations"
    if plan.labels is not None:
        kind = f"images with {len(plan.labels)} findings"
    phantom = " (phantom)" if manifest.phantom else ""
    excluded = plan.config.data.exclusion is not None
    before = f" ({samples.before_exclusion} before exclusion)" if excluded else ""
    teacher = f", following {plan.teacher.name}" if plan.teacher else ""
    return f"{len(samples)} {kind} of {manifest.dataset}{phantom}{before}{teacher}"


def _deciding_settings(config: TrainConfig) -> dict[str, Any]:
    """The settings a resumed run must share with the one that began.

    Places of files are not among them: the lineage says what is there.
    """
    plain = _without(as_plain(config), _MAY_CHANGE)
    plain["recipe"] = _without(plain["recipe"], _MAY_CHANGE_IN_RECIPE)
    plain["teacher"] = plain["teacher"] and _without(plain["teacher"], _MAY_CHANGE_IN_TEACHER)
    for part in ("data", "validation"):
        plain[part] = plain[part] and _without(plain[part], _MAY_CHANGE_IN_DATA)
    return plain


def _alike(config: TrainConfig, lineage: Mapping[str, Any]) -> dict[str, Any]:
    """What all processes of a launch must have been started with."""
    return {
        "settings": _deciding_settings(config),
        "recipe": vars(config.recipe),
        "checkpoint": vars(config.checkpoint),
        "tracking": vars(config.tracking),
        "lineage": _without_names(lineage),
        "versions": package_versions(),
    }


def _without(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in names}


def _without_names(lineage: Mapping[str, Any]) -> dict[str, Any]:
    """A lineage by its fingerprints: files that were moved or renamed are still the same."""
    parent, transfer = lineage["parent"], lineage["transfer"]
    return {
        **lineage,
        "parent": parent and _without(parent, ("name",)),
        "transfer": transfer and {**transfer, "teacher": _without(transfer["teacher"], ("name",))},
    }


def _identity(config: TrainConfig, lineage: Mapping[str, Any]) -> dict[str, Any]:
    return {"settings": _deciding_settings(config), "lineage": _without_names(lineage)}


def check_own_output(config: TrainConfig, lineage: Mapping[str, Any]) -> bool:
    """Refuses to go on with another run's checkpoints, or with data that have changed.

    Args:
        config: of the run, with the preprocessing that ``make_plan`` fills in.
        lineage: as ``lineage_of`` gives it.

    Returns:
        Whether the output holds this run, with a checkpoint; nothing is written.

    Raises:
        DatasetError: names what differs.
    """
    output = Path(config.output)
    path = output / _IDENTITY_NAME
    # Before its first checkpoint a run has nothing to lose: a mistaken setting may be mended.
    if not path.exists() or not (output / CHECKPOINTS_NAME).exists():
        return False
    differences = differing_fields(read_json(path, "identity"), _identity(config, lineage))
    if differences:
        raise DatasetError(
            f"{output}: holds a training run with other settings or data "
            f"({'; '.join(differences[:5])}). Choose another --output, or delete the folder"
        )
    return True
