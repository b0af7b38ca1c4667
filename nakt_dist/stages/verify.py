"""``nakt verify``: re-reads a packed dataset or pseudo-labels, and can rebuild what is damaged."""

import json
import tempfile
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from nakt_dist.config import CONFIG_NAME, VerifyConfig, as_plain
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.records.run_record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.files import differing_fields, file_sha256, remove
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.work import WorkLedger, sole_user
from nakt_dist.shards.manifest import INDEX_NAME, AnyManifest, ShardEntry, ShardManifest
from nakt_dist.shards.tables import INDEX_SCHEMA, read_table
from nakt_dist.shards.verify import Damage, verify_folder
from nakt_dist.stages.opening import NotOpened, Opening
from nakt_dist.stages.pack_divide import ShardPlan, divide
from nakt_dist.stages.pack_finish import write_tables
from nakt_dist.stages.pack_passes import judge_masks, prepare_all, write_shards
from nakt_dist.stages.pack_plan import PackInput, PackPlan, make_plan
from nakt_dist.stages.pack_pool import Workers
from nakt_dist.stages.pack_sources import SOURCES_NAME, find_changes


def run(config: VerifyConfig) -> RunRecord:
    """Checks every byte; with ``repair``, rebuilds what is damaged and checks again.

    Raises:
        DatasetError: something is damaged (all of it is printed first) and not repaired, or
            there is no manifest.
    """
    require_one_process("verify")
    stopwatch = Stopwatch()
    folder = Path(config.folder)
    manifest = plan(config, Opening())
    damages = _check(folder, manifest.num_samples)
    repaired: list[str] = []
    if damages and config.repair:
        if not isinstance(manifest, ShardManifest):
            raise DatasetError(
                f"{folder}: damaged pseudo-labels are mended by running the same nakt teach "
                "again, which rebuilds only those shards"
            )
        with sole_user(folder, "repair"):
            repaired = _repair(config, folder, manifest, damages)
        damages = _check(folder, manifest.num_samples)
    if config.against_source:
        _compare_with_source(config, folder, manifest)
    if damages:
        first = "; ".join(str(damage) for damage in damages[:3])
        raise DatasetError(
            f"{folder}: {len(damages)} damaged: {first}. Run nakt verify with --repair true, "
            "or pack again"
        )
    say(
        f"verify: {folder} is whole: {manifest.num_samples} samples in {len(manifest.shards)} "
        f"shards, fingerprint {manifest.fingerprint[:12]}"
    )
    return RunRecord(
        stage="verify",
        name=folder.name,
        config=as_plain(config),
        counts={"samples": manifest.num_samples, "repaired_files": len(repaired)},
        details={"fingerprint": manifest.fingerprint, "repaired": repaired},
        seconds=stopwatch.seconds,
        versions=package_versions(),
    )


def plan(config: VerifyConfig, opening: Opening) -> AnyManifest:
    """Reads the manifest of what is to be verified."""
    with opening.part("data"):
        return opening.tell_folder(config.folder)
    raise NotOpened


def _compare_with_source(config: VerifyConfig, folder: Path, manifest: AnyManifest) -> None:
    """Reads the published dataset and compares it with what was packed."""
    if not isinstance(manifest, ShardManifest):
        raise ConfigurationError(
            f"{folder}: holds pseudo-labels, which have no published dataset; verify the dataset "
            "that they were made for with --against_source true"
        )
    plan = _plan_again(config, folder, manifest)
    say(f"verify: {len(plan.inputs)} inputs in {plan.config.source} are as they were packed")


def _check(folder: Path, samples: int) -> list[Damage]:
    with progress_bar("verify samples", samples) as advance:
        damages = list(verify_folder(folder, advance))
    for damage in damages:
        say(f"damaged: {damage}")
    return damages


def _repair(
    config: VerifyConfig, folder: Path, manifest: ShardManifest, damages: list[Damage]
) -> list[str]:
    """Packs damaged shards again into a folder aside, and moves over what is as it was."""
    names = {damage.file for damage in damages}
    _refuse_what_is_in_the_way(folder, manifest, names)
    plan = _plan_again(config, folder, manifest)
    expected = {entry.name: entry.sha256 for entry in manifest.shards} | dict(manifest.files)
    repaired = []
    for left in folder.glob(".repair-*"):  # by a repair that was killed
        remove(left)
    with tempfile.TemporaryDirectory(prefix=".repair-", dir=folder) as aside:
        _rebuild(plan, manifest, folder, Path(aside), names)
        for name in sorted(names):
            rebuilt = Path(aside, name)
            if not rebuilt.is_file() or file_sha256(rebuilt) != expected[name]:
                raise DatasetError(
                    f"{folder}: {name} packed again differs from the manifest: the source, or a "
                    "library that decodes it, has changed. Pack into a new folder instead"
                )
            rebuilt.replace(folder / name)
            say(f"repaired: {name}")
            repaired.append(name)
    return repaired


