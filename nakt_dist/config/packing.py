"""Settings of ``phantoms``, ``pack`` and ``verify``."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from nakt_dist import limits
from nakt_dist.imaging.mask_settings import MaskValues
from nakt_dist.limits import Limited
from nakt_dist.sources.findings import LabelPolicy
from nakt_dist.sources.splits import checked_shares


@dataclass(frozen=True)
class ImageConfig(Limited, group="image"):
    """How every image is brought to one form at pack time.

    Attributes:
        height: rows in pixels.
        width: columns in pixels.
        colour: ``grey`` (paper A) or ``rgb``.
        fit: ``stretch`` to the size, ``pad`` keeping the aspect, or ``centre_crop`` after
            resizing the shorter side (paper B).
        encoding: ``jpg`` decodes about three times as fast as ``png``, which loses nothing.
        jpeg_quality: 1 … 100.
        sixteen_bit: map an image's own range to 0 … 255 (``min_max``), or 0 … 65535.
        rendering: of DICOM files: ``as_shown``, with their own window or table, or as
            MIMIC-CXR-JPG was made of them (``mimic_jpg``): min–max, histogram equalised.
        max_pixels: larger images are set aside undecoded.
        scaled_decoding: let the decoder of large JPEGs give a half, a quarter or an eighth of their
            sides, as long as that is no smaller than the packed size: several times as fast,
            with slightly other pixels. Copies are then known among pictures read alike alone.
    """

    height: int = 384
    width: int = 384
    colour: Literal["grey", "rgb"] = "grey"
    fit: Literal["stretch", "pad", "centre_crop"] = "stretch"
    encoding: Literal["jpg", "png"] = "jpg"
    jpeg_quality: int = field(default=95, metadata=limits.within(1, 100, "between 1 and 100"))
    sixteen_bit: Literal["min_max", "full_range"] = "min_max"
    rendering: Literal["as_shown", "mimic_jpg"] = "as_shown"
    max_pixels: int = field(default=limits.MOST_PIXELS, metadata=limits.POSITIVE)
    scaled_decoding: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = (self.height, self.width)
        expected = f"from 1 to {limits.LARGEST_IMAGE_SIDE}, the most that JPEG holds"
        limits.require(
            all(0 < side <= limits.LARGEST_IMAGE_SIDE for side in sides),
            "image.height and image.width",
            expected,
        )
        limits.require(
            self.height * self.width <= limits.MOST_PIXELS,
            "image.height times image.width",
            f"at most {limits.MOST_PIXELS} pixels",
        )


@dataclass(frozen=True)
class SplitConfig(Limited, group="splits"):
    """How samples are divided; patients, where known, are never divided.

    Attributes:
        fractions: share of the samples per split; they sum to 1.
        official: use the dataset's own splits instead.
        without_official: the split of samples that have no official one; None refuses them.
        validation_from_train: with ``official``, the share of the official training patients
            that becomes the split ``validation``, where the dataset itself has none.
        identical_together: images of the same pixels are never divided, as if they were of one
            patient; official splits stay as they are, and what they share is counted.
    """

    fractions: Mapping[str, float] = field(
        default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1}
    )
    official: bool = False
    without_official: str | None = None
    validation_from_train: float = field(
        default=0.0,
        metadata=limits.limit("0 or more and less than 1, not {value}", lambda part: 0 <= part < 1),
    )
    identical_together: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            self.official or self.validation_from_train == 0,
            "splits.official",
            "true where splits.validation_from_train is set; splits.fractions says it otherwise",
        )
        for name in (*self.fractions, *([self.without_official] if self.without_official else [])):
            limits.require(
                re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,40}", name) is not None and name != "pseudo",
                f"the split name {name!r}",
                "of lower-case letters, digits, _ and -, as it names files, and not 'pseudo'",
            )
        if not self.official:
            checked_shares(self.fractions)


@dataclass(frozen=True)
class PackConfig(Limited):
    """``nakt pack``: a dataset as published becomes shards.

    Attributes:
        layout: which official layout ``source`` has, such as ``busi`` or ``image_folder``.
        source: folder of the dataset as published.
        output: folder for the shards; made when absent.
        name: what to call the dataset; by default the layout's name.
        layout_options: settings of the layout, such as ``{classes: [benign]}``.
        image: size and form of the images.
        masks: whether to read masks; off for a transferal dataset, whose masks nobody needs.
        mask_values: which values of binary masks are target; judged over the dataset by default.
        labels: what uncertain and blank findings count as; stored as what readers use unless
            their own settings say otherwise. The findings are packed as published.
        unlabelled: pack images that should have a row of labels and have none, too; else they
            are rejected as ``missing_label``.
        splits: how to divide the samples.
        count: pack only so many inputs, chosen by ``seed``; a smaller choice is part of a larger.
        samples_per_shard: inputs per tar; one tar is the unit of work and of repair.
        seed: of the choice, the splits and the shuffle.
        workers: processes; None takes all cores, shared with the other processes of a launch
            that pack on this machine. Changes no byte.
        card: dataset card with the expected counts: a name in ``shards/cards`` or a file; by
            default that of the layout, where it has one.
        phantom: says that the images are procedural; found by itself for our phantoms.
        deidentify: replace what names a patient, a study or a file by keyed hashes; the same
            key gives the same hashes in every dataset. Pixels stay as they are.
        deidentify_key: file with the key; made, readable by its owner alone, where it is absent.
        trust_times: where the dataset is packed already, take source files of the same size and
            time of modification for the same without reading them; otherwise only those that
            the system has not touched at all.
    """

    layout: str
    source: str = field(metadata=limits.PATH)
    output: str = field(metadata=limits.PATH)
    name: str | None = None
    layout_options: dict[str, Any] = field(default_factory=dict)
    image: ImageConfig = field(default_factory=ImageConfig)
    masks: bool = True
    mask_values: MaskValues = field(default_factory=MaskValues)
    labels: LabelPolicy = field(default_factory=LabelPolicy)
    unlabelled: bool = False
    splits: SplitConfig = field(default_factory=SplitConfig)
    count: int | None = field(default=None, metadata=limits.POSITIVE)
    samples_per_shard: int = field(default=256, metadata=limits.POSITIVE)
    seed: int = field(default=0, metadata=limits.SEED)
    workers: int | None = field(default=None, metadata=limits.PROCESSES)
    card: str | None = field(default=None, metadata=limits.PATH)
    phantom: bool | None = None
    deidentify: bool = False
    deidentify_key: str = field(default="~/.config/nakt_dist/deidentify.key", metadata=limits.PATH)
    trust_times: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.require(
            self.masks or not self.mask_values.named,
            "masks",
            "true where mask_values says what is target; leave mask_values out",
        )
        limits.require(
            isinstance(self.labels.uncertain, str),
            "labels.uncertain",
            "one use for all findings; what differs by finding is a setting of train and evaluate",
        )

    @property
    def dataset_name(self) -> str:
        """The dataset's name."""
        return self.name or self.layout


