"""The settings that decide the bytes of a packed dataset, and the key if any."""

from pathlib import Path
from typing import Any

from nakt_dist.config import PackConfig, as_plain
from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.key_file import make_key, read_key
from nakt_dist.runtime.processes import say
from nakt_dist.sources import find_source
from nakt_dist.sources.deidentification import METHOD, Pseudonyms

_NOT_IN_THE_BYTES = (
    "source", "output", "workers", "card", "deidentify", "deidentify_key", "trust_times",
)  # fmt: skip


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
        ConfigurationError: the key lies where it would be passed on with the data, or options of
            the layout would give patients away; or there is no such layout.
    """
    path = Path(config.deidentify_key).expanduser()
    for name in ("source", "output"):
        folder = Path(getattr(config, name)).resolve()
        if path.resolve().is_relative_to(folder):
            raise ConfigurationError(
                f"deidentify_key {path} lies in the {name} {folder}, with which it would be "
                "passed on; choose a file elsewhere"
            )
    check = find_source(config.layout).check_deidentified
    if check is not None:
        check(config.layout_options)


def kept_layout_options(config: PackConfig) -> dict[str, Any]:
    """Returns the layout's options as they are kept beside the shards.

    De-identified, those that name files or folders of the source are left out.
    """
    options = as_plain(config)["layout_options"]
    left_out = find_source(config.layout).path_options if config.deidentify else ()
    return {name: value for name, value in options.items() if name not in left_out}


def identity_of_settings(config: PackConfig, pseudonyms: Pseudonyms | None) -> dict[str, Any]:
    """Returns the settings that decide the bytes, as plain values.

    Args:
        config: of the packing.
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
    return settings
