"""Configurations as plain values and as YAML."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from nakt_dist.runtime.files import write_bytes

CONFIG_NAME = "config.yaml"


def as_plain(config: Any) -> dict[str, Any]:
    """Returns a configuration as nested plain values that YAML and JSON can hold."""
    return _plain(asdict(config))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def save_config(
    config: Any, folder: Path, leave_out: tuple[str, ...] = (), staging: Path | None = None
) -> None:
    """Writes the resolved configuration as ``config.yaml`` that ``--config`` reads again.

    Args:
        leave_out: top-level settings that change no output, such as ``workers``.
        staging: folder for the unfinished file, as for ``atomic_write``.
    """
    plain = {key: value for key, value in as_plain(config).items() if key not in leave_out}
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    write_bytes(folder / CONFIG_NAME, text.encode(), staging)
