"""A secret key in a file that its owner alone can read."""

import re
import secrets
import stat
from pathlib import Path

from nakt_dist.errors import ConfigurationError
from nakt_dist.runtime.files import atomic_write

_KEY = re.compile(rb"[0-9a-f]{64}\n?")


def read_key(path: Path) -> bytes:
    """Reads a key of 32 bytes.

    Raises:
        ConfigurationError: the file is absent, others may read it, or it holds no key. The
            message never quotes what is in it.
    """
    try:
        mode = path.stat().st_mode
        content = path.read_bytes() if stat.S_ISREG(mode) else b""
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the key cannot be read ({error.strerror}); give the file that holds it"
        ) from None
    if mode & 0o077:
        raise ConfigurationError(
            f"{path}: others than its owner may use this key (mode {stat.S_IMODE(mode):04o}); "
            f"run: chmod 600 {path}"
        )
    if not _KEY.fullmatch(content):
        raise ConfigurationError(
            f"{path}: holds no key; expected 64 hexadecimal digits in lower case. Restore the "
            "file, or name a new one, which is then made"
        )
    return bytes.fromhex(content.decode())


def make_key(path: Path) -> bool:
    """Writes a new key with mode 0600, unless the file is there; returns whether it was made.

    Of several processes that try, one makes it; none ever sees half of it, and the key is on
    the disk when this returns.

    Raises:
        NaktError: the disk is full.
    """
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with atomic_write(path, replace=False, mode=0o600) as stream:
            stream.write(f"{secrets.token_hex(32)}\n".encode())
    except FileExistsError:
        return False
    return True
