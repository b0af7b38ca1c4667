"""Images packed a second with one worker and with all cores.

python benchmarks/packing.py [--images 1000] [--size 512]
"""

import argparse
import os
import tempfile
from pathlib import Path

from nakt_dist.config import ImageConfig, PackConfig, PhantomsConfig
from nakt_dist.stages import pack, phantoms


def main() -> None:
    """Prints images a second per number of workers, and checks that the bytes agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    rates, fingerprints = {}, set()
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder, "published")
        phantoms.run(
            PhantomsConfig("thyroid_ultrasound", str(published), arguments.images, arguments.size)
        )
        for workers in sorted({1, cores}):
            record = pack.run(
                PackConfig(
                    "paired_folders", str(published), str(Path(folder, f"shards-{workers}")),
                    image=ImageConfig(384, 384), samples_per_shard=64, workers=workers,
                )
            )  # fmt: skip
            rates[workers] = record.metrics["images_per_second"]
            fingerprints.add(record.details["fingerprint"])
    print(f"| workers | images/s ({arguments.size} → 384 with masks) | ratio |\n|---|---|---|")
    for workers, rate in rates.items():
        print(f"| {workers} | {rate:.0f} | {rate / rates[1]:.2f} × |")
    print("same bytes" if len(fingerprints) == 1 else "THE BYTES DIFFER")


if __name__ == "__main__":
    main()
