"""What chaos does to each stage: small phantom data, the command, and where its results lie."""

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from nakt_dist.cli import parse_config
from nakt_dist.config import ImageConfig, PackConfig, PhantomsConfig, SplitConfig
from nakt_dist.stages import pack, phantoms
from nakt_dist.stages.pack_plan import make_plan
from tests.faults.chaos_launches import CommandLaunch, ForkedLaunch, Launch, LaunchError
from tests.launching import fork

IMAGES = {
    "pack": 300, "teach": 480, "classes": 480, "findings": 480, "train": 64, "evaluate": 960,
}  # fmt: skip
"""How many images a stage is given: enough to be hit in the middle."""

_STEPS_PER_IMAGE = 2
_IMAGES_PER_PIECE = 64


@dataclass(frozen=True)
class Case:
    """A stage with its data.

    Attributes:
        stage: its name.
        world: number of processes; for pack, of workers.
        words: the command line, but for ``--output``.
        expected: keys that the output has to hold, each once.
        found: returns the keys that an output holds.
        pieces: how many pieces of work there are.
        done: returns how many of them an output has finished.
        last: name of the file that is written last.
        changing: files that hold times or paths, which differ between runs.
        real_launcher: start commands through torchrun instead of forked ranks.
    """

    stage: str
    world: int
    words: tuple[str, ...]
    expected: tuple[str, ...]
    found: Callable[[Path], list[str]]
    pieces: int
    done: Callable[[Path], int]
    last: str
    changing: tuple[str, ...] = ()
    real_launcher: bool = False

    def launch(self, output: Path, log: Path) -> Launch:
        """Starts the stage."""
        words = (self.stage, *self.words, f"--output={output}")
        if self.stage == "pack":
            return CommandLaunch(words, None, log)
        if self.real_launcher:
            return CommandLaunch(words, self.world, log)
        return ForkedLaunch(words, self.world, log, stop_together=self.stage == "train")

    def share_done(self, output: Path) -> float:
        """Returns how much of the work is finished, 0 to 1."""
        return 1.0 if (output / self.last).exists() else self.done(output) / self.pieces


def make_case(stage: str, folder: Path, images: int, world: int, real_launcher: bool) -> Case:
    """Makes a stage's data.

    Args:
        stage: a key of ``IMAGES``; ``classes`` is ``teach`` with masks of several classes, and
            ``findings`` with a classifier.
        folder: existing, for the data.
        images: how many.
        world: number of processes.
        real_launcher: of the case.
    """
    makers = {
        "pack": _pack, "teach": _teach, "classes": _teach_classes, "findings": _teach_findings,
        "train": _train, "evaluate": _evaluate,
    }  # fmt: skip
    return makers[stage](folder, images, world, real_launcher)