@dataclass(frozen=True)
class VerifyConfig(Limited):
    """``nakt verify FOLDER``: re-reads everything and names any damage.

    Attributes:
        folder: a packed dataset or a folder of pseudo-labels.
        repair: rebuild what is damaged, and only that (packed datasets).
        against_source: read the published dataset, too, and say which of its files and labels
            have changed since it was packed.
        source: the dataset as published, when it is no longer where it was packed from.
        layout_options: those that name files or folders of a de-identified dataset, such as
            ``{table: films.csv}``; it does not say them.
        workers: processes for the repair; None takes all cores.
        deidentify_key: file with the key of a de-identified dataset, where it is not the usual
            one; the repair of such a dataset needs ``source`` as well.
    """

    folder: str = field(metadata=limits.PATH)
    repair: bool = False
    against_source: bool = False
    source: str | None = field(default=None, metadata=limits.PATH)
    layout_options: dict[str, Any] = field(default_factory=dict)
    workers: int | None = field(default=None, metadata=limits.PROCESSES)
    deidentify_key: str | None = field(default=None, metadata=limits.PATH)


@dataclass(frozen=True)
class PhantomsConfig(Limited):
    """``nakt phantoms``: writes a procedural dataset in an official layout.

    Attributes:
        kind: ``breast_ultrasound``, ``thyroid_ultrasound``, ``dermoscopy``, ``photographs``,
            ``chest_chexpert``, ``chest_mimic`` or ``chest_chestxray14``.
        output: folder to write.
        count: number of images.
        image_size: about how many rows and columns.
        seed: of everything; smaller counts are part of larger ones.
    """

    kind: str
    output: str = field(metadata=limits.PATH)
    count: int = 200
    image_size: int = 128
    seed: int = 0
