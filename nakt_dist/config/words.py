"""Words of a command line that name the words of another one."""

import json
import re
from collections.abc import Sequence


def name_rest(field: str, words: Sequence[str]) -> list[str]:
    """Turns ``… -- OTHERS`` into settings by name.

    Before ``--`` settings may be written as schedulers write theirs: ``--cpus-per-task 4``.

    Args:
        field: the setting, a list of texts, that the words after ``--`` fill.
        words: of the command line.
    """
    cut = words.index("--") if "--" in words else len(words)
    own, rest = [_underscored(word) for word in words[:cut]], list(words[cut + 1 :])
    # As one JSON list, so that no word is taken for a setting or for a list of its own.
    return [*own, f"--{field}={json.dumps(rest, ensure_ascii=False)}"] if rest else own


def _underscored(word: str) -> str:
    """Writes the name of ``--name`` or ``--name=value`` with underscores."""
    found = re.fullmatch(r"--([\w.-]+)(=.*)?", word, re.DOTALL)
    return f"--{found[1].replace('-', '_')}{found[2] or ''}" if found else word
