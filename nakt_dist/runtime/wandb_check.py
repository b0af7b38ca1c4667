"""What W&B would complain about, found before anything is built."""

import configparser
import contextlib
import netrc
import os
import re
import sys
from pathlib import Path
from urllib.parse import urlsplit

from nakt_dist.errors import ConfigurationError, DatasetError
from nakt_dist.runtime.wandb_run import (
    FOLDER_NAME,
    RUN_ID_NAME,
    explained,
    import_wandb,
    read_run_id,
    sweeps_run_id,
)

_SERVER = "https://api.wandb.ai"
_SAME_MODE = {"dryrun": "offline", "run": "online", "shared": "online"}
_MODES = ("online", "offline", "disabled", *_SAME_MODE)
_CONTRADICTING = ("WANDB_RESUME_FROM", "WANDB_FORK_FROM", "WANDB_RUN_ID")
_SHORTEST_SECRET = 40


def check_tracking(folder: Path, mode: str) -> None:
    """Refuses what W&B could not start with, where it can be known without asking the server.

    Args:
        folder: output of the run; may be absent.
        mode: ``off``, ``offline`` or ``online``.

    Raises:
        ConfigurationError: a variable contradicts the setting, or there is no usable API key.
        DatasetError: W&B's files in the folder are not what they should be.
        NaktError: W&B does not understand its variables.
    """
    if mode == "off":
        return
    check_account(mode)
    _check_run(folder)
    place = folder / FOLDER_NAME
    if place.exists() and not (place.is_dir() and os.access(place, os.W_OK)):
        found = "is a folder that cannot be written to" if place.is_dir() else "is not a folder"
        raise DatasetError(
            f"{place}: {found}, and W&B keeps its files there. Mend or remove it, or set "
            "tracking.wandb to off"
        )


def check_account(mode: str, setting: str = "tracking.wandb") -> None:
    """Refuses what is wrong whatever the run: variables, and the API key of ``online``.

    Args:
        mode: ``offline`` or ``online``.
        setting: that chose it.

    Raises:
        ConfigurationError: a variable contradicts the setting, or there is no usable API key.
        NaktError: W&B does not understand its variables.
    """
    _check_mode(mode, setting)
    if mode == "online":
        _check_key(setting)
    wandb = import_wandb()
    with explained(mode, setting):
        wandb.Settings().update_from_env_vars(dict(os.environ))


def _check_mode(mode: str, setting: str) -> None:
    asked = os.environ.get("WANDB_MODE")
    if asked and asked not in _MODES:
        raise ConfigurationError(
            f"WANDB_MODE is {asked!r} in the environment, expected {', '.join(_MODES[:3])}; unset "
            f"it, {setting} decides"
        )
    if asked and _SAME_MODE.get(asked, asked) != mode:
        raise ConfigurationError(
            f"{setting} is {mode}, and WANDB_MODE is {asked} in the environment; unset the "
            f"variable, or set {setting} to {_setting_for(asked)}"
        )


def _check_run(folder: Path) -> None:
    """Refuses variables that name another W&B run than the output's, but those of a sweep."""
    read_run_id(folder)
    for name in _CONTRADICTING:
        if os.environ.get(name) and not (sweeps_run_id() and name == "WANDB_RUN_ID"):
            raise ConfigurationError(
                f"{name} is set in the environment, and a run here goes on with the W&B run whose "
                f"id is in {RUN_ID_NAME} of its output; unset {name}"
            )


def _setting_for(asked: str) -> str:
    return "off" if asked == "disabled" else _SAME_MODE.get(asked, asked)


def _check_key(setting: str) -> None:
    """Refuses online tracking without an API key that has the form of one; never shows it."""
    if os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return
    where, key = _find_key()
    if key is None:
        if sys.stdin is not None and sys.stdin.isatty():
            return  # W&B asks for it
        raise ConfigurationError(
            f"{setting} is online, and there is no W&B API key: neither WANDB_API_KEY nor an "
            f"entry of .netrc. Set one, run `wandb login`, or set {setting} to offline"
        )
    fault = _fault_of_key(key)
    if fault is not None:
        raise ConfigurationError(
            f"{setting} is online, and the W&B API key of {where} {fault}; copy it once "
            f"more from W&B's page of user settings, or set {setting} to offline"
        )


def _find_key() -> tuple[str, str | None]:
    """Returns where W&B would take its API key from, and the key."""
    key = os.environ.get("WANDB_API_KEY")
    if key:
        return "WANDB_API_KEY", key
    settings = _user_settings()
    if settings.get("api_key"):
        return "W&B's settings file", settings["api_key"]
    server = os.environ.get("WANDB_BASE_URL") or settings.get("base_url") or _SERVER
    given = os.environ.get("NETRC")
    home = Path("~").expanduser()
    for path in [Path(given)] if given else [home / ".netrc", home / "_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
            entry = netrc.netrc(str(path)).authenticators(urlsplit(server).netloc)
            if entry and entry[2]:
                return str(path), entry[2]
    return "", None


def _user_settings() -> dict[str, str]:
    folder = Path(os.environ.get("WANDB_CONFIG_DIR") or Path("~/.config/wandb").expanduser())
    parser = configparser.ConfigParser(interpolation=None)
    with contextlib.suppress(OSError, configparser.Error, UnicodeDecodeError):
        parser.read(folder / "settings", encoding="utf-8")
    return dict(parser["default"]) if parser.has_section("default") else {}


def _fault_of_key(key: str) -> str | None:
    """Says what is wrong with the form of a key; None where nothing is."""
    if key != key.strip():
        return "has blanks around it"
    if re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", key):  # a JSON web token
        return None
    secret = key.split("-", 1)[-1]  # the keys of an own server have a prefix
    if not re.fullmatch(r"[\w-]+", secret):
        return "has characters other than letters, digits and _"
    if len(secret) < _SHORTEST_SECRET:
        return f"has {len(secret)} characters, expected {_SHORTEST_SECRET} or more"
    return None
