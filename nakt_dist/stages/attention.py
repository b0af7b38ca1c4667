"""``nakt attention``: where a student and its teacher look, side by side, and how alike that is."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from nakt_dist.config import AttentionConfig, as_plain, save_config
from nakt_dist.drawing.attention import draw_attention_sheet
from nakt_dist.errors import ConfigurationError, nearest_name
from nakt_dist.evaluation.attention_maps import (
    MEASURES,
    AttentionReader,
    mean_or_none,
    similarities,
    summarise_similarity,
)
from nakt_dist.evaluation.attention_sheet import (
    ClassActivation,
    ShownFindings,
    ShownImages,
    attention_rows,
)
from nakt_dist.evaluation.image_choice import choose_images, choose_other_images
from nakt_dist.evaluation.image_metadata import read_metadata
from nakt_dist.evaluation.network_lineage import choose_taps, is_taught_by
from nakt_dist.loading.samples import SelectedSamples, image_form, select_samples
from nakt_dist.loading.targets import output_names
from nakt_dist.models.network_file import TrainedNetwork
from nakt_dist.models.registry import is_classifier
from nakt_dist.records.evaluation_set import EvaluationSet
from nakt_dist.records.fields import label_dataset
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.report.attention import draw_similarity
from nakt_dist.runtime.devices import choose_device, explain_full_memory
from nakt_dist.runtime.files import write_bytes
from nakt_dist.runtime.outputs import check_output
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.shards.tables import write_table
from nakt_dist.sources.findings import NO_FINDING, canonical_finding
from nakt_dist.stages.opening import NotOpened, Opening

SHEET_NAME = "attention.png"
TABLE_NAME = "attention.parquet"
_LABELS_SHOWN = 4

ATTENTION_SCHEMA = pa.schema(
    [("key", pa.string()), *((measure, pa.float64()) for measure in MEASURES)]
)
"""One row per image measured, in the order of the dataset; null where there is no similarity."""


def run(config: AttentionConfig) -> RunRecord:
    """Draws the attention of two networks, and measures how alike it is.

    Writes ``attention.png``, which shows images and stays where it is, ``attention.parquet``
    with the similarity of every image, and, where the dataset has findings,
    ``attention-similarity.png``. Everything is computed before the first file is written.

    Raises:
        ConfigurationError: a layer, a label or a key is unknown, or the stage was started as
            several processes.
        DatasetError: the dataset is absent or damaged, or the output is another stage's.
        CheckpointError: weights cannot be used.
    """
    require_one_process("attention")
    stopwatch = Stopwatch()
    output = Path(config.output)
    check_output(output, "attention")
    device = choose_device(config.device, config.threads)
    opening = Opening()
    config, samples, reader = plan(config, opening)
    opening.say("attention")
    student, teacher, manifest = reader.student, reader.teacher, samples.images.manifest
    for network in (student.network, teacher.network):
        network.to(device)
    images = ShownImages(samples)
    with explain_full_memory(
        str(output), f"Lower batch_size (now {config.batch_size}), or set --device cpu"
    ):
        sheet, shown = _draw_sheet(config, images, reader, device)
        rows = _measure(config, images, reader, device)
    labels = _summarise(samples, rows)
    figure = draw_similarity(labels, student.name)

    output.mkdir(parents=True, exist_ok=True)
    write_bytes(output / SHEET_NAME, sheet)
    if figure is not None:
        write_bytes(output / figure.name, figure.png)
    write_table(output / TABLE_NAME, ATTENTION_SCHEMA, [rows], None)
    save_config(config, output)
    record = RunRecord(
        stage="attention",
        name=output.resolve().name,
        # Keys can name patients: the record, which is passed on, says how many were asked for.
        config={**as_plain(config), "samples": config.samples and len(config.samples)},
        inputs={
            "weights_sha256": student.weights_sha256,
            "teacher_weights_sha256": teacher.weights_sha256,
            "dataset_fingerprint": manifest.fingerprint,
        },
        counts={"images": len(rows), "images_shown": shown["images"]},
        metrics={f"{name}_mean": mean_or_none(_column(rows, name)) for name in MEASURES},
        details={
            "labels": labels,
            "sheet": SHEET_NAME,
            "figure": figure.name if figure is not None else None,
            "taps": [{"student": tap[0], "teacher": tap[1]} for tap in reader.taps],
            "class_activation": shown["class_activation"],
            **student.details(),
            "teacher": {
                "name": teacher.name,
                "weights_sha256": teacher.weights_sha256,
                "model": teacher.spec.name,
                "taught_this_student": is_taught_by(student, teacher),
            },
            "test_set": EvaluationSet.of(
                manifest, config.splits, image_form(manifest).fit
            ).to_json(),
        },
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )
    record.write(output)
    say(_sentence(record, output))
    return record


def plan(
    config: AttentionConfig, opening: Opening
) -> tuple[AttentionConfig, SelectedSamples, AttentionReader]:
    """Opens networks and images, and checks that they belong together.

    Returns:
        The settings with what both networks see, the images, and the networks, on the CPU.
    """
    student = opening.network("student", config.student, config.student.name)
    teacher = opening.network("teacher", config.teacher, config.teacher.name)
    with opening.part("student"):
        if student is not None:
            student.require_weights(config.student.weights, "the student of nakt attention")
    with opening.part("data"):
        cache = opening.cache or config.cache
        samples = select_samples(config.dataset, config.splits, cache=cache)
        opening.tell_samples("data", samples, config.dataset, config.splits)
        if student is not None and teacher is not None:
            form = image_form(samples.images.manifest)
            opening.note(*(f"student {notice}" for notice in student.describe(form)))
            opening.note(*(f"teacher {notice}" for notice in teacher.describe(form)))
            with opening.part("taps"):
                reader = AttentionReader(student, teacher, choose_taps(config, student, teacher))
                one, other = (
                    replace(shown, preprocessing=network.preprocessing)
                    for shown, network in ((config.student, student), (config.teacher, teacher))
                )
                return replace(config, student=one, teacher=other), samples, reader
    raise NotOpened


def _draw_sheet(
    config: AttentionConfig, images: ShownImages, reader: AttentionReader, device: torch.device
) -> tuple[bytes, dict[str, Any]]:
    """Draws the sheet; says how many images it shows and which kind of class activation."""
    student, teacher, taps = reader.student, reader.teacher, reader.taps
    manifest = images.samples.images.manifest
    said: Sequence[Mapping[str, int] | None] = [None] * len(images.samples)
    if manifest.findings:
        said = images.samples.images.findings()
    findings = _choose_findings(config, student, manifest.findings, said)
    numbers = _choose_numbers(config, images.samples, findings)
    activation, kind = None, None
    if findings.outputs:
        activation = ClassActivation(student, taps[-1][0], images.pixels(numbers[:2], device))
        kind = "exact" if activation.is_exact else "gradient"
    rows = attention_rows(reader, activation, images, numbers, findings, device, config.batch_size)
    joined = "its teacher" if is_taught_by(student, teacher) else "the network"
    sheet = draw_attention_sheet(
        f"Attention of the student “{student.name}” and of {joined} “{teacher.name}” on "
        f"{label_dataset(manifest.dataset, manifest.phantom)}",
        _notes(taps, kind),
        list(findings.outputs),
        list(rows),
    )
    return sheet, {"images": len(numbers), "class_activation": kind}


def _notes(taps: Sequence[tuple[str, str]], kind: str | None) -> list[str]:
    layers = "; ".join(f"{student} (student) and {teacher} (teacher)" for student, teacher in taps)
    notes = [f"Attention: mean of squares over the channels of {layers}"]
    if kind is not None:
        notes.append(
            "Class activation: what each place adds to the student's logit, on one scale per "
            "image; the logit's bias is no part of it"
            if kind == "exact"
            else "Class activation: Grad-CAM of the student's logit there, on one scale per image"
        )
        notes.append(
            "Below it: the student's probability, and what the dataset says (bold: present)"
        )
    return notes


def _choose_findings(
    config: AttentionConfig,
    student: TrainedNetwork,
    known: tuple[str, ...],
    said: Sequence[Mapping[str, int] | None],
) -> ShownFindings:
    """Chooses the findings whose class activation is shown; those asked for must be outputs."""
    names: tuple[str, ...] = ()
    if is_classifier(student.spec.name):
        told = config.student
        names = output_names(student, told.weights, told.labels, "student.labels") or ()
    asked = [name if name in names else canonical_finding(name) for name in config.labels or ()]
    for label in asked:
        if asked.count(label) > 1:
            raise ConfigurationError(f"labels has '{label}' twice; leave it there once")
        if label not in names:
            answers = f"answers {', '.join(names)}" if names else "does not say what it answers"
            raise ConfigurationError(
                f"labels has '{label}'{nearest_name(label, names)}, but the student "
                f"'{student.name}' {answers}. Name one of its outputs, or set student.labels to "
                "the names of all its outputs in order"
            )
    shown = asked or _most_frequent(names, said)
    return ShownFindings({name: names.index(name) for name in shown}, said, known)


def _most_frequent(names: Sequence[str], said: Sequence[Mapping[str, int] | None]) -> list[str]:
    """Returns the outputs with most positive images, in the order of the outputs."""
    counts = dict(zip(names, _present(said, names).sum(0).tolist(), strict=True))
    findings = [name for name in names if name != NO_FINDING] or list(names)
    chosen = sorted(findings, key=counts.__getitem__, reverse=True)[:_LABELS_SHOWN]
    return [name for name in names if name in chosen]


def _present(said: Sequence[Mapping[str, int] | None], names: Sequence[str]) -> np.ndarray:
    """Returns which finding the dataset calls present in which image, bool (N, K)."""
    present = np.zeros((len(said), len(names)), dtype=bool)
    for row, findings in enumerate(said):
        present[row] = [(findings or {}).get(name) == 1 for name in names]
    return present


def _choose_numbers(
    config: AttentionConfig, samples: SelectedSamples, findings: ShownFindings
) -> list[int]:
    """Chooses the images of the sheet; keys asked for must be among the samples."""
    if config.samples is None:
        return choose_images(
            _present(findings.said, list(findings.outputs)), config.images, config.seed
        )
    rows = {key: row for row, key in enumerate(samples.images.keys)}
    for key in config.samples:
        if key not in rows:
            raise ConfigurationError(
                f"samples has '{key}', which is not in splits {config.splits or 'all'} of "
                f"{config.dataset}; index.parquet there lists the keys"
            )
    return [rows[key] for key in config.samples]


def _measure(
    config: AttentionConfig, images: ShownImages, reader: AttentionReader, device: torch.device
) -> list[dict[str, Any]]:
    """Measures every image, or as many as asked for; returns a row for each, and its number."""
    samples = images.samples
    order = np.random.Generator(np.random.PCG64(config.seed)).permutation(len(samples))
    numbers = np.sort(order[: config.similarity_images]).tolist()
    # Another patient's image for each, which does not depend on how many are measured.
    metadata = read_metadata(samples.images)
    patients, views = ([each[name] for each in metadata] for name in ("patient_id", "view"))
    others = choose_other_images(patients, views, config.seed)
    keys = samples.images.keys
    rows: list[dict[str, Any]] = []
    with progress_bar("attention", len(numbers)) as advance:
        for start in range(0, len(numbers), config.batch_size):
            batch = numbers[start : start + config.batch_size]
            chosen = [number if (n := others[number]) is None else n for number in batch]
            image, other = images.pixels(batch, device), images.pixels(chosen, device)
            measured = similarities(reader.read(image, other))
            for place, number in enumerate(batch):
                values = {name: measured[name][place] for name in MEASURES}
                if others[number] is None:
                    values["similarity_to_other_image"] = np.nan
                known = {name: None if np.isnan(v) else float(v) for name, v in values.items()}
                rows.append({"number": number, "key": keys[number], **known})
            advance(len(batch))
    return rows


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    return np.asarray([row[name] for row in rows], dtype=np.float64)  # None becomes NaN


def _summarise(samples: SelectedSamples, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Averages the similarity over the positive images of each of the dataset's findings."""
    names = samples.images.manifest.findings
    if not names:
        return []
    said = samples.images.findings()
    present = _present([said[row["number"]] for row in rows], names)
    similarity, other = (_column(rows, name) for name in MEASURES[:2])
    return summarise_similarity(similarity, other, present, names)


def _sentence(record: RunRecord, output: Path) -> str:
    """Says in one line what came out."""
    mean, other = (record.metrics[f"{name}_mean"] for name in MEASURES[:2])
    if mean is None:
        return f"attention {record.name}: no image on which both networks have attention"
    beside = f" ({other:.3f} to another patient's image)" if other is not None else ""
    return (
        f"attention {record.name}: similarity {mean:.3f}{beside} over "
        f"{record.counts['images']} images. Written to {output}"
    )
