"""The images of an attention sheet: what both networks look at, and what speaks for a finding."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from nakt_dist.drawing.attention import AttentionRow
from nakt_dist.drawing.sheets import Outline
from nakt_dist.evaluation.attention_maps import Attention, AttentionReader, similarities
from nakt_dist.evaluation.class_activation import (
    PooledFeatures,
    exact_class_activation,
    find_pooled_features,
    gradient_class_activation,
)
from nakt_dist.loading.batches import as_float
from nakt_dist.loading.masked import MaskedImages
from nakt_dist.loading.samples import ImagesAlone
from nakt_dist.models.network_file import TrainedNetwork, stored_output_names
from nakt_dist.models.taps import find_module
from nakt_dist.transfer.classes import BACKGROUND, ONE_TARGET

_HALF = 127
_WORDS = {1: "present", 0: "absent", -1: "uncertain", None: "not mentioned"}


class ShownImages(ImagesAlone):
    """Images of an attention sheet, with their annotations where they have any."""

    def pixels(self, numbers: Sequence[int], device: torch.device) -> torch.Tensor:
        """Returns some images as float32 (N, C, H, W) in [0, 1]."""
        return as_float(self.batch(numbers), device)[0]

    def mask(self, number: int) -> np.ndarray | None:
        """Returns the annotation of an image, bool (H, W); None where there is no binary one.

        Raises:
            DatasetError: it is damaged.
        """
        images = self.samples.images
        if images.manifest.mask_kind == "classes" or images.mask_bytes(number) is None:
            return None
        return MaskedImages(self.samples)[number]["target"][0].numpy() > _HALF


class ClassActivation:
    """Maps of a network's evidence for findings: exact where it can be, else Grad-CAM.

    Args:
        path: module path of the layer for Grad-CAM.
        sample: float32 (N, C, H, W) in [0, 1], to find out how the network ends.
    """

    def __init__(self, trained: TrainedNetwork, path: str, sample: torch.Tensor) -> None:
        self._trained = trained
        self._path = path
        self._pooled: PooledFeatures | None = find_pooled_features(
            trained.network, trained.prepare(sample)
        )

    @property
    def is_exact(self) -> bool:
        """Whether a map's mean is the logit, but for the bias."""
        return self._pooled is not None

    def maps(self, image: torch.Tensor, outputs: Sequence[int]) -> np.ndarray:
        """Returns the maps of some outputs, float32 (N, len(outputs), h, w).

        Args:
            image: float32 (N, C, H, W) in [0, 1].
            outputs: their numbers; at least one.
        """
        network, seen = self._trained.network, self._trained.prepare(image)
        if self._pooled is not None:
            return exact_class_activation(network, self._pooled, seen, outputs).cpu().numpy()
        module = find_module(network, self._path)
        return gradient_class_activation(network, module, seen, outputs).cpu().numpy()


@dataclass(frozen=True)
class ShownFindings:
    """The findings over the class activations of a sheet.

    Attributes:
        outputs: number of the student's output by finding; empty for none.
        said: per image of the dataset what it says of each finding, as published; None where
            it says nothing about the image.
        known: the findings that the dataset labels.
    """

    outputs: Mapping[str, int]
    said: Sequence[Mapping[str, int] | None]
    known: Sequence[str]

    def is_present(self, number: int, finding: str) -> bool:
        """Says whether the dataset calls a finding present in an image."""
        return (self.said[number] or {}).get(finding) == 1

    def caption(self, number: int, finding: str, probability: float) -> str:
        """Says what the student thinks of an image, and what the dataset does."""
        findings = self.said[number]
        if findings is None or finding not in self.known:
            return f"{probability:.2f}"
        return f"{probability:.2f}, {_WORDS[findings.get(finding)]}"


def attention_rows(
    reader: AttentionReader,
    activation: ClassActivation | None,
    images: ShownImages,
    numbers: Sequence[int],
    findings: ShownFindings,
    device: torch.device,
    batch_size: int,
) -> Iterator[AttentionRow]:
    """Runs both networks on some images; yields a row of the sheet for each.

    Args:
        activation: of the student; None where no finding is shown.
    """
    outputs = list(findings.outputs.values())
    for start in range(0, len(numbers), batch_size):
        batch = [int(number) for number in numbers[start : start + batch_size]]
        image = images.pixels(batch, device)
        attention = reader.read(image)
        similarity = similarities(attention)["similarity"]
        maps = activation.maps(image, outputs) if activation is not None else None
        probability = attention.output.sigmoid().cpu()
        for place, number in enumerate(batch):
            captions = [
                findings.caption(number, finding, float(probability[place, output]))
                for finding, output in findings.outputs.items()
            ]
            yield AttentionRow(
                image=_as_picture(images[number]["image"]),
                attention=_pairs(attention, place),
                similarity=float(similarity[place]),
                activations=tuple(maps[place]) if maps is not None else (),
                captions=tuple(captions),
                strong=tuple(findings.is_present(number, name) for name in findings.outputs),
                outlines=_outlines(images, number, attention.output[place], reader.student),
            )


def _outlines(
    images: ShownImages, number: int, logits: torch.Tensor, student: TrainedNetwork
) -> tuple[Outline, ...]:
    """Returns annotation and prediction of a segmentation network; nothing of a classifier."""
    if logits.ndim != 3:
        return ()
    shape = images[number]["image"].shape[-2:]
    resized = functional.interpolate(logits[None], shape, mode="bilinear", align_corners=False)
    mask = images.mask(number)
    return (
        Outline(np.zeros(shape, dtype=bool) if mask is None else mask, "annotation"),
        Outline(_predicted(resized[0], student).cpu().numpy(), "student's prediction"),
    )


def _predicted(logits: torch.Tensor, student: TrainedNetwork) -> torch.Tensor:
    """Returns where logits (K, H, W) say target, or the most probable class is no background."""
    if len(logits) == 1:
        return logits[0] > 0
    names = (
        stored_output_names(student, f"the weights of '{student.name}'", "classes") or ONE_TARGET
    )
    return logits.argmax(0) != names.index(BACKGROUND)


def _as_picture(pixels: torch.Tensor) -> np.ndarray:
    array = pixels.numpy()
    return array[0] if len(array) == 1 else array.transpose(1, 2, 0)


def _pairs(attention: Attention, place: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return tuple(
        (student[place, 0].cpu().numpy(), teacher[place, 0].cpu().numpy())
        for student, teacher in attention.maps()
    )
