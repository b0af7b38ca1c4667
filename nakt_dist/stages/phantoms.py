"""``nakt phantoms``: writes a procedural dataset in the layout of a published one."""

from pathlib import Path

from nakt_dist.config import PhantomsConfig, as_plain
from nakt_dist.phantoms import write_phantom_dataset
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.files import naming
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.stages.opening import Opening


def plan(config: PhantomsConfig, opening: Opening) -> None:
    """Opens nothing: phantoms are made of their settings alone."""


def run(config: PhantomsConfig) -> RunRecord:
    """Writes phantoms, or nothing when they are there already.

    Raises:
        ConfigurationError: the kind is unknown.
        DatasetError: the folder holds something else.
        NaktError: its disk is full.
    """
    require_one_process("phantoms")
    stopwatch = Stopwatch()
    output = Path(config.output)
    with naming(output):
        summary = write_phantom_dataset(
            config.kind, output, config.count, config.image_size, config.seed
        )
    say(
        f"phantoms {summary.kind}: {summary.images} procedural images in {config.output} "
        f"(layout {summary.layout}), {summary.with_target} with a target"
    )
    return RunRecord(
        stage="phantoms",
        name=summary.kind,
        config=as_plain(config),
        counts={"images": summary.images, "with_target": summary.with_target},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )
