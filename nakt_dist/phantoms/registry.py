"""The kinds of phantoms by name."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nakt_dist.phantoms import layouts
from nakt_dist.phantoms.breast import draw_breast
from nakt_dist.phantoms.chest import draw_chest
from nakt_dist.phantoms.chest import layouts as chest_layouts
from nakt_dist.phantoms.dermoscopy import draw_dermoscopy
from nakt_dist.phantoms.photographs import draw_photograph
from nakt_dist.phantoms.thyroid import draw_thyroid


@dataclass(frozen=True)
class PhantomKind:
    """One kind of procedural dataset.

    Attributes:
        name: name by which it is asked for.
        layout: name of the folder layout in which it is written.
        description: what its images show, in one sentence.
        entries: files and folders that it writes directly under its root.
        draw: `draw(seed, index, image_size)` gives the drawing of the image at a place in the
            dataset, from 0; `image_size` is its nominal side in pixels.
        write: `write(root, drawings)` stores them, returns how many show a salient target.
    """

    name: str
    layout: str
    description: str
    entries: tuple[str, ...]
    draw: Callable[[int, int, int], Any]
    write: Callable[[Path, Iterable[Any]], int]


_KINDS = (
    PhantomKind(
        name="breast_ultrasound",
        layout="busi",
        description="Breast ultrasound: 62 % benign lesions, 27 % malignant, 11 % none.",
        entries=(layouts.BUSI_FOLDER,),
        draw=draw_breast,
        write=layouts.write_busi,
    ),
    PhantomKind(
        name="thyroid_ultrasound",
        layout="paired_folders",
        description="Thyroid ultrasound: nodules of many echo levels, 15 % without any.",
        entries=("image", "mask"),
        draw=draw_thyroid,
        write=layouts.write_image_mask_folders,
    ),
    PhantomKind(
        name="dermoscopy",
        layout="isic2019",
        description="Dermoscopy: pigmented lesions without masks, 20 % tiny or faint.",
        entries=(layouts.ISIC_IMAGES, layouts.ISIC_LABELS, layouts.ISIC_METADATA),
        draw=draw_dermoscopy,
        write=layouts.write_isic2019,
    ),
    PhantomKind(
        name="photographs",
        layout="voc2012",
        description="Coloured scenes, half of them segmented, a third with a dark blob.",
        entries=(layouts.VOC_FOLDER,),
        draw=draw_photograph,
        write=layouts.write_voc2012,
    ),
    PhantomKind(
        name="chest_chexpert",
        layout="chexpert",
        description="Chest X-rays of a dark, often bedside hospital, 14 labels with -1 and blanks.",
        entries=(chest_layouts.CHEXPERT_FOLDER,),
        draw=partial(draw_chest, "chest_chexpert"),
        write=chest_layouts.write_chexpert,
    ),
    PhantomKind(
        name="chest_mimic",
        layout="mimic_cxr",
        description="Chest X-rays of an equalised hospital, 14 labels a study, some rows missing.",
        entries=(chest_layouts.MIMIC_FOLDER, *chest_layouts.MIMIC_TABLES),
        draw=partial(draw_chest, "chest_mimic"),
        write=chest_layouts.write_mimic,
    ),
    PhantomKind(
        name="chest_chestxray14",
        layout="chestxray14",
        description="Frontal chest X-rays of a pale hospital, 14 findings, a few files RGBA.",
        entries=(
            *chest_layouts.CHESTXRAY14_FOLDERS,
            chest_layouts.CHESTXRAY14_TABLE,
            *chest_layouts.CHESTXRAY14_LISTS,
        ),
        draw=partial(draw_chest, "chest_chestxray14"),
        write=chest_layouts.write_chestxray14,
    ),
)

PHANTOM_KINDS: Mapping[str, PhantomKind] = MappingProxyType({kind.name: kind for kind in _KINDS})
