"""Peak memory of pack, teach and evaluate at two dataset sizes.

    python benchmarks/memory.py [--images 1000 20000]

Each stage runs as its own process; the peak is that of its whole process tree's largest
members, sampled from the system, so workers count too.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from nakt_dist.models import ModelSpec
from nakt_dist.models.weights import save_weights

NETWORK = ModelSpec("unet", options={"base_channels": 4})


def peak_megabytes(*words: str) -> float:
    """Runs a stage and returns the largest sum of resident memory over its processes."""
    process = subprocess.Popen([sys.executable, "-m", "nakt_dist", *words])
    peak = 0.0
    watched = psutil.Process(process.pid)
    waiting = threading.Thread(target=process.wait)
    waiting.start()
    while waiting.is_alive():
        try:
            tree = [watched, *watched.children(recursive=True)]
            peak = max(peak, sum(member.memory_full_info().uss for member in tree) / 1e6)
        except psutil.Error:
            pass  # a process ended between listing and asking
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"nakt {' '.join(words)} failed")
    return peak


def measure(folder: Path, images: int) -> dict[str, float]:
    """Returns the peak of each stage, in megabytes."""
    published, shards = folder / f"published-{images}", folder / f"shards-{images}"
    weights = folder / "teacher.safetensors"
    save_weights(weights, NETWORK.build().state_dict(), NETWORK, {})
    subprocess.run(
        [sys.executable, "-m", "nakt_dist", "phantoms", "--kind=thyroid_ultrasound",
         f"--output={published}", f"--count={images}", "--image_size=64"],
        check=True,
    )  # fmt: skip
    form = ["--image.height=64", "--image.width=64", "--splits.fractions={train: 1.0}"]
    stages = {
        "pack": ["--layout=paired_folders", f"--source={published}", f"--output={shards}", *form],
        "teach": [
            f"--dataset={shards}", f"--output={folder / f'pseudo-{images}'}", "--threads=1",
            f"--teachers=[{{weights: {weights}}}]",
        ],
        "evaluate": [
            f"--weights={weights}", f"--dataset={shards}", "--splits=[train]", "--threads=1",
            f"--output={folder / f'test-{images}'}", "--bootstrap_samples=100",
        ],
    }  # fmt: skip
    return {stage: peak_megabytes(stage, *words) for stage, words in stages.items()}


def main() -> None:
    """Prints one row per stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 20000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peaks = {images: measure(Path(folder), images) for images in arguments.images}
    print("| stage | " + " | ".join(f"{images} images, MB" for images in peaks) + " |")
    print("|---" * (len(peaks) + 1) + "|")
    for stage in next(iter(peaks.values())):
        print(f"| {stage} | " + " | ".join(f"{peak[stage]:.0f}" for peak in peaks.values()) + " |")


if __name__ == "__main__":
    main()
