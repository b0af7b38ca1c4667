"""``nakt predict``: masks or findings of images that nobody packed, in any number of processes."""

import contextlib
import itertools
import json
import shlex
import sys
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import torch

from nakt_dist.config import ImageConfig, PredictConfig, as_plain, save_config
from nakt_dist.errors import ConfigurationError, DatasetError, NaktError
from nakt_dist.evaluation.network_lineage import task_of
from nakt_dist.loading.batches import Batch, as_float
from nakt_dist.models.inference import for_inference
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.preprocessing import ImageForm
from nakt_dist.predicting.answers import Answers
from nakt_dist.predicting.file_images import FileImages
from nakt_dist.predicting.finding_answers import FindingAnswers
from nakt_dist.predicting.image_form import choose_form
from nakt_dist.predicting.listing import ImageListing, list_images
from nakt_dist.predicting.mask_answers import MaskAnswers
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.devices import choose_device
from nakt_dist.runtime.files import atomic_write
from nakt_dist.runtime.processes import own_cores, say
from nakt_dist.runtime.shared_job import Done
from nakt_dist.shards.tables import read_table, write_table
from nakt_dist.stages.image_pieces import ImagePieces
from nakt_dist.stages.opening import NotOpened, Opening

PREDICTED_NAME, PREDICTED_CSV = "predicted.parquet", "predicted.csv"
SOURCES_NAME, SET_ASIDE_NAME = "sources.csv", "set_aside.csv"
_BATCHES_BEHIND = 1
"""Being written while the network sees the next one."""


def run(config: PredictConfig) -> RunRecord:
    """Predicts images; takes up an interrupted prediction where it stopped.

    The images are cut into pieces of fixed size, which processes share through the output folder
    alone. What cannot be used is set aside with its reason.

    Raises:
        ConfigurationError: a setting does not fit the network's task or the images.
        DatasetError: there is no image, or none that can be used, or the output holds another
            prediction.
        CheckpointError: the weights cannot be used, or their outputs are not numbers.
    """
    stopwatch = Stopwatch()
    opening = Opening()
    job = plan(config, opening)
    opening.say("predict")
    record = job.begin()
    if record is None:
        record = _predict(job, stopwatch)
    else:
        say(f"{sentence(record)} (was complete already)")
    if record.counts.get("predicted") == 0:
        raise DatasetError(
            f"{config.images}: none of its images can be used; {job.output / SET_ASIDE_NAME} says "
            "why of each"
        )
    return record


def plan(config: PredictConfig, opening: Opening) -> "Prediction":
    """Opens the network, lists the images, and checks that they belong together."""
    device = torch.device("cpu")
    with opening.part("device"):
        device = choose_device(config.device, config.threads)
    trained = opening.network("weights", config)
    with opening.part("images"):
        _check_apart(config)
        listing = list_images(
            config.images, config.names, config.column, config.leave_out, config.image_folder
        )
        opening.facts["images"] = (
            f"{len(listing.images):,} to predict, {len(listing.refused):,} set aside unread"
        )
        opening.inputs["images"] = listing.fingerprint
        opening.note(*_told_of_masks(listing))
        if trained is not None:
            with opening.part("predict"):
                trained.require_outputs(config.weights, "nakt predict")
                form, notes = choose_form(config, trained)
                seen = ImageForm(form.height, form.width, form.fit)
                opening.note(*notes, *trained.describe(seen))
                answers = (
                    FindingAnswers(config, trained, seen)
                    if task_of(trained) == "classification"
                    else MaskAnswers(config, trained, form)
                )
                return Prediction(config, trained, listing, form, answers, device)
    raise NotOpened


def _told_of_masks(listing: ImageListing) -> list[str]:
    """Says what looks like masks among the images, which are predicted all the same."""
    patterns = json.dumps(list(listing.likely_masks), ensure_ascii=False)
    told = (
        f"{sum(listing.likely_masks.values()):,} of the {len(listing.images):,} images look like "
        "masks of others by their names or folders, and are predicted as well; leave them out with "
        f"--leave_out {shlex.quote(patterns)}"
    )
    return [told] if listing.likely_masks else []


def _check_apart(config: PredictConfig) -> None:
    """Refuses to write among the images, where the next run would list what this one wrote."""
    images = Path(config.images).resolve()
    if images.is_dir() and Path(config.output).resolve().is_relative_to(images):
        raise ConfigurationError(
            f"output {config.output} lies in the folder of images {config.images}, where it would "
            "be listed among them; choose a folder elsewhere"
        )


