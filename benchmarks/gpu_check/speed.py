"""How many images a second each network takes at its paper's size, learning and answering."""

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu_check.parts import SMP_NETWORKS, Findings, Place, empty_gpu, need
from nakt_dist.config import PreprocessingConfig, RecipeConfig
from nakt_dist.models.registry import is_classifier
from nakt_dist.models.spec import ModelSpec
from nakt_dist.runtime.devices import memory_is_full
from nakt_dist.runtime.distributed import make_accelerator
from nakt_dist.training.learner import Learner
from nakt_dist.training.tasks import ClassificationTask, SegmentationTask

_FINDINGS = 14
_WAYS = {"float32": ("no", False), "bf16 channels_last": ("bf16", True)}
_GIB = 2**30
_SEEN = PreprocessingConfig(mean=0.5, std=0.25)


def throughput(place: Place, name: str) -> Findings:
    """Images a second of one network, float32 as torch has it (TF32), and bf16 channels_last.

    The images lie on the device already: reading and augmenting are not part of it. The step is
    the product's own, with loss, backward and Adam.
    """
    if name in SMP_NETWORKS:
        need("segmentation_models_pytorch")
    found = Findings()
    spec, side = _at_paper_size(name, place)
    found.numbers |= {"image": f"{spec.in_channels}×{side}×{side}", "options": spec.options}
    said = []
    for way, (precision, channels_last) in _WAYS.items():
        recipe = RecipeConfig(steps=1, precision=precision, channels_last=channels_last)
        batch = 32 if place.on_gpu else 2
        while True:
            empty_gpu()
            try:
                measured = _measure(spec, side, batch, recipe, place)
                break
            except RuntimeError as error:
                if not memory_is_full(error) or batch == 2:
                    raise
            batch //= 2
        found.numbers[way] = {"batch": batch, **measured}
        for what in ("training", "inference"):
            found.expect(f"{way}: {what}, images/s", measured[what], at_least=1e-3)
        found.expect_that(f"{way}: finite loss", measured["finite"], True)
        said.append(f"{way} {measured['training']:.0f} and {measured['inference']:.0f}")
    found.headline = f"images/s learning and answering: {'; '.join(said)}"
    return found


def _at_paper_size(name: str, place: Place) -> tuple[ModelSpec, int]:
    """Returns network and image side; smaller ones on a CPU, where only the way is tried."""
    options: dict[str, Any] = {}
    if is_classifier(name):
        spec = ModelSpec(name, in_channels=3, num_outputs=_FINDINGS)
        return spec, 256 if place.on_gpu else 32
    if not place.on_gpu:
        own = name not in SMP_NETWORKS
        options = {"base_channels": 16} if own else {"encoder_name": "resnet18"}
    return ModelSpec(name, options=options), 384 if place.on_gpu else 32


def _measure(
    spec: ModelSpec, side: int, batch: int, recipe: RecipeConfig, place: Place
) -> dict[str, Any]:
    """Times training steps, then forward passes without gradients."""
    accelerator = make_accelerator(recipe.precision, place.setting)
    device = accelerator.device
    torch.manual_seed(0)
    network = spec.build().to(device)
    image = torch.rand(batch, spec.in_channels, side, side, device=device)
    if recipe.channels_last:
        network = network.to(memory_format=torch.channels_last)
        image = image.contiguous(memory_format=torch.channels_last)
    if is_classifier(spec.name):
        task = ClassificationTask(spec.in_channels, _SEEN, recipe)
        target = torch.randint(2, (batch, _FINDINGS), device=device).float()
    else:
        task = SegmentationTask(spec.in_channels, _SEEN, recipe)
        target = (image[:, :1] > 0.5).float()
    learner = Learner(accelerator, network, task, recipe, None)
    losses = []

    def step() -> None:
        learner.begin_step(1e-4)
        with learner.micro_batch():
            with learner.autocast():
                loss = task.forward(learner.module, image, target)["loss"]
            learner.backward(loss)
        learner.end_step(len(losses) + 1)
        losses.append(loss.detach())

    @torch.inference_mode()
    def answer() -> None:
        with learner.autocast():
            task.logits(network, image)

    seconds = _time(step, place)
    training = {"training": batch / seconds, "training ms": 1000 * seconds, **_peak("training")}
    finite = bool(torch.stack(losses).isfinite().all())
    network.eval()
    empty_gpu()
    seconds = _time(answer, place)
    inference = {"inference": batch / seconds, "inference ms": 1000 * seconds}
    return {**training, **inference, **_peak("inference"), "finite": finite}


def _peak(what: str) -> dict[str, float]:
    if not torch.cuda.is_available():
        return {}
    return {f"{what} peak GiB": torch.cuda.max_memory_allocated() / _GIB}


def _time(once: Callable[[], None], place: Place) -> float:
    """Returns the mean seconds of a call, after some that warm up, over about a second or more."""
    for _ in range(5 if place.on_gpu else 1):
        once()
    calls, started = 0, _now()
    while True:
        for _ in range(5 if place.on_gpu else 1):
            once()
            calls += 1
        passed = _now() - started
        if passed > (1.5 if place.on_gpu else 0.3):
            return passed / calls


def _now() -> float:
    """The time at which all that was asked of the GPU is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
