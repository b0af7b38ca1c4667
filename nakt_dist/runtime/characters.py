"""What is printed where the terminal, the log or the locale does not know a character.

A log that is Latin-1 or ASCII has no ellipsis and no α. Such a character is replaced by what it
looks like; a run never ends because of what it had to say.
"""

import codecs
import io
import os
import sys
import unicodedata
from pathlib import Path

_HANDLER = "nakt_look_alike"

_LOOK_ALIKES = {
    "…": "...", "–": "-", "—": "-", "−": "-", "‐": "-", "·": ".", "•": "*", "×": "x", "÷": "/",
    "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "±": "+/-", "→": "->", "←": "<-", "√": "sqrt",
    "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "ß": "ss", "°": " deg",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "κ": "kappa",
    "λ": "lambda", "σ": "sigma", "τ": "tau", "Δ": "delta", "Σ": "sum", "µ": "u", "μ": "u", "‖": "|",
    "─": "-", "━": "-", "═": "-", "│": "|", "┃": "|", "║": "|", "█": "#",
}  # fmt: skip


def replace_unprintable() -> None:
    """Makes stdout and stderr of this process replace characters that they cannot hold.

    A stream that is no text file, such as one that tests put there, stays as it is; one that was
    closed before the program began (``>&-``) swallows what is printed.
    """
    codecs.register_error(_HANDLER, _look_alikes)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - to the end
            setattr(sys, name, nowhere)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_HANDLER)


def _look_alikes(error: UnicodeError) -> tuple[str, int]:
    """Handles characters that an encoding lacks: ASCII in their place, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(look_alike, error.object[error.start : error.end])), error.end


def look_alike(character: str) -> str:
    """Returns ASCII that looks like a character: a letter without its accents, else ``?``."""
    known = _LOOK_ALIKES.get(character)
    if known is not None:
        return known
    if "\u2500" <= character <= "\u257f":  # corners and crossings of tables
        return "+"
    bare = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return bare or "?"
