"""Tiny packed datasets, pseudo-labels and networks, made by the real stages; deterministic."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from nakt_dist.config import ImageConfig, PackConfig, SplitConfig, TeachConfig, TeacherConfig
from nakt_dist.imaging.mask_settings import MaskValues
from nakt_dist.models.spec import ModelSpec
from nakt_dist.models.weights import save_weights
from nakt_dist.stages import pack, teach

THREE_SPLITS = {"train": 0.5, "validation": 0.25, "test": 0.25}
"""Of 12 images 6, 3 and 3."""


def make_blob(
    number: int, height: int = 32, width: int = 32, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image, uint8 (height, width), and its target, bool: a bright ellipse on noise."""
    random = np.random.default_rng([seed, number])
    rows, columns = np.mgrid[:height, :width]
    centre = random.uniform(0.3, 0.7, 2) * (height, width)
    radii = random.uniform(0.12, 0.28, 2) * (height, width)
    target = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 <= 1
    image = random.integers(20, 90, (height, width)) + 120 * target
    return image.astype(np.uint8), target


def publish_images(
    folder: Path,
    images: int = 12,
    height: int = 32,
    width: int = 32,
    with_masks: bool = True,
    seed: int = 0,
) -> Path:
    """Writes ``image_NNN.png`` and, if wished, ``image_NNN_mask.png``: an ``image_folder``."""
    folder.mkdir(parents=True)
    for number in range(images):
        image, target = make_blob(number, height, width, seed)
        Image.fromarray(image).save(folder / f"image_{number:03d}.png")
        if with_masks:
            mask = np.uint8(255 * target)
            Image.fromarray(mask).save(folder / f"image_{number:03d}_mask.png")
    return folder


def pack_published(
    folder: Path, layout: str, splits: Mapping[str, float], name: str, seed: int, **settings: Any
) -> Path:
    """Packs what lies in ``folder / "NAME-published"``, and returns ``folder / NAME``.

    ``settings`` are further fields of ``PackConfig``; an image is 32 x 32, as PNG, by default.
    """
    output = folder / name
    config = {
        "layout": layout,
        "source": f"{output}-published",
        "output": str(output),
        "name": name,
        "image": ImageConfig(height=32, width=32, encoding="png"),
        "splits": SplitConfig(fractions=dict(splits)),
        "seed": seed,
        "workers": 1,
    }
    pack.run(PackConfig(**{**config, **settings}))
    return output


def make_packed_dataset(
    folder: Path,
    images: int = 12,
    height: int = 32,
    width: int = 32,
    splits: Mapping[str, float] = THREE_SPLITS,
    samples_per_shard: int = 4,
    with_masks: bool = True,
    name: str = "squares",
    seed: int = 0,
    encoding: str = "png",
) -> Path:
    """Publishes images in ``folder / "NAME-published"``, packs them, and returns ``folder / NAME``.

    Args:
        folder: an existing folder, such as ``tmp_path``.
        images: how many.
        height: rows.
        width: columns.
        splits: share of each split.
        samples_per_shard: inputs per tar.
        with_masks: whether the images have targets.
        name: of the dataset; another name makes another dataset in the same folder.
        seed: of the images, the splits and the order.
        encoding: ``png`` keeps the pixels of ``make_blob``; ``jpg`` does not.
    """
    publish_images(folder / f"{name}-published", images, height, width, with_masks, seed)
    settings = {"masks": with_masks, "samples_per_shard": samples_per_shard}
    image = ImageConfig(height=height, width=width, encoding=encoding)
    return pack_published(folder, "image_folder", splits, name, seed, image=image, **settings)


CLASSES = ("background", "disc", "square")
"""What ``make_class_dataset`` draws: a bright disc, a brighter square, and a border of void."""


