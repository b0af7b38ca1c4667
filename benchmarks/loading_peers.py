"""The same encoded images as other libraries keep them, and how these read them in training.

Every reader yields float32 batches (N, C, 256, 256) in [0, 1]; images are shuffled where the
library can. A library that is not installed raises ModuleNotFoundError when it is asked.
"""

import functools
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from nakt_dist.config import AugmentationConfig
from nakt_dist.shards.reader import IndexedShards

BATCH = 32
Batches = Iterable[torch.Tensor]
LEANEST = "ImageFolder, decode_jpeg"


def kind_of(augmentation: AugmentationConfig | None) -> str:
    """Names what is done to the images."""
    if augmentation is None:
        return "decoding alone"
    flips_and_turns = augmentation.smallest_crop == 1.0
    return "flip and rotation" if flips_and_turns else "five augmentations"


class Peers:
    """Other libraries' copies of the images of a packed dataset.

    Args:
        shards: the packed dataset.
        root: where the copies go, made when they are first read.
        installed_anyway: only those that nakt_dist itself needs, for a smoke test.
    """

    def __init__(self, shards: Path, root: Path, installed_anyway: bool = False) -> None:
        self._shards, self._root = shards, root
        self._installed_anyway = installed_anyway

    def ways(
        self, workers: int, augmentation: AugmentationConfig | None
    ) -> dict[str, Callable[[], Batches]]:
        """Returns what each library reads an epoch with, opened when it first does.

        Args:
            workers: processes, or threads in FFCV.
            augmentation: what torchvision's transforms are to do; None for nothing.
        """
        transform = transforms(augmentation)
        readers: dict[str, Callable[[int, Any], Batches]] = {
            "ImageFolder": self._image_folder,
            "WebDataset": self._webdataset,
        }
        if augmentation is None:
            readers[LEANEST] = self._image_folder_lean
        if not self._installed_anyway:
            readers["Hugging Face datasets"] = self._huggingface
            readers["mosaicml-streaming"] = self._mosaic
            readers["litdata"] = self._litdata
        if augmentation is None and not self._installed_anyway:
            readers["FFCV, jpg"] = functools.partial(self._ffcv, mode="jpg")
            readers["FFCV, raw"] = functools.partial(self._ffcv, mode="raw")
        return {
            name: functools.cache(functools.partial(read, workers, transform))
            for name, read in readers.items()
        }

    def _copy(self, name: str, write: Callable[[Path], None]) -> Path:
        """Returns the folder of a copy, which is written first where it is not there."""
        folder = self._root / name
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = folder.with_name(f"{name}.partial")
            shutil.rmtree(partial, ignore_errors=True)  # of an attempt that failed
            write(partial)
            partial.rename(folder)
        return folder

    @property
    def _files(self) -> Path:
        return self._copy("image_folder", self._write_files)

    def _write_files(self, folder: Path) -> None:
        shards = IndexedShards(self._shards, ["train"])
        for number, key in enumerate(shards.keys):
            path = folder / f"{number % 14:02d}" / f"{key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(shards.image_bytes(number))

    def _samples(self) -> Iterator[tuple[Path, int]]:
        for path in sorted(self._files.glob("*/*.jpg")):
            yield path, int(path.parent.name)

    def _image_folder(self, workers: int, transform: Any) -> Batches:
        from torchvision.datasets import ImageFolder

        data = ImageFolder(str(self._files), transform, loader=_grey)
        return _Images(DataLoader(data, BATCH, shuffle=True, num_workers=workers, drop_last=True))

    def _image_folder_lean(self, workers: int, transform: Any) -> Batches:
        from torchvision.datasets import ImageFolder

        data = ImageFolder(str(self._files), loader=_decoded)
        batches = DataLoader(data, BATCH, shuffle=True, num_workers=workers, drop_last=True)
        return _Images(batches, as_bytes=True)

    def _webdataset(self, workers: int, transform: Any) -> Batches:
        import webdataset

        urls = sorted(map(str, self._shards.glob("train-*.tar")))
        data = webdataset.WebDataset(urls, shardshuffle=len(urls), seed=0).shuffle(1000)
        greyed = data.decode("pil").to_tuple("jpg", "json").map_tuple(
            lambda image: transform(image.convert("L")), lambda label: 0
        )  # fmt: skip
        batches = greyed.batched(BATCH)
        return _Images(webdataset.WebLoader(batches, batch_size=None, num_workers=workers))

    def _huggingface(self, workers: int, transform: Any) -> Batches:
        import datasets

        def write(folder: Path) -> None:
            found = list(self._samples())
            features = datasets.Features(
                {"image": datasets.Image(), "label": datasets.Value("int64")}
            )
            columns = {
                "image": [{"bytes": path.read_bytes(), "path": None} for path, _ in found],
                "label": [label for _, label in found],
            }
            datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))

        def apply(rows: dict[str, Any]) -> dict[str, Any]:
            images = [transform(image.convert("L")) for image in rows["image"]]
            return {"image": images, "label": rows["label"]}

        folder = self._copy("huggingface", write)
        data = datasets.load_from_disk(str(folder)).with_transform(apply)
        return _Images(DataLoader(data, BATCH, shuffle=True, num_workers=workers, drop_last=True))

    def _mosaic(self, workers: int, transform: Any) -> Batches:
        from streaming import MDSWriter, StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        def write(folder: Path) -> None:
            with MDSWriter(out=str(folder), columns={"image": "jpeg", "label": "int"}) as writer:
                for path, label in self._samples():
                    writer.write({"image": Image.open(path), "label": label})

        folder = self._copy("mosaic", write)
        clean_stale_shared_memory()
        data = StreamingDataset(local=str(folder), shuffle=True, batch_size=BATCH)
        transformed = _Transformed(data, transform)
        return _Images(DataLoader(transformed, BATCH, num_workers=workers, drop_last=True))

    def _litdata(self, workers: int, transform: Any) -> Batches:
        import litdata

        def write(folder: Path) -> None:
            paths = [str(path) for path, _ in self._samples()]
            # Its own choice, spawn, would become that of all libraries that come after it.
            litdata.optimize(
                _opened, paths, str(folder), chunk_bytes="16MB", num_workers=1, start_method="fork"
            )

        folder = self._copy("litdata", write)
        data = litdata.StreamingDataset(
            str(folder), shuffle=True, drop_last=True, transform=lambda sample: (
                transform(sample["image"][:1]), sample["label"]  # it decodes to three alike
            )
        )  # fmt: skip
        return _Images(litdata.StreamingDataLoader(data, batch_size=BATCH, num_workers=workers))

    def _ffcv(self, workers: int, transform: Any, mode: str) -> Batches:
        """FFCV keeps three channels and decodes with threads."""
        from ffcv.fields import IntField, RGBImageField
        from ffcv.fields.decoders import IntDecoder, SimpleRGBImageDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import ToTensor, ToTorchImage
        from ffcv.writer import DatasetWriter

        def write(path: Path) -> None:
            fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=95), "label": IntField()}
            writer = DatasetWriter(str(path), fields, num_workers=1)
            writer.from_indexed_dataset(_Rgb(list(self._samples())))

        loader = Loader(
            str(self._copy(f"ffcv_{mode}", write)), batch_size=BATCH, num_workers=max(workers, 1),
            order=OrderOption.RANDOM, drop_last=True, os_cache=True,
            pipelines={
                "image": [SimpleRGBImageDecoder(), ToTensor(), ToTorchImage()],
                "label": [IntDecoder(), ToTensor()],
            },
        )  # fmt: skip
        return _Images(loader, as_bytes=True)


