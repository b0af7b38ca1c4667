"""How many images a second do ``nakt evaluate`` and the validation of ``nakt train`` score?

Each beside the bare forward of the same network in the same form and precision, on images that are
decoded and prepared in memory. The stages also read, decode, score, and put the scores together;
what opens dataset and network is left out. ``nakt train`` reads decoded images from its cache, as
it does after its first validation.
"""

from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import torch

from benchmarks.comparing import Scale, Table, at_least, in_turns
from benchmarks.loading import chest_shards
from benchmarks.teaching import BARE, answering, bare_forward, fresh, learnt, silent
from benchmarks.training import chest_case, prepare, run_of, waiting
from nakt_dist.config import DataConfig, EvaluateConfig, RecipeConfig, TrainConfig, ValidationConfig
from nakt_dist.models.inference import for_inference
from nakt_dist.records.run_record import Stopwatch
from nakt_dist.stages import evaluate
from nakt_dist.stages.evaluate import Evaluation
from nakt_dist.stages.opening import Opening
from nakt_dist.training.loop import TrainingLoop


def measure(scale: Scale) -> list[Table]:
    """Scores a U-Net's masks and a DenseNet's findings."""
    device = prepare(scale)
    batch = 64 if scale.gpu else scale.pick(16, 4)
    tables = []
    for training in _trainings(scale):
        tables.append(_evaluated(training, batch, scale, device))
        tables.append(_validated(training, batch, scale, device))
    return tables


def _trainings(scale: Scale) -> Iterator[TrainConfig]:
    """Yields how networks are trained first; what a classifier's outputs are does not matter."""
    yield answering(scale)[0].training(scale)
    if scale.smoke:
        return  # the way of a classifier is the same
    case = chest_case(scale, "densenet121", 1)
    yield replace(
        case.config(scale),
        output=str(scale.folder / f"learnt-{case.spec.name}"),
        data=DataConfig(str(chest_shards(scale.folder, 2000 if scale.gpu else 64))),
        recipe=RecipeConfig(steps=1, global_batch_size=case.batch),
    )


def _evaluated(training: TrainConfig, batch: int, scale: Scale, device: torch.device) -> Table:
    weights = learnt(training)
    config = EvaluateConfig(
        str(weights), training.data.dataset, str(scale.folder / "planned"), ["train"],
        batch_size=batch, device=device.type, threads=torch.get_num_threads(),
    )  # fmt: skip
    with silent():
        job = evaluate.plan(config, Opening())
    images = job.scores.dataset
    manifest = images.samples.images.manifest
    network = for_inference(job.trained, device, (manifest.height, manifest.width))
    outputs = fresh(scale.folder / f"evaluated-{weights.name}")

    def stage() -> int:
        settings = replace(job.config, output=next(outputs))
        with mock.patch.object(evaluate, "for_inference", lambda *_: network), silent():
            one = Evaluation(settings, job.trained, images.samples, job.met, device)
            one.begin()
            evaluate._evaluate(one, Stopwatch())
        return len(images)

    ways = {
        BARE: bare_forward(network.network, network.prepare, images, batch, device),
        "nakt evaluate": waiting(stage),
    }
    title = f"evaluating: {training.model.name}, {manifest.height}², batch {batch}"
    return in_turns(title, ways, BARE, scale, {"nakt evaluate": at_least(0.9)})


def _validated(training: TrainConfig, batch: int, scale: Scale, device: torch.device) -> Table:
    shards = training.data.dataset
    config = replace(
        training,
        output=f"{training.output}-validated",
        recipe=RecipeConfig(steps=1, global_batch_size=batch),
        validation=ValidationConfig(shards, splits=["train"], same_images=True),
    )
    with silent():
        run = run_of(config)
        loop = TrainingLoop(run)
    milestones, images = loop.milestones, run.validation
    milestones.beat = lambda _: None  # the watchdog's thread serves a launch
    assert images is not None
    network = milestones.learner.whole_network().eval()

    def validate() -> int:
        milestones._score(network, images)
        return len(images)

    def forward(image: torch.Tensor) -> None:
        with milestones.learner.autocast():
            network(image)

    ways = {
        BARE: bare_forward(forward, run.task._prepare, images, batch, device),
        "nakt train, validation": waiting(validate),
    }
    manifest = images.samples.images.manifest
    title = f"validating: {training.model.name}, {manifest.height}², batch {batch}"
    return in_turns(title, ways, BARE, scale, {"nakt train, validation": at_least(0.9)})