def _rebuild(
    plan: PackPlan, manifest: ShardManifest, folder: Path, aside: Path, names: set[str]
) -> None:
    """Packs aside what is damaged, or everything where a table is: it needs all of it."""
    ledger = WorkLedger(aside / ".pack", {}, 0)
    ledger.open()
    with Workers(plan.config.workers) as workers:
        rule, _ = judge_masks(plan, ledger.folder, workers)
        if names & manifest.files.keys():
            prepared, _ = prepare_all(plan, rule, ledger.folder, workers)
            shards, _ = divide(plan, prepared)
        else:
            some, members = _inputs_of_shards(plan, manifest, folder, names)
            prepared, _ = prepare_all(some, rule, ledger.folder, workers)
            made = {each.key: each for each in prepared if each.reason is None}
            shards = [
                ShardPlan(entry.name, entry.split, inputs, tuple(made[each.key] for each in inputs))
                for entry, inputs in members
                if all(each.key in made for each in inputs)
            ]
        ledger.pieces = len(shards)
        write_shards(shards, aside, ledger, workers)
    if names & manifest.files.keys():
        rows = (receipt["rows"] for receipt in ledger.receipts())
        write_tables(aside, plan, prepared, rows, ledger.folder)


def _inputs_of_shards(
    plan: PackPlan, manifest: ShardManifest, folder: Path, names: set[str]
) -> tuple[PackPlan, list[tuple[ShardEntry, tuple[PackInput, ...]]]]:
    """Returns the inputs of some shards by the index, together and by shard in their order."""
    index = read_table(folder / INDEX_NAME, INDEX_SCHEMA, most_rows=manifest.num_samples)
    by_key = {each.key: each for each in plan.inputs}
    members: dict[int, list[PackInput]] = defaultdict(list)
    for key, shard in zip(index["key"].to_pylist(), index["shard"].to_pylist(), strict=True):
        if manifest.shards[shard].name in names and key in by_key:
            members[shard].append(by_key[key])
    together = tuple(each for inputs in members.values() for each in inputs)
    shards = [(manifest.shards[number], tuple(inputs)) for number, inputs in members.items()]
    return replace(plan, inputs=together), shards


def _refuse_what_is_in_the_way(folder: Path, manifest: ShardManifest, names: set[str]) -> None:
    """Refuses damage that no packing mends: stray files, and folders where files belong."""
    known = {entry.name for entry in manifest.shards}
    stray = sorted(names - known - set(manifest.files))
    if stray:
        raise DatasetError(f"{folder}: {', '.join(stray)} cannot be rebuilt; remove or restore it")
    for name in sorted(names):
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            raise DatasetError(
                f"{folder}: {name} is a folder where a file belongs; remove or rename it, then "
                "repair again"
            )


def _plan_again(config: VerifyConfig, folder: Path, manifest: ShardManifest) -> PackPlan:
    """Plans the packing as it was, from the configuration saved beside the shards, if it can."""
    from nakt_dist.cli import parse_config

    if not (folder / CONFIG_NAME).is_file():
        raise ConfigurationError(f"{folder / CONFIG_NAME}: absent; the repair needs it")
    arguments = [f"--config={folder / CONFIG_NAME}", f"--output={folder}"]
    if config.source is not None:
        arguments.append(f"--source={config.source}")
    elif "deidentified" in manifest.config:
        raise ConfigurationError(
            f"{folder}: was packed with deidentify, so it does not say from where; give the "
            "dataset as published with --source, and the key with --deidentify_key"
        )
    for name in ("workers", "deidentify_key"):
        if getattr(config, name) is not None:
            arguments.append(f"--{name}={getattr(config, name)}")
    _check_options(config, folder, manifest)
    pack_config = parse_config("pack", arguments)
    options = {**pack_config.layout_options, **config.layout_options}
    pack_config = replace(pack_config, layout_options=options)
    plan = make_plan(pack_config)
    if plan.settings.get("deidentified") != manifest.config.get("deidentified"):
        raise ConfigurationError(
            f"{pack_config.deidentify_key}: is another key than the one {folder} was packed with; "
            "give that one with --deidentify_key"
        )
    if json.loads(json.dumps(plan.settings)) != manifest.config:
        what = "; ".join(differing_fields(manifest.config, plan.settings)[:5])
        raise DatasetError(f"{folder}: its settings beside the shards were edited ({what})")
    if SOURCES_NAME not in manifest.damaged_files(folder):
        changes, _ = find_changes(folder, plan, "all" if config.against_source else "none")
        if changes:
            raise DatasetError(
                f"{pack_config.source}: is not as it was when {folder} was packed from it: "
                f"{changes}. Pack into a new folder, or give the right source with --source"
            )
    return plan


def _check_options(config: VerifyConfig, folder: Path, manifest: ShardManifest) -> None:
    given = sorted(config.layout_options)
    wanted = manifest.config.get("layout_options_left_out", [])
    if given != wanted:
        raise ConfigurationError(
            f"{folder}: layout_options gives {given}; expected {wanted}, which packing with "
            "deidentify left out of its settings. Give each as --layout_options.NAME VALUE, as "
            "it was packed with"
        )
