"""``nakt evaluate``: every image scored, exactly once, in any number of processes."""

import contextlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch

from nakt_dist.config import EvaluateConfig, as_plain, save_config
from nakt_dist.errors import DatasetError
from nakt_dist.evaluation.classification_scores import ClassificationScores
from nakt_dist.evaluation.network_lineage import lineage_of, task_of
from nakt_dist.evaluation.scores import PREDICTIONS_NAME
from nakt_dist.evaluation.segmentation_scores import SegmentationScores
from nakt_dist.loading.batches import as_float
from nakt_dist.loading.samples import SelectedSamples, image_form, select_samples
from nakt_dist.models.inference import for_inference
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.weights_path import weights_path
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.exposure import MET, describe_exposure, describe_unknown, judge
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.devices import choose_device
from nakt_dist.runtime.files import value_sha256
from nakt_dist.runtime.processes import say
from nakt_dist.runtime.shared_job import Done
from nakt_dist.shards.picture_lists import name_numbers
from nakt_dist.shards.pictures import read_pictures
from nakt_dist.shards.tables import read_table, write_table
from nakt_dist.stages.image_pieces import ImagePieces
from nakt_dist.stages.opening import NotOpened, Opening

_ONLY_IN_THE_RECORD = (
    "teacher_record", "compare_with", "operating_points", "bootstrap_samples", "seed", "overlays",
)  # fmt: skip
_REFERENCES = "references"
"""By the setting that names it, SHA-256 of what decides another evaluation."""


def run(config: EvaluateConfig) -> RunRecord:
    """Evaluates a network; takes up an interrupted evaluation where it stopped.

    The images are cut into pieces of fixed size; processes share them through the output
    folder alone, so every image is counted once in any number of processes (promise 2), and
    none waits for another.

    Raises:
        ConfigurationError: a setting does not fit the network's task, or network and test set
            share no label.
        DatasetError: the dataset is absent, damaged or without masks, or the output holds
            another evaluation.
        CheckpointError: the weights cannot be used, or contradict themselves.
    """
    stopwatch = Stopwatch()
    opening = Opening()
    job = plan(config, opening)
    opening.say("evaluate")
    record = job.begin()
    if record is None:
        return _evaluate(job, stopwatch)
    say(f"{job.scores.sentence(record)} (was complete already)")
    return record


def plan(config: EvaluateConfig, opening: Opening) -> "Evaluation":
    """Opens network and test images, and checks that they belong together."""
    device = torch.device("cpu")
    with opening.part("device"):
        device = choose_device(config.device, config.threads)
    trained = opening.network("weights", config)
    with opening.part("data"):
        samples = select_samples(config.dataset, config.splits, cache=opening.cache or config.cache)
        opening.tell_samples("data", samples, config.dataset, config.splits)
        if trained is not None:
            with opening.part("evaluate"):
                trained.require_outputs(config.weights, "nakt evaluate")
                config = replace(config, preprocessing=trained.preprocessing)
                met, notices = look_for_exposure(config, trained, samples)
                opening.note(*notices)
                return Evaluation(config, trained, samples, met, device)
    raise NotOpened


class Evaluation(ImagePieces):
    """The evaluation of one network; a piece is some images.

    Args:
        config: of the evaluation, with the preprocessing of the network.
        met: what ``look_for_exposure`` found.

    Raises:
        ConfigurationError: a setting does not fit the network's task, or both share no label.
        DatasetError: images have no mask, or an evaluation referred to is absent, or no match.
        CheckpointError: the weights contradict themselves.
    """

    stage = "evaluate"
    others = "another evaluation"
    config: EvaluateConfig

    def __init__(
        self,
        config: EvaluateConfig,
        trained: TrainedNetwork,
        samples: SelectedSamples,
        met: Mapping[str, Any],
        device: torch.device,
    ) -> None:
        self.met = met
        # The task is chosen by the architecture, which the weights may not contradict.
        classifies = task_of(trained) == "classification"
        self.scores = (ClassificationScores if classifies else SegmentationScores)(
            config, trained, samples
        )
        manifest = samples.images.manifest
        decides = {
            "dataset": manifest.dataset,
            "dataset_fingerprint": manifest.fingerprint,
            "splits": config.splits,
            **self.scores.settings,
        }
        super().__init__(config, trained, self.scores.dataset, device, decides)
        # As they are now: under the same path another evaluation may lie since.
        self.references = {
            name: value_sha256(record.inputs)
            for name, record in self.scores.check_references(self.identity).items()
        }

    def finished(self) -> RunRecord | None:
        """Returns the record that is there, unless it should now say something else besides.

        Raises:
            DatasetError: it is that of another evaluation.
        """
        record = super().finished()
        if record is None:
            return None
        asked = as_plain(self.config)
        same = all(record.config.get(name) == asked[name] for name in _ONLY_IN_THE_RECORD)
        known = {role: each for role, each in self.met.get(MET, {}).items() if each is not None}
        told = record.details.get(MET, {})
        same &= record.details.get(_REFERENCES, self.references) == self.references
        return record if same and told == {**told, **known} else None

    def score(self, pieces: Iterable[int]) -> Done:
        """Scores the images of pieces; yields each with its receipt, which holds their rows."""
        rows: list[dict[str, Any]] = []
        with contextlib.closing(self.batches(pieces)) as batches:
            for piece, numbers, batch in batches:
                with self.asking():
                    rows += self.scores.rows(numbers, *as_float(batch, self.device))
                if numbers.stop == self.images_of(piece).stop:
                    yield piece, {"rows": rows}
                    rows = []


