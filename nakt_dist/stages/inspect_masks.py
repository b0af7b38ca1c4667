"""A sheet of masks on their images, by which an inverted or misread set is seen at a glance."""

import numpy as np

from nakt_dist.drawing.sheets import Group, Outline, Panel, draw_sheet
from nakt_dist.errors import DatasetError, UnusableSample
from nakt_dist.imaging.packed import decode_pixels
from nakt_dist.records.fields import label_dataset, printable
from nakt_dist.shards.reader import IndexedShards
from nakt_dist.stages.mask_coverage import target_pixels

_TINT = 0.4
_MOST_EMPTY = 4


def draw_masks(images: IndexedShards, wanted: int) -> bytes:
    """Draws masks from the smallest target to the largest, the median among them; then empty ones.

    Args:
        images: a packed dataset with masks.
        wanted: how many masks with a target; at least three are drawn, unless 0.

    Returns:
        The sheet as PNG. Captions say what share of the image is target.

    Raises:
        DatasetError: an image or a mask is damaged.
    """
    shares = images.index["target_share"].to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(shares > 0)
    rows = rows[np.argsort(shares[rows], kind="stable")]
    empty = np.flatnonzero(shares == 0)
    last = len(rows) - 1
    names = {last // 2: "median ", 0: "smallest ", last: "largest "}
    panels = [
        _panel(images, int(rows[place]), f"{names.get(place, '')}{shares[rows[place]]:.2%}")
        for place in _spread(len(rows), wanted)
    ]
    title = f"From the smallest to the largest target: {len(panels)} of {len(rows)}"
    groups = [Group(title, tuple(panels))]
    if len(empty):
        few = empty[: min(wanted, _MOST_EMPTY)]
        title = f"Without a target: {len(few)} of {len(empty)}"
        groups.append(Group(title, tuple(_panel(images, int(row), "empty") for row in few)))
    label = label_dataset(printable(images.manifest.dataset), images.manifest.phantom)
    return draw_sheet(f"Masks of {label}", groups, tint="target")


def _spread(count: int, wanted: int) -> list[int]:
    """Returns places out of ``count``, even over the range, with both ends and the middle one."""
    if not count or not wanted:
        return []
    places = np.linspace(0, count - 1, min(max(wanted, 3), count)).round().astype(int)
    if count > 2:
        inner, middle = places[1:-1], (count - 1) // 2
        inner[np.abs(inner - middle).argmin()] = middle
    return np.unique(places).tolist()


def _panel(images: IndexedShards, row: int, caption: str) -> Panel:
    try:
        image = decode_pixels(images.image_bytes(row))
        mask = decode_pixels(images.mask_bytes(row))[0]
    except UnusableSample as error:
        raise DatasetError(
            f"{images.describe(row)}: image or mask: {error.detail}. Run nakt verify"
        ) from None
    target = target_pixels(mask, images.manifest.mask_kind)
    return Panel(
        image=image[0] if len(image) == 1 else image.transpose(1, 2, 0),
        caption=caption,
        outlines=(Outline(target, "edge of the target"),),
        soft=_TINT * target.astype(np.float32),
    )
