"""A strict reader of Prometheus' text format 0.0.4, and of the conventions of names."""

import math
import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
_HELP = re.compile(rf"# HELP ({_NAME}) ((?:[^\\\n]|\\\\|\\n)+)")
_TYPE = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|summary|histogram|untyped)")
_SAMPLE = re.compile(rf"({_NAME})(?:\{{((?:{_LABEL})(?:,{_LABEL})*)\}})? (\S+)")
_NUMBER = re.compile(r"[+-]?(Inf|\d+(\.\d+)?(e[+-]?\d+)?)|NaN")
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
_BASE_UNITS = ("_milliseconds", "_minutes", "_hours", "_megabytes", "_mib", "_kb", "_percent")


@dataclass
class ReadFamily:
    """A metric as it was read: its type, its help, and the value of each series by its labels."""

    kind: str
    help: str
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = field(default_factory=dict)

    def value(self, ending: str = "", **labels: str) -> float:
        """Returns the one value whose labels hold these."""
        found = [
            value
            for (name, own), value in self.samples.items()
            if name.endswith(ending) and labels.items() <= dict(own).items()
        ]
        assert len(found) == 1, (labels, self.samples)
        return found[0]


def read_metrics(content: bytes) -> dict[str, ReadFamily]:
    """Reads metrics; an AssertionError names the first line that is not as it should be."""
    text = content.decode()
    assert not text or text.endswith("\n")
    families: dict[str, ReadFamily] = {}
    name, promised = "", None
    for line in text.splitlines():
        if line.startswith("# HELP"):
            told = _HELP.fullmatch(line)
            assert told and told[1] not in families, line
            name, promised = told[1], ReadFamily("", told[2])
        elif line.startswith("#"):
            told = _TYPE.fullmatch(line)
            assert told and told[1] == name and promised is not None, line
            promised.kind = told[2]
            families[name], promised = promised, None
            _check_name(name, told[2])
        else:
            assert promised is None, f"no TYPE before {line}"
            _read_sample(line, name, families[name])
    assert promised is None, f"{name} has HELP alone"
    assert all(family.samples for family in families.values())
    return families


def _check_name(name: str, kind: str) -> None:
    assert not name.endswith(_BASE_UNITS), f"{name}: not in a base unit"
    assert name.endswith("_total") == (kind == "counter"), f"{name}: is a {kind}"
    assert name == name.lower() and name.startswith("nakt_"), name


def _read_sample(line: str, name: str, family: ReadFamily) -> None:
    found = _SAMPLE.fullmatch(line)
    assert found, f"no sample, or with a timestamp: {line}"
    endings = ("_sum", "_count") if family.kind == "summary" else ("",)
    assert found[1] in [name + ending for ending in endings], f"{line} stands with {name}"
    assert _NUMBER.fullmatch(found[found.re.groups]), line
    labels = [(key, _plain(value)) for key, value in re.findall(_LABEL, found[2] or "")]
    names = [key for key, _ in labels]
    assert len(set(names)) == len(names) and not {"job", "instance"} & set(names), line
    assert not any(key.startswith("__") for key in names), line
    series = (found[1], tuple(sorted(labels)))
    assert series not in family.samples, f"twice: {line}"
    value = float(found[found.re.groups])
    assert family.kind == "gauge" or (value >= 0 and math.isfinite(value)), line
    family.samples[series] = value


def _plain(value: str) -> str:
    return re.sub(r'\\[\\"n]', lambda found: _ESCAPES[found[0]], value)
