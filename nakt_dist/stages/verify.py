"""``nakt verify``: re-reads a packed dataset or pseudo-labels, and can rebuild what is damaged."""

import tempfile
from dataclasses import replace
from pathlib import Path

from nakt_dist.config import CONFIG_NAME, PackConfig, VerifyConfig, as_plain
from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.runtime.files import file_sha256, remove
from nakt_dist.runtime.processes import require_one_process, say
from nakt_dist.runtime.progress import progress_bar
from nakt_dist.runtime.record import RunRecord, Stopwatch, package_versions
from nakt_dist.runtime.work import WorkLedger, sole_user
from nakt_dist.shards.manifest import INDEX_NAME, REJECTED_NAME, ShardManifest
from nakt_dist.shards.tables import INDEX_SCHEMA, REJECTED_SCHEMA, write_table
from nakt_dist.shards.verify import Damage, read_any_manifest, verify_folder
from nakt_dist.stages.pack import LEDGER_NAME, write_shards
from nakt_dist.stages.pack_masks import judge_masks
from nakt_dist.stages.pack_plan import PackPlan, make_plan


def run(config: VerifyConfig) -> RunRecord:
    """Checks every byte; with ``repair``, rebuilds what is damaged and checks again.

    Raises:
        DatasetError: something is damaged (all of it is printed first) and not repaired, or
            there is no manifest.
    """
    require_one_process("verify")
    stopwatch = Stopwatch()
    folder = Path(config.folder)
    manifest = read_any_manifest(folder)
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


def _check(folder: Path, samples: int) -> list[Damage]:
    with progress_bar("verify samples", samples) as advance:
        damages = list(verify_folder(folder, advance))
    for damage in damages:
        say(f"damaged: {damage}")
    return damages


def _repair(
    config: VerifyConfig, folder: Path, manifest: ShardManifest, damages: list[Damage]
) -> list[str]:
    """Packs damaged shards again into a folder aside, and moves over what is as it was.

    Raises:
        DatasetError: the source gives other bytes now, or a stray file or folder is in the way.
    """
    names = {damage.file for damage in damages}
    _refuse_what_is_in_the_way(folder, manifest, names)
    plan, pack_config = _plan_again(config, folder, manifest)
    plan = judge_masks(pack_config, plan)
    tables = {name for name in manifest.files if name in names}
    # A table needs the receipts of all shards; they are packed aside and most thrown away.
    wanted = [number for number, shard in enumerate(plan.shards) if tables or shard.name in names]
    repaired = []
    for left in folder.glob(".repair-*"):  # by a repair that was killed
        remove(left)
    with tempfile.TemporaryDirectory(prefix=".repair-", dir=folder) as aside:
        rebuilt = Path(aside)
        ledger = WorkLedger(rebuilt / LEDGER_NAME, plan.identity, len(plan.shards))
        ledger.open()
        list(write_shards(pack_config, plan, rebuilt, ledger, wanted))
        if tables:
            _write_tables(rebuilt, ledger)
        expected = {entry.name: entry.sha256 for entry in manifest.shards} | dict(manifest.files)
        for name in sorted(names):
            if file_sha256(rebuilt / name) != expected[name]:
                raise DatasetError(
                    f"{folder}: {name} packed again differs from the manifest: the source, or a "
                    "library that decodes it, has changed. Pack into a new folder instead"
                )
            (rebuilt / name).replace(folder / name)
            say(f"repaired: {name}")
            repaired.append(name)
    return repaired


def _refuse_what_is_in_the_way(folder: Path, manifest: ShardManifest, names: set[str]) -> None:
    """Refuses damage that no packing mends.

    Raises:
        DatasetError: a damaged file is not one of the dataset's, or a folder has its name.
    """
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


def _plan_again(
    config: VerifyConfig, folder: Path, manifest: ShardManifest
) -> tuple[PackPlan, PackConfig]:
    """Plans the packing as it was, from the configuration saved beside the shards.

    Raises:
        DatasetError: the plan differs: the source has other files now.
        ConfigurationError: the saved configuration is gone, or the source, the key or an option
            of a de-identified dataset is wanting.
    """
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
    plan = make_plan(pack_config, may_make_key=False)
    if plan.identity.get("deidentified") != manifest.config.get("deidentified"):
        raise ConfigurationError(
            f"{pack_config.deidentify_key}: is another key than the one {folder} was packed with; "
            "give that one with --deidentify_key"
        )
    if plan.identity != manifest.config:
        raise DatasetError(
            f"{pack_config.source}: its files are not those the dataset was packed from; "
            "give the right one with --source"
        )
    return plan, pack_config


def _check_options(config: VerifyConfig, folder: Path, manifest: ShardManifest) -> None:
    given = sorted(config.layout_options)
    wanted = manifest.config.get("layout_options_left_out", [])
    if given != wanted:
        raise ConfigurationError(
            f"{folder}: layout_options gives {given}; expected {wanted}, which packing with "
            "deidentify left out of its settings. Give each as --layout_options.NAME VALUE, as "
            "it was packed with"
        )


def _write_tables(folder: Path, ledger: WorkLedger) -> None:
    for name, schema, field in (
        (INDEX_NAME, INDEX_SCHEMA, "rows"),
        (REJECTED_NAME, REJECTED_SCHEMA, "rejected"),
    ):
        pieces = (ledger.receipt(number)[field] for number in range(ledger.pieces))
        write_table(folder / name, schema, pieces, ledger.folder)
