"""``nakt export RUN``: a trained network as a folder that others can use, and upload as it is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from nakt_dist import __version__
from nakt_dist.config import ExportConfig, as_plain
from nakt_dist.config.exporting import ONNX
from nakt_dist.errors import DatasetError
from nakt_dist.exporting.card import CARD_NAME, CardFacts, make_card
from nakt_dist.exporting.card_origin import dataset_names
from nakt_dist.exporting.description import describe_network, tap_paths
from nakt_dist.exporting.evaluations import FoundEvaluations, find_evaluations
from nakt_dist.exporting.folder import EXPORT_NAME, is_exported, whole_folder, write_contents
from nakt_dist.exporting.graph import ExportedNetwork, require_packages
from nakt_dist.exporting.parity import trial_images
from nakt_dist.exporting.places import without_places
from nakt_dist.exporting.writing import (
    ONNX_NAME,
    VECTOR_NAME,
    write_onnx,
    write_vector,
    write_weights,
)
from nakt_dist.models.input_images import prepare_image
from nakt_dist.models.network_file import TrainedNetwork, open_network
from nakt_dist.models.onnx_metadata import INPUT_NAME, OnnxMetadata
from nakt_dist.models.weights_path import BEST_WEIGHTS, EXPORTED_WEIGHTS, LAST_WEIGHTS, weights_path
from nakt_dist.records.lineage import Lineage
from nakt_dist.records.lineage_reading import read_lineage
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.files import write_bytes
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.sources.cards import load_card
from nakt_dist.stages.opening import NotOpened, Opening
from nakt_dist.stages.pack_plan import CARDS_FOLDER
from nakt_dist.studies.folder import STUDY_FOLDER

_FILES = {
    EXPORTED_WEIGHTS: "weights, with architecture, input and lineage in the header",
    ONNX_NAME: "the network as ONNX, opset 18, any number of images, with the same in its metadata",
    VECTOR_NAME: "drawn images and what the network makes of them, to compare with elsewhere",
    CARD_NAME: "this card",
    EXPORT_NAME: "SHA-256 of every file, settings and versions of the export",
}
_OF_PLACES = ("weights", "output", "records")


@dataclass(frozen=True)
class Export:
    """What is handed on, and where to.

    Attributes:
        told: what is said of the network.
    """

    config: ExportConfig
    source: Path
    output: Path
    trained: TrainedNetwork
    told: OnnxMetadata
    tests: FoundEvaluations

    written_last: ClassVar[str] = EXPORT_NAME

    @cached_property
    def is_done(self) -> bool:
        """Whether the folder holds this very export already.

        Raises:
            DatasetError: it holds something else.
        """
        return is_exported(self.output, self.identity)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the files of the folder."""
        plain = as_plain(self.config)
        settings = {name: each for name, each in plain.items() if name not in _OF_PLACES}
        return {
            "weights_sha256": self.told.weights_sha256,
            "name": self.told.name,
            "settings": without_places(settings),
            "records": sorted(self.tests.records),
            "version": __version__,
        }


