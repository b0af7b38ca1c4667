"""Configurations as plain values and as YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.files import write_bytes

CONFIG_NAME = "config.yaml"

LARGEST_SIDE = 8192
"""Most rows or columns of a network's input."""

LARGEST_SEED = 2**63 - 1
"""What NumPy and torch both take."""

LARGEST_FACTOR = 1e30
"""Larger numbers, or what a training makes of them, overflow float32."""

_MOST_PROCESSES = 1024


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
        config: a stage's configuration.
        folder: the stage's output.
        leave_out: top-level settings that change no output, such as ``workers``.
        staging: folder for the unfinished file, as for ``atomic_write``.
    """
    plain = {key: value for key, value in as_plain(config).items() if key not in leave_out}
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
    write_bytes(folder / CONFIG_NAME, text.encode(), staging)


def require(condition: bool, name: str, expected: str) -> None:
    """Refuses a setting.

    Raises:
        ConfigurationError: the condition does not hold.
    """
    if not condition:
        raise ConfigurationError(f"{name} must be {expected}")


def require_positive(number: float | None, name: str, or_null: str = "") -> None:
    """Refuses a factor that is not above 0, or larger than ``LARGEST_FACTOR``; None passes.

    Args:
        number: the factor.
        name: of the field.
        or_null: what null means there, for the message; empty where it cannot be.
    """
    expected = f"positive, at most {LARGEST_FACTOR:g}{or_null and f', or null for {or_null}'}"
    require(number is None or 0 < number <= LARGEST_FACTOR, name, expected)


def require_seed(seed: int, name: str = "seed") -> None:
    """Refuses a seed that is not from 0 to ``LARGEST_SEED``."""
    require(0 <= seed <= LARGEST_SEED, name, f"0 or more, at most {LARGEST_SEED}")


def require_processes(number: int | None, name: str, least: int = 1) -> None:
    """Refuses a number of processes or threads that no machine has; None passes."""
    expected = f"{'0 or more' if least == 0 else 'positive'}, at most {_MOST_PROCESSES}"
    require(number is None or least <= number <= _MOST_PROCESSES, name, expected)


def require_splits(splits: Sequence[str] | None, name: str) -> None:
    """Refuses a choice of no split; None, for all, passes."""
    require(splits is None or len(splits) > 0, name, "a list with a split, or null for all splits")


def require_paths(config: Any, *names: str, prefix: str = "") -> None:
    """Refuses what no file can be called in fields with paths or addresses; None passes."""
    for name in names:
        path = getattr(config, name)
        require(
            path is None or (path != "" and "\0" not in path),
            f"{prefix}{name}",
            f"a path, not {path!r}",
        )
