"""Settings of ``predict``."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from nakt_dist import limits
from nakt_dist.config.packing import ImageConfig
from nakt_dist.limits import Limited
from nakt_dist.models.spec import ModelSpec, PreprocessingConfig

Output = Literal[
    "masks", "network_masks", "probabilities", "network_probabilities", "overlays",
    "segmentations",
]  # fmt: skip


@dataclass(frozen=True)
class GivenImageConfig(Limited, group="image"):
    """How every image is brought to one form, as far as it is said; ``nakt pack`` tells more.

    Attributes:
        height: rows in pixels.
        width: columns in pixels.
        colour: ``grey`` or ``rgb``.
        fit: ``stretch``, ``pad`` or ``centre_crop``.
        encoding: ``jpg`` loses what packing as JPEG would have lost, ``png`` nothing.
        jpeg_quality: 1 … 100.
        sixteen_bit: ``min_max`` or ``full_range``.
        rendering: of DICOM files, ``as_shown`` or ``mimic_jpg``.
        max_pixels: larger images are set aside undecoded.
        scaled_decoding: let decoders give a fraction of large JPEGs.
    """

    height: int | None = None
    width: int | None = None
    colour: Literal["grey", "rgb"] | None = None
    fit: Literal["stretch", "pad", "centre_crop"] | None = None
    encoding: Literal["jpg", "png"] | None = None
    jpeg_quality: int | None = None
    sixteen_bit: Literal["min_max", "full_range"] | None = None
    rendering: Literal["as_shown", "mimic_jpg"] | None = None
    max_pixels: int | None = None
    scaled_decoding: bool | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        ImageConfig(**self.said)  # whose limits hold

    @property
    def said(self) -> dict[str, Any]:
        """What is said, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class PredictConfig(Limited):
    """``nakt predict WEIGHTS IMAGES``: masks or findings of images that nobody packed.

    Attributes:
        weights: weights file, or the output folder of a training run (its best weights).
        images: folder of images at any depth, DICOM among them, one image, or a list of paths: a
            text with one a line, or a table with a column of them.
        output: folder for masks, tables and the record.
        files: of networks that segment, what is written for each image: ``masks`` and
            ``probabilities`` at the image's own size, ``network_masks`` and
            ``network_probabilities`` at that of its network, ``overlays``, the image with the
            outlines of its mask, and of DICOM files ``segmentations``, the mask as DICOM SEG, which
            names the patient; None for masks. Findings are columns of the table.
        probability_bits: of a pixel of such probabilities, 8 or 16.
        names: what outputs are called: ``auto``, as their images, but DICOM files by the numbers
            of their series and of their place in it; ``paths``, all as their images; ``numbers``;
            or ``uids``, DICOM files by their identifiers.
        leave_out: patterns of paths below the folder, or of the list, that are no images to
            predict, such as ``*_mask*``; ``*`` stands for any characters.
        column: of a table of paths, the column that holds them.
        image_folder: where the relative paths of a list begin, as seen from the list's folder; None
            for that folder.
        image: how images are brought to the network, where neither its file nor ``as_packed``
            says it.
        as_packed: folder of a packed dataset whose images are to be met alike.
        model: architecture, when the weights file does not name it.
        preprocessing: input, as far as it is not that of the weights file.
        labels: of foreign classifiers the names of the outputs in order, or a label set such as
            ``chestxray14``.
        classes: of a network that segments with several outputs, their names in order,
            ``background`` among them, where the weights file does not say.
        threshold: probability above which a pixel is target.
        operating_points: output folder of this classifier's evaluation with thresholds and
            temperatures, which are then applied.
        batch_size: images per forward pass; decides the last digits.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of torch; None leaves torch's choice.
    """

    weights: str = field(metadata=limits.PATH)
    images: str = field(metadata=limits.PATH)
    output: str = field(metadata=limits.PATH)
    files: list[Output] | None = None
    probability_bits: Literal[8, 16] = 8
    names: Literal["auto", "paths", "numbers", "uids"] = "auto"
    leave_out: list[str] = field(default_factory=list)
    column: str = "path"
    image_folder: str | None = field(default=None, metadata=limits.PATH)
    image: GivenImageConfig = field(default_factory=GivenImageConfig)
    as_packed: str | None = field(default=None, metadata=limits.PATH)
    model: ModelSpec | None = None
    preprocessing: PreprocessingConfig | None = None
    labels: str | list[str] | None = None
    classes: list[str] | None = None
    threshold: float = field(
        default=0.5, metadata=limits.limit("in (0, 1)", lambda share: 0 < share < 1)
    )
    operating_points: str | None = field(default=None, metadata=limits.PATH)
    batch_size: int = field(default=16, metadata=limits.POSITIVE)
    device: str = "auto"
    threads: int | None = field(default=None, metadata=limits.PROCESSES)