def run(config: ExportConfig) -> RunRecord:
    """Exports a network; a folder that holds this very export already is left as it is.

    Raises:
        ConfigurationError: a package is missing, a setting does not fit the network, or it was
            started as several processes.
        CheckpointError: the weights cannot be used, or contradict themselves.
        DatasetError: the output holds something else, or a folder of records does not exist.
        NaktError: the network cannot be expressed in ONNX, or answers otherwise there.
    """
    require_one_process("export")
    stopwatch, opening = Stopwatch(), Opening()
    export = plan(config, opening)
    opening.say("export")
    parity: Mapping[str, float] = {}
    if export.is_done:
        say(f"export {export.told.name}: was complete already, in {export.output}")
    else:
        parity = _write(export)
        say(f"export {export.told.name}: written to {export.output}{_compared(parity)}")
    return RunRecord(
        stage="export",
        name=export.told.name,
        config=as_plain(config),
        inputs={"weights_sha256": export.told.weights_sha256, "records": export.tests.records},
        counts={"evaluations": len(export.tests.runs)},
        metrics={"largest_difference": parity},
        details={"output": str(export.output)},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def plan(config: ExportConfig, opening: Opening) -> Export:
    """Opens the network, and finds what there is to say of it."""
    with opening.part("formats"):
        if ONNX in config.formats:
            require_packages()
    trained = opening.network("weights", config, config.name)
    if trained is not None:
        with opening.part("weights"):
            source = weights_path(config.weights)
            output = Path(config.output or f"{_run_of(source)}-export")
            check_output(output, "export")
            trained.require_outputs(config.weights, "nakt export")
            trained.require_weights(config.weights, "nakt export")
            told = describe_network(config, trained)
            _exported(config, trained, told)  # finds what is wrong with taps
            tests = find_evaluations(_folders(config, source), told)
            opening.note(*trained.notices, *tests.notes)
            export = Export(config, source, output, trained, told, tests)
            with opening.part("output"):
                opening.facts["export"] = "done" if export.is_done else "to do"
            return export
    raise NotOpened


JOB = Export


def _run_of(source: Path) -> Path:
    """Returns the folder of a run, or a weights file without its suffix."""
    is_of_run = source.name in (BEST_WEIGHTS, LAST_WEIGHTS, EXPORTED_WEIGHTS)
    return source.parent if is_of_run else source.with_suffix("")


def _folders(config: ExportConfig, source: Path) -> Sequence[str | Path]:
    """Returns where to look for records."""
    if config.records is not None:
        return config.records
    run = source.parent.resolve()
    study = next((each for each in run.parents[:3] if (each / STUDY_FOLDER).is_dir()), None)
    return [study or (run.parent if _run_of(source) == source.parent else run)]


def _exported(config: ExportConfig, trained: TrainedNetwork, told: OnnxMetadata) -> ExportedNetwork:
    seen, example = told.preprocessing, None
    if config.class_activations:
        assert seen.height is not None and seen.width is not None
        pixels = trial_images(told.model.in_channels, (seen.height, seen.width))[:2]
        example = prepare_image(pixels, told.model.in_channels, seen)
    return ExportedNetwork(trained.network, tap_paths(config, trained), example)


def _write(export: Export) -> Mapping[str, float]:
    """Writes the folder; returns the largest difference of each output in ONNX Runtime."""
    config, told = export.config, export.told
    with whole_folder(export.output) as folder:
        as_is = config.model is None and config.preprocessing is None and _is_named_so(export)
        is_copy = write_weights(folder, export.source, export.trained, told, as_is)
        written = open_network(folder / EXPORTED_WEIGHTS, name=told.name)
        network = _exported(config, written, told)
        vector, parity = write_vector(folder / VECTOR_NAME, network, told), {}
        if ONNX in config.formats:
            parity = write_onnx(folder / ONNX_NAME, network, told, vector[INPUT_NAME])
        card = make_card(_facts(export, written, parity))
        write_bytes(folder / CARD_NAME, card.encode())
        write_contents(folder, export.identity, parity)
    if not is_copy:
        say(
            f"export {told.name}: its weights file does not say all as it is exported, or names "
            f"places of this machine: {EXPORTED_WEIGHTS} was written anew and has another SHA-256"
        )
    return parity


def _is_named_so(export: Export) -> bool:
    """Says whether the weights file calls its outputs as the settings do, where these do."""
    told, config = export.told, export.config
    if told.naming_field is None or not (config.labels or config.classes):
        return True
    return export.trained.lineage.get(told.naming_field) == list(told.answer.names or ())


def _facts(export: Export, written: TrainedNetwork, parity: Mapping[str, float]) -> CardFacts:
    config, files = export.config, dict(_FILES)
    if ONNX not in config.formats:
        del files[ONNX_NAME]
    lineage = _lineage(export.told)
    return CardFacts(
        told=replace(export.told, weights_sha256=written.weights_sha256),
        lineage=lineage,
        parameters=sum(each.numel() for each in written.network.parameters()),
        files=files,
        formats=config.formats,
        runs=export.tests.runs,
        capabilities=export.tests.capabilities,
        records=export.tests.records,
        parity=parity,
        intended_use=config.intended_use,
        not_for=config.not_for,
        version=__version__,
        datasets=[
            load_card(name, CARDS_FOLDER)
            for name in dataset_names(lineage)
            if re.fullmatch(r"\w+", name) and (CARDS_FOLDER / f"{name}.yaml").is_file()
        ],
    )


def _lineage(told: OnnxMetadata) -> Lineage:
    """Reads all that a lineage says; of one that lacks fields what there is."""
    try:
        return read_lineage(told.lineage)
    except DatasetError:
        return read_lineage(told.lineage, lenient=True)


def _compared(parity: Mapping[str, float]) -> str:
    if not parity:
        return ""
    return f"; ONNX Runtime and PyTorch differ by at most {max(parity.values()):.1e}"
