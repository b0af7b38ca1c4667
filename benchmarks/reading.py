"""Decoded 256 × 256 grey JPEGs a second: the indexed reader against plain WebDataset.

    python benchmarks/reading.py [--images 2000] [--rounds 5]

All read the same shards in one process, in turns, so that noise hits them alike. The indexed
reader reads in shuffled order, which WebDataset cannot; WebDataset reads in stored order.
"""

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import webdataset
from PIL import Image

from nakt_dist.config import ImageConfig, PackConfig, PhantomsConfig, SplitConfig
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages import pack, phantoms


def indexed(root: Path) -> int:
    """Reads every image in shuffled order."""
    shards = IndexedShards(root)
    order = np.random.default_rng(0).permutation(len(shards))
    return sum(decode_pixels(shards.image_bytes(int(number))).shape[1] > 0 for number in order)


def plain_webdataset(root: Path) -> int:
    """What the WebDataset documentation shows: decode every member of every sample."""
    urls = [str(path) for path in sorted(root.glob("*.tar"))]
    samples = webdataset.WebDataset(urls, shardshuffle=False).decode("l8")
    return sum(sample["jpg"].shape[0] > 0 for sample in samples)


def lean_webdataset(root: Path) -> int:
    """The least WebDataset can do: decode the image alone."""
    urls = [str(path) for path in sorted(root.glob("*.tar"))]
    samples = webdataset.WebDataset(urls, shardshuffle=False).to_tuple("jpg")
    return sum(np.asarray(Image.open(io.BytesIO(image))).shape[0] > 0 for (image,) in samples)


def main() -> None:
    """Prints images a second and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    readers: dict[str, Callable[[Path], int]] = {
        "indexed reader": indexed,
        "plain WebDataset, decode": plain_webdataset,
        "lean WebDataset, image only": lean_webdataset,
    }
    with tempfile.TemporaryDirectory() as folder:
        published, shards = Path(folder, "published"), Path(folder, "shards")
        phantoms.run(PhantomsConfig("thyroid_ultrasound", str(published), arguments.images, 256))
        pack.run(
            PackConfig(
                "paired_folders", str(published), str(shards), masks=False,
                image=ImageConfig(256, 256), splits=SplitConfig({"train": 1.0}),
            )
        )  # fmt: skip
        rates: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(arguments.rounds):
            for name, read in readers.items():
                started = time.perf_counter()
                count = read(shards)
                rates[name].append(count / (time.perf_counter() - started))
    fastest = statistics.median(rates["indexed reader"])
    print("| reader | images/s, median | indexed reader is faster by |\n|---|---|---|")
    for name, values in rates.items():
        rate = statistics.median(values)
        print(f"| {name} | {rate:.0f} | {fastest / rate:.2f} × |")


if __name__ == "__main__":
    main()