def make_class_image(number: int, size: int = 32, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image and its mask, uint8 (size, size): 1 disc, 2 square, 255 between and around.

    Each third image has no square.
    """
    random = np.random.default_rng([seed, number, 3])
    rows, columns = np.mgrid[:size, :size]
    image, mask = random.integers(20, 60, (size, size)), np.zeros((size, size), np.uint8)
    row, column = random.integers(size // 4, size // 2, 2)
    distance = np.hypot(rows - row, columns - column)
    image[distance <= size / 6] += 80
    mask[distance <= size / 6 + 1] = 255
    mask[distance <= size / 6] = 1
    if number % 3:
        side = slice(2 * size // 3, 2 * size // 3 + random.integers(size // 6, size // 4))
        image[side, side] += 160
        mask[side, side] = 2
    return image.astype(np.uint8), mask


def make_class_dataset(
    folder: Path,
    images: int = 12,
    splits: Mapping[str, float] = THREE_SPLITS,
    samples_per_shard: int = 4,
    name: str = "shapes",
    seed: int = 0,
) -> Path:
    """Packs images with masks of ``CLASSES`` and void, as ``make_packed_dataset`` does blobs."""
    source = folder / f"{name}-published"
    source.mkdir()
    for number in range(images):
        for array, ending in zip(make_class_image(number, seed=seed), ("", "_mask"), strict=True):
            Image.fromarray(array).save(source / f"image_{number:03d}{ending}.png")
    values = MaskValues(classes={"disc": [1], "square": [2]}, void=[255])
    settings = {"mask_values": values, "samples_per_shard": samples_per_shard}
    return pack_published(folder, "image_folder", splits, name, seed, **settings)


CHEST_FINDINGS = ("Nodule", "Effusion", "Cardiomegaly")
"""What ``make_chest_dataset`` draws: a bright spot, a bright floor, a bright middle."""


def make_chest_film(findings: Sequence[str], random: np.random.Generator) -> np.ndarray:
    """Returns a noisy image, uint8 (32, 32), that shows the findings."""
    rows, columns = np.mgrid[:32, :32]
    image = random.integers(20, 90, (32, 32)).astype(float)
    if "Nodule" in findings:
        row, column = random.integers(6, 14, 2)
        image[(rows - row) ** 2 + (columns - column) ** 2 <= 9] += 120
    if "Effusion" in findings:
        image[rows >= 26] += 90
    if "Cardiomegaly" in findings:
        image[(rows > 14) & (rows < 24) & (columns > 12) & (columns < 26)] += 70
    return image.clip(0, 255).astype(np.uint8)


def make_chest_dataset(
    folder: Path,
    images: int = 48,
    splits: Mapping[str, float] = THREE_SPLITS,
    name: str = "chest",
    seed: int = 0,
) -> Path:
    """Publishes ChestX-ray14's layout, two images a patient, packs it, returns ``folder / NAME``.

    Each of ``CHEST_FINDINGS`` is in about half of the images; the other labels in none.
    """
    source = folder / f"{name}-published"
    (source / "images").mkdir(parents=True)
    random = np.random.default_rng([seed, 14])
    lines = [
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
        "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
    ]
    for number in range(images):
        present = [finding for finding in CHEST_FINDINGS if random.random() < 0.5]
        patient, visit = number // 2 + 1, number % 2
        file = f"{patient:08d}_{visit:03d}.png"
        Image.fromarray(make_chest_film(present, random)).save(source / "images" / file)
        facts = (
            f"{visit},{patient},{40 + patient % 50},{'FM'[patient % 2]},{'PA' if visit else 'AP'}"
        )
        lines.append(f"{file},{'|'.join(present) or 'No Finding'},{facts},32,32,0.14,0.14")
    (source / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")
    return pack_published(folder, "chestxray14", splits, name, seed, samples_per_shard=8)


def make_weights(
    path: Path,
    base_channels: int = 4,
    seed: int = 0,
    in_channels: int = 1,
    classes: Sequence[str] = (),
    **metadata: str,
) -> Path:
    """Saves a tiny ``unet`` without normalisation, so that batches do not matter to it.

    With ``classes`` it has an output for each, and says so.
    """
    options = {"base_channels": base_channels, "normalisation": "none"}
    spec = ModelSpec("unet", in_channels, len(classes) or 1, options)
    if classes:
        metadata["lineage"] = json.dumps({"task": "segmentation", "classes": list(classes)})
    save_weights(path, _entries(spec.to_json(), seed), spec, metadata)
    return path


def make_classifier(
    path: Path, labels: Sequence[str] | None, seed: int = 0, outputs: int | None = None
) -> Path:
    """Saves a ``densenet40`` with these outputs; without labels, as a file that is not ours.

    Its statistics are those of a few images, so that its answers differ between images.
    """
    spec = ModelSpec("densenet40", in_channels=3, num_outputs=outputs or len(labels))
    entries = _entries(spec.to_json(), seed, batches=10)
    if labels is None:
        save_file(entries, path)
        return path
    lineage = {"task": "classification", "labels": list(labels), "trained_on": {}}
    save_weights(path, entries, spec, {"lineage": json.dumps(lineage)})
    return path


@cache
def _entries(description: str, seed: int, batches: int = 0) -> dict[str, torch.Tensor]:
    """A network's entries after it has seen so many random batches; not to be changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ModelSpec.from_json(description).build()
        for _ in range(batches):
            network(torch.rand(4, 3, 1, 1) * torch.rand(4, 3, 32, 32))
    return network.state_dict()


def make_pseudo_labels(
    folder: Path,
    dataset: Path,
    name: str = "pseudo",
    seeds: Sequence[int] = (0,),
    output: str = "soft",
) -> Path:
    """Lets a teacher per seed label a packed dataset, and returns ``folder / NAME``."""
    weights = [make_weights(folder / f"{name}-teacher-{s}.safetensors", seed=s) for s in seeds]
    teachers = [TeacherConfig(weights=str(path), output=output) for path in weights]
    teach.run(
        TeachConfig(
            dataset=str(dataset),
            output=str(folder / name),
            teachers=teachers,
            device="cpu",
            threads=1,
        )
    )
    return folder / name
