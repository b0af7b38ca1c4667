"""How many images a second become shards, beside other libraries' writers?

Every way is a whole command, its start included, that turns the same files into 256 × 256 grey
JPEGs of quality 95, with a process a core. Ours besides hashes each source, picture and shard,
finds copies, and can be interrupted. The bytes of the images are the same, which is checked, but
for those of the scaled decoder: other pixels, as docs/datasets.md says.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.comparing import Scale, Table, Way, at_least, in_turns
from benchmarks.packing_peers import LIBRARIES, PER_SHARD, QUALITY, SIDE, converted
from nakt_dist.config import PhantomsConfig
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import phantoms

OURS, SCALED, PLAIN = "nakt pack", "nakt pack, scaled decoding", "PIL + webdataset.ShardWriter"
PEERS = {PLAIN: "webdataset", "PIL + MDSWriter": "mosaic", "PIL + litdata.optimize": "litdata"}


def published(scale: Scale, side: int, suffix: str, count: int) -> Path:
    """Writes a folder of distinct square grey images, chest phantoms shifted and mirrored.

    Args:
        side: of the images in pixels.
        suffix: ``"jpg"`` or ``"png"``.
    """
    folder = scale.folder / f"packing-{side}-{suffix}-{count}"
    if folder.exists():
        return folder
    drawn = scale.folder / f"packing-phantoms-{side}"
    if not drawn.exists():
        phantoms.run(PhantomsConfig("chest_chexpert", str(drawn), scale.pick(16, 2), side))
    pictures = [np.asarray(Image.open(path).convert("L")) for path in sorted(drawn.rglob("*.jpg"))]
    generator = np.random.default_rng(0)
    partial = folder.with_name(f"{folder.name}.partial")
    (partial / "all").mkdir(parents=True)
    for number in range(count):
        picture = np.roll(
            pictures[number % len(pictures)], generator.integers(side, size=2), (0, 1)
        )
        picture = picture[:, :: generator.choice([1, -1])]
        image = Image.fromarray(np.ascontiguousarray(picture)).resize((side, side))
        image.save(partial / f"all/{number:06d}.{suffix}", quality=95)
    return partial.rename(folder)


def _ours(source: Path, output: Path, workers: int, count: int, *more: str) -> Way:
    words = [
        "nakt_dist", "pack", "--layout", "image_folder", "--source", str(source),
        "--output", str(output), "--image.height", str(SIDE), "--image.width", str(SIDE),
        "--image.jpeg_quality", str(QUALITY), "--samples_per_shard", str(PER_SHARD),
        "--workers", str(workers), *more,
    ]  # fmt: skip
    return lambda: command(words, output, count)


def _peer(writer: str, source: Path, output: Path, workers: int, count: int) -> Way:
    words = ["benchmarks.packing_peers", writer, str(source), str(output), str(workers)]

    def pack() -> int:
        if importlib.util.find_spec(LIBRARIES[writer]) is None:
            raise ModuleNotFoundError(name=LIBRARIES[writer])
        return command(words, output, count)

    return pack


def command(words: list[str], output: Path, count: int) -> int:
    """Runs a module that writes a folder anew."""
    shutil.rmtree(output, ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no words"])[-1])
    return count


def _check_bytes(source: Path, output: Path) -> None:
    """Refuses to compare packings of other pixels."""
    shards = IndexedShards(output)
    for number, name in enumerate(shards.index["source"].to_pylist()[:8]):
        if shards.image_bytes(number) != converted(source / name):
            raise ValueError(f"{name}: nakt pack gives other bytes than plain Pillow")


def measure(scale: Scale) -> list[Table]:
    """Packs large PNGs, large JPEGs and small JPEGs."""
    workers = 1 if scale.smoke else len(os.sched_getaffinity(0))
    scale = replace(scale, rounds=min(scale.rounds, 3))  # a round takes most of a minute
    kinds = [(1024, "png", 500), (1024, "jpg", 1000), (256, "jpg", 5000)]
    tables = []
    for side, suffix, full in [(64, "jpg", 0)] if scale.smoke else kinds:
        count = scale.pick(full, 6)
        source = published(scale, side, suffix, count)
        outputs = {way: scale.folder / f"packed-{number}" for number, way in enumerate(PEERS)}
        own = scale.folder / "packed"
        ways = {
            OURS: _ours(source, own, workers, count),
            **{
                way: _peer(writer, source, outputs[way], workers, count)
                for way, writer in PEERS.items()
            },
        }
        what = f"{count:,} {side}² {suffix.upper().replace('JPG', 'JPEG')}"
        title = f"{what} → {SIDE}² JPEG, {workers} processes"
        if (side > SIDE and suffix == "jpg") or scale.smoke:
            scaled = ("--image.scaled_decoding", "true")
            ways[SCALED] = _ours(source, scale.folder / "packed-scaled", workers, count, *scaled)
        targets = {OURS: at_least(1.0), SCALED: at_least(1.7)}
        tables.append(in_turns(title, ways, PLAIN, scale, targets))
        _check_bytes(source, own)
    return tables
