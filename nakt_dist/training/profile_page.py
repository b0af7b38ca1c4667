"""The page that says where the time of some training steps goes."""

from collections.abc import Iterator
from dataclasses import dataclass

from nakt_dist.report.document import (
    Bar,
    Block,
    Bullets,
    Column,
    Document,
    Notice,
    Paragraph,
    Section,
    Table,
    tabulate,
)
from nakt_dist.report.page import to_html
from nakt_dist.report.wording import show_count
from nakt_dist.training.phases import Phase
from nakt_dist.training.step_times import Operator, StepTimes

_MOST_OPERATORS = 10
_BETWEEN_STEPS = (Phase.CHECKPOINT, Phase.VALIDATION)
_GIB = 1024**3
_MEANING = {
    Phase.WAITING: "for images that are not read and decoded yet",
    Phase.COPY: "of images to the device",
    Phase.AUGMENTATION: "of the batch, on the device",
    Phase.FORWARD: "through network, teacher if any, and loss",
    Phase.BACKWARD: "with the exchange of gradients between processes",
    Phase.OPTIMISER: "with the look at whether gradients are numbers",
    Phase.LOGGING: "of losses, averaged over processes",
    Phase.CHECKPOINT: "copied, and waited for until the one before is on the disk",
    Phase.VALIDATION: "and the best weights copied",
    Phase.PEERS: "waited for before a step",
    Phase.IDLE: "what is left between these",
}
_MEANING_ON_GPU = _MEANING | {
    Phase.BACKWARD: "without the exchange of gradients",
    Phase.PEERS: "waited for, or gradients exchanged with them while nothing is computed",
    Phase.IDLE: "nothing to compute: the process had not launched it yet",
}
_ADVICE = (
    (Phase.WAITING, 0.1, "more workers, as long as there are free cores (the reader gets faster "
     "with each), a larger memory_cache_megabytes, so that more images stay decoded, or images "
     "packed no larger than the network needs them"),
    (Phase.COPY, 0.1, "larger micro-batches (recipe.micro_batch_size), which are copied at once"),
    (Phase.AUGMENTATION, 0.3, "a GPU, which augments whole batches; on a CPU more threads, or an "
     "augmentation without rotation and crop, which cost the most"),
    (Phase.LOGGING, 0.05, "a larger tracking.every_steps"),
    (Phase.CHECKPOINT, 0.1, "a larger checkpoint.every_steps or checkpoint.every_epochs, or an "
     "output on a faster disk"),
    (Phase.VALIDATION, 0.3, "a larger checkpoint.every_epochs, or fewer validation images"),
    (Phase.PEERS, 0.1, "processes that are equally fast: the same device, as many cores and the "
     "same distance to the data for each"),
)  # fmt: skip
_ADVICE_FOR_GPU = (
    Phase.IDLE, 0.2, "recipe.compile true, larger micro-batches (recipe.micro_batch_size) or a "
    "larger recipe.global_batch_size: the GPU is faster than the process can launch work",
)  # fmt: skip


@dataclass(frozen=True)
class RecordedSteps:
    """What was recorded of a run.

    Attributes:
        asked: how many steps should have been recorded.
        after: how many steps of the launch were passed over before.
        times: of the steps that were.
        operators: the most expensive first.
        images: in a step of all processes.
        peak_memory_bytes: most that the process held so far, of its GPU where it has one.
    """

    name: str
    asked: int
    after: int
    times: StepTimes
    operators: list[Operator]
    images: int
    peak_memory_bytes: int
    device: str
    processes: int


def to_page(recorded: RecordedSteps) -> str:
    """Writes one page of HTML: all of it inside, no script, nothing from outside."""
    steps = show_count(recorded.times.steps, "step")
    of_all = f", process 0 of {recorded.processes}" if recorded.processes > 1 else ""
    return to_html(
        Document(
            f"Where the time of {recorded.name} goes",
            f"{steps} recorded after {recorded.after} of warm-up, on {recorded.device}{of_all}",
            (
                Section("time", "Time of a step", tuple(_time(recorded))),
                Section("change", "What to change", tuple(_changes(recorded.times))),
                Section("operators", "Operators", (_operators(recorded),)),
                Section("trace", "Every moment", (Paragraph(_TRACE),)),
            ),
        )
    )


