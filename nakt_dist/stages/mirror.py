"""``nakt mirror``: runs that are on disk, shown in W&B, TensorBoard or trackio."""

from collections.abc import Callable
from pathlib import Path

from nakt_dist.config import MirrorConfig, as_plain
from nakt_dist.errors import DatasetError
from nakt_dist.mirroring.glance import StudyGlance, glance_at
from nakt_dist.mirroring.runs import find_runs
from nakt_dist.mirroring.sending import send_all, send_studies, shown_by
from nakt_dist.mirroring.sent import Sent, SentFiles
from nakt_dist.mirroring.target import Place, Target
from nakt_dist.mirroring.to_tensorboard import TensorBoardTarget
from nakt_dist.mirroring.to_trackio import TrackioTarget
from nakt_dist.mirroring.to_wandb import WandbTarget
from nakt_dist.mirroring.workspace import save_workspace
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.runtime.wandb_check import check_account
from nakt_dist.runtime.wandb_run import default_entity
from nakt_dist.runtime.work import sole_user
from nakt_dist.stages.opening import Opening

TARGETS: dict[str, Callable[[Place], Target]] = {
    "wandb": WandbTarget,
    "tensorboard": TensorBoardTarget,
    "trackio": TrackioTarget,
}
_FOLDER_NAME = ".mirror"
_MOST_NAMED = 5


def run(config: MirrorConfig) -> RunRecord:
    """Sends what is new of all runs below the folders; may be called again and again.

    Raises:
        ConfigurationError: the tracker is not installed, or lacks a key; several processes.
        DatasetError: a folder does not exist or holds no run, or another mirror is at work.
        NaktError: the tracker does not work.
    """
    require_one_process("mirror")
    stopwatch = Stopwatch()
    output = plan(config, Opening())
    left_out: list[str] = []
    runs = list(find_runs(config.runs, left_out))
    if not runs and not left_out:
        raise DatasetError(f"{', '.join(config.runs)}: holds no run; give folders that do")
    output.mkdir(parents=True, exist_ok=True)
    tags = tuple(config.tags)
    place = Place(output, config.wandb, config.project, config.entity, config.group, tags)
    destination = {"to": config.to, "project": config.project, "entity": config.entity}
    how = shown_by({"group": config.group, "tags": config.tags})
    name = f"wandb-{config.wandb}" if config.to == "wandb" else config.to
    with sole_user(output, "mirror"):
        target = TARGETS[config.to](place)
        known = SentFiles(output / name, destination)
        counts = send_all(runs, target, known, how, left_out)
        studies = glance_at(runs)
        send_studies(studies, target, known, how)
        if config.workspace:
            _save_workspaces(studies, config, known)
        told = target.close()
    for reason in left_out[:_MOST_NAMED]:
        say(f"mirror: left out: {reason}")
    if len(left_out) > _MOST_NAMED:
        say(f"mirror: left out: {len(left_out) - _MOST_NAMED:,} more")
    found = ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
    say(f"mirror: {len(runs):,} runs: {found or 'none sent'}; {told}")
    return RunRecord(
        stage="mirror",
        name=output.name,
        config=as_plain(config),
        counts={"runs": len(runs), "left_out": len(left_out), **counts},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def _save_workspaces(studies: list[StudyGlance], config: MirrorConfig, known: SentFiles) -> None:
    """Saves a view of each study that has none yet, and says where it is."""
    for study in studies:
        place = f"workspace of {study.place}"
        if known.read(place) is None:
            entity = config.entity or default_entity()
            address = save_workspace(study, config.project, entity)
            known.write(place, Sent(address))
            say(f"mirror: a workspace of study {study.plan.name}: {address}")


def plan(config: MirrorConfig, opening: Opening) -> Path:
    """Looks whether there are folders, and what W&B would refuse.

    Returns:
        The folder for the tracker's files.
    """
    for folder in config.runs:
        with opening.part("runs"):
            if not Path(folder).is_dir():
                raise DatasetError(f"{folder}: no such folder; expected one that holds runs")
    if config.to == "wandb":
        with opening.part("W&B"):
            check_account(config.wandb, "wandb")
    output = Path(config.output) if config.output else Path(config.runs[0]) / _FOLDER_NAME
    opening.facts["mirror"] = f"to {config.to}, files in {output}"
    return output
