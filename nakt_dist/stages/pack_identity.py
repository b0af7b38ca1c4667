"""What decides the bytes of a packed dataset: its settings, its inputs, and the key if any."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nakt_dist.config import PackConfig, as_plain
from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.key_file import make_key, read_key
from nakt_dist.runtime.processes import say
from nakt_dist.sources import SourceRecord
from nakt_dist.sources.deidentification import METHOD, PATH_OPTIONS, Pseudonyms
from nakt_dist.sources.table_columns import identifying_filters

_NOT_IN_THE_BYTES = ("source", "output", "workers", "card", "deidentify", "deidentify_key")


def open_pseudonyms(config: PackConfig, may_make_key: bool) -> Pseudonyms | None:
    """Reads the key that ``deidentify`` asks for; None where it does not.

    Args:
        config: of the packing.
        may_make_key: write a new key where there is no file.

    Raises:
        ConfigurationError: as ``check_deidentify``; or the key cannot be used.
    """
    if not config.deidentify:
        return None
    check_deidentify(config)
    path = Path(config.deidentify_key).expanduser()
    if may_make_key and make_key(path):
        say(
            f"pack: made the key {path}. Keep it, so that other datasets get the same hashes, and "
            "keep it secret: with it, hashes can be traced to patients"
        )
    return Pseudonyms(read_key(path))


def check_deidentify(config: PackConfig) -> None:
    """Refuses settings of ``deidentify`` by which patients would be given away.

    Raises:
        ConfigurationError: the key lies where it would be passed on with the data, a filter of
            the layout names patients, studies or images, or any cell of a table may name a
            finding.
    """
    path = Path(config.deidentify_key).expanduser()
    for name in ("source", "output"):
        folder = Path(getattr(config, name)).resolve()
        if path.resolve().is_relative_to(folder):
            raise ConfigurationError(
                f"deidentify_key {path} lies in the {name} {folder}, with which it would be "
                "passed on; choose a file elsewhere"
            )
    columns = identifying_filters(config.layout_options)
    if columns:
        raise ConfigurationError(
            f"layout_options.filters names wanted values of '{columns[0]}', which tells patients, "
            "studies or images apart, and settings are kept beside the shards. To deidentify, "
            "leave this filter out and point the option 'table' at a table of the wanted rows"
        )
    column = config.layout_options.get("findings_column")
    if column and not config.layout_options.get("finding_names"):
        raise ConfigurationError(
            f"layout_options.findings_column is '{column}' without finding_names, so that whatever "
            "its cells hold would name a finding, in clear. To deidentify, list the wanted "
            "findings in layout_options.finding_names"
        )


def kept_layout_options(config: PackConfig) -> dict[str, Any]:
    """Returns the layout's options as they are kept beside the shards.

    De-identified, those that name files or folders of the source are left out.
    """
    options = as_plain(config)["layout_options"]
    left_out = PATH_OPTIONS if config.deidentify else ()
    return {name: value for name, value in options.items() if name not in left_out}


def dataset_identity(
    config: PackConfig,
    inputs: Sequence[tuple[str, str, SourceRecord]],
    findings: Sequence[str],
    pseudonyms: Pseudonyms | None,
) -> dict[str, Any]:
    """Returns the settings that decide the bytes, and a fingerprint of the inputs.

    Args:
        config: of the packing.
        inputs: shard, key and record of each input, in the order of the shards.
        findings: the dataset's vocabulary.
        pseudonyms: of the key that the records were de-identified with, or None.
    """
    settings = {
        name: value for name, value in as_plain(config).items() if name not in _NOT_IN_THE_BYTES
    }
    settings["layout_options"] = kept_layout_options(config)
    left_out = sorted(config.layout_options.keys() - settings["layout_options"].keys())
    if left_out:
        settings["layout_options_left_out"] = left_out
    if pseudonyms is not None:
        settings["deidentified"] = {"method": METHOD, "key_fingerprint": pseudonyms.fingerprint}
    content = _source_content_sha256(inputs, findings, pseudonyms)
    return {**settings, "source_content_sha256": content}


def _source_content_sha256(
    inputs: Sequence[tuple[str, str, SourceRecord]],
    findings: Sequence[str],
    pseudonyms: Pseudonyms | None,
) -> str:
    """A fingerprint of the listed files and of everything that the tables say about them."""
    digest = hashlib.sha256(json.dumps(list(findings)).encode())
    for shard, key, record in inputs:
        names = [path.name for path in record.masks]
        if pseudonyms is not None:  # a hash without key over a file's name could be guessed
            names = [pseudonyms.of("mask", name) for name in names]
        sizes = [_size(path) for path in record.masks]
        masks = [list(pair) for pair in zip(names, sizes, strict=True)]
        facts = [record.mask_kind, record.mask_classes, record.patient_id, record.stratum]
        facts += [None if record.findings is None else dict(record.findings)]
        facts += [dict(record.labels), record.problem, record.name, _size(record.image), masks]
        digest.update(json.dumps([shard, key, facts], sort_keys=True).encode())
    return digest.hexdigest()


def modification_sha256(records: Sequence[SourceRecord]) -> str:
    """A fingerprint of when the inputs were last changed.

    It is no part of the dataset, which a copy of the source must give byte for byte; but an
    interrupted packing does not go on over files that have changed meanwhile.

    Args:
        records: in the order of the shards.
    """
    digest = hashlib.sha256()
    for record in records:
        for path in (record.image, *record.masks):
            digest.update(f"{_modified(path)};".encode())
    return digest.hexdigest()


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return -1


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # vanished or unreadable: the worker sets it aside with the reason
