"""Shard keys: short, safe names for the images of a dataset."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

from nakt_dist.sources.files import split_suffix

MAX_KEY_CHARACTERS = 100
_FIRST_HASH_DIGITS = 8
_UNSAFE = re.compile(r"[^a-z0-9-]+")


def assign_keys(names: Sequence[str]) -> list[str]:
    """Gives each image the key that its members in a shard carry.

    A key is the path without the folders that all names share and without its suffix, in
    lower-case ASCII: accents are folded, everything else becomes ``_``. Names whose keys
    would be the same each get ``-`` and the first digits of the SHA-256 of the whole name
    (8, and more in the unlikely case that these are the same too).

    The keys depend on the set of names alone, not on their order.

    Args:
        names: paths below the dataset's root with ``/``, each once; need not be valid UTF-8.

    Returns:
        The keys in the order of ``names``: unique, 1 to 100 characters of ``a-z0-9_-``.

    Raises:
        ValueError: a name stands there twice.
    """
    if len(set(names)) < len(names):
        repeated = Counter(names).most_common(1)[0][0]
        raise ValueError(f"the name {repeated!r} was given more than once")
    shared = _shared_folders(names)
    readable = {name: _readable_key(name[shared:]) for name in names}
    digits = {name: 0 if readable[name] else _FIRST_HASH_DIGITS for name in names}
    while True:
        keys = {name: _key(name, readable[name], digits[name]) for name in names}
        counts = Counter(keys.values())
        repeated_names = [name for name in names if counts[keys[name]] > 1]
        if not repeated_names:
            return [keys[name] for name in names]
        for name in repeated_names:
            digits[name] = digits[name] * 2 or _FIRST_HASH_DIGITS


def _shared_folders(names: Sequence[str]) -> int:
    """Returns how many characters the folders that all names share take."""
    folders = [name.split("/")[:-1] for name in names]
    shared = 0
    for level in zip(*folders, strict=False):
        if len(set(level)) > 1:
            break
        shared += len(level[0]) + 1
    return shared


def _readable_key(path: str) -> str:
    """Returns the key without a hash; empty when no character of the path is safe."""
    folder, slash, file_name = path.rpartition("/")
    stem = split_suffix(file_name)[0]
    decomposed = unicodedata.normalize("NFKD", f"{folder}{slash}{stem}")
    without_accents = "".join(c for c in decomposed if not unicodedata.combining(c))
    safe = _UNSAFE.sub("_", without_accents.lower()).strip("_-")
    return safe[:MAX_KEY_CHARACTERS].rstrip("_-")


def _key(name: str, readable: str, digits: int) -> str:
    if digits == 0:
        return readable
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
    start = (readable or "image")[: MAX_KEY_CHARACTERS - 1 - digits].rstrip("_-")
    return f"{start}-{digest}"