def _pack(folder: Path, images: int, world: int, real_launcher: bool) -> Case:
    source = _published(folder, images, size=256)
    for path in sorted(source.rglob("*(1).png"))[:2]:
        path.write_bytes(path.read_bytes()[:100])  # so that somebody is rejected
    words = (
        "--layout=busi", f"--source={source}", "--image.height=64", "--image.width=64",
        "--layout_options.classes=[benign, malignant, normal]", "--samples_per_shard=4",
        f"--workers={world}",
    )  # fmt: skip
    inputs = make_plan(parse_config("pack", [*words, f"--output={folder / 'none'}"])).inputs
    return Case(
        stage="pack",
        world=world,
        words=words,
        expected=tuple(each.key for each in inputs),
        found=packed_keys,
        pieces=-(-len(inputs) // 4),
        done=_receipts(".pack/prepared"),
        last="manifest.json",
        real_launcher=real_launcher,
    )


def _teach(folder: Path, images: int, world: int, real_launcher: bool) -> Case:
    dataset = _packed(folder, images, samples_per_shard=6)
    teachers = json.dumps([{"weights": str(_teacher(folder))}])
    return Case(
        stage="teach",
        world=world,
        words=(f"--dataset={dataset}", f"--teachers={teachers}", "--device=cpu", "--threads=1"),
        expected=tuple(_keys_in_tars(dataset, ".json")),
        found=taught_keys,
        pieces=len(list(dataset.glob("*.tar"))),
        done=_receipts(".teach"),
        last="manifest.json",
        real_launcher=real_launcher,
    )


def _teach_classes(folder: Path, images: int, world: int, real_launcher: bool) -> Case:
    return _taught_by(_teach(folder, images, world, real_launcher), folder, _write_class_weights)


def _teach_findings(folder: Path, images: int, world: int, real_launcher: bool) -> Case:
    teach = _taught_by(_teach(folder, images, world, real_launcher), folder, _write_classifier)
    return replace(teach, found=found_keys)


def _taught_by(teach: Case, folder: Path, write: Callable[[Path], None]) -> Case:
    teachers = json.dumps([{"weights": str(_weights(folder, write))}])
    return replace(teach, words=(teach.words[0], f"--teachers={teachers}", *teach.words[2:]))


def _train(folder: Path, images: int, world: int, real_launcher: bool) -> Case:
    dataset = _packed(folder, images, samples_per_shard=16)
    steps = _STEPS_PER_IMAGE * images
    words = (
        f"--data.dataset={dataset}", "--data.splits=[train]", f"--validation.dataset={dataset}",
        "--validation.splits=[validation]", f"--recipe.steps={steps}",
        f"--recipe.global_batch_size={4 * world}", "--recipe.learning_rate=0.001",
        "--model.name=unet", '--model.options={"base_channels": 4, "normalisation": "batch"}',
        "--checkpoint.every_steps=3", "--device=cpu", "--threads=1", "--log_keys=true",
    )  # fmt: skip
    return Case(
        stage="train",
        world=world,
        words=words,
        expected=tuple(str(step) for step in range(1, steps + 1)),
        found=trained_steps,
        pieces=steps,
        done=_last_checkpoint,
        last="record.json",
        changing=("record.json", "config.yaml", "pace.jsonl"),
        real_launcher=real_launcher,
    )


def _evaluate(folder: Path, images: int, world: int, real_launcher: bool) -> Case:
    dataset = _packed(folder, images, samples_per_shard=64)
    words = (
        f"--weights={_teacher(folder)}", f"--dataset={dataset}", "--splits=null",
        "--bootstrap_samples=100", "--device=cpu", "--threads=1",
    )  # fmt: skip
    keys = tuple(_keys_in_tars(dataset, ".json"))
    return Case(
        stage="evaluate",
        world=world,
        words=words,
        expected=keys,
        found=evaluated_keys,
        pieces=-(-len(keys) // _IMAGES_PER_PIECE),
        done=_receipts(".evaluate"),
        last="record.json",
        changing=("record.json", "config.yaml"),
        real_launcher=real_launcher,
    )


# ------------------------------------------------------------------------------- data


def _published(folder: Path, images: int, size: int) -> Path:
    published = folder / "published"
    phantoms.run(PhantomsConfig("breast_ultrasound", str(published), count=images, image_size=size))
    return published


def _packed(folder: Path, images: int, samples_per_shard: int) -> Path:
    """Packs phantoms, those without a lesion too: every image has a mask or an empty one."""
    pack.run(
        PackConfig(
            layout="busi",
            source=str(_published(folder, images, size=64)),
            output=str(folder / "dataset"),
            layout_options={"classes": ["benign", "malignant", "normal"]},
            image=ImageConfig(height=64, width=64),
            splits=SplitConfig(fractions={"train": 0.75, "validation": 0.25}),
            samples_per_shard=samples_per_shard,
            workers=1,
        )
    )
    return folder / "dataset"


def _teacher(folder: Path) -> Path:
    return _weights(folder, _write_weights)


def _weights(folder: Path, write: Callable[[Path], None]) -> Path:
    """Makes weights in another process: this one then needs no torch."""
    path = folder / "teacher.safetensors"
    process = fork(write, path)
    process.join()
    if process.exitcode != 0:
        raise LaunchError(f"no weights could be made: exit status {process.exitcode}")
    return path


def _write_weights(path: Path) -> None:
    from tests.datasets import make_weights

    make_weights(path, base_channels=8, seed=7)


def _write_class_weights(path: Path) -> None:
    from tests.datasets import CLASSES, make_weights

    make_weights(path, base_channels=8, seed=7, classes=CLASSES)


def _write_classifier(path: Path) -> None:
    from tests.datasets import make_classifier

    make_classifier(path, ["Edema", "Mass"], seed=7)


# ---------------------------------------------------------------------------- results


def packed_keys(output: Path) -> list[str]:
    """Returns the key of every packed sample and of every rejected input."""
    return [*_keys_in_tars(output, ".json"), *_column(output / "rejected.parquet", "key")]


def taught_keys(output: Path) -> list[str]:
    """Returns the key of every pseudo-label in the sidecars."""
    return list(_keys_in_tars(output, ".soft.png"))


def found_keys(output: Path) -> list[str]:
    """Returns the key of every image with pseudo-findings."""
    return [key for path in sorted(output.glob("*.parquet")) for key in _column(path, "key")]


def evaluated_keys(output: Path) -> list[str]:
    """Returns the key of every prediction."""
    return _column(output / "predictions.parquet", "key")


def trained_steps(output: Path) -> list[str]:
    """Returns every step of which ``batches.jsonl`` says what it saw."""
    path = output / "batches.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [str(json.loads(line)["step"]) for line in lines]


def _keys_in_tars(folder: Path, suffix: str) -> Iterator[str]:
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as archive:
            names = archive.getnames()
        yield from (name.removesuffix(suffix) for name in names if name.endswith(suffix))


def _column(path: Path, name: str) -> list[str]:
    try:
        return pq.read_table(path, partitioning=None)[name].to_pylist()
    except (FileNotFoundError, pa.ArrowInvalid):
        return []  # whatever was in it counts as lost


def _receipts(ledger: str) -> Callable[[Path], int]:
    return lambda output: len(list((output / ledger).glob("[0-9]*.json")))


def _last_checkpoint(output: Path) -> int:
    names = [path.name for path in (output / "checkpoints").glob("step-*")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)