def transforms(augmentation: AugmentationConfig | None) -> Any:
    """Returns torchvision's transforms, from one PIL image or tensor to float32 in [0, 1]."""
    from torchvision.transforms import v2

    steps: list[Any] = [v2.ToImage()]
    if augmentation is not None:
        bilinear = v2.InterpolationMode.BILINEAR
        if augmentation.smallest_crop < 1:
            smallest = augmentation.smallest_crop**2
            steps.append(v2.RandomResizedCrop(256, (smallest, 1.0), antialias=True))
        steps.append(v2.RandomHorizontalFlip(augmentation.flip_probability))
        steps.append(v2.RandomRotation(augmentation.largest_rotation, bilinear))
    steps.append(v2.ToDtype(torch.float32, scale=True))
    if augmentation is not None and augmentation.gamma != (1.0, 1.0):
        lowest, highest = augmentation.gamma
        steps.append(lambda image: image ** float(torch.empty(1).uniform_(lowest, highest)))
    if augmentation is not None and augmentation.contrast != (1.0, 1.0):
        steps.append(v2.ColorJitter(contrast=augmentation.contrast))
    return v2.Compose(steps)


class _Transformed(Dataset):
    def __init__(self, data: Any, transform: Any) -> None:
        self._data, self._transform = data, transform
        self.size = data.size

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        sample = self._data[number]
        return self._transform(sample["image"]), sample["label"]


class _Rgb(Dataset):
    def __init__(self, samples: list[tuple[Path, int]]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        import numpy as np

        path, label = self._samples[number]
        return np.asarray(Image.open(path).convert("RGB")), label


class _Images:
    """The images of a library's batches, epoch after epoch.

    Args:
        as_bytes: whether they are uint8 and are to come to [0, 1].
    """

    def __init__(self, batches: Iterable[Any], as_bytes: bool = False) -> None:
        self._batches, self._as_bytes = batches, as_bytes

    def __iter__(self) -> Iterator[torch.Tensor]:
        for batch in self._batches:
            image = batch["image"] if isinstance(batch, dict) else batch[0]
            yield image.float().div_(255) if self._as_bytes else image


def _grey(path: str) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("L")


def _decoded(path: str) -> torch.Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    return decode_jpeg(read_file(path), ImageReadMode.GRAY)


def _opened(path: str) -> dict[str, Any]:
    return {"image": Image.open(path), "label": int(Path(path).parent.name)}
