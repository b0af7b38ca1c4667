"""Tiny packed datasets whose findings are uncertain and blank, too; deterministic."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from nakt_dist.config import ImageConfig
from tests.datasets import THREE_SPLITS, make_blob, pack_published


def labels_of(number: int) -> list[str]:
    """Returns the published cells of the findings Edema, Mass and Nodule of an image.

    Edema is 1 or 0, Mass takes 1, -1, 0 and blank in turn, and Nodule is never positive.
    """
    return [str(number % 2), ["1", "-1", "0", ""][number % 4], "0"]


def publish_labelled_images(
    folder: Path, images: int = 12, height: int = 32, width: int = 32, seed: int = 0
) -> Path:
    """Writes an ``images_csv``: two images a patient, bright where Edema is 1."""
    folder.mkdir(parents=True)
    lines = ["filename,patient,sex,age,view,Edema,Mass,Nodule"]
    for number in range(images):
        image, _ = make_blob(number, height, width, seed)
        Image.fromarray(image // 2 + 100 * (number % 2)).save(folder / f"image_{number:03d}.png")
        patient = number // 2
        facts = [f"p{patient:03d}", "FM"[patient % 2], str(20 + 5 * patient), "PA"]
        lines.append(",".join([f"image_{number:03d}.png", *facts, *labels_of(number)]))
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_labelled_dataset(
    folder: Path,
    images: int = 12,
    height: int = 32,
    width: int = 32,
    splits: Mapping[str, float] = THREE_SPLITS,
    samples_per_shard: int = 4,
    name: str = "findings",
    seed: int = 0,
    **settings: Any,
) -> Path:
    """Publishes images with findings in ``folder / "NAME-published"`` and packs them.

    Returns ``folder / NAME``. ``settings`` are further fields of ``PackConfig``; the other
    arguments are those of ``make_packed_dataset``.
    """
    publish_labelled_images(folder / f"{name}-published", images, height, width, seed)
    settings = {
        "layout_options": {
            "finding_columns": ["Edema", "Mass", "Nodule"],
            **{f"{fact}_column": fact for fact in ("patient", "sex", "age", "view")},
        },
        "image": ImageConfig(height=height, width=width, encoding="png"),
        "samples_per_shard": samples_per_shard,
        **settings,
    }
    return pack_published(folder, "images_csv", splits, name, seed, **settings)
