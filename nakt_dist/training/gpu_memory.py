"""What training does about a GPU whose memory is full."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nakt_dist.errors import DatasetError, NaktError, StartAgain
from nakt_dist.loading.sampler import Share
from nakt_dist.runtime.devices import memory_is_full
from nakt_dist.runtime.files import read_json, write_json

SMALLER_NAME = "micro_batch_size.json"


class GpuMemoryFull(StartAgain):
    """The GPU's memory did not suffice; the next start takes smaller micro-batches."""

    alone = True


@contextlib.contextmanager
def halve_when_full(output: Path, share: Share, halve: bool) -> Iterator[None]:
    """Turns CUDA's "out of memory" into what can be done about it.

    Raises:
        GpuMemoryFull: they are to be halved, and can be.
        NaktError: they are not, or are one image already.
    """
    try:
        yield
    except RuntimeError as error:
        if not memory_is_full(error):
            raise
        size = share.micro_batch_size
        half = largest_smaller_part(share)
        first = str(error).splitlines()[0]
        if halve and half is not None:
            write_json(output / SMALLER_NAME, {"micro_batch_size": half})
            raise GpuMemoryFull(
                f"{output}: the GPU's memory is full with micro-batches of {size} images "
                f"({first}); from the last checkpoint it goes on with {half}"
            ) from None
        lower = f"recipe.micro_batch_size to {half} (now {size}), " if half is not None else ""
        raise NaktError(
            f"{output}: the GPU's memory is full ({first}). Lower {lower}the images' size (pack "
            "--image.height and width) or the network's (model.options), or take recipe.precision "
            "bf16; recipe.halve_when_out_of_memory true lowers the first by itself. The global "
            "batch stays the same"
        ) from None


def largest_smaller_part(share: Share) -> int | None:
    """Returns the largest micro-batch of at most half the size, or None when there is none."""
    part = share.batch_size // share.world_size
    return largest_part(part, share.micro_batch_size // 2)


def largest_part(images: int, most: int) -> int | None:
    """Returns the largest size up to ``most`` that divides ``images``; None when it is below 1."""
    sizes = range(1, min(images, most) + 1)
    return max((size for size in sizes if images % size == 0), default=None)


def remembered_micro_batch_size(output: Path) -> int | None:
    """Returns the size that an earlier launch had to lower its micro-batches to, or None.

    Raises:
        DatasetError: the note says something else.
    """
    path = output / SMALLER_NAME
    if not path.exists():
        return None
    found: Mapping[str, Any] = read_json(path, "note of a smaller micro-batch")
    size = found.get("micro_batch_size")
    if type(size) is not int or size < 1:
        raise DatasetError(f"{path}: micro_batch_size is {size!r}, expected 1 or more; delete it")
    return size
