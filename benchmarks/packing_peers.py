"""Commands that pack a folder of images as a short script of each library would.

    python -m benchmarks.packing_peers WRITER SOURCE OUTPUT WORKERS

Every image becomes 256 × 256 grey, by Pillow's antialiased bilinear filter, and a JPEG of quality
95, the same bytes as ``nakt pack`` gives; as many processes as are asked for divide the files.
"""

import io
import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

SIDE = 256
QUALITY = 95
PER_SHARD = 256
LIBRARIES = {"webdataset": "webdataset", "mosaic": "streaming", "litdata": "litdata"}
"""What each writer imports."""


def converted(path: Path) -> bytes:
    """Returns an image as it is packed."""
    with Image.open(path) as image:
        small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def webdataset(paths: list[Path], output: Path, workers: int) -> None:
    """Lets every process write shards of its own."""
    import webdataset as library  # noqa: F401 - once, before processes are forked

    _divide(_webdataset_part, paths, output, workers)


def _webdataset_part(part: int, paths: list[Path], output: Path) -> None:
    from webdataset import ShardWriter

    pattern = str(output / f"{part}-%06d.tar")
    with ShardWriter(pattern, maxcount=PER_SHARD, verbose=0) as writer:
        for path in paths:
            said = json.dumps({"source": path.name}).encode()
            writer.write({"__key__": path.stem, "jpg": converted(path), "json": said})


def mosaic(paths: list[Path], output: Path, workers: int) -> None:
    """Lets every process write a folder of its own, and merges their indexes."""
    from streaming.base.util import merge_index

    _divide(_mosaic_part, paths, output, workers)
    merge_index(str(output))


def _mosaic_part(part: int, paths: list[Path], output: Path) -> None:
    from streaming import MDSWriter

    columns = {"image": "bytes", "source": "str"}
    with MDSWriter(out=str(output / f"{part}"), columns=columns) as writer:
        for path in paths:
            writer.write({"image": converted(path), "source": path.name})


def litdata(paths: list[Path], output: Path, workers: int) -> None:
    """Leaves the processes to litdata."""
    from litdata import optimize

    optimize(_litdata_sample, list(map(str, paths)), str(output), chunk_bytes="16MB",
             num_workers=workers)  # fmt: skip


def _litdata_sample(path: str) -> dict[str, Any]:
    return {"image": converted(Path(path)), "source": Path(path).name}


def _divide(
    part: Callable[[int, list[Path], Path], None], paths: list[Path], output: Path, workers: int
) -> None:
    tasks = [(number, paths[number::workers], output) for number in range(workers)]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        pool.starmap(part, tasks)


WRITERS = {"webdataset": webdataset, "mosaic": mosaic, "litdata": litdata}


def main(writer: str, source: str, output: str, workers: str) -> None:
    """Packs a folder."""
    paths = sorted(path for path in Path(source).rglob("*") if path.suffix in (".jpg", ".png"))
    Path(output).mkdir(parents=True)
    WRITERS[writer](paths, Path(output), int(workers))


if __name__ == "__main__":
    main(*sys.argv[1:])