JOB = Evaluation


def look_for_exposure(
    config: EvaluateConfig, trained: TrainedNetwork, samples: SelectedSamples
) -> tuple[dict[str, Any], list[str]]:
    """Finds out where the network may have met its test images, and how they differ from its own.

    Returns:
        What the record's details say of it, and a sentence each for the user.

    Raises:
        CheckpointError: the network's lineage is damaged.
    """
    manifest = samples.images.manifest
    met, lineage = read_pictures(weights_path(config.weights)), lineage_of(trained)
    tested = EvaluationSet.of(manifest, config.splits)
    pixels, names = samples.images.column("pixels"), name_numbers(samples.images)
    verdicts = judge(lineage, tested, met.roles_with(pixels, names), met.unknown)
    counts = met.count(pixels, names)
    warnings = describe_exposure(verdicts, trained.name, tested.label, counts, len(samples))
    sentences = [f"warning: {sentence}" for sentence in warnings]
    sentences += describe_unknown(lineage, manifest.fingerprint, verdicts, met)
    sentences += trained.describe(image_form(manifest))
    told = {role: verdict.exposure.as_stored for role, verdict in verdicts.items()}
    return {MET: told, "met_pictures": counts}, sentences


def _evaluate(job: Evaluation, stopwatch: Stopwatch) -> RunRecord:
    """Does this process's pieces; whoever finds all of them done writes the record."""
    manifest = job.scores.dataset.samples.images.manifest
    job.scores.trained = for_inference(job.trained, job.device, (manifest.height, manifest.width))
    return job.do_pieces(job.score, lambda speed: _finalise(job, stopwatch, speed))


def _finalise(job: Evaluation, stopwatch: Stopwatch, speed: Mapping[str, float]) -> RunRecord:
    """Joins the pieces, checks that each image is there once, and writes the record."""
    config, trained, scores, met = job.config, job.trained, job.scores, job.met
    identity, output, ledger = job.identity, job.output, job.ledger
    path, pieces = output / PREDICTIONS_NAME, (each["rows"] for each in ledger.receipts())
    write_table(path, scores.schema, pieces, ledger.folder)
    table = read_table(path, scores.schema)
    images = scores.dataset.samples.images
    if table["key"].to_pylist() != images.keys:
        raise DatasetError(
            f"{path}: its keys are not those of the test images, each once; delete it"
        )
    metrics, details = scores.summarise(table)
    scores.draw(output / "overlays.png", table)
    save_config(config, output, staging=ledger.folder)
    manifest = images.manifest
    record = RunRecord(
        stage="evaluate",
        name=output.name,
        config=as_plain(config),
        inputs=identity,
        counts={"images": len(images)},
        metrics=metrics,
        details={
            **trained.details(),
            "test_set": EvaluationSet.of(
                manifest, config.splits, image_form(manifest).fit
            ).to_json(),
            **({"exported_from": trained.exported_from} if trained.exported_from else {}),
            **({_REFERENCES: job.references} if job.references else {}),
            **met,
            **details,
        },
        seconds=stopwatch.seconds,
        speed=speed,
        versions=package_versions(),
    )
    record.write(output, ledger.folder)
    print(scores.sentence(record), file=sys.stderr, flush=True)  # whichever rank this is
    return record