class Prediction(ImagePieces):
    """The prediction of some images by one network; a piece is some of them.

    Args:
        form: to which the images are brought.
    """

    stage = "predict"
    others = "another prediction"
    config: PredictConfig
    images: FileImages

    def __init__(
        self,
        config: PredictConfig,
        trained: TrainedNetwork,
        listing: ImageListing,
        form: ImageConfig,
        answers: Answers,
        device: torch.device,
    ) -> None:
        self.listing, self.form, self.answers = listing, form, answers
        decides = {"images": listing.fingerprint, "image": asdict(form), **answers.settings}
        super().__init__(config, trained, FileImages(listing.images, form), device, decides)

    def predict(self, pieces: Iterable[int]) -> Done:
        """Predicts the images of pieces; yields each with its receipt, once its files are there."""
        written: deque[tuple[int, range, list[Future[dict[str, Any]]]]] = deque()
        rows: list[dict[str, Any]] = []
        with (
            contextlib.closing(self.batches(pieces)) as batches,
            ThreadPoolExecutor(own_cores()) as writers,
        ):
            for read in itertools.chain(batches, [None]):
                if read is not None:
                    piece, numbers, batch = read
                    written.append((piece, numbers, self._submit(numbers, batch, writers)))
                while len(written) > (0 if read is None else _BATCHES_BEHIND):
                    piece, numbers, futures = written.popleft()
                    rows += [each.result() for each in futures]
                    if numbers.stop == self.images_of(piece).stop:
                        several = self.images.first_of_several.intersection(self.images_of(piece))
                        aside = self._set_aside(piece)
                        yield piece, {"rows": rows, "set_aside": aside, "several": len(several)}
                        rows = []

    def _submit(
        self, numbers: range, read: Batch, writers: ThreadPoolExecutor
    ) -> list[Future[dict[str, Any]]]:
        """Asks the network about a batch, and has the answers written."""
        with self.asking():
            answers = self.answers.ask(as_float(read, self.device)[0])
        return [
            writers.submit(self._write, number, answer)
            for number, answer in zip(numbers, answers, strict=True)
            if number in self.images.shapes
        ]

    def _write(self, number: int, answer: Any) -> dict[str, Any]:
        listed, shape = self.listing.images[number], self.images.shapes.pop(number)
        try:
            row = self.answers.row(listed, shape, answer, self.ledger.folder)
        except (NaktError, OSError) as error:
            fault = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(fault, OSError):
                raise
            raise NaktError(  # without its file, whose name is that of an image
                f"{self.output}: the files of an image cannot be written: {fault.strerror}. Mend "
                "that, or make room there, and run the same command again; what was finished is "
                "kept"
            ) from None
        about = (listed.name, *shape, listed.series, listed.slice)
        return dict(zip(self.answers.schema.names, about, strict=False)) | row

    def _set_aside(self, piece: int) -> list[tuple[int, str, str]]:
        problems = self.images.problems
        return [(each, *problems.pop(each)) for each in self.images_of(piece) if each in problems]


JOB = Prediction


def _predict(job: Prediction, stopwatch: Stopwatch) -> RunRecord:
    """Does this process's pieces; whoever finds all of them done writes tables and record."""
    size = (job.form.height, job.form.width)
    job.answers.trained = for_inference(job.trained, job.device, size)
    return job.do_pieces(job.predict, lambda speed: _finalise(job, stopwatch, speed))


def _finalise(job: Prediction, stopwatch: Stopwatch, speed: Mapping[str, float]) -> RunRecord:
    """Joins the pieces, checks that each image is there once, and writes tables and record."""
    output, ledger, listing = job.output, job.ledger, job.listing
    path, schema = output / PREDICTED_NAME, job.answers.schema
    write_table(path, schema, (each["rows"] for each in ledger.receipts()), ledger.folder)
    table = read_table(path, schema)
    several = sum(each.get("several", 0) for each in ledger.receipts())
    aside = {n: (why, detail) for one in ledger.receipts() for n, why, detail in one["set_aside"]}
    kept = [each for number, each in enumerate(listing.images) if number not in aside]
    if table["name"].to_pylist() != [each.name for each in kept]:
        raise DatasetError(f"{path}: its names are not those of the images, each once; delete it")
    refused = [(each.source, *(each.problem or ("", ""))) for each in listing.refused]
    refused += [(listing.images[number].source, *why) for number, why in sorted(aside.items())]
    _write_csv(output / PREDICTED_CSV, table, ledger.folder)
    _write_rows(output / SOURCES_NAME, ("name", "source"), [(e.name, e.source) for e in kept], job)
    _write_rows(output / SET_ASIDE_NAME, ("source", "reason", "detail"), refused, job)
    save_config(job.config, output, staging=ledger.folder)
    record = RunRecord(
        stage="predict",
        name=output.name,
        config=as_plain(job.config),
        inputs=job.identity,
        counts={
            "images": len(kept) + len(refused), "predicted": len(kept), "set_aside": len(refused),
            "left_out": listing.left_out,
            **({"first_of_several": several} if several else {}),
        },
        details={
            **job.trained.details(),
            "set_aside": dict(sorted(Counter(why for _, why, _ in refused).items())),
            "ignored_files": dict(listing.ignored),
            **job.answers.described,
        },
        seconds=stopwatch.seconds,
        speed=speed,
        versions=package_versions(),
    )  # fmt: skip
    record.write(output, ledger.folder)
    print(sentence(record), file=sys.stderr, flush=True)  # whichever rank this is
    return record


def _write_rows(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], job: Prediction
) -> None:
    """Writes texts as a table, with a header where there is no row, too."""
    values = list(zip(*rows, strict=True)) or [()] * len(columns)
    arrays = [pa.array(each, pa.string()) for each in values]
    _write_csv(path, pa.table(dict(zip(columns, arrays, strict=True))), job.ledger.folder)


def _write_csv(path: Path, table: pa.Table, staging: Path) -> None:
    """Writes a table; a path that a spreadsheet would run as a formula begins with ``./`` there."""
    for number, name in enumerate(table.schema.names):
        if name in ("name", "source"):
            marked = pc.replace_substring_regex(table[name], r"\A([=+\-@\t\r])", r"./\1")
            table = table.set_column(number, name, marked)
    with atomic_write(path, staging) as stream:
        pyarrow.csv.write_csv(table, stream)


def sentence(record: RunRecord) -> str:
    """Says how many images were predicted, and how many set aside for which reasons; no names."""
    counts = record.counts
    text = f"predict {record.name}: {counts['predicted']:,} of {counts['images']:,} images"
    if counts["set_aside"]:
        why = ", ".join(f"{reason} {n:,}" for reason, n in record.details["set_aside"].items())
        text += f"; {counts['set_aside']:,} set aside ({why}), see {SET_ASIDE_NAME}"
    if "first_of_several" in counts:
        text += (
            f"; of {counts['first_of_several']:,} the first picture alone, of several that their "
            "file holds (pages or frames)"
        )
    return text
