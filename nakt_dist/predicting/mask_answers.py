"""Masks of images, at their own sizes and at that of the network."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch

from nakt_dist.config import ImageConfig, PredictConfig
from nakt_dist.drawing.overlay import outlined
from nakt_dist.errors import ConfigurationError
from nakt_dist.evaluation.dice import predicted_classes
from nakt_dist.evaluation.network_lineage import classes_of, refuse_other_task
from nakt_dist.exporting.dicom_segmentation import require_highdicom
from nakt_dist.imaging.images import encode_mask_png, read_image
from nakt_dist.imaging.packed import encode_index_png, encode_soft_png
from nakt_dist.imaging.palette import class_palette
from nakt_dist.imaging.resizing import restore
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.predicting.answers import ABOUT_THE_IMAGE, Answers
from nakt_dist.predicting.naming import ListedImage
from nakt_dist.predicting.segmentation_objects import write_segmentation
from nakt_dist.runtime.files import write_bytes
from nakt_dist.transfer.classes import BACKGROUND, ONE_TARGET
from nakt_dist.transfer.ensemble import in_places
from nakt_dist.transfer.statistics import expected_dice, grey_level_entropy, quantise

_HALF = 0.5
_MOST_CLASSES = 255
"""Of the indices of a mask: 255 is none, which ``nakt pack`` reads as void."""


class MaskAnswer(NamedTuple):
    """What a network says of one image, at the size at which it was packed or would have been.

    Attributes:
        planes: float32 (K, H, W), the probability of each class but, of one target, the background.
        chosen: uint8 (H, W), the class of each pixel as ``evaluate`` counts it.
        entropy: grey-level entropy of each class but the background, in bits; as ``teach``.
        confidence: mean probability of what is most probable.
        expected_dice: of the mask, if the probabilities hold; as ``teach``.
    """

    planes: np.ndarray
    chosen: np.ndarray
    entropy: list[float]
    confidence: float
    expected_dice: float


class MaskAnswers(Answers):
    """Masks: 0 and 255 of one target, class indices with a palette of several.

    Of each image the table has the target's pixels at the network's size (``predicted_pixels``, as
    ``evaluate``) and at its own (``mask_pixels``), ``entropy``, ``mean_confidence`` and
    ``expected_dice``; of several classes these are of all together, and columns of each follow.

    Raises:
        ConfigurationError: a setting is one of classification, or the classes have no names.
    """

    def __init__(self, config: PredictConfig, trained: TrainedNetwork, form: ImageConfig) -> None:
        super().__init__(config, trained)
        refuse_other_task(config, ("labels", "operating_points"), trained)
        self._form = form
        self._files = tuple(dict.fromkeys(["masks"] if config.files is None else config.files))
        outputs = classes_of(trained, config.classes, "classes", config.weights)
        self.classes = tuple(dict.fromkeys([BACKGROUND, *outputs]))
        self._places = [self.classes.index(each) for each in outputs[: trained.spec.num_outputs]]
        self._several = self.classes[1:] if len(self.classes) > len(ONE_TARGET) else ()
        if self._several and config.threshold != _HALF:
            raise ConfigurationError(
                f"threshold is {config.threshold}, and {config.weights} tells "
                f"{len(self.classes)} classes apart, of which the most probable is taken; leave it "
                "out"
            )
        if len(self.classes) > _MOST_CLASSES:
            raise ConfigurationError(
                f"{config.weights} tells {len(self.classes)} classes apart, expected at most "
                f"{_MOST_CLASSES}, background among them, which a mask of indices holds"
            )
        self._palette = class_palette()
        counts = [("predicted_pixels", pa.int64()), ("mask_pixels", pa.int64())]
        means = ("entropy", "mean_confidence", "expected_dice")
        columns = [*counts, *((name, pa.float64()) for name in means)]
        if "segmentations" in self._files:
            require_highdicom()
            columns.append(("segmentation", pa.string()))
        for name in self._several:
            columns += [(f"{column}:{name}", kind) for column, kind in columns[:3]]
        self.schema = pa.schema([*ABOUT_THE_IMAGE, *columns])
        self.settings = {
            "task": "segmentation",
            "classes": list(self.classes),
            "threshold": config.threshold,
            "files": sorted(self._files),
            "probability_bits": config.probability_bits,
            # Where outputs are in the order of the classes, those are enough.
            **({} if sorted(self._places) == self._places else {"places": self._places}),
        }
        colours = (f"#{bytes(each).hex()}" for each in self._palette)
        self.described = {
            "classes": list(self.classes),
            "colours": dict(zip(self.classes, colours, strict=False)),
            "files": list(self._files),
        }

    def ask(self, image: torch.Tensor) -> Sequence[MaskAnswer]:
        """Returns what the network says of each image; see ``Answers``."""
        probability = self.trained.probability(image)
        if len(self._places) > 1:
            probability = in_places(probability, self._places)
        chosen = predicted_classes(probability, self.config.threshold).to(torch.uint8)
        shown = probability[:, -len(self.classes) + 1 :]  # all but the background
        levels = quantise(shown)
        entropy = grey_level_entropy(levels.flatten(0, 1)).view(shown.shape[:2])
        sure = torch.maximum(shown.amax(1), 1 - shown.sum(1)).double().flatten(1).mean(1)
        answers = probability.cpu().numpy(), chosen.cpu().numpy()
        numbers = entropy.tolist(), sure.tolist(), expected_dice(levels).tolist()
        return [MaskAnswer(*each) for each in zip(*answers, *numbers, strict=True)]

    def row(
        self, listed: ListedImage, shape: tuple[int, int], answer: MaskAnswer, staging: Path
    ) -> dict[str, Any]:
        """Writes what was asked for; see ``Answers``."""
        if not np.isfinite(answer.planes).all():
            raise self._diverged()
        mask = self._at_own_size(answer.planes, shape)
        for kind, data in self._encoded(listed, shape, answer, mask):
            path = Path(self.config.output) / kind / f"{listed.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, data, staging)
        told = {}
        if "segmentations" in self._files:
            path = Path(self.config.output) / "segmentations" / f"{listed.name}.dcm"
            sha256, most = self.trained.weights_sha256, self._form.max_pixels
            told["segmentation"] = write_segmentation(
                listed, mask, self.classes, sha256, most, path, staging
            )
        sizes = [np.bincount(each.reshape(-1), minlength=256) for each in (answer.chosen, mask)]
        row: dict[str, Any] = {
            **told,
            "predicted_pixels": int(sizes[0][1:].sum()),
            "mask_pixels": int(sizes[1][1:].sum()),
            "entropy": float(np.mean(answer.entropy)),
            "mean_confidence": answer.confidence,
            "expected_dice": answer.expected_dice,
        }
        for number, name in enumerate(self._several, start=1):
            row[f"predicted_pixels:{name}"] = int(sizes[0][number])
            row[f"mask_pixels:{name}"] = int(sizes[1][number])
            row[f"entropy:{name}"] = answer.entropy[number - 1]
        return row

    def _at_own_size(self, planes: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
        """Returns the class of each pixel of the image as published, uint8 ``shape``."""
        if not self._several:
            last = restore(planes[-1], shape, self._form.fit)
            return (last > self.config.threshold).astype(np.uint8)
        # One plane after the other: of a large image all of them may not fit into memory.
        best = restore(planes[0], shape, self._form.fit, outside=1.0)
        mask = np.zeros(shape, np.uint8)
        for number, plane in enumerate(planes[1:], start=1):
            own = restore(plane, shape, self._form.fit)
            mask[own > best] = number
            np.maximum(best, own, out=best)
        return mask

    def _encoded(
        self, listed: ListedImage, shape: tuple[int, int], answer: MaskAnswer, mask: np.ndarray
    ) -> Iterator[tuple[str, bytes]]:
        """Yields the folder and the bytes of each file of an image."""
        if "masks" in self._files:
            yield "masks", self._mask_png(mask)
        if "network_masks" in self._files:
            yield "network_masks", self._mask_png(answer.chosen)
        shown = answer.planes[-len(self.classes) + 1 :]
        for number, plane in enumerate(shown, start=1):
            folder = f"/{number}-{_safe(self.classes[number])}" if self._several else ""
            if "probabilities" in self._files:
                own = restore(plane, shape, self._form.fit)
                yield f"probabilities{folder}", self._levels_png(own)
            if "network_probabilities" in self._files:
                yield f"network_probabilities{folder}", self._levels_png(plane)
        if "overlays" in self._files:
            form = self._form
            image, _ = read_image(
                listed.path, "rgb", form.max_pixels, form.sixteen_bit, form.rendering
            )
            yield "overlays", encode_soft_png(outlined(image, mask, self._palette))

    def _mask_png(self, mask: np.ndarray) -> bytes:
        if self._several:
            return encode_index_png(mask, self._palette)
        return encode_mask_png(mask * np.uint8(255))

    def _levels_png(self, plane: np.ndarray) -> bytes:
        """Encodes probabilities as whole levels, rounded as pseudo masks are."""
        if self.config.probability_bits == 8:
            return encode_soft_png(quantise(torch.from_numpy(plane)).numpy())
        return encode_soft_png((plane.clip(0, 1) * 65535).round().astype(np.uint16))


def _safe(name: str) -> str:
    """Returns the name of a class as that of a folder; it may come from anybody's file."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