_TRACE = (
    "rank_0.json.gz beside this page holds every operator of these steps, for ui.perfetto.dev (the "
    "browser reads the file, and sends it nowhere) or chrome://tracing. No image, no key of one "
    "and no path is in it."
)


def _time(recorded: RecordedSteps) -> Iterator[Block]:
    times = recorded.times
    if times.steps < recorded.asked:
        yield Notice(
            f"The launch ended before all {recorded.asked} steps that profile.steps asks for were "
            f"recorded; this is about {times.steps}."
        )
    if recorded.device != "CPU" and not times.on_gpu:
        yield Notice(
            "The driver did not tell what the GPU does, so this is where the process spends its "
            "time: it waits for the GPU where it needs a result."
        )
    yield Bar("Shares of a step", tuple((str(each), times.share(each)) for each in Phase))
    yield _shares(times)
    memory = recorded.peak_memory_bytes / _GIB
    learning = times.step_seconds - sum(times.seconds[phase] for phase in _BETWEEN_STEPS)
    yield Bullets((
        f"{recorded.images / learning:,.1f} images/s of all processes while recording, checkpoints "
        "and validation not counted. Recording slows steps of many small operators; pace.jsonl "
        "tells the speed of all steps",
        f"{memory:.2f} GiB is the most memory that the {'GPU' if times.on_gpu else 'process'} "
        "held for the run so far",
    ))  # fmt: skip
    if validation := times.seconds[Phase.VALIDATION]:
        yield Paragraph(
            f"Validation took {validation * times.steps:.2f} s of these "
            f"{show_count(times.steps, 'step')}. Of the whole run its share is another: it comes "
            "once in checkpoint.every_epochs epochs, however many steps these have."
        )
    else:
        yield Paragraph(
            "No validation fell into these steps. What it takes, steps around the end of an epoch "
            "show: set profile.after to a few steps less than an epoch has."
        )


def _shares(times: StepTimes) -> Table:
    meaning = _MEANING_ON_GPU if times.on_gpu else _MEANING
    columns = (
        Column("phase", str),
        Column("share", lambda phase: f"{100 * times.share(phase):.1f} %"),
        Column("ms per step", lambda phase: f"{1000 * times.seconds[phase]:.2f}"),
        Column("what it is", lambda phase: meaning[phase], minor=True),
    )
    remark = (
        "A phase's time is that in which the GPU computes for it; those that leave it nothing to "
        "compute count where it computes nothing. Work without a phase counts as idle."
        if times.on_gpu
        else "Each moment counts once, for the innermost phase that the process is in."
    )
    return tabulate("Shares and milliseconds", columns, Phase, [remark])


def _changes(times: StepTimes) -> list[Block]:
    advice = [*_ADVICE, *([_ADVICE_FOR_GPU] if times.on_gpu else [])]
    found = tuple(
        f"{phase} takes {100 * times.share(phase):.0f} % of these steps. Less of it: {change}."
        for phase, threshold, change in advice
        if times.share(phase) > threshold
    )
    if found:
        return [Bullets(found)]
    return [
        Paragraph(
            "Nothing stands out: the time goes into computing. More processes, smaller images or a "
            "smaller network take less of it, and so do recipe.precision and channels_last auto, "
            "where a recipe has pinned others."
        )
    ]


def _operators(recorded: RecordedSteps) -> Table:
    total = sum(each.seconds for each in recorded.operators) or 1.0
    columns = (
        Column("operator", lambda each: each.name),
        Column("calls per step", lambda each: f"{each.calls:.1f}"),
        Column("ms per step", lambda each: f"{1000 * each.seconds:.3f}"),
        Column("share", lambda each: f"{100 * each.seconds / total:.1f} %"),
    )
    whose = "the GPU" if recorded.times.on_gpu else "the process"
    remark = (
        f"Time of {whose} in the operator itself, without those that it calls; share of the time "
        "of all operators."
    )
    most = recorded.operators[:_MOST_OPERATORS]
    return tabulate("The ten most expensive", columns, most, [remark])
