"""Settings of ``export``."""

from dataclasses import dataclass, field
from typing import Literal

from nakt_dist import limits
from nakt_dist.config.teaching import TrainedNetworkConfig

SAFETENSORS, ONNX = "safetensors", "onnx"


@dataclass(frozen=True)
class ExportConfig(TrainedNetworkConfig):
    """``nakt export RUN``: a folder with all that is needed to use a trained network elsewhere.

    Attributes:
        weights: output folder of a training run (its best weights), or a weights file.
        name: what to call the network; by default as its run.
        output: folder that is written, whole or not at all; None for ``RUN-export`` beside it.
        formats: ``safetensors``, and ``onnx`` besides, which needs packages of its own.
        taps: layers whose activations the ONNX file gives as outputs of their names, for
            attention transfer: paths such as ``features.denseblock4``, or a preset such as
            ``paper``.
        class_activations: of a classifier that pools its last feature map: the ONNX file gives
            each place's share of each logit.
        labels: a classifier's outputs' names in order, or a label set such as ``chestxray14``,
            when the weights file does not say.
        classes: of several outputs of a network that segments their names in order,
            ``background`` among them, where the weights file does not say.
        licence: under which it is handed on, such as ``apache-2.0``; None states none.
        intended_use: what it is for, a sentence for the card; None for research alone.
        not_for: what it must not be used for besides what the card says always, a sentence each.
        records: folders below which evaluations of it are looked for; None for the folder of the
            study that trained it, else the one that holds the run.
    """

    output: str | None = field(default=None, metadata=limits.PATH)
    formats: list[Literal["safetensors", "onnx"]] = field(
        default_factory=lambda: [SAFETENSORS, ONNX],  # type: ignore[list-item]
        metadata=limits.limit(
            "a list with safetensors, and onnx where wished", lambda found: SAFETENSORS in found
        ),
    )
    taps: list[str] = field(default_factory=list)
    class_activations: bool = False
    labels: str | list[str] | None = None
    classes: list[str] | None = None
    licence: str | None = field(default=None, metadata=limits.limit("a name", str.strip))
    intended_use: str | None = field(default=None, metadata=limits.limit("a sentence", str.strip))
    not_for: list[str] = field(default_factory=list)
    records: list[str] | None = field(default=None, metadata=limits.SEARCHED)

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = {"taps": self.taps, "class_activations": self.class_activations}
        for name, value in asked.items():
            limits.require(
                not value or ONNX in self.formats, name, "left out where formats has no onnx"
            )
