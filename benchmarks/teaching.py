"""How many images a second does ``nakt teach`` teach, beside the bare forward of its teacher?

The bare forward has images that are decoded and prepared in memory, and the network as the stage
runs it: folded, channels_last, in the precision that it chose. The stage also reads, decodes,
works out statistics, encodes masks and writes shards. In a running process, opening dataset and
teacher is left out; a command begins with importing torch.
"""

import contextlib
import io
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import torch

from benchmarks.comparing import Scale, Table, Way, at_least, in_turns
from benchmarks.training import prepare, thyroid_shards, waiting
from nakt_dist.cli import main as nakt
from nakt_dist.config import DataConfig, RecipeConfig, TeachConfig, TeacherConfig, TrainConfig
from nakt_dist.loading.batches import as_float
from nakt_dist.loading.samples import CachedImages, ImagesAlone, SelectedSamples
from nakt_dist.models import ModelSpec
from nakt_dist.models.inference import for_inference
from nakt_dist.stages import teach, train
from nakt_dist.stages.opening import Opening
from nakt_dist.stages.teach import Teaching

BARE = "bare forward"


@dataclass(frozen=True)
class Answering:
    """A network that has learnt a little, and the images that it answers for.

    Attributes:
        spec: a segmentation network of one output.
        side: of an image.
        batch: images a forward pass.
        images: in the dataset.
    """

    spec: ModelSpec
    side: int
    batch: int
    images: int

    def shards(self, scale: Scale) -> Path:
        """Returns the dataset, which is packed once for all questions of a run."""
        return thyroid_shards(scale.folder, self.images, self.side)

    def training(self, scale: Scale) -> TrainConfig:
        """Returns settings to train it so long that masks look like masks: they are encoded."""
        return TrainConfig(
            output=str(scale.folder / f"learnt-{self.spec.name.replace('/', '-')}"),
            data=DataConfig(str(self.shards(scale))), model=self.spec,
            recipe=RecipeConfig(
                steps=scale.pick(30, 1), global_batch_size=scale.pick(8, 2), learning_rate=1e-3
            ),
            device="auto" if scale.gpu else "cpu",
        )  # fmt: skip


def answering(scale: Scale) -> list[Answering]:
    """Returns a U-Net and a DeepLabv3+, light ones on a CPU."""
    if scale.gpu:
        specs = ModelSpec("unet"), ModelSpec("smp:DeepLabV3Plus/resnet50")
        return [Answering(spec, 384, 64, 2048) for spec in specs]
    unet = ModelSpec("unet", options={"base_channels": scale.pick(32, 4)})
    if scale.smoke:
        return [Answering(unet, 64, 4, 8)]
    return [
        Answering(spec, 128, 16, 128) for spec in (unet, ModelSpec("smp:DeepLabV3Plus/resnet18"))
    ]


def learnt(config: TrainConfig) -> Path:
    """Returns the output of a training, which is done once for all questions of a run."""
    if not Path(config.output).exists():
        with silent():
            train.run(config)
    return Path(config.output)


def bare_forward(
    network: Callable[[torch.Tensor], object],
    prepare: Callable[[torch.Tensor], torch.Tensor],
    images: CachedImages,
    batch: int,
    device: torch.device,
) -> Way:
    """Returns a way that runs a network on all images and lets its output go.

    Args:
        network: in eval mode.
        prepare: makes images in [0, 1] its input; before the clock starts.
    """
    numbers = range(len(images))
    batches = [
        prepare(as_float(images.batch(numbers[start : start + batch]), device)[0])
        .contiguous(memory_format=torch.channels_last)
        for start in range(0, len(numbers), batch)
    ]  # fmt: skip

    def forward() -> int:
        with torch.inference_mode():
            for image in batches:
                network(image)
        return len(numbers)

    return waiting(forward)


def fresh(folder: Path) -> Iterator[str]:
    """Yields the names of outputs that are not there."""
    return (str(folder / f"output-{number}") for number in itertools.count())


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Keeps what a stage says from the tables."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def command(*words: str, smoke: bool) -> None:
    """Runs a command of nakt; of a smoke test within this process, which starts sooner."""
    if smoke:
        with silent():
            assert nakt([*words]) == 0
        return
    subprocess.run([sys.executable, "-m", "nakt_dist", *words], check=True, capture_output=True)


def measure(scale: Scale) -> list[Table]:
    """Teaches one dataset by a U-Net and by a DeepLabv3+."""
    device = prepare(scale)
    return [_compared(each, scale, device) for each in answering(scale)]


def _compared(case: Answering, scale: Scale, device: torch.device) -> Table:
    shards, weights, threads = (
        case.shards(scale),
        learnt(case.training(scale)),
        torch.get_num_threads(),
    )
    config = TeachConfig(
        str(shards), str(scale.folder / "planned"), [TeacherConfig(str(weights))],
        batch_size=case.batch, device=device.type, threads=threads,
    )  # fmt: skip
    with silent():
        job = teach.plan(config, Opening())
    teacher = for_inference(job.teachers[0].trained, device, (case.side, case.side))
    outputs = fresh(scale.folder / f"taught-{case.spec.name.replace('/', '-')}")

    def stage() -> int:
        one = Teaching(replace(job.config, output=next(outputs)), job.images, job.teachers, device)
        with mock.patch.object(teach, "for_inference", lambda *_: teacher), silent():
            one.begin()
            for _ in one.work(one.teach):
                pass
            one.finalise(one.put_together)
        return case.images

    def whole() -> int:
        command(
            "teach", f"--dataset={shards}", f"--output={next(outputs)}", f"--threads={threads}",
            f"--teachers=[{{weights: {weights}}}]", f"--batch_size={case.batch}",
            f"--device={device.type}", smoke=scale.smoke,
        )  # fmt: skip
        return case.images

    images = ImagesAlone(SelectedSamples(job.images, None, len(job.images)))
    ways = {
        BARE: bare_forward(teacher.network, teacher.prepare, images, case.batch, device),
        "nakt teach, running": waiting(stage),
        "nakt teach, a command": whole,
    }
    title = f"teaching: {case.spec.name}, {case.side}², batch {case.batch}"
    return in_turns(
        title, ways, BARE, scale, {"nakt teach, running": at_least(0.95)},
        note=f"A command takes its start besides, here for {case.images} images.",
    )  # fmt: skip
